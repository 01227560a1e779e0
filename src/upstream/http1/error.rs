//! What can go wrong on a connection of HTTP/1.1.

use std::io;

use thiserror::Error;

use super::super::body::BodyError;

/// Why an exchange over HTTP/1.1 broke off.
#[derive(Debug, Error)]
pub enum Http1Error {
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// It ended before the head of an answer was through.
    #[error("the connection ended before an answer")]
    Ended,
    /// It ended within the head of an answer.
    #[error("the connection ended within an answer's head")]
    HeadTruncated,
    /// It ended before the body of the answer was through.
    #[error("the connection ended within the answer's body")]
    Truncated,
    /// What came is not the head of an answer.
    #[error("the answer's head is malformed")]
    Head(#[from] httparse::Error),
    /// The head of an answer is over its bound.
    #[error("{0}")]
    HeadSize(&'static str),
    /// What came is an answer that can be read in two ways, or in none.
    #[error("{0}")]
    Flaw(&'static str),
    /// The request's own body broke off.
    #[error("the request's body cannot be sent")]
    Body(#[from] BodyError),
    /// The request's own body is longer or shorter than it said.
    #[error("the request's body is not as long as it says")]
    BodyLength,
}

impl Http1Error {
    /// Whether the head of an answer is over its bound.
    pub(in crate::upstream) fn is_head_size(&self) -> bool {
        matches!(self, Http1Error::HeadSize(_) | Http1Error::Head(httparse::Error::TooManyHeaders))
    }

    /// Whether only a part of the head of an answer came.
    pub(in crate::upstream) fn is_head_truncated(&self) -> bool {
        matches!(self, Http1Error::HeadTruncated)
    }

    /// Whether the backend said something that is not HTTP, or not all of it.
    pub(in crate::upstream) fn is_malformed(&self) -> bool {
        matches!(self, Http1Error::Head(_) | Http1Error::HeadSize(_) | Http1Error::Flaw(_) | Http1Error::HeadTruncated)
    }
}
