//! What the server says it is.

use serde_json::{Value, json};

use crate::{VERSION_MAJOR, VERSION_MINOR, git_version};

pub fn document() -> Value {
    json!({
        "major": VERSION_MAJOR,
        "minor": VERSION_MINOR,
        "emulationMajor": VERSION_MAJOR,
        "emulationMinor": VERSION_MINOR,
        "minCompatibilityMajor": VERSION_MAJOR,
        "minCompatibilityMinor": VERSION_MINOR,
        "gitVersion": git_version(),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none: this is Rust",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}
