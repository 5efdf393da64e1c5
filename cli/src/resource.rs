//! What a word on the command line means: `po`, `pods`, `Pod`, `deployments.apps`, `pods,svc`, `rc/web`, `all`.

use anyhow::{anyhow, bail};
use proto::codec::{ResourceInfo, schema};

/// One thing asked for.
#[derive(Clone)]
pub struct Wanted {
    pub info: &'static ResourceInfo,
    /// None: all of them.
    pub name: Option<String>,
}

/// Everything asked for by the arguments of one command.
#[derive(Clone)]
pub struct Query {
    pub wanted: Vec<Wanted>,
    /// Several resources or a category: rows name their kind, and empty kinds are left out.
    pub is_mixed: bool,
}

/// Reads `TYPE`, `TYPE NAME...`, `TYPE/NAME...`; TYPE may be a comma-separated list or a category.
///
/// # Errors
/// Where a type is unknown, or the two forms are mixed.
pub fn query(words: &[String]) -> anyhow::Result<Query> {
    let Some(first) = words.first() else {
        bail!("You must specify the type of resource, such as \"pods\" (see: stay api-resources)");
    };
    if words.iter().any(|word| word.contains('/')) {
        let mut wanted = Vec::new();
        for word in words {
            let (kind, name) = word.split_once('/').ok_or_else(|| {
                anyhow!("there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'stay get resource/<resource_name>' instead of 'stay get resource resource/<resource_name>'")
            })?;
            if name.is_empty() || name.contains('/') {
                bail!(
                    "arguments in resource/name form may not have more than one slash, and must have a name: {word:?}"
                );
            }
            wanted.push(Wanted { info: lookup(kind)?, name: Some(name.to_owned()) });
        }
        let is_mixed = wanted.iter().any(|one| one.info.message != wanted[0].info.message);
        return Ok(Query { wanted, is_mixed });
    }
    let mut infos: Vec<&'static ResourceInfo> = Vec::new();
    for word in first.split(',').filter(|word| !word.is_empty()) {
        match category(word) {
            members if members.is_empty() => infos.push(lookup(word)?),
            members => infos.extend(members),
        }
    }
    let is_mixed = infos.len() > 1;
    let names = &words[1..];
    let wanted = infos.into_iter().flat_map(|info| match names {
        [] => vec![Wanted { info, name: None }],
        names => names.iter().map(|name| Wanted { info, name: Some(name.clone()) }).collect(),
    });
    Ok(Query { wanted: wanted.collect(), is_mixed })
}

/// The resource a word names: plural, singular, kind or short name, with or without `.version.group` or `.group`.
///
/// # Errors
/// Where there is none; near misses are offered.
pub fn lookup(word: &str) -> anyhow::Result<&'static ResourceInfo> {
    let lower = word.to_lowercase();
    let (name, group) = lower.split_once('.').map_or((lower.as_str(), None), |(name, group)| (name, Some(group)));
    let in_group = |info: &&ResourceInfo| match group {
        None => true,
        Some(wanted) => {
            let resource = &info.resource;
            wanted == resource.group
                || wanted.trim_end_matches('.')
                    == format!("{}.{}", resource.version, resource.group).trim_end_matches('.')
        }
    };
    if let Some(found) =
        schema().resources().iter().filter(in_group).find(|info| names(info).any(|known| known == name))
    {
        return Ok(found);
    }
    let all = schema().resources().iter().flat_map(|info| names(info).collect::<Vec<_>>());
    match nearest(name, all) {
        Some(near) => bail!("the server doesn't have a resource type {word:?}: did you mean {near:?}?"),
        None => bail!("the server doesn't have a resource type {word:?}"),
    }
}

/// The resource of the objects with this apiVersion and kind.
pub fn of_kind(api_version: &str, kind: &str) -> Option<&'static ResourceInfo> {
    schema().resources().iter().find(|info| info.resource.kind == kind && info.api_version() == api_version)
}

/// The resources of a category, by group and name; of two versions of one resource only one.
fn category(word: &str) -> Vec<&'static ResourceInfo> {
    let is_member = |info: &&ResourceInfo| info.resource.categories.iter().any(|category| category == word);
    let mut members: Vec<&ResourceInfo> = schema().resources().iter().filter(is_member).collect();
    members.sort_by_key(|info| (info.resource.group.clone(), info.resource.plural.clone()));
    members.dedup_by_key(|info| (&info.resource.group, &info.resource.plural));
    members
}

/// Everything a resource answers to, in lower case.
fn names(info: &ResourceInfo) -> impl Iterator<Item = String> {
    let resource = &info.resource;
    [resource.plural.clone(), resource.singular.clone(), resource.kind.to_lowercase()]
        .into_iter()
        .chain(resource.short_names.clone())
}

/// `pod`, `deployment.apps`: how a line of output begins.
pub fn line_name(info: &ResourceInfo) -> String {
    let kind = info.resource.kind.to_lowercase();
    if info.resource.group.is_empty() { kind } else { format!("{kind}.{}", info.resource.group) }
}

/// The known word nearest to a mistyped one, where it is near enough to be meant.
pub fn nearest(word: &str, known: impl IntoIterator<Item = String>) -> Option<String> {
    let lower = word.to_lowercase();
    let scored = known.into_iter().map(|candidate| {
        let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
        (distance, candidate)
    });
    let distance_max = match word.len() {
        ..=4 => 1,
        5..=8 => 2,
        _ => 3,
    };
    scored.filter(|(distance, _)| *distance <= distance_max).min().map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn shown(text: &str) -> Vec<String> {
        let query = query(&words(text)).unwrap();
        query
            .wanted
            .iter()
            .map(|one| format!("{}/{}", line_name(one.info), one.name.as_deref().unwrap_or("*")))
            .collect()
    }

    #[test]
    fn resources_answer_to_all_their_names() {
        for word in ["po", "pod", "pods", "Pod", "pods.v1.", "PODS"] {
            assert_eq!(lookup(word).unwrap().resource.plural, "pods", "{word}");
        }
        for word in ["deploy", "deployments.apps", "deployments.v1.apps"] {
            assert_eq!(lookup(word).unwrap().resource.kind, "Deployment", "{word}");
        }
        assert_eq!(lookup("rc").unwrap().resource.plural, "replicationcontrollers");
        assert_eq!(lookup("events").unwrap().resource.group, "");
    }

    #[test]
    fn a_mistyped_resource_is_answered_with_a_near_one() {
        let message = lookup("pdos").err().unwrap().to_string();
        assert_eq!(message, r#"the server doesn't have a resource type "pdos": did you mean "pods"?"#);
        assert!(!lookup("zzzzzz").err().unwrap().to_string().contains("did you mean"));
    }

    #[test]
    fn both_forms_and_lists_are_understood() {
        assert_eq!(shown("pods"), ["pod/*"]);
        assert_eq!(shown("pod a b"), ["pod/a", "pod/b"]);
        assert_eq!(shown("rc/web svc/web"), ["replicationcontroller/web", "service/web"]);
        assert_eq!(shown("po,svc"), ["pod/*", "service/*"]);
        assert!(query(&words("pods rc/web")).is_err());
        assert!(query(&words("pods/")).is_err());
        assert!(query(&[]).is_err());
    }

    #[test]
    fn all_is_the_category_kubectl_users_know() {
        let all = shown("all");
        assert_eq!(&all[..3], ["pod/*", "replicationcontroller/*", "service/*"]);
        assert!(all.contains(&"deployment.apps/*".to_owned()));
    }
}
