//! What came of a try that failed: who failed, and whether a second try is safe.

use std::io;

use http::Request;
use thiserror::Error;

use super::body::RequestBody;
use super::http1::Http1Error;
use super::interim::Interim;
use super::tls::TlsProblem;

/// What went wrong between the gateway and an endpoint.
#[derive(Debug, Error)]
pub enum SendFailure {
    /// The name of the endpoint has no address.
    #[error("{address}: the name does not resolve")]
    Resolve {
        /// The endpoint.
        address: Box<str>,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The endpoint refused the connection.
    #[error("{address}: connection refused")]
    Refused {
        /// The endpoint.
        address: Box<str>,
    },
    /// No connection for another reason.
    #[error("{address}: no connection")]
    Connect {
        /// The endpoint.
        address: Box<str>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No connection within the service's connect timeout.
    #[error("{address}: no connection in time")]
    ConnectTimeout {
        /// The endpoint.
        address: Box<str>,
    },
    /// The connection stands, and TLS does not.
    #[error("{address}: {problem}")]
    Tls {
        /// The endpoint.
        address: Box<str>,
        /// What it is.
        problem: TlsProblem,
        /// What was behind it.
        #[source]
        source: Option<io::Error>,
    },
    /// The connection ended before the head of the answer.
    #[error("{address}: connection closed before an answer")]
    Terminated {
        /// The endpoint.
        address: Box<str>,
        /// What the connection said.
        #[source]
        source: ExchangeError,
    },
    /// What came is not an answer, or not the whole head of one.
    #[error("{address}: the answer is not HTTP")]
    Protocol {
        /// The endpoint.
        address: Box<str>,
        /// What the parser said.
        #[source]
        source: ExchangeError,
    },
}

/// Why an exchange broke off.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// Over HTTP/1.1.
    #[error(transparent)]
    Http1(Http1Error),
    /// Over HTTP/2.
    #[error("the stream or its connection failed")]
    Http2(#[source] h2::Error),
    /// The endpoint sent a message of HTTP/2 that h2 takes and that is malformed all the same (RFC 9113 8.1.1).
    #[error("{0}")]
    Malformed(&'static str),
}

impl ExchangeError {
    /// Whether the head of an answer is over its bound.
    pub fn is_head_size(&self) -> bool {
        matches!(self, ExchangeError::Http1(error) if error.is_head_size())
    }

    /// Whether only a part of the head of an answer came.
    pub fn is_head_truncated(&self) -> bool {
        matches!(self, ExchangeError::Http1(error) if error.is_head_truncated())
    }

    /// Whether the endpoint said something that is not HTTP, or not all of it.
    pub(super) fn is_malformed(&self) -> bool {
        match self {
            ExchangeError::Http1(error) => error.is_malformed(),
            ExchangeError::Http2(error) => is_refused_by_h2(error),
            ExchangeError::Malformed(_) => true,
        }
    }
}

/// Whether h2 itself found fault with what the endpoint said.
fn is_refused_by_h2(error: &h2::Error) -> bool {
    error.is_library() && error.reason().is_some_and(|reason| reason != h2::Reason::NO_ERROR)
}

/// A failed try.
#[derive(Debug)]
pub struct SendError {
    /// What went wrong. Boxed: errors are rare, and results are moved often.
    pub failure: Box<SendFailure>,
    /// The request, as far as it is still there ([`gives_back`](super::Connection::gives_back)).
    pub request: Option<Box<Request<RequestBody>>>,
    /// Whether no byte of it went out.
    pub is_unsent: bool,
    /// What came before.
    pub interim: Interim,
}
