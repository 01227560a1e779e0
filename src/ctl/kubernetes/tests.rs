//! Documents of Kubernetes: what they become, what is told, and what is refused.

use super::*;
use crate::ctl::documents::Kept;
use crate::model::spec::{parse_grpc_route, parse_route};

fn read(text: &str) -> Result<(Vec<Value>, Vec<String>), String> {
    let kept = Kept::of_text("f.yaml", text).map_err(|error| error.to_string())?;
    Ok((kept.values(), kept.files.warnings().collect()))
}

/// The spec of `rules`, with the rest of a document around it.
fn spec(rules: &str) -> Result<Value, String> {
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec: {{rules: {rules}}}"
    );
    read(&text).map(|(operations, _)| operations[0]["spec"].clone())
}

/// As `kubectl get httproute -o yaml` prints one, defaults and status included.
const PRINTED: &str = "\
apiVersion: v1
kind: List
metadata: {resourceVersion: \"\"}
items:
- apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata:
    annotations: {a: b}
    creationTimestamp: \"2026-01-01T00:00:00Z\"
    generation: 3
    name: orders
    namespace: shop
    resourceVersion: \"77\"
    uid: 0-1
  spec:
    hostnames: [shop.example.com]
    parentRefs:
    - {group: gateway.networking.k8s.io, kind: Gateway, name: edge, namespace: infra, sectionName: public}
    - {group: gateway.networking.k8s.io, kind: Gateway, name: edge2, sectionName: public}
    - {name: edge, sectionName: internal, port: 8443}
    rules:
    - matches: [{path: {type: PathPrefix, value: /orders}}]
      filters:
      - type: ResponseHeaderModifier
        responseHeaderModifier: {add: [{name: x, value: y}]}
        urlRewrite: null
      backendRefs:
      - {group: \"\", kind: Service, name: orders, port: 8080, weight: 9}
      - {group: \"\", kind: Service, name: orders, namespace: default, port: 80, weight: 1}
      - {name: old.orders, namespace: shop, port: 8080, weight: 0}
  status: {parents: []}
- apiVersion: gateway.networking.k8s.io/v1beta1
  kind: HTTPRoute
  metadata: {name: old.orders, labels: {x: y}, annotations: {z: z}, creationTimestamp: null}
  spec:
    parentRefs: [{name: edge, sectionName: public}, {name: edge2}]
";

#[test]
fn a_printed_list_becomes_routes() {
    let (operations, _) = read(PRINTED).unwrap();
    let first = json!({
        "hostnames": ["shop.example.com"],
        "listeners": ["public", "internal"],
        "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/orders"}}],
            "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "x", "value": "y"}]}}],
            "backendRefs": [
                {"name": "shop_orders", "weight": 9}, {"name": "orders", "weight": 1}, {"name": "shop_old.orders", "weight": 0}],
        }],
    });
    let put = |name: &str, spec: &Value| json!({"kind": "Route", "name": name, "spec": spec});
    assert_eq!(operations, [put("shop_orders", &first), put("old.orders", &json!({"rules": [{}]}))]);
    for operation in &operations {
        // What comes out is a spec that a node takes.
        assert!(parse_route(&operation["spec"]).is_ok(), "{operation}");
    }
}

#[test]
fn what_has_no_meaning_is_told_once_with_its_place() {
    let (_, warnings) = read(PRINTED).unwrap();
    let expected = [
        "/metadata/annotations has no meaning here: is not kept (and in one more place)",
        "/metadata/creationTimestamp has no meaning here: of routes that match alike the one that was created here first answers, then the \
         first by name",
        "/metadata/generation has no meaning here: is not kept",
        "/metadata/resourceVersion has no meaning here: is not kept",
        "/metadata/uid has no meaning here: is not kept",
        "/status has no meaning here: is not kept",
        "/spec/parentRefs/0/name has no meaning here: listeners are known by sectionName alone (and in 4 more places)",
        "/spec/parentRefs/0/namespace has no meaning here: listeners are known by sectionName alone",
        "/spec/parentRefs/2/port has no meaning here: the listener that sectionName names has its own port",
        "/spec/rules/0/backendRefs/0/group has no meaning here: a backend is always a Service (and in one more place)",
        "/spec/rules/0/backendRefs/0/kind has no meaning here: a backend is always a Service (and in one more place)",
        "/spec/rules/0/backendRefs/0/port has no meaning here: the endpoints of a Service have their ports (and in 2 more places)",
        "/spec/rules/0/backendRefs/1/namespace: no ReferenceGrant is asked for here",
    ];
    let expected = expected.map(|text| format!("f.yaml: document 1, /items/0 (HTTPRoute shop/orders): {text}"));
    let (rest, first): (Vec<_>, Vec<_>) = warnings.into_iter().partition(|text| text.contains("default/old.orders"));
    assert_eq!(first, expected);
    assert_eq!(
        rest,
        ["f.yaml: document 1, /items/1 (HTTPRoute default/old.orders): /metadata/labels has no meaning here: is not kept"]
    );
    let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nspec: {rules: []}";
    let (_, warnings) = read(text).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].ends_with("/spec/parentRefs: there are none; the route serves on all listeners"), "{warnings:?}");
}

#[test]
fn a_grpc_route_stays_one() {
    let text = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: orders, namespace: shop}
spec:
  parentRefs: [{name: edge, sectionName: public}]
  hostnames: [grpc.example.com]
  rules:
  - matches: [{method: {type: Exact, service: shop.Orders}}]
    backendRefs: [{name: orders, port: 9000}]
";
    let (operations, warnings) = read(text).unwrap();
    let spec = json!({
        "hostnames": ["grpc.example.com"],
        "listeners": ["public"],
        "rules": [{
            "matches": [{"method": {"type": "Exact", "service": "shop.Orders"}}],
            "backendRefs": [{"name": "shop_orders"}],
        }],
    });
    assert_eq!(operations, [json!({"kind": "GRPCRoute", "name": "shop_orders", "spec": spec})]);
    assert!(parse_grpc_route(&spec).is_ok());
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.contains("(GRPCRoute shop/orders)")), "{warnings:?}");
}

#[test]
fn a_mirror_goes_to_a_service_as_backends_do() {
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: s, port: 1}, percent: 5}}";
    let spec = spec(&format!("[{{filters: [{mirror}], backendRefs: [{{name: b, filters: [{mirror}]}}]}}]")).unwrap();
    let expected = json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "shop_s"}, "percent": 5}});
    assert_eq!(spec["rules"][0]["filters"][0], expected);
    assert_eq!(spec["rules"][0]["backendRefs"][0], json!({"name": "shop_b", "filters": [expected]}));
}

#[test]
fn what_would_change_where_requests_go_is_refused() {
    let rules = [
        ("[{backendRefs: [{name: a, kind: ServiceImport}]}]", "/spec/rules/0/backendRefs/0/kind: \"ServiceImport\""),
        ("[{}, {backendRefs: [{name: a, group: net.gke.io}]}]", "/spec/rules/1/backendRefs/0/group: \"net.gke.io\""),
        ("[{backendRefs: [{port: 1}]}]", "/spec/rules/0/backendRefs/0/name is missing"),
        ("[{backendRefs: [{name: a_b}]}]", "/spec/rules/0/backendRefs/0: name \"a_b\": expected letters"),
        ("[{backendRefs: [{name: a, namespace: b.c}]}]", "/spec/rules/0/backendRefs/0: namespace \"b.c\": expected letters"),
        ("[{backendRefs: [{name: a, port: 1}, {name: a, port: 2}]}]", "/spec/rules/0/backendRefs/1/port: 2, and 1 at f.yaml"),
        (
            "[{filters: [{requestMirror: {backendRef: {name: a, kind: Pod}}}]}]",
            "/spec/rules/0/filters/0/requestMirror/backendRef/kind: \"Pod\"",
        ),
    ];
    for (rules, expected) in rules {
        let message = spec(rules).unwrap_err();
        assert!(message.starts_with(&format!("f.yaml: document 1: HTTPRoute shop/r: {expected}")), "{rules}\n  gave {message}");
    }
    let documents = [
        ("metadata: {name: r}\nspec: {parentRefs: [{name: g, port: 80}]}", "/spec/parentRefs/0/port: listeners are not chosen"),
        (
            "metadata: {name: r}\nspec: {parentRefs: [{name: s, kind: Service, group: \"\"}]}",
            "/spec/parentRefs/0: a parent of kind",
        ),
        ("metadata: {name: r}\nspec: {parentRefs: [{name: g, section: a}]}", "/spec/parentRefs/0/section: unknown field"),
        ("metadata: {name: r}\nspec: {parentRefs: [{sectionName: -a}]}", "/spec/parentRefs/0/sectionName: a name starts"),
        ("metadata: {name: r}\nspec: {parentRefs: {name: g}}", "/spec/parentRefs: expected an array"),
        ("metadata: {name: r}\nspec: {listeners: [a]}", "/spec/listeners: unknown field"),
        ("metadata: {name: r, nmespace: a}\nspec: {}", "/metadata/nmespace: unknown field"),
        ("metadata: {name: r}\nspec: {}\nspecs: {}", "/specs: unknown field"),
        ("metadata: {name: r}", "/spec is missing"),
        ("metadata: {generateName: r}", "/metadata/name is missing"),
        ("metadata: {name: [r]}", "/metadata/name: expected a string"),
    ];
    for (text, expected) in documents {
        let message = read(&format!("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n{text}")).unwrap_err();
        assert!(message.contains(expected), "{text}\n  gave {message}");
    }
    let group = "gateway.networking.k8s.io";
    let others = ["v1alpha2\nkind: HTTPRoute", "v1beta1\nkind: GRPCRoute", "v1\nkind: BackendTLSPolicy", "v1\nkind: TLSRoute"];
    let others = others.map(|kind| format!("{group}/{kind}")).into_iter();
    for kind in others.chain(["v1\nkind: List", "v1\nkind: HTTPRoute", "x.example/v1\nkind: UDPRoute"].map(str::to_owned)) {
        let message = read(&format!("apiVersion: {kind}\nmetadata: {{name: r}}\nspec: {{}}")).unwrap_err();
        assert!(message.contains("of Kubernetes, HTTPRoute of gateway.networking.k8s.io/v1"), "{kind}\n  gave {message}");
    }
}

#[test]
fn what_stands_beside_routes_is_left_out_and_told() {
    let document = |kind: &str, name: &str| format!("apiVersion: {kind}\nmetadata: {{name: {name}}}\nspec: {{}}\n---\n");
    let beside = [
        document("gateway.networking.k8s.io/v1\nkind: GatewayClass", "class"),
        document("gateway.networking.k8s.io/v1\nkind: Gateway", "edge"),
        document("v1\nkind: Service", "orders"),
        document("v1\nkind: Service", "users"),
        document("apps/v1\nkind: Deployment", "orders"),
    ];
    let route = document("gateway.networking.k8s.io/v1\nkind: HTTPRoute", "orders");
    let (operations, warnings) = read(&[&beside.concat(), &route].map(String::as_str).concat()).unwrap();
    assert_eq!((operations.len(), &operations[0]["name"]), (1, &json!("orders")));
    for expected in [
        "f.yaml: document 1: GatewayClass of Kubernetes has no meaning here",
        "document 2: Gateway of",
        "document 3: Service of Kubernetes has no meaning here and is left out: give its endpoints as a Service of this gateway (and in one more place)",
        "document 5: Deployment of",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(expected)), "{expected} in {warnings:#?}");
    }
    // By themselves they are nothing to apply, and nothing that --prune could be meant by.
    let lines = warnings[..4].iter().map(|warning| format!("\n  {warning}")).collect::<String>();
    assert_eq!(read(&beside.concat()).unwrap_err(), format!("f.yaml: no documents{lines}"));
}

#[test]
fn no_two_resources_of_kubernetes_get_one_name() {
    let cases = [
        ("default", "a.b", Some("a.b")),
        ("a", "b", Some("a_b")),
        ("a", "b.c", Some("a_b.c")),
        ("a-b", "c", Some("a-b_c")),
        ("default", "a_b", None),
        ("a.b", "c", None),
        ("", "c", None),
        ("a", "", None),
        ("default", "-a", None),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for (namespace, name, expected) in cases {
        let found = resource_name(namespace, name).ok();
        assert_eq!(found.as_deref(), expected, "{namespace}/{name}");
        assert!(found.is_none_or(|name| seen.insert(name)), "{namespace}/{name}");
    }
    let fault = resource_name("shop", &"a".repeat(250)).unwrap_err();
    assert!(fault.contains("at most 253 characters"), "{fault}");
}
