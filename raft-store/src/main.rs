//! The store as a process of its own, with etcd's flag names.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use clap::Parser;
use kit::life::{Shutdown, Tasks};
use raft_store::{Node, Options, ServerConfig};
use tokio::net::TcpListener;

/// Consistent, versioned bytes behind the etcd v3 API.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Name of this member
    #[arg(long, env = "ETCD_NAME", default_value = "default")]
    name: String,
    /// Folder of this member's data; <name>.etcd where it is not given
    #[arg(long, env = "ETCD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Addresses to listen on for clients
    #[arg(long, env = "ETCD_LISTEN_CLIENT_URLS", value_delimiter = ',', default_value = "http://localhost:2379")]
    listen_client_urls: Vec<String>,
    /// Addresses told to clients; those listened on where they are not given
    #[arg(long, env = "ETCD_ADVERTISE_CLIENT_URLS", value_delimiter = ',')]
    advertise_client_urls: Vec<String>,
    /// Server certificate, PEM
    #[arg(long, env = "ETCD_CERT_FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// Key of the server certificate, PEM
    #[arg(long, env = "ETCD_KEY_FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// CA whose client certificates are let in, PEM; with it, a client certificate is required
    #[arg(long, env = "ETCD_TRUSTED_CA_FILE", requires = "cert_file")]
    trusted_ca_file: Option<PathBuf>,
    /// More log lines; may be repeated
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    kit::telemetry::init(args.verbose);
    let shutdown = Shutdown::on_signals().context("listen for signals")?;
    let advertised =
        if args.advertise_client_urls.is_empty() { &args.listen_client_urls } else { &args.advertise_client_urls };
    let options = Options {
        name: args.name.clone(),
        data_dir: args.data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("{}.etcd", args.name))),
        advertise_client_urls: advertised.clone(),
        ..Options::default()
    };
    let mut listeners = Vec::new();
    for url in &args.listen_client_urls {
        let address = Address::parse(url)?;
        let tls = if address.secure { Some(tls(&args)?) } else { None };
        let listener = TcpListener::bind(&address.host)
            .await
            .with_context(|| format!("listen on {url} (--listen-client-urls)"))?;
        listeners.push((listener, tls));
    }
    let node = Node::start(options).await?;
    let tasks = Tasks::new();
    for (listener, tls) in listeners {
        let (node, shutdown) = (node.clone(), shutdown.clone());
        tasks.spawn("serve", async move {
            if let Err(error) = node.serve(listener, tls).await {
                tracing::error!(error = format!("{error:#}"), "the store cannot go on serving");
                shutdown.trigger();
            }
        });
    }
    let failure = tokio::select! {
        () = shutdown.triggered() => None,
        failure = node.stopped() => failure,
    };
    if let Some(failure) = failure {
        // What the disk holds is unknown now: another life of this process has to find out.
        bail!("consensus stopped: {failure}");
    }
    node.shutdown().await?;
    tasks.join(Duration::from_secs(5)).await;
    Ok(())
}

struct Address {
    host: String,
    secure: bool,
}

impl Address {
    fn parse(url: &str) -> anyhow::Result<Address> {
        let (scheme, host) = url.split_once("://").with_context(|| {
            format!("--listen-client-urls {url:?} has no scheme: write http://{url} or https://{url}")
        })?;
        let secure = match scheme {
            "http" => false,
            "https" => true,
            other => bail!("--listen-client-urls {url:?} has the scheme {other:?}: http and https are known"),
        };
        let host = host.trim_end_matches('/').to_owned();
        let loopback = host.starts_with("localhost:")
            || host.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
        if !secure && !loopback {
            bail!(
                "--listen-client-urls {url:?} would serve everybody without a password: use https with --cert-file, --key-file and --trusted-ca-file, or a loopback address"
            );
        }
        Ok(Address { host, secure })
    }
}

fn tls(args: &Args) -> anyhow::Result<Arc<ServerConfig>> {
    let read = |path: &Option<PathBuf>, flag: &str| -> anyhow::Result<String> {
        let path = path.as_ref().with_context(|| format!("an https address needs {flag}"))?;
        std::fs::read_to_string(path).with_context(|| format!("read {flag} {}", path.display()))
    };
    let identity = kit::tls::Identity {
        cert_pem: read(&args.cert_file, "--cert-file")?,
        key_pem: read(&args.key_file, "--key-file")?,
    };
    let clients = read(&args.trusted_ca_file, "--trusted-ca-file")?;
    kit::tls::server_config(&identity, &clients, kit::tls::Clients::Certified, &["h2"]).context("read the certificates")
}
