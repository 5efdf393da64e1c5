//! The environment of a container. PURE: configMaps, secrets and services are handed in.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use proto::{
    Kind,
    k8s::{
        core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Pod, ResourceFieldSelector, Secret, Service},
        resource::Quantity,
    },
};

use super::snapshot::{NodeFacts, container as container_named, spec};

/// What values may be taken from.
pub struct Sources<'a> {
    pub pod: &'a Pod,
    pub node: &'a NodeFacts,
    pub pod_ips: &'a [IpAddr],
    /// Of the pod's namespace, by name.
    pub config_maps: &'a BTreeMap<String, ConfigMap>,
    /// Of the pod's namespace, by name.
    pub secrets: &'a BTreeMap<String, Secret>,
    /// Those the pod may see: of its namespace, and `default/kubernetes`.
    pub services: &'a [std::sync::Arc<Service>],
    /// What the node has for pods; the limit of what has none.
    pub allocatable: &'a BTreeMap<String, Quantity>,
}

/// Why an environment cannot be made yet.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("{kind} \"{name}\" not found")]
    NoObject { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { kind: &'static str, namespace: String, name: String, key: String },
    #[error("{kind} {name}, key {key}: the value is not UTF-8 text; mount it as a volume instead")]
    NotText { kind: &'static str, name: String, key: String },
    #[error(
        "fieldPath \"{0}\" is not supported: use metadata.name, metadata.namespace, metadata.uid, metadata.labels['key'], metadata.annotations['key'], spec.nodeName, spec.serviceAccountName, status.hostIP(s) or status.podIP(s)"
    )]
    FieldPath(String),
    #[error("resource \"{0}\" is not supported: use limits or requests of cpu, memory or ephemeral-storage")]
    ResourceName(String),
    #[error("container \"{0}\" of a resourceFieldRef is not in the pod")]
    NoContainer(String),
    #[error("env \"{0}\": this source of values is not supported")]
    Source(String),
}

/// Variables in order; a later one of the same name has replaced the earlier.
#[derive(Default)]
struct Variables {
    order: Vec<String>,
    values: HashMap<String, String>,
}

impl Variables {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    fn into_pairs(mut self) -> Vec<(String, String)> {
        self.order.into_iter().filter_map(|name| self.values.remove_entry(&name)).collect()
    }
}

/// The environment of one container: services, then `envFrom`, then `env`.
///
/// # Errors
/// Names the object or key that is missing and not optional.
pub fn environment(sources: &Sources, container: &Container) -> Result<Vec<(String, String)>, Error> {
    let mut variables = Variables::default();
    for (name, value) in service_variables(sources) {
        variables.set(&name, value);
    }
    from_objects(sources, container, &mut variables)?;
    for variable in &container.env {
        if let Some(value) = value_of(sources, container, variable, &variables)? {
            variables.set(&variable.name, value);
        }
    }
    Ok(variables.into_pairs())
}

fn from_objects(sources: &Sources, container: &Container, variables: &mut Variables) -> Result<(), Error> {
    for from in &container.env_from {
        if let Some(reference) = &from.config_map_ref {
            let name = local_name(reference.local_object_reference.as_ref());
            match (sources.config_maps.get(name), reference.optional()) {
                (Some(map), _) => {
                    map.data.iter().for_each(|(key, value)| variables.set(&(from.prefix.clone() + key), value.clone()));
                }
                (None, true) => {}
                (None, false) => return Err(Error::NoObject { kind: "configmap", name: name.to_owned() }),
            }
        }
        if let Some(reference) = &from.secret_ref {
            let name = local_name(reference.local_object_reference.as_ref());
            match (sources.secrets.get(name), reference.optional()) {
                (Some(secret), _) => {
                    for (key, value) in &secret.data {
                        variables.set(&(from.prefix.clone() + key), text("secret", name, key, value)?);
                    }
                }
                (None, true) => {}
                (None, false) => return Err(Error::NoObject { kind: "secret", name: name.to_owned() }),
            }
        }
    }
    Ok(())
}

fn local_name(reference: Option<&proto::k8s::core::v1::LocalObjectReference>) -> &str {
    reference.map_or("", |reference| reference.name.as_str())
}

fn text(kind: &'static str, name: &str, key: &str, value: &[u8]) -> Result<String, Error> {
    let not_text = |_| Error::NotText { kind, name: name.to_owned(), key: key.to_owned() };
    String::from_utf8(value.to_vec()).map_err(not_text)
}

fn value_of(
    sources: &Sources,
    container: &Container,
    variable: &EnvVar,
    known: &Variables,
) -> Result<Option<String>, Error> {
    let Some(from) = &variable.value_from else { return Ok(Some(expand(&variable.value, &known.values))) };
    match from {
        EnvVarSource { field_ref: Some(field), .. } => field_value(sources, &field.field_path).map(Some),
        EnvVarSource { resource_field_ref: Some(field), .. } => resource_value(sources, container, field).map(Some),
        EnvVarSource { config_map_key_ref: Some(key), .. } => {
            let name = local_name(key.local_object_reference.as_ref());
            let value = sources.config_maps.get(name).map(|map| map.data.get(&key.key).cloned());
            found(sources, "configmap", name, &key.key, key.optional(), value)
        }
        EnvVarSource { secret_key_ref: Some(key), .. } => {
            let name = local_name(key.local_object_reference.as_ref());
            let value = match sources.secrets.get(name).map(|secret| secret.data.get(&key.key)) {
                Some(Some(value)) => Some(Some(text("secret", name, &key.key, value)?)),
                Some(None) => Some(None),
                None => None,
            };
            found(sources, "secret", name, &key.key, key.optional(), value)
        }
        _ => Err(Error::Source(variable.name.clone())),
    }
}

/// Tells a missing object from a missing key, and both from what may be missing.
fn found(
    sources: &Sources,
    kind: &'static str,
    name: &str,
    key: &str,
    optional: bool,
    value: Option<Option<String>>,
) -> Result<Option<String>, Error> {
    let named = if kind == "secret" { "Secret" } else { "ConfigMap" };
    match value {
        Some(Some(value)) => Ok(Some(value)),
        _ if optional => Ok(None),
        Some(None) => Err(Error::NoKey {
            kind: named,
            namespace: sources.pod.meta().namespace.clone(),
            name: name.to_owned(),
            key: key.to_owned(),
        }),
        None => Err(Error::NoObject { kind, name: name.to_owned() }),
    }
}

/// One field of the pod as text.
///
/// # Errors
/// Where the path names none that pods may read.
pub fn field_value(sources: &Sources, path: &str) -> Result<String, Error> {
    let (meta, spec) = (sources.pod.meta(), spec(sources.pod));
    let ips = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    let node_ips = ips(&sources.node.ips);
    let pod_ips = if spec.host_network { node_ips.clone() } else { ips(sources.pod_ips) };
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => listing(&meta.labels),
        "metadata.annotations" => listing(&meta.annotations),
        "spec.nodeName" => spec.node_name.clone(),
        "spec.serviceAccountName" => spec.service_account_name.clone(),
        "status.hostIP" => node_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => node_ips.join(","),
        "status.podIP" => pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => pod_ips.join(","),
        path => {
            let subscript =
                |prefix: &str| Some(path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")?.to_owned());
            if let Some(key) = subscript("metadata.labels") {
                meta.labels.get(&key).cloned().unwrap_or_default()
            } else if let Some(key) = subscript("metadata.annotations") {
                meta.annotations.get(&key).cloned().unwrap_or_default()
            } else {
                return Err(Error::FieldPath(path.to_owned()));
            }
        }
    })
}

/// `key="value"` lines, as downward API volumes show maps.
fn listing(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
}

/// A container's limit or request, counted in the divisor and rounded up.
///
/// # Errors
/// Where the resource or the container is unknown.
pub fn resource_value(sources: &Sources, own: &Container, field: &ResourceFieldSelector) -> Result<String, Error> {
    let container = match field.container_name.as_str() {
        "" => own,
        name => container_named(spec(sources.pod), name).ok_or_else(|| Error::NoContainer(name.to_owned()))?,
    };
    let unknown = || Error::ResourceName(field.resource.clone());
    let (list, resource) = field.resource.split_once('.').ok_or_else(unknown)?;
    if !matches!(resource, "cpu" | "memory" | "ephemeral-storage") && !resource.starts_with("hugepages-") {
        return Err(unknown());
    }
    let resources = container.resources.as_ref();
    let quantity = match list {
        "limits" => resources.and_then(|r| r.limits.get(resource)).or_else(|| sources.allocatable.get(resource)),
        "requests" => resources.and_then(|r| r.requests.get(resource).or_else(|| r.limits.get(resource))),
        _ => return Err(unknown()),
    };
    let amount = |quantity: &Quantity| i128::from(if resource == "cpu" { quantity.milli() } else { quantity.value() });
    let divisor = match field.divisor.as_ref().map(amount) {
        Some(divisor) if divisor > 0 => divisor,
        _ if resource == "cpu" => 1000,
        _ => 1,
    };
    let total = quantity.map_or(0, amount);
    Ok(((total + divisor - 1) / divisor).to_string())
}

/// `$(NAME)` becomes the value of a known variable; unknown ones stay, and `$$` is a dollar sign.
pub fn expand(text: &str, variables: &HashMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|open| open.split_once(')')) {
            match variables.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

/// `WEB_SERVICE_HOST` and its relatives, for services that existed before the pod.
fn service_variables(sources: &Sources) -> Vec<(String, String)> {
    let namespace = &sources.pod.meta().namespace;
    let links = spec(sources.pod).enable_service_links.unwrap_or(true);
    let is_api = |service: &Service| service.meta().namespace == "default" && service.meta().name == "kubernetes";
    let mut variables = Vec::new();
    for service in sources.services {
        let is_own = links && service.meta().namespace == *namespace;
        if is_own || is_api(service) {
            variables.extend(one_service(service));
        }
    }
    variables
}

fn one_service(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(first) = spec.ports.first() else { return Vec::new() };
    if spec.cluster_ip.is_empty() || spec.cluster_ip == "None" {
        return Vec::new();
    }
    let shout = |name: &str| name.to_uppercase().replace('-', "_");
    let prefix = shout(&service.meta().name);
    let ip = spec.cluster_ip.clone();
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    let mut variables = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.clone()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in spec.ports.iter().filter(|port| !port.name.is_empty()) {
        variables.push((format!("{prefix}_SERVICE_PORT_{}", shout(&port.name)), port.port.to_string()));
    }
    for (index, port) in spec.ports.iter().enumerate() {
        let protocol = if port.protocol.is_empty() { "TCP" } else { port.protocol.as_str() };
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            variables.push((format!("{prefix}_PORT"), url.clone()));
        }
        let link = format!("{prefix}_PORT_{}_{protocol}", port.port);
        variables.extend([
            (link.clone(), url),
            (format!("{link}_PROTO"), protocol.to_lowercase()),
            (format!("{link}_PORT"), port.port.to_string()),
            (format!("{link}_ADDR"), ip.clone()),
        ]);
    }
    variables
}

#[cfg(test)]
mod tests {
    use proto::k8s::core::v1::{
        ConfigMapKeySelector, LocalObjectReference, ObjectFieldSelector, ServicePort, ServiceSpec,
    };

    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn references_expand_and_double_dollars_escape() {
        let known = variables(&[("A", "1"), ("B", "two")]);
        assert_eq!(expand("$(A)-$(B)", &known), "1-two");
        assert_eq!(expand("$(NONE) $$(A) $A cost$", &known), "$(NONE) $(A) $A cost$");
        assert_eq!(expand("$(open", &known), "$(open");
    }

    struct World {
        pod: Pod,
        config_maps: BTreeMap<String, ConfigMap>,
        services: Vec<std::sync::Arc<Service>>,
    }

    fn world() -> World {
        let mut pod = Pod::default();
        pod.meta_mut().name = "web-1".into();
        pod.meta_mut().namespace = "shop".into();
        pod.meta_mut().labels.insert("app".into(), "web".into());
        let map = ConfigMap { data: [("color".to_owned(), "blue".to_owned())].into(), ..Default::default() };
        let mut service = Service {
            spec: Some(ServiceSpec {
                cluster_ip: "10.96.0.9".into(),
                ports: vec![ServicePort {
                    name: "http".into(),
                    port: 80,
                    protocol: "TCP".into(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        };
        service.meta_mut().name = "my-db".into();
        service.meta_mut().namespace = "shop".into();
        World { pod, config_maps: [("look".to_owned(), map)].into(), services: vec![service.into()] }
    }

    fn environment_of(world: &World, env: Vec<EnvVar>) -> Result<Vec<(String, String)>, Error> {
        let sources = Sources {
            pod: &world.pod,
            node: &NodeFacts::default(),
            pod_ips: &[[10, 244, 0, 5].into()],
            config_maps: &world.config_maps,
            secrets: &BTreeMap::new(),
            services: &world.services,
            allocatable: &BTreeMap::new(),
        };
        environment(&sources, &Container { env, ..Default::default() })
    }

    fn from_key(name: &str, key: &str, optional: bool) -> EnvVar {
        let selector = ConfigMapKeySelector {
            local_object_reference: Some(LocalObjectReference { name: name.into() }),
            key: key.into(),
            optional: Some(optional),
        };
        let source = EnvVarSource { config_map_key_ref: Some(selector), ..Default::default() };
        EnvVar { name: "COLOR".into(), value_from: Some(source), ..Default::default() }
    }

    #[test]
    fn values_come_from_services_config_maps_and_fields_in_order() {
        let field = ObjectFieldSelector { field_path: "metadata.labels['app']".into(), ..Default::default() };
        let source = EnvVarSource { field_ref: Some(field), ..Default::default() };
        let env = environment_of(
            &world(),
            vec![
                from_key("look", "color", false),
                EnvVar { name: "APP".into(), value_from: Some(source), ..Default::default() },
                EnvVar {
                    name: "ALL".into(),
                    value: "$(COLOR)/$(APP)/$(MY_DB_SERVICE_HOST)".into(),
                    ..Default::default()
                },
            ],
        )
        .unwrap();
        let value = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(value("ALL"), Some("blue/web/10.96.0.9"));
        assert_eq!(value("MY_DB_PORT_80_TCP"), Some("tcp://10.96.0.9:80"));
        assert_eq!(value("MY_DB_SERVICE_PORT_HTTP"), Some("80"));
    }

    #[test]
    fn a_missing_source_is_named_unless_it_is_optional() {
        let refused = |name, key| environment_of(&world(), vec![from_key(name, key, false)]).unwrap_err().to_string();
        assert_eq!(refused("none", "color"), "configmap \"none\" not found");
        assert_eq!(refused("look", "size"), "couldn't find key size in ConfigMap shop/look");
        let env = environment_of(&world(), vec![from_key("none", "color", true)]).unwrap();
        assert!(env.iter().all(|(name, _)| name != "COLOR"));
    }
}
