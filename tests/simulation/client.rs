//! A client of one node: it writes and reads as its seed says, one operation after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use raftgate::model::spec::canonical;
use raftgate::model::{
    Command, CommandBody, IdempotencyKey, Kind, Name, Operation, Outcome, Precondition, Resource, ResourceKey, Revision, State,
    Timestamp, Transaction,
};
use raftgate::raft::{Node, ProposeError};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::node::Place;
use crate::record::{Asked, Seen, now};

/// Routes that the clients fight over.
pub(crate) const KEYS: u64 = 6;
const PAUSE_MS: std::ops::Range<u64> = 1..110;
const DEADLINE_MS: std::ops::Range<u64> = 300..2_500;
/// Some writes are large, so that the log grows and snapshots are made.
const LARGE_BYTES: usize = 3_000;

pub(crate) fn key(number: u64) -> ResourceKey {
    ResourceKey::new(Kind::Route, Name::new(&format!("r{number}")).unwrap())
}

/// A route for the path of its key; the backend's name is the tag.
fn spec(number: u64, tag: &str, filler: usize) -> Bytes {
    let description = "x".repeat(filler);
    let path = json!({"type": "PathPrefix", "value": format!("/r{number}")});
    let headers = json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-filler", "value": description}]}}]);
    let rule = json!({"matches": [{"path": path}], "filters": headers, "backendRefs": [{"name": tag}]});
    canonical(&json!({"rules": [rule]})).unwrap()
}

/// The tag in a route that a client has written.
pub(crate) fn tag_of(spec: &Bytes) -> String {
    let spec: serde_json::Value = serde_json::from_slice(spec).unwrap();
    spec["rules"][0]["backendRefs"][0]["name"].as_str().unwrap().to_owned()
}

fn revision_of(state: &State, number: u64) -> Revision {
    state.get(&key(number)).map_or(Revision::ZERO, |resource: &Arc<Resource>| resource.revision)
}

pub(crate) async fn run(place: Arc<Place>, node: Node, start: u64, number: u64) {
    let mut random = fastrand::Rng::with_seed(place.seed ^ (place.id << 32) ^ (start << 16) ^ (number << 8));
    let mut count = 0;
    loop {
        sleep(Duration::from_millis(random.u64(PAUSE_MS))).await;
        if place.quiet.load(Ordering::Relaxed) {
            return;
        }
        count += 1;
        let deadline = Instant::now() + Duration::from_millis(random.u64(DEADLINE_MS));
        let tag = format!("t{}-{start}-{number}-{count}", place.id);
        let first = random.u64(..KEYS);
        match random.u8(..10) {
            0..3 => read(&place, &node, deadline).await,
            3 => {
                let operation = Operation::Delete { key: key(first) };
                write(&place, &node, Asked::Delete { key: first }, vec![operation], None, deadline).await;
            }
            4 => {
                let second = (first + random.u64(1..KEYS)) % KEYS;
                let keys = vec![first, second];
                let operations = put(&keys, &tag, 0);
                write(&place, &node, Asked::Put { keys, tag, at: None }, operations, None, deadline).await;
            }
            5 => {
                let keys = vec![first];
                let operations = put(&keys, &tag, 0);
                // From a State that may be old: then it is refused.
                let at = Some(revision_of(&node.state(), first));
                write(&place, &node, Asked::Put { keys, tag, at }, operations, None, deadline).await;
            }
            6 | 7 => {
                let keys = vec![first];
                let operations = put(&keys, &tag, LARGE_BYTES);
                write(&place, &node, Asked::Put { keys, tag, at: None }, operations, None, deadline).await;
            }
            _ => {
                let keys = vec![first];
                let operations = put(&keys, &tag, 0);
                let idempotency = Some(IdempotencyKey { scoped_key: format!("client\0{tag}"), request_sha256: [7; 32] });
                write(&place, &node, Asked::Put { keys, tag, at: None }, operations, idempotency, deadline).await;
            }
        }
        if random.u8(..60) == 0 {
            node.hand_over(Instant::now() + Duration::from_secs(1)).await;
        }
    }
}

fn put(keys: &[u64], tag: &str, filler: usize) -> Vec<Operation> {
    keys.iter().map(|&number| Operation::Put { key: key(number), spec: spec(number, tag, filler.max(1)) }).collect()
}

async fn read(place: &Place, node: &Node, deadline: Instant) {
    let attempt = place.record.begin(place.id, Asked::Read);
    let seen = match node.read(deadline).await {
        Ok(state) => Seen::State(Box::new(state)),
        Err(_) => Seen::NotApplied,
    };
    place.record.end(place.id, attempt, seen);
}

async fn write(
    place: &Place,
    node: &Node,
    asked: Asked,
    operations: Vec<Operation>,
    idempotency: Option<IdempotencyKey>,
    deadline: Instant,
) {
    let preconditions = match &asked {
        Asked::Put { keys, at: Some(revision), .. } => vec![Precondition::Revision { key: key(keys[0]), revision: *revision }],
        _ => Vec::new(),
    };
    let retries = if idempotency.is_some() { 3 } else { 0 };
    let body = CommandBody::Transaction(Transaction { preconditions, operations, idempotency });
    let proposed_at = Timestamp(u64::try_from(now().as_millis()).unwrap());
    let command = Command { proposed_at, actor: "simulation".to_owned(), body };
    let attempt = place.record.begin(place.id, asked);
    let mut seen = propose(node, command.clone(), deadline).await;
    // With an idempotency key a client may ask again, and has one effect and one answer.
    for _ in 0..retries {
        if !matches!(seen, Seen::Unknown) {
            break;
        }
        seen = match propose(node, command.clone(), Instant::now() + Duration::from_secs(2)).await {
            // The first try may still come.
            Seen::NotApplied => Seen::Unknown,
            seen => seen,
        };
    }
    place.record.end(place.id, attempt, seen);
}

async fn propose(node: &Node, command: Command, deadline: Instant) -> Seen {
    match node.propose(command, deadline).await {
        Ok(Outcome::Applied { revision, .. }) => Seen::Applied(revision),
        Ok(Outcome::Refused { revision, .. }) => Seen::Refused(revision),
        Err(ProposeError::Unknown { .. }) => Seen::Unknown,
        Err(ProposeError::NotApplied { .. }) => Seen::NotApplied,
        Err(error @ ProposeError::TooLarge { .. }) => panic!("{error}"),
    }
}
