//! A stage for the verbs' tests: a fake server, a folder for files, and the command line as people type it.

use std::fs;

use clap::Parser as _;
use client::{Client, fake::FakeApi};
use expect_test::Expect;

use crate::{args::Args, failure, output::Streams, session::Session};

pub struct Stage {
    pub client: Client,
    pub fake: FakeApi,
    folder: tempfile::TempDir,
}

impl Stage {
    pub async fn new() -> Self {
        let (client, fake) = FakeApi::start().await;
        Self { client, fake, folder: tempfile::tempdir().unwrap() }
    }

    /// Writes a file; gives its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Runs a command line without quoting; gives what it printed, with errors and a code other than 0 behind it.
    pub async fn run(&self, line: &str) -> String {
        let words = std::iter::once("stay").chain(line.split_whitespace());
        let args = match Args::try_parse_from(words) {
            Ok(args) => args,
            Err(error) => return error.to_string(),
        };
        let session =
            Session::of_fake(&self.fake).in_namespace(args.connection.namespace.as_deref().unwrap_or("default"));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let outcome = crate::run_verb(args.verb, &session, &mut Streams { out: &mut out, err: &mut err }).await;
        let mut text = String::from_utf8(out).unwrap();
        let code = match &outcome {
            Ok(code) => *code,
            Err(error) => {
                if !failure::is_told(error) {
                    err.extend(format!("{}\n", failure::describe(error)).into_bytes());
                }
                1
            }
        };
        for line in String::from_utf8(err).unwrap().lines() {
            text += &format!("stderr: {line}\n");
        }
        if code != 0 {
            text += &format!("exit code {code}\n");
        }
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }

    pub async fn check(&self, line: &str, expected: Expect) {
        expected.assert_eq(&self.run(line).await);
    }
}
