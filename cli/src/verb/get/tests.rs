use expect_test::expect;
use proto::{
    Kind,
    k8s::{
        core::v1::{Container, Pod, PodSpec, ReplicationController, ReplicationControllerSpec},
        meta::v1::{ObjectMeta, Time},
    },
};

use crate::verb::stage::Stage;

async fn stage() -> Stage {
    let stage = Stage::new().await;
    for name in ["web-a", "web-b"] {
        let container = Container { name: "web".into(), image: "nginx".into(), ..Default::default() };
        let spec = PodSpec { containers: vec![container], ..Default::default() };
        let mut pod = Pod { spec: Some(spec), ..Default::default() };
        pod.meta_mut().name = name.into();
        pod.meta_mut().namespace = "default".into();
        pod.meta_mut().labels = [("app".to_owned(), name.to_owned())].into();
        stage.client.create(&pod).await.unwrap();
    }
    let mut rc = ReplicationController {
        spec: Some(ReplicationControllerSpec { replicas: Some(2), ..Default::default() }),
        ..Default::default()
    };
    rc.meta_mut().name = "web".into();
    rc.meta_mut().namespace = "default".into();
    stage.client.create(&rc).await.unwrap();
    for name in ["web-a", "web-b"] {
        stage.fake.edit::<Pod>("default", name, |pod| ten_days_old(pod.meta_mut()));
    }
    stage.fake.edit::<ReplicationController>("default", "web", |rc| ten_days_old(rc.meta_mut()));
    stage
}

/// An age that a slow machine does not change.
fn ten_days_old(meta: &mut ObjectMeta) {
    let seconds = kit::clock::system().now().as_second() - 10 * 24 * 60 * 60;
    meta.creation_timestamp = Some(Time { seconds, nanos: 0 });
}

#[tokio::test]
async fn a_table_has_aligned_columns() {
    stage()
        .await
        .check(
            "get pods",
            expect![[r#"
        NAME    READY   STATUS    RESTARTS   AGE
        web-a   0/1     Pending   0          10d
        web-b   0/1     Pending   0          10d
    "#]],
        )
        .await;
}

#[tokio::test]
async fn several_types_name_their_kind() {
    stage()
        .await
        .check(
            "get po,rc",
            expect![[r#"
        NAME        READY   STATUS    RESTARTS   AGE
        pod/web-a   0/1     Pending   0          10d
        pod/web-b   0/1     Pending   0          10d

        NAME                        DESIRED   CURRENT   READY   AGE
        replicationcontroller/web   2         0         0       10d
    "#]],
        )
        .await;
}

#[tokio::test]
async fn selectors_labels_and_namespaces_are_shown() {
    let stage = stage().await;
    stage
        .check(
            "get pods -A -l app=web-b --show-labels -L app",
            expect![[r#"
        NAMESPACE   NAME    READY   STATUS    RESTARTS   AGE   APP     LABELS
        default     web-b   0/1     Pending   0          10d   web-b   app=web-b
    "#]],
        )
        .await;
    stage
        .check(
            "get pods -o name --sort-by .metadata.name",
            expect![[r#"
        pod/web-a
        pod/web-b
    "#]],
        )
        .await;
}

#[tokio::test]
async fn what_is_missing_is_told_and_the_rest_is_shown() {
    let stage = stage().await;
    stage
        .check(
            "get pod web-a nope",
            expect![[r#"
        NAME    READY   STATUS    RESTARTS   AGE
        web-a   0/1     Pending   0          10d
        stderr: Error from server (NotFound): pods "nope" not found
        exit code 1
    "#]],
        )
        .await;
    stage.check("get pod nope --ignore-not-found", expect![""]).await;
    stage.check("get cm", expect!["stderr: No resources found in default namespace.\n"]).await;
    stage.check("get nodes", expect!["stderr: No resources found\n"]).await;
    stage
        .check(
            "get foos",
            expect![[r#"
                stderr: error: the server doesn't have a resource type "foos"
                exit code 1
            "#]],
        )
        .await;
}

#[tokio::test]
async fn one_object_is_shown_as_yaml_and_several_as_a_list() {
    let stage = stage().await;
    let yaml = stage.run("get rc web -o yaml").await;
    assert!(
        yaml.starts_with("apiVersion: v1\nkind: ReplicationController\nmetadata:\n  creationTimestamp: \""),
        "{yaml}"
    );
    let json = stage.run("get pods -o json").await;
    assert!(
        json.starts_with(
            "{\n    \"apiVersion\": \"v1\",\n    \"items\": [\n        {\n            \"apiVersion\": \"v1\","
        ),
        "{json}"
    );
    assert!(
        json.ends_with("    \"kind\": \"List\",\n    \"metadata\": {\n        \"resourceVersion\": \"\"\n    }\n}\n"),
        "{json}"
    );
}

#[tokio::test]
async fn a_watch_is_of_one_type() {
    stage()
        .await
        .check(
            "get pods,rc -w",
            expect![[r#"
        stderr: error: you may only specify a single resource type, and one name of it at most, to watch
        exit code 1
    "#]],
        )
        .await;
}

#[tokio::test]
async fn a_watch_shows_what_changes() {
    let stage = stage().await;
    let (paper, mut running) = stage.follow("get pods -w --output-watch-events").await;
    let acts = async {
        paper.shows("web-b").await;
        stage.fake.edit::<Pod>("default", "web-a", |pod| pod.status.get_or_insert_default().phase = "Running".into());
        paper.shows("MODIFIED   web-a   0/1     Running").await;
        stage.fake.break_watches();
        stage.run("delete pod web-b").await;
        paper.shows("DELETED    web-b").await;
    };
    tokio::select! {
        () = acts => {}
        () = &mut running => {}
    }
    assert!(
        paper.text().starts_with("EVENT      NAME    READY   STATUS    RESTARTS   AGE\nADDED      web-a   0/1"),
        "{}",
        paper.text()
    );
}
