//! One connection of HTTP/2 to an endpoint, and the task that reads and writes it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::super::outbox::Outbox;
use super::STREAMS_MAX;

/// Bytes of one answer that may be under way.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes of all answers of a connection: what clients that do not read hold back leaves room for the answers of others.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_MAX;
/// What small frames of answers may cost that wait for their clients, each 256 bytes less its own: some 270,000 frames, 40 MiB. h2 ends the
/// connection above, and with it the exchanges of all.
const SMALL_FRAMES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of one request's body that wait to be sent.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an answer's head.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Streams that were given up of late and are still known, so that what is under way to them is passed over.
const GIVEN_UP_MAX: usize = STREAMS_MAX as usize;
/// How long a connection may be silent after a request before it is asked for a sign of life, and how long that may take.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long more is given to an endpoint that does not take all that it is sent.
const BACKED_UP_MAX: Duration = Duration::from_secs(1);
/// How long an endpoint that gave a sign of life, and neither says nor is asked anything else, is not asked for another: servers of gRPC end a
/// connection that does so more often than every five minutes.
const TRUST: Duration = Duration::from_secs(6 * 60);
/// What stands for a limit of streams that the endpoint has not said yet. No limit is that number.
const UNKNOWN: usize = (1 << 31) - 3;

/// A connection that takes requests. Its task ends by itself once this and all exchanges are gone.
#[derive(Debug)]
pub(in crate::upstream) struct Begun {
    sender: RefCell<SendRequest<Bytes>>,
    state: Rc<State>,
}

/// What a connection and its task know of each other.
#[derive(Debug)]
struct State {
    /// Exchanges under way.
    streams: Cell<usize>,
    /// Whether one was begun since the endpoint was heard last. It may be over: given up.
    is_answer_due: Cell<bool>,
    /// What the endpoint allows, as far as it said so.
    streams_max: Cell<usize>,
    /// Since when the endpoint has not taken all that is there to be sent.
    backed_up_since: Cell<Option<Instant>>,
}

impl Begun {
    pub(super) fn streams(&self) -> usize {
        self.state.streams.get()
    }

    pub(super) fn streams_max(&self) -> usize {
        self.state.streams_max.get()
    }

    pub(super) fn add_stream(&self) {
        self.state.streams.set(self.state.streams.get() + 1);
        self.state.is_answer_due.set(true);
    }

    /// Gives how many are left.
    pub(super) fn remove_stream(&self) -> usize {
        let left = self.state.streams.get() - 1;
        self.state.streams.set(left);
        left
    }

    /// Whether the endpoint reads what it is sent. Where it does not, what is given up stays in h2 until it does, and so nothing more is given.
    pub(super) fn is_read(&self) -> bool {
        self.state.backed_up_since.get().is_none_or(|since| since.elapsed() < BACKED_UP_MAX)
    }

    /// Whether it takes another request.
    pub(super) fn is_open(&self) -> bool {
        self.check().is_ok()
    }

    /// What sends one request. Error: it takes none any more.
    pub(super) fn sender(&self) -> Result<SendRequest<Bytes>, h2::Error> {
        self.check()?;
        Ok(self.sender.borrow().clone())
    }

    fn check(&self) -> Result<(), h2::Error> {
        match self.sender.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(checked) => checked,
            // No request went through this sender itself, so that it waits for none.
            Poll::Pending => Ok(()),
        }
    }
}

/// Why HTTP/2 did not begin on a connection.
#[derive(Debug)]
pub(in crate::upstream) enum HandshakeError {
    /// The connection failed.
    Failed {
        /// What h2 made of it.
        source: h2::Error,
        /// What its reader met, if it did.
        read: Option<io::Error>,
    },
    /// It ended before the other side said anything.
    Ended,
}

/// Begins HTTP/2 on a connection, and waits for the endpoint's settings: before, nobody knows how many streams it takes, and h2 would let
/// those that are too many wait for each other.
pub(in crate::upstream) async fn handshake<I>(io: I) -> Result<Begun, HandshakeError>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    begin(io, SILENCE_MAX).await
}

async fn begin<I>(io: I, silence_max: Duration) -> Result<Begun, HandshakeError>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let outbox = Outbox::new(io, 0);
    let failed = |source| HandshakeError::Failed { source, read: outbox.take_read_error() };
    let mut builder = Builder::new();
    builder.enable_push(false).initial_window_size(STREAM_WINDOW_BYTES).initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder.max_send_buffer_size(SEND_BUFFER_BYTES_MAX).max_header_list_size(HEADER_BYTES_MAX).initial_max_send_streams(UNKNOWN);
    // What comes for one that is no longer known is answered with a reset, and counts for nothing: clients that go away must not end the
    // connection of others.
    builder.max_concurrent_reset_streams(GIVEN_UP_MAX).max_local_error_reset_streams(None);
    builder.data_frame_budget(SMALL_FRAMES_MAX);
    let (sender, mut connection) = builder.handshake(outbox.clone()).await.map_err(failed)?;
    let state = Rc::new(State {
        streams: Cell::new(0),
        is_answer_due: Cell::new(false),
        streams_max: Cell::new(UNKNOWN),
        backed_up_since: Cell::new(None),
    });
    let pings = connection.ping_pong();
    let (known, is_known) = oneshot::channel();
    let driver = Driver { connection, outbox: outbox.clone(), state: Rc::clone(&state), known: Some(known) };
    let watched = (outbox.clone(), Rc::clone(&state));
    tokio::task::spawn_local(async move {
        let (outbox, state) = watched;
        // Biased: an end that is known is told for what it is.
        tokio::select! {
            biased;
            () = driver => {}
            () = silence(pings, &outbox, &state, silence_max) => tracing::debug!("an endpoint gives no sign of life"),
        }
    });
    match is_known.await {
        Ok(Ok(())) => Ok(Begun { sender: RefCell::new(sender), state }),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(HandshakeError::Ended),
    }
}

/// Reads and writes a connection until its end.
struct Driver<I: AsyncRead + AsyncWrite + Unpin> {
    connection: Connection<Outbox<I>, Bytes>,
    outbox: Outbox<I>,
    state: Rc<State>,
    /// Who waits for the settings.
    known: Option<oneshot::Sender<Result<(), h2::Error>>>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Future for Driver<I> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.outbox.begin_turn();
        let polled = Pin::new(&mut this.connection).poll(cx);
        this.state.streams_max.set(this.connection.max_concurrent_send_streams());
        if this.state.streams_max.get() != UNKNOWN
            && let Some(known) = this.known.take()
        {
            // Nobody waits any more where the time is over.
            let _ = known.send(Ok(()));
        }
        let sent = this.outbox.poll_send(cx);
        let backed_up_since = this.state.backed_up_since.take();
        this.state.backed_up_since.set(sent.is_pending().then(|| backed_up_since.unwrap_or_else(Instant::now)));
        let is_broken = matches!(sent, Poll::Ready(Err(_)));
        match polled {
            Poll::Pending if !is_broken => return Poll::Pending,
            Poll::Ready(Err(error)) => match this.known.take() {
                Some(known) => drop(known.send(Err(error))),
                None => tracing::debug!(%error, "connection to an endpoint ended"),
            },
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        Poll::Ready(())
    }
}

/// Ends where an endpoint that owes an answer is silent, and stays so though it is asked.
async fn silence<I: AsyncWrite + Unpin>(mut pings: Option<PingPong>, outbox: &Outbox<I>, state: &State, silence_max: Duration) {
    // When it gave a sign of life, as long as it says nothing else.
    let mut trusted: Option<Instant> = None;
    loop {
        sleep(silence_max).await;
        if outbox.take_heard() {
            trusted = None;
            state.is_answer_due.set(false);
            continue;
        }
        let is_trusted = trusted.is_some_and(|since| since.elapsed() < TRUST);
        let is_due = state.is_answer_due.get() || (state.streams.get() > 0 && !is_trusted);
        let Some(pings) = pings.as_mut().filter(|_| is_due) else { continue };
        if timeout(silence_max, pings.ping(Ping::opaque())).await.is_err() {
            return;
        }
        // The sign itself tells nothing else.
        outbox.take_heard();
        trusted = Some(Instant::now());
        state.is_answer_due.set(false);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http::{Request, Response};
    use tokio::io::DuplexStream;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    const SILENCE: Duration = Duration::from_millis(60);

    /// Runs a test where tasks of one thread can be begun.
    async fn locally(test: impl Future<Output = ()>) {
        LocalSet::new().run_until(timeout(SILENCE_MAX, test)).await.expect("it hangs");
    }

    /// An endpoint that answers after `delay`, and reads nothing in the meantime if it `is_deaf`.
    async fn serve(io: DuplexStream, delay: Duration, is_deaf: bool) {
        let mut connection = h2::server::handshake(io).await.unwrap();
        let (_, mut reply) = connection.accept().await.unwrap().unwrap();
        if is_deaf {
            sleep(delay).await;
        } else {
            let _ = timeout(delay, poll_fn(|cx| connection.poll_closed(cx))).await;
        }
        let _ = reply.send_response(Response::new(()), true);
        poll_fn(|cx| connection.poll_closed(cx)).await.ok();
    }

    /// Whether a request is answered that takes the endpoint five times what it may be silent.
    async fn is_answered(is_deaf: bool) -> bool {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        spawn_local(serve(theirs, 5 * SILENCE, is_deaf));
        let begun = begin(ours, SILENCE).await.unwrap();
        begun.add_stream();
        let request = Request::get("http://a.example/").body(()).unwrap();
        let (answer, _) = begun.sender().unwrap().send_request(request, true).unwrap();
        let answered = answer.await.is_ok();
        assert_eq!(begun.is_open(), answered);
        answered
    }

    #[tokio::test]
    async fn an_endpoint_is_asked_for_a_sign_of_life_and_given_up_without_one() {
        locally(async {
            assert!(is_answered(false).await, "it answered each ping");
            assert!(!is_answered(true).await, "it said nothing");
        })
        .await;
    }

    #[tokio::test]
    async fn an_endpoint_that_lets_each_exchange_be_given_up_is_given_up_too() {
        locally(async {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            spawn_local(serve(theirs, 100 * SILENCE, true));
            let begun = begin(ours, SILENCE).await.unwrap();
            let given_up = async {
                while begun.is_open() {
                    begun.add_stream();
                    let request = Request::get("http://a.example/").body(()).unwrap();
                    drop(begun.sender().unwrap().send_request(request, true).unwrap());
                    begun.remove_stream();
                    sleep(SILENCE / 4).await;
                }
            };
            timeout(50 * SILENCE, given_up).await.expect("it is trusted for ever");
        })
        .await;
    }

    #[tokio::test]
    async fn an_endpoint_that_reads_nothing_gets_no_more_until_it_does() {
        locally(async {
            let (ours, theirs) = tokio::io::duplex(1024);
            let (go_on, waiting) = oneshot::channel::<()>();
            spawn_local(async move {
                let mut connection = h2::server::handshake(theirs).await.unwrap();
                let first = connection.accept().await;
                waiting.await.unwrap();
                while let Some(Ok(next)) = connection.accept().await {
                    drop(next);
                }
                drop(first);
            });
            let begun = begin(ours, SILENCE_MAX).await.unwrap();
            // None is in HPACK's table when the next is written.
            let long = |number| format!("{number}").repeat(1000);
            let request = |number| Request::get("http://a.example/").header("x-long", long(number)).body(()).unwrap();
            let ask = |number| begun.sender().unwrap().send_request(request(number), true).unwrap();
            let asked: Vec<_> = (0..9).map(ask).collect();
            assert!(begun.is_read(), "it was given no time");
            let changes_to = async |is_read| {
                while begun.is_read() != is_read {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(10 * BACKED_UP_MAX, changes_to(false)).await.expect("it is given more");
            assert!(begun.is_open());
            go_on.send(()).unwrap();
            timeout(10 * BACKED_UP_MAX, changes_to(true)).await.expect("it is given nothing for ever");
            drop(asked);
        })
        .await;
    }

    #[tokio::test]
    async fn a_connection_that_nobody_needs_any_more_is_closed() {
        locally(async {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let serving = spawn_local(async move { h2::server::handshake(theirs).await.unwrap().accept().await.is_none() });
            drop(begin(ours, SILENCE_MAX).await.unwrap());
            assert!(timeout(SILENCE_MAX, serving).await.unwrap().unwrap());
        })
        .await;
    }
}
