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

        No LimitRange resource.
    "#]],
        )
        .await;
}

#[tokio::test]
async fn any_object_is_described_as_a_tree() {
    let stage = Stage::new().await;
    stage.given("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: m, annotations: {note: x}}\nimagePullSecrets: [{name: p}]\n").await;
    let text = stage.run("describe sa m").await;
    assert!(
        text.starts_with(
            "Name:         m\nNamespace:    default\nLabels:       <none>\nAnnotations:  note: x\nAPI Version:  v1\n"
        ),
        "{text}"
    );
    assert!(text.contains("Image Pull Secrets:\n  Name:  p\n"), "{text}");
    let told = stage.run("describe sa nope").await;
    assert_eq!(told, "stderr: Error from server (NotFound): serviceaccounts \"nope\" not found\nexit code 1\n");
}

#[tokio::test]
async fn the_values_of_a_secret_are_not_shown() {
    let stage = Stage::new().await;
    stage.given("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {key: aGVsbG8=}\n").await;
    let secret = stage.run("describe secret s").await;
    assert!(secret.ends_with("\nType:  Opaque\n\nData\n====\nkey:  5 bytes\n"), "{secret}");
    stage.given("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {key: hello}\n").await;
    let map = stage.run("describe cm c").await;
    assert!(map.ends_with("\nData\n====\nkey:\n----\nhello\n\n\nBinaryData\n====\n\nEvents:  <none>\n"), "{map}");
}
