//! Lists by page, over thousands of resources and while they change.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Value, json};

use super::api::Api;
use crate::model::{Command, CommandBody, Kind, Name, Operation, ResourceKey, Timestamp, Transaction};

const KINDS: [Kind; 3] = [Kind::Route, Kind::GrpcRoute, Kind::Service];

fn spec(kind: Kind, hostname: &str) -> Value {
    match kind {
        Kind::Service => json!({"endpoints": []}),
        _ => json!({"hostnames": [hostname], "rules": [{}]}),
    }
}

fn key(kind: Kind, name: &str) -> ResourceKey {
    ResourceKey::new(kind, Name::new(name).expect("a name"))
}

fn put(kind: Kind, name: &str, hostname: &str) -> Operation {
    Operation::Put { key: key(kind, name), spec: Bytes::from(spec(kind, hostname).to_string()) }
}

/// Changes State alone: no table of all of it is made for each change.
fn apply(api: &Api, operations: Vec<Operation>) {
    let mut state = api.cluster.state.lock().expect("the state");
    let before = state.revision();
    let body = CommandBody::Transaction(Transaction { operations, ..Transaction::default() });
    state.apply(&Command { proposed_at: Timestamp(1), actor: "test".to_owned(), body });
    assert!(state.revision() > before, "the operations changed nothing");
}

/// Walks all pages, with `between` after each of them, which is told the last name. The names, and the length of each page.
async fn walk(api: &Api, kind: Kind, query: &str, mut between: impl FnMut(&str)) -> (Vec<String>, Vec<usize>) {
    let (mut names, mut lengths, mut token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = api.get(&format!("/v1/{}?{query}{token}", kind.plural())).await;
        assert_eq!(page.status, 200, "{query}{token}: {}", page.text);
        let items = page.body["items"].as_array().expect("items");
        assert!(items.iter().all(|item| item["kind"] == kind.as_str() && item["spec"].is_object()), "{query}");
        names.extend(items.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)));
        lengths.push(items.len());
        let Some(next) = page.body["continue"].as_str() else { return (names, lengths) };
        token = format!("&continue={next}");
        between(names.last().map_or("", String::as_str));
    }
}

fn is_in_order(names: &[String]) -> bool {
    names.windows(2).all(|pair| pair[0] < pair[1])
}

#[tokio::test]
async fn each_parameter_selects_of_thousands_of_each_kind() {
    let api = Api::open();
    let hostname = |index: usize| if index.is_multiple_of(3) { "Three.example" } else { "x.example" };
    let name = |index: usize| format!("{}-{index:04}", if index < 1000 { "a" } else { "b" });
    for kind in KINDS {
        apply(&api, (0..2500).map(|index| put(kind, &name(index), hostname(index))).collect());
    }
    for kind in KINDS {
        let names = |wanted: fn(usize) -> bool| (0..2500).filter(|index| wanted(*index)).map(name).collect::<Vec<_>>();
        let all = walk(&api, kind, "", |_| ()).await;
        assert_eq!((all.0, all.1), (names(|_| true), vec![100; 25]), "{kind:?}: 100 a page where no limit is given");
        let limited = walk(&api, kind, "limit=1000", |_| ()).await;
        assert_eq!((limited.0, limited.1), (names(|_| true), vec![1000, 1000, 500]), "{kind:?}");
        for prefix in ["b", "b-", "b-1"] {
            let (found, lengths) = walk(&api, kind, &format!("limit=700&prefix={prefix}"), |_| ()).await;
            let expected = names(if prefix == "b-1" { |index| (1000..2000).contains(&index) } else { |index| index >= 1000 });
            assert_eq!((found, lengths.len()), (expected, if prefix == "b-1" { 2 } else { 3 }), "{kind:?} {prefix}");
        }
        if kind == Kind::Service {
            assert_eq!(api.get("/v1/services?hostname=x.example").await.status, 400);
            continue;
        }
        let (found, lengths) = walk(&api, kind, "limit=400&hostname=three.EXAMPLE", |_| ()).await;
        assert_eq!(found, names(|index| index.is_multiple_of(3)), "{kind:?}");
        assert_eq!(lengths[..2], [400, 400], "{kind:?}: a page is full though others are passed over");
        let (found, _) = walk(&api, kind, "limit=50&prefix=b&hostname=x.example", |_| ()).await;
        assert_eq!(found, names(|index| index >= 1000 && !index.is_multiple_of(3)), "{kind:?}");
        assert!(walk(&api, kind, "hostname=example", |_| ()).await.0.is_empty(), "{kind:?}: part of a name is another name");
    }
}

#[tokio::test]
async fn pages_stand_firm_while_resources_come_and_go() {
    for kind in KINDS {
        let api = Api::open();
        let old: Vec<String> = (0..3000).map(|index| format!("n{index:04}")).collect();
        apply(&api, old.iter().map(|name| put(kind, name, "h.example")).collect());
        let (mut gone, mut behind, mut ahead) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let between = |last: &str| {
            let index: usize = last[1..].split('-').next().and_then(|digits| digits.parse().ok()).expect("a number");
            // The one that the page ended with goes, one before it, and one that is yet to come; others come and change on both sides.
            let leaving = [index, index - 7, index + 5].map(|index| format!("n{index:04}"));
            let coming = [format!("n{:04}-x", index - 9), format!("n{:04}-x", index + 9)];
            let changed = [format!("n{:04}", index - 3), format!("n{:04}", index + 3)];
            let deletes = leaving.iter().map(|name| Operation::Delete { key: key(kind, name) });
            let puts = coming.iter().chain(&changed).map(|name| put(kind, name, "h2.example"));
            let mut operations: Vec<Operation> = deletes.chain(puts).collect();
            if kind == Kind::Service {
                let spec = Bytes::from_static(b"{\"endpoints\":[{\"address\":\"h:1\"}]}");
                operations.push(Operation::Put { key: key(kind, &format!("n{:04}", index + 4)), spec });
            }
            apply(&api, operations);
            gone.insert(leaving[2].clone());
            behind.insert(coming[0].clone());
            ahead.insert(coming[1].clone());
        };
        let (found, lengths) = walk(&api, kind, "limit=311", between).await;
        assert!(is_in_order(&found), "{kind:?}: a resource twice, or out of order");
        assert!(lengths[..lengths.len() - 1].iter().all(|length| *length == 311), "{kind:?}: {lengths:?}");
        // What stood before and is reached is there; what went before it was reached is not; what came behind is not, ahead it is.
        let mut expected: BTreeSet<String> = old.iter().filter(|name| !gone.contains(*name)).cloned().collect();
        expected.extend(ahead.iter().cloned());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "{kind:?}");
        assert!(behind.len() > 8 && behind.is_disjoint(&expected), "{kind:?}");
    }
}

#[tokio::test]
async fn a_hostname_among_many_is_found_by_pages_that_end_in_time() {
    let api = Api::open();
    for part in 0..3 {
        let operations = (0..9000).map(|index| put(Kind::Route, &format!("r{part}-{index:04}"), "x.example"));
        apply(&api, operations.collect());
    }
    apply(&api, vec![put(Kind::Route, "s", "rare.example"), put(Kind::Route, "r1-0001", "rare.example")]);
    let (found, lengths) = walk(&api, Kind::Route, "hostname=rare.example", |_| ()).await;
    assert_eq!((found, lengths), (vec!["r1-0001".to_owned(), "s".to_owned()], vec![1, 1]));
}
