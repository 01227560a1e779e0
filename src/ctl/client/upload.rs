//! A body that is made while it is sent, and so cannot be sent twice.
//!
//! Its length is not known before its end, nor how long it takes. So no time bounds the whole call; what is bounded is how long the server
//! takes nothing of what is ready for it, and how long it takes to answer once it has everything.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Method};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Attempt, Call, CallError, Client, innermost, receive};

/// How long each step of an upload may take at the server, by `Raftgate-Timeout`, which is the longest that one takes: between two pieces
/// of the body a file may have to be waited for.
const STEP_TIME_MAX: Duration = Duration::from_secs(30);

/// How long the server may take nothing of the body. It waits for a leader at each step.
const STALL_TIME_MAX: Duration = Duration::from_secs(60);

/// How long the server may take for its answer once it has the body: all of a large configuration is then applied.
pub(in crate::ctl) const ANSWER_TIME_MAX: Duration = Duration::from_secs(600);

/// How far an upload is.
#[derive(Debug, Clone, Copy)]
enum Progress {
    /// The server waits for more of the body.
    Waiting,
    /// More of the body is there since then.
    Sending(Instant),
    /// All of the body is on its way since then.
    Sent(Instant),
}

impl Progress {
    /// When it has taken too long, and what then is to be said.
    fn deadline(self) -> Option<(Instant, &'static str)> {
        match self {
            Progress::Waiting => None,
            Progress::Sending(since) => Some((since + STALL_TIME_MAX, "took nothing more of the body for a minute")),
            Progress::Sent(since) => Some((since + ANSWER_TIME_MAX, "gave no answer within ten minutes")),
        }
    }
}

impl Client {
    /// The first server that answers.
    pub(in crate::ctl) async fn choose(&self) -> Result<String, CallError> {
        let (server, _) = self.first_answer(&Call::new(&Method::GET, "/v1/cluster", None)).await?;
        Ok(server.to_owned())
    }

    /// `PUT` of JSON in pieces, to one server. A piece `None` breaks the body off, and the server does nothing.
    pub(in crate::ctl) async fn upload(
        &self,
        server: &str,
        path: &str,
        pieces: impl Stream<Item = Option<Bytes>> + Send + 'static,
    ) -> Result<Value, CallError> {
        let (report, mut progress) = watch::channel(Progress::Waiting);
        let body = Body::wrap_stream(reported(pieces, report));
        let request = self.request(&Method::PUT, server, path, STEP_TIME_MAX.max(self.timeout));
        let request = request.header(CONTENT_TYPE, "application/json").body(body);
        let answer = async { receive(request.send().await?).await };
        let received = tokio::select! {
            received = answer => received.map_err(|error| innermost(&error)),
            message = stalled(progress.clone()) => Err(message.to_owned()),
        };
        let (status, bytes) = received.map_err(|message| CallError::BrokenOff {
            server: server.to_owned(),
            message,
            is_sent: matches!(*progress.borrow_and_update(), Progress::Sent(_)),
        })?;
        match Attempt::of(server, status, bytes)? {
            Attempt::Answered(answer) => Ok(answer),
            Attempt::Refused(problem) => Err(CallError::Refused(problem)),
            Attempt::Unreachable(reason) => Err(CallError::Unreachable(vec![reason])),
        }
    }
}

/// The pieces as a body, and how far it is.
fn reported(
    pieces: impl Stream<Item = Option<Bytes>> + Send + 'static,
    report: watch::Sender<Progress>,
) -> impl Stream<Item = Result<Bytes, BrokenOff>> + Send + 'static {
    stream::unfold((Box::pin(pieces), report), |(mut pieces, report)| async move {
        if report.is_closed() {
            // The answer came before the end of the body.
            return Some((Err(BrokenOff), (pieces, report)));
        }
        report.send_replace(Progress::Waiting);
        let piece = pieces.next().await;
        let now = Instant::now();
        report.send_replace(if piece.is_some() { Progress::Sending(now) } else { Progress::Sent(now) });
        Some((piece?.ok_or(BrokenOff), (pieces, report)))
    })
}

#[derive(Debug, Error)]
#[error("the body was broken off")]
struct BrokenOff;

/// Ends once an upload has stood still for too long, and says how.
async fn stalled(mut progress: watch::Receiver<Progress>) -> &'static str {
    loop {
        let deadline = progress.borrow_and_update().deadline();
        let too_long = async {
            match deadline {
                Some((at, message)) => {
                    sleep_until(at).await;
                    message
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = too_long => return message,
            // An error: the body is given up, and how far it was stays.
            Ok(()) = progress.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When an upload at `progress` is given up, in seconds; `None` where it is not within a day.
    async fn given_up_after(progress: Progress) -> Option<(u64, &'static str)> {
        let (_report, seen) = watch::channel(progress);
        let begin = Instant::now();
        let message = tokio::time::timeout(Duration::from_secs(24 * 3600), stalled(seen)).await.ok()?;
        Some((begin.elapsed().as_secs(), message))
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_server_can_be_too_slow() {
        let now = Instant::now();
        assert_eq!(given_up_after(Progress::Waiting).await, None);
        let now = now.max(Instant::now());
        assert_eq!(given_up_after(Progress::Sending(now)).await, Some((60, "took nothing more of the body for a minute")));
        let now = now.max(Instant::now());
        assert_eq!(given_up_after(Progress::Sent(now)).await, Some((600, "gave no answer within ten minutes")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_is_taken_begins_the_time_anew() {
        let (report, seen) = watch::channel(Progress::Sending(Instant::now()));
        let begin = Instant::now();
        let pieces = async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                report.send_replace(Progress::Sending(Instant::now()));
            }
        };
        let (message, ()) = tokio::join!(stalled(seen), pieces);
        assert_eq!((begin.elapsed().as_secs(), message), (560, "took nothing more of the body for a minute"));
    }
}
