//! What the server says it is.

use serde_json::{Value, json};

/// The Kubernetes API level with our own version behind the plus.
pub const GIT_VERSION: &str = concat!("v1.36.0+forestay.", env!("CARGO_PKG_VERSION"));

pub fn document() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none: this is Rust",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}
