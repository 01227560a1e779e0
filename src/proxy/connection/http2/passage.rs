//! A stream of HTTP/2 as a tunnel's end: DATA both ways (RFC 8441 5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::poll_room;

/// Both ways of a stream, after both heads.
#[derive(Debug)]
pub(super) struct Passage {
    sending: SendStream<Bytes>,
    receiving: RecvStream,
    /// What came and is not read yet. The client's window opens as it is read.
    received: Bytes,
}

impl Passage {
    /// Of these halves.
    pub(super) fn new(sending: SendStream<Bytes>, receiving: RecvStream) -> Passage {
        Passage { sending, receiving, received: Bytes::new() }
    }
}

impl AsyncRead for Passage {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.received.is_empty() {
            match ready!(this.receiving.poll_data(cx)) {
                Some(Ok(bytes)) => this.received = bytes,
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = this.received.len().min(buffer.remaining());
        buffer.put_slice(&this.received[..count]);
        this.received.advance(count);
        // A stream that ended meanwhile has no window to open.
        let _ = this.receiving.flow_control().release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Passage {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let broken = |error| io::Error::new(io::ErrorKind::BrokenPipe, error);
        // As in an answer's body: h2 takes the whole piece once there is room for any of it, and no other before that is sent.
        self.sending.reserve_capacity(1);
        ready!(poll_room(&mut self.sending, cx)).map_err(broken)?;
        self.sending.send_data(Bytes::copy_from_slice(bytes), false).map_err(broken)?;
        Poll::Ready(Ok(bytes.len()))
    }

    /// The connection's own task sends.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.sending.send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error)))
    }
}
