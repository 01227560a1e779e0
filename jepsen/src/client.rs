//! A client of the cluster: one operation at a time, each recorded, each answer classified.
//!
//! What an answer means is decided by [`judge_write`] alone. A write is `fail` only where the gateway says that it was not applied, or
//! where no connection came to be; whatever else is not a success is `info`, and the client goes on under the number of a new process.

mod answer;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value as Json, json};

use crate::cluster::Cluster;
use crate::history::{Answered, Key, Kind, Op, Polled, Process, Read, ReadAll, Value, Written};
use crate::http;
use crate::record::Recorder;
use crate::routes;

pub(crate) use answer::{Answer, Failure, judge_write};

/// The deadline that a client gives the gateway, and the one that it keeps itself.
const GATEWAY_TIMEOUT: &str = "2s";
const CLIENT_TIMEOUT: Duration = Duration::from_secs(4);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The most items of a page.
const PAGE_ITEMS: usize = 1000;

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    cluster: Arc<Cluster>,
    recorder: Arc<Recorder>,
    http: reqwest::Client,
    process: Process,
}

/// A write that a client wants.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wish {
    pub(crate) writes: Vec<(Key, Value)>,
    pub(crate) preconditions: Vec<(Key, u64)>,
    pub(crate) idempotency_key: Option<String>,
}

impl Wish {
    /// Whatever stands there now.
    pub(crate) fn blind(writes: Vec<(Key, Value)>) -> Wish {
        Wish { writes, preconditions: Vec::new(), idempotency_key: None }
    }
}

impl Client {
    /// A client with connections of its own.
    pub(crate) fn new(cluster: &Arc<Cluster>, recorder: &Arc<Recorder>) -> anyhow::Result<Client> {
        let builder = http::builder(CONNECT_TIMEOUT, CLIENT_TIMEOUT);
        let http = builder.redirect(reqwest::redirect::Policy::none()).build()?;
        let process = recorder.new_process();
        Ok(Client { cluster: Arc::clone(cluster), recorder: Arc::clone(recorder), http, process })
    }

    /// Writes through a node.
    pub(crate) async fn write(&mut self, node: u32, wish: &Wish) -> (Kind, Option<Written>) {
        let op = |made| Op::Write {
            writes: wish.writes.clone(),
            preconditions: wish.preconditions.clone(),
            idempotency_key: wish.idempotency_key.clone(),
            made,
        };
        self.invoke(node, op(None));
        let (kind, made, error) = judge_write(self.send(self.write_request(node, wish)).await);
        self.end(node, kind, op(made.clone()), error);
        (kind, made)
    }

    /// Reads routes that are all of one pair, or one route.
    pub(crate) async fn read(&mut self, node: u32, keys: &[Key]) -> Option<Read> {
        let op = |seen| Op::Read { keys: keys.to_vec(), seen };
        self.invoke(node, op(None));
        let path = match keys {
            [only] => format!("/v1/routes/{}", routes::name(*only)),
            pair => format!("/v1/routes?prefix={}", routes::pair_prefix(pair[0])),
        };
        let answer = self.send(self.request(node, Method::GET, &path)).await;
        self.end_read(node, answer.and_then(|answer| answer.read(keys)), op)
    }

    /// Reads all routes in one answer.
    pub(crate) async fn read_all(&mut self, node: u32) -> Option<ReadAll> {
        let op = |seen| Op::ReadAll { seen };
        self.invoke(node, op(None));
        let path = format!("/v1/routes?prefix={}&limit={PAGE_ITEMS}", routes::PREFIX);
        let answer = self.send(self.request(node, Method::GET, &path)).await;
        self.end_read(node, answer.and_then(|answer| answer.read_all()), op)
    }

    /// Asks a node what it serves.
    pub(crate) async fn poll(&mut self, node: u32) -> Option<Polled> {
        let op = |seen| Op::Poll { seen };
        self.invoke(node, op(None));
        let life = self.cluster.node(node).life();
        let answer = self.send(self.request(node, Method::GET, "/v1/table")).await;
        let polled = answer.and_then(|answer| self.same_life(node, life)?.polled(&answer));
        self.end_read(node, polled, op)
    }

    /// Sends a request for a key's host through a node's proxy.
    pub(crate) async fn proxied(&mut self, node: u32, key: Key) -> Option<Answered> {
        let op = |answer| Op::Request { key, answer };
        self.invoke(node, op(None));
        let life = self.cluster.node(node).life();
        let url = format!("http://{}/", self.cluster.node(node).proxy);
        let answer = self.send(self.http.get(url).header("host", routes::hostname(key))).await;
        let answered = answer.and_then(|answer| Ok(self.same_life(node, life)?.answered(&answer)));
        self.end_read(node, answered, op)
    }

    /// An answer is of the life in which it was asked for; one that spans a restart is nobody's.
    fn same_life(&self, node: u32, life: u32) -> Result<Life, Failure> {
        if self.cluster.node(node).life() == life {
            Ok(Life(life))
        } else {
            Err(Failure::unknown("the node was restarted meanwhile"))
        }
    }

    fn invoke(&self, node: u32, op: Op) {
        self.recorder.invoke(self.process, Some(node), op);
    }

    fn end(&mut self, node: u32, kind: Kind, op: Op, error: Option<String>) {
        self.recorder.end(self.process, kind, Some(node), op, error);
        if kind == Kind::Info {
            self.process = self.recorder.new_process();
        }
    }

    /// Nothing changes by a read: one without an answer certainly did nothing.
    fn end_read<T: Clone>(&mut self, node: u32, seen: Result<T, Failure>, op: impl Fn(Option<T>) -> Op) -> Option<T> {
        match seen {
            Ok(seen) => {
                self.end(node, Kind::Ok, op(Some(seen.clone())), None);
                Some(seen)
            }
            Err(failure) => {
                self.end(node, Kind::Fail, op(None), Some(failure.text));
                None
            }
        }
    }

    fn request(&self, node: u32, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.cluster.node(node).admin);
        self.http.request(method, url).header("raftgate-timeout", GATEWAY_TIMEOUT)
    }

    /// One route is a PUT with a condition, anything else a transaction.
    fn write_request(&self, node: u32, wish: &Wish) -> reqwest::RequestBuilder {
        let alone = match (wish.writes.as_slice(), wish.preconditions.as_slice()) {
            (&[(key, value)], []) => Some((key, value, None)),
            (&[(key, value)], &[(same, revision)]) if same == key => Some((key, value, Some(revision))),
            _ => None,
        };
        let request = match alone {
            Some((key, value, condition)) => {
                let request = self.request(node, Method::PUT, &format!("/v1/routes/{}", routes::name(key)));
                let request = match condition {
                    None => request,
                    Some(0) => request.header("if-none-match", "*"),
                    Some(revision) => request.header("if-match", format!("\"{revision}\"")),
                };
                request.json(&routes::spec(key, value))
            }
            None => self.request(node, Method::POST, "/v1/transactions").json(&transaction(wish)),
        };
        match &wish.idempotency_key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, Failure> {
        let answer = request.send().await.map_err(|error| Failure::of(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = answer.bytes().await.map_err(|error| Failure::of(&error))?;
        Ok(Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Json::Null) })
    }
}

/// Which life of a node answered.
struct Life(u32);

impl Life {
    fn polled(&self, answer: &Answer) -> Result<Polled, Failure> {
        let table = answer.success()?;
        if table["publishedAt"].is_null() {
            return Err(Failure::unknown("the node serves no table yet"));
        }
        let seen = table["revision"].as_u64().zip(table["digest"].as_str());
        let (revision, digest) = seen.ok_or_else(|| Failure::unknown(format!("not a table: {table}")))?;
        Ok(Polled { revision, digest: digest.to_owned(), life: self.0 })
    }

    fn answered(&self, answer: &Answer) -> Answered {
        Answered {
            status: answer.status.as_u16(),
            revision: answer.revision(),
            value: answer.header(routes::VALUE_HEADER).and_then(|text| text.parse().ok()),
            backend: answer.header(routes::BACKEND_HEADER).map(str::to_owned),
            proxy_status: answer.header("proxy-status").map(str::to_owned),
            life: self.0,
        }
    }
}

fn transaction(wish: &Wish) -> Json {
    let preconditions = wish.preconditions.iter();
    let preconditions =
        preconditions.map(|(key, revision)| json!({"kind": "Route", "name": routes::name(*key), "revision": revision}));
    let operations = wish.writes.iter();
    let operations = operations.map(
        |(key, value)| json!({"op": "put", "kind": "Route", "name": routes::name(*key), "spec": routes::spec(*key, *value)}),
    );
    json!({"preconditions": preconditions.collect::<Vec<_>>(), "operations": operations.collect::<Vec<_>>()})
}

/// Waits until the service that each backend is exists.
pub(crate) async fn put_service(cluster: &Cluster, name: &str, address: &str) -> anyhow::Result<()> {
    let body = json!({"endpoints": [{"address": address}]});
    let path = format!("/v1/services/{name}");
    let (status, answer) = cluster.call(1, Method::PUT, &path, &body).await?;
    let success = StatusCode::from_u16(status).is_ok_and(|status| status.is_success());
    anyhow::ensure!(success, "PUT {path}: {status} {answer}");
    Ok(())
}
