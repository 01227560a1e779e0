//! A listener's sockets, before anybody accepts from them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::{Listener, ListenerOptions};
use crate::proxy::admission::Addresses;
use crate::proxy::load::Loads;
use crate::table::Live;

/// Connections that wait to be accepted, for each socket.
const BACKLOG: i32 = 1024;

/// A listener whose port is taken: one socket for each worker. Others may share it.
#[derive(Debug)]
pub struct BoundListener {
    pub(in crate::proxy) options: ListenerOptions,
    pub(in crate::proxy) sharing: Vec<ListenerOptions>,
    pub(in crate::proxy) address: SocketAddr,
    pub(super) addresses: Addresses,
    pub(in crate::proxy) loads: Loads,
    pub(in crate::proxy) sockets: Vec<std::net::TcpListener>,
}

impl BoundListener {
    /// Where it listens, the port resolved.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a listener with another hostname to the address. What holds for a connection as a whole (limits of the head and of
    /// connections, timeouts, trusted proxies, whether TLS is spoken) stays that of the first; how TLS is spoken is each one's own.
    pub fn share(&mut self, options: ListenerOptions) {
        self.sharing.push(options);
    }

    /// What a worker gets of it: each once.
    pub(in crate::proxy) fn part(&mut self, worker: usize, live: &Arc<Live>) -> Option<(Listener, std::net::TcpListener)> {
        let socket = self.sockets.pop()?;
        Some((Listener::new(self, worker, live), socket))
    }
}

/// Why a listener cannot be bound.
#[derive(Debug, Error)]
#[error("listener {name:?}: cannot listen on {address}")]
pub struct BindError {
    /// The listener.
    pub name: String,
    /// Where it should listen.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Takes `address` for `workers` workers; port 0 takes any free one.
///
/// The first bind is exclusive: `SO_REUSEPORT` alone would let a second node of the same user take half the connections in silence.
pub fn bind(options: ListenerOptions, address: SocketAddr, workers: usize) -> Result<BoundListener, BindError> {
    let sockets = take(address, workers);
    match sockets {
        Ok((address, sockets)) => {
            let (addresses, loads) = (Addresses::default(), Loads::new(workers));
            Ok(BoundListener { options, sharing: Vec::new(), address, addresses, loads, sockets })
        }
        Err(source) => Err(BindError { name: options.name, address, source }),
    }
}

fn take(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
    let exclusive = std::net::TcpListener::bind(address)?;
    let address = exclusive.local_addr()?;
    drop(exclusive);
    let shared = |_| -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    let sockets = (0..workers.max(1)).map(shared).collect::<io::Result<Vec<_>>>()?;
    Ok((address, sockets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_an_error_even_where_it_is_shared() {
        let first = bind(ListenerOptions::default(), "127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert_eq!(first.sockets.len(), 2);
        let second = bind(ListenerOptions { name: "public".into(), ..ListenerOptions::default() }, first.address(), 1);
        let text = second.unwrap_err().to_string();
        assert!(text.starts_with("listener \"public\": cannot listen on 127.0.0.1:"), "{text}");
    }
}
