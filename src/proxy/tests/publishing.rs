//! From State to answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{oneshot, watch};

use super::gateway::{Backend, Gateway, field, put, route_to, service, status, wait_for};
use crate::model::Kind::{Certificate, Route, Service};
use crate::model::{Name, Revision, State};
use crate::observe::Metrics;
use crate::proxy::{ListenerOptions, Publisher};
use crate::secrets::{Keyring, Place};
use crate::table::{Live, Snapshot};

#[test]
fn publishes_after_the_gate_and_follows() {
    let mut state = State::default();
    put(&mut state, &[(Route, "r", route_to("s"))]);
    let (states, followed) = watch::channel(state.clone());
    let (begin, gate) = oneshot::channel();
    let (live, metrics) = (Arc::new(Live::new()), Metrics::new());
    let publisher = Publisher::start(followed, gate, Arc::clone(&live), metrics.clone()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(live.load().revision, Revision(0), "published before the gate opened");
    begin.send(()).unwrap();
    wait_for("the first table", || live.load().revision == Revision(1));
    let held = live.load();
    for number in 0..50 {
        put(&mut state, &[(Service, &format!("s{number}"), json!({"endpoints": []}))]);
        states.send_replace(state.clone());
    }
    wait_for("the last table", || live.load().revision == Revision(51));
    assert_eq!((live.load().counts().routes, live.load().counts().services), (1, 50));
    assert_eq!(live.load().digest, state.digest());
    assert_eq!(held.revision, Revision(1), "a held snapshot changed");
    wait_for("the gauge", || metrics.table_revision.get() == 51 && metrics.table_services.get() == 50);
    wait_for("retired snapshots to be freed but for the held one", || Arc::strong_count(&held) <= 2);
    drop(publisher);
    assert_eq!(Arc::strong_count(&held), 1, "the publisher freed what it kept");
}

#[test]
fn what_changes_before_the_gate_opens_is_in_the_first_table() {
    let mut state = State::default();
    put(&mut state, &[(Service, "s", json!({"endpoints": []})), (Route, "r0", route_to("s")), (Route, "r1", route_to("s"))]);
    let (states, followed) = watch::channel(state.clone());
    let (begin, gate) = oneshot::channel();
    let (live, metrics) = (Arc::new(Live::new()), Metrics::new());
    let _publisher = Publisher::start(followed, gate, Arc::clone(&live), metrics.clone()).unwrap();
    for number in 0..20 {
        put(&mut state, &[(Route, &format!("r{number}"), route_to(&format!("s{number}")))]);
        states.send_replace(state.clone());
    }
    assert_eq!(live.load().revision, Revision(0), "published before the gate opened");
    begin.send(()).unwrap();
    wait_for("the first table", || live.load().revision == state.revision());
    let table = live.load();
    assert_eq!((table.counts(), table.digest), (Snapshot::build(&state).counts(), state.digest()));
    assert_eq!(table.check(&state, None, usize::MAX), Ok(None));
}

#[test]
fn a_table_that_is_not_what_it_was_made_of_raises_the_alarm_and_is_built_anew() {
    let mut state = State::default();
    put(&mut state, &[(Service, "s", json!({"endpoints": []})), (Route, "r", route_to("s"))]);
    let (_states, followed) = watch::channel(state.clone());
    let (begin, gate) = oneshot::channel();
    let (live, metrics) = (Arc::new(Live::new()), Metrics::new());
    let _publisher = Publisher::start(followed, gate, Arc::clone(&live), metrics.clone()).unwrap();
    begin.send(()).unwrap();
    wait_for("the first table", || live.load().revision == state.revision());
    assert_eq!((live.divergence(), live.load().counts().routes), (None, 1));
    // The same revision, with less in it.
    let mut other = State::default();
    put(&mut other, &[(Service, "s", json!({"endpoints": []}))]);
    let mut wrong = Snapshot::build(&other);
    (wrong.revision, wrong.digest) = (state.revision(), state.digest());
    live.store(Arc::new(wrong));
    wait_for("the alarm", || live.divergence().is_some_and(|what| what.contains("the route is missing")));
    wait_for("the table to be built anew", || live.load().counts().routes == 1);
    assert_eq!((metrics.table_diverged.get(), metrics.divergences.with_label_values(&["table"]).get()), (1, 1));
}

#[test]
fn the_expiry_of_each_certificate_is_told_while_it_is_served() {
    let keyring = Arc::new(Keyring::of_bytes(&[1]));
    let certificate = |name: &str, year: i32| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["a.com".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let name = Name::new(name).unwrap();
        let place = Place { kind: Certificate, name: &name, field: "privateKey" };
        let sealed = keyring.seal(place, &key.serialize_pem(), None).unwrap().document();
        json!({"certificate": parameters.self_signed(&key).unwrap().pem(), "privateKey": sealed})
    };
    let mut state = State::default();
    put(&mut state, &[(Certificate, "a", certificate("a", 2001)), (Certificate, "b", certificate("b", 2002))]);
    let (states, followed) = watch::channel(state.clone());
    let (begin, gate) = oneshot::channel();
    let (live, metrics) = (Arc::new(Live::with_keyring(Arc::clone(&keyring))), Metrics::new());
    let _publisher = Publisher::start(followed, gate, Arc::clone(&live), metrics.clone()).unwrap();
    begin.send(()).unwrap();
    let expiries = || -> Vec<String> {
        let text = metrics.render();
        let lines = text.lines().filter(|line| line.starts_with("raftgate_certificate_expiry_seconds{"));
        lines.map(|line| line.split_once('{').unwrap().1.to_owned()).collect()
    };
    wait_for("both", || expiries() == ["certificate=\"a\"} 978307200", "certificate=\"b\"} 1009843200"]);
    // Renewed, and no longer to be opened.
    put(&mut state, &[(Certificate, "a", certificate("a", 2003)), (Certificate, "b", certificate("c", 2004))]);
    states.send_replace(state.clone());
    wait_for("the one that is served", || expiries() == ["certificate=\"a\"} 1041379200"]);
    assert_eq!(live.load().counts().not_compiled, 1);
}

/// Every revision n sends requests to a service that carries n, through a filter that carries n: an answer whose three parts
/// disagree was made by parts of two tables.
#[test]
fn no_request_is_served_by_parts_of_two_tables() {
    let backend = Backend::with(|_, seen, stream| {
        let echo = field(&seen.bytes, "x-revision").unwrap_or("none").to_owned();
        let answer = format!("HTTP/1.1 200 OK\r\nX-Echo: {echo}\r\nContent-Length: 0\r\n\r\n");
        std::io::Write::write_all(stream, answer.as_bytes()).is_ok()
    });
    let address = backend.address;
    let documents = |revision: u64| {
        let filters = json!([
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-Revision", "value": revision.to_string()}]}},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "X-Answer", "value": revision.to_string()}]}}
        ]);
        let name = format!("s{revision}");
        let route = json!({"rules": [{"filters": filters, "backendRefs": [{"name": name}]}]});
        (name, service(&[address]), route)
    };
    let (name, first_service, first_route) = documents(1);
    let options = ListenerOptions { debug_headers: true, ..ListenerOptions::default() };
    let mut gateway = Gateway::start(options, &[(Service, &name, first_service), (Route, "r", first_route)]);
    let done = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..2)
        .map(|_| {
            let (mut client, done) = (gateway.connect(), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut count = 0_u32;
                while !done.load(Ordering::SeqCst) {
                    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                    let answer = client.answer();
                    assert_eq!(status(&answer), 200, "{answer}");
                    let revision = field(&answer, "raftgate-revision");
                    assert_eq!(field(&answer, "x-echo"), revision, "{answer}");
                    assert_eq!(field(&answer, "x-answer"), revision, "{answer}");
                    count += 1;
                }
                count
            })
        })
        .collect();
    for revision in 2..=200 {
        let (name, new_service, new_route) = documents(revision);
        gateway.put(&[(Service, &name, new_service), (Route, "r", new_route)]);
    }
    wait_for("some requests by the last table", || gateway.metrics.requests_active.get() >= 0 && backend.seen().len() > 300);
    done.store(true, Ordering::SeqCst);
    for thread in asking {
        assert!(thread.join().unwrap() > 0);
    }
}
