//! The admin API: REST of the contract, on axum.
//!
//! Every node answers every call. A read is answered from a State that [`crate::raft::Node::read`] proved up to date (or, where the
//! client says so, from this node's own); a write is checked here, whole, and becomes one transaction that
//! [`crate::raft::Node::propose`] takes to the leader. So there are two sorts of errors: what is found here is told before anything is
//! proposed (a list of faults, each with its place), and what `apply` refuses is an outcome that all nodes agree on.
//!
//! How a call passes: [`call`] (headers of every answer, token, terms, minimal revision), the handler ([`resources`], [`transaction`],
//! [`config_document`], [`reads`], [`members`], [`explain`], [`health`]), [`body`] and [`document`] (bytes to values, bounded and strict),
//! [`content`] (values to operations, with the [`findings`] in them), [`sealing`] (no secret goes on in plain text), [`advice`] (warnings), [`writes`] (operations to an outcome), [`render`] or [`problem`] (the
//! answer). A whole configuration is never held: [`config_upload`] takes it as it comes, [`config_reader`] makes operations of it.
//!
//! What the contract lists and this version does not serve answers 501 and its name, never 404: a client can tell "not yet" from a
//! wrong address. Absent on purpose: redirects to the leader (a client never needs to know who leads), and any cache of answers.

mod advice;
mod auth;
mod body;
mod call;
mod certificates;
mod client_certificates;
mod cluster;
mod config_document;
mod config_reader;
mod config_upload;
mod content;
mod document;
mod explain;
mod findings;
mod headers;
mod health;
mod members;
mod problem;
mod query;
mod reads;
mod render;
mod resources;
mod sealing;
mod serve;
mod transaction;
mod warnings;
mod writes;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, patch, post};
use tokio::sync::{Semaphore, watch};

use crate::observe::Metrics;
use crate::table::Live;

pub use auth::Callers;
pub use cluster::Cluster;
pub use explain::Listener;
pub use health::Phase;
pub use serve::{Secured, serve};

use problem::Problem;

/// What the admin API stands on.
#[derive(Clone)]
pub struct AdminState {
    /// The node; [`crate::raft::Node`] outside tests.
    pub cluster: Arc<dyn Cluster>,
    /// The table that this node serves.
    pub live: Arc<Live>,
    /// This node's metrics.
    pub metrics: Metrics,
    /// Who may call.
    pub callers: Callers,
    /// This node's listeners, for `/v1/explain`, and for warnings about routes that are bound to others.
    pub listeners: watch::Receiver<Arc<[Listener]>>,
    /// Whether the proxy takes requests.
    pub phase: watch::Receiver<Phase>,
}

impl AdminState {
    /// The listeners as they are now.
    fn listeners(&self) -> Arc<[Listener]> {
        Arc::clone(&self.listeners.borrow())
    }
}

/// Threads for work that does not wait for anything else: a configuration that is read as it comes has one until it ends.
pub const BLOCKING_THREADS_MAX: usize = config_upload::CONFIGURATIONS_MAX + body::OFFLOADED_MAX;

/// Calls under way. The rest is told to come again.
const CALLS_MAX: usize = 1024;

/// What all handlers share.
struct Shared {
    admin: AdminState,
    /// One permit a call under way.
    calls: Semaphore,
    /// One permit a byte that calls with bodies may take.
    bodies: Arc<Semaphore>,
    /// One permit a configuration that is taken.
    configurations: Semaphore,
}

/// The admin API as a service.
pub fn router(admin: AdminState) -> Router {
    let bodies = Arc::new(Semaphore::new(body::BODIES_BYTES_MAX));
    let configurations = Semaphore::new(config_upload::CONFIGURATIONS_MAX);
    let shared = Arc::new(Shared { admin, calls: Semaphore::new(CALLS_MAX), bodies, configurations });
    let calls = Router::new();
    #[cfg(feature = "next-format")]
    let calls = calls.route("/v1/note", axum::routing::put(members::put_note));
    let calls = calls
        .route("/v1/transactions", post(transaction::post))
        .route("/v1/config", get(config_document::get).put(config_upload::put))
        .route("/v1/table", get(reads::table))
        .route("/v1/table/publications", get(reads::publications))
        .route("/v1/cluster", get(reads::cluster))
        .route("/v1/cluster/members", post(members::add))
        .route("/v1/cluster/members/{id}", patch(members::patch).delete(members::remove))
        .route("/v1/cluster/leader", post(members::lead))
        .route("/v1/cluster/feature-level", post(members::raise_feature_level))
        .route("/v1/explain", post(explain::post))
        .route("/v1/{plural}", get(reads::list))
        .route("/v1/{plural}/{name}", get(resources::get).put(resources::put).delete(resources::delete))
        .layer(from_fn_with_state(Arc::clone(&shared), call::begin));
    let not_served = NOT_SERVED.iter().fold(Router::new(), |router, &(path, what)| {
        router.route(path, any(move || async move { Problem::not_supported(what) }))
    });
    let guarded = calls
        .merge(not_served)
        .route("/metrics", get(health::metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&shared), call::admit));
    let open = Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/readyz/control", get(health::readyz_control))
        .method_not_allowed_fallback(wrong_method);
    open.merge(guarded).layer(from_fn_with_state(Arc::clone(&shared), call::finish)).with_state(shared)
}

/// Calls of the contract that this version does not serve.
const NOT_SERVED: [(&str, &str); 8] = [
    ("/", "the console"),
    ("/openapi.json", "/openapi.json"),
    ("/v1/revisions", "/v1/revisions"),
    ("/v1/revisions/{range}", "/v1/revisions"),
    ("/v1/rollback", "/v1/rollback"),
    ("/v1/watch", "/v1/watch"),
    ("/v1/backup", "/v1/backup"),
    ("/v1/services/{service}/endpoints/{id}", "registration of endpoints"),
];

async fn unknown_path(request: Request) -> Problem {
    Problem::not_found(format!("there is no {}", request.uri().path()))
}

async fn wrong_method(request: Request) -> Problem {
    Problem::method_not_allowed(format!("{} {}", request.method(), request.uri().path()))
}
