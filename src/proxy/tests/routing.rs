//! What reaches backends, and what redirects say.

use serde_json::json;

use super::frames::{self, Outcome, Wire};
use super::gateway::{Backend, Gateway, OK, field, route_to, service, status, wait_for};
use crate::model::Kind::{Route, Service};
use crate::observe::{AccessLog, Metrics};
use crate::proxy::ListenerOptions;

#[test]
fn the_backend_gets_exactly_these_bytes() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    let request = "GET http://B.example:81/a/%2e%2e/%7Eb?q=%2e HTTP/1.1\r\nHost: other\r\nConnection: x-drop, authorization\r\n\
        X-Drop: 1\r\nAuthorization: keep\r\nX-Forwarded-For: 9.9.9.9\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nTE: trailers\r\n\
        Raftgate-Secret: 1\r\nVia: 1.0 forged\r\nX-Request-Id: id1\r\nTraceparent: 00-ab-cd-01\r\n\r\n";
    assert_eq!(status(&gateway.ask(request)), 200);
    let mut lines: Vec<String> = backend.seen()[0].bytes.lines().map(str::to_owned).collect();
    assert_eq!(lines.remove(0), "GET /~b?q=%2e HTTP/1.1");
    lines.retain(|line| !line.is_empty());
    lines.sort();
    let expected = [
        "authorization: keep",
        "host: B.example:81",
        "traceparent: 00-ab-cd-01",
        "via: 1.1 raftgate",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: B.example:81",
        "x-forwarded-proto: http",
        "x-request-id: id1",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn options_and_trace_go_as_far_as_they_may() {
    let backend = Backend::answering(OK);
    let gateway = Gateway::to(&backend);
    let ask = |method: &str, left: &str| gateway.ask(&format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {left}\r\n\r\n"));
    let table = [
        ("OPTIONS", "0", 204, None),
        ("TRACE", "0", 501, None),
        ("OPTIONS", "3", 200, Some("2")),
        ("TRACE", "1", 200, Some("0")),
        // It binds no other method, and what is no number binds nobody.
        ("GET", "0", 200, Some("0")),
        ("OPTIONS", "few", 200, Some("few")),
    ];
    for (method, left, code, sent_on) in table {
        let before = backend.seen().len();
        assert_eq!(status(&ask(method, left)), code, "{method} {left}");
        let seen = backend.seen();
        let told = seen.get(before).and_then(|seen| field(&seen.bytes, "max-forwards"));
        assert_eq!(told, sent_on, "{method} {left}");
    }
}

#[test]
fn a_trusted_proxy_is_believed() {
    let backend = Backend::answering(OK);
    let trusted_proxies = vec![("127.0.0.0".parse().unwrap(), 8)];
    let gateway = Gateway::with(ListenerOptions { trusted_proxies, ..ListenerOptions::default() }, &backend);
    gateway.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n\r\n");
    let seen = &backend.seen()[0].bytes;
    assert!(seen.contains("x-forwarded-for: 9.9.9.9, 127.0.0.1\r\n"), "{seen}");
    assert_eq!(field(seen, "x-forwarded-proto"), Some("https"));
}

/// A gateway that sends what matches `header` to one backend, and all else to another; both.
fn choosing(options: ListenerOptions, header: serde_json::Value) -> (Gateway, Backend, Backend) {
    let (chosen, other) = (Backend::answering(OK), Backend::answering(OK));
    let rules = json!({"rules": [
        {"matches": [{"headers": [header]}], "backendRefs": [{"name": "chosen"}]},
        {"backendRefs": [{"name": "other"}]},
    ]});
    let documents =
        [(Service, "chosen", service(&[chosen.address])), (Service, "other", service(&[other.address])), (Route, "r", rules)];
    (Gateway::start(options, &documents), chosen, other)
}

#[test]
fn rules_match_on_what_is_true_of_a_client_and_not_on_what_it_says() {
    let truth = [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "http"), ("x-forwarded-host", "a.example")];
    let claims = [("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "admin")];
    for ((name, value), is_true) in truth.map(|field| (field, true)).into_iter().chain(claims.map(|field| (field, false))) {
        let header = json!({"name": name, "value": value});
        let (gateway, chosen, other) = choosing(ListenerOptions::default(), header.clone());
        let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{name}: {value}\r\n\r\n");
        gateway.ask(&request);
        gateway.get("/");
        let counts = (chosen.seen().len(), other.seen().len());
        assert_eq!(counts, if is_true { (2, 0) } else { (0, 2) }, "{name}: {value}");
        // What a trusted proxy says is true; of a list that it began, the whole.
        if !is_true && name != "x-forwarded-for" {
            let trusted_proxies = vec![("127.0.0.0".parse().unwrap(), 8)];
            let (gateway, chosen, _) = choosing(ListenerOptions { trusted_proxies, ..ListenerOptions::default() }, header);
            gateway.ask(&request);
            assert_eq!(chosen.seen().len(), 1, "{name}: {value}");
        }
    }
}

#[test]
fn a_host_is_matched_as_it_is_forwarded_and_cookies_as_one_line() {
    let (gateway, chosen, other) = choosing(ListenerOptions::default(), json!({"name": "host", "value": "a.example"}));
    gateway.get("/");
    gateway.ask("GET http://a.example/ HTTP/1.1\r\nHost: evil\r\n\r\n");
    let mut wire = Wire::open(gateway.address);
    wire.send(&frames::get(1, "/"));
    assert_eq!(wire.outcome(1), Outcome::Status(200));
    assert_eq!((chosen.seen().len(), other.seen().len()), (3, 0));
    gateway.ask("GET http://evil/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!((chosen.seen().len(), other.seen().len()), (3, 1));

    let header = json!({"type": "RegularExpression", "name": "Cookie", "value": "(.*; )?a=1(; .*)?"});
    let (gateway, chosen, other) = choosing(ListenerOptions::default(), header);
    let mut wire = Wire::open(gateway.address);
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    wire.send(&frames::head(1, true, &[&fields[..], &[("cookie", "z=2"), ("cookie", "a=1"), ("cookie", "q=3")]].concat()));
    assert_eq!(wire.outcome(1), Outcome::Status(200));
    assert_eq!((chosen.seen().len(), other.seen().len()), (1, 0));
    assert_eq!(field(&chosen.seen()[0].bytes, "cookie"), Some("z=2; a=1; q=3"));
}

#[test]
fn the_whole_server_has_no_path_that_filters_could_change() {
    let backend = Backend::answering(OK);
    let prefix = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/xyz"});
    let redirects = [
        (json!({"scheme": "https"}), "https://a.example/"),
        (json!({"hostname": "x.org", "port": 80}), "http://x.org/"),
        (json!({"scheme": "https", "path": prefix}), "https://a.example/"),
    ];
    for (redirect, location) in redirects {
        let rules = json!({"rules": [{
            "matches": [{"path": {"value": "/"}}],
            "filters": [{"type": "RequestRedirect", "requestRedirect": redirect}],
        }]});
        let gateway = Gateway::start(ListenerOptions::default(), &[(Route, "r", rules)]);
        let answer = gateway.ask("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert_eq!(field(&answer, "location"), Some(location), "{redirect}");
    }
    let rules = json!({"rules": [{
        "matches": [{"path": {"value": "/"}}],
        "filters": [{"type": "URLRewrite", "urlRewrite": {"path": prefix}}],
        "backendRefs": [{"name": "s"}],
    }]});
    let documents = [(Service, "s", service(&[backend.address])), (Route, "r", rules)];
    let gateway = Gateway::start(ListenerOptions::default(), &documents);
    gateway.ask("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert!(backend.seen()[0].bytes.starts_with("OPTIONS * HTTP/1.1\r\n"), "{:?}", backend.seen());
}

#[test]
fn an_answer_loses_what_belongs_to_one_connection() {
    let backend = Backend::answering(
        "HTTP/1.1 201 Made\r\nConnection: x-drop\r\nX-Drop: 1\r\nKeep-Alive: timeout=5\r\nRaftgate-Revision: 99\r\nVia: 1.1 inner\r\nX-Keep: 1\r\n\
         Set-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
    );
    let answer = Gateway::to(&backend).get("/");
    assert_eq!(status(&answer), 201);
    for absent in ["connection", "x-drop", "keep-alive", "raftgate-revision"] {
        assert_eq!(field(&answer, absent), None, "{absent} in {answer}");
    }
    assert_eq!(field(&answer, "x-keep"), Some("1"));
    assert_eq!(field(&answer, "via"), Some("1.1 inner, 1.1 raftgate"));
    assert!(answer.contains("set-cookie: a\r\nset-cookie: b\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[test]
fn filters_change_requests_and_answers() {
    let backend = Backend::answering(OK);
    let rule = json!({
        "matches": [{"path": {"type": "PathTemplate", "value": "/users/{id}"}}],
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-Env", "value": "blue"}]}},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "X-Answer", "value": "42"}]}},
            {"type": "URLRewrite", "urlRewrite": {"hostname": "inner.example",
                "path": {"type": "ReplaceFullPath", "replaceFullPath": "/v2/{id}/profile"}}}
        ],
        "backendRefs": [{"name": "s"}]
    });
    let documents = [(Service, "s", service(&[backend.address])), (Route, "r", json!({"rules": [rule]}))];
    let gateway = Gateway::start(ListenerOptions::default(), &documents);
    let answer = gateway.get("/users/7%20a?x=1");
    assert_eq!((status(&answer), field(&answer, "x-answer")), (200, Some("42")));
    let seen = &backend.seen()[0].bytes;
    assert!(seen.starts_with("GET /v2/7%20a/profile?x=1 HTTP/1.1\r\n"), "{seen}");
    assert_eq!((field(seen, "host"), field(seen, "x-forwarded-host")), (Some("inner.example"), Some("a.example")));
    assert_eq!(field(seen, "x-env"), Some("blue"));
}

#[test]
fn a_backends_filters_run_after_the_rules_and_for_its_share_alone() {
    let (plain, changed) = (Backend::answering(OK), Backend::answering(OK));
    let set = |value: &str| json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-Env", "value": value}]}});
    let add = |value: &str| json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "X-By", "value": value}]}});
    let rewrite = |hostname: &str, prefix: &str| {
        let path = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": prefix});
        json!({"type": "URLRewrite", "urlRewrite": {"hostname": hostname, "path": path}})
    };
    let path_alone =
        json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/own"}}});
    let rule = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": "/a"}}],
        "filters": [set("rule"), add("rule"), rewrite("rule.example", "/rule")],
        "backendRefs": [{"name": "plain"}, {"name": "changed", "filters": [set("share"), add("share"), path_alone]}]
    });
    let documents = [
        (Service, "plain", service(&[plain.address])),
        (Service, "changed", service(&[changed.address])),
        (Route, "r", json!({"rules": [rule]})),
    ];
    let gateway = Gateway::start(ListenerOptions::default(), &documents);
    let answers: Vec<String> = (0..20).map(|_| gateway.get("/a/%7Ex?q=1")).collect();
    let by = |text: &str| answers.iter().filter(|answer| answer.contains(text)).count();
    assert_eq!((by("x-by: rule\r\nx-by: share\r\n"), by("x-by: rule\r\n")), (changed.seen().len(), 20), "{answers:?}");
    for (backend, line, env) in [(&plain, "GET /rule/~x?q=1 ", "rule"), (&changed, "GET /own/~x?q=1 ", "share")] {
        let seen = backend.seen();
        assert!((8..=12).contains(&seen.len()), "{}", seen.len());
        let bytes = &seen[0].bytes;
        assert!(bytes.starts_with(line), "{bytes}");
        assert_eq!((field(bytes, "x-env"), field(bytes, "host")), (Some(env), Some("rule.example")), "{bytes}");
    }
}

#[test]
fn redirects_answer_at_once() {
    let redirect =
        json!({"scheme": "https", "statusCode": 301, "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}});
    let rule = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": "/old"}}],
        "filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]
    });
    let gateway = Gateway::start(ListenerOptions::default(), &[(Route, "r", json!({"rules": [rule]}))]);
    let answer = gateway.get("/old/x?q=1");
    assert_eq!((status(&answer), field(&answer, "location")), (301, Some("https://a.example/new/x?q=1")));
}

#[test]
fn shares_follow_weights_and_endpoints_take_turns() {
    let (one, two, three) = (Backend::answering(OK), Backend::answering(OK), Backend::answering(OK));
    let rules = json!({"rules": [{"backendRefs": [{"name": "big", "weight": 3}, {"name": "small", "weight": 1}]}]});
    let documents = [
        (Service, "big", service(&[one.address, two.address])),
        (Service, "small", service(&[three.address])),
        (Route, "r", rules),
    ];
    let gateway = Gateway::start(ListenerOptions::default(), &documents);
    let mut client = gateway.connect();
    for _ in 0..400 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status(&client.answer()), 200);
    }
    let counts = [one.seen().len(), two.seen().len(), three.seen().len()];
    assert_eq!(counts.iter().sum::<usize>(), 400);
    assert!((95..=105).contains(&counts[2]), "{counts:?}");
    assert!(counts[0].abs_diff(counts[1]) <= 1, "{counts:?}");
    assert_eq!([one.connections(), two.connections(), three.connections()], [1, 1, 1]);
}

#[test]
fn a_changed_table_serves_the_next_request() {
    let (old, new) = (Backend::answering(OK), Backend::answering("HTTP/1.1 203 OK\r\nContent-Length: 0\r\n\r\n"));
    let options = ListenerOptions { debug_headers: true, ..ListenerOptions::default() };
    let mut gateway = Gateway::with(options, &old);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer();
    assert_eq!((status(&answer), field(&answer, "raftgate-revision")), (200, Some("1")));
    gateway.put(&[(Service, "t", service(&[new.address])), (Route, "r", route_to("t"))]);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer();
    assert_eq!((status(&answer), field(&answer, "raftgate-revision")), (203, Some("2")));
}

#[test]
fn the_access_log_tells_a_request_from_end_to_end() {
    let backend = Backend::answering(OK);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (log, _writer) = AccessLog::open(Some(&path), Metrics::new().access_log_dropped).unwrap();
    let rules = json!({"rules": [{"name": "all", "backendRefs": [{"name": "s"}]}]});
    let documents = [(Service, "s", service(&[backend.address])), (Route, "r", rules)];
    let gateway = Gateway::logging(ListenerOptions::default(), &documents, Some(log));
    gateway.ask(
        "GET /p?secret=1 HTTP/1.1\r\nHost: A.example\r\nX-Request-Id: id1\r\n\
        Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n",
    );
    let read = || std::fs::read_to_string(&path).unwrap();
    wait_for("the line", || read().ends_with('\n'));
    let mut line: serde_json::Value = serde_json::from_str(&read()).unwrap();
    let fields = line.as_object_mut().unwrap();
    for name in ["time", "duration", "upstreamDuration"] {
        assert!(fields.remove(name).is_some(), "{name}");
    }
    let expected = json!({
        "requestId": "id1", "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "client": "127.0.0.1", "method": "GET", "host": "a.example", "path": "/p",
        "kind": "Route", "route": "r", "rule": "all", "revision": 1, "service": "s", "endpoint": backend.address.to_string(), "status": 200,
        "bytes": 2, "attempts": 1
    });
    assert_eq!(line, expected);
}

#[test]
fn the_access_log_tells_what_a_template_took() {
    let backend = Backend::answering(OK);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (log, _writer) = AccessLog::open(Some(&path), Metrics::new().access_log_dropped).unwrap();
    let matches = |kind: &str, value: &str| json!([{"path": {"type": kind, "value": value}}]);
    let to_s = json!([{"name": "s"}]);
    let rules = json!({"rules": [
        {"matches": matches("PathTemplate", "/users/{id}/files/{*rest}"), "backendRefs": to_s},
        {"matches": matches("PathTemplate", "/gone/{id}"), "filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}]},
        {"matches": matches("PathPrefix", "/plain"), "backendRefs": to_s},
    ]});
    let documents = [(Service, "s", service(&[backend.address])), (Route, "r", rules)];
    let gateway = Gateway::logging(ListenerOptions::default(), &documents, Some(log));
    let read = || std::fs::read_to_string(&path).unwrap();
    let long = "x".repeat(256);
    let cases = [
        ("/users/7/files/a/b".to_owned(), json!({"id": "7", "rest": "a/b"})),
        // As it was matched: what JSON or a terminal would take amiss is escaped by then.
        ("/users/%7e%22%0a\"{}/files/a".to_owned(), json!({"id": "~%22%0A%22%7B%7D", "rest": "a"})),
        (format!("/users/{long}/files/{long}x"), json!({"id": long, "rest": format!("{long}…")})),
        ("/gone/3".to_owned(), json!({"id": "3"})),
        ("/plain/3".to_owned(), serde_json::Value::Null),
        ("/nowhere".to_owned(), serde_json::Value::Null),
    ];
    for (index, (target, expected)) in cases.iter().enumerate() {
        gateway.get(target);
        wait_for("the line", || read().ends_with('\n') && read().lines().count() == index + 1);
        let line: serde_json::Value = serde_json::from_str(read().lines().last().unwrap()).unwrap();
        assert_eq!(line.get("captures").unwrap_or(&serde_json::Value::Null), expected, "{line}");
    }
}

#[test]
fn the_gateways_own_answers_are_called_as_the_log_calls_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (log, _writer) = AccessLog::open(Some(&path), Metrics::new().access_log_dropped).unwrap();
    let gateway = Gateway::logging(ListenerOptions::default(), &[], Some(log));
    let requests = [
        "GET /p HTTP/1.1\r\nHost: a\r\nX-Request-Id: id1\r\nTraceparent: 00-ab-cd-01\r\n\r\n",
        "GET /p HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /p HTTP/1.1\r\nHost: a\r\nX-Request-Id: \u{e9}\r\n\r\n",
        "GET /p HTTP/1.1\r\n\r\n",
        "BREW /p HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for (index, request) in requests.iter().enumerate() {
        let answer = gateway.ask(request);
        let id = field(&answer, "x-request-id").unwrap_or_default();
        assert!(if index == 0 { id == "id1" } else { id.len() == 32 }, "{request:?}: {answer}");
        let read = || std::fs::read_to_string(&path).unwrap();
        wait_for("the line", || read().ends_with('\n') && read().lines().count() == index + 1);
        let line: serde_json::Value = serde_json::from_str(read().lines().last().unwrap()).unwrap();
        assert_eq!(line["requestId"], id, "{request:?}");
        assert_eq!(line.get("traceId"), Some(&serde_json::Value::Null), "{request:?}");
    }
}

#[test]
fn listeners_of_one_address_divide_its_hosts() {
    let listener = |name: &str, hostname: Option<&str>, debug_headers| ListenerOptions {
        name: name.into(),
        hostname: hostname.map(str::to_owned),
        debug_headers,
        ..ListenerOptions::default()
    };
    let backends = [Backend::answering(OK), Backend::answering(OK), Backend::answering(OK)];
    let route = |listeners: serde_json::Value, hostnames: serde_json::Value, service: &str| json!({"listeners": listeners, "hostnames": hostnames, "rules": [{"backendRefs": [{"name": service}]}]});
    let others = vec![listener("exact", Some("a.example.com"), true)];
    let gateway = Gateway::shared(
        listener("wild", Some("*.example.com"), false),
        others,
        &[
            (Service, "s0", service(&[backends[0].address])),
            (Service, "s1", service(&[backends[1].address])),
            (Service, "s2", service(&[backends[2].address])),
            (Route, "wild", route(json!(["wild"]), json!([]), "s0")),
            (Route, "exact", route(json!(["exact"]), json!(["*.com"]), "s1")),
            // Everywhere, but only for hosts that it shares with the listener.
            (Route, "other", route(json!([]), json!(["x.example.com", "example.org"]), "s2")),
        ],
    );
    let ask = |host: &str| gateway.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let counts = || [backends[0].seen().len(), backends[1].seen().len(), backends[2].seen().len()];
    for (host, code, expected) in [
        ("a.example.com", 200, [0, 1, 0]),
        ("A.Example.com:8080", 200, [0, 2, 0]),
        ("b.example.com", 200, [1, 2, 0]),
        ("x.example.com", 200, [1, 2, 1]),
        // No listener takes them, whatever routes say.
        ("example.org", 404, [1, 2, 1]),
        ("example.com", 404, [1, 2, 1]),
    ] {
        let answer = ask(host);
        assert_eq!((status(&answer), counts()), (code, expected), "{host}: {answer}");
        let has_revision = field(&answer, "raftgate-revision").is_some();
        assert_eq!(has_revision, host.eq_ignore_ascii_case("a.example.com") || host.contains(":8080"), "{host}: {answer}");
    }
}
