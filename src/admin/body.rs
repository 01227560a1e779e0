//! Request bodies: read whole, bounded one by one and all together, and within the call's deadline.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use std::sync::Arc;

use super::document::{Format, read_json};
use super::headers::body_format;
use super::problem::Problem;
use crate::model::limits::TRANSACTION_BYTES_MAX;

/// Bytes of one body. A transaction's names and documents take [`TRANSACTION_BYTES_MAX`]; as much again is left for white space and what
/// stands around them.
pub(crate) const BODY_BYTES_MAX: usize = 2 * TRANSACTION_BYTES_MAX;

/// Bytes of all bodies that are held at one time.
pub(crate) const BODIES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is read and thrown away of a body that is too large. A client that still writes when the connection is closed would lose the
/// answer that tells it why.
const DISCARDED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A body, and its share of [`BODIES_BYTES_MAX`] until it is dropped.
#[derive(Debug)]
pub(crate) struct Received {
    /// What came.
    pub(crate) bytes: Bytes,
    share: Vec<OwnedSemaphorePermit>,
}

impl Received {
    /// Reads the body of a request, which must be JSON.
    pub(crate) async fn read(parts: &Parts, body: Body, room: &Arc<Semaphore>, deadline: Instant) -> Result<Received, Problem> {
        body_format(&parts.headers, &[Format::Json])?;
        let (bytes, share) = timeout_at(deadline, collect(body, room))
            .await
            .map_err(|_| Problem::slow_request("the body did not arrive within Raftgate-Timeout"))??;
        Ok(Received { bytes, share })
    }

    /// The body as one JSON value.
    pub(crate) async fn json(self) -> Result<serde_json::Value, Problem> {
        offload(self.bytes.len(), move || {
            let value = read_json(&self.bytes);
            drop(self.share);
            value
        })
        .await
    }
}

async fn collect(mut body: Body, room: &Arc<Semaphore>) -> Result<(Bytes, Vec<OwnedSemaphorePermit>), Problem> {
    let mut bytes = BytesMut::new();
    let mut share = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::malformed(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            discard(body).await;
            return Err(Problem::too_large(format!("the body is over the limit of {BODY_BYTES_MAX} bytes")));
        }
        // Never waits: two half-read bodies that wait for each other's share would both stand until their deadlines.
        let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let permit = Arc::clone(room).try_acquire_many_owned(count);
        share.push(permit.map_err(|_| Problem::unavailable("too many bytes of request bodies are held at present"))?);
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.freeze(), share))
}

/// Reads and throws away what is left of a body, up to a bound.
pub(crate) async fn discard(mut body: Body) {
    let mut left = DISCARDED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = rest;
    }
}

/// Work above this many bytes leaves the async workers, which the heartbeats of Raft share.
const OFFLOAD_BYTES_MIN: usize = 64 * 1024;

/// Runs `work` over about `bytes` bytes of input: here, or on a blocking thread where it takes long.
pub(crate) async fn offload<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if bytes < OFFLOAD_BYTES_MIN {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::internal(format!("the request's work failed: {error}")))?
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures_util::stream;

    use super::*;

    async fn read(body: Body, room: usize) -> Result<Received, Problem> {
        let (parts, ()) = http::Request::new(()).into_parts();
        let deadline = Instant::now() + Duration::from_millis(200);
        Received::read(&parts, body, &Arc::new(Semaphore::new(room)), deadline).await
    }

    #[tokio::test]
    async fn bodies_are_bounded_in_size_number_and_time() {
        let ok = read(Body::from("{}"), 100).await.expect("a body");
        assert_eq!(ok.json().await.ok(), Some(serde_json::json!({})));
        let large = read(Body::from(vec![b' '; BODY_BYTES_MAX + 1]), BODIES_BYTES_MAX).await.expect_err("too large");
        assert!(format!("{large:?}").contains("413"), "{large:?}");
        let crowded = read(Body::from(vec![b' '; 101]), 100).await.expect_err("no room");
        assert!(format!("{crowded:?}").contains("503"), "{crowded:?}");
        let endless = stream::once(async { Ok::<_, Infallible>(Bytes::from("{")) });
        let stuck = Body::from_stream(futures_util::StreamExt::chain(endless, stream::pending()));
        let slow = read(stuck, 100).await.expect_err("never ends");
        assert!(format!("{slow:?}").contains("408"), "{slow:?}");
    }
}
