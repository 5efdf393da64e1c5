//! Asks one store, and writes its answer as text that can be compared.

use bytes::Bytes;
use proto::{
    etcdserverpb::{
        DeleteRangeRequest, DeleteRangeResponse, LeaseLeasesRequest, LeaseRevokeRequest, PutRequest, PutResponse,
        RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
        kv_client::KvClient, lease_client::LeaseClient, request_op::Request, response_op::Response,
        watch_client::WatchClient, watch_request::RequestUnion,
    },
    mvccpb::KeyValue,
};
use tonic::{Status, transport::Channel};

use crate::dice::Ask;

fn bare(header: Option<ResponseHeader>) -> Option<i64> {
    header.map(|header| header.revision)
}

fn show_kv(kv: &KeyValue) -> String {
    format!(
        "{:?}={:?} ({} bytes) create={} mod={} version={} lease={}",
        kv.key,
        kv.value.slice(..kv.value.len().min(8)),
        kv.value.len(),
        kv.create_revision,
        kv.mod_revision,
        kv.version,
        kv.lease
    )
}

fn show_kvs(kvs: &[KeyValue]) -> String {
    format!("{:?}", kvs.iter().map(show_kv).collect::<Vec<_>>())
}

/// What a range was sorted by.
fn sorted_by(kv: &KeyValue, target: i32) -> String {
    match target {
        1 => format!("{:020}", kv.version),
        2 => format!("{:020}", kv.create_revision),
        3 => format!("{:020}", kv.mod_revision),
        4 => format!("{:?}", kv.value),
        _ => format!("{:?}", kv.key),
    }
}

/// Ties may be broken either way, and a limit may cut through them: the order of what was sorted by is shown, then the
/// key-values by key, without those that tie with the last where more were found.
fn show_range(response: RangeResponse, request: &RangeRequest) -> String {
    let RangeResponse { header, mut kvs, more, count } = response;
    let order: Vec<String> = kvs.iter().map(|kv| sorted_by(kv, request.sort_target)).collect();
    if request.sort_target != 0 {
        let cut = order.last().filter(|_| more);
        kvs.retain(|kv| Some(&sorted_by(kv, request.sort_target)) != cut);
        kvs.sort_by(|a, b| a.key.cmp(&b.key));
    }
    format!("range rev={:?} count={count} more={more} order={order:?} {}", bare(header), show_kvs(&kvs))
}

fn show_put(response: PutResponse) -> String {
    format!("put rev={:?} prev={:?}", bare(response.header), response.prev_kv.as_ref().map(show_kv))
}

fn show_delete(response: DeleteRangeResponse) -> String {
    format!("delete rev={:?} deleted={} {}", bare(response.header), response.deleted, show_kvs(&response.prev_kvs))
}

fn show_txn(response: TxnResponse, request: &TxnRequest) -> String {
    let taken = if response.succeeded { &request.success } else { &request.failure };
    assert_eq!(response.responses.len(), taken.len(), "one answer for each operation");
    let parts: Vec<String> = response
        .responses
        .into_iter()
        .zip(taken)
        .map(|(part, op)| match (part.response.unwrap(), op.request.as_ref().unwrap()) {
            (Response::ResponseRange(range), Request::RequestRange(request)) => show_range(range, request),
            (Response::ResponsePut(put), _) => show_put(put),
            (Response::ResponseDeleteRange(delete), _) => show_delete(delete),
            (Response::ResponseTxn(txn), Request::RequestTxn(request)) => show_txn(txn, request),
            (other, _) => format!("{other:?}"),
        })
        .collect();
    format!("txn rev={:?} succeeded={} {parts:?}", bare(response.header), response.succeeded)
}

/// The answer of one store.
pub async fn answer(channel: &Channel, ask: Ask) -> String {
    told(channel, ask).await.unwrap_or_else(|status| format!("{:?} {}", status.code(), status.message()))
}

async fn told(channel: &Channel, ask: Ask) -> Result<String, Status> {
    let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(64 << 20);
    let mut lease = LeaseClient::new(channel.clone());
    Ok(match ask {
        Ask::Range(request) => show_range(kv.range(request.clone()).await?.into_inner(), &request),
        Ask::Put(request) => show_put(kv.put(request).await?.into_inner()),
        Ask::Delete(request) => show_delete(kv.delete_range(request).await?.into_inner()),
        Ask::Txn(request) => show_txn(kv.txn(request.clone()).await?.into_inner(), &request),
        Ask::Compact(request) => format!("compact rev={:?}", bare(kv.compact(request).await?.into_inner().header)),
        Ask::Grant(request) => {
            let grant = lease.lease_grant(request).await?.into_inner();
            format!("grant rev={:?} id={} ttl={} {:?}", bare(grant.header), grant.id, grant.ttl, grant.error)
        }
        Ask::GrantForNow(request) => {
            let grant = lease.lease_grant(request).await?.into_inner();
            lease.lease_revoke(LeaseRevokeRequest { id: grant.id }).await?;
            format!("grant for now rev={:?} id={} ttl={}", bare(grant.header), grant.id, grant.ttl)
        }
        Ask::Revoke(request) => {
            format!("revoke rev={:?}", bare(lease.lease_revoke(request).await?.into_inner().header))
        }
        Ask::KeepAlive(request) => {
            let mut answers = lease.lease_keep_alive(tokio_stream::once(request)).await?.into_inner();
            let kept = answers.message().await?.expect("each keep-alive has its answer");
            format!("keep-alive rev={:?} id={} ttl={}", bare(kept.header), kept.id, kept.ttl)
        }
        Ask::TimeToLive(request) => {
            let mut lease = lease.lease_time_to_live(request).await?.into_inner();
            lease.keys.sort();
            let is_gone = lease.ttl == -1;
            format!(
                "lease rev={:?} id={} granted={} gone={is_gone} {:?}",
                bare(lease.header),
                lease.id,
                lease.granted_ttl,
                lease.keys
            )
        }
        Ask::Leases => {
            let answer = lease.lease_leases(LeaseLeasesRequest {}).await?.into_inner();
            let mut ids: Vec<i64> = answer.leases.iter().map(|lease| lease.id).collect();
            ids.sort_unstable();
            format!("leases rev={:?} {ids:?}", bare(answer.header))
        }
        Ask::Watch(request, compacted) => watch(channel, request, compacted).await?,
    })
}

/// Ends a run in which one side stays silent.
pub async fn within(number: usize, who: &str, ask: &Ask, answer: impl Future<Output = String>) -> String {
    let patience = std::time::Duration::from_secs(20);
    tokio::time::timeout(patience, answer)
        .await
        .unwrap_or_else(|_| panic!("request {number}: no answer of {who} to {ask:?}"))
}

/// Everything up to a mark that is written for the purpose, at the first key that is watched.
async fn watch(channel: &Channel, create: WatchCreateRequest, compacted: i64) -> Result<String, Status> {
    let mut kv = KvClient::new(channel.clone());
    let mark = if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key.clone() };
    let put = PutRequest { key: mark.clone(), ..PutRequest::default() };
    let mut last = bare(kv.put(put).await?.into_inner().header).unwrap_or_default();
    if create.filters.contains(&0) {
        let delete = DeleteRangeRequest { key: mark, ..DeleteRangeRequest::default() };
        last = bare(kv.delete_range(delete).await?.into_inner().header).unwrap_or_default();
    }
    let nothing_comes = create.filters.contains(&0) && create.filters.contains(&1);
    let (requests, stream) = tokio::sync::mpsc::channel(1);
    let _ = requests.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create.clone())) }).await;
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let mut answers =
        WatchClient::new(channel.clone()).max_decoding_message_size(64 << 20).watch(stream).await?.into_inner();
    let mut lines = vec!["watch".to_owned()];
    while let Some(response) = answers.message().await? {
        if response.created || response.canceled {
            lines.push(format!(
                "id={} created={} canceled={} compact={} {:?}",
                response.watch_id,
                response.created,
                response.canceled,
                response.compact_revision,
                response.cancel_reason
            ));
        }
        if response.canceled || (nothing_comes && create.start_revision >= compacted) {
            break;
        }
        let mut is_last = false;
        for event in response.events {
            let kv = event.kv.as_ref().unwrap();
            // Accepted difference 2 of docs/etcd.md.
            let previous = event.prev_kv.as_ref().filter(|_| kv.mod_revision > compacted).map(show_kv);
            lines.push(format!("{:?} {} prev={previous:?}", event.r#type(), show_kv(kv)));
            is_last |= kv.mod_revision == last;
        }
        if is_last {
            break;
        }
    }
    Ok(lines.join("\n"))
}
