//! Calls of the admin API.
//!
//! Several servers may be named. A server that cannot be reached is passed over for the next; the first that answers is the one, and what
//! it answers stands. A write carries an idempotency key, the same at every server: where an answer got lost on the way, the write is sent
//! again elsewhere and takes effect once all the same.

mod upload;

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use super::arguments::Connection;
use crate::tls::{ClientFiles, advice, client_config};
pub(super) use upload::ANSWER_TIME_MAX;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a call without a good answer comes to.
#[derive(Debug, Error)]
pub(super) enum CallError {
    /// No server answered.
    #[error("no server answered:{}", lines(.0))]
    Unreachable(Vec<String>),
    /// A server refused the call.
    #[error("{0}")]
    Refused(Problem),
    /// An answer that is none of the admin API.
    #[error("{server}: {message}")]
    NotAnAnswer {
        /// Who answered.
        server: String,
        /// What is wrong with it.
        message: String,
    },
    /// An upload without an answer.
    #[error("{server}: {message}\n  {}", after_upload(*.is_sent))]
    BrokenOff {
        /// Who should have answered.
        server: String,
        /// What happened.
        message: String,
        /// Whether the server may have all of it.
        is_sent: bool,
    },
}

fn after_upload(is_sent: bool) -> String {
    if is_sent { format!("it may have been applied all the same; {AGAIN}") } else { BROKEN_OFF.to_owned() }
}

/// What came of an upload that did not get to its end.
pub(super) const BROKEN_OFF: &str = "the upload was broken off, and nothing was applied";

/// What to do about an upload that may have been applied.
pub(super) const AGAIN: &str = "the same command can be run again: what is so already is not changed";

fn lines(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("\n  {reason}")).collect()
}

/// A refusal, as RFC 9457 has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: u16,
    pub(super) title: String,
    pub(super) detail: String,
    /// Pointer and message of each fault.
    pub(super) errors: Vec<(String, String)>,
    /// `notApplied` or `unknown`, of a write.
    pub(super) outcome: Option<String>,
}

impl Problem {
    fn read(status: StatusCode, body: &Value) -> Problem {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let fault = |error: &Value| (text(error, "path").unwrap_or_default(), text(error, "message").unwrap_or_default());
        Problem {
            status: status.as_u16(),
            title: text(body, "title").unwrap_or_else(|| status.canonical_reason().unwrap_or("refused").to_owned()),
            detail: text(body, "detail").unwrap_or_default(),
            errors: body
                .get("errors")
                .and_then(Value::as_array)
                .map(|errors| errors.iter().map(fault).collect())
                .unwrap_or_default(),
            outcome: text(body, "outcome"),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.title, self.status)?;
        // A node's detail says the first fault as well.
        let is_said_below = self.errors.first().is_some_and(|(_, message)| self.detail.contains(message.as_str()));
        if !self.detail.is_empty() && !is_said_below {
            write!(f, ": {}", self.detail)?;
        }
        for (path, message) in &self.errors {
            match path.as_str() {
                "" => write!(f, "\n  {message}")?,
                path => write!(f, "\n  {path}: {message}")?,
            }
        }
        match self.outcome.as_deref() {
            Some("unknown") => write!(f, "\n  it may have been applied all the same"),
            Some(_) => write!(f, "\n  nothing was applied"),
            None => Ok(()),
        }
    }
}

/// Calls servers of one cluster.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    servers: Vec<String>,
    token: Option<String>,
    timeout: Duration,
}

/// What is sent to one server after the other until one answers.
struct Call<'a> {
    method: &'a Method,
    path: &'a str,
    body: Option<Bytes>,
    key: Option<String>,
    /// What the node may take beyond its deadline.
    longer: Duration,
}

impl<'a> Call<'a> {
    fn new(method: &'a Method, path: &'a str, body: Option<Bytes>) -> Call<'a> {
        Call { method, path, body, key: None, longer: Duration::ZERO }
    }

    fn keyed(self) -> Call<'a> {
        Call { key: Some(Uuid::new_v4().to_string()), ..self }
    }
}

/// One attempt at one server.
enum Attempt {
    Answered(Value),
    Refused(Problem),
    /// Nobody answered there; another server may.
    Unreachable(String),
}

impl Client {
    /// A client for the servers of `connection`.
    pub(super) fn new(connection: &Connection) -> anyhow::Result<Client> {
        let http = builder(&files(connection)?)?
            .connect_timeout(Duration::from_secs(2))
            .tcp_keepalive(Duration::from_secs(15))
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let is_secured = connection.ca.is_some() || connection.cert.is_some();
        let servers = connection.server.iter().map(|server| base(server, is_secured)).collect();
        Ok(Client { http, servers, token: connection.token.clone(), timeout: connection.timeout })
    }

    /// `GET` of a path and query.
    pub(super) async fn get(&self, path: &str) -> Result<Value, CallError> {
        self.call(&Call::new(&Method::GET, path, None)).await
    }

    /// A `POST` that only asks.
    pub(super) async fn ask(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        self.call(&Call::new(&Method::POST, path, Some(json(body)))).await
    }

    /// A write, applied once however often it has to be sent.
    pub(super) async fn write(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CallError> {
        self.call(&Call::new(&method, path, body.map(json)).keyed()).await
    }

    /// A write whose JSON text is there already. `longer` is what the node may take beyond its deadline.
    pub(super) async fn write_text(
        &self,
        method: Method,
        path: &str,
        body: String,
        longer: Duration,
    ) -> Result<Value, CallError> {
        self.call(&Call { longer, ..Call::new(&method, path, Some(body.into())).keyed() }).await
    }

    /// A change of the cluster's members: sent again it finds what it wants done already.
    pub(super) async fn change(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CallError> {
        self.call(&Call::new(&method, path, body.map(json))).await
    }

    async fn call(&self, call: &Call<'_>) -> Result<Value, CallError> {
        self.first_answer(call).await.map(|(_, answer)| answer)
    }

    /// The first server that answers, and its answer.
    async fn first_answer(&self, call: &Call<'_>) -> Result<(&str, Value), CallError> {
        let mut unreachable = Vec::new();
        for server in &self.servers {
            match self.attempt(server, call).await? {
                Attempt::Answered(body) => return Ok((server, body)),
                Attempt::Refused(problem) => return Err(CallError::Refused(problem)),
                Attempt::Unreachable(reason) => unreachable.push(reason),
            }
        }
        Err(CallError::Unreachable(unreachable))
    }

    async fn attempt(&self, server: &str, call: &Call<'_>) -> Result<Attempt, CallError> {
        // The node answers by its own deadline; the rest is the way there and back.
        let time_max = self.timeout + call.longer + Duration::from_secs(2);
        let mut request = self.request(call.method, server, call.path, self.timeout).timeout(time_max);
        if let Some(key) = &call.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let received = match request.send().await {
            Ok(response) => receive(response).await,
            Err(error) => Err(error),
        };
        match received {
            Ok((status, bytes)) => Attempt::of(server, status, bytes),
            Err(error) => Ok(Attempt::Unreachable(format!("{server}: {}", innermost(&error)))),
        }
    }

    fn request(&self, method: &Method, server: &str, path: &str, timeout: Duration) -> RequestBuilder {
        let request = self.http.request(method.clone(), format!("{server}{path}"));
        let request = request.header("raftgate-timeout", format!("{}ms", timeout.as_millis()));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

impl Attempt {
    /// What the answer of `server` is.
    fn of(server: &str, status: StatusCode, bytes: Option<Vec<u8>>) -> Result<Attempt, CallError> {
        let strange = |message: String| CallError::NotAnAnswer { server: server.to_owned(), message };
        let Some(bytes) = bytes else { return Err(strange(format!("an answer over {ANSWER_BYTES_MAX} bytes"))) };
        match serde_json::from_slice(&bytes) {
            Ok(body) if status.is_success() => Ok(Attempt::Answered(body)),
            Ok(body) => Ok(Attempt::Refused(Problem::read(status, &body))),
            Err(_) => Err(strange(format!("{status} without JSON; is this an admin address?"))),
        }
    }
}

fn json(value: &Value) -> Bytes {
    value.to_string().into()
}

/// The status and the body, unless it is too long.
async fn receive(mut response: reqwest::Response) -> Result<(StatusCode, Option<Vec<u8>>), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Ok((response.status(), None));
        }
    }
    Ok((response.status(), Some(body)))
}

/// Calls of HTTP, and of HTTPS with what the caller brings.
pub(super) fn builder(files: &ClientFiles) -> anyhow::Result<reqwest::ClientBuilder> {
    let config = client_config(files).map_err(|error| anyhow::anyhow!("--{}: {error}", error.key))?;
    Ok(reqwest::Client::builder().tls_backend_preconfigured(config).no_proxy())
}

fn files(connection: &Connection) -> anyhow::Result<ClientFiles> {
    let identity = match (&connection.cert, &connection.key) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        (None, None) => None,
        (Some(_), None) => anyhow::bail!("--cert needs the certificate's key: --key FILE (or RAFTGATE_KEY)"),
        (None, Some(_)) => anyhow::bail!("--key needs the certificate: --cert FILE (or RAFTGATE_CERT)"),
    };
    let system = connection.server.iter().any(|server| base(server, identity.is_some()).starts_with("https:"));
    Ok(ClientFiles { ca: connection.ca.clone(), system, identity })
}

/// The base URL of a server given as `host:port` or as a URL. Whoever brings a CA or a certificate means TLS.
fn base(server: &str, is_secured: bool) -> String {
    let server = server.trim().trim_end_matches('/');
    match (server.contains("://"), is_secured) {
        (true, _) => server.to_owned(),
        (false, true) => format!("https://{server}"),
        (false, false) => format!("http://{server}"),
    }
}

/// The cause that tells most: `connection refused` rather than `error sending request`; and what to do, where a certificate is the cause.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    loop {
        // A library's error stands inside of one of input and output, which does not give it as its source.
        let inside = cause.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        let next = inside.map(|inside| inside as &dyn std::error::Error).or_else(|| cause.source());
        match next {
            Some(next) => cause = next,
            None => break,
        }
    }
    let is_no_http = cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
    let secured = is_no_http.then_some("this is no HTTP: a node with admin.tls is called by https://");
    match advice(cause).or(secured) {
        Some(advice) => format!("{cause}; {advice}"),
        None => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn connection(server: Vec<String>) -> Connection {
        let (ca, cert, key) = (None, None, None);
        Connection { server, token: Some("secret".to_owned()), ca, cert, key, timeout: Duration::from_secs(1) }
    }

    /// Takes one request and gives `answer`, or hangs up without one. Gives what it read.
    async fn serve_once(listener: TcpListener, answer: Option<String>) -> String {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"{\"a\":1}") {
            let mut chunk = [0; 1024];
            let count = socket.read(&mut chunk).await.unwrap();
            seen.extend_from_slice(&chunk[..count]);
        }
        if let Some(answer) = answer {
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
        String::from_utf8(seen).unwrap()
    }

    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    fn http(status: &str, body: &Value) -> String {
        let body = body.to_string();
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    fn key_of(request: &str) -> &str {
        request.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).unwrap()
    }

    #[tokio::test]
    async fn a_write_goes_on_to_the_next_server_under_the_same_key() {
        let (nobody, closed) = listen().await;
        drop(nobody);
        let (first, first_address) = listen().await;
        let (second, second_address) = listen().await;
        let first = tokio::spawn(serve_once(first, None));
        let second = tokio::spawn(serve_once(second, Some(http("200 OK", &json!({"revision": 7})))));
        let client = Client::new(&connection(vec![closed, first_address, second_address])).unwrap();
        let answer = client.write(Method::PUT, "/v1/routes/a", Some(&json!({"a": 1}))).await.unwrap();
        assert_eq!(answer["revision"], 7);
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!(key_of(&first), key_of(&second));
        assert!(second.contains("authorization: Bearer secret") && second.contains("raftgate-timeout: 1000ms"), "{second}");
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_is_printed_whole() {
        let (listener, address) = listen().await;
        let problem = json!({"title": "The content is invalid", "status": 422, "detail": "d", "outcome": "notApplied",
            "errors": [{"path": "/rules/0/matchs", "message": "unknown field"}]});
        let server = tokio::spawn(serve_once(listener, Some(http("422 Unprocessable Content", &problem))));
        let client = Client::new(&connection(vec![address, "127.0.0.1:1".to_owned()])).unwrap();
        let error = client.write(Method::PUT, "/v1/routes/a", Some(&json!({"a": 1}))).await.unwrap_err();
        server.await.unwrap();
        let expected = "The content is invalid (422): d\n  /rules/0/matchs: unknown field\n  nothing was applied";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn what_the_list_of_faults_says_is_said_once() {
        let problem = json!({"title": "The content is invalid", "detail": "/spec: \"a\" is unknown (and 1 more)",
            "errors": [{"path": "/spec", "message": "\"a\" is unknown"}, {"path": "", "message": "too long"}]});
        let problem = Problem::read(StatusCode::UNPROCESSABLE_ENTITY, &problem);
        assert_eq!(problem.to_string(), "The content is invalid (422)\n  /spec: \"a\" is unknown\n  too long");
    }

    #[test]
    fn whoever_brings_a_ca_or_a_certificate_means_tls() {
        let cases = [("h:1", false, "http://h:1"), ("h:1", true, "https://h:1"), ("http://h:1/", true, "http://h:1")];
        for (server, is_secured, expected) in cases {
            assert_eq!(base(server, is_secured), expected, "{server}");
        }
        let half = Connection { cert: Some("c.pem".into()), ..connection(vec!["h:1".to_owned()]) };
        assert!(Client::new(&half).unwrap_err().to_string().contains("--cert needs the certificate's key"));
        let missing = Connection { ca: Some("/nowhere/ca.pem".into()), ..connection(vec!["h:1".to_owned()]) };
        assert!(Client::new(&missing).unwrap_err().to_string().contains("--ca: file /nowhere/ca.pem: cannot be read"));
    }

    #[tokio::test]
    async fn a_node_that_speaks_tls_is_told_by_what_it_answers() {
        let (listener, address) = listen().await;
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            // An alert of TLS, to a request that is no handshake.
            assert!(socket.read(&mut [0; 1024]).await.unwrap() > 0);
            socket.write_all(b"\x15\x03\x03\x00\x02\x02\x2f").await.unwrap();
            let _ = socket.read_to_end(&mut Vec::new()).await;
        });
        let client = Client::new(&connection(vec![address])).unwrap();
        let error = client.get("/v1/cluster").await.unwrap_err().to_string();
        assert!(error.contains("a node with admin.tls is called by https://"), "{error}");
    }

    #[tokio::test]
    async fn nobody_there_names_every_server() {
        let client = Client::new(&connection(vec!["127.0.0.1:1".to_owned(), "http://127.0.0.1:2/".to_owned()])).unwrap();
        let error = client.get("/v1/cluster").await.unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:1: ") && error.contains("http://127.0.0.1:2: "), "{error}");
    }
}
