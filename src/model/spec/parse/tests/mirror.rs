//! The `RequestMirror` filter.

use super::*;

fn filter(mirror: Value) -> Value {
    json!({"type": "RequestMirror", "requestMirror": mirror})
}

#[test]
fn mirrors_are_read_and_may_repeat() {
    let to = |name: &str| json!({"name": name});
    let filters = json!([
        filter(json!({"backendRef": to("a")})),
        filter(json!({"backendRef": to("b"), "percent": 5})),
        filter(json!({"backendRef": to("a"), "fraction": {"numerator": 1, "denominator": 1000}})),
        filter(json!({"backendRef": to("c"), "fraction": {"numerator": 0}})),
    ]);
    let spec = good_route(&with_rule(json!({"filters": filters}))).spec;
    let read: Vec<_> = spec.rules[0]
        .filters
        .iter()
        .map(|filter| match filter {
            Filter::RequestMirror(mirror) => (mirror.service.as_str(), mirror.share.numerator, mirror.share.denominator),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(read, [("a", 1, 1), ("b", 5, 100), ("a", 1, 1000), ("c", 0, 100)]);
    let references: Vec<_> = spec.references().map(|found| (found.pointer, found.service.as_str(), found.is_mirror)).collect();
    assert_eq!(references.len(), 5);
    assert_eq!(references[0], ("/rules/0/backendRefs/0".into(), "a", false));
    assert_eq!(references[2], ("/rules/0/filters/1/requestMirror/backendRef".into(), "b", true));
}

#[test]
fn faults_of_mirrors_are_named() {
    let with = |name: &str, value: Value| json!({"backendRef": {"name": "a"}, name: value});
    let table = [
        (json!([]), "", "expected an object"),
        (json!({}), "/backendRef", "is required"),
        (json!({"backendRef": {}}), "/backendRef/name", "is required"),
        (json!({"backendRef": {"name": "A"}}), "/backendRef/name", "a-z 0-9"),
        (json!({"backendRef": {"name": "a", "weight": 1}}), "/backendRef/weight", "unknown field"),
        (with("percent", json!(101)), "/percent", "from 0 to 100, found 101"),
        (with("percent", json!(0.5)), "/percent", "found 0.5"),
        (with("percent", json!("5")), "/percent", "expected an integer"),
        (with("fraction", json!({})), "/fraction/numerator", "is required"),
        (with("fraction", json!({"numerator": 1, "denominator": 0})), "/fraction/denominator", "from 1 to"),
        (with("fraction", json!({"numerator": -1})), "/fraction/numerator", "found -1"),
        (with("fraction", json!({"numerator": 101})), "/fraction", "over the denominator, which is 100"),
        (with("fraction", json!({"numerator": 3, "denominator": 2})), "/fraction", "which is 2"),
        (json!({"backendRef": {"name": "a"}, "percent": 1, "fraction": {"numerator": 1}}), "/percent", "exclude each other"),
    ];
    for (mirror, path, part) in table {
        let path = format!("/rules/0/filters/0/requestMirror{path}");
        assert_bad_route(&with_filter(filter(mirror)), &[(&path, part)]);
    }
    let mirror = filter(json!({"backendRef": {"name": "a"}}));
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"hostname": "a.example"}});
    for filters in [json!([mirror, redirect]), json!([redirect, mirror])] {
        assert_bad_route(&json!({"rules": [{"filters": filters}]}), &[("/rules/0/filters/1", "goes to no RequestMirror")]);
    }
    let on_backend = json!({"rules": [{"backendRefs": [{"name": "a", "filters": [mirror]}]}]});
    assert_bad_route(&on_backend, &[("/rules/0/backendRefs/0/filters/0", "move it to the filters of the rule")]);
}
