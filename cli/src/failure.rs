//! How a failure is told: in kubectl's words, so that scripts and eyes find what they look for.

use std::{fmt, io};

use client::Error;

use crate::output::Streams;

/// Failures of single objects: told at once, while the others go on.
#[derive(Default)]
pub struct Failures {
    count: usize,
}

/// Everything has been told already; only the exit code is left to say.
#[derive(Debug)]
struct Told;

impl Failures {
    /// Writes the failure behind everything that was printed before it.
    pub fn tell(&mut self, streams: &mut Streams<'_>, error: &anyhow::Error) -> io::Result<()> {
        self.count += 1;
        streams.out.flush()?;
        writeln!(streams.err, "{}", describe(error))
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// # Errors
    /// Where one was told.
    pub fn into_result(self) -> anyhow::Result<()> {
        if self.is_empty() { Ok(()) } else { Err(anyhow::Error::new(Told)) }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Told {}

/// The failure's text has been printed.
pub fn is_told(error: &anyhow::Error) -> bool {
    error.is::<Told>()
}

/// A reader that went away (`stay get pods | head`) is no failure.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe))
}

/// `Error from server (NotFound): pods "x" not found`, or `error: ...` for what never left this machine.
pub fn describe(error: &anyhow::Error) -> String {
    let Some(refusal) = error.chain().find_map(|cause| cause.downcast_ref::<Error>()) else {
        return format!("error: {error:#}");
    };
    // What was being done, where the caller said so: `error when creating "web.yaml"`.
    let context: String = error
        .chain()
        .take_while(|cause| cause.downcast_ref::<Error>().is_none())
        .map(|cause| format!("{cause}: "))
        .collect();
    of_server(refusal, &context)
}

/// As [`describe`], for an answer of the server.
pub fn of_server(error: &Error, context: &str) -> String {
    let status = error.status();
    match error {
        Error::Unavailable(_) if status.message.contains("transport error") => unreachable(&status.message),
        _ if status.reason == "Invalid" => invalid(error, context),
        _ if status.reason.is_empty() || status.reason == "Unknown" => {
            format!("Error from server: {context}{}", status.message)
        }
        _ => format!("Error from server ({}): {context}{}", status.reason, status.message),
    }
}

/// No server answered.
fn unreachable(message: &str) -> String {
    let message = message.trim_end_matches(": transport error");
    match message.strip_prefix("connect to ").and_then(|rest| rest.split_once(": Connection refused")) {
        Some((address, _)) => {
            format!("The connection to the server {address} was refused - did you specify the right host or port?")
        }
        None => format!("Unable to connect to the server: {message}"),
    }
}

/// `The Pod "x" is invalid: spec.containers: Required value`, one line per cause where there are several.
fn invalid(error: &Error, context: &str) -> String {
    let status = error.status();
    let Some(details) = &status.details else {
        return format!("The request is invalid: {context}{}", status.message);
    };
    let subject = if details.kind.is_empty() && details.name.is_empty() {
        "The request is invalid".to_owned()
    } else {
        format!("The {} {:?} is invalid", details.kind, details.name)
    };
    let mut causes: Vec<String> = Vec::new();
    for cause in &details.causes {
        let text =
            if cause.field.is_empty() { cause.message.clone() } else { format!("{}: {}", cause.field, cause.message) };
        if !causes.contains(&text) {
            causes.push(text);
        }
    }
    match &causes[..] {
        [] => format!("{subject}: {}", status.message),
        [cause] => format!("{subject}: {cause}"),
        causes => format!("{subject}: \n* {}", causes.join("\n* ")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use client::error::failure;
    use expect_test::expect;
    use proto::k8s::meta::v1::{Status, StatusCause, StatusDetails};

    use super::*;
    use crate::verb::stage::Paper;

    fn told(status: Status) -> String {
        describe(&anyhow::Error::from(Error::from_status(status)))
    }

    #[test]
    fn a_refusal_names_its_reason() {
        expect![[r#"Error from server (NotFound): pods "x" not found"#]].assert_eq(&told(failure(
            404,
            "NotFound",
            r#"pods "x" not found"#,
        )));
    }

    #[test]
    fn what_was_being_done_stands_before_the_message() {
        let error =
            anyhow::Error::from(Error::from_status(failure(409, "AlreadyExists", r#"services "web" already exists"#)))
                .context(r#"error when creating "web.yaml""#);
        expect![[
            r#"Error from server (AlreadyExists): error when creating "web.yaml": services "web" already exists"#
        ]]
        .assert_eq(&describe(&error));
    }

    #[test]
    fn an_invalid_object_lists_its_causes() {
        let cause =
            |field: &str| StatusCause { field: field.into(), message: "Required value".into(), ..Default::default() };
        let details = |causes| StatusDetails { kind: "Pod".into(), name: "x".into(), causes, ..Default::default() };
        let status = |causes| Status { details: Some(details(causes)), ..failure(422, "Invalid", "all of it") };
        expect![[r#"The Pod "x" is invalid: spec.containers: Required value"#]]
            .assert_eq(&told(status(vec![cause("spec.containers")])));
        expect![[r#"
            The Pod "x" is invalid: 
            * spec.containers: Required value
            * metadata.name: Required value"#]]
        .assert_eq(&told(status(vec![cause("spec.containers"), cause("metadata.name")])));
    }

    /// A terminal shows both streams, and output is buffered.
    #[test]
    fn a_failure_stands_behind_what_was_done_before_it() {
        let paper = Paper::default();
        let (mut out, mut err) = (io::BufWriter::new(paper.clone()), paper.clone());
        writeln!(out, "pod/a created").unwrap();
        Failures::default().tell(&mut Streams { out: &mut out, err: &mut err }, &anyhow::anyhow!("no b")).unwrap();
        assert_eq!(paper.text(), "pod/a created\nerror: no b\n");
    }

    #[test]
    fn what_fails_here_is_an_error() {
        expect!["error: read kubeconfig: no such file"]
            .assert_eq(&describe(&anyhow::anyhow!("no such file").context("read kubeconfig")));
    }

    #[test]
    fn a_server_that_does_not_answer_is_told_from_one_that_is_busy() {
        let unavailable = |message: &str| told(failure(503, "ServiceUnavailable", message));
        expect!["The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?"]
            .assert_eq(&unavailable("connect to 127.0.0.1:1: Connection refused (os error 111): transport error"));
        expect!["Unable to connect to the server: connect to a:1: invalid peer certificate"]
            .assert_eq(&unavailable("connect to a:1: invalid peer certificate: transport error"));
        expect!["Error from server (ServiceUnavailable): no leader"].assert_eq(&unavailable("no leader"));
    }
}
