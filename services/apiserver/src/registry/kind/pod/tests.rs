use expect_test::{Expect, expect};
use prost::Message;
use proto::{codec, k8s::core::v1::Pod};
use serde_json::{Value, json};

use super::Pods;
use crate::registry::{Causes, Strategy};

/// What is wrong with a pod of this spec, one problem a line; a container that stands alone is one of the pod's.
fn check(spec: Value, expected: Expect) {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{ "name": "c", "image": "i" }]);
    }
    let message = codec::schema().message("k8s.api.core.v1.Pod").unwrap();
    let decoded = codec::value_to_proto(message, &json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap();
    assert_eq!(decoded.issues, []);
    let mut pod = Pod::decode(decoded.bytes.as_slice()).unwrap();
    let strategy = Pods { lost_node_seconds: 300 };
    strategy.fill_in(&mut pod);
    let mut causes = Causes::default();
    strategy.validate(&pod, &mut causes);
    expected.assert_eq(&causes.lines());
}

fn container(more: Value) -> Value {
    let mut container = json!({ "name": "c", "image": "i" });
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "containers": [container] })
}

#[test]
fn affinity_says_what_it_selects_nodes_and_pods_by() {
    let nodes = |terms: Value| {
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": terms
        } } } })
    };
    check(nodes(json!([{ "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["a"] }] }])), expect![""]);
    check(
        nodes(json!([])),
        expect![[r#"
        spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term
    "#]],
    );
    let terms = json!([{
        "matchExpressions": [
            { "key": "zone", "operator": "Among", "values": ["a"] },
            { "key": "zone", "operator": "In" },
            { "key": "zone", "operator": "Exists", "values": ["a"] },
            { "key": "size", "operator": "Gt", "values": ["1", "2"] },
        ],
        "matchFields": [{ "key": "spec.taints", "operator": "In", "values": ["a"] }],
    }]);
    check(
        nodes(terms),
        expect![[r#"
        spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value: "Among": not a valid selector operator
        spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
        spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[2].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'
        spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[3].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'
        spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: Unsupported value: "spec.taints": supported values: "metadata.name"
    "#]],
    );
    let pods = json!({ "affinity": {
        "podAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 101, "podAffinityTerm": {} }] },
        "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
            { "topologyKey": "zone", "labelSelector": { "matchExpressions": [{ "key": "app", "operator": "Is" }] } },
        ] },
    } });
    check(
        pods,
        expect![[r#"
        spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100
        spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Required value: can not be empty
        spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator
    "#]],
    );
}

#[test]
fn spread_says_how_far_over_what_and_what_else() {
    let constraint = json!({ "maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Never" });
    check(
        json!({ "topologySpreadConstraints": [constraint] }),
        expect![[r#"
        spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero
        spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty
        spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Never": supported values: "DoNotSchedule", "ScheduleAnyway"
    "#]],
    );
    let constraint = json!({ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule" });
    check(
        json!({ "topologySpreadConstraints": [constraint, constraint] }),
        expect![[r#"
        spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}: Duplicate value: "{zone, DoNotSchedule}"
    "#]],
    );
}

#[test]
fn gates_host_names_and_policies_are_real_ones() {
    let spec = json!({
        "schedulingGates": [{ "name": "a/b" }, { "name": "a/b" }],
        "readinessGates": [{ "conditionType": "www.example.com/ready" }],
        "hostAliases": [{ "ip": "here", "hostnames": ["db"] }],
        "os": { "name": "plan9" },
        "preemptionPolicy": "Always",
        "ephemeralContainers": [{ "name": "e", "image": "i" }],
        "securityContext": { "runAsUser": -1, "supplementalGroups": [7, -7] },
    });
    check(
        spec,
        expect![[r#"
        spec.schedulingGates[1]: Duplicate value: "a/b"
        spec.hostAliases[0].ip: Invalid value: "here": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        spec.os.name: Unsupported value: "plan9": supported values: "linux", "windows"
        spec.preemptionPolicy: Unsupported value: "Always": supported values: "PreemptLowerPriority", "Never"
        spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive
        spec.securityContext.supplementalGroups[1]: Invalid value: -7: must be between 0 and 2147483647, inclusive
        spec.ephemeralContainers: Forbidden: cannot be set on create
    "#]],
    );
}

#[test]
fn volumes_have_one_source_real_modes_and_paths_inside() {
    let volumes = json!([
        { "name": "a", "configMap": { "name": "m", "defaultMode": 512, "items": [{ "key": "k", "path": "../k" }] } },
        { "name": "b", "hostPath": { "path": "/x", "type": "Folder" } },
        { "name": "c", "downwardAPI": { "items": [
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
            { "path": "zone", "fieldRef": { "fieldPath": "metadata.labels['zone']" } },
            { "path": "ip", "fieldRef": { "fieldPath": "status.podIP" } },
            { "path": "cpu", "resourceFieldRef": { "resource": "limits.cpu" } },
            { "path": "none" },
        ] } },
        { "name": "d", "projected": { "sources": [{}, { "secret": {} }, { "serviceAccountToken": { "path": "t", "expirationSeconds": 9 } }] } },
        { "name": "e", "emptyDir": { "sizeLimit": "-1" } },
        { "name": "f", "persistentVolumeClaim": {} },
    ]);
    check(
        json!({ "volumes": volumes }),
        expect![[r#"
        spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive
        spec.volumes[0].configMap.items[0].path: Invalid value: "../k": must not contain '..'
        spec.volumes[1].hostPath.type: Unsupported value: "Folder": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"
        spec.volumes[2].downwardAPI.items[2].fieldRef.fieldPath: Unsupported value: "status.podIP": supported values: "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"
        spec.volumes[2].downwardAPI.items[3].resourceFieldRef.containerName: Required value
        spec.volumes[2].downwardAPI.items[4]: Required value: one of fieldRef and resourceFieldRef is required
        spec.volumes[3].projected.sources[0]: Required value: must specify a source
        spec.volumes[3].projected.sources[1].secret.name: Required value
        spec.volumes[3].projected.sources[2].serviceAccountToken.expirationSeconds: Invalid value: 9: may not specify a duration less than 10 minutes
        spec.volumes[4].emptyDir.sizeLimit: Invalid value: "-1": SizeLimit field must be a valid resource quantity
        spec.volumes[5].persistentVolumeClaim.claimName: Required value
    "#]],
    );
}

#[test]
fn containers_refer_to_what_there_is() {
    let variables = json!([
        { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        { "name": "APP", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
        { "name": "X", "valueFrom": { "fieldRef": { "fieldPath": "status.phase" } } },
        { "name": "Y", "valueFrom": { "resourceFieldRef": { "resource": "limits.gpu" } } },
    ]);
    check(
        container(json!({ "env": variables })),
        expect![[r#"
        spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"
        spec.containers[0].env[3].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.gpu": supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"
    "#]],
    );
    check(
        container(json!({ "lifecycle": { "postStart": {}, "preStop": { "sleep": { "seconds": 1 } } } })),
        expect![[r#"
        spec.containers[0].lifecycle.postStart: Required value: must specify a handler type
    "#]],
    );
    let context = json!({ "privileged": true, "allowPrivilegeEscalation": false, "runAsUser": -1 });
    check(
        container(json!({ "securityContext": context })),
        expect![[r#"
        spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive
        spec.containers[0].securityContext: Invalid value: "": cannot set `allowPrivilegeEscalation` to false and `privileged` to true
    "#]],
    );
}
