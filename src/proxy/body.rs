//! The body of an answer on its way to a client: streamed as it comes, under the exchange's deadline, and counted.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep_until};

use super::grpc;
use super::headers::remove_hop_by_hop;
use super::present::Present;
use super::tally::Tally;
use crate::upstream::{AnswerBody, ExchangeError, Trailers};

/// Bytes of an answer that its connection passes on before the worker's others have their turn. A fast backend and a client with much room
/// would keep a worker for megabytes, and thousands of large answers that begin at once everybody else for seconds. With less, large answers
/// cost more than they do alone.
const TURN_BYTES: usize = 512 * 1024;

/// Why an answer's body ended before its end. The client's connection is closed: over HTTP/1.1 there is no other way to say so.
#[derive(Debug, Error)]
pub(super) enum BodyError {
    /// The backend broke off.
    #[error("the answer's body broke off")]
    Broken(#[source] ExchangeError),
    /// A timeout of the rule ran out.
    #[error("the answer was not through in time")]
    Deadline,
}

/// The body of an answer. Its drop ends the exchange.
#[derive(Debug)]
pub(super) struct ResponseBody {
    source: Source,
    trailers: Trailers,
    deadline: Option<Pin<Box<Sleep>>>,
    turn: Turn,
    /// Absent where the exchange goes on as a tunnel.
    tally: Option<Tally>,
}

#[derive(Debug)]
enum Source {
    Nothing,
    Whole(Bytes),
    Backend(AnswerBody),
    Failed(BodyError),
}

/// The bytes that were passed on since others had their turn.
#[derive(Debug)]
struct Turn(usize);

impl Turn {
    /// Pending, once, where it is others' turn.
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.0 < TURN_BYTES {
            return Poll::Ready(());
        }
        self.0 = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl ResponseBody {
    /// The gateway's own.
    pub(super) fn whole(bytes: Bytes, tally: Tally) -> ResponseBody {
        let source = if bytes.is_empty() { Source::Nothing } else { Source::Whole(bytes) };
        ResponseBody { source, trailers: Trailers::OfHead, deadline: None, turn: Turn(0), tally: Some(tally) }
    }

    /// None: the connection goes on as a tunnel.
    pub(super) fn none() -> ResponseBody {
        ResponseBody { source: Source::Nothing, trailers: Trailers::OfHead, deadline: None, turn: Turn(0), tally: None }
    }

    /// A backend's. Its connection is kept where the body came to its end, and closed where it did not.
    pub(super) fn backend(body: AnswerBody, trailers: Trailers, deadline: Option<Instant>, tally: Tally) -> ResponseBody {
        if body.is_end_stream() {
            return ResponseBody { source: Source::Nothing, trailers, deadline: None, turn: Turn(0), tally: Some(tally) };
        }
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        ResponseBody { source: Source::Backend(body), trailers, deadline, turn: Turn(0), tally: Some(tally) }
    }

    fn add_bytes(&mut self, bytes: usize) {
        if let Some(tally) = &mut self.tally {
            tally.add_bytes(bytes);
        }
    }

    /// Ends with this error, one turn later: it ends the connection or the stream at once, and the head and what came of the body go out before.
    /// A call of gRPC is told in its own way that it took too long, where trailers can follow.
    fn fail(&mut self, error: BodyError, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(tally) = &mut self.tally {
            tally.note_error(match error {
                BodyError::Broken(_) => "http_response_incomplete",
                BodyError::Deadline => "http_response_timeout",
            });
        }
        // What has a length is short of it.
        let is_open = self.size_hint().exact().is_none();
        if is_open && matches!((&error, &self.trailers), (BodyError::Deadline, Trailers::OfGrpc)) {
            self.source = Source::Nothing;
            return Poll::Ready(Some(Ok(Frame::trailers(grpc::late()))));
        }
        self.source = Source::Failed(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let body = match &mut this.source {
            Source::Nothing => return Poll::Ready(None),
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.source = Source::Nothing;
                this.add_bytes(bytes.len());
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Source::Backend(body) => body,
            Source::Failed(_) => {
                let Source::Failed(error) = std::mem::replace(&mut this.source, Source::Nothing) else {
                    return Poll::Ready(None);
                };
                return Poll::Ready(Some(Err(error)));
            }
        };
        ready!(this.turn.poll(cx));
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(None) => {
                this.source = Source::Nothing;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => this.fail(BodyError::Broken(error), cx),
            Poll::Ready(Some(Ok(mut frame))) => {
                let is_last = body.is_end_stream();
                let bytes = frame.data_ref().map_or(0, Buf::remaining);
                this.turn.0 += bytes;
                this.add_bytes(bytes);
                if let Some(trailers) = frame.trailers_mut() {
                    let present = Present::of(trailers);
                    remove_hop_by_hop(trailers, present);
                    this.trailers.retain(trailers);
                    if trailers.is_empty() {
                        // The end of the body says as much.
                        this.source = Source::Nothing;
                        return Poll::Ready(None);
                    }
                }
                if is_last {
                    this.source = Source::Nothing;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending => {
                this.turn = Turn(0);
                if let Some(tally) = &this.tally {
                    tally.note_awaiting();
                }
                let is_over = this.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
                if is_over { this.fail(BodyError::Deadline, cx) } else { Poll::Pending }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Nothing)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Backend(body) => body.size_hint(),
            Source::Failed(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_turn_ends_after_its_bytes_and_another_follows() {
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        let mut turn = Turn(0);
        for turns in 0..3 {
            for _ in 0..TURN_BYTES / 1024 {
                assert_eq!(turn.poll(&cx), Poll::Ready(()));
                turn.0 += 1024;
            }
            assert_eq!(woken.0.load(Ordering::Relaxed), turns);
            assert_eq!(turn.poll(&cx), Poll::Pending);
            assert_eq!(woken.0.load(Ordering::Relaxed), turns + 1);
        }
    }
}
