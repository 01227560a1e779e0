//! A body that comes over a stream of HTTP/2, from a client or from a backend.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Frame, SizeHint};

/// What comes over a stream, and how much of it is still to come.
#[derive(Debug)]
pub(super) struct Received {
    stream: RecvStream,
    /// Bytes that are still to come, where the head says how many; h2 holds the sender to it.
    left: Option<u64>,
    are_data_through: bool,
}

impl Received {
    /// What follows a head with these fields.
    pub(super) fn new(stream: RecvStream, fields: &HeaderMap) -> Received {
        let left = fields.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Received { stream, left, are_data_through: false }
    }

    /// The next frame. What is taken makes room for as much: what is not asked for is not read.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.are_data_through {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // A stream that ended meanwhile has no window to open.
                    let _ = self.stream.flow_control().release_capacity(bytes.len());
                    self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.are_data_through = true,
            }
        }
        self.stream.poll_trailers(cx).map(|trailers| trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    /// Whether nothing follows.
    pub(super) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// What is still to come of it.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
