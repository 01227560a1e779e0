//! What filters do, as readable cases: `filters.script`.
//!
//! ```text
//! # why
//! {a rule in JSON}              one or more lines: the rules of the table, sent to service `s` where they say nothing else
//!
//! METHOD TARGET                 a request, at host a.example unless it has a Host
//! Name: value
//! ---
//! STATUS
//! name: value                   a field of the answer, repeated ones joined with ", "; `{port}` stands for the listener's port
//! -name                         a field that the answer does not have
//! > METHOD TARGET               what service `s` got; `t>` tells of service `t`
//! > name: value
//! > -name
//! > nothing                     that it got nothing
//! ```
//!
//! Blocks are separated by empty lines; rules hold for the requests after them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::gateway::{Backend, Gateway, service, status, wait_for};
use crate::model::Kind::{Route, Service};
use crate::proxy::ListenerOptions;

/// Sets of fields that only a backend can have sent.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nX-Powered-By: backend\r\nX-Twice: 1\r\nX-Twice: 2\r\nAccess-Control-Allow-Origin: https://backend.example\r\n\
    Content-Length: 0\r\n\r\n";

#[test]
fn filters_do_as_written() {
    let mut run = Run { failures: Vec::new(), requests: 0 };
    let mut table: Option<Table> = None;
    for block in include_str!("filters.script").split("\n\n") {
        let lines: Vec<&str> =
            block.lines().map(str::trim_end).filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        match lines.first() {
            None => {}
            Some(first) if first.starts_with('{') => table = Some(Table::of(&lines)),
            Some(_) => run.case(table.as_ref().expect("rules come before requests"), &lines),
        }
    }
    assert!(run.failures.is_empty(), "{}", run.failures.join("\n"));
    assert!(run.requests >= 80, "the script lost cases: {}", run.requests);
}

/// The gateway with the rules of a block, and its backends.
struct Table {
    gateway: Gateway,
    backends: [(&'static str, Backend); 2],
}

impl Table {
    fn of(rules: &[&str]) -> Table {
        let backends = ["s", "t"].map(|name| (name, Backend::answering(ANSWER)));
        let rules: Vec<Value> = rules.iter().map(|line| rule(line)).collect();
        let documents = [
            (Service, "s", service(&[backends[0].1.address])),
            (Service, "t", service(&[backends[1].1.address])),
            (Service, "empty", json!({"endpoints": []})),
            (Route, "r", json!({"rules": rules})),
        ];
        Table { gateway: Gateway::start(ListenerOptions::default(), &documents), backends }
    }
}

fn rule(line: &str) -> Value {
    let mut rule: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let redirects = rule["filters"].as_array().is_some_and(|filters| filters.iter().any(|f| f["type"] == "RequestRedirect"));
    if rule.get("backendRefs").is_none() && !redirects {
        rule["backendRefs"] = json!([{"name": "s"}]);
    }
    rule
}

struct Run {
    failures: Vec<String>,
    requests: usize,
}

impl Run {
    fn case(&mut self, table: &Table, lines: &[&str]) {
        self.requests += 1;
        let middle = lines.iter().position(|line| *line == "---").unwrap_or_else(|| panic!("{lines:?} has no ---"));
        let (request, expected) = (&lines[..middle], &lines[middle + 1..]);
        let before: Vec<usize> = table.backends.iter().map(|(_, backend)| backend.seen().len()).collect();
        let answer = table.gateway.ask(&raw(request));
        let mut wrong = String::new();
        if status(&answer).to_string() != expected[0] {
            let _ = write!(wrong, "\n  expected status {}", expected[0]);
        }
        for line in &expected[1..] {
            let line = line.replace("{port}", &table.gateway.address.port().to_string());
            let (message, line) = match line.split_once("> ") {
                Some((name, line)) => (got(table, if name.is_empty() { "s" } else { name }, &before, line), line.to_owned()),
                None => (answer.clone(), line),
            };
            if !holds(&message, &line) {
                let _ = write!(wrong, "\n  expected {line:?} in\n{message}");
            }
        }
        if !wrong.is_empty() {
            self.failures.push(format!("{}{wrong}\n  the answer was {answer}", request.join(" | ")));
        }
    }
}

fn raw(request: &[&str]) -> String {
    let mut raw = format!("{} HTTP/1.1\r\n", request[0]);
    if !request.iter().any(|line| line.starts_with("Host:")) {
        raw.push_str("Host: a.example\r\n");
    }
    request[1..].iter().for_each(|line| raw.push_str(&format!("{line}\r\n")));
    raw + "\r\n"
}

/// The one request that the service `name` got since; a mirrored one may still be on its way. Nothing where nothing is expected.
fn got(table: &Table, name: &str, before: &[usize], line: &str) -> String {
    let place = table.backends.iter().position(|(known, _)| *known == name).unwrap_or_else(|| panic!("no service {name}"));
    let seen = || table.backends[place].1.seen()[before[place]..].to_vec();
    if line != "nothing" {
        wait_for("the request", || !seen().is_empty());
    }
    seen().iter().map(|request| request.bytes.as_str()).collect()
}

fn holds(message: &str, line: &str) -> bool {
    if line == "nothing" {
        return message.is_empty();
    }
    if let Some(name) = line.strip_prefix('-') {
        return values(message, name).is_empty();
    }
    match line.split_once(": ") {
        Some((name, value)) => values(message, name).join(", ") == value,
        None => message.starts_with(&format!("{line} HTTP/1.1\r\n")),
    }
}

fn values<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    let fields = message.split("\r\n\r\n").next().unwrap_or_default().lines().skip(1);
    fields
        .filter_map(|line| line.split_once(": ").filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, v)| v))
        .collect()
}
