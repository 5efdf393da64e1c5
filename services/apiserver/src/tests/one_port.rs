use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kit::{
    life::Shutdown,
    tls::{self, Ca, ClientTls, Clients, Identity, Subject, Usage},
};
use proto::forestay::api::v1::{self as wire, objects_client::ObjectsClient};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

use super::*;

struct Served {
    ca: Ca,
    port: u16,
    shutdown: Shutdown,
    serving: tokio::task::JoinHandle<anyhow::Result<()>>,
}

const LIFETIME: Duration = Duration::from_secs(3600);

async fn served(cluster: &Cluster) -> Served {
    let ca = Ca::create("test").unwrap();
    let subject = Subject { usage: Usage::Server, ..Subject::server("apiserver", ["127.0.0.1", "localhost"]) };
    let identity = ca.issue(&subject, LIFETIME).unwrap();
    let config = tls::server_config(&identity, ca.cert_pem(), Clients::Welcome, &["h2", "http/1.1"]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shutdown = Shutdown::new();
    let (server, stop) = (cluster.server.clone(), shutdown.clone());
    let serving = tokio::spawn(async move { server.serve(listener, config, stop).await });
    Served { ca, port, shutdown, serving }
}

impl Served {
    fn identity(&self, name: &str, groups: &[&str]) -> Identity {
        self.ca.issue(&Subject::client(name, groups), LIFETIME).unwrap()
    }

    fn door(&self, identity: Option<Identity>) -> ObjectsClient<tonic::transport::Channel> {
        let tls = ClientTls { ca_pem: self.ca.cert_pem().to_owned(), identity };
        ObjectsClient::new(tls::channel(&[format!("https://127.0.0.1:{}", self.port)], &tls).unwrap())
    }

    async fn rest(&self, identity: &Identity, path: &str) -> (u16, String) {
        let config: Arc<rustls::ClientConfig> = tls::client_config(self.ca.cert_pem(), Some(identity)).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("https://localhost:{}{path}", self.port);
        let request = http::Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    }
}

#[tokio::test]
async fn both_doors_are_on_one_port_and_certificates_say_who_asks() {
    let cluster = cluster().await;
    cluster.create(&pod("web")).await.unwrap();
    let served = served(&cluster).await;
    let admin = served.identity("admin", &["system:masters"]);

    let (code, body) = served.rest(&admin, "/api/v1/namespaces/default/pods/web").await;
    assert_eq!(code, 200);
    assert!(body.starts_with("{") && body.contains("\"kind\":\"Pod\""), "{body}");

    let target = || {
        Some(wire::Target {
            resource: "pods".into(),
            namespace: "default".into(),
            name: "web".into(),
            ..Default::default()
        })
    };
    let get = || wire::GetRequest { target: target(), ..Default::default() };
    assert_eq!(served.door(Some(admin)).get(get()).await.unwrap().into_inner().kind, "Pod");
    let node = served.identity("system:node:n1", &["system:nodes"]);
    assert_eq!(served.door(Some(node)).get(get()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(served.door(None).get(get()).await.unwrap_err().code(), Code::PermissionDenied);
    // Another authority's certificate does not pass the handshake.
    let stranger =
        Ca::create("other").unwrap().issue(&Subject::client("admin", &["system:masters"]), LIFETIME).unwrap();
    assert_ne!(served.door(Some(stranger)).get(get()).await.unwrap_err().code(), Code::Ok);

    served.shutdown.trigger();
    served.serving.await.unwrap().unwrap();
}
