//! What a look-up and a change of the table cost, by number of routes.
//!
//! `cargo bench --bench table` measures 1,000 and 100,000 routes; other numbers can be given: `cargo bench --bench table -- 1000000`.
//! Shapes that have one size (a chain of prefixes, variants by header, wildcard hosts, regular expressions) come after them.
//!
//! Keys are uniformly random; the request's path is warm, the table is not. A look-up includes loading the snapshot from the live cell,
//! host and method match, and taking the rule. A change is one route replaced by a transaction: applied to State, compiled, published;
//! beside it the same of 10,000 routes in one transaction. Of look-ups, which are timed in batches, the least, the median and the 99th percentile are
//! printed, of changes the median and the 99th percentile: on a machine that does other work too, the least is nearest to what one that does
//! nothing else gives.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method};
use raftgate::model::{Command, CommandBody, Kind, Name, Operation, ResourceKey, State, Timestamp, Transaction};
use raftgate::table::{Live, RequestView, Snapshot};

/// That of the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HOST: &str = "api.example.com";
const BATCHES: usize = 400;
const BATCH: usize = 500;
const CHANGES: usize = 1000;
const OPERATIONS: usize = 5000;
const LARGE_OPERATIONS: usize = 10_000;
const LARGE_CHANGES: usize = 10;
const CHAIN_DEPTH: usize = 100;

#[derive(Clone, Copy)]
enum Shape {
    /// All on one host.
    Exact,
    Prefix,
    Template,
    /// One host for each route.
    Hosts,
    /// Each route one element deeper than the one before.
    Chain,
    /// One path, told apart by a header.
    Headers,
    /// One wildcard host for each route.
    Wildcards,
    /// One expression for each route, each with elements of its own before it.
    Expressions,
}

/// Those of any size.
const SHAPES: [Shape; 4] = [Shape::Exact, Shape::Prefix, Shape::Template, Shape::Hosts];
/// Those that are worst at one size.
const WORST: [(Shape, usize); 4] =
    [(Shape::Chain, CHAIN_DEPTH), (Shape::Headers, 1_000), (Shape::Wildcards, 10_000), (Shape::Expressions, 10_000)];

/// What a request says to reach a route.
struct Target {
    host: String,
    path: String,
    headers: HeaderMap,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Exact => "exact",
            Shape::Prefix => "prefix",
            Shape::Template => "template",
            Shape::Hosts => "hosts",
            Shape::Chain => "chain",
            Shape::Headers => "headers",
            Shape::Wildcards => "wildcards",
            Shape::Expressions => "regex",
        }
    }

    fn document(self, index: usize, backend: &str) -> Bytes {
        let (kind, path) = match self {
            Shape::Exact => ("Exact", format!("/svc-{index}/v1/items")),
            Shape::Prefix => ("PathPrefix", format!("/svc-{index}/v1")),
            Shape::Template => ("PathTemplate", format!("/svc-{index}/v1/{{id}}")),
            Shape::Chain => ("PathPrefix", "/x".repeat(index + 1)),
            Shape::Hosts | Shape::Headers | Shape::Wildcards => ("PathPrefix", "/".to_owned()),
            Shape::Expressions => ("RegularExpression", format!("/svc-{index}/v[0-9]+/.*")),
        };
        let host = match self {
            Shape::Hosts => format!("h-{index}.example.com"),
            Shape::Wildcards => format!("*.h-{index}.example.com"),
            _ => HOST.to_owned(),
        };
        let headers = match self {
            Shape::Headers => format!(r#""headers":[{{"name":"x-variant","value":"v-{index}"}}],"#),
            _ => String::new(),
        };
        Bytes::from(format!(
            r#"{{"hostnames":["{host}"],"rules":[{{"backendRefs":[{{"name":"{backend}"}}],"matches":[{{{headers}"method":"GET","path":{{"type":"{kind}","value":"{path}"}}}}]}}]}}"#
        ))
    }

    fn target(self, index: usize) -> Target {
        let host = match self {
            Shape::Hosts => format!("h-{index}.example.com"),
            Shape::Wildcards => format!("a.h-{index}.example.com"),
            _ => HOST.to_owned(),
        };
        let path = match self {
            // As deep as the chain, whatever the route: every prefix of it is a candidate.
            Shape::Chain => "/x".repeat(CHAIN_DEPTH),
            _ => format!("/svc-{index}/v1/items"),
        };
        let mut headers = HeaderMap::new();
        if let Shape::Headers = self {
            headers.insert("x-variant", format!("v-{index}").parse().unwrap());
        }
        Target { host, path, headers }
    }
}

fn main() {
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if given.is_empty() { vec![1_000, 100_000] } else { given };
    println!(
        "{:>9}  {:<9} {:>21} {:>17} {:>15} {:>10} {:>11}",
        "routes", "shape", "look-up ns", "change us", "10,000 ms", "build ms", "bytes/route"
    );
    let of_size = |size: usize| SHAPES.map(|shape| (shape, size));
    sizes.into_iter().flat_map(of_size).chain(WORST).for_each(|(shape, size)| measure(size, shape));
}

fn measure(size: usize, shape: Shape) {
    let state = filled(size, shape);
    let start = Instant::now();
    let snapshot = Arc::new(Snapshot::build(&state));
    let build = start.elapsed();
    let bytes = bytes_of_a_table(&state) / size;
    assert_eq!((snapshot.counts().routes, snapshot.counts().not_compiled), (size, 0));
    let live = Live::new();
    live.store(snapshot);
    let look_ups = look_ups(&live, size, shape);
    let mut state = state;
    let changes = changes(&live, &mut state, size, shape, 1, CHANGES);
    let large = (size >= LARGE_OPERATIONS).then(|| changes_of_many(&live, &mut state, size, shape));
    println!(
        "{size:>9}  {:<9} {:>5.0} {:>6.0} ({:>6.0}) {:>8.1} ({:>6.1}) {:>15} {:>10} {bytes:>11}",
        shape.name(),
        percentile(&look_ups, 0) * 1e9,
        percentile(&look_ups, 50) * 1e9,
        percentile(&look_ups, 99) * 1e9,
        percentile(&changes, 50) * 1e6,
        percentile(&changes, 99) * 1e6,
        large.map_or_else(|| "-".to_owned(), |times| format!("{:.0}", percentile(&times, 50) * 1e3)),
        build.as_millis(),
    );
}

fn changes_of_many(live: &Live, state: &mut State, size: usize, shape: Shape) -> Vec<f64> {
    changes(live, state, size, shape, LARGE_OPERATIONS, LARGE_CHANGES)
}

/// Seconds for one look-up, batch by batch.
fn look_ups(live: &Live, size: usize, shape: Shape) -> Vec<f64> {
    let mut rng = fastrand::Rng::with_seed(1);
    let batch = |rng: &mut fastrand::Rng| {
        let targets: Vec<Target> = (0..BATCH).map(|_| shape.target(rng.usize(..size))).collect();
        let start = Instant::now();
        for Target { host, path, headers } in &targets {
            let request = RequestView { listener: "default", host, path, query: None, method: &Method::GET, headers };
            black_box(live.load().answer(&request).expect("every path has a route"));
        }
        start.elapsed().as_secs_f64() / BATCH as f64
    };
    sorted((0..BATCHES).map(|_| batch(&mut rng)).collect())
}

/// Seconds from a transaction of `operations` to the published snapshot, `count` times.
fn changes(live: &Live, state: &mut State, size: usize, shape: Shape, operations: usize, count: usize) -> Vec<f64> {
    let mut rng = fastrand::Rng::with_seed(2);
    let mut change = |number: usize| {
        let before = state.clone();
        let first = rng.usize(..size);
        let puts = (first..first + operations).map(|index| put(index % size, shape, &format!("backend-{operations}-{number}")));
        let puts = puts.collect();
        let retired = live.load();
        let start = Instant::now();
        apply(state, puts);
        live.store(Arc::new(retired.updated(&before, state)));
        start.elapsed()
    };
    let times: Vec<Duration> = (0..count).map(&mut change).collect();
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
/// What the building of a table needs and gives back stays with the allocator, and the next one uses it: so the first ones do not count, and of
/// the others each takes no more of the system than it holds.
fn bytes_of_a_table(state: &State) -> usize {
    let build = || Snapshot::build(state);
    let _first = [build(), build()];
    let before = resident_bytes();
    let counted = [build(), build(), build()];
    resident_bytes().saturating_sub(before) / counted.len()
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()));
    pages.unwrap_or(0) * 4096
}
