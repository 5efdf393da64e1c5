use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kit::{
    life::Shutdown,
    tls::{self, Ca, ClientTls, Clients, Identity, Subject, Usage},
};
use proto::forestay::api::v1::{self as wire, objects_client::ObjectsClient};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::client::TlsStream;
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

    async fn stream(&self, identity: &Identity) -> TlsStream<TcpStream> {
        let config: Arc<rustls::ClientConfig> = tls::client_config(self.ca.cert_pem(), Some(identity)).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap()
    }

    async fn rest(&self, identity: &Identity, path: &str) -> (u16, String) {
        let stream = self.stream(identity).await;
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

/// One request of HTTP/1.1, its body a packet of its own; the code and the rest of the connection.
async fn plain(stream: &mut BufStream<TlsStream<TcpStream>>, head: &str, body: &str) -> String {
    let length = body.len();
    let head = format!("{head} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    for part in [head.as_str(), body] {
        stream.write_all(part.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).await.unwrap(), 0, "the connection ended: {head}");
    }
    let length = head.to_lowercase().split_once("content-length: ").unwrap().1.split_once("\r\n").unwrap().0.to_owned();
    stream.read_exact(&mut vec![0; length.parse().unwrap()]).await.unwrap();
    head.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_connection_outlives_a_refused_request() {
    let cluster = cluster().await;
    let served = served(&cluster).await;
    let admin = served.identity("admin", &["system:masters"]);
    let mut stream = BufStream::new(served.stream(&admin).await);
    // None of these answers depends on the body, which still has to be read.
    for _ in 0..10 {
        assert_eq!(plain(&mut stream, "POST /api/v1/namespaces/default/nosuch", "{}").await, "404");
        assert_eq!(plain(&mut stream, "PUT /api/v1/namespaces/default/pods", "{}").await, "405");
        assert_eq!(plain(&mut stream, "GET /version", "").await, "200");
    }
    drop(stream);
    served.shutdown.trigger();
    served.serving.await.unwrap().unwrap();
}
