//! What a client sends of a request, by what it speaks.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;

use super::fields::is_malformed;

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
    #[error(transparent)]
    Http2(h2::Error),
}

/// What comes over a stream of HTTP/2.
pub struct StreamBody {
    receiving: RecvStream,
    /// Bytes that are still to come, where the head says how many; h2 holds the client to it.
    left: Option<u64>,
    are_data_through: bool,
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
        f.debug_struct("StreamBody").field("receiving", &self.receiving).field("left", &self.left).finish_non_exhaustive()
    }
}

impl StreamBody {
    /// What is received, of this length if the head says so. A client that waits is asked once somebody reads it. `are_malformed` is asked once
    /// there are trailers.
    pub fn new(
        receiving: RecvStream,
        length: Option<u64>,
        go_ahead: Option<GoAhead>,
        are_malformed: Box<dyn Fn() -> bool>,
    ) -> StreamBody {
        StreamBody { receiving, left: length, are_data_through: false, go_ahead, are_malformed }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(GoAhead(ask)) = self.go_ahead.take() {
            ask();
        }
        if !self.are_data_through {
            match ready!(self.receiving.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // It is taken: what the backend does not take is not read. A stream that ended meanwhile has no window to open.
                    let _ = self.receiving.flow_control().release_capacity(bytes.len());
                    self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.are_data_through = true,
            }
        }
        Poll::Ready(match ready!(self.receiving.poll_trailers(cx)) {
            // As a head would be, or as the frames showed.
            Ok(Some(trailers)) if is_malformed(&trailers) || (self.are_malformed)() => Some(Err(Reason::PROTOCOL_ERROR.into())),
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(error)),
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
            ClientBody::Http2(stream) => stream.receiving.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ClientBody::Empty => SizeHint::with_exact(0),
            ClientBody::Http1(incoming) => incoming.size_hint(),
            ClientBody::Http2(stream) => stream.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
