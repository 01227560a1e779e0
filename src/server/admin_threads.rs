//! The threads that serve the admin API.
//!
//! Reading documents, checking them and writing lists takes as long as a caller's request is large. On the threads that carry Raft's
//! heartbeats a few hundred such calls would cost the leader its leadership, so they have threads of their own, which run at the
//! process's own priority, behind the control threads. What a call needs of Raft is done over there ([`crate::raft::Node`]).

use std::io;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::admin::{self, AdminState, BLOCKING_THREADS_MAX, Secured};

/// Threads that serve calls. Two keep one long answer from holding up the short ones.
const ADMIN_THREADS: usize = 2;

/// The admin API, served until this is stopped or dropped.
#[derive(Debug)]
pub(super) struct AdminThreads {
    /// Taken when it ends: a runtime must not be dropped where async code runs.
    runtime: Option<Runtime>,
    serving: JoinHandle<io::Result<()>>,
    stopping: CancellationToken,
}

impl AdminThreads {
    /// Serves the API of `state` on `listener`.
    pub(super) fn start(listener: TcpListener, secured: Option<Secured>, state: AdminState) -> io::Result<AdminThreads> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(ADMIN_THREADS).max_blocking_threads(BLOCKING_THREADS_MAX).thread_name("admin").enable_all();
        let runtime = builder.build()?;
        let listener = listener.into_std()?;
        let stopping = CancellationToken::new();
        let stopped = stopping.clone();
        let serving = runtime.spawn(async move {
            // Its new connections must wake these threads and not those that bound it.
            let listener = TcpListener::from_std(listener)?;
            admin::serve(listener, secured, admin::router(state), stopped.cancelled_owned()).await;
            Ok(())
        });
        Ok(AdminThreads { runtime: Some(runtime), serving, stopping })
    }

    /// Takes no more calls and finishes those under way.
    pub(super) async fn stop(mut self) {
        self.stopping.cancel();
        match (&mut self.serving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => error!(%error, "admin API was not served"),
            Err(error) => error!(%error, "admin API did not end in order"),
        }
    }
}

impl Drop for AdminThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
