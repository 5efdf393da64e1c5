//! The annotation in which `apply` keeps what was declared last, so that what is no longer declared can be removed.
//!
//! kubectl reads and writes the same annotation, so its text is the same to the byte: JSON in one line, fields by name, the
//! annotation itself left out of it, a line end behind it.

use serde_json::{Map, Value, json};

use crate::output::{compact, sorted};

pub const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The declared object with itself as annotation.
pub fn annotated(declared: &Value) -> Value {
    let mut object = declared.clone();
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    if let Some(annotations) = annotations_mut(&mut object) {
        annotations.shift_remove(ANNOTATION);
    }
    let text = format!("{}\n", compact(&sorted(object.clone())));
    if let Some(annotations) = annotations_mut(&mut object) {
        annotations.insert(ANNOTATION.to_owned(), Value::from(text));
    }
    object
}

/// What was declared last, where the object says so.
pub fn of(object: &Value) -> Option<Value> {
    let text = object["metadata"]["annotations"][ANNOTATION].as_str()?;
    serde_json::from_str(text).ok()
}

fn annotations_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_text_is_kubectls_to_the_byte() {
        let manifest = "
apiVersion: v1
kind: ConfigMap
metadata:
  name: x
  namespace: default
  annotations:
    note: '<a> & b'
    kubectl.kubernetes.io/last-applied-configuration: old
data:
  z: \"1\"
  a: 'é\"'
";
        let declared = model::yaml::parse(manifest, "x.yaml").unwrap().remove(0).value;
        let object = annotated(&declared);
        let text = object["metadata"]["annotations"][ANNOTATION].as_str().unwrap();
        expect![[r#"
            {"apiVersion":"v1","data":{"a":"é\"","z":"1"},"kind":"ConfigMap","metadata":{"annotations":{"note":"\u003ca\u003e \u0026 b"},"name":"x","namespace":"default"}}
        "#]]
        .assert_eq(text);
        assert_eq!(of(&object).unwrap()["data"], declared["data"]);
    }

    /// Seen on the wire of kubectl 1.32 for this manifest.
    #[test]
    fn a_manifest_is_remembered_as_kubectl_remembers_it() {
        let manifest = "
apiVersion: v1
kind: ReplicationController
metadata:
  name: web
  namespace: default
  labels: {app: web}
spec:
  replicas: 3
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: \"a<b>&c\"
        ports:
        - containerPort: 8080
        resources: {requests: {cpu: 0.5, memory: 1e3}}
        securityContext: {runAsUser: 0440}
        env: [{name: A, value: \"ü\\u2028\"}]
";
        let declared = model::yaml::parse(manifest, "x.yaml").unwrap().remove(0).value;
        let kubectl = r#"{"apiVersion":"v1","kind":"ReplicationController","metadata":{"annotations":{},"labels":{"app":"web"},"name":"web","namespace":"default"},"spec":{"replicas":3,"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"env":[{"name":"A","value":"ü\u2028"}],"image":"a\u003cb\u003e\u0026c","name":"web","ports":[{"containerPort":8080}],"resources":{"requests":{"cpu":0.5,"memory":1000}},"securityContext":{"runAsUser":288}}]}}}}"#;
        assert_eq!(annotated(&declared)["metadata"]["annotations"][ANNOTATION], json!(format!("{kubectl}\n")));
    }
}
