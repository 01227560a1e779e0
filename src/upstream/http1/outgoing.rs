//! What goes out: the head of a request and its body, piece by piece.
//!
//! The head waits for the first piece of the body if that is at hand, so that both go out with one call of the system's. Where it is not,
//! the head waits for one turn of the task: the server that the request comes from reads a body only once somebody asked for it, and
//! has it then, most often. Small pieces are copied together; a large one is sent as it came, and no other is asked for until it is out.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, Method, Request, request};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::super::body::{BodyError, RequestBody};
use super::super::fields::announced;
use super::error::Http1Error;
use super::head;
use super::wire::Wire;

/// Up to so many bytes pieces are copied together: that costs less than a call with several of them.
const GATHERED_BYTES_MAX: usize = 2 * 1024;

/// How a body is sent.
#[derive(Debug)]
pub(super) enum Form {
    /// Not at all.
    Nothing,
    /// By a length that was said; so many bytes are left.
    Length(u64),
    /// In chunks, and then those of these trailers that come.
    Chunks(Vec<HeaderName>),
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its head waits.
    Head,
    /// Its head is written here, or out.
    Body,
    /// All of it is written here.
    Last,
    /// All of it is out.
    Done,
}

/// The side of a connection that is written.
#[derive(Debug)]
pub(super) struct Outgoing {
    stage: Stage,
    /// Until an answer begins, for it may have to be sent elsewhere.
    parts: Option<request::Parts>,
    /// Whether a byte of it may have gone out.
    is_exposed: bool,
    body: RequestBody,
    form: Form,
    /// What goes out first, of which `sent` bytes are out; then `data`, then `after`.
    before: Vec<u8>,
    sent: usize,
    data: Bytes,
    after: &'static [u8],
    has_waited: bool,
    is_unflushed: bool,
    is_to_head: bool,
}

impl Outgoing {
    /// Nothing to send.
    pub(super) fn new() -> Outgoing {
        Outgoing {
            stage: Stage::Done,
            parts: None,
            is_exposed: false,
            body: RequestBody::Empty,
            form: Form::Nothing,
            before: Vec::new(),
            sent: 0,
            data: Bytes::new(),
            after: b"",
            has_waited: false,
            is_unflushed: false,
            is_to_head: false,
        }
    }

    /// A request is to be sent.
    pub(super) fn begin(&mut self, request: Request<RequestBody>) {
        let (parts, body) = request.into_parts();
        self.is_to_head = parts.method == Method::HEAD;
        self.parts = Some(parts);
        self.is_exposed = false;
        self.body = body;
        self.stage = Stage::Head;
        self.has_waited = false;
    }

    /// Whether the request asks for no body.
    pub(super) fn is_to_head(&self) -> bool {
        self.is_to_head
    }

    /// Whether there is a body to send.
    pub(super) fn has_body(&self) -> bool {
        !self.body.is_end_stream()
    }

    /// Whether the head waits still, so that nothing can be answered.
    pub(super) fn is_waiting(&self) -> bool {
        self.stage == Stage::Head
    }

    /// Whether all of the request is out.
    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Whether nothing of the request can have gone out.
    pub(super) fn is_unsent(&self) -> bool {
        !self.is_exposed
    }

    /// The answer begins: an empty map, with the room that the fields of the request took.
    pub(super) fn take_room(&mut self) -> HeaderMap {
        let mut headers = self.parts.take().map_or_else(HeaderMap::new, |parts| parts.headers);
        headers.clear();
        if self.stage == Stage::Done {
            self.body = RequestBody::Empty;
        }
        headers
    }

    /// The backend asks for the body.
    pub(super) fn go_ahead(&mut self) {
        self.body.go_ahead();
    }

    /// The request, where no answer began and its body is there from its first byte.
    pub(super) fn take_request(&mut self) -> Option<Request<RequestBody>> {
        let parts = self.parts.take()?;
        let body = match self.body.is_untouched() {
            true => std::mem::replace(&mut self.body, RequestBody::Empty),
            false => self.body.again()?,
        };
        Some(Request::from_parts(parts, body))
    }

    /// Sends what can be sent; ready once all of it is out.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, wire: &mut Wire) -> Poll<Result<(), Http1Error>> {
        if self.stage == Stage::Done {
            return Poll::Ready(Ok(()));
        }
        loop {
            let collected = self.poll_collect(cx)?;
            if self.stage == Stage::Head {
                return Poll::Pending;
            }
            while self.has_bytes() {
                ready!(self.poll_write(cx, wire))?;
            }
            if self.stage == Stage::Last {
                ready!(self.poll_flush(cx, wire))?;
                self.end();
                return Poll::Ready(Ok(()));
            }
            if collected.is_pending() {
                ready!(self.poll_flush(cx, wire))?;
                return Poll::Pending;
            }
        }
    }

    /// Fills what goes out; pending where the body has no more.
    fn poll_collect(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        if self.stage == Stage::Head {
            ready!(self.poll_begin(cx))?;
        }
        while self.stage == Stage::Body && self.data.is_empty() && self.before.len() - self.sent < GATHERED_BYTES_MAX {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            self.take(frame)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the head, and the first piece of the body if it is at hand.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        let Some(parts) = &self.parts else { return Poll::Ready(Ok(())) };
        if self.body.is_end_stream() {
            head::write(&mut self.before, parts, &Form::Nothing);
            self.stage = Stage::Last;
            return Poll::Ready(Ok(()));
        }
        // What it says before it is asked: of a length only what is left.
        let length = self.body.size_hint().exact();
        let first = Pin::new(&mut self.body).poll_frame(cx);
        if first.is_pending() && !self.has_waited && !self.body.is_held() {
            self.has_waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let is_most_often_without = matches!(parts.method, Method::GET | Method::HEAD);
        self.form = match length {
            Some(length) => Form::Length(length),
            // Over HTTP/2 it is not always known at once that there is none, and few backends await chunks here.
            None if is_most_often_without && matches!(first, Poll::Ready(None)) => Form::Nothing,
            None => Form::Chunks(announced(&parts.headers)),
        };
        head::write(&mut self.before, parts, &self.form);
        self.stage = Stage::Body;
        self.take(ready!(first))?;
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, BodyError>>) -> Result<(), Http1Error> {
        match frame.transpose()?.map(Frame::into_data) {
            None => self.finish(None),
            Some(Ok(data)) => {
                self.push(data)?;
                if self.body.is_end_stream() { self.finish(None) } else { Ok(()) }
            }
            Some(Err(frame)) => self.finish(frame.into_trailers().ok()),
        }
    }

    fn push(&mut self, data: Bytes) -> Result<(), Http1Error> {
        if data.is_empty() {
            return Ok(());
        }
        let after: &[u8] = match &mut self.form {
            Form::Nothing => return Err(Http1Error::BodyLength),
            Form::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Http1Error::BodyLength)?;
                b""
            }
            Form::Chunks(_) => {
                self.before.extend_from_slice(format!("{:X}\r\n", data.len()).as_bytes());
                b"\r\n"
            }
        };
        if self.before.len() + data.len() + after.len() <= GATHERED_BYTES_MAX {
            self.before.extend_from_slice(&data);
            self.before.extend_from_slice(after);
        } else {
            (self.data, self.after) = (data, after);
        }
        Ok(())
    }

    /// The body is over. `trailers` come by themselves, so that no data waits then.
    fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Http1Error> {
        self.stage = Stage::Last;
        match &self.form {
            Form::Nothing | Form::Length(0) => {}
            Form::Length(_) => return Err(Http1Error::BodyLength),
            Form::Chunks(_) if !self.data.is_empty() => self.after = b"\r\n0\r\n\r\n",
            Form::Chunks(announced) => {
                self.before.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.iter().flatten().filter(|(name, _)| announced.contains(name)) {
                    head::write_field(&mut self.before, name, value);
                }
                self.before.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }

    fn has_bytes(&self) -> bool {
        self.sent < self.before.len() || !self.data.is_empty() || !self.after.is_empty()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, wire: &mut Wire) -> Poll<Result<(), Http1Error>> {
        // TLS takes bytes before it knows whether they go out.
        self.is_exposed |= wire.takes_early();
        let wire = Pin::new(wire);
        let before = &self.before[self.sent..];
        let polled = match self.data.is_empty() && self.after.is_empty() {
            true => wire.poll_write(cx, before),
            false => {
                let slices = [IoSlice::new(before), IoSlice::new(&self.data), IoSlice::new(self.after)];
                wire.poll_write_vectored(cx, &slices)
            }
        };
        let count = ready!(polled)?;
        if count == 0 {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
        }
        (self.is_exposed, self.is_unflushed) = (true, true);
        self.advance(count);
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut count: usize) {
        let of_before = count.min(self.before.len() - self.sent);
        self.sent += of_before;
        if self.sent == self.before.len() {
            self.before.clear();
            self.sent = 0;
        }
        count -= of_before;
        let of_data = count.min(self.data.len());
        self.data.advance(of_data);
        self.after = &self.after[count - of_data..];
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, wire: &mut Wire) -> Poll<Result<(), Http1Error>> {
        if self.is_unflushed {
            ready!(Pin::new(wire).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Lets go of everything that an idle connection does not need.
    fn end(&mut self) {
        self.stage = Stage::Done;
        if self.parts.is_none() {
            self.body = RequestBody::Empty;
        }
        self.form = Form::Nothing;
        self.before = Vec::new();
    }
}
