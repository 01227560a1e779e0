//! The writes of an HTTP/2 connection, collected, and its reads, rationed.
//!
//! h2 writes each frame as it is made, with a call of the system's for each small answer. An [`Outbox`] takes the frames of one poll of
//! the connection, and whoever polls it sends them with one call. What it holds is bounded; frames that are large anyway go straight on.
//!
//! h2 takes all that its socket has before it lets others have their turn, and small frames are dear: beside eight connections that flood
//! with SETTINGS others waited for 171 ms (99th percentile). So a turn reads nothing more after [`TURN`] ([`Outbox::begin_turn`]).
//!
//! What is read passes a [`Mender`].
//!
//! What is below may hold bytes back too, as TLS does with a record that the socket had no room for: sent is what is flushed there.

use std::cell::RefCell;
use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;

use super::mender::Mender;

/// Bytes that wait at most.
const BYTES_MAX: usize = 64 * 1024;
/// From this length on, a write is not copied.
const DIRECT_BYTES_MIN: usize = 8 * 1024;
/// How long a turn reads. A read of 8 KiB may hold 900 frames, which take longer; as bodies they take a hundredth of it.
const TURN: Duration = Duration::from_micros(250);
/// The buffer that a connection keeps once it is empty.
const KEPT_BYTES_MAX: usize = 4 * 1024;

/// A socket whose writes wait until [`Outbox::poll_send`].
#[derive(Debug)]
pub struct Outbox<I>(Rc<RefCell<Inner<I>>>);

#[derive(Debug)]
struct Inner<I> {
    /// The last error of a read. h2 keeps the text of it alone.
    read_error: Option<io::Error>,
    io: I,
    mender: Mender,
    /// When this turn began; no turn ends before the first begins.
    turn: Option<Instant>,
    /// Whether it has read something: each does.
    has_read: bool,
    /// Whether something was read since somebody asked.
    is_heard: bool,
    waiting: BytesMut,
    /// Whether something was written that may not have left yet.
    is_unflushed: bool,
}

impl<I> Clone for Outbox<I> {
    fn clone(&self) -> Outbox<I> {
        Outbox(Rc::clone(&self.0))
    }
}

impl<I: AsyncWrite + Unpin> Outbox<I> {
    /// Around `io`, from which so many bytes come before the first frame.
    pub fn new(io: I, preface_bytes: usize) -> Outbox<I> {
        let (turn, waiting, mender) = (None, BytesMut::new(), Mender::new(preface_bytes));
        let (read_error, has_read, is_heard, is_unflushed) = (None, false, false, false);
        Outbox(Rc::new(RefCell::new(Inner { read_error, io, mender, turn, has_read, is_heard, waiting, is_unflushed })))
    }

    /// Lets the connection read for one more turn. Whoever polls it does so before; where a turn ends early, the task is woken.
    pub fn begin_turn(&self) {
        let mut inner = self.0.borrow_mut();
        (inner.turn, inner.has_read) = (Some(Instant::now()), false);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        let inner = self.0.borrow();
        inner.waiting.is_empty() && !inner.is_unflushed
    }

    /// Whether the other side said something since this was asked last.
    pub(super) fn take_heard(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().is_heard)
    }

    /// The error that reading met last, as it was.
    pub(super) fn take_read_error(&self) -> Option<io::Error> {
        self.0.borrow_mut().read_error.take()
    }

    /// Sends what waits.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}

impl<I: AsyncWrite + Unpin> Inner<I> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting))?;
            self.is_unflushed = true;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(sent);
        }
        if self.waiting.capacity() > KEPT_BYTES_MAX {
            self.waiting = BytesMut::new();
        } else {
            self.waiting.clear();
        }
        self.poll_flushed(cx)
    }

    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// After a write that went straight on: what does not leave now does so by the next [`Outbox::poll_send`].
    fn written(&mut self, cx: &mut Context<'_>, count: usize) -> Poll<io::Result<usize>> {
        self.is_unflushed = true;
        match self.poll_flushed(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(count)),
        }
    }

    /// Makes room for so many bytes; `true`: they are to be written straight on.
    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<bool>> {
        let is_direct = bytes >= DIRECT_BYTES_MIN;
        if is_direct || self.waiting.len() + bytes > BYTES_MAX {
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(Ok(is_direct))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Outbox<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if inner.has_read && inner.turn.is_some_and(|begun| begun.elapsed() >= TURN) {
            // Not woken at once: the runtime goes through all tasks that are ready, 61 of them, before it asks the sockets of the others.
            return pin!(yield_now()).poll(cx).map(|()| Ok(()));
        }
        let before = buffer.filled().len();
        match ready!(Pin::new(&mut inner.io).poll_read(cx, buffer)) {
            Ok(()) => {
                inner.mender.mend(&mut buffer.filled_mut()[before..]);
                (inner.has_read, inner.is_heard) = (true, true);
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                let told = io::Error::new(error.kind(), error.to_string());
                inner.read_error = Some(error);
                Poll::Ready(Err(told))
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Outbox<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if ready!(inner.poll_room(cx, bytes.len()))? {
            let count = ready!(Pin::new(&mut inner.io).poll_write(cx, bytes))?;
            return inner.written(cx, count);
        }
        inner.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        if ready!(inner.poll_room(cx, bytes))? {
            let count = ready!(Pin::new(&mut inner.io).poll_write_vectored(cx, slices))?;
            return inner.written(cx, count);
        }
        slices.iter().for_each(|slice| inner.waiting.extend_from_slice(slice));
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Done at once: the connection's poll ends with [`Outbox::poll_send`].
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What went out.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl AsyncWrite for Writes {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncRead for Writes {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn send(outbox: &Outbox<Writes>) {
        std::future::poll_fn(|cx| outbox.poll_send(cx)).await.unwrap();
    }

    #[tokio::test]
    async fn small_writes_go_out_together_and_in_order() {
        let mut outbox = Outbox::new(Writes::default(), 0);
        outbox.write_all(b"one").await.unwrap();
        outbox.flush().await.unwrap();
        outbox.write_all(b"two").await.unwrap();
        assert!(outbox.0.borrow().io.0.is_empty() && !outbox.is_empty());
        send(&outbox).await;
        assert_eq!(outbox.0.borrow().io.0, [b"onetwo".to_vec()]);

        // A large one waits for nobody, but stands behind what came before.
        outbox.write_all(b"three").await.unwrap();
        outbox.write_all(&[7; DIRECT_BYTES_MIN]).await.unwrap();
        assert_eq!(outbox.0.borrow().io.0[1..], [b"three".to_vec(), vec![7; DIRECT_BYTES_MIN]]);
        assert!(outbox.is_empty());
    }

    /// Holds everything back until it is flushed, which succeeds every other time.
    #[derive(Default)]
    struct Holding {
        held: usize,
        out: usize,
        is_due: bool,
    }

    impl AsyncWrite for Holding {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.held += bytes.len();
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.is_due = !self.is_due;
            if self.is_due {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.out += std::mem::take(&mut self.held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_is_held_back_below_is_not_sent_yet() {
        for bytes in [10, DIRECT_BYTES_MIN] {
            let mut outbox = Outbox::new(Holding::default(), 0);
            outbox.write_all(&vec![1; bytes]).await.unwrap();
            assert!(!outbox.is_empty(), "{bytes}");
            std::future::poll_fn(|cx| outbox.poll_send(cx)).await.unwrap();
            assert_eq!((outbox.0.borrow().io.out, outbox.is_empty()), (bytes, true));
        }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_goes_out_before_the_end() {
        let mut outbox = Outbox::new(Writes::default(), 0);
        let small = [1; DIRECT_BYTES_MIN - 1];
        for _ in 0..20 {
            outbox.write_all(&small).await.unwrap();
            assert!(outbox.0.borrow().waiting.len() <= BYTES_MAX);
        }
        outbox.shutdown().await.unwrap();
        assert_eq!(outbox.0.borrow().io.0.concat().len(), 20 * small.len());
        assert!(outbox.0.borrow().waiting.capacity() <= KEPT_BYTES_MAX);
    }

    /// A socket that always has more.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buffer.put_slice(&vec![1; buffer.remaining()]);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_turn_ends_and_the_next_is_asked_for() {
        let mut outbox = Outbox::new(Endless, 0);
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let mut buffer = [0; 8 * 1024];
        for turn in 1..=3 {
            outbox.begin_turn();
            // However late it is, each turn reads something.
            std::thread::sleep(TURN);
            let mut read = || Pin::new(&mut outbox).poll_read(&mut cx, &mut ReadBuf::new(&mut buffer)).is_ready();
            assert_eq!((read(), read(), wakes.0.load(Ordering::SeqCst)), (true, false, turn));
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_holds_the_writer() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut outbox = Outbox::new(ours, 0);
        let writing = async {
            for _ in 0..100 {
                outbox.write_all(&[1; 4096]).await.unwrap();
            }
            outbox.shutdown().await.unwrap();
        };
        let reading = async {
            let mut bytes = Vec::new();
            theirs.read_to_end(&mut bytes).await.unwrap();
            bytes.len()
        };
        assert_eq!(tokio::join!(writing, reading).1, 100 * 4096);
    }
}
