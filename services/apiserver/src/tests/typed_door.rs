use futures::StreamExt;
use prost::Message;
use proto::{
    Kind, Object,
    forestay::api::v1::{self as wire, objects_client::ObjectsClient},
    k8s::{core::v1::Pod, meta::v1::Status},
    rpc,
};
use tonic::{Code, transport::Channel};

use super::*;

fn pods(name: &str) -> Option<wire::Target> {
    Some(wire::Target { resource: "pods".into(), namespace: "default".into(), name: name.into(), ..Default::default() })
}

fn door(cluster: &Cluster) -> ObjectsClient<Channel> {
    ObjectsClient::new(cluster.server.channel_as(RequestContext::own()))
}

async fn make(door: &mut ObjectsClient<Channel>, name: &str) -> Pod {
    let request = wire::CreateRequest { object: Some(Object::of(&pod(name))), ..Default::default() };
    door.create(request).await.unwrap().into_inner().decode_as().unwrap()
}

#[tokio::test]
async fn objects_travel_as_their_own_arms() {
    let cluster = cluster().await;
    let mut door = door(&cluster);
    let made = make(&mut door, "web").await;
    let got = door.get(wire::GetRequest { target: pods("web"), ..Default::default() }).await.unwrap().into_inner();
    assert_eq!((got.api_version.as_str(), got.kind.as_str()), ("v1", "Pod"));
    assert_eq!(got.decode_as::<Pod>().unwrap(), made);
    let view = wire::View::Metadata.into();
    let meta = door.get(wire::GetRequest { target: pods("web"), view }).await.unwrap().into_inner();
    assert_eq!((meta.arm, meta.metadata.unwrap().name.as_str()), (0, "web"));
}

#[tokio::test]
async fn a_refusal_carries_kubernetes_status() {
    let cluster = cluster().await;
    let refused =
        door(&cluster).get(wire::GetRequest { target: pods("none"), ..Default::default() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let details = rpc::Status::decode(refused.details()).unwrap();
    assert_eq!(details.details[0].type_url, "type.googleapis.com/k8s.api.meta.v1.Status");
    let status = Status::decode(details.details[0].value.as_slice()).unwrap();
    assert_eq!((status.reason.as_str(), status.message.as_str()), ("NotFound", "pods \"none\" not found"));
}

#[tokio::test]
async fn strangers_are_refused_at_this_door_too() {
    let cluster = cluster().await;
    let mut door = ObjectsClient::new(cluster.server.channel_as(RequestContext::anonymous()));
    let refused = door.get(wire::GetRequest { target: pods("web"), ..Default::default() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn lists_and_watches_are_streams() {
    let cluster = cluster().await;
    let mut door = door(&cluster);
    make(&mut door, "a").await;
    let list = wire::ListRequest { target: pods(""), ..Default::default() };
    let chunks: Vec<_> = door.list(list).await.unwrap().into_inner().collect().await;
    let chunk = chunks[0].as_ref().unwrap();
    assert_eq!((chunks.len(), chunk.items.len()), (1, 1));

    let set = wire::WatchSet { target: pods(""), from_revision: chunk.revision, ..Default::default() };
    let mut watching = door.watch(wire::WatchRequest { sets: vec![set] }).await.unwrap().into_inner();
    let made = make(&mut door, "b").await;
    let seen = loop {
        let message = watching.message().await.unwrap().unwrap();
        if !message.events.is_empty() {
            break message;
        }
    };
    assert_eq!(seen.revision.to_string(), made.meta().resource_version);
    assert_eq!(seen.events[0].object.as_ref().unwrap().decode_as::<Pod>().unwrap(), made);
}

#[tokio::test]
async fn status_is_updated_through_its_own_method() {
    let cluster = cluster().await;
    let mut door = door(&cluster);
    let mut made = make(&mut door, "web").await;
    made.status.as_mut().unwrap().phase = "Running".into();
    made.spec.as_mut().unwrap().node_name = "n1".into();
    let request = wire::UpdateRequest { target: pods("web"), object: Some(Object::of(&made)), options: None };
    let changed: Pod = door.update_status(request).await.unwrap().into_inner().decode_as().unwrap();
    assert_eq!(changed.status.unwrap().phase, "Running");
    assert_eq!(changed.spec.unwrap().node_name, "");
}

#[tokio::test]
async fn watches_end_when_the_server_stops() {
    let cluster = cluster().await;
    let set = wire::WatchSet { target: pods(""), from_revision: 1, ..Default::default() };
    let mut watching = door(&cluster).watch(wire::WatchRequest { sets: vec![set] }).await.unwrap().into_inner();
    cluster.server.stop().await;
    while let Ok(Some(_)) = watching.message().await {}
}
