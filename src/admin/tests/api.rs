//! A cluster in memory that can lose its leader, lose answers, or have other writers, and the API on it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::{AdminState, Callers, Cluster, Listener, Phase, router};
use crate::model::path::EscapedSlashes;
use crate::model::{
    Command, CommandBody, Kind, Name, NodeId, Operation, Outcome, ResourceKey, Revision, State, Timestamp, Transaction,
};
use crate::observe::Metrics;
use crate::raft::{ClusterStatus, MemberChange, MemberError, MemberLive, NotAppliedKind, ProposeError, ReadError};
use crate::secrets::Keyring;
use crate::table::Live;

/// How the cluster fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    NoLeader,
    /// Applied, and the answer lost.
    AnswerLost,
    OneNotLive,
}

pub(super) struct FakeCluster {
    pub(super) state: Mutex<State>,
    live: Arc<Live>,
    fault: Mutex<Fault>,
    /// Writes of others that come between a read and a proposal.
    pub(super) intruders: AtomicU32,
}

impl FakeCluster {
    fn apply(&self, command: &Command) -> Outcome {
        let mut state = self.state.lock().expect("the state");
        let before = state.clone();
        let outcome = state.apply(command);
        self.live.store(Arc::new(self.live.load().updated(&before, &state)));
        outcome
    }

    fn fault(&self) -> Fault {
        *self.fault.lock().expect("the fault")
    }

    pub(super) fn intrude(&self, number: u32) {
        let key = ResourceKey::new(Kind::Service, Name::new(&format!("intruder-{number}")).expect("a name"));
        let operations = vec![Operation::Put { key, spec: bytes::Bytes::from_static(b"{\"endpoints\":[]}") }];
        let body = CommandBody::Transaction(Transaction { operations, ..Transaction::default() });
        self.apply(&Command { proposed_at: Timestamp(1), actor: "other".to_owned(), body });
    }
}

impl Cluster for FakeCluster {
    fn propose(&self, command: Command, _: Instant) -> BoxFuture<'_, Result<Outcome, ProposeError>> {
        Box::pin(async move {
            if let Ok(left) = self.intruders.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
                self.intrude(left);
            }
            match self.fault() {
                Fault::NoLeader => {
                    Err(ProposeError::NotApplied { kind: NotAppliedKind::NoLeader, reason: "no leader".to_owned() })
                }
                Fault::AnswerLost => {
                    self.apply(&command);
                    Err(ProposeError::Unknown { reason: "the leader did not answer".to_owned() })
                }
                Fault::None | Fault::OneNotLive => Ok(self.apply(&command)),
            }
        })
    }

    fn read(&self, _: Instant) -> BoxFuture<'_, Result<State, ReadError>> {
        Box::pin(async move {
            match self.fault() {
                Fault::NoLeader => Err(ReadError::Unavailable("no leader".to_owned())),
                Fault::None | Fault::AnswerLost | Fault::OneNotLive => Ok(self.state()),
            }
        })
    }

    fn state(&self) -> State {
        self.state.lock().expect("the state").clone()
    }

    fn cluster_id(&self) -> Option<Arc<str>> {
        Some(Arc::from("c1"))
    }

    fn status(&self) -> ClusterStatus {
        let leader = (self.fault() != Fault::NoLeader).then_some(1);
        ClusterStatus { cluster_id: self.cluster_id(), node_id: 1, leader, quorum: leader.is_some(), ..ClusterStatus::default() }
    }

    fn wait_live(&self, revision: Revision, _: Instant) -> BoxFuture<'_, Vec<MemberLive>> {
        let late = self.fault() == Fault::OneNotLive;
        let member = move |id, live: bool| {
            let reason = (!live).then(|| "no answer for 1s".to_owned());
            MemberLive { id, revision: Some(if live { revision } else { Revision::ZERO }), live, reason }
        };
        Box::pin(async move { vec![member(1, true), member(2, !late)] })
    }

    fn add_member(&self, address: String, id: Option<NodeId>, _: Instant) -> BoxFuture<'_, Result<NodeId, MemberError>> {
        Box::pin(async move {
            match address.as_str() {
                "h:1" => Ok(id.unwrap_or(4)),
                _ => Err(MemberError::Refused(format!("the node at {address}: it belongs to a cluster already"))),
            }
        })
    }

    fn raise_feature_level(&self, level: u32, _: Instant) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async move {
            match level {
                0 => Ok(()),
                _ => Err(MemberError::Refused(format!("this node's version knows feature levels up to 0, not {level}"))),
            }
        })
    }

    fn change_member(&self, change: MemberChange, _: Instant) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async move {
            match change {
                MemberChange::Remove(9) => Err(MemberError::NotFound("node 9 is no member".to_owned())),
                MemberChange::Promote(3) => Err(MemberError::Conflict("node 3 does not answer".to_owned())),
                MemberChange::Demote(3) => Err(MemberError::Unknown("not committed before the deadline".to_owned())),
                _ => Ok(()),
            }
        })
    }
}

pub(super) struct Api {
    service: TowerToHyperService<Router>,
    pub(super) live: Arc<Live>,
    pub(super) router: Router,
    pub(super) cluster: Arc<FakeCluster>,
    pub(super) phase: watch::Sender<Phase>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Api {
    pub(super) fn new(callers: Callers) -> Api {
        Api::on(callers, Live::new())
    }

    /// On a node with sealing keys that are made of one byte each.
    pub(super) fn with_keys(bytes: &[u8]) -> Api {
        Api::on(Callers::default(), Live::with_keyring(Arc::new(Keyring::of_bytes(bytes))))
    }

    fn on(callers: Callers, live: Live) -> Api {
        let live = Arc::new(live);
        let cluster = Arc::new(FakeCluster {
            state: Mutex::default(),
            live: Arc::clone(&live),
            fault: Mutex::new(Fault::None),
            intruders: AtomicU32::new(0),
        });
        let (phase, phase_receiver) = watch::channel(Phase::Serving);
        let router = router(AdminState {
            cluster: Arc::clone(&cluster) as Arc<dyn Cluster>,
            live: Arc::clone(&live),
            metrics: Metrics::new(),
            callers,
            listeners: watch::channel([listener("public", 1, None), listener("inner", 2, Some("*.inner.example"))].into()).1,
            phase: phase_receiver,
        });
        Api { service: TowerToHyperService::new(router.clone()), live, router, cluster, phase }
    }

    pub(super) fn open() -> Api {
        Api::new(Callers::default())
    }

    pub(super) fn fail(&self, fault: Fault) {
        *self.cluster.fault.lock().expect("the fault") = fault;
    }

    pub(super) fn revision(&self) -> u64 {
        self.cluster.state().revision().0
    }

    pub(super) async fn send(&self, call: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let (method, path) = call.split_once(' ').expect("METHOD path");
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.service.call(request.body(body.into()).expect("a request")).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body, text }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), &[], "").await
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(&format!("PUT {path}"), &[("content-type", "application/json")], body.to_string()).await
    }
}

fn listener(name: &str, port: u16, hostname: Option<&str>) -> Listener {
    let (name, hostname) = (name.to_owned(), hostname.map(str::to_owned));
    let address = ([127, 0, 0, 1], port).into();
    Listener { name, address, hostname, tls: false, trusted_proxies: Vec::new(), escaped_slashes: EscapedSlashes::Refuse }
}

pub(super) fn route(path: &str, service: &str) -> Value {
    json!({"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [{"name": service}]}]})
}

pub(super) fn service(port: u16) -> Value {
    json!({"endpoints": [{"address": format!("127.0.0.1:{port}")}]})
}

pub(super) fn put_operation(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"op": "put", "kind": kind, "name": name, "spec": spec})
}
