//! `POST /v1/explain`: which rule of the live table, or of an earlier one, answers a request, and why the others do not.
//!
//! What the proxy refuses before it asks a rule is told as it is there: a target that it would not take is a fault of the question, a
//! method that it does not pass on is answered with `refused`, the status and the reason, and no rule.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use serde_json::{Value, json};

use super::Shared;
use super::body::{Received, offload};
use super::call::Call;
use super::content::{Fields, at, type_of};
use super::problem::Problem;
use super::query::Parameters;
use super::render::json_at;
use crate::model::path::{EscapedSlashes, is_whole_server, normalize};
use crate::model::sender::{self, Sender};
use crate::model::spec::{FieldError, Filter, RequestMirror};
use crate::model::{MethodRefusal, Name, Revision, hostname};
use crate::table::{Matched, RequestView, Snapshot, is_grpc};

/// A listener, as far as it matters for matching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Where it listens, as configured: listeners of one address share its requests.
    pub address: SocketAddr,
    /// The hosts that it takes; `None`: all.
    pub hostname: Option<String>,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Networks whose senders are believed what they say of others.
    pub trusted_proxies: Vec<(IpAddr, u8)>,
    /// What it does with `%2f` in a path.
    pub escaped_slashes: EscapedSlashes,
}

/// Who asks, where the question does not say: somebody at the node itself.
const SOURCE_DEFAULT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// `POST /v1/explain`
pub(crate) async fn post(
    State(shared): State<Arc<Shared>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Parameters::read(&parts.uri, &[])?;
    let received = Received::read(&parts, body, &shared.bodies, call.deadline).await?;
    let (question, _share) = received.json().await?;
    let question = Question::read(&question, &shared.admin.listeners()).map_err(Problem::invalid)?;
    let snapshot = snapshot_at(&shared, question.revision).await?;
    let view = question.view();
    let refusal = question.refusal();
    let mut explanation = snapshot.explain(&view);
    if refusal.is_some() {
        // The proxy asks no rule.
        (explanation.outcome, explanation.candidates, explanation.truncated) = (None, Vec::new(), false);
        explanation.unmatched = None;
    }
    let mut answer = serde_json::to_value(&explanation)
        .map_err(|error| Problem::internal(format!("the explanation cannot be written: {error}")))?;
    answer["request"] = json!({"listener": view.listener, "host": view.host, "path": view.path, "method": view.method.as_str()});
    // Whether a fault would be told by a status of gRPC.
    answer["grpc"] = json!(refusal.is_none() && is_grpc(view.method, view.headers));
    let matched = explanation.outcome.and_then(|_| snapshot.find(&view));
    answer["backends"] = matched.as_ref().map_or_else(|| json!([]), |matched| backends(&snapshot, matched));
    answer["mirrors"] = matched.as_ref().map_or_else(|| json!([]), |matched| mirrors(&snapshot, matched));
    answer["refused"] = json!(refusal.map(|(status, detail)| json!({"status": status.as_u16(), "detail": detail})));
    Ok(json_at(StatusCode::OK, snapshot.revision, &answer))
}

/// The live table, or that of an earlier revision, made of it by undoing what came after.
async fn snapshot_at(shared: &Shared, revision: Option<Revision>) -> Result<Arc<Snapshot>, Problem> {
    let live = shared.admin.live.load();
    let Some(revision) = revision.filter(|revision| *revision != live.revision) else { return Ok(live) };
    let state = shared.admin.cluster.state();
    if revision > live.revision {
        let detail = format!("revision {revision} is not live on this node, which is at {}", live.revision);
        return Err(Problem::not_found(detail).at(live.revision));
    }
    let newest = state.revision();
    let gone = move || Problem::gone(format!("history no longer holds what came after revision {revision}")).at(newest);
    offload(usize::MAX, move || {
        let present = state.at(live.revision).ok_or_else(gone)?;
        let past = state.at(revision).ok_or_else(gone)?;
        Ok(Arc::new(live.updated(&present, &past)))
    })
    .await
}

/// Where the answering rule sends the request.
fn backends(snapshot: &Snapshot, matched: &Matched) -> Value {
    let references = matched.rule.rule.backend_refs.iter().map(|reference| {
        let mut backend = service(snapshot, &reference.name);
        backend["weight"] = json!(reference.weight);
        backend
    });
    references.collect()
}

/// Where the answering rule sends copies of the request, and of which part of its requests.
fn mirrors(snapshot: &Snapshot, matched: &Matched) -> Value {
    let mirrors = matched.rule.rule.filters.iter().filter_map(|filter| match filter {
        Filter::RequestMirror(mirror) => Some(mirror),
        _ => None,
    });
    let mirrors = mirrors.map(|RequestMirror { service: name, share }| {
        let mut mirror = service(snapshot, name);
        mirror["fraction"] = json!({"numerator": share.numerator, "denominator": share.denominator});
        mirror
    });
    mirrors.collect()
}

/// A service that a rule names, with its endpoints if it exists.
fn service(snapshot: &Snapshot, name: &Name) -> Value {
    let service = snapshot.service(name);
    let endpoints = service.map(|service| {
        let endpoints = service.spec.endpoints.iter();
        endpoints.map(|endpoint| json!({"address": endpoint.address, "weight": endpoint.weight})).collect::<Vec<_>>()
    });
    let protocol = service.map(|service| service.spec.protocol.as_str());
    let certificate = service.and_then(|service| service.spec.client_certificate()).map(|certificate| {
        let is_served = snapshot.certificate(certificate).is_some();
        json!({"name": certificate.as_str(), "served": is_served})
    });
    json!({
        "service": name.as_str(), "exists": service.is_some(), "endpoints": endpoints, "protocol": protocol,
        "clientCertificate": certificate,
    })
}

/// The request that is asked about.
#[derive(Debug)]
struct Question {
    listener: String,
    /// Whether a listener of the address takes the host.
    is_taken: bool,
    host: String,
    path: String,
    query: Option<String>,
    method: Method,
    headers: HeaderMap,
    /// The revision that it is about; `None`: the live one.
    revision: Option<Revision>,
}

impl Question {
    fn read(body: &Value, listeners: &[Listener]) -> Result<Question, Vec<FieldError>> {
        let fields = Fields::read(body, "", &["method", "url", "headers", "listener", "sourceAddress", "revision"])?;
        Question::of(&fields, listeners).map_err(|error| vec![error])
    }

    fn of(fields: &Fields<'_>, listeners: &[Listener]) -> Result<Question, FieldError> {
        let method = fields.get("method").map_or(Ok("GET"), |_| fields.string("method"))?;
        let method = method.parse().map_err(|_| at("/method", format!("{method:?} is not a method")))?;
        let mut headers = headers(fields.get("headers"))?;
        let url = fields.string("url")?;
        if url.contains('#') {
            return Err(at("/url", "a fragment (`#...`) is not sent to a server: leave it out"));
        }
        let uri: Uri = url.parse().map_err(|error| at("/url", format!("{url:?} is not a URL: {error}")))?;
        if let Some(scheme) = uri.scheme_str().filter(|scheme| !["http", "https"].contains(scheme)) {
            return Err(at("/url", format!("a URL has the scheme http or https, not {scheme}")));
        }
        let named = listener(fields, uri.port_u16(), listeners)?;
        let host = host(&uri, &mut headers)?;
        let taking = taking(named, listeners, &host);
        let listener = taking.unwrap_or(named);
        set_true_fields(&mut headers, listener, source(fields)?)?;
        let path = match is_whole_server(&method, uri.path()) {
            true => Cow::Borrowed("*"),
            false => normalize(uri.path(), listener.escaped_slashes).map_err(|error| at("/url", error.to_string()))?,
        };
        Ok(Question {
            listener: listener.name.clone(),
            is_taken: taking.is_some(),
            host,
            path: path.into_owned(),
            query: uri.query().map(str::to_owned),
            method,
            headers,
            revision: revision(fields)?,
        })
    }

    /// What the proxy answers before it asks a rule.
    fn refusal(&self) -> Option<(StatusCode, &'static str)> {
        let refusal = MethodRefusal::of(&self.method).map(|refusal| (refusal.status(), refusal.detail()));
        refusal.or((!self.is_taken).then_some((StatusCode::NOT_FOUND, "no listener of this address takes the host")))
    }

    fn view(&self) -> RequestView<'_> {
        RequestView {
            listener: &self.listener,
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
        }
    }
}

fn revision(fields: &Fields<'_>) -> Result<Option<Revision>, FieldError> {
    let Some(value) = fields.get("revision") else { return Ok(None) };
    let number = value.as_u64().ok_or_else(|| at("/revision", format!("expected a revision, found {}", type_of(value))))?;
    Ok(Some(Revision(number)))
}

/// The address that the request comes from.
fn source(fields: &Fields<'_>) -> Result<IpAddr, FieldError> {
    if fields.get("sourceAddress").is_none() {
        return Ok(SOURCE_DEFAULT);
    }
    let text = fields.string("sourceAddress")?;
    text.parse().map_err(|_| at("/sourceAddress", format!("{text:?} is not an IP address")))
}

/// Sets what rules see of the sender, as the proxy does before it asks them. The request comes without a certificate of the client's.
fn set_true_fields(headers: &mut HeaderMap, listener: &Listener, source: IpAddr) -> Result<(), FieldError> {
    // Without a host the proxy asks no rule.
    let Some(authority) = headers.get(header::HOST).cloned() else { return Ok(()) };
    let address = HeaderValue::try_from(source.to_string()).map_err(|_| at("/sourceAddress", "no value of a header"))?;
    let is_trusted = sender::belongs_to(&listener.trusted_proxies, source);
    let makes_claims = headers.keys().any(|name| sender::is_claim(name.as_str()));
    sender::set_client_certificate(headers, None, is_trusted);
    let sender = Sender { address: &address, is_trusted, is_secured: listener.tls, makes_claims, version: Version::HTTP_11 };
    sender::set_forwarded(headers, &authority, true, sender);
    Ok(())
}

/// The listener that is named, or the one at the URL's port, or the first.
fn listener<'a>(fields: &Fields<'_>, port: Option<u16>, listeners: &'a [Listener]) -> Result<&'a Listener, FieldError> {
    let given = fields.get("listener").map(|_| fields.string("listener")).transpose()?;
    let at_port = || port.and_then(|port| listeners.iter().find(|listener| listener.address.port() == port));
    let found = match given {
        Some(name) => listeners.iter().find(|listener| listener.name == name),
        None => at_port().or(listeners.first()),
    };
    found.ok_or_else(|| {
        let known: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
        at("/listener", format!("this node has no such listener; it has {}", known.join(", ")))
    })
}

/// The listener that takes `host` among those that share the address of `named`: the one with the most specific hostname.
fn taking<'a>(named: &'a Listener, listeners: &'a [Listener], host: &str) -> Option<&'a Listener> {
    let shares = |other: &Listener| other.name == named.name || (other.address == named.address && named.address.port() != 0);
    hostname::taking(listeners.iter().filter(|other| shares(other)), |other| other.hostname.as_deref(), host)
}

/// The URL's host, else that of the `Host` header, as the proxy reads it: in lower case, without port and last dot. Leaves what it is of in `Host`.
fn host(uri: &Uri, headers: &mut HeaderMap) -> Result<String, FieldError> {
    if let Some(authority) = uri.authority() {
        let field = HeaderValue::from_str(authority.as_str()).map_err(|_| at("/url", "its host is no value of a header"))?;
        headers.insert(header::HOST, field);
    }
    let path = if uri.authority().is_some() { "/url" } else { "/headers/host" };
    let mut given = headers.get_all(header::HOST).iter();
    let Some(field) = given.next() else { return Ok(String::new()) };
    if given.next().is_some() {
        return Err(at(path, "Host stands more than once: the proxy answers 400"));
    }
    let host = field.to_str().ok().and_then(hostname::host_of);
    let host = host.ok_or_else(|| at(path, format!("{field:?} is not a host and port: the proxy answers 400")))?;
    Ok(hostname::without_dot(host).to_ascii_lowercase())
}

/// An object of names, each with a value or a list of values.
fn headers(value: Option<&Value>) -> Result<HeaderMap, FieldError> {
    let mut headers = HeaderMap::new();
    let Some(value) = value else { return Ok(headers) };
    let object = value.as_object().ok_or_else(|| at("/headers", format!("expected an object, found {}", type_of(value))))?;
    for (text, values) in object {
        let path = format!("/headers/{text}");
        let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| at(&path, "not a header name"))?;
        let values = values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice);
        for value in values {
            let text = value.as_str().ok_or_else(|| at(&path, format!("expected a string, found {}", type_of(value))))?;
            let value = HeaderValue::from_str(text).map_err(|_| at(&path, "not a header value"))?;
            let appended = headers.try_append(name.clone(), value);
            appended.map_err(|_| at("/headers", "too many headers"))?;
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<Question, Vec<FieldError>> {
        let listener = |name: &str, port: u16, hostname: Option<&str>| Listener {
            name: name.to_owned(),
            address: ([127, 0, 0, 1], port).into(),
            hostname: hostname.map(str::to_owned),
            tls: name == "inner",
            trusted_proxies: vec![([10, 0, 0, 0].into(), 8)],
            escaped_slashes: EscapedSlashes::Refuse,
        };
        let shared = [listener("wild", 3, Some("*.example.com")), listener("exact", 3, Some("a.example.com"))];
        Question::read(&body, &[&[listener("public", 1, None), listener("inner", 2, None)], &shared[..]].concat())
    }

    #[test]
    fn a_question_is_read_as_the_proxy_reads_a_request() {
        let question =
            read(json!({"url": "http://Shop.Example:8080/a/../b?x=1", "headers": {"x-a": ["1", "2"]}})).expect("a question");
        assert_eq!(
            (question.host.as_str(), question.path.as_str(), question.query.as_deref()),
            ("shop.example", "/b", Some("x=1"))
        );
        assert_eq!((question.listener.as_str(), question.method), ("public", Method::GET));
        assert_eq!(question.headers.get_all("x-a").iter().count(), 2);
        let question = read(json!({"url": "/b", "headers": {"Host": "A:1"}, "listener": "inner"})).expect("a question");
        assert_eq!((question.host.as_str(), question.listener.as_str()), ("a", "inner"));
        for (host, sent) in [("h.example.", "H.example.:80"), ("[::1]", "[::1]:8080")] {
            let question = read(json!({"url": format!("http://{sent}/"), "headers": {"host": "other"}})).expect("a question");
            assert_eq!(
                (question.host.as_str(), question.headers["host"].as_bytes()),
                (host.trim_end_matches('.'), sent.as_bytes())
            );
        }
        let question = read(json!({"url": "http://a:2/"})).expect("a question");
        assert_eq!(question.listener, "inner", "the one at the port");
        let question = read(json!({"url": "*", "method": "OPTIONS", "headers": {"host": "a"}})).expect("a question");
        assert_eq!((question.path.as_str(), question.host.as_str()), ("*", "a"));
    }

    #[test]
    fn rules_see_of_the_sender_what_the_proxy_sets() {
        let seen = |question: Value| {
            let question = read(question).expect("a question");
            let of = |name: &str| question.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
            ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via", "x-real-ip", "x-forwarded-client-cert"].map(of)
        };
        let url = "http://A.example:81/";
        let claims = json!({
            "X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "ftp", "Via": "1.0 a", "X-Real-IP": "9.9.9.9", "X-Forwarded-Client-Cert": "Hash=1",
        });
        let set = ["127.0.0.1", "http", "A.example:81", "1.1 raftgate", "", ""];
        assert_eq!(seen(json!({"url": url})), set);
        assert_eq!(seen(json!({"url": url, "headers": claims})), set);
        assert_eq!(seen(json!({"url": url, "listener": "inner"}))[1], "https");
        assert_eq!(seen(json!({"url": url, "sourceAddress": "2001:db8::1"}))[0], "2001:db8::1");
        let believed = ["9.9.9.9, 10.1.2.3", "ftp", "A.example:81", "1.0 a, 1.1 raftgate", "9.9.9.9", "Hash=1"];
        assert_eq!(seen(json!({"url": url, "headers": claims, "sourceAddress": "10.1.2.3"})), believed);
    }

    #[test]
    fn the_most_specific_listener_of_the_address_takes_the_request() {
        for (host, listener, is_taken) in
            [("a.example.com", "exact", true), ("b.example.com", "wild", true), ("example.org", "wild", false)]
        {
            let question = read(json!({"url": format!("http://{host}/"), "listener": "wild"})).expect("a question");
            assert_eq!((question.listener.as_str(), question.is_taken), (listener, is_taken), "{host}");
            assert_eq!(question.refusal().map(|(status, _)| status.as_u16()), (!is_taken).then_some(404), "{host}");
        }
    }

    #[test]
    fn faults_are_named_by_their_field() {
        for (body, path) in [
            (json!({}), "/url"),
            (json!({"url": "http://"}), "/url"),
            (json!({"url": "/a%2fb"}), "/url"),
            (json!({"url": "*"}), "/url"),
            (json!({"url": "ftp://a/b"}), "/url"),
            (json!({"url": "http://a/b#c"}), "/url"),
            (json!({"url": "/", "method": "GET IT"}), "/method"),
            (json!({"url": "/", "listener": "outer"}), "/listener"),
            (json!({"url": "http://x@h.example/"}), "/url"),
            (json!({"url": "http://h.example:99999/"}), "/url"),
            (json!({"url": "/", "headers": {"host": "*.h.example"}}), "/headers/host"),
            (json!({"url": "/", "headers": {"host": ["a", "b"]}}), "/headers/host"),
            (json!({"url": "/", "headers": {"x": 1}}), "/headers/x"),
            (json!({"url": "/", "headers": {"x y": "1"}}), "/headers/x y"),
            (json!({"url": "/", "revision": "3"}), "/revision"),
            (json!({"url": "/", "revision": -1}), "/revision"),
            (json!({"url": "/", "sourceAddress": "10.0.0.300"}), "/sourceAddress"),
            (json!({"url": "/", "uri": "/"}), "/uri"),
        ] {
            assert_eq!(read(body).expect_err(path)[0].path, path);
        }
    }
}
