//! Tables of documents: what compiles, what does not, and how snapshots follow State.

use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{TestRequest, answer};
use crate::model::{Command, CommandBody, Kind, Name, Operation, ResourceKey, Revision, State, Timestamp, Transaction};
use crate::table::{CANDIDATES_MAX, CLOSEST_MAX, Live, Snapshot};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(in crate::table) fn apply(state: &mut State, operations: Vec<Operation>) {
    let body = CommandBody::Transaction(Transaction { operations, ..Transaction::default() });
    state.apply(&Command { proposed_at: Timestamp(1), actor: "test".to_owned(), body });
}

fn put_bytes(kind: Kind, resource: &str, spec: &[u8]) -> Operation {
    Operation::Put { key: ResourceKey::new(kind, name(resource)), spec: Bytes::copy_from_slice(spec) }
}

pub(in crate::table) fn put(kind: Kind, resource: &str, spec: &Value) -> Operation {
    put_bytes(kind, resource, spec.to_string().as_bytes())
}

fn state_of(operations: Vec<Operation>) -> State {
    let mut state = State::default();
    operations.into_iter().for_each(|operation| apply(&mut state, vec![operation]));
    state
}

fn get(host: &str, path: &str) -> TestRequest {
    TestRequest {
        listener: "default".to_owned(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: None,
        method: Method::GET,
        headers: HeaderMap::new(),
    }
}

fn grpc(host: &str, path: &str) -> TestRequest {
    let mut request = TestRequest { method: Method::POST, ..get(host, path) };
    request.add_header("content-type", "application/grpc");
    request
}

/// A `GRPCRoute` for one method.
fn call(backend: &str, service: &str, method: &str) -> Value {
    json!({"rules": [{"matches": [{"method": {"service": service, "method": method}}], "backendRefs": [{"name": backend}]}]})
}

fn to(service: &str, path_type: &str, path: &str) -> Value {
    json!({"rules": [{"matches": [{"path": {"type": path_type, "value": path}}], "backendRefs": [{"name": service}]}]})
}

fn service(address: &str) -> Value {
    json!({"endpoints": [{"address": address}]})
}

#[test]
fn a_request_keeps_the_revision_that_it_matched() {
    let mut state = state_of(vec![
        put(Kind::Service, "users", &service("127.0.0.1:1")),
        put(Kind::Route, "users", &to("users", "PathTemplate", "/users/{id}")),
    ]);
    let live = Live::new();
    live.store(Arc::new(Snapshot::build(&state)));
    let found = live.load().find(&get("h", "/users/7").view()).unwrap();
    assert_eq!(found.captures().get("id"), Some("7"));
    let before = state.clone();
    let gone = |kind| Operation::Delete { key: ResourceKey::new(kind, name("users")) };
    apply(&mut state, vec![gone(Kind::Route), gone(Kind::Service)]);
    live.store(Arc::new(live.load().updated(&before, &state)));
    assert!(live.load().find(&get("h", "/users/7").view()).is_none());
    assert!(live.load().service(&name("users")).is_none());
    let kept = found.snapshot.service(&found.rule.rule.backend_refs[0].name).unwrap();
    assert_eq!((kept.id.created_revision, found.snapshot.revision), (Revision(1), Revision(2)));
}

#[test]
fn a_service_made_again_is_another_one() {
    let mut state = state_of(vec![put(Kind::Service, "s", &service("127.0.0.1:1"))]);
    let first = Snapshot::build(&state);
    let before = state.clone();
    apply(&mut state, vec![put(Kind::Service, "s", &service("127.0.0.1:2"))]);
    let changed = first.updated(&before, &state);
    assert_eq!(first.service(&name("s")).unwrap().id, changed.service(&name("s")).unwrap().id);
    let before = state.clone();
    apply(&mut state, vec![Operation::Delete { key: ResourceKey::new(Kind::Service, name("s")) }]);
    apply(&mut state, vec![put(Kind::Service, "s", &service("127.0.0.1:2"))]);
    let again = changed.updated(&before, &state);
    assert_ne!(changed.service(&name("s")).unwrap().id, again.service(&name("s")).unwrap().id);
}

#[test]
fn live_tells_its_watch_after_the_table_is_there() {
    let live = Live::new();
    let mut published = live.published();
    assert_eq!(published.borrow_and_update().revision, Revision::ZERO);
    assert_eq!(live.load().published_at(), None);
    let state = state_of(vec![put(Kind::Service, "s", &service("127.0.0.1:1"))]);
    live.store(Arc::new(Snapshot::build(&state)));
    assert!(published.has_changed().unwrap());
    assert_eq!(*published.borrow_and_update(), live.load().identity());
    assert_eq!((live.load().revision, live.load().digest), (state.revision(), state.digest()));
    assert!(live.load().published_at().is_some());
}

#[test]
fn a_route_that_does_not_compile_is_reported_and_answered_as_far_as_it_is_known() {
    let later = json!({
        "hostnames": ["a.com"],
        "rules": [
            {"matches": [{"path": {"type": "Exact", "value": "/x"}, "method": "GET"}], "ofALaterVersion": true},
            {"matches": [{"path": {"type": "OfALaterVersion", "value": "/y"}}]},
        ],
    });
    let state = state_of(vec![put(Kind::Route, "later", &later), put(Kind::Route, "under", &to("s", "PathPrefix", "/"))]);
    let snapshot = Arc::new(Snapshot::build(&state));
    assert_eq!(answer(&snapshot, &get("a.com", "/x")), "later/0/0");
    assert_eq!(answer(&snapshot, &get("a.com", "/other")), "later/1/0", "its paths are not known, so every path is taken");
    assert_eq!(answer(&snapshot, &get("b.com", "/x")), "under/0/0");
    let found = snapshot.find(&get("a.com", "/x").view()).unwrap();
    let reason = found.rule.unservable.clone().unwrap();
    assert!(reason.contains("ofALaterVersion"), "{reason}");
    assert!(found.rule.rule.backend_refs.is_empty());
    assert_eq!(snapshot.reason_not_compiled(&ResourceKey::new(Kind::Route, name("later"))), Some(&*reason));
    assert_eq!(snapshot.counts().not_compiled, 1);
}

#[test]
fn a_guess_stands_behind_what_is_known() {
    let later = json!({"hostnames": ["a.com"], "rules": [{"matches": "of a later version"}]});
    let mut known = to("s", "PathPrefix", "/");
    known["hostnames"] = json!(["a.com"]);
    let state = state_of(vec![put(Kind::Route, "later", &later), put(Kind::Route, "newer", &known)]);
    assert_eq!(answer(&Arc::new(Snapshot::build(&state)), &get("a.com", "/x")), "newer/0/0");
}

#[test]
fn what_cannot_be_read_at_all_is_only_reported() {
    let state = state_of(vec![
        put_bytes(Kind::Route, "text", b"not json"),
        put(Kind::Route, "hosts", &json!({"hostnames": {"of": "a later version"}, "rules": [{}]})),
        put(Kind::Service, "service", &json!({"endpoints": 7})),
        put(Kind::Unknown(99), "thing", &json!({})),
    ]);
    let snapshot = Arc::new(Snapshot::build(&state));
    assert_eq!(answer(&snapshot, &get("a.com", "/")), "404");
    let reported: Vec<String> = snapshot.not_compiled().map(|(key, _)| key.name.to_string()).collect();
    assert_eq!(reported, ["hosts", "text", "service", "thing"]);
    assert!(snapshot.not_compiled().all(|(_, reason)| !reason.is_empty()));
    assert_eq!((snapshot.counts().routes, snapshot.counts().services), (0, 0));
}

#[test]
fn dangling_references_are_named_once() {
    let state = state_of(vec![put(Kind::Service, "here", &service("127.0.0.1:1"))]);
    let document = json!({"rules": [
        {"backendRefs": [{"name": "z"}, {"name": "here"}],
         "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "shadow"}}},
                     {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "here"}}}]},
        {"matches": [{"path": {"value": "/x"}}], "backendRefs": [{"name": "a"}, {"name": "z"}]},
    ]});
    let spec = crate::model::spec::parse_route(&document).unwrap().spec;
    assert_eq!(Snapshot::build(&state).dangling(&spec), [name("a"), name("shadow"), name("z")]);
}

#[test]
fn an_explanation_says_what_was_passed_over_and_why() {
    let mut narrow = to("s", "Exact", "/x");
    narrow["rules"][0]["matches"][0]["method"] = json!("POST");
    narrow["rules"][0]["name"] = json!("write");
    let state = state_of(vec![
        put(Kind::Route, "narrow", &narrow),
        put(Kind::Route, "wide", &to("s", "PathPrefix", "/x")),
        put(Kind::Route, "wider", &to("s", "PathPrefix", "/")),
    ]);
    let snapshot = Snapshot::build(&state);
    let explained = serde_json::to_value(snapshot.explain(&get("a.com", "/x").view())).unwrap();
    assert_eq!(explained["revision"], 3);
    assert_eq!(explained["outcome"]["route"], "wide");
    assert_eq!(explained["hostLevels"], json!(["*"]));
    let told = [("narrow", json!("method")), ("wide", Value::Null), ("wider", json!("precedence"))];
    for (candidate, (route, condition)) in explained["candidates"].as_array().unwrap().iter().zip(told) {
        assert_eq!((&candidate["route"], &candidate["passedOver"]["condition"]), (&json!(route), &condition));
    }
    assert_eq!(explained["candidates"][0]["ruleName"], "write");
    let state = state_of(vec![put(Kind::Route, "narrow", &narrow)]);
    let explained = serde_json::to_value(Snapshot::build(&state).explain(&get("a.com", "/y").view())).unwrap();
    assert_eq!(explained["outcome"], Value::Null);
    assert_eq!(explained["candidates"][0]["passedOver"]["condition"], "path");
    assert!(explained["unmatched"].as_str().is_some_and(|sentence| sentence.starts_with("host matched, no path matched")));
}

#[test]
fn an_explanation_says_whether_it_is_whole() {
    let explained = |count: usize, path: &str| {
        let mut rule = to("s", "PathPrefix", "/x")["rules"][0].clone();
        let values = (0..count).map(|value| {
            rule["matches"][0]["headers"] = json!([{"name": "x", "value": value.to_string()}]);
            json!({"rules": [rule.clone()]})
        });
        let routes = values.enumerate().map(|(index, route)| put(Kind::Route, &format!("r{index}"), &route));
        let told = Snapshot::build(&state_of(routes.collect())).explain(&get("a.com", path).view());
        (told.candidates.len(), told.truncated)
    };
    for (path, max) in [("/x", CANDIDATES_MAX), ("/y", CLOSEST_MAX)] {
        assert_eq!(explained(max, path), (max, false), "{path}");
        assert_eq!(explained(max + 1, path), (max, true), "{path}");
    }
}

#[test]
fn a_grpc_route_that_does_not_compile_is_answered_as_far_as_it_is_known() {
    let mut later = call("s", "a.B", "C");
    later["hostnames"] = json!(["a.com"]);
    later["rules"][0]["ofALaterVersion"] = json!(true);
    let state = state_of(vec![put(Kind::GrpcRoute, "later", &later)]);
    let snapshot = Arc::new(Snapshot::build(&state));
    let found = snapshot.find(&grpc("a.com", "/a.B/C").view()).unwrap();
    assert_eq!(found.rule.kind(), Kind::GrpcRoute);
    assert!(found.rule.unservable.as_ref().is_some_and(|reason| reason.contains("ofALaterVersion")));
    for other in [grpc("a.com", "/a.B/D"), grpc("b.com", "/a.B/C"), get("a.com", "/a.B/C")] {
        assert_eq!(answer(&snapshot, &other), "404");
    }
    assert!(snapshot.reason_not_compiled(&ResourceKey::new(Kind::GrpcRoute, name("later"))).is_some());
}

#[test]
fn a_route_that_waits_is_reported_and_comes_alive() {
    let mut of_host = call("s", "a.B", "C");
    of_host["hostnames"] = json!(["x.a.com"]);
    let mut state = state_of(vec![put(Kind::Route, "web", &to("s", "PathPrefix", "/")), put(Kind::GrpcRoute, "calls", &of_host)]);
    let mut snapshot = Arc::new(Snapshot::build(&state));
    let key = ResourceKey::new(Kind::GrpcRoute, name("calls"));
    let told: Vec<_> = snapshot.waiting().collect();
    assert_eq!(told[0].0, key);
    let reason = &told[0].1;
    assert!(reason.starts_with("Route \"web\" is older, or first by name, and has hostname \"*\""), "{reason}");
    assert_eq!((snapshot.counts().routes, snapshot.counts().not_compiled, told.len()), (1, 1, 1));
    assert_eq!(answer(&snapshot, &grpc("x.a.com", "/a.B/C")), "web/0/0");

    // A change of the first that leaves its hostnames leaves the other waiting, and is served.
    let mut change = |operation: Operation| {
        let before = state.clone();
        apply(&mut state, vec![operation]);
        snapshot = Arc::new(snapshot.updated(&before, &state));
        Arc::clone(&snapshot)
    };
    let narrower = change(put(Kind::Route, "web", &to("s", "PathPrefix", "/web")));
    assert_eq!((answer(&narrower, &get("x.a.com", "/web")), narrower.waiting().count()), ("web/0/0".to_owned(), 1));
    assert_eq!(answer(&narrower, &get("x.a.com", "/")), "404");
    // So does a change of the one that waits.
    of_host["rules"][0]["matches"][0]["method"]["method"] = json!("D");
    assert_eq!(change(put(Kind::GrpcRoute, "calls", &of_host)).waiting().count(), 1);
    // Once the first has other hostnames, both serve; once it has the same again, it is still the oldest.
    let mut elsewhere = to("s", "PathPrefix", "/");
    elsewhere["hostnames"] = json!(["y.a.com"]);
    let both = change(put(Kind::Route, "web", &elsewhere));
    assert_eq!(answer(&both, &grpc("x.a.com", "/a.B/D")), "calls/0/0");
    assert_eq!((answer(&both, &get("y.a.com", "/")), both.counts().not_compiled), ("web/0/0".to_owned(), 0));
    assert_eq!(change(put(Kind::Route, "web", &to("s", "PathPrefix", "/"))).waiting().count(), 1);
    let alone = change(Operation::Delete { key: ResourceKey::new(Kind::Route, name("web")) });
    assert_eq!((answer(&alone, &grpc("x.a.com", "/a.B/D")), alone.waiting().count()), ("calls/0/0".to_owned(), 0));
}

#[test]
fn an_explanation_tells_a_request_that_is_none_of_grpc() {
    let state = state_of(vec![put(Kind::GrpcRoute, "calls", &call("s", "a.B", "C"))]);
    let explained = serde_json::to_value(Snapshot::build(&state).explain(&get("h", "/a.B/C").view())).unwrap();
    let candidate = &explained["candidates"][0];
    assert_eq!((&candidate["kind"], &candidate["passedOver"]["condition"]), (&json!("GRPCRoute"), &json!("grpc")));
    assert_eq!(explained["outcome"], Value::Null);
}

pub(super) fn random_operation(rng: &mut Rng, state: &State) -> Operation {
    let names = ["a", "b", "c", "d", "e"];
    let resource = names[rng.usize(..names.len())];
    let kind = [Kind::Route, Kind::Route, Kind::GrpcRoute, Kind::GrpcRoute, Kind::Service, Kind::Unknown(9)][rng.usize(..6)];
    let key = ResourceKey::new(kind, name(resource));
    if rng.u8(..3) == 0 && state.get(&key).is_some() {
        return Operation::Delete { key };
    }
    let path = ["/", "/a", "/a/b", "/{x}", "/a/{y}", "/a/{*z}"][rng.usize(..6)];
    let path_type = if path.contains('{') { "PathTemplate" } else { ["Exact", "PathPrefix"][rng.usize(..2)] };
    let mut spec = match kind {
        Kind::Service => service("127.0.0.1:1"),
        Kind::GrpcRoute => call("a", ["a", "b"][rng.usize(..2)], ["b", "c"][rng.usize(..2)]),
        _ => to("a", path_type, path),
    };
    let is_route = matches!(kind, Kind::Route | Kind::GrpcRoute);
    match rng.u8(..8) {
        0 => spec["ofALaterVersion"] = json!(true),
        1 if is_route => spec["rules"][0]["matches"][0]["ofALaterVersion"] = json!(true),
        2..=5 if is_route => {
            let lists = [json!(["a.com", "*.b.com"]), json!(["*.b.com"]), json!(["a.com"]), json!(["h", "x.b.com"])];
            spec["hostnames"] = lists[rng.usize(..4)].clone();
        }
        6 => return put_bytes(kind, resource, b"{"),
        _ => {}
    }
    if is_route && rng.u8(..3) == 0 {
        let lists = [json!(["default"]), json!(["default", "other"]), json!(["other"]), json!(["third", "other", "default"])];
        spec["listeners"] = lists[rng.usize(..4)].clone();
    }
    put(kind, resource, &spec)
}

/// A route that stays where it was is put in its own place in the index, whatever stands there beside it.
#[test]
fn a_route_that_only_changes_its_backend_is_replaced_in_place() {
    let variant = |backend: &str, path_type: &str, index: usize| {
        let mut route = to(backend, path_type, "/same/{id}");
        route["rules"][0]["matches"][0]["headers"] = json!([{"name": "x", "value": index.to_string()}]);
        route
    };
    let documents = |backend: &str| -> Vec<(String, Value)> {
        let single = [("Exact", "/a"), ("PathPrefix", "/a"), ("PathTemplate", "/one/{id}"), ("RegularExpression", "/a/.*")];
        let several = ["/many/{id}", "/many/{id}/x", "/many/x/{*rest}", "/many/{a}/{b}"].map(|path| ("PathTemplate", path));
        let alone = single.into_iter().chain(several).map(|(path_type, path)| to(backend, path_type, path));
        // Two and forty under one pattern: a list, and a set.
        let few = (0..2).map(|index| variant(backend, "PathTemplate", index));
        let many = (0..40).map(|index| variant(backend, "Exact", index));
        alone.chain(few).chain(many).enumerate().map(|(index, document)| (format!("r{index}"), document)).collect()
    };
    let put_all = |state: &mut State, backend: &str| {
        let documents = documents(backend);
        apply(state, documents.iter().map(|(name, document)| put(Kind::Route, name, document)).collect());
    };
    let mut state = State::default();
    put_all(&mut state, "old");
    let before = (state.clone(), Snapshot::build(&state));
    put_all(&mut state, "new");
    let after = before.1.updated(&before.0, &state);
    assert_eq!(after.counts().routes, documents("new").len());
    for (state, snapshot) in [(before.0, before.1), (state, after)] {
        // The check compares the rules in the index with the documents.
        assert_eq!(snapshot.check(&state, None, usize::MAX), Ok(None));
    }
}

/// So many that all cores compile, and that a change of half of them makes the table from scratch.
#[test]
fn a_table_whose_most_routes_changed_is_made_anew() {
    let document = |backend: &str, index: usize| to(backend, "PathPrefix", &format!("/r{index}"));
    let puts = |backend: &str, indices: std::ops::Range<usize>| -> Vec<Operation> {
        indices.map(|index| put(Kind::Route, &format!("r{index}"), &document(backend, index))).collect()
    };
    let mut state = State::default();
    let mut snapshot = Snapshot::empty();
    let mut change = |operations: Vec<Operation>| {
        let before = state.clone();
        apply(&mut state, operations);
        snapshot = snapshot.updated(&before, &state);
        assert_eq!(snapshot.check(&state, None, usize::MAX), Ok(None));
        assert_eq!((snapshot.revision, snapshot.counts().routes), (state.revision(), state.len()));
    };
    change(puts("one", 0..2_500));
    change(puts("two", 100..1_900));
    change(puts("three", 1_000..1_002));
    change(
        (0..2_400).map(|index| Operation::Delete { key: ResourceKey::new(Kind::Route, name(&format!("r{index}"))) }).collect(),
    );
}

#[test]
fn a_snapshot_of_changes_is_that_of_the_state() {
    let mut waited = 0;
    for seed in 0..60 {
        let mut rng = Rng::with_seed(seed);
        let mut state = State::default();
        let mut snapshot = Arc::new(Snapshot::empty());
        for _ in 0..40 {
            let before = state.clone();
            for _ in 0..rng.usize(1..4) {
                let operation = random_operation(&mut rng, &state);
                apply(&mut state, vec![operation]);
            }
            snapshot = Arc::new(snapshot.updated(&before, &state));
            let scratch = Arc::new(Snapshot::build(&state));
            assert_eq!((snapshot.identity(), snapshot.counts()), (scratch.identity(), scratch.counts()), "seed {seed}");
            assert!(snapshot.not_compiled().eq(scratch.not_compiled()), "seed {seed}");
            assert!(snapshot.waiting().eq(scratch.waiting()), "seed {seed}");
            waited += snapshot.waiting().count();
            for host in ["a.com", "x.b.com", "h"] {
                for path in ["/", "/a", "/a/b", "/c", "/a/b/c", "/a/c/"] {
                    for request in [get(host, path), grpc(host, path)] {
                        let (found, expected) = (snapshot.explain(&request.view()), scratch.explain(&request.view()));
                        assert_eq!(found, expected, "seed {seed}");
                    }
                }
            }
        }
    }
    assert!(waited > 1000, "only {waited} routes waited for others");
}
