//! A connection, and one exchange after another on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::body::RequestBody;
use super::super::interim::Interim;
use super::error::Http1Error;
use super::framing::{Content, Piece};
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::wire::Wire;

/// A connection, which one exchange has at a time. Dropping it closes it: at once where an exchange is not through, for nobody must take
/// what came for whole; else with a word, where TLS demands one.
#[derive(Debug)]
pub(in crate::upstream) struct Http1 {
    wire: Wire,
    outgoing: Outgoing,
    incoming: Incoming,
    /// What is still to come of the present answer.
    content: Content,
    /// Whether it may serve another request after this one, as far as the head of the answer says.
    is_kept: bool,
    is_between_exchanges: bool,
    /// Whether the request could not be sent to its end. The answer may have come before that.
    is_write_broken: bool,
}

impl Http1 {
    /// A new connection.
    pub(in crate::upstream) fn new(wire: Wire) -> Box<Http1> {
        Box::new(Http1 {
            wire,
            outgoing: Outgoing::new(),
            incoming: Incoming::new(),
            content: Content::Done,
            is_kept: false,
            is_between_exchanges: true,
            is_write_broken: false,
        })
    }

    /// Begins an exchange; [`poll_head`](Http1::poll_head) drives it.
    pub(in crate::upstream) fn begin(&mut self, request: Request<RequestBody>) {
        self.is_between_exchanges = false;
        self.outgoing.begin(request);
    }

    /// Whether the request has a body.
    pub(in crate::upstream) fn has_body(&self) -> bool {
        self.outgoing.has_body()
    }

    /// The head of the answer; its body is asked for by [`poll_frame`](Http1::poll_frame).
    pub(in crate::upstream) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Http1Error>> {
        loop {
            self.send(cx)?;
            if self.outgoing.is_waiting() {
                return Poll::Pending;
            }
            let Http1 { outgoing, incoming, wire, .. } = self;
            let mut is_asked = false;
            let is_to_head = outgoing.is_to_head();
            let head = incoming.take_head(|| outgoing.take_room(), is_to_head, || is_asked = true)?;
            if let Some(head) = head {
                if head.response.status() == StatusCode::SWITCHING_PROTOCOLS && !outgoing.is_done() {
                    return Poll::Ready(Err(Http1Error::Flaw("the protocol changed before the request was through")));
                }
                (self.content, self.is_kept) = (head.content, head.is_kept);
                return Poll::Ready(Ok(head.response));
            }
            if is_asked {
                outgoing.go_ahead();
                continue;
            }
            match ready!(incoming.poll_head(cx, wire)) {
                Ok(0) => return Poll::Ready(Err(incoming.end_of_head())),
                Ok(_) => {}
                Err(_) if !incoming.is_empty() => return Poll::Ready(Err(Http1Error::HeadTruncated)),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Sends more of the request. An answer may be there although that failed, if something went out.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Http1Error> {
        if self.is_write_broken {
            return Ok(());
        }
        match self.outgoing.poll(cx, &mut self.wire) {
            Poll::Ready(Err(Http1Error::Io(error))) if !self.outgoing.is_unsent() => {
                tracing::debug!(%error, "a request could not be sent to its end");
                self.is_write_broken = true;
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Whether no byte of the request can have gone out.
    pub(in crate::upstream) fn is_unsent(&self) -> bool {
        self.outgoing.is_unsent()
    }

    /// The request, after a failure, where no answer began and its body is there from its first byte.
    pub(in crate::upstream) fn take_request(&mut self) -> Option<Request<RequestBody>> {
        self.outgoing.take_request()
    }

    /// The interim answers of an exchange that failed.
    pub(in crate::upstream) fn take_interim(&mut self) -> Interim {
        self.incoming.take_interim()
    }

    /// The next frame of the answer's body.
    pub(in crate::upstream) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Http1Error>>> {
        loop {
            self.send(cx)?;
            match self.content.next(&mut self.incoming.input)? {
                Piece::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Piece::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Piece::End => return Poll::Ready(None),
                Piece::Starved => {}
            }
            let left = self.content.size_hint().lower();
            if ready!(self.incoming.poll_body(cx, &mut self.wire, left))? == 0 {
                self.content.end()?;
            }
        }
    }

    /// All of the body, where it came with the head and nothing is left to do.
    pub(in crate::upstream) fn take_whole(&mut self) -> Option<Bytes> {
        let is_whole = matches!(self.content, Content::Length(length) if length == self.incoming.input.len() as u64);
        if !is_whole || !self.outgoing.is_done() {
            return None;
        }
        self.content = Content::Done;
        Some(std::mem::take(&mut self.incoming.input))
    }

    /// Whether the answer is through.
    pub(in crate::upstream) fn is_answered(&self) -> bool {
        self.content.is_done()
    }

    /// How many bytes of the answer's body are still to come.
    pub(in crate::upstream) fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }

    /// Ends the exchange; whether another may follow.
    pub(in crate::upstream) fn end(&mut self) -> bool {
        // A request that is not through makes a connection unusable, and so do bytes that belong to no answer (CVE-2025-4366).
        self.is_between_exchanges = self.outgoing.is_done() && self.content.is_done();
        let is_usable = self.is_between_exchanges && self.is_kept && self.incoming.is_empty();
        self.incoming.rest();
        is_usable
    }

    /// Whether another exchange may begin: nothing came since the last one, and the other side did not close.
    pub(in crate::upstream) fn is_silent(&mut self) -> bool {
        self.wire.is_silent()
    }

    /// The connection after 101.
    pub(in crate::upstream) fn into_switched(mut self: Box<Self>) -> Switched {
        let early = std::mem::take(&mut self.incoming.input);
        Switched { early, connection: self }
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        if self.is_between_exchanges {
            self.wire.say_goodbye();
        }
    }
}

/// A connection that speaks something else from here on.
#[derive(Debug)]
pub struct Switched {
    /// What came with the head.
    early: Bytes,
    connection: Box<Http1>,
}

impl AsyncRead for Switched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.connection.wire).poll_read(cx, buffer);
        }
        let count = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..count]);
        self.early.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Switched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection.wire).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection.wire).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection.wire).poll_shutdown(cx)
    }
}
