//! `stay completion`: the shell's part of the command line.

use clap_complete::Shell;

use crate::{args, output::Streams};

/// Print a completion script for a shell: `source <(stay completion bash)`
#[derive(Debug, clap::Args)]
pub struct Completion {
    /// The shell that will read it
    #[arg(value_enum)]
    pub shell: Shell,
}

impl Completion {
    pub fn run(self, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut args::grammar(), "stay", &mut script);
        streams.out.write_all(&script)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::verb::stage::Stage;

    #[tokio::test]
    async fn every_verb_is_completed() {
        let stage = Stage::new().await;
        let script = stage.run("completion bash").await;
        for verb in ["apply", "api-resources", "scale"] {
            assert!(script.contains(verb), "{verb}");
        }
    }
}
