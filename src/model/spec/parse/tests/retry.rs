//! The retry stanza.

use super::*;

fn with_retry(retry: Value) -> Value {
    with_rule(json!({"retry": retry}))
}

fn retry_of(retry: Value) -> Retry {
    good_route(&with_retry(retry)).spec.rules.remove(0).retry.map(|retry| *retry).expect("a stanza")
}

#[test]
fn a_stanza_is_read_with_its_defaults() {
    let code = |code| StatusCode::from_u16(code).unwrap();
    let full = json!({"codes": [500, 502, 503, 504, 429], "attempts": 3, "backoff": "50ms"});
    let codes = vec![code(500), code(502), code(503), code(504), code(429)];
    assert_eq!(retry_of(full), Retry { codes, attempts: 3, backoff: Duration::from_millis(50) });
    let empty = Retry { codes: Vec::new(), attempts: 1, backoff: Duration::from_millis(25) };
    assert_eq!(retry_of(json!({})), empty);
    assert_eq!(retry_of(json!({"backoff": "0s"})).backoff, Duration::ZERO);
    assert_eq!(retry_of(json!({"backoff": "1m", "attempts": 100})).attempts, 100);
    assert_eq!(good_route(&with_rule(json!({}))).spec.rules[0].retry, None);
}

#[test]
fn faults_of_a_stanza_are_named() {
    let table = [
        (json!([]), "", "expected an object"),
        (json!({"code": []}), "/code", "did you mean \"codes\"?"),
        (json!({"codes": 503}), "/codes", "expected an array"),
        (json!({"codes": [200]}), "/codes/0", "from 400 to 599, found 200"),
        (json!({"codes": [503, 600]}), "/codes/1", "from 400 to 599, found 600"),
        (json!({"codes": ["503"]}), "/codes/0", "expected an integer"),
        (json!({"attempts": 0}), "/attempts", "from 1 to 100, found 0"),
        (json!({"attempts": 101}), "/attempts", "from 1 to 100"),
        (json!({"attempts": 1.5}), "/attempts", "found 1.5"),
        (json!({"backoff": 50}), "/backoff", "expected a string"),
        (json!({"backoff": "50us"}), "/backoff", "duration"),
        (json!({"backoff": "61s"}), "/backoff", "from 0s to 1m, found 1m1s"),
    ];
    for (retry, path, part) in table {
        assert_bad_route(&with_retry(retry), &[(&format!("/rules/0/retry{path}"), part)]);
    }
}
