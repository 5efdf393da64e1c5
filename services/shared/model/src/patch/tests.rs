use proptest::prelude::*;
use proto::codec::schema;
use serde_json::json;

use super::*;

fn pod() -> MessageId {
    schema().message("k8s.api.core.v1.Pod").unwrap()
}

fn deployment() -> MessageId {
    schema().message("k8s.api.apps.v1.Deployment").unwrap()
}

fn applied(object: Value, patch: Value) -> Value {
    strategic(pod(), &object, patch.to_string().as_bytes()).unwrap()
}

fn containers(list: Value) -> Value {
    json!({ "spec": { "containers": list } })
}

#[test]
fn json_patches_apply_in_order_or_not_at_all() {
    let object = json!({"a": {"b": 1}, "l": [1, 2]});
    let patch = br#"[{"op":"test","path":"/a/b","value":1},{"op":"add","path":"/l/-","value":3},{"op":"remove","path":"/a/b"}]"#;
    assert_eq!(json(&object, patch).unwrap(), json!({"a": {}, "l": [1, 2, 3]}));
    let failing = json(&object, br#"[{"op":"remove","path":"/a/b"},{"op":"test","path":"/l/0","value":9}]"#);
    assert!(matches!(failing, Err(Error::Inapplicable(_))));
    assert!(matches!(json(&object, b"{}"), Err(Error::Malformed(_))));
}

#[test]
fn copies_of_a_json_patch_are_bounded() {
    let object = json!({"a": "x".repeat(1000)});
    let copies: Vec<Value> = (0..100).map(|_| json!({"op": "copy", "from": "", "path": "/b"})).collect();
    assert!(matches!(json(&object, json!(copies).to_string().as_bytes()), Err(Error::Malformed(_))));
}

#[test]
fn merge_patches_replace_lists_and_remove_nulls() {
    let object = json!({"a": 1, "l": [1, 2], "o": {"x": 1, "y": 2}});
    let result = merge(&object, br#"{"a":null,"l":[3],"o":{"x":null,"z":3}}"#).unwrap();
    assert_eq!(result, json!({"l": [3], "o": {"y": 2, "z": 3}}));
    assert!(merge(&object, b"[]").is_err());
}

#[test]
fn elements_merge_by_their_key() {
    let object =
        containers(json!([{"name": "a", "image": "1", "ports": [{"containerPort": 80}]}, {"name": "b", "image": "1"}]));
    let patch =
        containers(json!([{"name": "a", "image": "2", "ports": [{"containerPort": 81}]}, {"name": "c", "image": "3"}]));
    let expected = containers(json!([
        {"name": "a", "image": "2", "ports": [{"containerPort": 80}, {"containerPort": 81}]},
        {"name": "b", "image": "1"}, {"name": "c", "image": "3"},
    ]));
    assert_eq!(applied(object, patch), expected);
}

#[test]
fn directives_delete_replace_and_order() {
    let object = containers(json!([{"name": "a", "image": "1"}, {"name": "b"}, {"name": "c"}]));
    let deleted = applied(object.clone(), containers(json!([{"$patch": "delete", "name": "b"}])));
    assert_eq!(deleted, containers(json!([{"name": "a", "image": "1"}, {"name": "c"}])));
    let replaced = applied(object.clone(), containers(json!([{"$patch": "replace"}, {"name": "x"}])));
    assert_eq!(replaced, containers(json!([{"name": "x"}])));
    let order = json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}});
    assert_eq!(
        applied(object.clone(), order),
        containers(json!([{"name": "b"}, {"name": "c"}, {"name": "a", "image": "1"}]))
    );
    let whole = applied(object.clone(), json!({"spec": {"$patch": "replace", "nodeName": "n"}}));
    assert_eq!(whole, json!({"spec": {"nodeName": "n"}}));
    assert!(strategic(pod(), &object, br#"{"spec":{"$patch":"burn"}}"#).is_err());
    assert!(strategic(pod(), &object, br#"{"spec":{"containers":[{"image":"x"}]}}"#).is_err());
}

#[test]
fn sets_of_scalars_grow_and_shrink() {
    let object = json!({"metadata": {"finalizers": ["a", "b"]}});
    let patch = json!({"metadata": {"finalizers": ["c", "b"], "$deleteFromPrimitiveList/finalizers": ["a"],
        "$setElementOrder/finalizers": ["c", "b"]}});
    assert_eq!(applied(object, patch), json!({"metadata": {"finalizers": ["c", "b"]}}));
}

#[test]
fn lists_without_a_key_are_replaced() {
    let object = json!({"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1", "2"]}]}});
    let patch = json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]}});
    assert_eq!(applied(object, patch.clone()), patch);
}

#[test]
fn retained_keys_push_out_the_others() {
    let object = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    let patch =
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}});
    assert_eq!(applied(object, patch), json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}));
}

#[test]
fn a_new_image_is_a_small_patch() {
    let original = containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]));
    let modified = containers(json!([{"name": "a", "image": "2"}, {"name": "b", "image": "1"}]));
    let current =
        containers(json!([{"name": "a", "image": "1", "imagePullPolicy": "Always"}, {"name": "b", "image": "1"}]));
    let patch = three_way(Some(pod()), Some(&original), &modified, &current).unwrap();
    let expected = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
        "containers": [{"name": "a", "image": "2"}]}});
    assert_eq!(patch, expected);
}

#[test]
fn what_is_no_longer_declared_is_removed_and_what_others_set_stays() {
    let original =
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
    let modified = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}});
    let current = json!({"metadata": {"labels": {"a": "1", "b": "2", "theirs": "3"}},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "injected"}]}});
    let patch = three_way(Some(pod()), Some(&original), &modified, &current).unwrap();
    let expected = json!({"metadata": {"labels": {"b": null}}, "spec": {
        "$setElementOrder/containers": [{"name": "a"}],
        "containers": [{"image": "x", "name": "a"}, {"$patch": "delete", "name": "b"}]}});
    assert_eq!(patch, expected);
    let result = applied(current, patch);
    assert_eq!(
        result,
        json!({"metadata": {"labels": {"a": "1", "theirs": "3"}},
        "spec": {"containers": [{"name": "a", "image": "x"}, {"name": "injected"}]}})
    );
}

#[test]
fn a_changed_kind_of_strategy_retains_only_its_keys() {
    let state = |strategy: Value| json!({"spec": {"strategy": strategy}});
    let rolling = state(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}));
    let patch = three_way(Some(deployment()), None, &state(json!({"type": "Recreate"})), &rolling).unwrap();
    assert_eq!(patch, state(json!({"$retainKeys": ["type"], "type": "Recreate"})));
}

/// Seen on the wire of kubectl 1.32 for the same three states.
#[test]
fn the_difference_is_the_one_kubectl_sends() {
    let state = |replicas: i32, label: (&str, &str), port: i32| {
        let labels = json!({ label.0: label.1 });
        json!({"metadata": {"labels": labels}, "spec": {"replicas": replicas, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "web", "image": "x", "ports": [{"containerPort": port}]}]}}}})
    };
    let (before, after) = (state(3, ("app", "web"), 8080), state(5, ("tier", "b"), 8081));
    let rc = schema().message("k8s.api.core.v1.ReplicationController").unwrap();
    let kubectl = json!({"metadata": {"labels": {"app": null, "tier": "b"}}, "spec": {"replicas": 5, "template": {
        "metadata": {"labels": {"app": null, "tier": "b"}},
        "spec": {"$setElementOrder/containers": [{"name": "web"}], "containers": [{
            "$setElementOrder/ports": [{"containerPort": 8081}], "name": "web",
            "ports": [{"containerPort": 8081}, {"$patch": "delete", "containerPort": 8080}]}]}}}});
    assert_eq!(three_way(Some(rc), Some(&before), &after, &before).unwrap(), kubectl);
}

#[test]
fn a_custom_object_gets_a_merge_patch() {
    let original = json!({"spec": {"list": [{"name": "a"}], "gone": 1}});
    let modified = json!({"spec": {"list": [{"name": "b"}]}});
    let patch = three_way(None, Some(&original), &modified, &original).unwrap();
    assert_eq!(patch, json!({"spec": {"gone": null, "list": [{"name": "b"}]}}));
}

/// Every declared field is there with its value; lists with a key hold the declared elements in the declared order.
fn declares(shape: Shape, declared: &Value, found: &Value) -> bool {
    let (Value::Object(declared), Value::Object(found)) = (declared, found) else {
        return declared == found;
    };
    declared.iter().all(|(name, wanted)| {
        let strategy = shape.field(name);
        match (wanted, found.get(name)) {
            (Value::Object(_), Some(value)) => declares(strategy.shape, wanted, value),
            (Value::Array(wanted), Some(Value::Array(list))) => match strategy.list {
                shape::List::Replace => wanted == list,
                shape::List::Set => wanted.iter().all(|element| list.contains(element)),
                shape::List::ByKey(key) => {
                    let at = |element: &Value| list.iter().position(|found| found.get(key) == element.get(key));
                    let places: Vec<_> = wanted.iter().map(at).collect();
                    places.is_sorted()
                        && wanted
                            .iter()
                            .all(|element| at(element).is_some_and(|at| declares(strategy.shape, element, &list[at])))
                }
            },
            (wanted, value) => value == Some(wanted),
        }
    })
}

/// Pods with few names, so that original, modified and current share many of them.
fn any_pod() -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[a-c]", "[x-z]", 0..3);
    let finalizers = proptest::sample::subsequence(vec!["f", "g", "h"], 0..=3);
    let ports = proptest::sample::subsequence(vec![80, 81, 82], 0..=3).prop_shuffle();
    let env = proptest::collection::btree_map("[A-C]", "[x-z]", 0..3);
    let container = (proptest::option::of("[1-2]"), ports, env, proptest::collection::vec("[p-q]", 0..2)).prop_map(
        |(image, ports, env, args)| {
            let ports: Vec<Value> = ports.into_iter().map(|port| json!({"containerPort": port})).collect();
            let env: Vec<Value> = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            let mut container = json!({"ports": ports, "env": env, "args": args});
            if let Some(image) = image {
                container["image"] = json!(image);
            }
            container
        },
    );
    let named = proptest::collection::btree_map("[a-d]", container, 1..4).prop_map(|map| {
        map.into_iter()
            .map(|(name, mut container)| {
                container["name"] = json!(name);
                container
            })
            .collect::<Vec<_>>()
    });
    let volume = prop_oneof![
        Just(json!({"emptyDir": {}})),
        Just(json!({"hostPath": {"path": "/x"}})),
        Just(json!({"configMap": {"name": "c"}})),
    ];
    let volumes = proptest::collection::btree_map("[v-w]", volume, 0..3).prop_map(|map| {
        map.into_iter()
            .map(|(name, mut volume)| {
                volume["name"] = json!(name);
                volume
            })
            .collect::<Vec<_>>()
    });
    (labels, finalizers, named.prop_shuffle(), volumes, proptest::option::of("n[1-2]")).prop_map(
        |(labels, finalizers, containers, volumes, node)| {
            let mut pod = json!({"metadata": {"labels": labels, "finalizers": finalizers},
                "spec": {"containers": containers, "volumes": volumes}});
            if let Some(node) = node {
                pod["spec"]["nodeName"] = json!(node);
            }
            pod
        },
    )
}

proptest! {
    #[test]
    fn applying_the_difference_gives_what_is_declared(original in any_pod(), modified in any_pod(), current in any_pod()) {
        let patch = three_way(Some(pod()), Some(&original), &modified, &current).unwrap();
        let result = strategic(pod(), &current, patch.to_string().as_bytes()).unwrap();
        prop_assert!(declares(Shape::Message(pod()), &modified, &result), "{patch}\n{result}");
        // Applying again sends nothing.
        let again = three_way(Some(pod()), Some(&modified), &modified, &result).unwrap();
        prop_assert_eq!(again, json!({}));
        // What was declared and is so no longer is gone.
        for (label, _) in original["metadata"]["labels"].as_object().unwrap() {
            let is_declared = modified["metadata"]["labels"].get(label).is_some();
            prop_assert_eq!(result["metadata"]["labels"].get(label).is_some(), is_declared);
        }
        let names = |pod: &Value| -> Vec<Value> { pod["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect() };
        for name in names(&original) {
            prop_assert_eq!(names(&result).contains(&name), names(&modified).contains(&name));
        }
    }

    #[test]
    fn an_object_merged_with_itself_stays(object in any_pod()) {
        prop_assert_eq!(strategic(pod(), &object, object.to_string().as_bytes()).unwrap(), object);
    }
}
