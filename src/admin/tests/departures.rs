//! Warnings about what refers to a resource that goes.

use serde_json::{Value, json};

use super::api::{Api, put_operation, route, service};
use super::certificates::{Made, raise};

fn delete(kind: &str, name: &str) -> Value {
    json!({"op": "delete", "kind": kind, "name": name})
}

async fn told(api: &Api, call: &str, body: impl ToString) -> Vec<String> {
    let answer = api.send(call, &[], body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let warnings = answer.body["warnings"].as_array().cloned().unwrap_or_default();
    warnings.iter().map(|warning| warning.as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn who_refers_to_a_service_that_goes_is_a_warning() {
    let api = Api::open();
    raise(&api, 1);
    for name in ["a", "b", "idle"] {
        api.put(&format!("/v1/services/{name}"), &service(1)).await;
    }
    assert_eq!(told(&api, "DELETE /v1/services/idle?dryRun=true", "").await, Vec::<String>::new());
    let mut mirroring = route("/m", "b");
    mirroring["rules"][0]["filters"] = json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "a"}}}]);
    api.put("/v1/routes/mirroring", &mirroring).await;
    let end = "of it is answered with 500, to gRPC with UNAVAILABLE, and nothing is mirrored to it, until it exists again";
    let one = format!("Service \"a\": Route \"mirroring\" refers to it; their share {end}");
    assert_eq!(told(&api, "DELETE /v1/services/a?dryRun=true", "").await, [one]);
    let calls = json!({"hostnames": ["g.com"], "rules": [{"backendRefs": [{"name": "a"}, {"name": "a"}]}]});
    api.put("/v1/grpcroutes/calls", &calls).await;
    for name in ["x", "y", "z"] {
        api.put(&format!("/v1/routes/{name}"), &route(&format!("/{name}"), "a")).await;
    }
    let many = format!("Service \"a\": Route \"mirroring\", Route \"x\", Route \"y\" and 2 more refer to it; their share {end}");
    assert_eq!(told(&api, "DELETE /v1/services/a?dryRun=true", "").await, [many.as_str()]);
    // What is changed in the same write is told of as it becomes.
    let operations = [
        delete("Service", "a"),
        delete("Service", "idle"),
        delete("Route", "x"),
        put_operation("Route", "y", &route("/y", "b")),
        put_operation("Route", "z", &route("/z", "a")),
    ];
    let warnings = told(&api, "POST /v1/transactions?dryRun=true", json!({"operations": operations})).await;
    let rest = format!("Service \"a\": Route \"mirroring\" and GRPCRoute \"calls\" refer to it; their share {end}");
    assert!(warnings.len() == 2 && warnings[0] == rest, "{warnings:?}");
    assert!(warnings[1].starts_with("Route \"z\": /operations/4/spec/rules/0/backendRefs/0: service \"a\" does not exist"));
    let kept = json!({"items": [{"kind": "Route", "name": "x", "spec": route("/x", "a")}]});
    let pruned = told(&api, "PUT /v1/config?prune=true&dryRun=true", kept).await;
    assert!(pruned.len() == 1 && pruned[0].contains("service \"a\" does not exist"), "{pruned:?}");
    assert_eq!(told(&api, "DELETE /v1/services/a", "").await, [many]);
}

#[tokio::test]
async fn who_shows_a_certificate_that_goes_is_a_warning() {
    let api = Api::with_keys(&[1]);
    raise(&api, 2);
    api.put("/v1/certificates/c", &Made::new(&["a.com"]).spec()).await;
    let spec = json!({"endpoints": [], "protocol": "https", "tls": {"clientCertificate": "c"}});
    api.put("/v1/services/s", &spec).await;
    let expected = "Certificate \"c\": Service \"s\" refers to it; their requests are answered with 500 until it exists again";
    assert_eq!(told(&api, "DELETE /v1/certificates/c?dryRun=true", "").await, [expected]);
    assert_eq!(told(&api, "DELETE /v1/services/s", "").await, Vec::<String>::new());
    assert_eq!(told(&api, "DELETE /v1/certificates/c", "").await, Vec::<String>::new());
}
