//! What stands between a socket and the library that speaks HTTP on it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::http2::{Passing, reason_name};
use super::{ClientConnection, Protocol};
use crate::upstream::poll_write_gathered;

/// What a client that speaks HTTP/2 sends first (RFC 9113 3.4). Its first line is no request of HTTP/1.1.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that a connection at rest reads to wake up.
const WAITING_BYTES: usize = 16;

/// A socket that reports its bytes to the connection's deadlines and, over HTTP/2, what the library refuses by itself to the counters.
#[derive(Debug)]
pub(super) struct Watched<I> {
    io: I,
    connection: Rc<ClientConnection>,
    /// What was read already and nobody took yet.
    early: Bytes,
    /// Over HTTP/2.
    frames: Option<Box<Passing>>,
}

impl<I> Watched<I> {
    /// From here on frames of HTTP/2 pass.
    pub(super) fn follow_frames(&mut self, frames: Passing) {
        self.frames = Some(Box::new(frames));
    }

    fn follow(&mut self, read: &[u8]) {
        if let Some(frames) = &mut self.frames {
            let connection = &self.connection;
            frames.blocks.follow(read, |flaw| connection.count_refusal(flaw.reason));
            connection.note_block(frames.blocks.are_open(), frames.blocks.take_ended());
        }
    }

    fn note_written<'b>(&mut self, mut count: usize, slices: impl IntoIterator<Item = &'b [u8]>) {
        self.connection.note_write();
        let Some(frames) = &mut self.frames else { return };
        for slice in slices {
            let written = &slice[..count.min(slice.len())];
            count -= written.len();
            frames.resets.follow(written, |reason| {
                self.connection.worker().metrics.streams_reset.with_label_values(&[reason_name(reason)]).inc();
            });
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Watched<I> {
    pub(super) fn new(io: I, connection: &Rc<ClientConnection>) -> Watched<I> {
        Watched { io, connection: Rc::clone(connection), early: Bytes::new(), frames: None }
    }

    /// Reads as much as is needed to tell the protocols apart, and keeps it for the next reader.
    pub(super) async fn find_protocol(&mut self) -> io::Result<Protocol> {
        let mut read = BytesMut::new();
        let protocol = loop {
            if !PREFACE.starts_with(&read) {
                break Protocol::Http1;
            }
            if read.len() == PREFACE.len() {
                break Protocol::Http2;
            }
            let mut rest = [0; PREFACE.len()];
            let rest = &mut rest[read.len()..];
            match self.read(rest).await? {
                // It ends in the middle: not for us to judge.
                0 => break Protocol::Http1,
                count => read.extend_from_slice(&rest[..count]),
            }
        };
        self.early = read.freeze();
        Ok(protocol)
    }

    /// Done once there is something to read, be it the end. What is read by that is kept for the next reader.
    pub(super) async fn wait(&mut self) -> io::Result<()> {
        if self.early.is_empty() {
            let mut read = [0; WAITING_BYTES];
            let count = self.read(&mut read).await?;
            self.early = Bytes::copy_from_slice(&read[..count]);
        }
        Ok(())
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.frames.as_ref().is_some_and(|frames| frames.blocks.are_lost()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a header block cannot be read")));
        }
        let before = buffer.filled().len();
        if !self.early.is_empty() {
            let count = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early.split_to(count));
            if self.early.is_empty() && buffer.remaining() > 0 {
                // The rest of the head, most often, and one piece for who reads it. An error comes again.
                let _ = Pin::new(&mut self.io).poll_read(cx, buffer);
            }
            self.follow(&buffer.filled()[before..]);
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.connection.note_read();
            self.follow(&buffer.filled()[before..]);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(written) = &polled {
            self.note_written(*written.as_ref().unwrap_or(&0), [bytes]);
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = poll_write_gathered(Pin::new(&mut self.io), cx, slices);
        if let Poll::Ready(written) = &polled {
            self.note_written(*written.as_ref().unwrap_or(&0), slices.iter().map(|slice| &**slice));
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
