//! What is forecast of a write is what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastrand::Rng;
use serde_json::{Value, json};

use super::documents::{apply, put, random_operation};
use crate::model::spec::{parse_grpc_route, parse_route};
use crate::model::{Kind, Operation, ResourceKey, State};
use crate::table::{Others, RouteOutline, Snapshot};

/// What the admin API hands over: nothing of a document that it would refuse.
fn outline(operation: &Operation) -> Option<Option<RouteOutline>> {
    let Operation::Put { key, spec } = operation else { return Some(None) };
    let document: Value = serde_json::from_slice(spec).ok()?;
    let parsed = match key.kind {
        Kind::Route => parse_route(&document),
        Kind::GrpcRoute => parse_grpc_route(&document),
        _ => return Some(None),
    };
    let spec = parsed.ok()?.spec;
    Some(Some(RouteOutline { key: key.clone(), hostnames: spec.hostnames, listeners: spec.listeners }))
}

#[test]
fn a_forecast_comes_true() {
    let (mut told, mut displaced) = (0, 0);
    for seed in 0..150 {
        let mut rng = Rng::with_seed(seed);
        let mut state = State::default();
        let mut snapshot = Arc::new(Snapshot::empty());
        for _ in 0..30 {
            let mut operations: Vec<Operation> = Vec::new();
            for _ in 0..rng.usize(1..5) {
                let operation = random_operation(&mut rng, &state);
                let is_new = operations.iter().all(|other| other.key() != operation.key());
                if is_new && outline(&operation).is_some() {
                    operations.push(operation);
                }
            }
            let written: Vec<RouteOutline> = operations.iter().filter_map(|operation| outline(operation).flatten()).collect();
            let gone = operations.iter().filter(|operation| matches!(operation, Operation::Delete { .. }));
            let gone: Vec<ResourceKey> = gone.map(|operation| operation.key().clone()).collect();
            let forecast = snapshot.waiting_after(&written, Others::StayBut(&gone));

            let standing = state.resources().map(|resource| resource.key.clone());
            let gone: Vec<ResourceKey> = standing.filter(|key| written.iter().all(|outline| outline.key != *key)).collect();
            assert_eq!(snapshot.waiting_after(&written, Others::Go), snapshot.waiting_after(&written, Others::StayBut(&gone)));

            let before: BTreeSet<(ResourceKey, String)> = snapshot.contest.waiting_attachments().collect();
            let old = state.clone();
            if !operations.is_empty() {
                apply(&mut state, operations);
            }
            snapshot = Arc::new(snapshot.updated(&old, &state));
            let mut news = snapshot.contest.waiting_attachments().collect::<BTreeSet<_>>();
            news.retain(|attachment| !before.contains(attachment));
            let is_told = |key: &ResourceKey| {
                written.iter().any(|outline| outline.key == *key) || news.iter().any(|(displaced, _)| displaced == key)
            };
            let expected: BTreeMap<ResourceKey, String> = snapshot.waiting().filter(|(key, _)| is_told(key)).collect();
            assert_eq!(forecast.iter().cloned().collect::<BTreeMap<_, _>>(), expected, "seed {seed}");
            assert_eq!(forecast.len(), expected.len(), "seed {seed}: told twice");
            told += forecast.len();
            displaced += forecast.iter().filter(|(key, _)| written.iter().all(|outline| outline.key != *key)).count();
        }
    }
    assert!(told > 1000 && displaced > 100, "{told} told, {displaced} of them displaced");
}

#[test]
fn the_first_grpc_route_meets_routes_that_are_written_as_they_stand() {
    let web = json!({"rules": [{}]});
    let call = json!({"rules": [{}]});
    let mut state = State::default();
    apply(&mut state, vec![put(Kind::Route, "web", &web)]);
    let operations = [put(Kind::Route, "web", &web), put(Kind::GrpcRoute, "a", &call)];
    let written: Vec<RouteOutline> = operations.iter().filter_map(|operation| outline(operation).flatten()).collect();
    for others in [Others::StayBut(&[]), Others::Go] {
        let waiting = Snapshot::build(&state).waiting_after(&written, others);
        assert!(matches!(&waiting[..], [(key, _)] if key.kind == Kind::GrpcRoute), "{others:?}: {waiting:?}");
    }
}
