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
    stage.given(text).await;
    stage
        .check(
            "describe pod web",
            expect![[r#"
        Name:             web
        Namespace:        default
        Priority:         0
        Service Account:  default
        Node:             <none>
        Labels:           app=web
        Annotations:      <none>
        Status:           Pending
        IP:
        IPs:              <none>
        Containers:
          app:
            Image:      nginx
            Port:       80/TCP
            Host Port:  0/TCP
            Limits:
              cpu:      500m
            Readiness:  http-get http://:80/x delay=0s timeout=0s period=10s #success=0 #failure=0
            Environment:
              A:  b
            Mounts:
              /data from data (ro)
        Volumes:
          data:
            Type:        EmptyDir (a temporary directory that shares a pod's lifetime)
            Medium:
            SizeLimit:   <unset>
        QoS Class:       Burstable
        Node-Selectors:  <none>
        Tolerations:     <none>
        Events:          <none>
    "#]],
        )
        .await;
}

#[tokio::test]
async fn a_service_and_a_namespace_are_described() {
    let stage = Stage::new().await;
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}\n";
    stage.given(text).await;
    stage
        .check(
            "describe svc web",
            expect![[r#"
        Name:              web
        Namespace:         default
        Labels:            <none>
        Annotations:       <none>
        Selector:          app=web
        Type:              ClusterIP
        IP:
        IPs:               <none>
        Port:              <unset>  80/TCP
        TargetPort:        http/TCP
        Endpoints:         <none>
        Session Affinity:  None
        Events:            <none>
    "#]],
        )
        .await;
    stage
        .check(
            "describe ns default",
            expect![[r#"
        Name:         default
        Labels:       <none>
        Annotations:  <none>
        Status:       Active

        No resource quota.
    "#]],
        )
        .await;
}

#[tokio::test]
async fn any_object_is_described_as_a_tree() {
    let stage = Stage::new().await;
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, annotations: {note: x}}\ndata: {someKey: value, other.key: v}\n";
    stage.given(text).await;
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
