//! What strict validation and wrong values say: the texts people will read.

#![allow(clippy::unwrap_used)]

use expect_test::{Expect, expect};
use proto::codec::{self, schema};

fn pod(json: &str) -> Result<codec::Decoded, codec::Error> {
    codec::json_to_proto(schema().kind("v1", "Pod").unwrap(), json.as_bytes())
}

/// The issues and the error of a Pod's JSON, and the JSON that comes back.
fn check(json: &str, wanted: Expect) {
    let said = match pod(json) {
        Err(error) => error.to_string(),
        Ok(decoded) => {
            let mut back = Vec::new();
            codec::proto_to_json(schema().kind("v1", "Pod").unwrap(), &decoded.bytes, None, &mut back).unwrap();
            let issues = decoded.issues.iter().map(|issue| format!("{issue}\n"));
            issues.chain([String::from_utf8(back).unwrap()]).collect()
        }
    };
    wanted.assert_eq(&said);
}

#[test]
fn unknown_fields_are_named_by_their_path_and_dropped() {
    check(
        r#"{"apiVersion":"v1","kind":"Pod","metdata":{},"spec":{"containers":[{"name":"a","imagee":"b"}],"volumes":[{"name":"v","emptyDirr":{"kind":"x"}}]}}"#,
        expect![[r#"
            unknown field "metdata"
            unknown field "spec.containers[0].imagee"
            unknown field "spec.volumes[0].emptyDirr"
            {"metadata":{},"spec":{"volumes":[{"name":"v"}],"containers":[{"name":"a","resources":{}}]},"status":{}}"#]],
    );
}

#[test]
fn a_misplaced_kind_is_an_unknown_field() {
    check(
        r#"{"spec":{"kind":"Pod","containers":null}}"#,
        expect![[r#"
        unknown field "spec.kind"
        {"metadata":{},"spec":{"containers":null},"status":{}}"#]],
    );
}

#[test]
fn issues_know_the_message_that_misses_the_field() {
    let issues =
        pod(r#"{"spec":{"containers":[{"imagee":"b"}]},"metadata":{"labels":{"a":"1","a":"2"}}}"#).unwrap().issues;
    assert_eq!((issues[0].message.map(|id| schema()[id].name), issues[0].name.as_str()), (Some("Container"), "imagee"));
    assert_eq!((issues[1].message, issues[1].name.as_str()), (None, "a"));
}

#[test]
fn duplicate_fields_are_named_and_the_last_one_counts() {
    check(
        r#"{"metadata":{"name":"a","labels":{"x":"1","y":"0","x":"2"},"name":"b"},"spec":{"nodeName":"n","nodeName":null,"containers":[]}}"#,
        expect![[r#"
            duplicate field "metadata.labels.x"
            duplicate field "metadata.name"
            duplicate field "spec.nodeName"
            {"metadata":{"name":"b","labels":{"x":"2","y":"0"}},"spec":{"containers":null},"status":{}}"#]],
    );
}

#[test]
fn fields_come_in_any_order_and_leave_in_kubernetes_order() {
    check(
        r#"{"status":{"phase":"Running"},"spec":{"volumes":[{"secret":{"secretName":"s"},"name":"v","emptyDir":{}}],"containers":[{"livenessProbe":{"periodSeconds":3,"exec":{"command":["true"]}},"image":"i","name":"c"}]},"metadata":{"namespace":"n","name":"p"}}"#,
        expect![[
            r#"{"metadata":{"name":"p","namespace":"n"},"spec":{"volumes":[{"name":"v","emptyDir":{},"secret":{"secretName":"s"}}],"containers":[{"name":"c","image":"i","resources":{},"livenessProbe":{"exec":{"command":["true"]},"periodSeconds":3}}]},"status":{"phase":"Running"}}"#
        ]],
    );
}

#[test]
fn wrong_types_name_field_value_and_expected_type() {
    for (json, wanted) in [
        (
            r#"{"spec":{"containers":[{"name":7}]}}"#,
            expect!["cannot unmarshal number 7 into field spec.containers[0].name of type string"],
        ),
        (
            r#"{"spec":{"priority":"high"}}"#,
            expect![[r#"cannot unmarshal string "high" into field spec.priority of type int32"#]],
        ),
        (
            r#"{"spec":{"priority":3000000000}}"#,
            expect!["cannot unmarshal number 3000000000 into field spec.priority of type int32"],
        ),
        (
            r#"{"spec":{"terminationGracePeriodSeconds":1.5}}"#,
            expect!["cannot unmarshal number 1.5 into field spec.terminationGracePeriodSeconds of type int64"],
        ),
        (
            r#"{"spec":{"hostNetwork":"true"}}"#,
            expect![[r#"cannot unmarshal string "true" into field spec.hostNetwork of type bool"#]],
        ),
        (
            r#"{"spec":{"containers":{"name":"a"}}}"#,
            expect!["cannot unmarshal object into field spec.containers of type []Container"],
        ),
        (r#"{"spec":[]}"#, expect!["cannot unmarshal array into field spec of type PodSpec"]),
        (
            r#"{"metadata":{"labels":{"a":true}}}"#,
            expect!["cannot unmarshal bool true into field metadata.labels.a of type string"],
        ),
        (
            r#"{"metadata":{"labels":["a"]}}"#,
            expect!["cannot unmarshal array into field metadata.labels of type map[string]string"],
        ),
        (
            r#"{"metadata":{"creationTimestamp":5}}"#,
            expect!["cannot unmarshal number 5 into field metadata.creationTimestamp of type time"],
        ),
        (r#"{"kind":["Pod"]}"#, expect!["cannot unmarshal array into field kind of type string"]),
        ("[]", expect!["cannot unmarshal array into an object of type Pod"]),
        ("null", expect!["cannot unmarshal null into an object of type Pod"]),
    ] {
        check(json, wanted);
    }
}

#[test]
fn wrong_values_name_field_value_and_rule() {
    for (json, wanted) in [
        (
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}"#,
            expect![[
                r#"spec.containers[0].resources.limits.cpu: invalid value "lots": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"#
            ]],
        ),
        (
            r#"{"metadata":{"creationTimestamp":"yesterday"}}"#,
            expect![[
                r#"metadata.creationTimestamp: invalid value "yesterday": not an RFC 3339 time like 2006-01-02T15:04:05Z"#
            ]],
        ),
        (r#"{"spec":{"#, expect!["invalid JSON at line 1, column 10: unexpected end of JSON input"]),
        ("{\n  \"spec\": {]\n}", expect!["invalid JSON at line 2, column 12: expected a key in quotes"]),
        ("{} {}", expect!["invalid JSON at line 1, column 4: characters behind the end of the document"]),
    ] {
        check(json, wanted);
    }
    let secret = codec::json_to_proto(schema().kind("v1", "Secret").unwrap(), br#"{"data":{"a":"$$"}}"#);
    expect![[r#"data.a: invalid value "$$": illegal base64 data at input byte 0"#]]
        .assert_eq(&secret.unwrap_err().to_string());
}

#[test]
fn scalar_forms_are_canonical() {
    check(
        r#"{"metadata":{"creationTimestamp":"2026-11-23T07:52:26.9+02:00","deletionTimestamp":null},
            "spec":{"containers":[{"resources":{"limits":{"cpu":0.5,"memory":"1024Mi","a/b":1e3," c":" 2 "}},
            "livenessProbe":{"httpGet":{"port":"http"}},"readinessProbe":{"httpGet":{"port":0}}}]}}"#,
        expect![[
            r#"{"metadata":{"creationTimestamp":"2026-11-23T05:52:26Z"},"spec":{"containers":[{"name":"","resources":{"limits":{" c":"2","a/b":"1k","cpu":"500m","memory":"1Gi"}},"livenessProbe":{"httpGet":{"port":"http"}},"readinessProbe":{"httpGet":{"port":0}}}]},"status":{}}"#
        ]],
    );
}

#[test]
fn an_unset_time_is_no_time_and_the_epoch_is_one() {
    check(
        r#"{"metadata":{"creationTimestamp":"0001-01-01T00:00:00Z","deletionTimestamp":"1970-01-01T00:00:00Z"},"spec":{"containers":[]}}"#,
        expect![[
            r#"{"metadata":{"deletionTimestamp":"1970-01-01T00:00:00Z"},"spec":{"containers":null},"status":{}}"#
        ]],
    );
}

#[test]
fn issues_are_bounded() {
    let unknown: Vec<String> = (0..5000).map(|n| format!("\"unknown{n}\":0")).collect();
    assert_eq!(pod(&format!("{{{}}}", unknown.join(","))).unwrap().issues.len(), codec::ISSUES_MAX);
}

#[test]
fn deep_nesting_is_refused_and_what_is_accepted_can_be_decoded_by_prost() {
    use prost::Message;
    let id = schema().kind("apiextensions.k8s.io/v1", "CustomResourceDefinition").unwrap();
    let crd = |open: &str, close: &str, levels: usize| {
        let (open, close) = (open.repeat(levels), close.repeat(levels));
        format!(r#"{{"spec":{{"versions":[{{"schema":{{"openAPIV3Schema":{open}{{"type":"x"}}{close}}}}}]}}}}"#)
    };
    for (open, close) in [
        (r#"{"additionalProperties":"#, "}"),
        (r#"{"properties":{"a":"#, "}}"),
        (r#"{"allOf":["#, "]}"),
        (r#"{"not":"#, "}"),
        (r#"{"dependencies":{"a":"#, "}}"),
    ] {
        let mut accepted = 0;
        for levels in 1..100 {
            match codec::json_to_proto(id, crd(open, close, levels).as_bytes()) {
                Ok(decoded) => {
                    accepted = levels;
                    proto::k8s::apiextensions::v1::CustomResourceDefinition::decode(decoded.bytes.as_slice()).unwrap();
                    codec::proto_to_json(id, &decoded.bytes, None, &mut Vec::new()).unwrap();
                }
                Err(error) => assert!(matches!(error, codec::Error::Depth { .. }), "{error}"),
            }
        }
        assert!((25..99).contains(&accepted), "{open} {accepted}");
    }
    let bomb = crd(r#"{"default":["#, "]}", 100_000);
    assert!(codec::json_to_proto(id, bomb.as_bytes()).is_err());
}

#[test]
fn kinds_are_found_by_api_version() {
    let name = |api_version, kind| schema().kind(api_version, kind).map(|id| schema()[id].full_name);
    assert_eq!(name("v1", "Pod"), Some("k8s.api.core.v1.Pod"));
    assert_eq!(name("v1", "PodList"), Some("k8s.api.core.v1.PodList"));
    assert_eq!(name("apps/v1", "Deployment"), Some("k8s.api.apps.v1.Deployment"));
    assert_eq!(name("rbac.authorization.k8s.io/v1", "Role"), Some("k8s.api.rbac.v1.Role"));
    assert_eq!(name("events.k8s.io/v1", "Event"), Some("k8s.api.events.v1.Event"));
    assert_eq!(name("autoscaling/v1", "Scale"), Some("k8s.api.autoscaling.v1.Scale"));
    assert_eq!(name("policy/v1", "DeleteOptions"), Some("k8s.api.meta.v1.DeleteOptions"));
    assert_eq!(name("v1", "Status"), Some("k8s.api.meta.v1.Status"));
    assert_eq!((name("v1", "Deployment"), name("rbac/v1", "Role"), name("v1", "Container")), (None, None, None));
}

#[test]
fn type_meta_is_read_without_the_rest() {
    let read = |json: &str| codec::type_meta(json.as_bytes()).map(|meta| (meta.api_version, meta.kind));
    assert_eq!(
        read(r#"{"spec":{"kind":"x"},"kind":"Pod","apiVersion":"v1", nonsense"#),
        Ok(("v1".into(), "Pod".into()))
    );
    assert_eq!(read(r#"{"kind":null}"#), Ok(("".into(), "".into())));
    assert_eq!(
        read(r#"{"kind":3}"#).unwrap_err().to_string(),
        "cannot unmarshal number 3 into field kind of type string"
    );
    assert!(read("[]").is_err() && read("").is_err());
}

#[test]
fn explain_has_words_for_the_kinds_people_write() {
    let mut silent = Vec::new();
    let kinds = [
        "core.v1.Pod",
        "core.v1.PodSpec",
        "core.v1.Container",
        "core.v1.ContainerPort",
        "core.v1.EnvVar",
        "core.v1.Probe",
        "core.v1.PodStatus",
        "core.v1.ContainerStatus",
        "core.v1.Volume",
        "core.v1.Service",
        "core.v1.ServiceSpec",
        "core.v1.ServicePort",
        "core.v1.ReplicationController",
        "core.v1.ReplicationControllerSpec",
        "core.v1.Namespace",
        "core.v1.Node",
        "core.v1.NodeSpec",
        "core.v1.NodeStatus",
        "core.v1.ConfigMap",
        "core.v1.Secret",
        "core.v1.ServiceAccount",
        "core.v1.Endpoints",
        "core.v1.EndpointSubset",
        "core.v1.Event",
        "core.v1.ResourceQuota",
        "core.v1.ResourceQuotaSpec",
        "discovery.v1.EndpointSlice",
        "discovery.v1.Endpoint",
        "meta.v1.ObjectMeta",
        "meta.v1.LabelSelector",
    ];
    for kind in kinds {
        let id = schema().message(&format!("k8s.api.{kind}")).unwrap();
        if schema()[id].comment.is_empty() {
            silent.push(kind.to_owned());
        }
        for field in schema().json_fields(id).into_iter().filter(|field| field.comment.is_empty()) {
            silent.push(format!("{kind} {}", field.json_name));
        }
    }
    // Fields behind feature gates that are off; they come with the feature.
    silent.retain(|field| {
        !field.contains("extendedResourceClaimStatus") && !field.contains("nodeAllocatableResourceClaimStatuses")
    });
    assert_eq!(silent, Vec::<String>::new());
    let pod_spec = schema().message("k8s.api.core.v1.PodSpec").unwrap();
    let node_name = schema().json_field(pod_spec, "nodeName").unwrap();
    assert_eq!(
        node_name.comment,
        "The node the pod runs on; the scheduler sets it, and setting it skips the scheduler."
    );
}

#[test]
fn bytes_of_clients_become_canonical_or_are_refused_by_path() {
    use prost::Message;
    use proto::k8s::{core::v1::*, resource::Quantity};
    let pod = |memory: &str| {
        let limits = [("memory".to_owned(), Quantity { string: memory.into() })].into();
        let resources = ResourceRequirements { limits, ..Default::default() };
        let container = Container { name: "a".into(), resources: Some(resources), ..Default::default() };
        Pod {
            spec: Some(PodSpec { containers: vec![container], ..Default::default() }),
            status: Some(PodStatus::default()),
            metadata: None,
        }
    };
    let id = schema().kind("v1", "Pod").unwrap();
    let canonical = Pod::decode(codec::canonical(id, &pod("1024Mi").encode_to_vec()).unwrap().as_slice()).unwrap();
    assert_eq!(canonical, Pod { status: None, ..pod("1Gi") });
    let refused = codec::canonical(id, &pod("lots").encode_to_vec()).unwrap_err();
    assert_eq!(refused.path(), "spec.containers[0].resources.limits.memory");
}
