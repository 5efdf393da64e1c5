use proto::{
    Kind,
    k8s::{
        core::v1::{ConfigMap, Namespace, Node, Pod, PodStatus, ReplicationController, Secret},
        meta::v1::ObjectMeta,
    },
};

use super::*;
use crate::{
    api::{FieldValidation, Patch, PatchKind, PodBinding},
    refusal::Refusal,
};

#[tokio::test]
async fn a_pod_is_stamped_and_filled_in() {
    let cluster = cluster().await;
    let made = cluster.create(&pod("web")).await.unwrap();
    let spec = made.spec.clone().unwrap();
    assert_eq!(made.meta().uid.len(), 36);
    assert_eq!(made.meta().generation, 1);
    assert!(made.meta().resource_version.parse::<u64>().unwrap() > 1);
    assert_eq!(spec.restart_policy, "Always");
    assert_eq!(spec.service_account_name, "default");
    assert_eq!(spec.termination_grace_period_seconds, Some(30));
    assert_eq!(spec.tolerations.len(), 2);
    assert_eq!(spec.containers[0].image_pull_policy, "IfNotPresent");
    let status = made.status.clone().unwrap();
    assert_eq!((status.phase.as_str(), status.qos_class.as_str()), ("Pending", "BestEffort"));
    assert_eq!(cluster.get::<Pod>("default", "web").await.unwrap(), made);
}

#[tokio::test]
async fn a_pod_without_an_image_is_refused_with_the_fields_name() {
    let mut broken = pod("web");
    let spec = broken.spec.as_mut().unwrap();
    spec.containers[0].image.clear();
    spec.containers[0].name = "Not_A_Name".into();
    let refusal = cluster().await.create(&broken).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.reason()), (422, "Invalid"));
    let causes = refusal.status().details.clone().unwrap().causes;
    assert!(refusal.message().starts_with("Pod \"web\" is invalid: [spec.containers[0].name: Invalid value: "));
    assert_eq!(causes[1].field, "spec.containers[0].image");
    assert_eq!((causes[1].reason.as_str(), causes[1].message.as_str()), ("FieldValueRequired", "Required value"));
}

#[tokio::test]
async fn a_taken_name_and_a_missing_namespace_are_refused() {
    let cluster = cluster().await;
    cluster.create(&pod("web")).await.unwrap();
    let refusal = cluster.create(&pod("web")).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (409, "pods \"web\" already exists"));
    let refusal = cluster.create(&named("nowhere", "web", pod("web"))).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (404, "namespaces \"nowhere\" not found"));
}

#[tokio::test]
async fn names_are_generated_until_one_is_free() {
    let cluster = cluster().await;
    let mut wanted = pod("");
    wanted.meta_mut().generate_name = "web-".into();
    let (one, other) = (cluster.create(&wanted).await.unwrap(), cluster.create(&wanted).await.unwrap());
    assert_ne!(one.meta().name, other.meta().name);
    assert!(one.meta().name.starts_with("web-") && one.meta().name.len() == 9);
}

#[tokio::test]
async fn an_update_of_an_older_state_conflicts() {
    let cluster = cluster().await;
    let mut first = cluster.create(&pod("web")).await.unwrap();
    first.meta_mut().labels.insert("a".into(), "1".into());
    let second = cluster.update(&first).await.unwrap();
    assert_ne!(second.meta().resource_version, first.meta().resource_version);
    first.meta_mut().labels.insert("a".into(), "2".into());
    let refusal = cluster.update(&first).await.unwrap_err();
    assert_eq!(refusal.code(), 409);
    assert_eq!(
        refusal.message(),
        "Operation cannot be fulfilled on pods \"web\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
}

#[tokio::test]
async fn an_update_that_changes_nothing_keeps_the_resource_version() {
    let cluster = cluster().await;
    let made = cluster.create(&pod("web")).await.unwrap();
    let mut same = made.clone();
    same.meta_mut().resource_version.clear();
    assert_eq!(cluster.update(&same).await.unwrap(), made);
}

#[tokio::test]
async fn spec_and_status_are_written_apart() {
    let cluster = cluster().await;
    let controller = ReplicationController {
        metadata: Some(ObjectMeta { namespace: "default".into(), name: "web".into(), ..Default::default() }),
        spec: Some(proto::k8s::core::v1::ReplicationControllerSpec {
            template: Some(proto::k8s::core::v1::PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: [("app".into(), "web".into())].into(), ..Default::default() }),
                spec: pod("x").spec,
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let made = cluster.create(&controller).await.unwrap();
    let spec = made.spec.clone().unwrap();
    assert_eq!((spec.replicas, spec.selector.len(), made.meta().labels.len()), (Some(1), 1, 1));

    let mut changed = made.clone();
    changed.spec.as_mut().unwrap().replicas = Some(3);
    changed.status.get_or_insert_default().replicas = 7;
    let changed = cluster.update(&changed).await.unwrap();
    assert_eq!((changed.meta().generation, changed.status.clone().unwrap_or_default().replicas), (2, 0));

    let mut reported = changed.clone();
    reported.spec.as_mut().unwrap().replicas = Some(9);
    reported.status.get_or_insert_default().replicas = 3;
    let reported = cluster.update_status(&reported).await.unwrap();
    assert_eq!((reported.meta().generation, reported.spec.clone().unwrap().replicas), (2, Some(3)));
    assert_eq!(reported.status.unwrap().replicas, 3);
}

#[tokio::test]
async fn most_of_a_pods_spec_cannot_change() {
    let cluster = cluster().await;
    let mut made = cluster.create(&pod("web")).await.unwrap();
    made.spec.as_mut().unwrap().containers[0].image = "nginx:2".into();
    let made = cluster.update(&made).await.unwrap();
    let mut moved = made.clone();
    moved.spec.as_mut().unwrap().node_name = "n1".into();
    let refusal = cluster.update(&moved).await.unwrap_err();
    assert_eq!(refusal.code(), 422);
    assert!(refusal.message().contains("pod updates may not change fields other than"), "{refusal}");
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let cluster = cluster().await;
    let made = cluster.create(&pod("web")).await.unwrap();
    let binding = |uid: &str, node: &str| PodBinding {
        namespace: "default".into(),
        name: "web".into(),
        uid: uid.into(),
        node: node.into(),
    };
    let results = cluster
        .api()
        .bind(&cluster.context, vec![binding("other", "n1"), binding(&made.meta().uid, "n1"), binding("", "n2")])
        .await;
    let codes: Vec<_> = results.iter().map(|result| result.as_ref().map_err(Refusal::code)).collect();
    assert_eq!(codes.iter().filter(|code| code.is_ok()).count(), 1);
    let bound = cluster.get::<Pod>("default", "web").await.unwrap();
    assert!(model::pod::is_scheduled(&bound));
    assert!(model::condition::is_true(&bound.status.unwrap().conditions, "PodScheduled"));
}

async fn patch(cluster: &Cluster, subresource: &str, kind: PatchKind, body: &str) -> Result<Stored> {
    let target = Target { subresource, ..cluster.target::<Pod>("default", "web") };
    let options = WriteOptions { field_validation: FieldValidation::Strict, ..Default::default() };
    let patch = Patch { kind, body: body.as_bytes(), force: false };
    cluster.api().patch(&cluster.context, target, patch, &options).await.map(|written| written.object)
}

#[tokio::test]
async fn patches_of_three_kinds_change_an_object() {
    let cluster = cluster().await;
    cluster.create(&pod("web")).await.unwrap();
    patch(&cluster, "", PatchKind::Merge, r#"{"metadata":{"labels":{"a":"1"}}}"#).await.unwrap();
    patch(&cluster, "", PatchKind::Json, r#"[{"op":"add","path":"/metadata/labels/b","value":"2"}]"#).await.unwrap();
    let strategic = r#"{"spec":{"containers":[{"name":"c","image":"nginx:9"}]}}"#;
    let changed: Pod = typed(&patch(&cluster, "", PatchKind::Strategic, strategic).await.unwrap());
    assert_eq!(changed.meta().labels.len(), 2);
    assert_eq!(changed.spec.as_ref().unwrap().containers.len(), 1);
    assert_eq!(changed.spec.as_ref().unwrap().containers[0].image, "nginx:9");
    assert_eq!(changed.meta().generation, 2);

    let refusal = patch(&cluster, "", PatchKind::Merge, r#"{"spec":{"nodeNam":"x"}}"#).await.unwrap_err();
    assert_eq!(
        (refusal.code(), refusal.message()),
        (422, "Pod \"web\" is invalid: patch: strict decoding error: unknown field \"spec.nodeNam\"")
    );
    let stale = r#"{"metadata":{"resourceVersion":"1","labels":{"c":"3"}}}"#;
    assert_eq!(patch(&cluster, "", PatchKind::Merge, stale).await.unwrap_err().code(), 409);
    let status = r#"{"status":{"phase":"Running"},"spec":{"nodeName":"n1"}}"#;
    let reported: Pod = typed(&patch(&cluster, "status", PatchKind::Strategic, status).await.unwrap());
    assert_eq!(reported.status.unwrap().phase, "Running");
    assert_eq!(reported.spec.unwrap().node_name, "");
}

#[tokio::test]
async fn an_object_over_the_limit_is_refused_with_both_numbers() {
    let map = ConfigMap { data: [("a".into(), "x".repeat(2 << 20))].into(), ..Default::default() };
    let refusal = cluster().await.create(&named("default", "big", map)).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.reason()), (413, "RequestEntityTooLarge"));
    assert!(refusal.message().contains("1572864") && refusal.message().contains("20971"), "{refusal}");
}

#[tokio::test]
async fn secrets_keep_plain_text_as_data_and_immutables_stay() {
    let cluster = cluster().await;
    let secret = Secret { string_data: [("k".into(), "v".into())].into(), immutable: Some(true), ..Default::default() };
    let mut made = cluster.create(&named("default", "s", secret)).await.unwrap();
    assert_eq!((made.data["k"].as_slice(), made.r#type.as_str()), (b"v".as_slice(), "Opaque"));
    assert!(made.string_data.is_empty());
    made.data.insert("k".into(), b"w".to_vec());
    assert!(cluster.update(&made).await.unwrap_err().message().contains("field is immutable when `immutable` is set"));
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let cluster = cluster().await;
    let before = cluster.store.revision();
    let options = WriteOptions { dry_run: true, ..Default::default() };
    let written =
        cluster.api().create(&cluster.context, cluster.target::<Pod>("default", ""), raw(&pod("web")), &options);
    assert_eq!(typed::<Pod>(&written.await.unwrap().object).meta().name, "web");
    assert_eq!(cluster.store.revision(), before);
}

#[tokio::test]
async fn a_node_reports_for_itself_alone() {
    let mut cluster = cluster().await;
    cluster.create(&pod("web")).await.unwrap();
    cluster.context = RequestContext { user: "system:node:n1".into(), groups: vec!["system:nodes".into()] };
    cluster.create(&named("", "n1", Node::default())).await.unwrap();
    assert_eq!(cluster.create(&named("", "n2", Node::default())).await.unwrap_err().code(), 403);
    // The pod is on no node yet.
    assert_eq!(cluster.get::<Pod>("default", "web").await.unwrap_err().code(), 403);
    assert_eq!(cluster.list::<Pod>("", ListOptions::default()).await.unwrap_err().code(), 403);
    let binding = PodBinding { namespace: "default".into(), name: "web".into(), uid: String::new(), node: "n1".into() };
    cluster.api().bind(&RequestContext::own(), vec![binding]).await.remove(0).unwrap();
    let mut mine = cluster.get::<Pod>("default", "web").await.unwrap();
    mine.status = Some(PodStatus { phase: "Running".into(), ..Default::default() });
    assert_eq!(cluster.update_status(&mine).await.unwrap().status.unwrap().phase, "Running");
    assert_eq!(cluster.update(&mine).await.unwrap_err().code(), 403);
}

#[tokio::test]
async fn the_first_namespaces_are_there() {
    let cluster = cluster().await;
    let names: Vec<String> = cluster
        .list::<Namespace>("", ListOptions::default())
        .await
        .unwrap()
        .iter()
        .map(|ns| ns.meta().name.clone())
        .collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
}
