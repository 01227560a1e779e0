//! The `CORS` filter.

use super::*;

fn with_cors(cors: Value) -> Value {
    with_filter(json!({"type": "CORS", "cors": cors}))
}

fn cors_of(cors: Value) -> Cors {
    let rule = good_route(&with_cors(cors)).spec.rules.remove(0);
    let Some(Filter::Cors(cors)) = rule.filters.into_iter().next() else { panic!("no such filter") };
    *cors
}

fn names(text: &'static str) -> Listed {
    Listed::Names(http::HeaderValue::from_static(text))
}

#[test]
fn the_filter_is_read_with_its_defaults() {
    let cors = cors_of(json!({
        "allowOrigins": ["https://A.example", "http://*.b.example:8080", "https://*", "http://127.0.0.1:3000"],
        "allowCredentials": true, "allowMethods": ["GET", "PUT"], "allowHeaders": ["X-One", "x-two"],
        "exposeHeaders": ["*"], "maxAge": 600
    }));
    let pattern = |is_https, host, port| OriginPattern { is_https, host, port };
    let patterns = vec![
        pattern(true, OriginHost::Exact("a.example".into()), 443),
        pattern(false, OriginHost::Under(".b.example".into()), 8080),
        pattern(true, OriginHost::Any, 443),
        pattern(false, OriginHost::Exact("127.0.0.1".into()), 3000),
    ];
    let expected = Cors {
        allow_origins: Origins::Of(patterns),
        allow_credentials: true,
        allow_methods: names("GET, PUT"),
        allow_headers: names("x-one, x-two"),
        expose_headers: Listed::All,
        max_age: 600,
    };
    assert_eq!(cors, expected);
    let least = cors_of(json!({"allowOrigins": ["*"]}));
    assert_eq!((least.allow_origins, least.allow_credentials, least.max_age), (Origins::All, false, 5));
    assert_eq!(
        [least.allow_methods, least.allow_headers, least.expose_headers],
        [Listed::Nothing, Listed::Nothing, Listed::Nothing]
    );
    assert!(good_route(&with_cors(json!({}))).warnings[0].contains("no origin is allowed"));
}

#[test]
fn origins_are_compared_by_scheme_host_and_port() {
    let table = [
        ("https://a.example", "https://a.example", true),
        ("https://a.example", "https://a.example:443", true),
        ("https://a.example:443", "https://a.example", true),
        ("http://a.example:80", "http://a.example", true),
        ("https://a.example", "http://a.example", false),
        ("https://a.example", "https://a.example:8443", false),
        ("https://a.example", "https://b.a.example", false),
        ("https://a.example", "https://a.example.evil", false),
        ("https://*.a.example", "https://b.a.example", true),
        ("https://*.a.example", "https://c.b.a.example", true),
        ("https://*.a.example", "https://a.example", false),
        ("https://*.a.example", "https://.a.example", false),
        ("https://*.a.example", "https://evil-a.example", false),
        ("https://*.a.example", "http://b.a.example", false),
        ("https://*.a.example", "https://evil/.a.example", false),
        ("https://*.a.example", "https://evil@b.a.example", false),
        ("https://*.a.example:8443", "https://b.a.example:8443", true),
        ("https://*.a.example:8443", "https://b.a.example", false),
        ("https://*", "https://[::1]", true),
        ("https://*", "https://a.example:8443", false),
        ("http://*:3000", "http://localhost:3000", true),
        ("https://a.example", "null", false),
        ("https://a.example", "https://a.example:0443x", false),
        ("https://a.example", "https://a.example:+443", false),
        ("https://a.example", "", false),
        ("*", "null", true),
    ];
    for (pattern, origin, expected) in table {
        let origins = cors_of(json!({"allowOrigins": [pattern]})).allow_origins;
        let value = http::HeaderValue::from_str(origin).unwrap();
        assert_eq!(origins.contain(&value), expected, "{pattern} {origin}");
    }
}

#[test]
fn faults_of_the_filter_are_named() {
    let many: Vec<String> = (0..65).map(|n| format!("https://a{n}.example")).collect();
    let table = [
        (json!([]), "", "expected an object"),
        (json!({"allowOrigin": []}), "/allowOrigin", "did you mean \"allowOrigins\"?"),
        (json!({"allowOrigins": "*"}), "/allowOrigins", "expected an array"),
        (json!({"allowOrigins": ["*", "https://a.example"]}), "/allowOrigins/0", "stands alone"),
        (json!({"allowOrigins": ["a.example"]}), "/allowOrigins/0", "http:// or https://"),
        (json!({"allowOrigins": ["ftp://a.example"]}), "/allowOrigins/0", "http:// or https://"),
        (json!({"allowOrigins": ["https://a.example/"]}), "/allowOrigins/0", "no path"),
        (json!({"allowOrigins": ["https://a.example:0"]}), "/allowOrigins/0", "maybe a port"),
        (json!({"allowOrigins": ["https://a.example:http"]}), "/allowOrigins/0", "maybe a port"),
        (json!({"allowOrigins": ["https://"]}), "/allowOrigins/0", "a host"),
        (json!({"allowOrigins": ["https://*a.example"]}), "/allowOrigins/0", "whole first label"),
        (json!({"allowOrigins": ["https://a.*.example"]}), "/allowOrigins/0", "whole first label"),
        (json!({"allowOrigins": ["null"]}), "/allowOrigins/0", "http:// or https://"),
        (json!({"allowOrigins": ["https://a.example", "https://A.example:443"]}), "/allowOrigins/1", "occurs twice"),
        (json!({"allowOrigins": many}), "/allowOrigins", "at most 64 elements, found 65"),
        (json!({"allowCredentials": "true"}), "/allowCredentials", "expected a boolean"),
        (json!({"allowMethods": ["get"]}), "/allowMethods/0", "known are GET, HEAD"),
        (json!({"allowMethods": ["GET", "*"]}), "/allowMethods/1", "stands alone"),
        (json!({"allowMethods": ["GET", "GET"]}), "/allowMethods/1", "occurs twice"),
        (json!({"allowHeaders": ["a b"]}), "/allowHeaders/0", "RFC 9110"),
        (json!({"allowHeaders": ["x-a", "X-A"]}), "/allowHeaders/1", "occurs twice"),
        (json!({"exposeHeaders": [""]}), "/exposeHeaders/0", "must not be empty"),
        (json!({"maxAge": 0}), "/maxAge", "from 1 to 2147483647"),
        (json!({"maxAge": "5s"}), "/maxAge", "expected an integer"),
    ];
    for (cors, path, part) in table {
        assert_bad_route(&with_cors(cors), &[(&format!("/rules/0/filters/0/cors{path}"), part)]);
    }
    let cors = json!({"type": "CORS", "cors": {"allowOrigins": ["*"]}});
    let twice = with_rule(json!({"filters": [cors, cors]}));
    assert_bad_route(&twice, &[("/rules/0/filters/1", "once; /rules/0/filters/0 is the other")]);
    let on_backend = json!({"rules": [{"backendRefs": [{"name": "a", "filters": [cors]}]}]});
    assert_bad_route(&on_backend, &[("/rules/0/backendRefs/0/filters/0", "move it to the filters of the rule")]);
    let modifier =
        json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["Access-Control-Allow-Origin"]}});
    let both = with_rule(json!({"filters": [cors, modifier]}));
    assert_bad_route(&both, &[("/rules/0", "alone writes \"access-control-allow-origin\"")]);
    let of_backend = with_rule(json!({"filters": [cors], "backendRefs": [{"name": "a", "filters": [modifier]}]}));
    assert_bad_route(&of_backend, &[("/rules/0", "alone writes")]);
    good_route(&with_filter(modifier));
}

#[test]
fn a_match_that_leaves_options_out_is_a_warning() {
    let warnings = |matches: Value| {
        let filters = json!([{"type": "CORS", "cors": {"allowOrigins": ["*"]}}]);
        good_route(&with_rule(json!({"matches": matches, "filters": filters}))).warnings
    };
    let at = |path: &str, method: &str| json!({"path": {"value": path}, "method": method});
    let found = warnings(json!([at("/a", "GET"), at("/b", "PUT"), at("/a", "OPTIONS")]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("/rules/0/matches/1/method: ") && found[0].contains("for OPTIONS"), "{found:?}");
    assert!(warnings(json!([at("/a", "GET"), {"path": {"value": "/a"}}])).is_empty());
    assert!(warnings(json!([])).is_empty());
    assert!(good_route(&with_match(at("/a", "GET"))).warnings.is_empty(), "a rule without the filter");
}
