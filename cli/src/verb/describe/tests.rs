use expect_test::expect;

use crate::verb::stage::Stage;

#[tokio::test]
async fn a_pod_is_described_with_its_containers() {
    let stage = Stage::new().await;
    let text = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: app
    image: nginx
    ports: [{containerPort: 80}]
    resources: {limits: {cpu: 500m}}
    env: [{name: A, value: b}]
    volumeMounts: [{name: data, mountPath: /data, readOnly: true}]
    readinessProbe: {httpGet: {port: 80, path: /x}, periodSeconds: 10}
  volumes: [{name: data, emptyDir: {}}]
";
    stage.run(&format!("create -f {}", stage.file("pod.yaml", text))).await;
    stage.check("describe pod web", expect![[r#""#]]).await;
}

#[tokio::test]
async fn a_service_and_a_namespace_are_described() {
    let stage = Stage::new().await;
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}\n";
    stage.run(&format!("create -f {}", stage.file("svc.yaml", text))).await;
    stage.check("describe svc web", expect![[r#""#]]).await;
    stage.check("describe ns default", expect![[r#""#]]).await;
}

#[tokio::test]
async fn any_object_is_described_as_a_tree() {
    let stage = Stage::new().await;
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, annotations: {note: x}}\ndata: {someKey: value, other.key: v}\n";
    stage.run(&format!("create -f {}", stage.file("map.yaml", text))).await;
    let text = stage.run("describe cm m").await;
    assert!(text.contains("Data:\n  other.key:  v\n  Some Key:   value\n"), "{text}");
    stage
        .check(
            "describe cm nope",
            expect![[r#"
        stderr: Error from server (NotFound): configmaps "nope" not found
        exit code 1
    "#]],
        )
        .await;
}
