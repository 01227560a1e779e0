//! The body of a request on its way to a backend: streamed, counted and bounded.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;

use super::client_body::{ClientBody, ClientBodyError};
use super::fields::Trailers;
use super::go_ahead::Hold;
use super::replay::Replay;
use super::tap::{BodyCopy, CopyWatch, Tap, tap};

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
    /// A copy that could not keep up.
    Lagged,
}

/// Shared by the body and by whoever must know how far it came.
#[derive(Debug)]
pub struct BodyProgress {
    state: Cell<BodyState>,
    has_moved: Cell<bool>,
    is_just_asked: Cell<bool>,
    bytes: Cell<u64>,
}

impl BodyProgress {
    pub(super) fn new() -> Rc<BodyProgress> {
        Rc::new(BodyProgress {
            state: Cell::new(BodyState::Unstarted),
            has_moved: Cell::new(false),
            is_just_asked: Cell::new(false),
            bytes: Cell::new(0),
        })
    }

    pub(super) fn set(&self, state: BodyState) {
        if self.state.replace(state) == BodyState::Unstarted {
            self.is_just_asked.set(true);
        }
        if matches!(state, BodyState::Started | BodyState::Complete) {
            self.has_moved.set(true);
        }
    }

    fn count(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// Bytes of it that came since this was asked last.
    pub fn take_bytes(&self) -> u64 {
        self.bytes.replace(0)
    }

    /// Whether it was asked for the first time since this was asked last.
    pub fn is_just_asked(&self) -> bool {
        self.is_just_asked.replace(false)
    }

    /// Whether something of it came since this was asked last.
    pub fn has_moved(&self) -> bool {
        self.has_moved.replace(false)
    }

    /// How far it came.
    pub fn state(&self) -> BodyState {
        self.state.get()
    }
}

/// Why a request's body ended before its end.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The client went away, or what it sent is not a body.
    #[error("the request's body broke off")]
    Broken(#[source] ClientBodyError),
    /// Over what the rule or the listener allows.
    #[error("the request's body is over {0} bytes")]
    TooLarge(u64),
    /// A copy whose original broke off.
    #[error("the original of the copied body broke off")]
    CutOff,
    /// A copy that could not keep up with its original.
    #[error("the copied body lagged behind")]
    Lagged,
}

/// A request's body. Small, for a request is passed on by value many times, and without an allocation where there is none.
#[derive(Debug)]
pub enum RequestBody {
    /// No body.
    Empty,
    /// What the client sends, passed on as it comes.
    Stream(Box<Stream>),
    /// The same, with its beginning kept, so that it can be sent again.
    Replay(Box<Replay>),
    /// A copy of what passes elsewhere.
    Copy(Box<BodyCopy>),
}

/// What a client sends, counted and bounded.
#[derive(Debug)]
pub struct Stream {
    incoming: ClientBody,
    trailers: Trailers,
    progress: Rc<BodyProgress>,
    /// Bytes that may still come, and the limit.
    allowed: Option<(u64, u64)>,
    /// Copies that are filled beside.
    taps: Vec<Tap>,
    /// Where it waits to be asked for.
    hold: Option<Hold>,
}

impl RequestBody {
    /// Wraps what a client sends; at most `bytes_max` bytes of it pass, and these trailers.
    pub fn new(incoming: ClientBody, trailers: impl FnOnce() -> Trailers, bytes_max: Option<u64>) -> RequestBody {
        if incoming.is_end_stream() {
            return RequestBody::Empty;
        }
        let allowed = bytes_max.map(|limit| (limit, limit));
        let (progress, trailers) = (BodyProgress::new(), trailers());
        RequestBody::Stream(Box::new(Stream { incoming, trailers, progress, allowed, taps: Vec::new(), hold: None }))
    }

    /// Lets it wait for [`go_ahead`](RequestBody::go_ahead), or for a second; whether there is something to send, and it did not begin.
    pub fn hold(&mut self) -> bool {
        match self {
            RequestBody::Stream(stream) => {
                stream.hold = Some(Hold::default());
                true
            }
            RequestBody::Empty | RequestBody::Replay(_) | RequestBody::Copy(_) => false,
        }
    }

    /// Lets it wait anew where it still waits: another backend is to be asked.
    pub fn hold_anew(&mut self) {
        match self {
            RequestBody::Stream(stream) => stream.hold_anew(),
            RequestBody::Replay(replay) => replay.hold_anew(),
            RequestBody::Empty | RequestBody::Copy(_) => {}
        }
    }

    /// Whether it waits.
    pub(super) fn is_held(&self) -> bool {
        match self {
            RequestBody::Stream(stream) => stream.is_held(),
            RequestBody::Replay(replay) => replay.is_held(),
            RequestBody::Empty | RequestBody::Copy(_) => false,
        }
    }

    /// The backend asks for it.
    pub(super) fn go_ahead(&mut self) {
        match self {
            RequestBody::Stream(stream) => stream.go_ahead(),
            RequestBody::Replay(replay) => replay.go_ahead(),
            RequestBody::Empty | RequestBody::Copy(_) => {}
        }
    }

    /// Keeps the beginning from now on, so that [`again`](RequestBody::again) has an answer.
    pub fn keep(self) -> RequestBody {
        match self {
            RequestBody::Stream(stream) => RequestBody::Replay(Box::new(Replay::new(stream))),
            other => other,
        }
    }

    /// The same body from its first byte, for another try. `None` where that is gone. Of two bodies of one request only the later may
    /// still be read.
    pub fn again(&self) -> Option<RequestBody> {
        match self {
            RequestBody::Empty => Some(RequestBody::Empty),
            RequestBody::Stream(_) | RequestBody::Copy(_) => None,
            RequestBody::Replay(replay) => replay.again().map(|again| RequestBody::Replay(Box::new(again))),
        }
    }

    /// Whether it is still there from its first byte.
    pub fn is_whole(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Stream(stream) => stream.state() == BodyState::Unstarted,
            RequestBody::Replay(replay) => replay.is_whole(),
            RequestBody::Copy(copy) => copy.progress().state() == BodyState::Unstarted,
        }
    }

    /// Whether nobody asked for any of it yet.
    pub(super) fn is_untouched(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Stream(stream) => stream.state() == BodyState::Unstarted,
            RequestBody::Replay(replay) => replay.progress().state() == BodyState::Unstarted,
            RequestBody::Copy(copy) => copy.progress().state() == BodyState::Unstarted,
        }
    }

    /// A copy that is filled while this one is read, from now on, and what tells whether it keeps up. `None` of a body that is a copy
    /// itself, or that is sent again: its beginning may have passed.
    pub fn tap(&mut self) -> Option<(RequestBody, CopyWatch)> {
        match self {
            RequestBody::Empty => Some((RequestBody::Empty, CopyWatch::idle())),
            RequestBody::Stream(stream) => Some(stream.tap()),
            RequestBody::Replay(_) | RequestBody::Copy(_) => None,
        }
    }

    /// Follows how far it comes; `None` where there is no body.
    pub fn progress(&self) -> Option<Rc<BodyProgress>> {
        match self {
            RequestBody::Empty => None,
            RequestBody::Stream(stream) => Some(Rc::clone(&stream.progress)),
            RequestBody::Replay(replay) => Some(replay.progress()),
            RequestBody::Copy(copy) => Some(copy.progress()),
        }
    }
}

impl Stream {
    fn tap(&mut self) -> (RequestBody, CopyWatch) {
        let (tap, copy, watch) = tap(self.size_hint());
        self.taps.push(tap);
        (RequestBody::Copy(Box::new(copy)), watch)
    }

    pub(super) fn state(&self) -> BodyState {
        self.progress.state()
    }

    pub(super) fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    pub(super) fn hold_anew(&mut self) {
        self.hold = self.hold.take().map(|_| Hold::default());
    }

    pub(super) fn go_ahead(&mut self) {
        self.hold = None;
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(hold) = &mut self.hold {
            ready!(hold.poll(cx));
            self.hold = None;
        }
        self.progress.set(BodyState::Awaited);
        let frame = match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            None => {
                self.complete();
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.progress.set(BodyState::Broken);
                return Poll::Ready(Some(Err(BodyError::Broken(error))));
            }
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    self.trailers.retain(trailers);
                    if trailers.is_empty() {
                        self.complete();
                        return Poll::Ready(None);
                    }
                }
                frame
            }
        };
        self.progress.set(BodyState::Started);
        self.progress.count(frame.data_ref().map_or(0, Buf::remaining));
        if let (Some((left, limit)), Some(data)) = (self.allowed.as_mut(), frame.data_ref()) {
            let Some(rest) = left.checked_sub(data.remaining() as u64) else {
                self.progress.set(BodyState::TooLarge);
                return Poll::Ready(Some(Err(BodyError::TooLarge(*limit))));
            };
            *left = rest;
        }
        self.taps.iter().for_each(|tap| tap.fill(&frame));
        // A body of known length is not asked again after its last byte, and none after its trailers.
        if frame.is_trailers() || self.incoming.is_end_stream() {
            self.complete();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn complete(&self) {
        self.progress.set(BodyState::Complete);
        self.taps.iter().for_each(Tap::complete);
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Stream(stream) => stream.poll_frame(cx),
            RequestBody::Replay(replay) => replay.poll_frame(cx),
            RequestBody::Copy(copy) => copy.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Stream(stream) => stream.incoming.is_end_stream(),
            RequestBody::Replay(replay) => replay.is_end_stream(),
            RequestBody::Copy(copy) => copy.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Stream(stream) => stream.size_hint(),
            RequestBody::Replay(replay) => replay.size_hint(),
            RequestBody::Copy(copy) => copy.size_hint(),
        }
    }
}
