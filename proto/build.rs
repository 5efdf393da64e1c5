//! Compiles every `.proto` file of this folder, and writes the `Kind` table from the options in them.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use heck::ToUpperCamelCase;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

fn main() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files = Vec::new();
    for folder in ["authpb", "etcdserverpb", "forestay", "google", "k8s", "mvccpb", "v3electionpb", "v3lockpb"] {
        println!("cargo:rerun-if-changed={folder}");
        proto_files(&root.join(folder), &mut files)?;
    }
    files.sort();

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let descriptors = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptors.bin"), &descriptors)?;
    fs::write(out.join("kinds.rs"), kinds(&DescriptorPool::decode(descriptors.as_slice())?)?)?;

    let mut config = prost_build::Config::new();
    config
        .btree_map(["."])
        .bytes([".etcdserverpb", ".mvccpb", ".forestay"])
        .include_file("all.rs")
        .extern_path(".forestay.api.v1.Object", "crate::Object");
    tonic_prost_build::configure()
        .build_transport(true)
        .compile_fds_with_config(without_docs(compiler.file_descriptor_set()), config)?;
    Ok(())
}

fn proto_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

/// Comments serve `explain` from the descriptors; as rustdoc they would be read as Markdown with code to test.
fn without_docs(mut set: prost_types::FileDescriptorSet) -> prost_types::FileDescriptorSet {
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}

/// Writes `impl Kind` for every arm of `forestay.api.v1.Object`, and `impl Resource` where it is a resource's own kind.
fn kinds(pool: &DescriptorPool) -> Result<String> {
    let object = pool.get_message_by_name("forestay.api.v1.Object").context("find Object")?;
    let mut text = String::new();
    let mut arms = Vec::new();
    for field in object.oneofs().next().context("find the arms of Object")?.fields() {
        let message = field.kind().as_message().context("every arm is a message")?.clone();
        if field.number() < 10 {
            continue;
        }
        let (arm, rust) = (field.number(), rust_path(&message));
        let (api_version, kind) = type_meta(&message);
        writeln!(
            text,
            "impl crate::Kind for {rust} {{
                const API_VERSION: &'static str = \"{api_version}\";
                const KIND: &'static str = \"{kind}\";
                const ARM: u32 = {arm};
                const MESSAGE: &'static str = \"{}\";
                fn metadata(&self) -> &Option<crate::k8s::meta::v1::ObjectMeta> {{ &self.metadata }}
                fn metadata_mut(&mut self) -> &mut Option<crate::k8s::meta::v1::ObjectMeta> {{ &mut self.metadata }}
            }}",
            message.full_name()
        )?;
        if let Some(resource) = resource(&message) {
            let text_of = |name: &str| resource.get_field_by_name(name).and_then(|v| v.as_str().map(String::from));
            let namespaced = resource.get_field_by_name("namespaced").and_then(|v| v.as_bool()).unwrap_or_default();
            writeln!(
                text,
                "impl crate::Resource for {rust} {{
                    const GROUP: &'static str = \"{}\";
                    const VERSION: &'static str = \"{}\";
                    const PLURAL: &'static str = \"{}\";
                    const NAMESPACED: bool = {namespaced};
                }}",
                text_of("group").unwrap_or_default(),
                text_of("version").unwrap_or_default(),
                text_of("plural").unwrap_or_default(),
            )?;
        }
        arms.push(format!("({arm}, \"{}\", \"{api_version}\", \"{kind}\")", message.full_name()));
    }
    writeln!(text, "/// Arm number, message, apiVersion and kind of every arm of `Object`.")?;
    writeln!(text, "pub const ARMS: &[(u32, &str, &str, &str)] = &[{}];", arms.join(", "))?;
    Ok(text)
}

/// apiVersion and kind: from the resource option, or from the subresource that speaks this message.
fn type_meta(message: &MessageDescriptor) -> (String, String) {
    if let Some(resource) = resource(message) {
        let text = |name: &str| {
            resource.get_field_by_name(name).and_then(|v| v.as_str().map(String::from)).unwrap_or_default()
        };
        let (group, version) = (text("group"), text("version"));
        return (if group.is_empty() { version } else { format!("{group}/{version}") }, text("kind"));
    }
    let group = match message.package_name() {
        "k8s.api.authentication.v1" => "authentication.k8s.io/v1",
        "k8s.api.autoscaling.v1" => "autoscaling/v1",
        "k8s.api.policy.v1" => "policy/v1",
        other => panic!("the arm {} of package {other} needs a resource option", message.name()),
    };
    (group.to_owned(), message.name().to_owned())
}

fn resource(message: &MessageDescriptor) -> Option<DynamicMessage> {
    let extension = message.parent_pool().get_extension_by_name("k8s.message")?;
    let options = message.options();
    if !options.has_extension(&extension) {
        return None;
    }
    let schema = options.get_extension(&extension).as_message()?.clone();
    match schema.get_field_by_name("resource")?.into_owned() {
        Value::Message(resource) if schema.has_field_by_name("resource") => Some(resource),
        _ => None,
    }
}

fn rust_path(message: &MessageDescriptor) -> String {
    let package = message.package_name().trim_start_matches("k8s.api.").replace('.', "::");
    // prost names its types this way: IPAddress becomes IpAddress.
    format!("crate::k8s::{package}::{}", message.name().to_upper_camel_case())
}
