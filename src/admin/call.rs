//! What stands around every call: who calls, how long it may take, which revision it needs, and the headers of its answer.
//!
//! From outside in: [`finish`] gives every answer its `Raftgate-Revision` and `Raftgate-Cluster`, and a write's problem its outcome;
//! [`admit`] bounds the calls under way and asks who calls; [`begin`] reads the terms and waits for the minimal revision. A handler
//! finds the rest in a [`Call`].

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method};
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::headers::{CLUSTER, REVISION, Terms};
use super::health::Phase;
use super::problem::Problem;
use crate::model::Revision;
use crate::tls::CallerName;

/// One call, as its handler sees it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Who calls.
    pub(crate) actor: Arc<str>,
    /// When it must be answered.
    pub(crate) deadline: Instant,
}

/// Who calls, from [`admit`] to [`begin`].
#[derive(Debug, Clone)]
struct Caller(Arc<str>);

/// Gives every answer its headers, and a write's problem its outcome.
pub(crate) async fn finish(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let write = is_write(&request);
    let mut response = next.run(request).await;
    let problem = response.extensions_mut().remove::<Problem>();
    let revision = problem.as_ref().and_then(|problem| problem.revision);
    if let Some(problem) = problem
        && write
    {
        let allow = response.headers_mut().remove(http::header::ALLOW);
        response = problem.of_write().into_response();
        response.headers_mut().extend(allow.map(|allow| (http::header::ALLOW, allow)));
    }
    let headers = response.headers_mut();
    if !headers.contains_key(REVISION) {
        let revision = revision.unwrap_or_else(|| shared.admin.cluster.state().revision());
        headers.insert(REVISION, HeaderValue::from(revision.0));
    }
    if let Some(id) = shared.admin.cluster.cluster_id().and_then(|id| HeaderValue::from_str(&id).ok()) {
        headers.insert(CLUSTER, id);
    }
    response
}

/// Whether a request is meant to change something. `POST /v1/explain` only asks.
fn is_write(request: &Request) -> bool {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    !reads && request.uri().path() != "/v1/explain"
}

/// Asks who calls, refuses writes of a node that is stopping, and bounds the calls under way.
pub(crate) async fn admit(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let shown = request.extensions().get::<CallerName>();
    let caller = match shared.admin.callers.caller(request.headers(), shown) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    if is_write(&request) && *shared.admin.phase.borrow() == Phase::Draining {
        return Problem::unavailable("this node is stopping").into_response();
    }
    let Ok(_permit) = shared.calls.try_acquire() else {
        return Problem::unavailable("too many calls are under way at present").into_response();
    };
    request.extensions_mut().insert(Caller(caller));
    next.run(request).await
}

/// Reads the terms of a call and waits until the live table has the revision that it needs.
pub(crate) async fn begin(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    match terms(&shared, Terms::read(request.headers()), caller).await {
        Ok(call) => {
            request.extensions_mut().insert(call);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn terms(shared: &Shared, terms: Result<Terms, Problem>, caller: Option<Caller>) -> Result<Call, Problem> {
    let arrived = Instant::now();
    let terms = terms?;
    check_cluster(shared, terms.cluster.as_deref())?;
    let deadline = arrived + terms.timeout;
    if let Some(revision) = terms.min_revision {
        wait_published(shared, revision, deadline).await?;
    }
    let Caller(actor) = caller.ok_or_else(|| Problem::internal("a call without a caller"))?;
    Ok(Call { actor, deadline })
}

/// A minimal revision of another cluster means nothing here, and neither does a write that was meant for one.
fn check_cluster(shared: &Shared, meant: Option<&str>) -> Result<(), Problem> {
    let Some(meant) = meant else { return Ok(()) };
    match shared.admin.cluster.cluster_id() {
        Some(id) if *id == *meant => Ok(()),
        Some(id) => Err(Problem::other_cluster(format!("header raftgate-cluster is {meant:?}; this is cluster {id:?}"))),
        None => Err(Problem::unavailable("this node does not belong to a cluster yet")),
    }
}

/// Waits until this node serves `revision`.
pub(crate) async fn wait_published(shared: &Shared, revision: Revision, deadline: Instant) -> Result<(), Problem> {
    let mut published = shared.admin.live.published();
    match timeout_at(deadline, published.wait_for(|published| published.revision >= revision)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(Problem::unavailable("this node is stopping")),
        Err(_) => {
            let present = shared.admin.live.published().borrow().revision;
            let detail = format!("this node's table is at revision {present}, not yet at {revision}");
            Err(Problem::unavailable(detail).at(present))
        }
    }
}
