//! `stay api-resources`: every resource the server has, and what it answers to.

use crate::{
    output::{Format, Streams, columns},
    session::Session,
};

/// Show the resources of the server
#[derive(Debug, clap::Args)]
pub struct ApiResources {
    /// Only namespaced resources, or only cluster-scoped ones (=false)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub namespaced: Option<bool>,
    /// Only resources of this API group; "" for the core group
    #[arg(long)]
    pub api_group: Option<String>,
    /// Only resources of these categories
    #[arg(long, value_delimiter = ',')]
    pub categories: Vec<String>,
    /// Only resources with all of these verbs
    #[arg(long, value_delimiter = ',')]
    pub verbs: Vec<String>,
    /// Show rows only
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub no_headers: bool,
    /// By name or by kind, in place of group and name
    #[arg(long, value_name = "COLUMN", value_parser = ["name", "kind"])]
    pub sort_by: Option<String>,
    /// Output format: wide or name
    #[arg(short = 'o', long)]
    pub output: Option<Format>,
}

impl ApiResources {
    pub async fn run(self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let mut resources = session.client()?.resources().await?;
        resources.retain(|resource| {
            self.namespaced.is_none_or(|wanted| resource.namespaced == wanted)
                && self.api_group.as_ref().is_none_or(|group| *group == resource.group)
                && self.categories.iter().all(|category| resource.categories.contains(category))
                && self.verbs.iter().all(|verb| resource.verbs.contains(verb))
        });
        resources.sort_by(|a, b| (&a.group, &a.plural, &a.version).cmp(&(&b.group, &b.plural, &b.version)));
        match self.sort_by.as_deref() {
            Some("name") => resources.sort_by(|a, b| a.plural.cmp(&b.plural)),
            Some(_) => resources.sort_by(|a, b| a.kind.cmp(&b.kind)),
            None => {}
        }
        if self.output == Some(Format::Name) {
            for resource in &resources {
                let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
                writeln!(streams.out, "{}{group}", resource.plural)?;
            }
            return Ok(());
        }
        let is_wide = self.output == Some(Format::Wide);
        let mut rows = Vec::new();
        if !self.no_headers {
            rows.push(["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"].map(str::to_owned).to_vec());
            if is_wide {
                rows[0].extend(["VERBS", "CATEGORIES"].map(str::to_owned));
            }
        }
        for resource in resources {
            let api_version = if resource.group.is_empty() {
                resource.version
            } else {
                format!("{}/{}", resource.group, resource.version)
            };
            let mut row = vec![
                resource.plural,
                resource.short_names.join(","),
                api_version,
                resource.namespaced.to_string(),
                resource.kind,
            ];
            if is_wide {
                row.extend([resource.verbs.join(","), resource.categories.join(",")]);
            }
            rows.push(row);
        }
        Ok(columns::print(streams.out, &rows)?)
    }
}
