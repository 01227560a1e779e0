//! A body that goes out over a stream of HTTP/2, to a client or to a backend.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use super::fields::keep_out_of_tables;

/// Sends a body as fast as the other side takes it. A piece that waits for room is the last that was taken: whoever the body comes from is read
/// no faster than that.
#[derive(Debug)]
pub struct Sending<B: Body> {
    stream: SendStream<Bytes>,
    body: B,
    /// A piece, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
    /// What the other side is told of a body that breaks off.
    reason_of: fn(&B::Error) -> Reason,
}

impl<B: Body> Sending<B> {
    /// Of `body`, over `stream`, whose head is out.
    pub fn new(stream: SendStream<Bytes>, body: B, reason_of: fn(&B::Error) -> Reason) -> Sending<B> {
        Sending { stream, body, waiting: None, reason_of }
    }

    /// What is sent.
    pub(super) fn body_mut(&mut self) -> &mut B {
        &mut self.body
    }
}

impl<B: Body<Data = Bytes> + Unpin> Future for Sending<B> {
    /// Whether the stream took it. Where the body itself breaks off, the stream is reset, and that is all.
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let this = &mut *self;
        loop {
            // Asked each time, so that a reset wakes whatever is waited for.
            if let Poll::Ready(reason) = this.stream.poll_reset(cx)? {
                return Poll::Ready(Err(reason.into()));
            }
            if this.waiting.as_ref().is_some_and(|(bytes, _)| !bytes.is_empty()) {
                ready!(poll_room(&mut this.stream, cx))?;
            }
            if let Some((bytes, is_last)) = this.waiting.take() {
                this.stream.send_data(bytes, is_last)?;
                if is_last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                None => return Poll::Ready(this.stream.send_data(Bytes::new(), true)),
                Some(Err(error)) => {
                    this.stream.send_reset((this.reason_of)(&error));
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(bytes) => {
                    // Room is asked for once there is something to send: what waits for its source takes none of the connection's from
                    // others. h2 itself asks for the rest of the piece.
                    this.stream.reserve_capacity(usize::from(!bytes.is_empty()));
                    this.waiting = Some((bytes, this.body.is_end_stream()));
                }
                Err(frame) => {
                    let Ok(mut trailers) = frame.into_trailers() else { continue };
                    keep_out_of_tables(&mut trailers);
                    this.stream.reserve_capacity(0);
                    return Poll::Ready(this.stream.send_trailers(trailers));
                }
            }
        }
    }
}

/// Waits until something more may be sent. Error: the stream takes nothing more.
pub fn poll_room(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
        }
    }
    Poll::Ready(Ok(()))
}
