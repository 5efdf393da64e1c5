//! The command line's grammar: kubectl's spelling, one verb one struct, and the flags that verbs share in one place.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::verb;

/// Controls a Forestay (Kubernetes) cluster.
#[derive(Debug, Parser)]
#[command(name = "stay", disable_help_subcommand = true, max_term_width = 110)]
pub struct Args {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub verb: Verb,
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
    /// Path to the kubeconfig file [default: $KUBECONFIG, ~/.kube/config, /etc/forestay/admin.kubeconfig]
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
    /// Only say what would be done: "client" asks nobody, "server" goes through all checks and stores nothing
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
    /// Output format: wide, yaml, json or name
    #[arg(short = 'o', long = "output", value_name = "FORMAT")]
    pub output: Option<crate::output::Format>,
    /// Show managedFields in YAML and JSON
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub show_managed_fields: bool,
}
