//! A copy of a request's body, filled as the original passes.
//!
//! The original never waits: what its copy's reader has not taken yet is buffered up to a bound, and a copy that falls behind by more
//! is given up. The bytes are copied, so that the buffer takes no more room than it says.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::sync::Notify;

use super::body::{BodyError, BodyProgress, BodyState};

/// Bytes that a copy may lag behind.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// What the ends of a copy share.
#[derive(Debug)]
struct Shared {
    buffer: RefCell<Buffer>,
    has_lagged: Notify,
}

#[derive(Debug)]
struct Buffer {
    bytes: BytesMut,
    trailers: Option<HeaderMap>,
    end: End,
    reader: Option<Waker>,
}

/// How a copy ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Not yet.
    Open,
    /// All of it came.
    Complete,
    /// The original was given up.
    CutOff,
    /// The reader was too slow.
    Lagged,
}

/// The end that the original fills. Its drop ends the copy.
#[derive(Debug)]
pub(super) struct Tap(Rc<Shared>);

/// The copy itself.
#[derive(Debug)]
pub struct BodyCopy {
    shared: Rc<Shared>,
    progress: Rc<BodyProgress>,
    /// What the length of the original says of what is still to come.
    left: SizeHint,
}

/// Tells when a copy is given up.
#[derive(Debug)]
pub struct CopyWatch(Option<Rc<Shared>>);

/// A new copy of a body of this length.
pub(super) fn tap(length: SizeHint) -> (Tap, BodyCopy, CopyWatch) {
    let buffer = Buffer { bytes: BytesMut::new(), trailers: None, end: End::Open, reader: None };
    let shared = Rc::new(Shared { buffer: RefCell::new(buffer), has_lagged: Notify::new() });
    let copy = BodyCopy { shared: Rc::clone(&shared), progress: BodyProgress::new(), left: length };
    (Tap(Rc::clone(&shared)), copy, CopyWatch(Some(shared)))
}

impl Tap {
    /// Takes what passes.
    pub(super) fn fill(&self, frame: &Frame<Bytes>) {
        let mut buffer = self.0.buffer.borrow_mut();
        if buffer.end != End::Open {
            return;
        }
        if let Some(data) = frame.data_ref() {
            if buffer.bytes.len() + data.len() > BUFFER_BYTES_MAX {
                buffer.end(End::Lagged);
                self.0.has_lagged.notify_one();
                return;
            }
            buffer.bytes.extend_from_slice(data);
        }
        if let Some(trailers) = frame.trailers_ref() {
            buffer.trailers = Some(trailers.clone());
        }
        buffer.wake();
    }

    /// All of it came.
    pub(super) fn complete(&self) {
        self.0.buffer.borrow_mut().end(End::Complete);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.0.buffer.borrow_mut().end(End::CutOff);
    }
}

impl Buffer {
    /// The first end counts.
    fn end(&mut self, end: End) {
        if self.end == End::Open {
            self.end = end;
            if end != End::Complete {
                self.bytes = BytesMut::new();
            }
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl BodyCopy {
    pub(super) fn progress(&self) -> Rc<BodyProgress> {
        Rc::clone(&self.progress)
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut buffer = self.shared.buffer.borrow_mut();
        let (state, polled) = match buffer.end {
            End::CutOff => (BodyState::Broken, Some(Err(BodyError::CutOff))),
            End::Lagged => (BodyState::Lagged, Some(Err(BodyError::Lagged))),
            end if !buffer.bytes.is_empty() => {
                let bytes = buffer.bytes.split().freeze();
                self.left = less(self.left, bytes.len() as u64);
                let is_last = end == End::Complete && buffer.trailers.is_none();
                (if is_last { BodyState::Complete } else { BodyState::Started }, Some(Ok(Frame::data(bytes))))
            }
            End::Complete => (BodyState::Complete, buffer.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            End::Open => {
                buffer.reader = Some(cx.waker().clone());
                self.progress.set(BodyState::Awaited);
                return Poll::Pending;
            }
        };
        self.progress.set(state);
        Poll::Ready(polled)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let buffer = self.shared.buffer.borrow();
        buffer.end == End::Complete && buffer.bytes.is_empty() && buffer.trailers.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.left
    }
}

fn less(hint: SizeHint, bytes: u64) -> SizeHint {
    let mut left = SizeHint::new();
    left.set_lower(hint.lower().saturating_sub(bytes));
    if let Some(upper) = hint.upper() {
        left.set_upper(upper.saturating_sub(bytes));
    }
    left
}

impl CopyWatch {
    /// Of a request without a body.
    pub(super) fn idle() -> CopyWatch {
        CopyWatch(None)
    }

    /// Returns once the copy fell too far behind, and never where it does not.
    pub async fn lagged(&self) {
        match &self.0 {
            Some(shared) => shared.has_lagged.notified().await,
            None => std::future::pending().await,
        }
    }
}
