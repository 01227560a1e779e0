//! One exchange over a stream of HTTP/2: the request handed to the exchange, and its answer sent as fast as the client takes it.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, request};
use http_body::Body;

use super::super::super::body::{BodyError, ResponseBody};
use super::super::super::exchange;
use super::super::ClientConnection;
use super::blocks::Malformed;
use super::passage::Passage;
use crate::upstream::{ClientBody, GoAhead, StreamBody, keep_out_of_tables};

/// From so many streams of a connection on that were reset before their answer began, the next are not begun before it is known that they
/// stand.
const ABANDONED_MIN: u32 = 4;
/// What has no place in an answer (RFC 9113 8.2.2), though a filter may have set it.
const OF_CONNECTIONS: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Answers one request. Gives the stream where it becomes a tunnel.
pub(super) async fn serve(
    stream: Rc<ClientConnection>,
    request: Request<RecvStream>,
    reply: SendResponse<Bytes>,
    malformed: Rc<Malformed>,
) -> Option<Passage> {
    let reply = Rc::new(Reply { sender: RefCell::new(reply), has_begun: Cell::new(false) });
    let is_head = request.method() == Method::HEAD;
    let (head, receiving) = request.into_parts();
    // What follows CONNECT is no body.
    let (body, receiving) = match head.method == Method::CONNECT {
        true => (ClientBody::Empty, Some(receiving)),
        false => (body_of(&head, receiving, &reply, malformed), None),
    };
    let answered = reply.unless_reset(pin!(answer(Rc::clone(&stream), Request::from_parts(head, body)))).await?;
    let (mut head, body) = answered.into_parts();
    complete(&mut head.headers);
    let has_tunnel = stream.tunnel.borrow().is_some();
    if has_tunnel {
        let sending = reply.begin(Response::from_parts(head, ()), false)?;
        return receiving.map(|receiving| Passage::new(sending, receiving));
    }
    if let Some(length) = body.size_hint().exact().filter(|_| !body.is_end_stream()) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    let is_whole = is_head || body.is_end_stream();
    let sending = reply.begin(Response::from_parts(head, ()), is_whole)?;
    if !is_whole && let Err(error) = (Sending { stream: sending, body, waiting: None }).await {
        tracing::debug!(%error, "stream ended before its answer");
    }
    None
}

/// Answers one request. What a client asks and resets at once, or makes the gateway reset, arrives as one: to look at it and to connect to a
/// backend for it would cost the others dearly. A reset is seen once the answer is waited for.
async fn answer(stream: Rc<ClientConnection>, request: Request<ClientBody>) -> Response<ResponseBody> {
    let mut outcome = Outcome { connection: stream.parent.clone(), is_answered: false };
    if outcome.connection.as_ref().is_some_and(|connection| connection.abandoned.get() >= ABANDONED_MIN) {
        tokio::task::yield_now().await;
    }
    let Ok(answered) = exchange::serve(stream, request).await;
    outcome.is_answered = true;
    answered
}

/// Counts a stream that is given up before its answer begins.
struct Outcome {
    connection: Option<Rc<ClientConnection>>,
    is_answered: bool,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.as_ref().filter(|_| !self.is_answered) {
            connection.abandoned.set(connection.abandoned.get().saturating_add(1));
        }
    }
}

/// The body of a request. Where the client waits to be asked for it, it is once somebody reads.
fn body_of(head: &request::Parts, receiving: RecvStream, reply: &Rc<Reply>, malformed: Rc<Malformed>) -> ClientBody {
    if receiving.is_end_stream() {
        return ClientBody::Empty;
    }
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let reply = head.headers.contains_key(EXPECT).then(|| Rc::clone(reply));
    let go_ahead = reply.map(|reply| GoAhead::new(move || reply.go_ahead()));
    let stream = receiving.stream_id().as_u32();
    let are_malformed = Box::new(move || malformed.take_trailers(stream));
    ClientBody::Http2(StreamBody::new(receiving, length, go_ahead, are_malformed))
}

/// The fields that each answer has, and those that none may have.
fn complete(headers: &mut HeaderMap) {
    for name in &OF_CONNECTIONS {
        headers.remove(name);
    }
    keep_out_of_tables(headers);
    headers.entry(DATE).or_insert_with(date);
}

/// The time, as it is written (RFC 9110 6.6.1). Written once a second at most.
fn date() -> HeaderValue {
    thread_local! {
        static WRITTEN: RefCell<(Duration, HeaderValue)> = const { RefCell::new((Duration::ZERO, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let second = Duration::from_secs(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    WRITTEN.with_borrow_mut(|(written, value)| {
        if *written != second {
            let text = httpdate::fmt_http_date(now);
            (*written, *value) = (second, HeaderValue::try_from(text).expect("a date is a valid value"));
        }
        value.clone()
    })
}

/// The answering side of a stream, until its head is out.
#[derive(Debug)]
struct Reply {
    sender: RefCell<SendResponse<Bytes>>,
    has_begun: Cell<bool>,
}

impl Reply {
    /// `future`'s output, or `None` once the client reset the stream.
    async fn unless_reset<F: Future>(&self, mut future: Pin<&mut F>) -> Option<F::Output> {
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.sender.borrow_mut().poll_reset(cx).map(|_| None),
        })
        .await
    }

    /// Asks for the body, unless the answer is out already.
    fn go_ahead(&self) {
        if self.has_begun.get() {
            return;
        }
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::CONTINUE;
        if let Err(error) = self.sender.borrow_mut().send_informational(head) {
            tracing::debug!(%error, "the client was not asked for its body");
        }
    }

    /// Sends the head. `None`: the stream is gone.
    fn begin(&self, head: Response<()>, is_whole: bool) -> Option<SendStream<Bytes>> {
        self.has_begun.set(true);
        let mut sender = self.sender.borrow_mut();
        match sender.send_response(head, is_whole) {
            Ok(sending) => Some(sending),
            Err(error) => {
                tracing::debug!(%error, "an answer's head was not sent");
                sender.send_reset(Reason::INTERNAL_ERROR);
                None
            }
        }
    }
}

/// Sends an answer's body. A piece that waits for room is the last that was taken: the backend is read no faster than the client reads.
struct Sending {
    stream: SendStream<Bytes>,
    body: ResponseBody,
    /// A piece, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
}

impl Future for Sending {
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
                    this.stream.send_reset(reason_of(&error));
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(bytes) => {
                    // Room is asked for once there is something to send: what waits for a backend takes none of the connection's from
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
pub(super) fn poll_room(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
        }
    }
    Poll::Ready(Ok(()))
}

/// What the client is told of a body that broke off: a backend's own reason, if it gave one over HTTP/2.
fn reason_of(error: &BodyError) -> Reason {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason().unwrap_or(Reason::INTERNAL_ERROR);
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}
