//! Logs: to standard error, as fields, filtered by `FORESTAY_LOG` (the syntax of `RUST_LOG`).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging; later calls do nothing, so that tests may call it freely.
///
/// `verbosity` 0 is `info`, 1 `debug`, 2 and more `trace` for Forestay's own crates.
pub fn init(verbosity: u8) {
    let level = match verbosity {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let default = format!("{level},openraft=error,h2=warn,hyper=warn,rustls=warn,tower=warn,bollard=warn");
    let filter = EnvFilter::try_from_env("FORESTAY_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
