//! `stay version`: what this is, and what the server is.

use serde_json::json;

use crate::{
    output::{self, Format, Streams},
    session::Session,
};

/// Show the versions of the client and the server
#[derive(Debug, clap::Args)]
pub struct Version {
    /// Only the client's; no server is asked
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub client: bool,
    /// Output format: yaml or json
    #[arg(short = 'o', long)]
    pub output: Option<Format>,
}

impl Version {
    pub async fn run(self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let client = format!("v{}", env!("CARGO_PKG_VERSION"));
        let server = if self.client { None } else { Some(session.client()?.version().await) };
        match &self.output {
            Some(format) => {
                let mut value = json!({"clientVersion": {"gitVersion": client}});
                if let Some(Ok(server)) = &server {
                    value["serverVersion"] =
                        json!({"gitVersion": server.git_version, "major": server.major, "minor": server.minor});
                }
                output::print_value(streams.out, format, &value)?;
            }
            None => {
                writeln!(streams.out, "Client Version: {client}")?;
                if let Some(Ok(server)) = &server {
                    writeln!(streams.out, "Server Version: {}", server.git_version)?;
                }
            }
        }
        match server {
            Some(Err(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::verb::stage::Stage;

    #[tokio::test]
    async fn the_clients_version_needs_no_server() {
        let stage = Stage::new().await;
        stage.check("version --client", expect!["Client Version: v0.1.0\n"]).await;
    }
}
