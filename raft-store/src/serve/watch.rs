//! Watch: many watchers on one stream, each with a task and a cursor of its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prost::Message;
use proto::{
    etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion, watch_server::Watch},
    mvccpb::Event,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Door};
use crate::{machine::Refusal, node::Node, watch::Watcher};

/// Answers on their way to one client. A client that does not read stops its watchers here; they keep their cursor only.
const ANSWERS_MAX: usize = 16;

/// The watch id of answers that are about all watchers of a stream, or about none.
const NO_WATCH: i64 = -1;

#[tonic::async_trait]
impl Watch for Door {
    type WatchStream = Answers<WatchResponse>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, stream) = mpsc::channel(ANSWERS_MAX);
        let wants_leader = super::wants_leader(request.metadata());
        let session = Session { node: self.node.clone(), answers, watches: Arc::default(), next_id: 0, wants_leader };
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Returns once nobody has led for as long as it takes to elect somebody, where that is asked for.
async fn leaderless(node: Node, asked: bool) {
    if !asked {
        return std::future::pending().await;
    }
    let patience = 3 * node.options().timing.election_max;
    loop {
        let leader = node.group().leader();
        let within = if leader.is_some() { Duration::MAX } else { patience };
        node.group().leader_other_than(leader, within).await;
        if leader.is_none() && node.group().leader().is_none() {
            return;
        }
    }
}

struct Active {
    task: tokio::task::AbortHandle,
    heard: watch::Receiver<i64>,
}

struct Session {
    node: Node,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
    watches: Arc<Mutex<BTreeMap<i64, Active>>>,
    next_id: i64,
    /// The client would rather watch elsewhere than hear nothing while nobody leads.
    wants_leader: bool,
}

impl Session {
    async fn run(mut self, mut requests: Streaming<WatchRequest>) {
        let shutdown = self.node.until_shutdown();
        let leaderless = leaderless(self.node.clone(), self.wants_leader);
        tokio::pin!(leaderless);
        loop {
            let request = tokio::select! {
                request = requests.message() => request,
                () = &mut leaderless => {
                    let _ = self.answers.send(Err(Refusal::NoLeader.into())).await;
                    break;
                }
                () = self.answers.closed() => break,
                () = shutdown.triggered() => break,
            };
            // A client that has said all it has to say still listens; one that broke off does not.
            let request = match request {
                Ok(Some(request)) => request,
                Ok(None) => {
                    tokio::select! {
                        () = self.answers.closed() => {}
                        () = &mut leaderless => {
                            let _ = self.answers.send(Err(Refusal::NoLeader.into())).await;
                        }
                        () = shutdown.triggered() => {}
                    }
                    break;
                }
                Err(_) => break,
            };
            match request.request_union {
                Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
                Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id).await,
                Some(RequestUnion::ProgressRequest(_)) => self.progress(),
                None => {}
            }
        }
        for active in std::mem::take(&mut *self.watches.lock()).into_values() {
            active.task.abort();
        }
    }

    async fn create(&mut self, create: WatchCreateRequest) {
        let has_keys = !crate::watch::Interest::of(&create).is_empty();
        let Some(id) = (if has_keys { self.id_for(create.watch_id) } else { Some(NO_WATCH) }) else {
            let refused = WatchResponse {
                header: Some(self.node.header_now()),
                watch_id: NO_WATCH,
                created: true,
                canceled: true,
                cancel_reason: "mvcc: duplicate watch ID provided on the WatchStream".to_owned(),
                ..WatchResponse::default()
            };
            // A closed stream is noticed by `run`.
            let _ = self.answers.send(Ok(refused)).await;
            return;
        };
        let (first, watcher) = self.node.open_watch(&create);
        for response in first {
            let _ = self.answers.send(Ok(WatchResponse { watch_id: id, ..response })).await;
        }
        let Some(watcher) = watcher else { return };
        let heard = watcher.heard();
        let bytes_max = create.fragment.then_some(self.node.options().request_bytes_max);
        let feed = Feed { id, node: self.node.clone(), answers: self.answers.clone(), watcher, bytes_max };
        let watches = self.watches.clone();
        // Held until the watch is listed, so that one that ends at once is not listed after its end.
        let mut listed = self.watches.lock();
        let task = tokio::spawn(async move {
            feed.run().await;
            watches.lock().remove(&id);
        });
        listed.insert(id, Active { task: task.abort_handle(), heard });
    }

    fn id_for(&mut self, wanted: i64) -> Option<i64> {
        let watches = self.watches.lock();
        if wanted != 0 {
            return (!watches.contains_key(&wanted)).then_some(wanted);
        }
        while watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    async fn cancel(&mut self, id: i64) {
        let Some(active) = self.watches.lock().remove(&id) else { return };
        active.task.abort();
        let canceled = WatchResponse {
            header: Some(self.node.header_now()),
            watch_id: id,
            canceled: true,
            ..WatchResponse::default()
        };
        let _ = self.answers.send(Ok(canceled)).await;
    }

    /// Answers once every watcher of the stream has been given all up to now, so that the answer overtakes no event.
    fn progress(&self) {
        let revision = self.node.group().stage().revision();
        let waiting: Vec<watch::Receiver<i64>> =
            self.watches.lock().values().map(|active| active.heard.clone()).collect();
        let (node, answers) = (self.node.clone(), self.answers.clone());
        tokio::spawn(async move {
            for mut heard in waiting {
                // A watcher that ended has nothing more to give.
                let _ = heard.wait_for(|heard| *heard >= revision).await;
            }
            let progress =
                WatchResponse { header: Some(node.header(revision)), watch_id: NO_WATCH, ..WatchResponse::default() };
            let _ = answers.send(Ok(progress)).await;
        });
    }
}

/// Carries what one watcher hears to its client.
struct Feed {
    id: i64,
    node: Node,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
    watcher: Watcher,
    bytes_max: Option<usize>,
}

impl Feed {
    async fn run(mut self) {
        loop {
            let response = match self.node.watch_response(self.watcher.next().await) {
                Ok(response) => WatchResponse { watch_id: self.id, ..response },
                Err(status) => {
                    let _ = self.answers.send(Err(status)).await;
                    return;
                }
            };
            let ends = response.canceled;
            for part in fragments(response, self.bytes_max) {
                if self.answers.send(Ok(part)).await.is_err() {
                    return;
                }
            }
            if ends {
                return;
            }
        }
    }
}

/// Parts of an answer that is too large for one message; all but the last say that more follows.
fn fragments(response: WatchResponse, bytes_max: Option<usize>) -> Vec<WatchResponse> {
    let Some(bytes_max) = bytes_max.filter(|bytes_max| response.encoded_len() > *bytes_max) else {
        return vec![response];
    };
    let mut parts: Vec<Vec<Event>> = vec![Vec::new()];
    let mut bytes = 0;
    for event in response.events {
        let len = event.encoded_len();
        if bytes + len > bytes_max && bytes > 0 {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += len;
        if let Some(part) = parts.last_mut() {
            part.push(event);
        }
    }
    let last = parts.len() - 1;
    let whole = WatchResponse { events: Vec::new(), ..response };
    parts
        .into_iter()
        .enumerate()
        .map(|(index, events)| WatchResponse { events, fragment: index < last, ..whole.clone() })
        .collect()
}
