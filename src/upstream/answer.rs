//! The body of a backend's answer, and the use of a connection that goes with it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::error::ExchangeError;
use super::http1::{Http1, Switched};
use super::http2::AnswerStream;
use super::pool::Endpoint;

/// The body of an answer. It has its connection until its end: a connection of HTTP/1.1 goes back to its pool then, if the request's body is
/// through too, and is closed in any other case. Dropping it before closes the connection, or resets the stream.
#[derive(Debug)]
pub struct AnswerBody(Source);

#[derive(Debug)]
enum Source {
    Done,
    /// It came with the head, and the connection is back already.
    Whole(Bytes),
    Http1 {
        connection: Box<Http1>,
        endpoint: Rc<Endpoint>,
    },
    Http2(Box<AnswerStream>),
    /// It broke off, which is still to be told.
    Broken(Option<ExchangeError>),
}

impl AnswerBody {
    /// What follows a head that came over `connection`, or the connection itself where the head says so (101).
    pub(super) fn of_http1(mut connection: Box<Http1>, endpoint: Rc<Endpoint>, is_switched: bool) -> AnswerBody {
        if is_switched {
            return AnswerBody(Source::Http1 { connection, endpoint });
        }
        if connection.is_answered() {
            endpoint.take_back(connection);
            return AnswerBody(Source::Done);
        }
        match connection.take_whole() {
            Some(bytes) => {
                endpoint.take_back(connection);
                AnswerBody(Source::Whole(bytes))
            }
            None => AnswerBody(Source::Http1 { connection, endpoint }),
        }
    }

    /// What follows a head that came over a stream, if anything does.
    pub(super) fn of_http2(rest: Option<AnswerStream>) -> AnswerBody {
        AnswerBody(rest.map_or(Source::Done, |rest| Source::Http2(Box::new(rest))))
    }

    /// The connection behind an answer of 101, which speaks something else from here on. Error: this, where it has none to itself.
    pub fn into_switched(self) -> Result<Switched, AnswerBody> {
        match self.0 {
            Source::Http1 { connection, .. } => Ok(connection.into_switched()),
            source @ (Source::Done | Source::Whole(_) | Source::Http2(_) | Source::Broken(_)) => Err(AnswerBody(source)),
        }
    }

    /// Gives the connection back.
    fn finish(&mut self) {
        if let Source::Http1 { connection, endpoint } = std::mem::replace(&mut self.0, Source::Done) {
            endpoint.take_back(connection);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = ExchangeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        let (polled, is_through) = match &mut self.0 {
            Source::Done => return Poll::Ready(None),
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                (Some(Ok(Frame::data(bytes))), true)
            }
            Source::Http1 { connection, .. } => {
                let polled = ready!(connection.poll_frame(cx));
                (polled.map(|polled| polled.map_err(ExchangeError::Http1)), connection.is_answered())
            }
            Source::Broken(error) => (error.take().map(Err), true),
            Source::Http2(stream) => (ready!(stream.poll_frame(cx)), stream.is_end_stream()),
        };
        // A server that gets an error drops what it has not sent yet of what came before: it has a turn for that.
        if let (Source::Http1 { .. } | Source::Http2(_), Some(Err(_))) = (&self.0, &polled) {
            self.0 = Source::Broken(polled.and_then(Result::err));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match &polled {
            Some(Ok(_)) if !is_through => {}
            Some(Err(_)) => self.0 = Source::Done,
            Some(Ok(_)) | None => self.finish(),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Source::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Done => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Http1 { connection, .. } => connection.size_hint(),
            Source::Http2(stream) => stream.size_hint(),
            Source::Broken(_) => SizeHint::new(),
        }
    }
}
