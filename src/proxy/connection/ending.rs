//! The end of a connection of HTTP/1.1: the answer to what was refused, and the lingering close.
//!
//! A socket that is closed with unread bytes is reset by the kernel, and the client may lose the answer that it has not read yet (RFC 9112
//! 9.6). So the writing side is closed first, and what still comes is read and forgotten for a while.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::super::counters::Labels;
use super::super::fault::Fault;
use super::super::framing::{Flaw, Refusal};
use super::super::headers::{RAFTGATE_REVISION, RequestId, X_REQUEST_ID};
use super::framed::Framed;
use super::{ClientConnection, Phase};
use crate::observe::AccessEntry;

/// How long the end of a connection may take.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are read and forgotten at most.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Ends the connection: says what is to be said, closes the writing side and, where the client may be sending still, lets it finish.
pub(super) async fn end<I>(connection: &ClientConnection, mut framed: Framed<I>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let answer = framed.unanswered().map(|flaw| connection.answer_refused(&flaw));
    let may_have_more = framed.may_have_more();
    finish(connection, framed.io(), answer.as_deref(), may_have_more).await;
}

/// Ends a connection whose time is over. Over TLS the end is told (RFC 8446 6.1) where nothing is cut off by it.
pub(super) async fn part<I>(connection: &ClientConnection, mut framed: Framed<I>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    if connection.secured().is_some() && connection.phase.get() == Phase::Idle && framed.is_at_rest() {
        finish(connection, framed.io(), None, false).await;
    }
}

/// Ends what never became a connection of HTTP: answers it as HTTP would where there is a `flaw` to tell, and lets the client finish.
pub(super) async fn refuse<I>(connection: &ClientConnection, mut io: I, flaw: Option<Flaw>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let answer = flaw.map(|flaw| connection.answer_refused(&flaw));
    finish(connection, &mut io, answer.as_deref(), true).await;
}

async fn finish<I>(connection: &ClientConnection, io: &mut I, answer: Option<&[u8]>, may_have_more: bool)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let ending = async {
        if let Some(answer) = answer {
            io.write_all(answer).await?;
        }
        io.shutdown().await?;
        if may_have_more { discard(io).await } else { Ok(()) }
    };
    if let Ok(Err(error)) = timeout(LINGER, ending).await {
        tracing::debug!(client = %connection.peer(), %error, "client connection not ended in peace");
    }
}

/// Reads until the client is done, or it becomes too much.
async fn discard(io: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut bytes = [0; 4096];
    let mut left = LINGER_BYTES_MAX;
    while left > 0 {
        match io.read(&mut bytes).await? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

impl ClientConnection {
    /// Counts a refusal within a body at once: its answer, if any, is the exchange's. One between messages counts once it is answered, for
    /// what comes after the last request of a connection is nobody's concern.
    pub(super) fn note_refusal(&self, refusal: &Refusal) {
        if refusal.is_within_body {
            self.count_refusal(refusal.flaw.reason);
        }
    }

    /// Counts what was refused before it was a request.
    pub(in super::super) fn count_refusal(&self, reason: &str) {
        self.worker().metrics.requests_refused.with_label_values(&[reason]).inc();
    }

    /// The answer to a message that never became a request, as it goes over the wire. It is accounted for as far as it was understood.
    fn answer_refused(&self, flaw: &Flaw) -> Vec<u8> {
        let fault = Fault::refused(flaw);
        let (mut headers, body) = fault.answer();
        let request_id = RequestId::Made(self.worker().random_id()).value();
        let revision = self.worker().live.load().revision.0;
        headers.insert(X_REQUEST_ID, request_id.clone());
        if self.listener().options.debug_headers {
            headers.insert(RAFTGATE_REVISION, HeaderValue::from(revision));
        }
        self.count_refusal(flaw.reason);
        let metrics = &self.worker().metrics;
        metrics.proxy_errors.with_label_values(&[fault.error()]).inc();
        let labels = Labels { kind: "", route: None, service: None, method: "other", status: fault.status() };
        self.worker().counters.count(labels);
        if let Some(log) = &self.worker().sinks.access_log {
            log.record(AccessEntry {
                time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
                request_id: String::from_utf8_lossy(request_id.as_bytes()).into_owned(),
                trace_id: None,
                client: self.peer().to_string(),
                method: "",
                host: String::new(),
                path: String::new(),
                kind: "",
                route: String::new(),
                rule: None,
                captures: BTreeMap::new(),
                revision,
                service: String::new(),
                endpoint: String::new(),
                status: fault.status().as_u16(),
                bytes: body.len() as u64,
                duration: 0.0,
                upstream_duration: None,
                attempts: 0,
                error: Some(fault.error().to_owned()),
            });
        }
        written(fault.status(), headers, &body)
    }
}

/// An answer as it goes over the wire (RFC 9112 4).
fn written(status: StatusCode, mut headers: HeaderMap, body: &[u8]) -> Vec<u8> {
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())) {
        headers.insert(DATE, date);
    }
    let mut message = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default()).into_bytes();
    for (name, value) in &headers {
        message.extend_from_slice(name.as_str().as_bytes());
        message.extend_from_slice(b": ");
        message.extend_from_slice(value.as_bytes());
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"\r\n");
    message.extend_from_slice(body);
    message
}
