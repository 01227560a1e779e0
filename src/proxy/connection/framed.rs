//! What stands between a connection of HTTP/1.1 and hyper: nothing passes whose framing could be read in two ways.
//!
//! Where [`Follower`] refuses within a body, reading gives an error, and the body breaks off. Where it refuses between two messages, hyper
//! gets what comes before and then the end of the connection, so that it finishes what is under way and stops without a word; the answer
//! to what was refused is written after that (`ending`). hyper gives up an exchange at the end of its input, which is why that end
//! comes only once every exchange is over and its answer is out.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::framing::{Flaw, Follower, Refusal};
use super::ClientConnection;
use super::io::Watched;

/// A socket whose requests are followed.
#[derive(Debug)]
pub(super) struct Framed<I> {
    io: Watched<I>,
    connection: Rc<ClientConnection>,
    follower: Follower,
    refusal: Option<Refusal>,
    /// Exchanges that were over when everything written was last out.
    flushed: u64,
    /// Whether the client sends no more.
    is_ended: bool,
    /// Whether hyper was told that the client sends no more, because of a refusal.
    is_told: bool,
}

impl<I> Framed<I> {
    pub(super) fn new(io: Watched<I>, connection: &Rc<ClientConnection>) -> Framed<I> {
        let follower = Follower::new(connection.listener().options.header_bytes_max);
        let connection = Rc::clone(connection);
        Framed { io, connection, follower, refusal: None, flushed: 0, is_ended: false, is_told: false }
    }

    /// The socket alone, for what is no HTTP/1.1.
    pub(super) fn into_inner(self) -> Watched<I> {
        self.io
    }

    pub(super) fn io(&mut self) -> &mut Watched<I> {
        &mut self.io
    }

    /// Whether bytes came that were not passed on.
    pub(super) fn has_refused(&self) -> bool {
        self.refusal.is_some()
    }

    /// What is still to be answered: hyper has stopped because of it, and everything before is answered.
    pub(super) fn unanswered(&self) -> Option<Flaw> {
        self.refusal.filter(|_| self.is_told).map(|refusal| refusal.flaw)
    }

    /// Whether the client may be sending something that nobody is going to read.
    pub(super) fn may_have_more(&self) -> bool {
        let is_unread = !self.follower.is_between_messages() || self.follower.heads() > self.connection.exchanges_ended();
        !self.is_ended && (is_unread || self.has_refused())
    }

    /// Reading goes no further. What hyper gets instead.
    fn poll_refused(&mut self, refusal: Refusal) -> Poll<io::Result<()>> {
        if refusal.is_within_body {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal.flaw.detail)));
        }
        // Woken by the flush that makes it true.
        if !self.is_at_rest() {
            return Poll::Pending;
        }
        self.is_told = true;
        Poll::Ready(Ok(()))
    }

    /// Whether every request that was passed is answered, to the last byte.
    pub(super) fn is_at_rest(&self) -> bool {
        self.flushed == self.follower.heads()
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Framed<I> {
    /// Done once there is something to read, be it the end.
    pub(super) async fn wait(&mut self) -> io::Result<()> {
        self.io.wait().await
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Framed<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(refusal) = this.refusal {
            return this.poll_refused(refusal);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        let read = &buffer.filled()[before..];
        this.is_ended = read.is_empty();
        this.connection.is_flushed.set(false);
        let followed = this.follower.follow(read);
        let is_unfinished = followed.map_or_else(|refusal| refusal.is_within_body, |()| this.follower.is_in_body());
        this.connection.unfinished.set(is_unfinished.then(|| this.follower.heads()));
        let has_begun_next = followed.is_err() || !(is_unfinished || this.follower.is_between_messages());
        this.connection.messages_begun.set(this.follower.heads() + u64::from(has_begun_next));
        match followed {
            Ok(()) => Poll::Ready(Ok(())),
            Err(refusal) => {
                this.connection.note_refusal(&refusal);
                this.refusal = Some(refusal);
                buffer.set_filled(before + refusal.passed);
                if refusal.passed > 0 { Poll::Ready(Ok(())) } else { this.poll_refused(refusal) }
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Framed<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes once it has handed over everything that it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        let ended = self.connection.exchanges_ended();
        if self.flushed != ended {
            self.flushed = ended;
            if self.has_refused() && self.is_at_rest() {
                cx.waker().wake_by_ref();
            }
        }
        let is_flushed = self.is_at_rest() && self.follower.is_between_messages() && !self.has_refused();
        self.connection.is_flushed.set(is_flushed);
        Poll::Ready(Ok(()))
    }

    /// Not yet: there may be something to say still, and something to wait for (`ending`).
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
