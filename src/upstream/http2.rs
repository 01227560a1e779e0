//! The connections of one endpoint that speaks HTTP/2: few, each shared by many exchanges.
//!
//! h2 speaks it, without hyper, which shows nobody the interim answers that come before an answer. [`connection`] is a connection and the task
//! that reads and writes it, [`exchange`] a request and its answer over one stream.
//!
//! A request takes a *slot*, which is one stream of a connection. h2 itself queues streams past the peer's limit without a bound; so
//! they are counted here, and where all connections are full another one is opened. Of all who find no slot one opens a connection, and
//! the others wait for it, or for a slot that comes free.

mod connection;
mod exchange;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};

pub(super) use self::connection::{Begun, HandshakeError, handshake};
pub(super) use self::exchange::{AnswerStream, Exchange, Unsent};
use super::error::SendFailure;

/// Exchanges that share one connection, where the endpoint allows more.
const STREAMS_MAX: u32 = 256;
/// Connections to one endpoint.
const CONNECTIONS_MAX: usize = 64;

/// The connections to one endpoint.
#[derive(Debug, Default)]
pub(super) struct Http2Pool {
    connections: RefCell<Vec<Rc<Http2>>>,
    opening: Mutex<()>,
    freed: Notify,
}

/// One connection.
#[derive(Debug)]
struct Http2 {
    begun: Begun,
    idle_since: Cell<Instant>,
}

/// One stream of a connection, from before its request to the end of its answer.
#[derive(Debug)]
pub(super) struct Slot {
    connection: Rc<Http2>,
    pool: Rc<Http2Pool>,
}

impl Http2Pool {
    /// A free slot, and whether its connection served before. `open` makes another connection.
    pub(super) async fn slot<F>(self: &Rc<Self>, is_fresh: bool, open: impl Fn() -> F) -> Result<(Slot, bool), SendFailure>
    where
        F: Future<Output = Result<Begun, SendFailure>>,
    {
        loop {
            if !is_fresh && let Some(slot) = self.take() {
                return Ok((slot, true));
            }
            if self.is_full() {
                match self.take() {
                    Some(slot) => return Ok((slot, true)),
                    None => self.freed.notified().await,
                }
                continue;
            }
            let _turn = tokio::select! {
                turn = self.opening.lock() => turn,
                () = self.freed.notified(), if !is_fresh => continue,
            };
            // Who was here first may have opened one meanwhile.
            if !is_fresh && let Some(slot) = self.take() {
                return Ok((slot, true));
            }
            if self.is_full() {
                continue;
            }
            let connection = Rc::new(Http2 { begun: open().await?, idle_since: Cell::new(Instant::now()) });
            self.connections.borrow_mut().push(Rc::clone(&connection));
            return Ok((Slot::new(connection, self), false));
        }
    }

    /// Closes what is idle for too long, and lets go of what was closed.
    pub(super) fn sweep(&self, now: Instant, idle_max: Duration) {
        let is_kept = |connection: &Rc<Http2>| {
            let is_idle =
                connection.begun.streams() == 0 && now.saturating_duration_since(connection.idle_since.get()) >= idle_max;
            !is_idle && connection.begun.is_open()
        };
        self.connections.borrow_mut().retain(is_kept);
        self.freed.notify_waiters();
    }

    /// Keeps no connection any more; exchanges end over theirs.
    pub(super) fn let_go(&self) {
        self.connections.borrow_mut().clear();
        self.freed.notify_waiters();
    }

    fn is_full(&self) -> bool {
        self.connections.borrow().len() >= CONNECTIONS_MAX
    }

    fn take(self: &Rc<Self>) -> Option<Slot> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| connection.begun.is_open());
        let has_room = |connection: &&Rc<Http2>| {
            let begun = &connection.begun;
            begun.streams() < begun.streams_max().min(STREAMS_MAX as usize) && begun.is_read()
        };
        let free = connections.iter().filter(has_room).min_by_key(|connection| connection.begun.streams());
        free.map(|connection| Slot::new(Rc::clone(connection), self))
    }
}

impl Slot {
    fn new(connection: Rc<Http2>, pool: &Rc<Http2Pool>) -> Slot {
        connection.begun.add_stream();
        Slot { connection, pool: Rc::clone(pool) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.connection.begun.remove_stream() == 0 {
            self.connection.idle_since.set(Instant::now());
        }
        self.pool.freed.notify_one();
    }
}
