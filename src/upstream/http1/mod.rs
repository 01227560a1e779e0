//! HTTP/1.1 towards backends: a connection that the task of the request itself drives.
//!
//! There is no task of the connection's own and no channel: who waits for an answer, or for a piece of its body, polls the
//! connection ([`Http1`]), and that poll first sends what of the request can be sent ([`outgoing`]) and then reads what came
//! ([`incoming`]). Both sides hold one piece at a time, so that whoever is slow makes the other wait.
//!
//! - [`head`] writes the head of a request, and reads that of an answer with `httparse`;
//! - [`framing`] says what follows a head (RFC 9112 6.3), and cuts it out of the bytes that come; it does no IO, and gives the same
//!   however the bytes are split. [`chunks`] is its part for chunks;
//! - [`wire`] is the socket, in clear text or over TLS.
//!
//! An answer may come before its request is through. It is passed on at once, and the rest of the request is sent while the
//! answer's body is asked for. A connection is used again only where both are through to the last byte, nothing came after the
//! answer, and neither side said that it closes.
//!
//! Stricter than RFC 9112 demands of a client: any coding but one `chunked` is refused, and so is a length that is said twice and
//! differs. An answer whose length is said in two ways is read by its chunks, loses the other field, and is the last of its connection.
//!
//! Absent: pipelining, CONNECT, 0.9.

mod chunks;
mod connection;
mod error;
mod framing;
mod head;
mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;
mod wire;

pub(super) use connection::Http1;
pub use connection::Switched;
pub use error::Http1Error;
pub(super) use wire::Wire;
