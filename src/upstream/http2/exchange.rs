//! One request and its answer over a stream of HTTP/2.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use super::super::body::{BodyError, RequestBody};
use super::super::error::ExchangeError;
use super::super::fields::{is_malformed, keep_out_of_tables, remove_of_connections};
use super::super::interim::Interim;
use super::super::received::Received;
use super::super::sending::Sending;
use super::Slot;

/// What is wrong with a message of HTTP/2 with such a field (RFC 9113 8.2.1).
const MALFORMED_FIELD: ExchangeError =
    ExchangeError::Malformed("a field's value begins or ends with white space, or its name holds a quotation mark");

/// A request that is under way, until the head of its answer is there. Dropping it resets the stream.
#[derive(Debug)]
pub(in crate::upstream) struct Exchange {
    answer: ResponseFuture,
    /// What is still to be sent.
    upload: Option<Sending<RequestBody>>,
    interim: Interim,
    slot: Slot,
}

/// A request that no stream took, and, where nothing of it was given to h2, the request.
#[derive(Debug)]
pub(in crate::upstream) struct Unsent {
    pub(in crate::upstream) source: h2::Error,
    pub(in crate::upstream) request: Option<Request<RequestBody>>,
}

impl Exchange {
    /// Sends the head of `request` over the stream `slot`; [`head`](Exchange::head) sends the rest.
    pub(in crate::upstream) fn begin(slot: Slot, request: Request<RequestBody>, scheme: Scheme) -> Result<Exchange, Box<Unsent>> {
        let mut sender = match slot.connection.begun.sender() {
            Ok(sender) => sender,
            Err(source) => return Err(Box::new(Unsent { source, request: Some(request) })),
        };
        let (head, body) = in_terms_of_http2(request, scheme).into_parts();
        let is_whole = body.is_end_stream();
        let (answer, stream) = sender
            .send_request(Request::from_parts(head, ()), is_whole)
            .map_err(|source| Box::new(Unsent { source, request: None }))?;
        let upload = (!is_whole).then(|| Sending::new(stream, body, reason_of));
        Ok(Exchange { answer, upload, interim: Interim::default(), slot })
    }

    /// Waits for the head of the answer, and gives what follows it, if anything does. After a status that has no content the end is awaited,
    /// for DATA may follow, and there would be no way to take the head back. Error: with the interim answers that came before it.
    pub(in crate::upstream) async fn head(mut self) -> Result<Response<Option<AnswerStream>>, (ExchangeError, Interim)> {
        let (mut head, receiving) = match poll_fn(|cx| self.poll_head(cx)).await {
            Ok(response) => response.into_parts(),
            Err(error) => return Err((error, self.interim)),
        };
        if is_malformed(&head.headers) {
            return Err((MALFORMED_FIELD, self.interim));
        }
        if !clear_length(&mut head.headers) {
            return Err((ExchangeError::Malformed("Content-Length is not one number"), self.interim));
        }
        let received = Received::new(receiving, &head.headers);
        let mut rest = (!received.is_end_stream()).then(|| AnswerStream::new(received, self.upload, self.slot));
        if matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            && let Some(mut rest) = rest.take()
        {
            rest.no_content().await.map_err(|error| (error, self.interim))?;
        }
        if let Some(interim) = self.interim.take() {
            head.extensions.insert(interim);
        }
        Ok(Response::from_parts(head, rest))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, ExchangeError>> {
        loop {
            let sent = self.upload.as_mut().map(|upload| Pin::new(upload).poll(cx));
            if let Some(Poll::Ready(sent)) = sent {
                // Why it ended is what the answer tells, which may have come all the same.
                log_end(sent);
                self.upload = None;
            }
            match ready!(self.answer.poll_informational(cx)).transpose().map_err(ExchangeError::Http2)? {
                Some(interim) => self.take(interim.status())?,
                None => return Pin::new(&mut self.answer).poll(cx).map_err(ExchangeError::Http2),
            }
        }
    }

    fn take(&mut self, interim: StatusCode) -> Result<(), ExchangeError> {
        match interim {
            // RFC 9113 8.6.
            StatusCode::SWITCHING_PROTOCOLS => return Err(ExchangeError::Malformed("101 over HTTP/2")),
            StatusCode::CONTINUE => self.upload.iter_mut().for_each(|upload| upload.body_mut().go_ahead()),
            _ => {}
        }
        self.interim.count(interim).map_err(ExchangeError::Malformed)
    }
}

/// What follows the head of an answer. Dropping it before its end resets the stream, and ends what is still sent of the request.
#[derive(Debug)]
pub(in crate::upstream) struct AnswerStream {
    received: Received,
    /// The rest of the request: a client that reads nothing yet can send on.
    _upload: Option<AbortOnDropHandle<()>>,
    _slot: Slot,
}

impl AnswerStream {
    fn new(received: Received, upload: Option<Sending<RequestBody>>, slot: Slot) -> AnswerStream {
        let sending = |upload| AbortOnDropHandle::new(tokio::task::spawn_local(async { log_end(upload.await) }));
        AnswerStream { received, _upload: upload.map(sending), _slot: slot }
    }

    /// Waits for its end.
    async fn no_content(&mut self) -> Result<(), ExchangeError> {
        while let Some(frame) = poll_fn(|cx| self.poll_frame(cx)).await {
            if frame?.data_ref().is_some_and(|data| !data.is_empty()) {
                return Err(ExchangeError::Malformed("content follows a status that has none"));
            }
        }
        Ok(())
    }

    /// The next frame.
    pub(in crate::upstream) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        Poll::Ready(match ready!(self.received.poll_frame(cx)) {
            Some(Ok(frame)) if frame.trailers_ref().is_some_and(is_malformed) => Some(Err(MALFORMED_FIELD)),
            // Behind a whole answer, for the request is not needed to its end (RFC 9113 8.1). What is not whole is another reset by now.
            Some(Err(error)) if error.is_reset() && error.reason() == Some(Reason::NO_ERROR) => None,
            polled => polled.map(|polled| polled.map_err(ExchangeError::Http2)),
        })
    }

    /// Whether nothing follows.
    pub(in crate::upstream) fn is_end_stream(&self) -> bool {
        self.received.is_end_stream()
    }

    /// How much is still to come.
    pub(in crate::upstream) fn size_hint(&self) -> SizeHint {
        self.received.size_hint()
    }
}

/// Whether a head says one length or none, once if it is repeated (RFC 9110 8.6). h2 takes an empty one, and looks at the first alone.
fn clear_length(fields: &mut HeaderMap) -> bool {
    let Some(first) = fields.get(CONTENT_LENGTH).cloned() else { return true };
    let is_number = !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit);
    let is_one = is_number && fields.get_all(CONTENT_LENGTH).iter().all(|length| *length == first);
    if is_one {
        fields.insert(CONTENT_LENGTH, first);
    }
    is_one
}

fn log_end(sent: Result<(), h2::Error>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "a stream took no more of its request");
    }
}

/// What the endpoint is told of a body that broke off: the request is void, whoever is to blame.
fn reason_of(_: &BodyError) -> Reason {
    Reason::CANCEL
}

/// Says who is meant in the target and not in `Host` (RFC 9113 8.3.1), and how long the body is, where that is known. A request that comes back
/// unsent can be taken again.
fn in_terms_of_http2(mut request: Request<RequestBody>, scheme: Scheme) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_2;
    let length = request.body().size_hint().exact();
    let has_none_most_often = matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT);
    if let Some(length) = length.filter(|length| *length > 0 || !has_none_most_often) {
        request.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    remove_of_connections(request.headers_mut());
    keep_out_of_tables(request.headers_mut());
    let authority = request.headers_mut().remove(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    if let Some(authority) = authority {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(scheme);
        parts.authority = Some(authority);
        // A target that cannot be said so stays without its parts, and is refused by the sender.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }
    request
}
