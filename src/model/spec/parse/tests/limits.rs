//! Bounds of a rule.

use super::*;

fn with_limits(limits: Value) -> Value {
    with_rule(json!({"limits": limits}))
}

#[test]
fn a_body_has_a_size_in_bytes_or_with_a_unit() {
    for (limits, expected) in [
        (json!({}), None),
        (json!({"maxRequestBody": 0}), Some(0)),
        (json!({"maxRequestBody": 1000}), Some(1000)),
        (json!({"maxRequestBody": "10MiB"}), Some(10 << 20)),
    ] {
        assert_eq!(good_route(&with_limits(limits)).spec.rules[0].limits.max_request_body, expected);
    }
    assert_eq!(good_route(&with_rule(json!({}))).spec.rules[0].limits, RuleLimits::default());
}

#[test]
fn faults_of_bounds_are_named() {
    for (limits, path, part) in [
        (json!([]), "", "expected an object"),
        (json!({"maxRequestBodies": 1}), "/maxRequestBodies", "did you mean \"maxRequestBody\"?"),
        (json!({"maxRequestBody": true}), "/maxRequestBody", "expected a size"),
        (json!({"maxRequestBody": -1}), "/maxRequestBody", "found -1"),
        (json!({"maxRequestBody": 1.5}), "/maxRequestBody", "found 1.5"),
        (json!({"maxRequestBody": "10MB"}), "/maxRequestBody", "found \"10MB\""),
    ] {
        assert_bad_route(&with_limits(limits), &[(&format!("/rules/0/limits{path}"), part)]);
    }
}
