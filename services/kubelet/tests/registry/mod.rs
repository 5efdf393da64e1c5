//! The smallest registry an engine pulls from: one image of one layer, over plain HTTP on the loopback.

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// One image, ready to be asked for.
struct Image {
    manifest: Vec<u8>,
    blobs: Vec<(String, Vec<u8>)>,
}

/// An address of the loopback that nobody listens on.
pub fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Serves an image made of one layer under any name.
pub async fn serve(address: &str, layer: Vec<u8>) -> JoinHandle<()> {
    let listener = TcpListener::bind(address).await.unwrap();
    let image = std::sync::Arc::new(Image::of(layer));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, image.clone()));
        }
    })
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Image {
    fn of(layer: Vec<u8>) -> Self {
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let config = config.to_string().into_bytes();
        let part = |kind: &str, bytes: &[u8]| {
            serde_json::json!({
                "mediaType": kind, "size": bytes.len(), "digest": digest(bytes),
            })
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": part("application/vnd.docker.container.image.v1+json", &config),
            "layers": [part("application/vnd.docker.image.rootfs.diff.tar.gzip", &layer)],
        });
        let blobs = [config, layer].map(|blob| (digest(&blob), blob)).to_vec();
        Self { manifest: manifest.to_string().into_bytes(), blobs }
    }

    /// Type and content of what lies at a path.
    fn at(&self, path: &str) -> Option<(&'static str, &[u8])> {
        if path == "/v2/" {
            return Some(("application/json", b"{}"));
        }
        if path.contains("/manifests/") {
            return Some((MANIFEST, &self.manifest));
        }
        let blob = self.blobs.iter().find(|(digest, _)| path.ends_with(digest))?;
        Some(("application/octet-stream", &blob.1))
    }
}

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Answers one request. An attempt at TLS is no request: it is cut off, and the engine tries without.
async fn answer(mut stream: TcpStream, image: std::sync::Arc<Image>) {
    let (mut request, mut part) = (Vec::new(), [0; 4096]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part).await {
            Ok(1..) if request.is_empty() && part[0] == 0x16 => return,
            Ok(read @ 1..) => request.extend_from_slice(&part[..read]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, (kind, content)) = match image.at(path) {
        Some(found) => ("200 OK", found),
        None => ("404 Not Found", ("application/json", &b"{}"[..])),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {}\r\n\
         Docker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\n\r\n",
        content.len(),
        digest(content)
    );
    let body = if method == "HEAD" { &[][..] } else { content };
    // Whoever has gone away needs no answer.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body).await;
}
