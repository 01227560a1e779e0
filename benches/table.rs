//! What a look-up and a change of the table cost, by number of routes.
//!
//! `cargo bench --bench table` measures 1,000 and 100,000 routes; other numbers can be given: `cargo bench --bench table -- 1000000`.
//! Keys are uniformly random; the request's path is warm, the table is not. A look-up includes loading the snapshot from the live cell,
//! host and method match, and taking the rule. A change includes compiling the document and publishing. Medians are printed, with the
//! 99th percentile behind them.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a program for people, run by hand")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method};
use raftgate::model::{Command, CommandBody, Kind, Name, Operation, ResourceKey, State, Timestamp, Transaction};
use raftgate::table::{Live, RequestView, Snapshot};

const HOST: &str = "api.example.com";
const BATCHES: usize = 400;
const BATCH: usize = 500;
const CHANGES: usize = 1000;
const OPERATIONS: usize = 5000;

#[derive(Clone, Copy)]
enum Shape {
    Exact,
    Prefix,
    Template,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Exact => "exact",
            Shape::Prefix => "prefix",
            Shape::Template => "template",
        }
    }

    fn document(self, index: usize, backend: &str) -> Bytes {
        let (kind, path) = match self {
            Shape::Exact => ("Exact", format!("/svc-{index}/v1/items")),
            Shape::Prefix => ("PathPrefix", format!("/svc-{index}/v1")),
            Shape::Template => ("PathTemplate", format!("/svc-{index}/v1/{{id}}")),
        };
        Bytes::from(format!(
            r#"{{"hostnames":["{HOST}"],"rules":[{{"backendRefs":[{{"name":"{backend}"}}],"matches":[{{"method":"GET","path":{{"type":"{kind}","value":"{path}"}}}}]}}]}}"#
        ))
    }
}

fn main() {
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if given.is_empty() { vec![1_000, 100_000] } else { given };
    println!("{:>9}  {:<9} {:>15} {:>17} {:>10} {:>11}", "routes", "paths", "look-up ns", "change us", "build ms", "bytes/route");
    for size in sizes {
        for shape in [Shape::Exact, Shape::Prefix, Shape::Template] {
            measure(size, shape);
        }
    }
}

fn measure(size: usize, shape: Shape) {
    let state = filled(size, shape);
    let before = resident_bytes();
    let start = Instant::now();
    let snapshot = Arc::new(Snapshot::build(&state));
    let build = start.elapsed();
    let bytes = resident_bytes().saturating_sub(before) / size;
    assert_eq!((snapshot.counts().routes, snapshot.counts().not_compiled), (size, 0));
    let live = Live::new();
    live.store(snapshot);
    let look_ups = look_ups(&live, size);
    let changes = changes(&live, state, size, shape);
    println!(
        "{size:>9}  {:<9} {:>6.0} ({:>6.0}) {:>8.1} ({:>6.1}) {:>10} {bytes:>11}",
        shape.name(),
        percentile(&look_ups, 50) * 1e9,
        percentile(&look_ups, 99) * 1e9,
        percentile(&changes, 50) * 1e6,
        percentile(&changes, 99) * 1e6,
        build.as_millis(),
    );
}

/// Seconds for one look-up, batch by batch.
fn look_ups(live: &Live, size: usize) -> Vec<f64> {
    let headers = HeaderMap::new();
    let mut rng = fastrand::Rng::with_seed(1);
    let batch = |rng: &mut fastrand::Rng| {
        let paths: Vec<String> = (0..BATCH).map(|_| format!("/svc-{}/v1/items", rng.usize(..size))).collect();
        let start = Instant::now();
        for path in &paths {
            let request =
                RequestView { listener: "default", host: HOST, path, query: None, method: &Method::GET, headers: &headers };
            black_box(live.load().find(&request).expect("every path has a route"));
        }
        start.elapsed().as_secs_f64() / BATCH as f64
    };
    sorted((0..BATCHES).map(|_| batch(&mut rng)).collect())
}

/// Seconds from a changed State to the published snapshot.
fn changes(live: &Live, mut state: State, size: usize, shape: Shape) -> Vec<f64> {
    let mut rng = fastrand::Rng::with_seed(2);
    let mut change = |number: usize| {
        let before = state.clone();
        apply(&mut state, vec![put(rng.usize(..size), shape, &format!("backend-{number}"))]);
        let retired = live.load();
        let start = Instant::now();
        live.store(Arc::new(retired.updated(&before, &state)));
        start.elapsed()
    };
    let times: Vec<Duration> = (0..CHANGES).map(&mut change).collect();
    assert_eq!(live.load().revision, state.revision());
    sorted(times.iter().map(Duration::as_secs_f64).collect())
}

fn filled(size: usize, shape: Shape) -> State {
    let mut state = State::default();
    for first in (0..size).step_by(OPERATIONS) {
        let operations = (first..size.min(first + OPERATIONS)).map(|index| put(index, shape, "backend")).collect();
        apply(&mut state, operations);
    }
    state
}

fn put(index: usize, shape: Shape, backend: &str) -> Operation {
    let name = Name::new(&format!("route-{index}")).expect("a good name");
    Operation::Put { key: ResourceKey::new(Kind::Route, name), spec: shape.document(index, backend) }
}

fn apply(state: &mut State, operations: Vec<Operation>) {
    let body = CommandBody::Transaction(Transaction { operations, ..Transaction::default() });
    black_box(state.apply(&Command { proposed_at: Timestamp(1), actor: "bench".to_owned(), body }));
}

fn sorted(mut times: Vec<f64>) -> Vec<f64> {
    times.sort_by(f64::total_cmp);
    times
}

fn percentile(times: &[f64], percent: usize) -> f64 {
    times[(times.len() - 1) * percent / 100]
}

/// Resident memory of this process; 0 where the system does not tell.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()));
    pages.unwrap_or(0) * 4096
}
