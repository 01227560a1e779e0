//! The data plane: from a client's connection to the answer, by the live table alone.
//!
//! [`bind`] makes the listeners' sockets, [`Proxy::start`] the workers. A *worker* is a thread with a current-thread runtime, its own
//! `SO_REUSEPORT` socket of every listener and its own connections to backends: workers share nothing on the hot path but the table. What
//! changes while they run comes to each as an order (`workers`, `worker`): listeners that come, change and go (`place`), and connections
//! that a worker with more of them accepted (`load`).
//! A [`Publisher`] turns each State into the next table and stores it in [`Live`](crate::table::Live). Nothing here knows of Raft: with
//! the cluster gone, the proxy serves the last table.
//!
//! To read a request from top to bottom: `listener` accepts (behind a load balancer, `proxy_protocol` says for whom), [`tls`] shakes hands where
//! the listener asks for it, `connection` runs
//! hyper's server for HTTP/1.1 or h2's for HTTP/2 over it and keeps its deadlines, and `exchange` takes the request through its phases by name:
//! admit, park, match, prepare, forward, answer. `forward` makes the tries, `mirror` sends copies beside. What the phases use is pure and
//! beside them: `authority` (which host is meant), `headers` (what passes), `rewrite` (paths and redirects), `filter` (header modifiers),
//! `retry` (whether to send again, and when), `cors` (who may share an answer), `upgrade` (who asks to speak another protocol), `present`
//! (which fields are there at all). Where another protocol is agreed on, `tunnel` follows. `fault` is the one place that makes error responses; `grpc` says them in the form of gRPC.
//!
//! Over HTTP/1.1 hyper reads nothing that `framing` has not read before: what could be taken for two different requests is refused there,
//! by RFC 9112, and the connection closed once the answer is through (`connection::ending`). What is sent on is framed anew.

mod admission;
mod authority;
mod body;
mod connection;
mod cors;
mod counters;
mod exchange;
mod fault;
mod filter;
mod forward;
mod framing;
mod grpc;
mod headers;
mod listener;
mod load;
mod mirror;
mod park;
mod place;
mod prepare;
mod present;
mod proxy_protocol;
mod publisher;
mod retry;
mod rewrite;
mod tally;
mod tls;
mod trace;
mod tunnel;
mod upgrade;
mod worker;
mod workers;

#[cfg(test)]
mod tests;

pub use framing::{Flaw, Follower, Refusal};
pub use listener::{BindError, BoundListener, ListenerOptions, bind};
pub use publisher::Publisher;
pub use tls::{Tls, TlsError};
pub use workers::{Proxy, ProxyHandle, ProxyOptions, StartError};
