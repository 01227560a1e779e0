//! Random tables and requests, over an alphabet so small that everything collides.
//!
//! The tests run 300 tables with 340 requests each; `RAFTGATE_TABLE_SEEDS=0..30000 cargo test --release --lib table::tests::random` runs
//! more, or those of a seed that failed.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use fastrand::Rng;
use http::{HeaderMap, Method};

use super::reference;
use super::{PathMatchType, RouteMatch, RouteSpec, Snapshot, TestRequest, TestRoute};
use super::{add, answer, header_match, path_match, push, query_match, rule_of, snapshot_of};
use crate::model::spec::{PathMatch, Pattern};
use crate::model::template::{Segment, Template};
use crate::table::shard::{captures, literal_prefix};

const HOSTS: [&str; 6] = ["com", "a.com", "b.a.com", "c.b.a.com", "d.com", "x.y.a.com"];
const PATTERNS: [&str; 7] = ["a.com", "b.a.com", "*.a.com", "*.b.a.com", "*.com", "d.com", "c.b.a.com"];
const ELEMENTS: [&str; 4] = ["a", "b", "c", "ab"];
const EXPRESSIONS: [&str; 10] =
    ["/a/.*", "/(a|b)(/.*)?", "/a/b|/ab", "/[abc]+", ".*", "/a/b/[^/]+", "/.", "/a(/c)*/?", "^/b/.+$", "/a/b/c?"];
/// Expressions of services and methods.
const NAMES: [&str; 6] = ["", "a", "[ab]", "a.*", ".*", "b|ab"];
const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::PUT];
const LISTENERS: [&str; 3] = ["public", "internal", "edge"];

const SEEDS_VARIABLE: &str = "RAFTGATE_TABLE_SEEDS";
/// Requests to each random table.
const REQUESTS: usize = 340;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var(SEEDS_VARIABLE) else { return 0..300 };
    let range = text.split_once("..").and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
    range
        .filter(|range| !range.is_empty())
        .unwrap_or_else(|| panic!("{SEEDS_VARIABLE} is a range such as 0..5000, found {text:?}"))
}

fn pick<'a, T: ?Sized>(rng: &mut Rng, list: &[&'a T]) -> &'a T {
    list[rng.usize(..list.len())]
}

fn random_literals(rng: &mut Rng, count: usize) -> String {
    (0..count).map(|_| format!("/{}", pick(rng, &ELEMENTS))).collect()
}

fn random_path_match(rng: &mut Rng) -> RouteMatch {
    let count = rng.usize(..4);
    match rng.u8(..4) {
        0 => path_match(PathMatchType::Exact, &format!("{}{}", random_literals(rng, count.max(1)), pick(rng, &["", "", "/"]))),
        1 => path_match(
            PathMatchType::PathPrefix,
            &format!("{}{}", random_literals(rng, count), if count == 0 { "/" } else { "" }),
        ),
        2 => path_match(PathMatchType::RegularExpression, pick(rng, &EXPRESSIONS)),
        _ => path_match(PathMatchType::PathTemplate, &random_template(rng)),
    }
}

fn random_template(rng: &mut Rng) -> String {
    let mut template = String::new();
    for index in 0..rng.usize(1..5) {
        match rng.u8(..4) {
            0 | 1 => template.push_str(&random_literals(rng, 1)),
            2 => template.push_str(&format!("/{{p{index}}}")),
            _ if rng.bool() => {
                template.push_str("/{*rest}");
                return template;
            }
            _ => template.push_str(&format!("/{{q{index}}}")),
        }
    }
    if rng.u8(..8) == 0 {
        template.push('/');
    }
    template
}

fn random_match(rng: &mut Rng) -> RouteMatch {
    let mut conditions = random_path_match(rng);
    if rng.u8(..3) == 0 {
        conditions.method = Some(METHODS[rng.usize(..3)].clone());
    }
    for name in ["x", "y"] {
        if rng.u8(..4) == 0 {
            push(&mut conditions.headers, header_match(name, pick(rng, &["1", "2", "1,2", "~1.*", "~[12]"])));
        }
        if rng.u8(..4) == 0 {
            push(&mut conditions.query_params, query_match(name, pick(rng, &["1", "2", "~[12]?"])));
        }
    }
    conditions
}

/// What expressions of a service and a method become; an empty one is not given.
fn call_match(service: &str, method: &str) -> RouteMatch {
    let [service, method] =
        [service, method].map(|text| Some(text).filter(|text| !text.is_empty()).map(|text| Pattern::new(text).unwrap()));
    let pattern = Pattern::of_call(service.as_ref(), method.as_ref());
    let path = PathMatch {
        match_type: PathMatchType::RegularExpression,
        value: pattern.text().into(),
        pattern: Some(Arc::new(pattern)),
    };
    RouteMatch { path, ..path_match(PathMatchType::PathPrefix, "/") }
}

/// The paths that services and methods of the same alphabet become.
fn random_grpc_match(rng: &mut Rng) -> RouteMatch {
    let (service, method) = (pick(rng, &ELEMENTS), pick(rng, &ELEMENTS));
    let mut conditions = match rng.u8(..5) {
        0 => path_match(PathMatchType::Exact, &format!("/{service}/{method}")),
        3 => call_match(pick(rng, &NAMES), pick(rng, &NAMES)),
        1 => path_match(PathMatchType::PathTemplate, &format!("/{service}/{{method}}")),
        2 => path_match(PathMatchType::PathTemplate, &format!("/{{service}}/{method}")),
        _ => path_match(PathMatchType::PathPrefix, "/"),
    };
    if rng.u8(..3) == 0 {
        push(&mut conditions.headers, header_match("x", pick(rng, &["1", "2"])));
    }
    conditions
}

fn random_route(rng: &mut Rng, name: &str, created: u64) -> TestRoute {
    let is_grpc = rng.u8(..3) == 0;
    let mut spec = RouteSpec::default();
    for pattern in PATTERNS {
        if rng.u8(..6) == 0 {
            spec.hostnames.push(pattern.to_owned());
        }
    }
    for listener in LISTENERS {
        if rng.u8(..6) == 0 {
            spec.listeners.push(listener.to_owned());
        }
    }
    for _ in 0..rng.usize(1..4) {
        let of_kind = if is_grpc { random_grpc_match } else { random_match };
        let matches = (0..rng.usize(1..4)).map(|_| of_kind(rng)).collect();
        spec.rules.push(rule_of(matches));
    }
    TestRoute { name: name.to_owned(), created, is_grpc, spec }
}

fn random_request(rng: &mut Rng) -> TestRequest {
    let count = rng.usize(..5);
    let mut path = random_literals(rng, count);
    path.push_str(pick(rng, if count == 0 { &["/", "//", "*"] } else { &["", "", "", "/", "//a"] }));
    let mut request = TestRequest {
        listener: pick(rng, &LISTENERS).to_owned(),
        host: pick(rng, &HOSTS).to_owned(),
        path,
        query: rng.bool().then(|| pick(rng, &["x=1", "y=2", "x=2&y=1&x=1", "%78=%31&y=1", "x"]).to_owned()),
        method: METHODS[rng.usize(..3)].clone(),
        headers: HeaderMap::new(),
    };
    for name in ["x", "y"] {
        for value in ["1", "2"] {
            if rng.u8(..3) == 0 {
                request.add_header(name, value);
            }
        }
    }
    if rng.u8(..3) == 0 {
        request.method = Method::POST;
        request.add_header("content-type", pick(rng, &["application/grpc", "application/grpc+proto", "application/grpc-web"]));
    }
    request
}

/// What the table says must be what the reference says: the answer, and every candidate in order with whether it holds.
fn assert_same(snapshot: &Arc<Snapshot>, routes: &[TestRoute], request: &TestRequest, seed: u64) {
    assert_eq!(answer(snapshot, request), reference::answer(routes, request), "seed {seed}: {request:?}");
    let (_, waiting) = reference::judged(routes);
    let told: BTreeSet<_> = snapshot.waiting().map(|(key, _)| key).collect();
    assert_eq!(told, waiting.iter().map(|(route, _)| route.key()).collect(), "seed {seed}");
    let expected = reference::candidates(routes, request);
    let explained = snapshot.explain(&request.view());
    if expected.is_empty() {
        let closest = explained.candidates.iter().filter_map(|candidate| candidate.passed_over.as_ref());
        assert!(closest.clone().all(|over| over.condition == crate::table::Condition::Path), "seed {seed}");
        return assert_eq!(closest.count(), explained.candidates.len(), "seed {seed}");
    }
    let found: Vec<(String, bool)> = explained
        .candidates
        .iter()
        .map(|candidate| {
            let condition = candidate.passed_over.as_ref().map(|over| over.condition);
            let holds = matches!(condition, None | Some(crate::table::Condition::Precedence));
            (format!("{}/{}/{}", candidate.route, candidate.rule, candidate.match_index), holds)
        })
        .collect();
    let shown = expected.len().min(crate::table::CANDIDATES_MAX);
    assert_eq!(found, expected[..shown], "seed {seed}: {request:?}");
    let outcome = explained.outcome.map(|c| format!("{}/{}/{}", c.route, c.rule, c.match_index));
    assert_eq!(outcome.unwrap_or_else(|| "404".to_owned()), answer(snapshot, request), "seed {seed}");
}

#[test]
fn the_table_answers_as_the_reference_does() {
    for seed in seeds() {
        let mut rng = Rng::with_seed(seed);
        let count = rng.usize(..40);
        let routes: Vec<TestRoute> = (0..count)
            .map(|index| {
                let created = rng.u64(..6);
                random_route(&mut rng, &format!("r{index}"), created)
            })
            .collect();
        let snapshot = snapshot_of(&routes);
        for _ in 0..REQUESTS {
            assert_same(&snapshot, &routes, &random_request(&mut rng), seed);
        }
    }
}

#[test]
fn a_table_of_changes_answers_as_one_from_scratch_and_leaves_no_residue() {
    for seed in 0..40 {
        let mut rng = Rng::with_seed(1000 + seed);
        let mut routes: Vec<TestRoute> = Vec::new();
        let mut snapshot = Snapshot::empty();
        let mut kept = Vec::new();
        for step in 0..120 {
            let name = format!("r{}", rng.usize(..30));
            let created = rng.u64(..step + 1);
            let route = random_route(&mut rng, &name, created);
            let present = routes.iter().position(|present| present.key() == route.key());
            if let Some(at) = present {
                routes.swap_remove(at);
                snapshot.remove(&route.key());
            }
            if present.is_none() || rng.bool() {
                add(&mut snapshot, &route);
                routes.push(route);
            }
            if step % 20 == 0 {
                kept.push((Arc::new(snapshot.clone()), routes.clone()));
            }
        }
        kept.push((Arc::new(snapshot.clone()), routes.clone()));
        // Older snapshots must not have moved with the changes after them.
        for (snapshot, routes) in &kept {
            let scratch = snapshot_of(routes);
            assert_eq!(snapshot.counts(), scratch.counts());
            assert_eq!(snapshot.pattern_count(), routes.iter().map(|route| route.spec.pattern_count()).sum::<usize>());
            for _ in 0..40 {
                let request = random_request(&mut rng);
                assert_same(snapshot, routes, &request, seed);
                assert_eq!(snapshot.explain(&request.view()).outcome, scratch.explain(&request.view()).outcome);
                assert!(snapshot.waiting().eq(scratch.waiting()), "seed {seed}");
            }
        }
        routes.iter().for_each(|route| snapshot.remove(&route.key()));
        assert!(snapshot.index.is_empty(), "seed {seed}: {:?}", snapshot.index);
        assert!(snapshot.contest.is_empty(), "seed {seed}: {:?}", snapshot.contest);
        assert!(snapshot.routes.is_empty() && snapshot.pattern_count() == 0, "seed {seed}");
        assert_eq!(snapshot.bound_elsewhere(&[]).next(), None, "seed {seed}");
    }
}

#[test]
fn many_candidates_of_one_pattern_keep_their_order() {
    let route = |index: u64| {
        let mut conditions = path_match(PathMatchType::PathPrefix, "/");
        push(&mut conditions.headers, header_match("x", &index.to_string()));
        TestRoute {
            name: format!("r{index}"),
            created: 1000 - index,
            is_grpc: false,
            spec: RouteSpec { rules: vec![rule_of(vec![conditions])], ..RouteSpec::default() },
        }
    };
    let mut routes: Vec<TestRoute> = (0..100).map(route).collect();
    let mut snapshot = Snapshot::empty();
    routes.iter().for_each(|route| add(&mut snapshot, route));
    let mut rng = Rng::with_seed(7);
    while !routes.is_empty() {
        let mut request = random_request(&mut rng);
        request.headers.clear();
        request.add_header("x", &rng.u64(..100).to_string());
        let shared = Arc::new(snapshot.clone());
        assert_same(&shared, &routes, &request, 7);
        let gone = routes.swap_remove(rng.usize(..routes.len()));
        snapshot.remove(&gone.key());
    }
    assert!(snapshot.index.is_empty());
}

/// `matchit` refuses many sets that are legal here and gives one winner; where it answers the same question, it answers the same.
#[test]
fn the_first_template_is_the_one_that_matchit_finds() {
    let mut compared = 0;
    for seed in 0..300 {
        let mut rng = Rng::with_seed(5000 + seed);
        let mut router = matchit::Router::new();
        let mut routes = Vec::new();
        for index in 0..rng.usize(1..12) {
            let (name, template) = (format!("r{index}"), random_template(&mut rng));
            if router.insert(template.clone(), format!("{name}/0/0")).is_ok() {
                let rules = vec![rule_of(vec![path_match(PathMatchType::PathTemplate, &template)])];
                routes.push(TestRoute { name, created: 1, is_grpc: false, spec: RouteSpec { rules, ..RouteSpec::default() } });
            }
        }
        let snapshot = snapshot_of(&routes);
        for _ in 0..40 {
            let mut request = random_request(&mut rng);
            let count = rng.usize(1..5);
            request.path = random_literals(&mut rng, count);
            let expected = router.at(&request.path).map_or_else(|_| "404".to_owned(), |found| found.value.clone());
            compared += usize::from(expected != "404");
            assert_eq!(answer(&snapshot, &request), expected, "seed {seed}: {} in {routes:?}", request.path);
        }
    }
    assert!(compared > 1000, "only {compared} requests had an answer");
}

/// The table splits the normal text of a template by itself; it must see the elements that the model sees.
#[test]
fn captures_have_the_names_that_the_model_reads() {
    let mut rng = Rng::with_seed(11);
    for _ in 0..300 {
        let text = random_template(&mut rng);
        let template = Template::parse(&text).unwrap();
        let names: Vec<&str> = template.parameters().collect();
        let found: Vec<&str> = captures(&text, "/1/2/3/4/5/6").map(|(name, _)| name).collect();
        assert_eq!(found, names, "{text}");
        let literals = template.segments().iter().take_while(|segment| matches!(segment, Segment::Literal(_)));
        assert_eq!(literals.count(), literal_prefix(&text).matches('/').count(), "{text}");
    }
}
