//! Services at run time: endpoints, balancing, connections to them.
//!
//! A request arrives here with a service of *its* snapshot. [`Upstreams::endpoint`] gives the next endpoint by weighted round robin;
//! [`Endpoint::connection`] takes an idle connection or opens one within the service's connect timeout; [`Connection::send`] sends the
//! head and gives the answer. Its body ([`AnswerBody`]) has the connection: it puts it back once both bodies are through, and
//! dropping it before closes the connection, so that an answer that was broken off, or that came before the request's body was
//! through, never leaves a dirty connection in a pool (CVE-2025-4366).
//!
//! A request's body streams on as it comes ([`RequestBody`]). Where a rule asks for it, its beginning is kept so that it can be sent again
//! ([`Replay`]), or a bounded copy is filled beside it ([`BodyCopy`]).
//!
//! Everything but TLS settings belongs to one worker thread: `Rc`, `Cell` and `RefCell`, no locks. Runtime state belongs to a service by identity
//! (name and the revision that made it) and to an endpoint by its address within it, and lives on when the table changes around it.
//!
//! A service speaks HTTP/1.1 ([`http1`]), where an exchange has a connection to itself, or HTTP/2 ([`http2`]), where exchanges share connections; in
//! clear text or over TLS ([`tls`]). An endpoint whose protocol or TLS settings change is another endpoint: what is under way ends over the connections
//! of the old one, which are closed after it.
//!
//! What both sides of the gateway need of HTTP/2 is here: [`Sending`] and `received` are bodies over a stream. What comes over a connection passes
//! [`Outbox`], and with it `mender`, which changes what would be misread.
//!
//! Absent: a retry policy (the proxy decides, it is told here what came of a try), health, breakers.

mod answer;
pub mod balance;
mod body;
mod chunk_frame;
mod client_body;
mod error;
mod fields;
pub mod frames;
mod gathered;
mod go_ahead;
mod http1;
mod http2;
mod interim;
mod mender;
mod outbox;
mod pool;
mod received;
mod replay;
mod sending;
mod service;
mod tap;
mod tls;

pub use answer::AnswerBody;
pub use body::{BodyError, BodyProgress, BodyState, RequestBody, Stream};
pub use chunk_frame::{ChunkFlaw, ChunkFrame, Sizes};
pub use client_body::{ClientBody, ClientBodyError, GoAhead, StreamBody};
pub use error::{ExchangeError, SendError, SendFailure};
pub use fields::{Trailers, is_malformed, keep_out_of_tables, remove_of_connections};
pub use gathered::poll_write_gathered;
pub use http1::{Http1Error, Switched};
pub use interim::Interim;
pub use outbox::Outbox;
pub use pool::{Connection, Endpoint};
pub use replay::Replay;
pub use sending::{Sending, poll_room};
pub use service::Upstreams;
pub use tap::{BodyCopy, CopyWatch};
pub use tls::{TlsClients, TlsProblem};
