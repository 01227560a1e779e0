//! What a client sends of a request, by what it speaks.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;

use super::fields::is_malformed;
use super::received::Received;

/// A request's body as it comes.
#[derive(Debug)]
pub enum ClientBody {
    /// None.
    Empty,
    /// Over HTTP/1.1.
    Http1(Incoming),
    /// Over a stream of HTTP/2.
    Http2(StreamBody),
}

/// Why it ended before its end.
#[derive(Debug, Error)]
pub enum ClientBodyError {
    /// Over HTTP/1.1.
    #[error(transparent)]
    Http1(hyper::Error),
    /// Over HTTP/2.
    #[error("the stream broke off")]
    Http2(#[source] h2::Error),
}

/// What comes over a stream of HTTP/2.
pub struct StreamBody {
    received: Received,
    /// Of a client that waits to be asked.
    go_ahead: Option<GoAhead>,
    /// Whether trailers that came are malformed in a way that h2 does not tell.
    are_malformed: Box<dyn Fn() -> bool>,
}

/// Asks the client for the body (100, RFC 9110 10.1.1).
pub struct GoAhead(Box<dyn FnOnce()>);

impl GoAhead {
    /// By this.
    pub fn new(ask: impl FnOnce() + 'static) -> GoAhead {
        GoAhead(Box::new(ask))
    }
}

impl fmt::Debug for GoAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GoAhead")
    }
}

impl fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBody").field("received", &self.received).finish_non_exhaustive()
    }
}

impl StreamBody {
    /// What follows a head with these fields. A client that waits is asked once somebody reads it. `are_malformed` is asked once there are
    /// trailers.
    pub fn new(
        receiving: RecvStream,
        fields: &HeaderMap,
        go_ahead: Option<GoAhead>,
        are_malformed: Box<dyn Fn() -> bool>,
    ) -> StreamBody {
        StreamBody { received: Received::new(receiving, fields), go_ahead, are_malformed }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(GoAhead(ask)) = self.go_ahead.take() {
            ask();
        }
        // As a head would be, or as the frames showed.
        let are_refused = |trailers: &HeaderMap| is_malformed(trailers) || (self.are_malformed)();
        self.received.poll_frame(cx).map(|polled| match polled {
            Some(Ok(frame)) if frame.trailers_ref().is_some_and(are_refused) => Some(Err(Reason::PROTOCOL_ERROR.into())),
            polled => polled,
        })
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        match self.get_mut() {
            ClientBody::Empty => Poll::Ready(None),
            ClientBody::Http1(incoming) => Pin::new(incoming).poll_frame(cx).map_err(ClientBodyError::Http1),
            ClientBody::Http2(stream) => stream.poll_frame(cx).map_err(ClientBodyError::Http2),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ClientBody::Empty => true,
            ClientBody::Http1(incoming) => incoming.is_end_stream(),
            ClientBody::Http2(stream) => stream.received.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ClientBody::Empty => SizeHint::with_exact(0),
            ClientBody::Http1(incoming) => incoming.size_hint(),
            ClientBody::Http2(stream) => stream.received.size_hint(),
        }
    }
}
