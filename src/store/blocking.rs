//! Where work runs that waits for a disk.

use std::io;

use tokio::task::spawn_blocking;

/// Where work runs that waits for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocking {
    /// On the runtime's threads for it.
    Threads,
    /// In the task that asks: a simulation has one thread, and an order that its seed alone gives.
    Here,
}

impl Blocking {
    /// Runs `work` and waits for it. A panic in it is an error.
    pub(crate) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        match self {
            Blocking::Threads => spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error))),
            Blocking::Here => work(),
        }
    }
}
