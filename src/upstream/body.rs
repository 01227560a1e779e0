//! The body of a request on its way to a backend: streamed, counted and bounded.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;

/// How far a request's body came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyState {
    /// Nobody asked for it yet, so that it can still be sent elsewhere.
    Unstarted,
    /// Under way.
    Started,
    /// The endpoint takes more and the client has not sent it yet.
    Awaited,
    /// Through to the last byte.
    Complete,
    /// The client broke it off.
    Broken,
    /// It went over the limit.
    TooLarge,
}

/// Shared by the body and by whoever must know how far it came.
#[derive(Debug)]
pub struct BodyProgress(Cell<BodyState>);

impl BodyProgress {
    /// How far it came.
    pub fn state(&self) -> BodyState {
        self.0.get()
    }
}

/// Why a request's body ended before its end.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The client went away, or what it sent is not a body.
    #[error("the request's body broke off")]
    Broken(#[source] hyper::Error),
    /// Over the listener's `body_bytes_max`.
    #[error("the request's body is over {0} bytes")]
    TooLarge(u64),
}

/// A request's body. An enum and not a box: no allocation where there is none.
#[derive(Debug)]
pub enum RequestBody {
    /// No body.
    Empty,
    /// What the client sends, passed on as it comes.
    Stream {
        /// Where it comes from.
        incoming: Incoming,
        /// How far it came.
        progress: Rc<BodyProgress>,
        /// Bytes that may still come, and the limit.
        allowed: Option<(u64, u64)>,
    },
}

impl RequestBody {
    /// Wraps what a client sends; at most `bytes_max` bytes of it pass.
    pub fn new(incoming: Incoming, bytes_max: Option<u64>) -> RequestBody {
        if incoming.is_end_stream() {
            return RequestBody::Empty;
        }
        let progress = Rc::new(BodyProgress(Cell::new(BodyState::Unstarted)));
        RequestBody::Stream { incoming, progress, allowed: bytes_max.map(|limit| (limit, limit)) }
    }

    /// Follows how far it comes; `None` where there is no body.
    pub fn progress(&self) -> Option<Rc<BodyProgress>> {
        match self {
            RequestBody::Empty => None,
            RequestBody::Stream { progress, .. } => Some(Rc::clone(progress)),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let RequestBody::Stream { incoming, progress, allowed } = self.get_mut() else { return Poll::Ready(None) };
        progress.0.set(BodyState::Awaited);
        let frame = match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
            None => {
                progress.0.set(BodyState::Complete);
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                progress.0.set(BodyState::Broken);
                return Poll::Ready(Some(Err(BodyError::Broken(error))));
            }
            Some(Ok(frame)) => frame,
        };
        progress.0.set(BodyState::Started);
        if let (Some((left, limit)), Some(data)) = (allowed.as_mut(), frame.data_ref()) {
            let Some(rest) = left.checked_sub(data.remaining() as u64) else {
                progress.0.set(BodyState::TooLarge);
                return Poll::Ready(Some(Err(BodyError::TooLarge(*limit))));
            };
            *left = rest;
        }
        // A body of known length is not asked again after its last byte.
        if incoming.is_end_stream() {
            progress.0.set(BodyState::Complete);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Stream { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Stream { incoming, .. } => incoming.size_hint(),
        }
    }
}
