//! The API as a client sees it: shapes, statuses and headers, on a cluster in memory.

mod api;
mod certificates;
mod configuration;
mod departures;
mod pages;
mod secured;
mod waiting;

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use self::api::{Api, Fault, put_operation, route, service};
use super::body::BODY_BYTES_MAX;
use super::{Callers, Cluster as _, Phase, serve};
use crate::model::Revision;
use crate::tls::{ClientFiles, client_config};

#[tokio::test]
async fn a_resource_is_made_read_changed_and_removed() {
    let api = Api::open();
    let made = api.put("/v1/services/orders", &service(9001)).await;
    assert_eq!((made.status, made.body["revision"].as_u64()), (201, Some(1)), "{made:?}");
    assert_eq!(made.body["results"], json!([{"kind": "Service", "name": "orders", "revision": 1, "created": true}]));
    assert_eq!((made.header("raftgate-revision"), made.header("raftgate-cluster")), (Some("1"), Some("c1")));
    assert_eq!(made.header("etag"), Some("\"1\""));
    let again = api.put("/v1/services/orders", &service(9001)).await;
    assert_eq!((again.status, &again.body["changed"], again.body["revision"].as_u64()), (200, &json!(false), Some(1)));
    let changed = api.put("/v1/services/orders", &service(9002)).await;
    assert_eq!((changed.status, &changed.body["changed"]), (200, &json!(true)));
    let read = api.get("/v1/services/orders").await;
    assert_eq!((read.status, read.header("etag"), read.header("raftgate-revision")), (200, Some("\"2\""), Some("2")));
    assert_eq!((&read.body["createdRevision"], &read.body["revision"]), (&json!(1), &json!(2)));
    assert_eq!(
        (&read.body["kind"], &read.body["name"], &read.body["spec"]),
        (&json!("Service"), &json!("orders"), &service(9002))
    );
    assert!(read.body["updatedAt"].as_str().is_some_and(|time| time.ends_with('Z')));
    let known = api.send("GET /v1/services/orders", &[("if-none-match", "\"2\"")], "").await;
    assert_eq!((known.status, known.text.as_str()), (304, ""));
    let gone = api.send("DELETE /v1/services/orders", &[], "").await;
    assert_eq!((gone.status, gone.body["revision"].as_u64()), (200, Some(3)));
    assert_eq!(api.get("/v1/services/orders").await.status, 404);
    let list = api.get("/v1/services").await;
    assert_eq!((list.status, &list.body), (200, &json!({"items": []})));
}

#[tokio::test]
async fn members_are_added_changed_and_removed() {
    let api = Api::open();
    for (call, body, status) in [
        ("POST /v1/cluster/members", json!({"peerAddress": "h:1"}), 201),
        ("POST /v1/cluster/members", json!({"peerAddress": "h:1", "id": 4}), 201),
        ("PATCH /v1/cluster/members/4", json!({"role": "voter"}), 200),
        ("POST /v1/cluster/leader", json!({"id": 4}), 200),
        ("PATCH /v1/cluster/members/4", json!({"role": "learner"}), 200),
    ] {
        let answer = api.send(call, &[], body.to_string()).await;
        assert_eq!((answer.status, &answer.body["id"]), (status, &json!(4)), "{call}: {answer:?}");
    }
    let removed = api.send("DELETE /v1/cluster/members/4", &[], "").await;
    assert_eq!((removed.status, &removed.body["id"]), (200, &Value::Null), "{removed:?}");
    let unknown = api.send("PATCH /v1/cluster/members/3", &[], json!({"role": "learner"}).to_string()).await;
    assert_eq!((unknown.status, &unknown.body["outcome"]), (504, &json!("unknown")), "{unknown:?}");
}

#[tokio::test]
async fn a_dangling_reference_is_a_warning() {
    let api = Api::open();
    let made = api.put("/v1/routes/shop", &route("/", "missing")).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert!(made.body["warnings"][0].as_str().is_some_and(|warning| warning.contains("missing")), "{made:?}");
    let mut mirrored = route("/m", "missing");
    mirrored["rules"][0]["filters"] = json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "shadow"}}}]);
    let made = api.put("/v1/routes/mirrored", &mirrored).await;
    let place = "/rules/0/filters/0/requestMirror/backendRef: service \"shadow\" does not exist; nothing is mirrored";
    assert!(made.body["warnings"][1].as_str().is_some_and(|warning| warning.contains(place)), "{made:?}");
    let operations = json!([put_operation("Route", "a", &route("/a", "new")), put_operation("Service", "new", &service(1))]);
    let both = api.send("POST /v1/transactions", &[], json!({"operations": operations}).to_string()).await;
    assert_eq!((both.status, &both.body["warnings"]), (200, &json!([])), "{both:?}");
}

#[tokio::test]
async fn a_service_over_tls_needs_a_level_and_its_certificate() {
    let api = Api::open();
    let spec = json!({
        "endpoints": [{"address": "10.0.0.1:443"}], "protocol": "https",
        "tls": {"hostname": "orders.internal", "clientCertificate": "gateway", "insecureSkipVerify": true},
    });
    let dry = api.send("PUT /v1/services/orders?dryRun=true", &[], spec.to_string()).await;
    assert!(dry.status == 409 && dry.text.contains("needs feature level 2"), "{dry:?}");
    let made = api.put("/v1/services/orders", &spec).await;
    let warnings = made.body["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_told = |part: &str| warnings.iter().any(|warning| warning.to_string().contains(part));
    assert_eq!((made.status, warnings.len()), (201, 2), "{made:?}");
    assert!(is_told("/tls/insecureSkipVerify: certificates of endpoints are not verified"), "{made:?}");
    assert!(is_told("/tls/clientCertificate: certificate \\\"gateway\\\" does not exist"), "{made:?}");

    api.put("/v1/routes/shop", &route("/", "orders")).await;
    let asked = json!({"method": "GET", "url": "http://a.example/"}).to_string();
    let found = api.send("POST /v1/explain", &[], asked).await;
    let backend = &found.body["backends"][0];
    assert_eq!(backend["protocol"], "https", "{found:?}");
    assert_eq!(backend["clientCertificate"], json!({"name": "gateway", "served": false}), "{found:?}");
}

#[tokio::test]
async fn a_grpc_route_is_a_resource_like_any_other() {
    let api = Api::open();
    let spec = json!({"hostnames": ["a.com"], "rules": [{
        "matches": [{"method": {"service": "shop.Orders", "method": "Get"}}], "backendRefs": [{"name": "orders"}]}]});
    let put =
        json!({"operations": [put_operation("GRPCRoute", "calls", &spec), put_operation("Service", "orders", &service(1))]});
    let transaction = ("POST /v1/transactions?dryRun=true", put.to_string());
    let dry = api.send(transaction.0, &[], transaction.1.clone()).await;
    assert_eq!(dry.status, 409, "{dry:?}");
    assert!(dry.text.contains("needs feature level 1"), "{dry:?}");

    let made = api.put("/v1/grpcroutes/calls", &spec).await;
    assert_eq!((made.status, &made.body["results"][0]["kind"]), (201, &json!("GRPCRoute")), "{made:?}");
    let warning = made.body["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("\"orders\" does not exist") && warning.contains("UNAVAILABLE"), "{made:?}");
    let changed = api.send("POST /v1/transactions", &[], put.to_string()).await;
    let warning = "GRPCRoute \"calls\": /operations/0/spec/rules/0/backendRefs/0: service \"orders\" speaks HTTP/1.1, which carries no \
                   gRPC: its share is answered with UNAVAILABLE";
    assert_eq!((changed.status, &changed.body["warnings"]), (200, &json!([warning])), "{changed:?}");
    let again = api.put("/v1/grpcroutes/calls", &spec).await;
    assert!(again.text.contains("which carries no gRPC"), "the service stands in State now: {again:?}");
    let list = api.get("/v1/grpcroutes?hostname=a.com").await;
    assert_eq!((list.status, &list.body["items"][0]["spec"]), (200, &spec), "{list:?}");

    let ask = |host: &str, path: &str, content_type: &str| {
        let url = format!("http://{host}{path}");
        json!({"url": url, "method": "POST", "headers": {"content-type": content_type}}).to_string()
    };
    for (host, path, content_type, outcome, is_grpc) in [
        ("a.com", "/shop.Orders/Get", "application/grpc", json!("GRPCRoute"), true),
        ("a.com", "/shop.Orders/List", "application/grpc", Value::Null, true),
        ("a.com", "/shop.Orders/Get", "application/json", Value::Null, false),
        ("b.com", "/shop.Orders/Get", "application/grpc", Value::Null, true),
    ] {
        let told = api.send("POST /v1/explain", &[], ask(host, path, content_type)).await;
        assert_eq!((&told.body["outcome"]["kind"], &told.body["grpc"]), (&outcome, &json!(is_grpc)), "{told:?}");
    }

    // Beside an older route for the same host it waits, which the table tells.
    assert_eq!(api.put("/v1/routes/web", &route("/", "orders")).await.status, 201);
    let table = api.get("/v1/table").await;
    assert_eq!((&table.body["routes"], &table.body["notCompiledCount"]), (&json!(1), &json!(1)), "{table:?}");
    let waiting = &table.body["notCompiled"][0];
    assert_eq!((&waiting["kind"], &waiting["name"]), (&json!("Route"), &json!("web")), "{table:?}");
    assert!(waiting["reason"].as_str().is_some_and(|reason| reason.contains("GRPCRoute \"calls\"")), "{table:?}");
    let config = api.get("/v1/config").await;
    let kinds: Vec<&Value> = config.body["items"].as_array().into_iter().flatten().map(|item| &item["kind"]).collect();
    assert_eq!(kinds, ["Route", "Service", "GRPCRoute"]);
    assert_eq!(api.send("DELETE /v1/grpcroutes/calls", &[], "").await.status, 200);
    assert_eq!(api.get("/v1/table").await.body["notCompiled"], json!([]));
}

/// Call, headers, body; then the status and a part of the problem.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], String, u16, &'a str);

#[tokio::test]
async fn bad_input_is_named_and_changes_nothing() {
    let api = Api::open();
    assert_eq!(api.put("/v1/services/a", &service(1)).await.status, 201);
    let spec = service(2).to_string();
    let good_route = route("/", "a").to_string();
    let long = format!("PUT /v1/services/{}", "x".repeat(254));
    let many: Vec<Value> = (0..10_001).map(|n| put_operation("Service", &format!("s{n}"), &service(1))).collect();
    let many = json!({"operations": many}).to_string();
    let bulky: Vec<Value> = (0..30).map(|n| put_operation("Route", &format!("r{n}"), &bulky_route())).collect();
    let bulky = json!({"operations": bulky}).to_string();
    let huge = "x".repeat(BODY_BYTES_MAX + 1);
    let duplicate =
        json!({"operations": [put_operation("Service", "b", &service(1)), put_operation("Service", "b", &service(2))]});
    let unknown = json!({"operations": [
        put_operation("Service", "b", &service(1)),
        put_operation("Route", "c", &json!({"rules": [{"matchs": []}]})),
    ]});
    let delete_missing = json!({"operations": [{"op": "delete", "kind": "Route", "name": "none"}]});
    let stale = json!({"preconditions": [{"kind": "Service", "name": "a", "revision": 9}],
        "operations": [put_operation("Service", "a", &service(3))]});
    let not_served = json!({"operations": [put_operation("Policy", "p", &json!({}))]});
    let twice = json!({"items": [{"kind": "Service", "name": "s", "spec": service(1)}, {"kind": "Service", "name": "s", "spec": service(1)}]});
    let bad_item = json!({"items": [{"kind": "Service", "name": "s", "spec": {"endpoint": []}}]});
    let double_match = json!({"rules": [{"matches": [{"method": "GET", "method2": 1}]}]}).to_string();
    let none: &[(&str, &str)] = &[];
    let rows: Vec<Row<'_>> = vec![
        ("PUT /v1/services/a", none, "{\"endpoints\":\n [".to_owned(), 400, "line 2 column"),
        ("PUT /v1/services/a", none, "{\"endpoints\":[],\"endpoints\":[]}".to_owned(), 400, "stands twice"),
        ("PUT /v1/services/a", none, "{\"endpoint\":[]}".to_owned(), 422, "/endpoint"),
        ("PUT /v1/services/a", none, "[]".to_owned(), 422, "object"),
        ("PUT /v1/services/a", none, "{\"endpoints\":[{\"address\":\"nowhere\"}]}".to_owned(), 422, "/endpoints/0/address"),
        ("PUT /v1/services/a", none, "{\"endpoints\":[{\"address\":1}]}".to_owned(), 422, "/endpoints/0/address"),
        ("PUT /v1/services/a", none, "{\"endpoints\":[],\"healthCheck\":{}}".to_owned(), 422, "not supported yet"),
        ("PUT /v1/routes/a", none, route("orders", "a").to_string(), 422, "/rules/0/matches/0/path/value"),
        ("PUT /v1/routes/a", none, double_match, 422, "/rules/0/matches/0/method2"),
        (&long, none, spec.clone(), 422, "253"),
        ("PUT /v1/services/UPPER", none, spec.clone(), 422, "'U'"),
        ("PUT /v1/services/%ff", none, spec.clone(), 400, "UTF-8"),
        ("PUT /v1/services/a", none, huge.clone(), 413, "limit"),
        ("POST /v1/transactions", none, many, 413, "10001 operations"),
        ("POST /v1/transactions", none, bulky, 413, "bytes"),
        ("POST /v1/transactions", none, huge, 413, "limit"),
        ("POST /v1/transactions", none, duplicate.to_string(), 422, "/operations/1"),
        ("POST /v1/transactions", none, unknown.to_string(), 422, "/operations/1/spec/rules/0/matchs"),
        ("POST /v1/transactions", none, delete_missing.to_string(), 404, "/operations/0"),
        ("POST /v1/transactions", none, stale.to_string(), 412, "\"presentRevision\":1"),
        ("POST /v1/transactions", none, not_served.to_string(), 422, "/operations/0/kind"),
        ("POST /v1/transactions", &[("if-match", "\"1\"")], stale.to_string(), 400, "if-match"),
        ("PUT /v1/services/a", &[("if-match", "\"9\"")], spec.clone(), 412, "\"presentRevision\":1"),
        ("PUT /v1/services/b", &[("if-match", "\"9\"")], spec.clone(), 412, "\"presentRevision\":null"),
        ("PUT /v1/services/b", &[("if-match", "*")], spec.clone(), 412, "does not exist"),
        ("PUT /v1/services/a", &[("if-none-match", "*")], spec.clone(), 412, "\"presentRevision\":1"),
        ("DELETE /v1/services/a", &[("if-match", "\"9\"")], String::new(), 412, "\"presentRevision\":1"),
        ("PUT /v1/services/a", &[("if-match", "1")], spec.clone(), 400, "if-match"),
        ("PUT /v1/services/a", &[("raftgate-timeout", "1h")], spec.clone(), 400, "raftgate-timeout"),
        ("PUT /v1/services/a", &[("raftgate-min-revision", "x")], spec.clone(), 400, "raftgate-min-revision"),
        ("PUT /v1/services/a", &[("raftgate-cluster", "c2")], spec.clone(), 409, "c2"),
        ("PUT /v1/services/a", &[("idempotency-key", "")], spec.clone(), 400, "idempotency-key"),
        ("PUT /v1/services/a", &[("content-type", "text/plain")], spec.clone(), 415, "text/plain"),
        ("PUT /v1/services/a?dryrun=true", none, spec.clone(), 400, "dryrun"),
        ("PUT /v1/services/a?dryRun=maybe", none, spec.clone(), 400, "maybe"),
        ("PUT /v1/services/a?wait=forever", none, spec.clone(), 400, "forever"),
        ("DELETE /v1/services/none", none, String::new(), 404, "none"),
        ("POST /v1/services", none, spec.clone(), 405, "POST /v1/services"),
        ("PUT /v1/nothing/a", none, spec.clone(), 404, "nothing"),
        ("PUT /v1/policies/a", none, spec.clone(), 501, "Policy"),
        ("POST /v1/rollback", none, "{}".to_owned(), 501, "rollback"),
        ("POST /v1/cluster/members", none, "{}".to_owned(), 422, "/peerAddress: this field is required"),
        ("POST /v1/cluster/members", none, "{\"peerAddress\":\"h\"}".to_owned(), 422, "\\\"h\\\" is not host:port"),
        ("POST /v1/cluster/members", none, "{\"peerAddress\":\"h:1\",\"id\":0}".to_owned(), 422, "/id: expected a member's id"),
        ("POST /v1/cluster/members", none, "{\"peerAddress\":\"h:2\"}".to_owned(), 422, "belongs to a cluster already"),
        ("PATCH /v1/cluster/members/2", none, "{\"role\":\"leader\"}".to_owned(), 422, "/role: expected"),
        ("PATCH /v1/cluster/members/3", none, "{\"role\":\"voter\"}".to_owned(), 409, "node 3 does not answer"),
        ("PATCH /v1/cluster/members/02", none, "{\"role\":\"voter\"}".to_owned(), 404, "is no member's id"),
        ("DELETE /v1/cluster/members/9", none, String::new(), 404, "node 9 is no member"),
        ("DELETE /v1/cluster/members/2?now=1", none, String::new(), 400, "now"),
        ("POST /v1/cluster/feature-level", none, "{\"level\":-1}".to_owned(), 422, "/level: expected a number"),
        ("POST /v1/cluster/feature-level", none, "{\"level\":7}".to_owned(), 422, "knows feature levels up to 0, not 7"),
        ("POST /v1/cluster/leader", none, "{\"id\":\"2\"}".to_owned(), 422, "/id: expected a member's id"),
        ("PUT /v1/services/a/endpoints/1", none, "{}".to_owned(), 501, "endpoints"),
        ("PUT /v1/config", none, twice.to_string(), 422, "/items/1"),
        ("PUT /v1/config", none, bad_item.to_string(), 422, "Service \\\"s\\\""),
        ("PUT /v1/config", &[("content-type", "application/yaml")], "items: [".to_owned(), 400, "YAML"),
        ("PUT /v1/config?prune=true", &[("content-type", "application/yaml")], String::new(), 422, "no document"),
        ("PUT /v1/config?prune=true", &[("content-type", "application/yaml")], "---\n# cut off\n".to_owned(), 422, "no document"),
        ("PUT /v1/config", &[("content-type", "text/csv")], String::new(), 415, "text/csv"),
        ("PUT /v1/config?prun=true", none, "{\"items\":[]}".to_owned(), 400, "prun"),
        ("PUT /v1/config", &[("if-match", "\"7\"")], "{\"items\":[]}".to_owned(), 412, "\"presentRevision\":1"),
        ("PUT /v1/routes/a", &[("raftgate-min-revision", "2"), ("raftgate-timeout", "5ms")], good_route, 503, "revision 1"),
    ];
    for (call, headers, body, status, part) in rows {
        let answer = api.send(call, headers, body).await;
        let call = &call[..call.len().min(60)];
        assert_eq!(answer.status, status, "{call} {part}: {}", answer.text);
        assert!(answer.text.contains(part), "{call}: {part} not in {}", answer.text);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{call} {part}");
        assert_eq!(answer.body["status"], status, "{call}");
        assert_eq!(answer.body["outcome"], "notApplied", "{call} {part}: {}", answer.text);
        assert_eq!(answer.header("raftgate-revision"), Some("1"), "{call} {part}");
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{call} {part}");
    }
    assert_eq!(api.revision(), 1);
    assert_eq!(api.get("/v1/services/a").await.body["spec"], service(1));
}

/// A valid spec of more than 150 kB.
fn bulky_route() -> Value {
    let hostnames: Vec<String> = (0..16).map(|n| format!("{}{n}.example", "x".repeat(50))).collect();
    let value = "v".repeat(4000);
    let set: Vec<Value> = (0..15).map(|n| json!({"name": format!("x-{n}"), "value": value})).collect();
    let filters = json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": set}}]);
    let rule = |n: usize| json!({"matches": [{"path": {"type": "Exact", "value": format!("/{n}")}}], "filters": filters});
    json!({"hostnames": hostnames, "rules": [rule(0), rule(1), rule(2)]})
}

#[tokio::test]
async fn bad_reads_are_named() {
    let api = Api::open();
    for (call, status, part) in [
        ("GET /v1/routes/none", 404, "none"),
        ("GET /v1/routes?limit=0", 400, "limit"),
        ("GET /v1/routes?hostnam=a", 400, "hostnam"),
        ("GET /v1/services?hostname=a", 400, "hostname"),
        ("GET /v1/routes?continue=%2F", 400, "continue"),
        ("GET /v1/routes?continue=zzz", 400, "continue"),
        ("GET /v1/routes?consistency=stale", 400, "stale"),
        ("GET /v1/unknown", 404, "/v1/unknown"),
        ("GET /v2", 404, "/v2"),
        ("GET /v1/revisions", 501, "/v1/revisions: not supported yet"),
        ("GET /v1/revisions/1..3", 501, "/v1/revisions"),
        ("GET /v1/watch?fromRevision=1", 501, "/v1/watch"),
        ("GET /v1/backup", 501, "/v1/backup"),
        ("GET /v1/policies", 501, "Policy"),
        ("GET /openapi.json", 501, "openapi"),
        ("GET /", 501, "console"),
    ] {
        let answer = api.send(call, &[], "").await;
        assert_eq!(answer.status, status, "{call}: {}", answer.text);
        assert!(answer.text.contains(part), "{call}: {}", answer.text);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{call}");
        assert_eq!(answer.header("raftgate-revision"), Some("0"), "{call}");
        assert!(answer.body.get("outcome").is_none(), "{call}");
    }
}

#[tokio::test]
async fn a_failed_write_says_whether_it_may_have_happened() {
    let api = Api::open();
    api.fail(Fault::NoLeader);
    for call in ["PUT /v1/services/a", "PUT /v1/services/a?dryRun=true"] {
        let answer = api.send(call, &[], service(1).to_string()).await;
        assert_eq!((answer.status, &answer.body["outcome"]), (503, &json!("notApplied")), "{call}");
        assert!(answer.header("retry-after").is_some() && answer.text.contains("no leader"), "{answer:?}");
    }
    let read = api.get("/v1/services").await;
    assert_eq!((read.status, read.body.get("outcome")), (503, None));
    assert_eq!(api.get("/v1/services?consistency=local").await.status, 200);
    api.fail(Fault::AnswerLost);
    let lost = api.put("/v1/services/a", &service(1)).await;
    assert_eq!((lost.status, &lost.body["outcome"], lost.header("retry-after")), (504, &json!("unknown"), None));
    assert_eq!(api.revision(), 1);
}

#[tokio::test]
async fn a_retried_write_is_applied_once() {
    let api = Api::open();
    let key = [("idempotency-key", "k1")];
    let put = |body: Value| api.send("PUT /v1/services/a", &key, body.to_string());
    assert_eq!(put(service(1)).await.status, 201);
    assert_eq!(api.put("/v1/services/a", &service(2)).await.status, 200);
    let retried = put(service(1)).await;
    assert_eq!((retried.status, retried.body["revision"].as_u64()), (201, Some(1)));
    assert_eq!(api.get("/v1/services/a").await.body["spec"], service(2));
    let reused = put(service(3)).await;
    assert_eq!((reused.status, &reused.body["outcome"]), (422, &json!("notApplied")));
    assert!(reused.text.contains("Idempotency-Key"), "{reused:?}");
    assert_eq!(api.revision(), 2);
}

#[tokio::test]
async fn a_dry_run_tells_the_difference_and_makes_none() {
    let api = Api::open();
    api.put("/v1/services/a", &service(1)).await;
    let tried = api.put("/v1/services/a?dryRun=true", &service(2)).await;
    assert_eq!((tried.status, tried.body["revision"].as_u64(), &tried.body["changed"]), (200, Some(1), &json!(true)));
    let change = json!({"kind": "Service", "name": "a", "change": "updated", "before": service(1), "after": service(2)});
    assert_eq!((&tried.body["changes"], &tried.body["dryRun"]), (&json!([change]), &json!(true)));
    let made = api.put("/v1/services/b?dryRun=true", &service(2)).await;
    assert_eq!((made.status, &made.body["changes"][0]["change"]), (200, &json!("created")));
    let refused = api.send("PUT /v1/services/a?dryRun=true", &[("if-match", "\"9\"")], service(2).to_string()).await;
    assert_eq!(refused.status, 412);
    assert_eq!(api.revision(), 1);
}

#[tokio::test]
async fn waiting_for_live_lists_every_member() {
    let api = Api::open();
    let all = api.put("/v1/services/a?wait=live", &service(1)).await;
    assert_eq!((all.status, &all.body["live"]), (201, &json!(true)));
    api.fail(Fault::OneNotLive);
    let some = api.put("/v1/services/a?wait=live", &service(2)).await;
    assert_eq!((some.status, &some.body["live"]), (200, &json!(false)));
    assert_eq!(some.body["members"][1], json!({"id": 2, "revision": 0, "live": false, "reason": "no answer for 1s"}));
}

#[tokio::test]
async fn a_minimal_revision_is_waited_for() {
    let api = Api::open();
    let headers = [("raftgate-min-revision", "1"), ("raftgate-cluster", "c1")];
    let waiting = api.send("GET /v1/table", &headers, "");
    let spec = service(1);
    let (table, _) = tokio::join!(waiting, api.put("/v1/services/a", &spec));
    assert_eq!((table.status, table.header("raftgate-revision")), (200, Some("1")));
    let other = api.send("GET /v1/table", &[("raftgate-min-revision", "1"), ("raftgate-cluster", "c2")], "").await;
    assert_eq!(other.status, 409);
}

#[tokio::test]
async fn a_route_to_a_listener_of_other_nodes_is_kept_and_reported() {
    let api = Api::open();
    let mut spec = route("/", "none");
    for (listeners, reported) in [(json!(["nolist"]), 1), (json!(["public"]), 0), (json!(["public", "nolist"]), 1)] {
        spec["listeners"] = listeners;
        let written = api.put("/v1/routes/bound", &spec).await;
        let is_warned =
            |answer: &Value| answer["warnings"].to_string().contains("/listeners: listener \\\"nolist\\\" does not exist");
        assert_eq!(is_warned(&written.body), reported == 1, "{written:?}");
        let operations = json!({"operations": [put_operation("Route", "bound", &spec)]});
        let items = json!({"items": [{"kind": "Route", "name": "bound", "spec": spec}]});
        for (call, body) in [("POST /v1/transactions", operations), ("PUT /v1/config", items)] {
            let answer = api.send(call, &[], body.to_string()).await;
            assert_eq!((answer.status, is_warned(&answer.body)), (200, reported == 1), "{call}: {answer:?}");
        }
        let revision = written.body["revision"].to_string();
        let table = api.send("GET /v1/table", &[("raftgate-min-revision", revision.as_str())], "").await.body;
        assert_eq!(table["notCompiledCount"], reported, "{table}");
        assert_eq!(table["notCompiled"].to_string().contains("listener \\\"nolist\\\" does not exist"), reported == 1, "{table}");
    }
}

#[tokio::test]
async fn the_configuration_goes_round_in_both_languages() {
    let api = Api::open();
    for n in 0..200 {
        api.cluster.intrude(n);
    }
    api.put("/v1/routes/shop", &route("/", "intruder-1")).await;
    let digest = api.cluster.state().digest();
    for language in ["application/json", "application/yaml"] {
        let whole = api.send("GET /v1/config", &[("accept", language)], "").await;
        assert_eq!((whole.status, whole.header("content-type"), whole.header("etag")), (200, Some(language), Some("\"201\"")));
        let same = api.send("PUT /v1/config?prune=true", &[("content-type", language)], whole.text).await;
        assert_eq!((same.status, &same.body["changed"]), (200, &json!(false)), "{same:?}");
    }
    assert_eq!(api.cluster.state().digest(), digest);
    let documents = format!(
        "kind: Service\nname: intruder-1\nspec: {}\n---\nkind: Service\nname: new\nspec: {}\n---\n",
        json!({"endpoints": []}),
        service(1)
    );
    let yaml = [("content-type", "application/yaml")];
    let added = api.send("PUT /v1/config", &yaml, documents.clone()).await;
    assert_eq!((added.status, added.body["results"].as_array().map(Vec::len)), (200, Some(1)), "{added:?}");
    let pruned = api.send("PUT /v1/config?prune=true", &yaml, documents).await;
    assert_eq!((pruned.status, pruned.body["revision"].as_u64()), (200, Some(203)), "{pruned:?}");
    assert_eq!(api.cluster.state().len(), 2);
    let empty = api.send("PUT /v1/config?prune=true", &[], "{\"items\":[]}").await;
    assert_eq!((empty.status, api.cluster.state().len()), (200, 0));
    assert_eq!(api.get("/v1/config").await.body, json!({"items": []}));
    let yaml = api.send("GET /v1/config", &[("accept", "application/yaml")], "").await;
    assert_eq!(yaml.text, "items: []\n");
}

#[tokio::test]
async fn the_configuration_is_computed_again_when_others_write() {
    let api = Api::open();
    api.cluster.intruders.store(2, Ordering::SeqCst);
    let document = json!({"items": [{"kind": "Service", "name": "a", "spec": service(1)}]}).to_string();
    let key = [("idempotency-key", "k")];
    let made = api.send("PUT /v1/config?prune=true", &key, document.clone()).await;
    assert_eq!((made.status, made.body["revision"].as_u64()), (200, Some(3)), "{made:?}");
    assert_eq!(api.cluster.state().len(), 1);
    api.cluster.intrude(7);
    let retried = api.send("PUT /v1/config?prune=true", &key, document).await;
    assert_eq!((retried.status, retried.body["revision"].as_u64()), (200, Some(3)), "{retried:?}");
    assert_eq!(api.cluster.state().len(), 2);
}

#[tokio::test]
async fn a_request_is_explained_by_the_live_table() {
    let api = Api::open();
    api.put("/v1/services/a", &service(1)).await;
    api.put("/v1/routes/shop", &route("/shop", "a")).await;
    let ask = |url: &str| api.send("POST /v1/explain", &[], json!({"method": "GET", "url": url}).to_string());
    let found = ask("http://any.example/shop/cart?x=1").await;
    assert_eq!((found.status, &found.body["outcome"]["route"]), (200, &json!("shop")), "{found:?}");
    assert_eq!(found.body["backends"][0]["endpoints"][0]["address"], "127.0.0.1:1");
    assert_eq!(found.header("raftgate-revision"), Some("2"));
    let missed = ask("/other").await;
    assert_eq!((missed.status, &missed.body["outcome"]), (200, &Value::Null));
    assert_eq!(missed.body["refused"], Value::Null);
    for (method, status) in [("FOO", 501), ("get", 501), ("CONNECT", 405)] {
        let question = json!({"method": method, "url": "/shop"});
        let refused = api.send("POST /v1/explain", &[], question.to_string()).await;
        assert_eq!((refused.status, &refused.body["refused"]["status"]), (200, &json!(status)), "{refused:?}");
        let told = [&refused.body["outcome"], &refused.body["candidates"], &refused.body["backends"]];
        assert_eq!(told, [&Value::Null, &json!([]), &json!([])], "{refused:?}");
    }
    // As it was before the route was there; as it will be cannot be told.
    api.put("/v1/routes/shop", &route("/store", "a")).await;
    let at = |revision: u64| {
        let question = json!({"url": "/shop/cart", "revision": revision});
        api.send("POST /v1/explain", &[], question.to_string())
    };
    for (revision, expected) in [(1, Value::Null), (2, json!("shop")), (3, Value::Null)] {
        let past = at(revision).await;
        let route = past.body["outcome"].get("route").cloned().unwrap_or_default();
        assert_eq!((past.status, &past.body["revision"], &route), (200, &json!(revision), &expected), "{past:?}");
        assert_eq!(past.header("raftgate-revision"), Some(revision.to_string().as_str()));
    }
    assert_eq!(at(4).await.status, 404);
    let bad = api.send("POST /v1/explain", &[], "{\"uri\":\"/\"}").await;
    assert_eq!((bad.status, bad.body.get("outcome")), (422, None));
}

#[tokio::test]
async fn health_tells_proxy_and_control_plane_apart() {
    let api = Api::open();
    for path in ["/livez", "/readyz", "/readyz/control"] {
        assert_eq!(api.get(path).await.status, 200, "{path}");
    }
    api.fail(Fault::NoLeader);
    let ready = api.get("/readyz").await;
    assert_eq!((ready.status, &ready.body["warnings"]), (200, &json!(["no leader", "no quorum"])));
    let control = api.get("/readyz/control").await;
    assert_eq!((control.status, &control.body["reasons"]), (503, &json!(["no leader", "no quorum"])));
    for phase in [Phase::Starting, Phase::Draining] {
        api.phase.send_replace(phase);
        let ready = api.get("/readyz").await;
        assert_eq!((ready.status, &ready.body["ready"]), (503, &json!(false)), "{phase:?}");
    }
    let metrics = api.get("/metrics").await;
    assert!(metrics.text.contains("raftgate_table_revision"));
}

#[tokio::test]
async fn a_token_is_asked_for_except_for_health() {
    let api = Api::new(Callers::new([("ci".to_owned(), "s3cret".to_owned())], false));
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/readyz/control", 200), ("/metrics", 401), ("/v1/table", 401)] {
        assert_eq!(api.get(path).await.status, status, "{path}");
    }
    let refused = api.put("/v1/services/a", &service(1)).await;
    assert_eq!((refused.status, &refused.body["outcome"]), (401, &json!("notApplied")));
    assert!(refused.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
    let headers = [("authorization", "Bearer s3cret")];
    assert_eq!(api.send("PUT /v1/services/a", &headers, service(1).to_string()).await.status, 201);
    let state = api.cluster.state();
    assert_eq!(state.history_at(Revision(1)).map(|entry| entry.actor.as_str()), Some("ci"));
}

#[tokio::test]
async fn connections_are_served_and_drained() {
    let api = Api::open();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(serve(listener, None, api.router.clone(), async move { drop(stopped.await) }));
    let client = reqwest::Client::builder().tls_backend_preconfigured(client_config(&ClientFiles::default()).expect("no files"));
    let client = client.build().expect("a client");
    let large = vec![b' '; BODY_BYTES_MAX * 2];
    let refused = client.put(format!("{url}/services/a")).body(large).send().await.expect("an answer to a body over the limit");
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let waiting = client.get(format!("{url}/table")).header("raftgate-min-revision", "1").send();
    let waiting = tokio::spawn(waiting);
    assert_eq!(client.get(format!("{url}/table")).send().await.expect("an answer").status(), StatusCode::OK);
    let made = client.put(format!("{url}/services/a")).body(service(1).to_string()).send().await.expect("an answer");
    assert_eq!(made.status(), StatusCode::CREATED);
    let waited = waiting.await.expect("a task").expect("an answer");
    assert_eq!(waited.status(), StatusCode::OK);
    stop.send(()).expect("serving");
    tokio::time::timeout(Duration::from_secs(5), serving).await.expect("drained in time").expect("no panic");
    assert!(client.get(format!("{url}/table")).send().await.is_err());
}
