//! Manifests: read from files, folders and standard input, and checked as a whole before anything is written.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use model::yaml::{self, Document, Place};
use proto::{
    Object,
    codec::{self, Issue, IssueKind, ResourceInfo, schema},
};
use serde_json::Value;

use crate::{
    args::{Filenames, Validate},
    resource::{self, line_name},
    session::{Session, target},
};

/// One object as a file declares it.
pub struct Manifest {
    pub source: String,
    pub info: &'static ResourceInfo,
    /// With the namespace it goes to.
    pub value: Value,
    pub namespace: String,
    /// Empty where the name is to be generated.
    pub name: String,
}

impl Manifest {
    pub fn target(&self) -> client::Target {
        target(self.info, &self.namespace, &self.name)
    }

    /// `pod/web`
    pub fn line_name(&self) -> String {
        format!("{}/{}", line_name(self.info), self.name)
    }

    /// The object of a value of this manifest's kind, ready to be sent.
    ///
    /// # Errors
    /// Where the value is not of that kind; checked manifests are.
    pub fn object(&self, value: &Value) -> anyhow::Result<Object> {
        let decoded =
            codec::value_to_proto(self.info.message, value).with_context(|| format!("encode {}", self.line_name()))?;
        let resource = &self.info.resource;
        Ok(Object::from_raw(&self.info.api_version(), &resource.kind, self.info.arm, decoded.bytes.into()))
    }
}

/// Which objects a command can do something with.
#[derive(Clone, Copy, PartialEq)]
enum Names {
    Given,
    /// The server may make one.
    GivenOrGenerated,
}

/// Reads all manifests of a command; each names its object.
///
/// # Errors
/// Lists everything that is wrong with them, each with file, line and column; warnings go to `warnings`.
pub fn read(
    filenames: &Filenames,
    session: &Session,
    validate: Validate,
    warnings: &mut dyn std::io::Write,
) -> anyhow::Result<Vec<Manifest>> {
    read_all(filenames, session, validate, Names::Given, warnings)
}

/// As [`read`], for objects that are to be made: their names may be left to the server.
///
/// # Errors
/// As [`read`].
pub fn read_new(
    filenames: &Filenames,
    session: &Session,
    validate: Validate,
    warnings: &mut dyn std::io::Write,
) -> anyhow::Result<Vec<Manifest>> {
    read_all(filenames, session, validate, Names::GivenOrGenerated, warnings)
}

fn read_all(
    filenames: &Filenames,
    session: &Session,
    validate: Validate,
    names: Names,
    warnings: &mut dyn std::io::Write,
) -> anyhow::Result<Vec<Manifest>> {
    if filenames.filenames.is_empty() {
        bail!("must specify one of -f and -k");
    }
    let mut documents = Vec::new();
    for name in &filenames.filenames {
        documents_of(name, filenames.recursive, &mut documents)?;
    }
    let (mut manifests, mut problems) = (Vec::new(), Vec::new());
    for document in documents {
        for document in elements(document) {
            match checked(&document, session, validate, names) {
                Ok((manifest, found)) => {
                    for warning in found {
                        writeln!(warnings, "Warning: {warning}")?;
                    }
                    manifests.push(manifest);
                }
                Err(found) => problems.extend(found),
            }
        }
    }
    if !problems.is_empty() {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        bail!("{}", lines.join("\n"));
    }
    if manifests.is_empty() {
        bail!("no objects passed to the command: {} holds none", filenames.filenames.join(", "));
    }
    Ok(manifests)
}

fn documents_of(name: &str, is_recursive: bool, documents: &mut Vec<Document>) -> anyhow::Result<()> {
    if name == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
        documents.extend(yaml::parse(&text, "STDIN")?);
        return Ok(());
    }
    if name.starts_with("http://") || name.starts_with("https://") {
        bail!("{name} is a URL: fetch it first, for example `curl -sL {name} | stay apply -f -`");
    }
    let path = Path::new(name);
    let kind = fs::metadata(path).with_context(|| format!("the path {name:?} cannot be read"))?;
    let mut files = Vec::new();
    if kind.is_dir() {
        files_in(path, is_recursive, &mut files)?;
        if files.is_empty() {
            bail!("error reading {name:?}: recognized file extensions are [.json .yaml .yml]");
        }
    } else {
        files.push(path.to_owned());
    }
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let text = String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{} is not UTF-8 text", file.display()))?;
        documents.extend(yaml::parse(&text, &file.display().to_string())?);
    }
    Ok(())
}

/// The manifests of a folder, by name; folders in it after its files.
fn files_in(folder: &Path, is_recursive: bool, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    let (folders, plain): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
    let is_manifest =
        |path: &PathBuf| path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
    files.extend(plain.into_iter().filter(is_manifest));
    if is_recursive {
        for folder in folders {
            files_in(&folder, true, files)?;
        }
    }
    Ok(())
}

/// A `List` stands for its items; those of a `PodList` need not say that they are Pods.
fn elements(document: Document) -> Vec<Document> {
    let text = |field: &str| document.value[field].as_str().unwrap_or_default();
    let Some(kind) = text("kind").strip_suffix("List") else { return vec![document] };
    let Some(items) = document.value.get("items").and_then(Value::as_array) else { return vec![document] };
    let of_list = resource::of_kind(text("apiVersion"), kind);
    let element = |(at, item): (usize, &Value)| {
        let mut item = item.clone();
        if let (Some(info), Some(fields)) = (of_list, item.as_object_mut()) {
            fields.entry("apiVersion").or_insert_with(|| info.api_version().into());
            fields.entry("kind").or_insert_with(|| kind.into());
        }
        document.element(&format!("items[{at}]"), item)
    };
    items.iter().enumerate().map(element).collect()
}

/// Checks one document; gives the manifest with warnings, or everything that is wrong.
fn checked(
    document: &Document,
    session: &Session,
    validate: Validate,
    names: Names,
) -> Result<(Manifest, Vec<yaml::Error>), Vec<yaml::Error>> {
    let at = |place: Place, message: String| vec![document.error(place, message)];
    let Some(fields) = document.value.as_object() else {
        return Err(at(document.start(), "an object was expected, with apiVersion, kind and metadata".to_owned()));
    };
    let text = |field: &str| match fields.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::String(_) | Value::Null) | None => Err(at(document.start(), format!("{field} not set"))),
        Some(_) => Err(at(document.value_position_of(field), format!("{field} must be text"))),
    };
    let (api_version, kind) = match (text("apiVersion"), text("kind")) {
        (Ok(api_version), Ok(kind)) => (api_version, kind),
        (first, second) => return Err(first.err().into_iter().chain(second.err()).flatten().collect()),
    };
    let Some(info) = resource::of_kind(&api_version, &kind) else {
        return Err(at(document.value_position_of("kind"), unknown_kind(&api_version, &kind)));
    };

    let decoded = codec::value_to_proto(info.message, &document.value)
        .map_err(|problem| at(document.value_position_of(problem.path()), mistyped(&problem)))?;
    let odd: Vec<yaml::Error> = decoded
        .issues
        .iter()
        .map(|issue| document.error(document.position_of(&issue.path), explained(issue)))
        .collect();
    let warnings = match validate {
        Validate::Strict if !odd.is_empty() => return Err(odd),
        Validate::Strict | Validate::Ignore => Vec::new(),
        Validate::Warn => odd,
    };

    let meta = &document.value["metadata"];
    let name = meta["name"].as_str().unwrap_or_default().to_owned();
    let is_generated = !meta["generateName"].as_str().unwrap_or_default().is_empty();
    if name.is_empty() && is_generated && names == Names::Given {
        let message =
            "metadata.generateName serves `create` only, which makes a new object each time: set metadata.name";
        return Err(at(document.position_of("metadata.generateName"), message.to_owned()));
    }
    if name.is_empty() && !is_generated {
        let message = "resource name may not be empty: set metadata.name";
        return Err(at(document.position_of("metadata"), message.to_owned()));
    }
    let mut value = document.value.clone();
    let namespace = if info.resource.namespaced {
        namespace_of(meta["namespace"].as_str(), session)
            .map_err(|message| at(document.position_of("metadata.namespace"), message))?
    } else {
        String::new()
    };
    if info.resource.namespaced {
        value["metadata"]["namespace"] = Value::from(namespace.clone());
    }
    Ok((Manifest { source: document.source().to_owned(), info, value, namespace, name }, warnings))
}

/// The manifest's namespace, or the session's; both must agree where both are given.
fn namespace_of(declared: Option<&str>, session: &Session) -> Result<String, String> {
    let Some(declared) = declared.filter(|declared| !declared.is_empty()) else {
        return Ok(session.namespace());
    };
    match session.explicit_namespace() {
        Some(asked) if asked != declared => Err(format!(
            "the namespace from the provided object {declared:?} does not match the namespace {asked:?}. You must pass \
             '--namespace={declared}' to perform this operation."
        )),
        _ => Ok(declared.to_owned()),
    }
}

fn unknown_kind(api_version: &str, kind: &str) -> String {
    let message = format!("no matches for kind {kind:?} in version {api_version:?}");
    let known = || schema().resources().iter();
    if let Some(info) = known().find(|info| info.resource.kind == kind) {
        return format!("{message}: did you mean apiVersion {:?}?", info.api_version());
    }
    match resource::nearest(kind, known().map(|info| info.resource.kind.clone())) {
        Some(near) => format!("{message}: did you mean {near:?}?"),
        None => message,
    }
}

/// A value of the wrong type; YAML takes more words for booleans and numbers than people expect.
fn mistyped(problem: &codec::Error) -> String {
    match problem {
        codec::Error::Type { found, expected, .. }
            if expected == "string" && (found.starts_with("bool") || found.starts_with("number")) =>
        {
            format!("{problem}: quote it if it is meant as text")
        }
        problem => problem.to_string(),
    }
}

/// `unknown field "spec.containers[0].imagee": did you mean "image"?`
fn explained(issue: &Issue) -> String {
    let near = match (issue.kind, issue.message) {
        (IssueKind::UnknownField, Some(message)) => {
            let fields = schema().json_fields(message);
            resource::nearest(&issue.name, fields.iter().map(|field| field.json_name.to_owned()))
        }
        _ => None,
    };
    match near {
        Some(near) => format!("{issue}: did you mean {near:?}?"),
        None => issue.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::args::Connection;

    fn check(text: &str, expected: Expect) {
        let session = Session::new(Connection { namespace: Some("default".into()), ..Default::default() });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yaml");
        fs::write(&path, text).unwrap();
        let filenames = Filenames { filenames: vec![path.display().to_string()], recursive: false };
        let mut warnings = Vec::new();
        let told = match read(&filenames, &session, Validate::Strict, &mut warnings) {
            Ok(manifests) => {
                let line = |manifest: &Manifest| format!("{} in {:?}", manifest.line_name(), manifest.namespace);
                manifests.iter().map(line).collect::<Vec<_>>().join("\n")
            }
            Err(error) => format!("{error:#}"),
        };
        expected.assert_eq(&told.replace(&format!("{}/", folder.path().display()), ""));
    }

    #[test]
    fn unknown_fields_are_told_with_their_place_and_a_guess() {
        check(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  lables: {}\nspec:\n  containers:\n  - name: c\n    imagee: x\n    zzz: 1\n",
            expect![[r#"
                web.yaml:5:3: unknown field "metadata.lables": did you mean "labels"?
                web.yaml:9:5: unknown field "spec.containers[0].imagee": did you mean "image"?
                web.yaml:10:5: unknown field "spec.containers[0].zzz""#]],
        );
    }

    #[test]
    fn wrong_types_are_told_with_their_place() {
        check(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: n}\n",
            expect![
                "web.yaml:3:18: cannot unmarshal bool false into field metadata.name of type string: quote it if it is meant as text"
            ],
        );
        check(
            "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: web}\nspec:\n  replicas: three\n",
            expect![[r#"web.yaml:5:13: cannot unmarshal string "three" into field spec.replicas of type int32"#]],
        );
    }

    #[test]
    fn every_wrong_document_is_told() {
        check(
            "kind: Pod\n---\napiVersion: v1\nkind: Pdo\n---\napiVersion: v1\nkind: Deployment\n---\napiVersion: v1\nkind: Pod\nmetadata: {}\n",
            expect![[r#"
                web.yaml:1:1: apiVersion not set
                web.yaml:4:7: no matches for kind "Pdo" in version "v1": did you mean "Pod"?
                web.yaml:7:7: no matches for kind "Deployment" in version "v1": did you mean apiVersion "apps/v1"?
                web.yaml:11:1: resource name may not be empty: set metadata.name"#]],
        );
    }

    #[test]
    fn lists_stand_for_their_items() {
        check(
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: team}\n- apiVersion: v1\n  kind: Service\n  metadata: {name: s}\n",
            expect![[r#"
                namespace/team in ""
                service/s in "default""#]],
        );
        check(
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: s}\n  spce: {}\n",
            expect![[r#"web.yaml:7:3: unknown field "spce": did you mean "spec"?"#]],
        );
    }

    #[test]
    fn items_of_a_typed_list_are_of_its_kind() {
        check(
            "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n  spce: {}\n",
            expect![[r#"web.yaml:6:3: unknown field "spce": did you mean "spec"?"#]],
        );
        check(
            "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n",
            expect![[r#"service/a in "default""#]],
        );
    }

    #[test]
    fn a_generated_name_is_for_create_alone() {
        check(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  generateName: a-\n",
            expect![
                "web.yaml:4:3: metadata.generateName serves `create` only, which makes a new object each time: set metadata.name"
            ],
        );
    }

    #[test]
    fn a_namespace_other_than_the_asked_one_is_refused() {
        check(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: other}\n",
            expect![[
                r#"web.yaml:3:21: the namespace from the provided object "other" does not match the namespace "default". You must pass '--namespace=other' to perform this operation."#
            ]],
        );
    }

    #[test]
    fn bad_yaml_is_told_with_its_place() {
        check("a: b: c\n", expect!["web.yaml:1:5: mapping values are not allowed in this context"]);
    }
}
