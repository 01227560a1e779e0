//! Random transactions from many clients at all nodes: one State everywhere, and a table that does not depend on how it came to be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Method};
use raftgate::model::limits::FEATURE_LEVEL_MAX;
use raftgate::model::spec::{PathMatchType, RouteMatch, RouteSpec, canonical, parse_route};
use raftgate::model::{
    Command, CommandBody, Kind, Name, Operation, Outcome, Precondition, ResourceKey, Revision, State, Timestamp, Transaction,
};
use raftgate::observe::{Metrics, SchedulingGap};
use raftgate::raft::{Node, NodeOptions, RaftSettings, Transport};
use raftgate::store::{Opened, StoreOptions};
use raftgate::table::{Live, RequestView, Snapshot};
use regex::Regex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

const TRANSACTIONS: usize = 10_000;
const CLIENTS: usize = 16;
const NAMES: u64 = 60;

/// Three nodes on loopback.
struct Cluster {
    nodes: Vec<Node>,
    _directories: Vec<TempDir>,
}

impl Cluster {
    async fn start() -> Cluster {
        let mut listeners = Vec::new();
        for _ in 0..3 {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap().to_string());
        let initial_members: BTreeMap<u64, String> = (1..).zip(addresses).collect();
        let mut starts = JoinSet::new();
        let mut directories = Vec::new();
        for (node_id, peer_listener) in (1..).zip(listeners) {
            let directory = TempDir::with_prefix("raftgate-agreement-").unwrap();
            let options = NodeOptions {
                node_id: Some(node_id),
                join: None,
                peer_address: initial_members[&node_id].clone(),
                cluster_name: "agreement".to_owned(),
                initial_members: initial_members.clone(),
                settings: RaftSettings::default(),
                admin_address: format!("127.0.0.1:{node_id}"),
                published: Live::new().published(),
                scheduling_gap: SchedulingGap::default(),
                opened: open(directory.path(), node_id),
                transport: Transport::Tcp(peer_listener),
                metrics: Metrics::new(),
            };
            starts.spawn(async move { (node_id, Node::start(options).await.unwrap()) });
            directories.push(directory);
        }
        let nodes: BTreeMap<u64, Node> = starts.join_all().await.into_iter().collect();
        Cluster { nodes: nodes.into_values().collect(), _directories: directories }
    }
}

fn open(dir: &std::path::Path, node_id: u64) -> Opened {
    let cluster_name = "agreement".to_owned();
    raftgate::store::open(StoreOptions {
        dir: dir.to_path_buf(),
        node_id: Some(node_id),
        cluster_name,
        feature_level_max: FEATURE_LEVEL_MAX,
        metrics: Metrics::new(),
    })
    .unwrap()
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn route_key(number: u64) -> ResourceKey {
    ResourceKey::new(Kind::Route, Name::new(&format!("route-{number}")).unwrap())
}

fn document(value: &Value) -> Bytes {
    canonical(value).unwrap()
}

/// A random route over few hosts and paths, so that routes compete for requests.
fn random_route(random: &mut fastrand::Rng) -> Bytes {
    let host = [None, Some("a.test"), Some("*.a.test"), Some("x.a.test"), Some("b.test")][random.usize(..5)];
    let (kind, value) = [
        ("Exact", "/one"),
        ("Exact", "/one/two"),
        ("PathPrefix", "/"),
        ("PathPrefix", "/one"),
        ("PathPrefix", "/one/two"),
        ("PathTemplate", "/one/{id}"),
        ("PathTemplate", "/{kind}/two"),
        ("PathTemplate", "/one/{*rest}"),
    ][random.usize(..8)];
    let mut matches = json!({"path": {"type": kind, "value": value}});
    if random.u8(..4) == 0 {
        matches["method"] = json!(["GET", "POST"][random.usize(..2)]);
    }
    if random.u8(..4) == 0 {
        let value = ["canary", "blue"][random.usize(..2)];
        matches["headers"] = json!([{"name": "x-env", "value": value}]);
    }
    if random.u8(..6) == 0 {
        matches["queryParams"] = json!([{"name": "debug", "value": "1"}]);
    }
    let service = format!("service-{}", random.u8(..5));
    let mut spec = json!({"rules": [{"matches": [matches], "backendRefs": [{"name": service, "weight": random.u32(1..10)}]}]});
    if let Some(host) = host {
        spec["hostnames"] = json!([host]);
    }
    document(&spec)
}

fn random_operation(random: &mut fastrand::Rng) -> Operation {
    match random.u8(..10) {
        0..=5 => Operation::Put { key: route_key(random.u64(..NAMES)), spec: random_route(random) },
        6..=7 => Operation::Delete { key: route_key(random.u64(..NAMES)) },
        _ => {
            let key = ResourceKey::new(Kind::Service, Name::new(&format!("service-{}", random.u8(..5))).unwrap());
            let address = format!("127.0.0.1:{}", random.u16(1000..1005));
            Operation::Put { key, spec: document(&json!({"endpoints": [{"address": address}]})) }
        }
    }
}

/// Put, delete, conditional, several operations; many refused because of each other.
fn random_transaction(random: &mut fastrand::Rng, known: &State) -> Transaction {
    let operations: Vec<Operation> = (0..random.usize(1..4)).map(|_| random_operation(random)).collect();
    let mut preconditions = Vec::new();
    if random.u8(..4) == 0 {
        let key = operations[0].key().clone();
        let revision = known.get(&key).map_or(Revision::ZERO, |resource| resource.revision);
        preconditions.push(Precondition::Revision { key, revision });
    }
    Transaction { preconditions, operations, idempotency: None }
}

fn command(transaction: Transaction) -> Command {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let proposed_at = Timestamp(now.as_millis() as u64);
    Command { proposed_at, actor: "test".to_owned(), body: CommandBody::Transaction(transaction) }
}

/// What a client saw: applied and changed, applied without a change, refused.
#[derive(Debug, Default)]
struct Counts {
    changed: usize,
    unchanged: usize,
    refused: usize,
}

async fn run_client(node: Node, seed: u64) -> Counts {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut counts = Counts::default();
    for _ in 0..TRANSACTIONS / CLIENTS {
        let transaction = random_transaction(&mut random, &node.state());
        match node.propose(command(transaction), deadline()).await.unwrap() {
            Outcome::Applied { changed: true, .. } => counts.changed += 1,
            Outcome::Applied { changed: false, .. } => counts.unchanged += 1,
            Outcome::Refused { .. } => counts.refused += 1,
        }
    }
    counts
}

/// A table that follows a node's States as the publisher does, change by change.
async fn follow(node: Node, last: tokio::sync::watch::Receiver<Option<Revision>>) -> Arc<Snapshot> {
    let mut states = node.states();
    let mut state = State::default();
    let mut table = Snapshot::empty();
    while last.borrow().is_none_or(|last| table.revision < last) {
        let _ = tokio::time::timeout(Duration::from_millis(20), states.changed()).await;
        let next = states.borrow_and_update().clone();
        table = table.updated(&state, &next);
        state = next;
    }
    Arc::new(table)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_random_transactions_leave_one_state_and_one_table() {
    let cluster = Cluster::start().await;
    let (done, last) = tokio::sync::watch::channel(None);
    let followers: Vec<_> = cluster.nodes.iter().map(|node| tokio::spawn(follow(node.clone(), last.clone()))).collect();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(run_client(cluster.nodes[client % 3].clone(), client as u64));
    }
    let counts = clients.join_all().await.into_iter().fold(Counts::default(), |sum, part| Counts {
        changed: sum.changed + part.changed,
        unchanged: sum.unchanged + part.unchanged,
        refused: sum.refused + part.refused,
    });
    let mut states = Vec::new();
    for node in &cluster.nodes {
        states.push(node.read(deadline()).await.unwrap());
    }
    let state = states[0].clone();
    assert_eq!(state.revision(), Revision(counts.changed as u64), "a revision for every change, none for others: {counts:?}");
    assert!(counts.refused > 500 && counts.changed > 5_000, "the mix is too plain: {counts:?}");
    for other in &states {
        assert_eq!((other.digest(), other.state_digest()), (state.digest(), state.state_digest()));
    }
    done.send_replace(Some(state.revision()));
    let scratch = Arc::new(Snapshot::build(&state));
    for follower in followers {
        let table = follower.await.unwrap();
        assert_eq!(table.identity(), scratch.identity());
        compare_answers(&table, &scratch, &state);
    }
    for node in &cluster.nodes {
        node.shutdown().await;
    }
}

/// 1,000 random requests: both tables answer as a scan over State does.
fn compare_answers(table: &Arc<Snapshot>, scratch: &Arc<Snapshot>, state: &State) {
    let rules = all_matches(state);
    let mut random = fastrand::Rng::with_seed(7);
    let mut hits = 0;
    for _ in 0..1_000 {
        let request = Request::random(&mut random);
        let answers = [table, scratch].map(|snapshot| {
            snapshot.find(&request.view()).map(|found| (found.rule.route.as_str().to_owned(), found.match_index))
        });
        let expected = scan(&rules, &request);
        assert_eq!(answers[0], expected, "by changes: {request:?}");
        assert_eq!(answers[1], expected, "from scratch: {request:?}");
        hits += usize::from(expected.is_some());
    }
    assert!(hits > 300, "too few hits to judge: {hits}");
}

#[derive(Debug)]
struct Request {
    host: &'static str,
    path: &'static str,
    query: Option<&'static str>,
    method: Method,
    headers: HeaderMap,
}

impl Request {
    fn random(random: &mut fastrand::Rng) -> Request {
        let mut headers = HeaderMap::new();
        if random.bool() {
            headers.insert("x-env", ["canary", "blue", "red"][random.usize(..3)].parse().unwrap());
        }
        Request {
            host: ["a.test", "x.a.test", "y.x.a.test", "b.test", "c.test"][random.usize(..5)],
            path: ["/", "/one", "/one/", "/one/two", "/one/two/three", "/onetwo", "/zero/two"][random.usize(..7)],
            query: [None, Some("debug=1"), Some("debug=0&debug=1"), Some("a=b&debug=1")][random.usize(..4)],
            method: [Method::GET, Method::POST, Method::PUT][random.usize(..3)].clone(),
            headers,
        }
    }

    fn view(&self) -> RequestView<'_> {
        RequestView {
            listener: "default",
            host: self.host,
            path: self.path,
            query: self.query,
            method: &self.method,
            headers: &self.headers,
        }
    }
}

/// One match of one rule, as the scan sees it.
struct Row {
    route: String,
    created: Revision,
    host: Option<String>,
    match_index: usize,
    condition: RouteMatch,
}

fn all_matches(state: &State) -> Vec<Row> {
    let mut rows = Vec::new();
    for resource in state.resources_after(Kind::Route, None) {
        let spec: RouteSpec = parse_route(&serde_json::from_slice(&resource.spec).unwrap()).unwrap().spec;
        let condition = spec.rules[0].matches[0].clone();
        let host = spec.hostnames.first().cloned();
        let route = resource.key.name.as_str().to_owned();
        rows.push(Row { route, created: resource.created_revision, host, match_index: 0, condition });
    }
    rows
}

/// The route that answers, by looking at every one of them: the standard's order, written down once more.
fn scan(rows: &[Row], request: &Request) -> Option<(String, usize)> {
    let matching =
        rows.iter().filter(|row| host_rank(row, request).is_some() && path_rank(&row.condition, request.path).is_some());
    let matching = matching.filter(|row| others_hold(&row.condition, request));
    let best = matching.min_by_key(|row| {
        let more_first = |count: usize| usize::MAX - count;
        (
            host_rank(row, request),
            path_rank(&row.condition, request.path),
            row.condition.method.is_none(),
            more_first(row.condition.headers.len()),
            more_first(row.condition.query_params.len()),
            row.created,
            row.route.clone(),
        )
    })?;
    Some((best.route.clone(), best.match_index))
}

/// Smaller is better: the exact host, then wildcards by longest suffix, then none.
fn host_rank(row: &Row, request: &Request) -> Option<usize> {
    match row.host.as_deref() {
        None => Some(usize::MAX),
        Some(host) => match host.strip_prefix('*') {
            None => (host == request.host).then_some(0),
            Some(suffix) => {
                let matches = request.host.ends_with(suffix) && request.host.len() > suffix.len();
                matches.then_some(1_000 - suffix.len())
            }
        },
    }
}

/// Smaller is better: Exact, then templates element by element (literal, parameter, rest), then the longest expression, then the longest
/// prefix.
fn path_rank(condition: &RouteMatch, path: &str) -> Option<(u8, Vec<u8>, usize)> {
    let value = condition.path.value.as_str();
    match condition.path.match_type {
        PathMatchType::Exact => (value == path).then(|| (0, Vec::new(), 0)),
        PathMatchType::PathTemplate => template_rank(value, path).map(|rank| (1, rank, 0)),
        PathMatchType::RegularExpression => {
            let whole = Regex::new(&format!("^(?:{value})$")).expect("a route's expression compiles");
            whole.is_match(path).then(|| (2, Vec::new(), usize::MAX - value.len()))
        }
        PathMatchType::PathPrefix => {
            let prefix = value.trim_end_matches('/');
            let matches = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            matches.then(|| (3, Vec::new(), usize::MAX - prefix.len()))
        }
    }
}

fn template_rank(template: &str, path: &str) -> Option<Vec<u8>> {
    let mut elements = path[1..].split('/');
    let mut rank = Vec::new();
    for segment in template[1..].split('/') {
        if segment.starts_with("{*") {
            rank.push(2);
            return elements.collect::<Vec<_>>().join("/").chars().next().map(|_| rank);
        }
        let element = elements.next()?;
        if segment.starts_with('{') {
            if element.is_empty() {
                return None;
            }
            rank.push(1);
        } else if segment == element {
            rank.push(0);
        } else {
            return None;
        }
    }
    elements.next().is_none().then_some(rank)
}

fn others_hold(condition: &RouteMatch, request: &Request) -> bool {
    let method = condition.method.as_ref().is_none_or(|method| *method == request.method);
    let headers = condition
        .headers
        .iter()
        .all(|header| request.headers.get(&header.name).is_some_and(|value| header.value.matches(value.as_bytes())));
    let first = |name: &str| {
        request.query?.split('&').filter_map(|pair| pair.split_once('=')).find(|pair| pair.0 == name).map(|pair| pair.1)
    };
    let query = condition
        .query_params
        .iter()
        .all(|parameter| first(&parameter.name).is_some_and(|value| parameter.value.matches(value.as_bytes())));
    method && headers && query
}
