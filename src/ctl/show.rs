//! Commands that show: `get`, `explain`; and `delete`.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::apply::print_written;
use super::arguments::{Kind, Output};
use super::client::Client;
use super::pages::Pages;
use super::print::{BAD, DIM, GOOD, STRONG, WARN, out, plain, raw, styled, table, text};
use crate::table::Chain;

/// The end of the year 9999, in seconds of the Unix epoch: later times have no such form.
const LAST_SECOND: u64 = 253_402_300_799;

/// `get KIND [NAME]`
pub(super) async fn get(client: &Client, kind: Kind, name: Option<&str>, local: bool, output: Output) -> anyhow::Result<()> {
    if let Some(name) = name {
        let consistency = if local { "?consistency=local" } else { "" };
        let resource = client.get(&format!("/v1/{}/{}{consistency}", kind.plural, segment(name))).await?;
        if !raw(&resource, output)? {
            table(&headings(kind), &[row(kind, &resource)]);
        }
        return Ok(());
    }
    let printed = list(client, kind, local, output).await;
    let is_enough =
        |error: &anyhow::Error| error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    // As under `| head`.
    printed.or_else(|error| if is_enough(&error) { Ok(()) } else { Err(error) })
}

/// Prints every page of a kind as it comes.
async fn list(client: &Client, kind: Kind, local: bool, output: Output) -> anyhow::Result<()> {
    let headings = headings(kind);
    let mut pages = Pages::new(output, &headings);
    let first = format!("/v1/{}?limit=1000{}", kind.plural, if local { "&consistency=local" } else { "" });
    let mut path = first.clone();
    loop {
        let page = client.get(&path).await?;
        let items = page.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        pages.page(items, |item| row(kind, item))?;
        match text(&page, "continue") {
            "" => return pages.end(),
            next => path = format!("{first}&continue={}", segment(next)),
        }
    }
}

/// `delete KIND NAME`
pub(super) async fn delete(client: &Client, kind: Kind, name: &str) -> anyhow::Result<()> {
    let answer = client.write(Method::DELETE, &format!("/v1/{}/{}", kind.plural, segment(name)), None).await?;
    out(format!("{} {name} {}", kind.name, styled(GOOD, "deleted")));
    let mut rest = answer;
    // The one result is printed above, in a word of its own.
    rest["results"] = json!([]);
    print_written(&rest, false)
}

/// A text as one segment of a path.
fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn headings(kind: Kind) -> [&'static str; 5] {
    match kind.plural {
        "routes" | "grpcroutes" => ["NAME", "REVISION", "UPDATED", "HOSTNAMES", "RULES"],
        "certificates" => ["NAME", "REVISION", "UPDATED", "HOSTNAMES", "EXPIRES"],
        _ => ["NAME", "REVISION", "UPDATED", "PROTOCOL", "ENDPOINTS"],
    }
}

fn row(kind: Kind, resource: &Value) -> Vec<String> {
    let spec = &resource["spec"];
    let strings = |list: &Value, pick: fn(&Value) -> &str| {
        list.as_array().map(|list| list.iter().map(pick).collect::<Vec<_>>().join(",")).filter(|joined| !joined.is_empty())
    };
    let (first, second) = match kind.plural {
        "routes" | "grpcroutes" => {
            let hosts = strings(&spec["hostnames"], |host| host.as_str().unwrap_or_default());
            let rules = spec["rules"].as_array().map_or(0, Vec::len);
            (hosts.unwrap_or_else(|| "*".to_owned()), rules.to_string())
        }
        "certificates" => certificate(spec),
        _ => {
            let endpoints = strings(&spec["endpoints"], |endpoint| text(endpoint, "address"));
            let protocol = spec["protocol"].as_str().unwrap_or("http1");
            (protocol.to_owned(), endpoints.unwrap_or_else(|| "-".to_owned()))
        }
    };
    vec![plain(resource, "name"), plain(resource, "revision"), plain(resource, "updatedAt"), first, second]
}

/// The hosts of a certificate, and when it expires.
fn certificate(spec: &Value) -> (String, String) {
    let Ok(chain) = Chain::read(text(spec, "certificate")) else { return ("?".to_owned(), "?".to_owned()) };
    let hosts = if chain.hosts.is_empty() { "-".to_owned() } else { chain.hosts.join(",") };
    let default = if spec["default"] == json!(true) { ",*" } else { "" };
    let expires = UNIX_EPOCH + Duration::from_secs(u64::try_from(chain.not_after).unwrap_or(0).min(LAST_SECOND));
    (format!("{hosts}{default}"), humantime::format_rfc3339_seconds(expires).to_string())
}

/// The body of `POST /v1/explain`. A header that is given twice is a list.
pub(super) fn question(url: &str, method: &str, headers: &[(String, String)], listener: Option<&str>) -> Value {
    let mut fields = Map::new();
    for (name, value) in headers {
        let values = fields.entry(name.to_ascii_lowercase()).or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(json!(value));
        }
    }
    let mut question = json!({"url": url, "method": method, "headers": fields});
    if let Some(listener) = listener {
        question["listener"] = json!(listener);
    }
    question
}

/// What is wrong with a question that no request could ask: without a host the proxy answers 400, whatever the routes say.
pub(super) fn without_host(url: &str, headers: &[(String, String)]) -> Option<String> {
    // What is no URL is the node's to refuse.
    let has_host = url.parse::<http::Uri>().map_or(true, |uri| uri.host().is_some_and(|host| !host.is_empty()))
        || headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    let help = format!("give the whole URL (http://HOST{url}), or the host with -H 'Host: HOST'");
    (!has_host).then(|| format!("{url} names no host, and the proxy answers 400 to a request without one: {help}"))
}

/// `explain URL`
pub(super) async fn explain(client: &Client, question: &Value, output: Output) -> anyhow::Result<()> {
    let answer = client.ask("/v1/explain", question).await?;
    if raw(&answer, output)? {
        return Ok(());
    }
    let listener = answer.get("request").map_or("?", |request| text(request, "listener"));
    let (method, url, revision) = (text(question, "method"), text(question, "url"), plain(&answer, "revision"));
    out(format!("{method} {url} at listener {listener}, at revision {revision}"));
    out(verdict(&answer));
    for backend in answer.get("backends").and_then(Value::as_array).into_iter().flatten() {
        out(format!("  to {}", backend_line(backend)));
    }
    for mirror in answer.get("mirrors").and_then(Value::as_array).into_iter().flatten() {
        out(format!("  copies {}", mirror_line(mirror)));
    }
    for passed in answer.get("candidates").and_then(Value::as_array).into_iter().flatten() {
        if let Some(reason) = passed.get("passedOver").filter(|reason| !reason.is_null()) {
            let condition = styled(WARN, text(reason, "condition"));
            out(format!("{} {}\n  {condition}: {}", styled(DIM, "passed over"), candidate(passed), text(reason, "detail")));
        }
    }
    if answer.get("truncated").and_then(Value::as_bool) == Some(true) {
        out("and more");
    }
    Ok(())
}

/// What the proxy does with the request.
fn verdict(answer: &Value) -> String {
    if let Some(refused) = answer.get("refused").filter(|refused| !refused.is_null()) {
        let (status, detail) = (plain(refused, "status"), text(refused, "detail"));
        return format!("{}: the proxy answers {status}: {detail}", styled(BAD, "no rule is asked"));
    }
    let is_grpc = answer.get("grpc").and_then(Value::as_bool).unwrap_or(false);
    let (unmatched, failed) = if is_grpc { ("UNIMPLEMENTED", "UNAVAILABLE") } else { ("404", "500") };
    let Some(outcome) = answer.get("outcome").filter(|outcome| !outcome.is_null()) else {
        let why = answer.get("unmatched").and_then(Value::as_str).map(|why| format!("\n  {why}"));
        return format!("{}: the proxy answers {unmatched}{}", styled(BAD, "no rule matches"), why.unwrap_or_default());
    };
    let answered = format!("{} {}", styled(GOOD, "answered by"), candidate(outcome));
    match outcome.get("unservable").and_then(Value::as_str) {
        Some(reason) => format!("{answered}\n  {}: the proxy answers {failed}: {reason}", styled(BAD, "unservable")),
        None => answered,
    }
}

fn candidate(report: &Value) -> String {
    let rule = match report.get("ruleName").and_then(Value::as_str) {
        Some(name) => format!("rule {} ({name})", plain(report, "rule")),
        None => format!("rule {}", plain(report, "rule")),
    };
    let place = format!("host {}, {}", plain(report, "host"), plain(report, "path"));
    let kind = if text(report, "kind") == "GRPCRoute" { "GRPCRoute" } else { "route" };
    format!("{kind} {} {rule}, match {}: {place}", styled(STRONG, text(report, "route")), plain(report, "matchIndex"))
}

fn backend_line(backend: &Value) -> String {
    service_line(backend, &format!("weight {}", plain(backend, "weight")))
}

fn mirror_line(mirror: &Value) -> String {
    let fraction = mirror.get("fraction").unwrap_or(&Value::Null);
    let (numerator, denominator) = (plain(fraction, "numerator"), plain(fraction, "denominator"));
    let share = if numerator == denominator { "all".to_owned() } else { format!("{numerator} of {denominator}") };
    format!("to {}", service_line(mirror, &share))
}

/// A service that the rule names, and how much goes there.
fn service_line(reference: &Value, share: &str) -> String {
    let name = styled(STRONG, text(reference, "service"));
    if reference.get("exists").and_then(Value::as_bool) == Some(false) {
        return format!("service {name} ({share}): {}", styled(BAD, "does not exist"));
    }
    let endpoints = reference.get("endpoints").and_then(Value::as_array).into_iter().flatten();
    let endpoints: Vec<&str> = endpoints.map(|endpoint| text(endpoint, "address")).collect();
    let endpoints = if endpoints.is_empty() { "no endpoints".to_owned() } else { endpoints.join(", ") };
    let protocol = reference.get("protocol").and_then(Value::as_str).filter(|protocol| *protocol != "http1");
    let protocol = protocol.map(|protocol| format!(", {protocol}")).unwrap_or_default();
    let certificate = reference.get("clientCertificate").filter(|certificate| certificate["served"] == false);
    let certificate = certificate.map(|certificate| {
        format!(
            "; {}",
            styled(BAD, format!("its client certificate {} does not exist or cannot be used", text(certificate, "name")))
        )
    });
    format!("service {name} ({share}{protocol}): {endpoints}{}", certificate.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_says_what_the_proxy_answers() {
        let plain = |answer: &Value| anstream::adapter::strip_str(&verdict(answer)).to_string();
        let outcome = json!({"route": "a", "rule": 0, "matchIndex": 0, "host": "*", "path": "PathPrefix /", "unservable": "x"});
        assert_eq!(plain(&json!({"outcome": null, "refused": null})), "no rule matches: the proxy answers 404");
        let unmatched = json!({"outcome": null, "refused": null, "unmatched": "host matched, no path matched \"/x\""});
        assert_eq!(plain(&unmatched), "no rule matches: the proxy answers 404\n  host matched, no path matched \"/x\"");
        assert!(plain(&json!({"outcome": outcome})).ends_with("unservable: the proxy answers 500: x"));
        let of_grpc = json!({"outcome": null, "refused": null, "grpc": true});
        assert_eq!(plain(&of_grpc), "no rule matches: the proxy answers UNIMPLEMENTED");
        assert!(plain(&json!({"outcome": outcome, "grpc": true})).ends_with("the proxy answers UNAVAILABLE: x"));
        let refused = json!({"outcome": null, "refused": {"status": 501, "detail": "the method is not known"}});
        assert_eq!(plain(&refused), "no rule is asked: the proxy answers 501: the method is not known");
    }

    #[test]
    fn an_explanation_says_where_requests_and_copies_go() {
        let plain = |line: String| anstream::adapter::strip_str(&line).to_string();
        let service = json!({"service": "s", "exists": true, "endpoints": [{"address": "h:1"}, {"address": "h:2"}], "weight": 3});
        assert_eq!(plain(backend_line(&service)), "service s (weight 3): h:1, h:2");
        let mut over_tls = service;
        over_tls["protocol"] = json!("https");
        over_tls["clientCertificate"] = json!({"name": "c", "served": true});
        assert_eq!(plain(backend_line(&over_tls)), "service s (weight 3, https): h:1, h:2");
        over_tls["clientCertificate"]["served"] = json!(false);
        assert!(plain(backend_line(&over_tls)).ends_with("h:1, h:2; its client certificate c does not exist or cannot be used"));
        let part = |numerator: u32| json!({"numerator": numerator, "denominator": 100});
        let shadow = json!({"service": "shadow", "exists": false, "endpoints": null, "fraction": part(5)});
        assert_eq!(plain(mirror_line(&shadow)), "to service shadow (5 of 100): does not exist");
        let all = json!({"service": "idle", "exists": true, "endpoints": [], "fraction": part(100)});
        assert_eq!(plain(mirror_line(&all)), "to service idle (all): no endpoints");
    }

    #[test]
    fn rows_show_what_matters() {
        let kind = |name, plural| Kind { name, plural };
        let route = json!({"name": "a", "revision": 3, "updatedAt": "t", "spec": {"hostnames": ["x", "y"], "rules": [{}, {}]}});
        assert_eq!(row(kind("Route", "routes"), &route), ["a", "3", "t", "x,y", "2"]);
        assert_eq!(row(kind("GRPCRoute", "grpcroutes"), &route), row(kind("Route", "routes"), &route));
        let service = json!({"name": "s", "revision": 4, "updatedAt": "t", "spec": {"endpoints": [{"address": "h:1"}]}});
        assert_eq!(row(kind("Service", "services"), &service), ["s", "4", "t", "http1", "h:1"]);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["a.com".to_owned(), "*.a.com".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2031, 5, 6);
        let chain = parameters.self_signed(&key).unwrap().pem();
        let mut certificate =
            json!({"name": "c", "revision": 5, "updatedAt": "t", "spec": {"certificate": chain, "default": true}});
        let shown = row(kind("Certificate", "certificates"), &certificate);
        assert_eq!(shown, ["c", "5", "t", "*.a.com,a.com,*", "2031-05-06T00:00:00Z"]);
        certificate["spec"]["certificate"] = json!("later");
        assert_eq!(row(kind("Certificate", "certificates"), &certificate)[3..], ["?", "?"]);
    }

    #[test]
    fn a_question_keeps_repeated_headers() {
        let headers = [("X-A".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())];
        let question = question("http://h/p", "GET", &headers, Some("public"));
        assert_eq!(question["headers"], json!({"x-a": ["1", "2"]}));
        assert_eq!(question["listener"], "public");
    }

    #[test]
    fn a_question_without_a_host_is_refused() {
        let host = [("Host".to_owned(), "a.com".to_owned())];
        let expected = "/x names no host, and the proxy answers 400 to a request without one: give the whole URL (http://HOST/x), or \
                        the host with -H 'Host: HOST'";
        assert_eq!(without_host("/x", &[]).as_deref(), Some(expected));
        assert!(without_host("*", &[]).is_some());
        for (url, headers) in [("/x", &host[..]), ("http://a.com/x", &[]), ("a.com", &[]), ("no url", &[])] {
            assert_eq!(without_host(url, headers), None, "{url}");
        }
    }

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(segment("a/../b?x"), "a%2F%2E%2E%2Fb%3Fx");
    }
}
