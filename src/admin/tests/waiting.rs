//! Warnings about routes that will wait for others, or that no listener sends requests to.

use serde_json::{Value, json};

use super::api::{Api, put_operation, route};

fn calls(hostname: &str) -> Value {
    json!({"hostnames": [hostname], "rules": [{"matches": [{"method": {"service": "a.B"}}]}]})
}

fn web(hostname: &str) -> Value {
    let mut web = route("/", "s");
    web["hostnames"] = json!([hostname]);
    web
}

/// The warnings that tell of waiting.
fn told(answer: &Value) -> Vec<&str> {
    let warnings = answer["warnings"].as_array().unwrap_or_else(|| panic!("no warnings: {answer}"));
    warnings.iter().filter_map(Value::as_str).filter(|warning| warning.contains("does not serve")).collect()
}

const GRPC_WAITS: &str = "GRPCRoute \"calls\": is kept and does not serve: Route \"web\" is older, or first by name, and has hostname \
                          \"x.a.com\" on a listener that both share: a Route and a GRPCRoute cannot both serve there";

#[tokio::test]
async fn a_route_that_will_wait_is_a_warning() {
    let api = Api::open();
    assert_eq!(told(&api.put("/v1/routes/web", &web("x.a.com")).await.body), Vec::<&str>::new());
    // Whichever call writes it, also one that only asks; and again as long as it waits.
    let operations = json!({"operations": [put_operation("GRPCRoute", "calls", &calls("*.a.com"))]}).to_string();
    let items = json!({"items": [{"kind": "GRPCRoute", "name": "calls", "spec": calls("*.a.com")}]}).to_string();
    for (call, body) in [
        ("PUT /v1/grpcroutes/calls", calls("*.a.com").to_string()),
        ("POST /v1/transactions", operations),
        ("PUT /v1/config?dryRun=true", items.clone()),
        ("PUT /v1/config", items.clone()),
    ] {
        let written = api.send(call, &[], body).await;
        assert_eq!(told(&written.body), [GRPC_WAITS], "{call}: {written:?}");
    }
    let table = api.get("/v1/table").await.body;
    assert!(table["notCompiled"].to_string().contains("is older, or first by name"), "{table}");
    // With the other gone, in the same write even, nothing stands in its way.
    let pruned = api.send("PUT /v1/config?prune=true&dryRun=true", &[], items).await;
    assert_eq!((pruned.status, told(&pruned.body)), (200, Vec::new()), "{pruned:?}");
    let moved = api.put("/v1/grpcroutes/calls", &calls("b.com")).await;
    assert_eq!((moved.status, told(&moved.body)), (200, Vec::new()), "{moved:?}");
}

#[tokio::test]
async fn a_route_that_waits_on_one_listener_serves_on_the_others() {
    let api = Api::open();
    let mut first = web("a.com");
    first["listeners"] = json!(["default"]);
    api.put("/v1/routes/web", &first).await;
    let mut second = calls("a.com");
    second["listeners"] = json!(["default", "internal"]);
    let written = api.put("/v1/grpcroutes/calls", &second).await;
    let end = "has hostname \"a.com\" on listener \"default\": a Route and a GRPCRoute cannot both serve there; it serves on its other listeners";
    assert!(matches!(told(&written.body)[..], [told] if told.ends_with(end)), "{written:?}");
    let table = api.get("/v1/table").await.body;
    assert_eq!(table["routes"], 2, "{table}");
    assert!(table["notCompiled"].to_string().contains("it serves on its other listeners"), "{table}");
}

#[tokio::test]
async fn a_route_that_is_displaced_is_a_warning() {
    let api = Api::open();
    api.put("/v1/routes/web", &web("y.com")).await;
    api.put("/v1/grpcroutes/calls", &calls("*.a.com")).await;
    // The Route is the older: with the hostname of the other it takes its place.
    let written = api.put("/v1/routes/web", &web("x.a.com")).await;
    assert_eq!((written.status, told(&written.body)), (200, vec![GRPC_WAITS]), "{written:?}");
}

#[tokio::test]
async fn a_route_that_no_listener_reaches_is_a_warning() {
    let api = Api::open();
    let warning =
        "Route \"web\": gets no request on this node: no hostname of it intersects with that of a listener which it is bound to";
    for (listeners, hostname, is_unreached) in [
        (json!(["inner"]), "a.example", true),
        (json!(["inner"]), "inner.example", true),
        (json!(["inner"]), "a.inner.example", false),
        (json!(["inner"]), "*.example", false),
        (json!(["inner", "public"]), "a.example", false),
        // On this node; where its listener is, another may say so.
        (json!(["elsewhere"]), "a.example", false),
        (json!([]), "a.example", false),
    ] {
        let mut spec = web(hostname);
        spec["listeners"] = listeners;
        let written = api.put("/v1/routes/web", &spec).await;
        let warnings = written.body["warnings"].as_array().expect("warnings");
        assert_eq!(warnings.contains(&json!(warning)), is_unreached, "{spec}: {written:?}");
    }
    let mut every = route("/", "s");
    every["listeners"] = json!(["inner"]);
    let written = api.put("/v1/routes/web", &every).await;
    assert!(!written.text.contains("gets no request"), "{written:?}");
}

/// More routes than one transaction has.
#[tokio::test]
async fn a_large_configuration_is_told_of_as_a_small_one() {
    const MANY: usize = 12_000;
    let api = Api::open();
    let mut every = calls("a.com");
    every.as_object_mut().expect("an object").remove("hostnames");
    api.put("/v1/grpcroutes/calls", &every).await;
    let items = |hostname: &str, listeners: Value| {
        let mut spec = web(hostname);
        spec["listeners"] = listeners;
        let item = |index: usize| json!({"kind": "Route", "name": format!("r{index:05}"), "spec": spec});
        json!({"items": (0..MANY).map(item).chain([json!({"kind": "Service", "name": "s", "spec": {}})]).collect::<Vec<_>>()})
            .to_string()
    };
    let lines = |answer: &Value| {
        let warnings = answer["warnings"].as_array().cloned().unwrap_or_else(|| panic!("no warnings: {answer}"));
        warnings.iter().map(|warning| warning.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let waiting = items("x.a.com", json!([]));
    let dry = api.send("PUT /v1/config?dryRun=true", &[], waiting.clone()).await;
    assert_eq!(lines(&dry.body), ["which routes wait for others is told of so many only once they are live"]);
    // The second time nothing is changed; it is told as long as it is so.
    for _ in 0..2 {
        let written = api.send("PUT /v1/config", &[], waiting.clone()).await;
        assert_eq!(written.status, 200, "{written:?}");
        let lines = lines(&written.body);
        let first =
            "Route \"r00000\": is kept and does not serve: GRPCRoute \"calls\" is older, or first by name, and has hostname";
        assert!(lines.len() == 101 && lines[0].starts_with(first), "{lines:?}");
        assert_eq!(lines[100], "and 11900 more warnings");
    }
    let unreached = api.send("PUT /v1/config?prune=true", &[], items("a.example", json!(["inner"]))).await;
    let lines = lines(&unreached.body);
    assert!(lines.len() == 101 && lines[0].starts_with("Route \"r00000\": gets no request on this node"), "{lines:?}");
    assert_eq!(lines[100], "and 11900 more warnings");
    assert_eq!(api.get("/v1/table").await.body["notCompiledCount"], 0);
}
