//! The command line's grammar: kubectl's spelling, one verb one struct, and the flags that verbs share in one place.

use std::ffi::OsString;

use clap::{Arg, Args as ClapArgs, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::verb;

/// Controls a Forestay (Kubernetes) cluster.
#[derive(Debug, Parser)]
#[command(name = "stay", max_term_width = 110, args_override_self = true)]
pub struct Args {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Reads a command line; of a flag given twice the last counts, so that an alias's flags can be overruled.
///
/// # Errors
/// Where it is none of ours, or asks for help; the error prints itself.
pub fn parse(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Args, clap::Error> {
    Args::from_arg_matches(&grammar().try_get_matches_from(words)?)
}

/// The whole grammar, as help and completion show it.
pub fn grammar() -> Command {
    quiet_switches(Args::command())
}

/// Help names a switch without the two values that every switch takes.
fn quiet_switches(command: Command) -> Command {
    let quiet = |arg: Arg| match is_switch(&arg) {
        true => arg.value_name("BOOL").hide_default_value(true).hide_possible_values(true),
        false => arg,
    };
    command.mut_args(quiet).mut_subcommands(quiet_switches)
}

fn is_switch(arg: &Arg) -> bool {
    arg.get_possible_values().iter().map(|value| value.get_name()).eq(["true", "false"])
}

/// One verb, one file in `verb/`.
#[derive(Debug, Subcommand)]
pub enum Verb {
    Apply(verb::apply::Apply),
    Create(verb::create::Create),
    Get(verb::get::Get),
    Describe(verb::describe::Describe),
    Delete(verb::delete::Delete),
    Scale(verb::scale::Scale),
    Logs(verb::logs::Logs),
    Exec(verb::exec::Exec),
    Explain(verb::explain::Explain),
    ApiResources(verb::api_resources::ApiResources),
    Version(verb::version::Version),
    Completion(verb::completion::Completion),
}

/// Which cluster, as whom, in which namespace.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Path to the kubeconfig file [default: $KUBECONFIG, ~/.kube/config, /var/lib/forestay/admin.kubeconfig]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<String>,
    /// The context of the kubeconfig file to use
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The cluster of the kubeconfig file to use
    #[arg(long, global = true)]
    pub cluster: Option<String>,
    /// The user of the kubeconfig file to use
    #[arg(long, global = true)]
    pub user: Option<String>,
    /// Address of the API server; several, separated by commas, are tried in turn
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// The namespace to work in
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// File of the certificate authority that signed the server's certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub certificate_authority: Option<String>,
    /// File of the client certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub client_certificate: Option<String>,
    /// File of the client certificate's key
    #[arg(long, global = true, value_name = "FILE")]
    pub client_key: Option<String>,
}

/// Manifests to read.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Filenames {
    /// Files or directories of manifests; - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_delimiter = ',')]
    pub filenames: Vec<String>,
    /// Read the directories in directories too
    #[arg(short = 'R', long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub recursive: bool,
}

/// Which objects of a resource.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Selecting {
    /// Label selector: key1=value1,key2!=value2,key3 in (a,b)
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// Field selector: status.phase=Running,spec.nodeName!=n1
    #[arg(long, value_name = "FIELDS")]
    pub field_selector: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub all_namespaces: bool,
}

/// How a change is made.
#[derive(Clone, Debug, ClapArgs)]
pub struct Changing {
    /// Only say what would be done: "client" sends no change, "server" has it checked in full; neither stores anything
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    pub dry_run: DryRun,
    /// Who owns the fields that are written
    #[arg(long, default_value = "stay")]
    pub field_manager: String,
    /// Unknown and duplicate fields: "strict" (true) refuses, "warn" tells, "ignore" (false) is silent
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "strict", default_missing_value = "strict")]
    pub validate: Validate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    None,
    Client,
    Server,
}

impl DryRun {
    /// What kubectl writes behind the verb.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Validate {
    #[value(alias = "true")]
    Strict,
    Warn,
    #[value(alias = "false")]
    Ignore,
}

/// How objects are printed.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Printing {
    /// Output format: wide, yaml, json, name or jsonpath=TEMPLATE
    #[arg(short = 'o', long = "output", value_name = "FORMAT")]
    pub output: Option<crate::output::Format>,
    /// Show managedFields in YAML and JSON
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub show_managed_fields: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args, clap::Error> {
        parse(line.split_whitespace())
    }

    #[test]
    fn the_grammar_has_no_contradictions() {
        grammar().debug_assert();
    }

    #[test]
    fn of_a_flag_given_twice_the_last_counts() {
        let args = parsed("stay -n a get pods -n b -o yaml -o name").unwrap();
        assert_eq!(args.connection.namespace.as_deref(), Some("b"));
        let Verb::Get(get) = args.verb else { panic!("{:?}", args.verb) };
        assert_eq!(get.printing.output, Some(crate::output::Format::Name));
        let Verb::Apply(apply) = parsed("stay apply -f a -f b,c").unwrap().verb else { panic!() };
        assert_eq!(apply.files.filenames, ["a", "b", "c"]);
    }

    #[test]
    fn a_flag_that_a_verb_does_not_heed_is_refused() {
        for line in [
            "logs -l a=b -A",
            "logs -l a=b --field-selector x=y",
            "delete pod a --show-managed-fields",
            "logs a --tail=-2",
        ] {
            assert!(parsed(&format!("stay {line}")).is_err(), "{line}");
        }
    }

    /// Every argument has a text, and switches do not fill the screen with their values.
    #[test]
    fn help_is_whole_and_short() {
        let mut grammar = grammar();
        grammar.build();
        for verb in grammar.get_subcommands_mut() {
            let help = verb.render_long_help().to_string();
            assert!(!help.contains("possible values: true, false"), "{help}");
            for arg in verb.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", verb.get_name(), arg.get_id());
            }
        }
    }
}
