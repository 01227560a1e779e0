//! One exchange over a stream of HTTP/2: the request handed to the exchange, and its answer sent as fast as the client takes it.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, DATE, EXPECT, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, request};
use http_body::Body;

use super::super::super::body::{BodyError, ResponseBody};
use super::super::super::exchange;
use super::super::ClientConnection;
use super::blocks::Malformed;
use super::passage::Passage;
use crate::upstream::{ClientBody, GoAhead, Sending, StreamBody, keep_out_of_tables, remove_of_connections};

/// From so many streams of a connection on that were reset before their answer began, the next are not begun before it is known that they
/// stand.
const ABANDONED_MIN: u32 = 4;

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
    if !is_whole && let Err(error) = Sending::new(sending, body, reason_of).await {
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
    let reply = head.headers.contains_key(EXPECT).then(|| Rc::clone(reply));
    let go_ahead = reply.map(|reply| GoAhead::new(move || reply.go_ahead()));
    let stream = receiving.stream_id().as_u32();
    let are_malformed = Box::new(move || malformed.take_trailers(stream));
    ClientBody::Http2(StreamBody::new(receiving, &head.headers, go_ahead, are_malformed))
}

/// The fields that each answer has, and those that none may have.
fn complete(headers: &mut HeaderMap) {
    remove_of_connections(headers);
    headers.remove(TE);
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

/// What the client is told of a body that broke off: a backend's own reason, if it gave one over HTTP/2. That a backend closes without an error
/// is none: it would make what came look whole.
fn reason_of(error: &BodyError) -> Reason {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason().filter(|reason| *reason != Reason::NO_ERROR).unwrap_or(Reason::INTERNAL_ERROR);
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}
