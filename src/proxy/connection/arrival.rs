//! A connection on which something comes before HTTP: a handshake of TLS.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::framing::Flaw;
use super::super::listener::Listener;
use super::super::worker::Worker;
use super::{ClientConnection, Peer, Phase, Protocol, Registration, ending};

/// A connection before it speaks HTTP. It is under the worker's clock: it has `header_read_timeout` and ends with a drain.
#[derive(Debug)]
pub(in crate::proxy) struct Arrival(Registration);

impl Arrival {
    /// One from `address`.
    pub(in crate::proxy) fn new(worker: &Rc<Worker>, listener: &Rc<Listener>, address: IpAddr) -> Option<Arrival> {
        let connection = Rc::new(ClientConnection::new(Peer::new(worker, listener, address, None)?, Protocol::Http1, None));
        connection.enter(Phase::Head);
        Some(Arrival(Registration::new(&connection)))
    }

    /// What `future` gives, or `None` once its time is over.
    pub(in crate::proxy) async fn in_time<F: Future + Unpin>(&self, mut future: F) -> Option<F::Output> {
        self.0.connection.unless_closed(Pin::new(&mut future)).await
    }

    /// Ends it: answers as HTTP would where there is a `flaw` to tell, and lets the client finish.
    pub(in crate::proxy) async fn refuse(&self, io: impl AsyncRead + AsyncWrite + Unpin, flaw: Option<Flaw>) {
        ending::refuse(&self.0.connection, io, flaw).await;
    }
}
