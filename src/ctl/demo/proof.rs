//! The proof: a change that is sent to each node is served by all three.

use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::backend::Backend;
use super::nodes::{Node, Nodes};
use crate::ctl::client::{self, Client};
use crate::ctl::print::{BAD, GOOD, STRONG, out, styled};
use crate::tls::ClientFiles;

/// What one proxy answered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    status: u16,
    revision: Option<u64>,
    path: Option<String>,
}

/// Sends one change to each node and asks all three proxies before and after it. True when every answer was right.
pub(super) async fn run(nodes: &Nodes, backend: &Backend) -> anyhow::Result<bool> {
    let http = client::builder(&ClientFiles::default())?.timeout(Duration::from_secs(5)).build()?;
    let service = json!({"endpoints": [{"address": backend.address.to_string()}]});
    let first = nodes.node(0).client()?;
    first.write(Method::PUT, "/v1/services/echo?wait=live", Some(&service)).await.context("making the service")?;
    out(format!("\n{}", styled(STRONG, "A change sent to each node, and what the three proxies answer:")));
    let mut all_hold = true;
    for node in nodes.iter() {
        all_hold &= change(&http, nodes, node).await?;
    }
    let verdict =
        if all_hold { styled(GOOD, "every change is served by all three nodes") } else { styled(BAD, "a change is missing") };
    out(format!("  {verdict}"));
    Ok(all_hold)
}

/// One change, sent to `node`.
async fn change(http: &reqwest::Client, nodes: &Nodes, node: &Node) -> anyhow::Result<bool> {
    let path = format!("/from-node-{}", node.id);
    let before = ask_all(http, nodes, &path).await?;
    let was_absent = before.iter().all(|seen| seen.status == 404);
    let started = Instant::now();
    let answer = put_route(&node.client()?, node.id, &path).await.with_context(|| format!("the change at node {}", node.id))?;
    let took = started.elapsed();
    let revision = answer.get("revision").and_then(Value::as_u64);
    let live = answer.get("live").and_then(Value::as_bool) == Some(true);
    let after = ask_all(http, nodes, &path).await?;
    let right = |seen: &Seen| seen.status == 200 && seen.revision == revision && seen.path.as_deref() == Some(path.as_str());
    let cells: Vec<String> = after.iter().zip(nodes.iter()).map(|(seen, at)| cell(seen, at, right(seen))).collect();
    let revision = revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string());
    let spent = format!("live everywhere in {:.1} ms", took.as_secs_f64() * 1000.0);
    out(format!("  PUT {path} at node {}: revision {revision}, {spent}   {}", node.id, cells.join("  ")));
    Ok(was_absent && live && after.iter().all(right))
}

async fn put_route(client: &Client, id: u64, path: &str) -> anyhow::Result<Value> {
    let spec = json!({"rules": [{
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
        "backendRefs": [{"name": "echo"}],
    }]});
    Ok(client.write(Method::PUT, &format!("/v1/routes/from-node-{id}?wait=live"), Some(&spec)).await?)
}

fn cell(seen: &Seen, at: &Node, is_right: bool) -> String {
    let revision = seen.revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string());
    let (style, mark) = if is_right { (GOOD, "ok") } else { (BAD, "WRONG") };
    format!("proxy {}: {} rev {revision} {}", at.id, seen.status, styled(style, mark))
}

async fn ask_all(http: &reqwest::Client, nodes: &Nodes, path: &str) -> anyhow::Result<Vec<Seen>> {
    let mut answers = Vec::new();
    for node in nodes.iter() {
        let url = format!("http://{}{path}", node.proxy);
        let response = http.get(&url).send().await.with_context(|| format!("GET {url}"))?;
        let revision = response.headers().get("raftgate-revision").and_then(|value| value.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap_or(Value::Null);
        answers.push(Seen { status, revision, path: body.get("path").and_then(Value::as_str).map(str::to_owned) });
    }
    Ok(answers)
}
