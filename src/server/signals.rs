//! Signals: the wish to stop, and to read the configuration again.

use std::io::{self, Read};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::info;

use super::{ServerError, system};

/// Done at the first SIGTERM or SIGINT. From the call on, neither ends the process by itself.
///
/// # Errors
///
/// The handlers cannot be installed.
pub fn terminated() -> Result<impl Future<Output = ()>, ServerError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(system("the handler of SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("the handler of SIGINT"))?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "asked to stop");
    })
}

/// Every SIGHUP from now on; it does not end the process any more. Those that come before they are taken count as one.
pub(super) fn hangups() -> Result<Signal, ServerError> {
    signal(SignalKind::hangup()).map_err(system("the handler of SIGHUP"))
}

/// Done once the standard input has ended: whoever started this process is gone.
pub fn stdin_closed() -> impl Future<Output = ()> {
    let (closed, wait) = oneshot::channel();
    // A thread of its own, never joined: a read of the standard input cannot be cancelled.
    let reader = std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut buffer = [0; 64];
        while !matches!(io::stdin().lock().read(&mut buffer), Ok(0) | Err(_)) {}
        // Nobody waits any more when the node is stopping already.
        let _ = closed.send(());
    });
    async move {
        match reader {
            Ok(_) => drop(wait.await),
            Err(_) => std::future::pending().await,
        }
    }
}
