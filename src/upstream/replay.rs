//! A request's body that can be sent again: its beginning is kept as it passes.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::body::{BodyError, BodyProgress, BodyState, Stream};

/// Bytes of a body that are kept. Of a longer one nothing is: it is sent once.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// What all tries of one request share.
#[derive(Debug)]
struct Source {
    stream: Box<Stream>,
    /// What came so far. Copied, so that many small pieces take no more room than their bytes.
    kept: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Whether its length says that it is too long: then it is whole until it begins.
    is_too_long: bool,
    /// Whether more came than is kept.
    is_cut: bool,
}

/// The body of one try. Its progress is its own: what an earlier try has sent is not what this one has.
#[derive(Debug)]
pub struct Replay {
    source: Rc<RefCell<Source>>,
    progress: Rc<BodyProgress>,
    /// Bytes of what is kept that this try has sent.
    sent: usize,
    are_trailers_sent: bool,
}

impl Replay {
    pub(super) fn new(stream: Box<Stream>) -> Replay {
        let is_too_long = stream.size_hint().lower() > KEPT_BYTES_MAX as u64;
        let source = Source { stream, kept: Vec::new(), trailers: None, is_too_long, is_cut: false };
        Replay::of(Rc::new(RefCell::new(source)))
    }

    fn of(source: Rc<RefCell<Source>>) -> Replay {
        Replay { source, progress: BodyProgress::new(), sent: 0, are_trailers_sent: false }
    }

    pub(super) fn again(&self) -> Option<Replay> {
        self.is_whole().then(|| Replay::of(Rc::clone(&self.source)))
    }

    pub(super) fn is_whole(&self) -> bool {
        let source = self.source.borrow();
        !source.is_cut && !matches!(source.stream.state(), BodyState::Broken | BodyState::TooLarge)
    }

    pub(super) fn progress(&self) -> Rc<BodyProgress> {
        Rc::clone(&self.progress)
    }

    pub(super) fn is_held(&self) -> bool {
        self.source.borrow().stream.is_held()
    }

    pub(super) fn hold_anew(&self) {
        self.source.borrow_mut().stream.hold_anew();
    }

    pub(super) fn go_ahead(&self) {
        self.source.borrow_mut().stream.go_ahead();
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut source = self.source.borrow_mut();
        if let Some(rest) = source.kept.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let rest = Bytes::copy_from_slice(rest);
            self.sent += rest.len();
            let is_last = source.stream.state() == BodyState::Complete && source.trailers.is_none();
            self.progress.set(if is_last { BodyState::Complete } else { BodyState::Started });
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        if source.stream.state() == BodyState::Complete {
            self.progress.set(BodyState::Complete);
            let trailers = source.trailers.clone().filter(|_| !self.are_trailers_sent);
            self.are_trailers_sent = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let polled = source.stream.poll_frame(cx);
        self.progress.set(source.stream.state());
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.sent += source.keep(frame);
            self.are_trailers_sent |= frame.is_trailers();
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let source = self.source.borrow();
        let are_trailers_through = source.trailers.is_none() || self.are_trailers_sent;
        source.stream.state() == BodyState::Complete && self.sent >= source.kept.len() && are_trailers_through
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let source = self.source.borrow();
        let left = source.kept.len().saturating_sub(self.sent) as u64;
        let coming = source.stream.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(coming.lower() + left);
        if let Some(upper) = coming.upper() {
            hint.set_upper(upper + left);
        }
        hint
    }
}

impl Source {
    /// Keeps what passes, if all of it can be kept; gives how many bytes of it are.
    fn keep(&mut self, frame: &Frame<Bytes>) -> usize {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        let Some(data) = frame.data_ref().filter(|_| !self.is_cut) else { return 0 };
        if self.is_too_long || self.kept.len() + data.remaining() > KEPT_BYTES_MAX {
            self.is_cut = true;
            self.kept = Vec::new();
            return 0;
        }
        self.kept.extend_from_slice(data);
        data.len()
    }
}
