//! Configurations that are larger than one transaction.

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::api::Answer;
use super::*;
use crate::model::StateRecord;
use crate::model::limits::TRANSACTION_OPERATIONS_MAX;

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
const MANY: usize = TRANSACTION_OPERATIONS_MAX + 500;

fn item(index: usize) -> String {
    json!({"kind": "Service", "name": format!("s{index}"), "spec": service(1)}).to_string()
}

fn items(indices: std::ops::Range<usize>, end: &str) -> String {
    ended(indices, &format!("{end}]}}"))
}

fn ended(indices: std::ops::Range<usize>, end: &str) -> String {
    let items: Vec<String> = indices.map(item).collect();
    format!("{{\"items\": [{}{end}", items.join(","))
}

/// Operations that wait in State.
fn staged(api: &Api) -> usize {
    let count = |record| match record {
        StateRecord::StagedChunk { chunk, .. } => chunk.operations.len(),
        _ => 0,
    };
    api.cluster.state().records().map(count).sum()
}

async fn until_nothing_is_staged(api: &Api) {
    let discarded = async {
        while staged(api) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), discarded).await.expect("what was staged is discarded");
}

async fn put(api: &Api, query: &str, body: impl Into<Body>) -> Answer {
    api.send(&format!("PUT /v1/config{query}"), &JSON, body).await
}

/// What a template that failed leaves of a configuration is no wish to remove everything.
#[tokio::test]
async fn items_that_are_no_list_are_refused_and_remove_nothing() {
    let api = Api::open();
    api.put("/v1/services/a", &service(1)).await;
    let json =
        ["null", "{}", "\"x\"", "0", "false", "{\"a\": 1}"].map(|items| ("application/json", format!("{{\"items\": {items}}}")));
    let yaml = ["items:", "items: \"\"", "items:\n# nothing\n"].map(|text| ("application/yaml", text.to_owned()));
    for (content_type, body) in json.into_iter().chain(yaml) {
        for query in ["?prune=true", "", "?prune=true&dryRun=true"] {
            let answer = api.send(&format!("PUT /v1/config{query}"), &[("content-type", content_type)], body.clone()).await;
            assert_eq!((answer.status, &answer.body["errors"][0]["path"]), (422, &json!("/items")), "{query} {body}: {answer:?}");
        }
    }
    assert_eq!(api.get("/v1/services/a").await.status, 200);
    let emptied = api.send("PUT /v1/config?prune=true", &JSON, "{\"items\": []}").await;
    assert_eq!((emptied.status, api.get("/v1/services/a").await.status), (200, 404));
}

#[tokio::test]
async fn it_becomes_live_in_one_revision() {
    let api = Api::open();
    api.put("/v1/services/old", &service(9)).await;
    let made = put(&api, "?prune=true", items(0..MANY, "")).await;
    assert_eq!((made.status, made.body["revision"].as_u64()), (200, Some(2)), "{made:?}");
    assert_eq!((&made.body["changed"], &made.body["results"]), (&json!(true), &json!([])));
    assert_eq!(made.body["operations"], json!({"put": MANY, "delete": 1}));
    assert_eq!((api.cluster.state().len(), staged(&api)), (MANY, 0));
    let again = put(&api, "?prune=true", items(0..MANY, "")).await;
    assert_eq!((again.status, &again.body["changed"], api.revision()), (200, &json!(false), 2), "{again:?}");
    assert_eq!((&made.body["unchanged"], &again.body["unchanged"]), (&json!(0), &json!(MANY)), "{again:?}");
    let whole = api.get("/v1/config").await;
    assert_eq!(put(&api, "?prune=true", whole.text).await.body["changed"], json!(false));
    let one = put(&api, "", items(MANY - 1..MANY + 1, "")).await;
    assert_eq!((one.status, one.body["results"].as_array().map(Vec::len), api.revision()), (200, Some(1), 3), "{one:?}");
    assert_eq!(one.body["unchanged"], 1, "{one:?}");
    let fewer = put(&api, "?prune=true", items(0..3, "")).await;
    assert_eq!((fewer.body["operations"].clone(), api.revision()), (json!({"put": 0, "delete": MANY - 2}), 4), "{fewer:?}");
    assert_eq!(api.cluster.state().len(), 3);
}

#[tokio::test]
async fn it_comes_as_documents_of_yaml() {
    let api = Api::open();
    let documents: Vec<String> = (0..MANY).map(|index| format!("# {index}\n{}\n", item(index))).collect();
    let yaml = [("content-type", "application/yaml")];
    let made = api.send("PUT /v1/config", &yaml, documents.join("---\n")).await;
    assert_eq!((made.status, &made.body["operations"]["put"], api.revision()), (200, &json!(MANY), 1), "{made:?}");
}

/// A node reads no YAML document above 8 MiB.
#[tokio::test]
async fn what_is_shown_in_yaml_is_taken_however_large_it_is() {
    let api = Api::open();
    let endpoint = |index: usize| json!({"address": format!("a-host-of-a-long-name-{index:05}.example.com:8080")});
    let spec = json!({"endpoints": (0..10_000).map(endpoint).collect::<Vec<_>>()});
    let item = |index: usize| json!({"kind": "Service", "name": format!("s{index}"), "spec": spec});
    let items: Vec<Value> = (0..16).map(item).collect();
    assert_eq!(put(&api, "", json!({"items": items}).to_string()).await.status, 200);
    let revision = api.revision();
    let whole = api.send("GET /v1/config", &[("accept", "application/yaml")], "").await;
    assert!(whole.text.len() > 8 * 1024 * 1024, "{} bytes", whole.text.len());
    let again = api.send("PUT /v1/config?prune=true", &[("content-type", "application/yaml")], whole.text).await;
    assert_eq!((again.status, &again.body["changed"], api.revision()), (200, &json!(false), revision), "{again:?}");
}

#[tokio::test]
async fn what_others_write_meanwhile_is_caught_up_with() {
    let api = Api::open();
    api.cluster.intruders.store(5, Ordering::SeqCst);
    let made = put(&api, "?prune=true", items(0..MANY, "")).await;
    assert_eq!(made.status, 200, "{made:?}");
    assert_eq!((api.cluster.state().len(), staged(&api)), (MANY, 0), "five intruders are pruned");
    let kept = put(&api, "", items(0..MANY, &format!(",{}", item(MANY)))).await;
    assert_eq!(kept.status, 200, "{kept:?}");
    // One of the resources that were as wanted is changed by another while the rest is on its way.
    let wanted = format!("{{\"kind\": \"Service\", \"name\": \"intruder-1\", \"spec\": {}}}", service(7));
    let all = items(MANY..2 * MANY, &format!(",{wanted}"));
    assert_eq!(put(&api, "", all.clone()).await.status, 200);
    assert_eq!(put(&api, "?prune=true", items(0..1, "")).await.status, 200);
    api.put("/v1/services/intruder-1", &service(7)).await;
    api.cluster.intruders.store(1, Ordering::SeqCst);
    let made = put(&api, "", all).await;
    assert_eq!((made.status, &made.body["operations"]), (200, &json!({"put": MANY + 1, "delete": 0})), "{made:?}");
    assert_eq!(api.get("/v1/services/intruder-1").await.body["spec"], service(7));
}

#[tokio::test]
async fn a_fault_changes_nothing_and_leaves_nothing() {
    let api = Api::open();
    api.put("/v1/services/old", &service(9)).await;
    let bad = r#",{"kind": "Service", "name": "bad", "spec": {"endpoint": []}}"#;
    let twice = format!(",{}", item(3));
    for (body, status, part) in [
        (items(0..MANY, bad), 422, format!("/items/{MANY}/spec/endpoint")),
        (items(0..MANY, &twice), 422, "Service \\\"s3\\\" stands twice".to_owned()),
        (ended(0..MANY, "]"), 400, "EOF".to_owned()),
        (ended(0..MANY, "], \"prune\": true}"), 422, "/prune: unknown field".to_owned()),
        (format!("{} [", items(0..MANY, "")), 400, "EOF".to_owned()),
    ] {
        let refused = put(&api, "?prune=true", body).await;
        assert_eq!((refused.status, refused.text.contains(&part)), (status, true), "{part}: {refused:?}");
        assert_eq!(refused.body["outcome"], json!("notApplied"));
        until_nothing_is_staged(&api).await;
        assert_eq!((api.revision(), api.cluster.state().len()), (1, 1));
    }
    let begin = ended(0..MANY, "");
    let broken = stream::iter([Ok(Bytes::from(begin.clone())), Err(io::Error::from(io::ErrorKind::ConnectionReset))]);
    assert_eq!(put(&api, "?prune=true", Body::from_stream(broken)).await.status, 400);
    until_nothing_is_staged(&api).await;
    let stuck = stream::iter([Ok::<_, io::Error>(Bytes::from(begin))]).chain(stream::pending());
    let slow = api.send("PUT /v1/config", &[("raftgate-timeout", "300ms")], Body::from_stream(stuck)).await;
    assert_eq!((slow.status, &slow.body["outcome"]), (408, &json!("notApplied")), "{slow:?}");
    until_nothing_is_staged(&api).await;
    assert_eq!(api.revision(), 1);
}

#[tokio::test]
async fn an_answer_that_is_lost_on_the_way_is_told_as_what_it_is() {
    let api = Api::open();
    api.fail(Fault::AnswerLost);
    let lost = put(&api, "", items(0..MANY, "")).await;
    assert_eq!((lost.status, &lost.body["outcome"]), (503, &json!("notApplied")), "{lost:?}");
    until_nothing_is_staged(&api).await;
    assert_eq!(api.revision(), 0);
}

#[tokio::test]
async fn a_dry_run_shows_the_first_changes_and_counts_the_rest() {
    let api = Api::open();
    let dry = put(&api, "?dryRun=true", items(0..MANY, "")).await;
    let shown = dry.body["changes"].as_array().map(Vec::len);
    assert_eq!((dry.status, shown), (200, Some(TRANSACTION_OPERATIONS_MAX)), "{:?}", dry.status);
    assert_eq!(dry.body["changesOmitted"], json!(MANY - TRANSACTION_OPERATIONS_MAX));
    assert_eq!((api.revision(), staged(&api)), (0, 0));
}

#[tokio::test]
async fn a_repeated_upload_with_its_key_is_applied_once() {
    let api = Api::open();
    let key = [("content-type", "application/json"), ("idempotency-key", "k")];
    let body = items(0..MANY, "");
    let first = api.send("PUT /v1/config?prune=true", &key, body.clone()).await;
    assert_eq!((first.status, first.body["revision"].as_u64()), (200, Some(1)), "{first:?}");
    api.put("/v1/services/other", &service(9)).await;
    let second = api.send("PUT /v1/config?prune=true", &key, body).await;
    assert_eq!((second.status, second.body["revision"].as_u64(), api.revision()), (200, Some(1), 2), "{second:?}");
    let other = api.send("PUT /v1/config?prune=true", &key, items(0..1, "")).await;
    assert_eq!((other.status, api.revision()), (422, 2), "{other:?}");
}

#[tokio::test]
async fn a_reference_to_what_comes_later_is_no_warning() {
    let api = Api::open();
    let named = |index: usize| {
        json!({"kind": "Route", "name": format!("r{index}"), "spec": route("/", &format!("s{index}"))}).to_string()
    };
    let routes: Vec<String> = (0..3_000).map(named).collect();
    let services: Vec<String> = (1..3_000).map(item).collect();
    let made = put(&api, "", format!("{{\"items\": [{},{}]}}", routes.join(","), services.join(","))).await;
    let warnings = made.body["warnings"].as_array().cloned().unwrap_or_default();
    assert_eq!((made.status, warnings.len()), (200, 1), "{warnings:?}");
    assert!(warnings[0].to_string().contains("service \\\"s0\\\" does not exist"), "{warnings:?}");
}
