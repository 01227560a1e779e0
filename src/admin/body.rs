//! Request bodies: read whole, bounded one by one and all together, and within the call's deadline.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body::Body as _;
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

/// What one byte of a body may take until its call ends, all counted: values, operations, the entry in the log, its copies for peers.
const SHARE_OF_BYTE: usize = 8;

/// Bytes that all calls with bodies may take at one time, by [`SHARE_OF_BYTE`].
pub(crate) const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What is read and thrown away of a body that is too large. A client that still writes when the connection is closed would lose the
/// answer that tells it why.
const DISCARDED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A body, and what its call may take.
#[derive(Debug)]
pub(crate) struct Received {
    /// What came.
    pub(crate) bytes: Bytes,
    /// To be held until the call ends.
    pub(crate) share: Share,
}

/// A call's part of [`BODIES_BYTES_MAX`], until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Share {
    permit: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Room for that many more bytes of a body. Never waits: two half-read bodies that wait for each other's share would both stand until
    /// their deadlines.
    fn grow(&mut self, room: &Arc<Semaphore>, bytes: usize) -> Result<(), Problem> {
        let count = u32::try_from(bytes * SHARE_OF_BYTE).unwrap_or(u32::MAX);
        let more = Arc::clone(room).try_acquire_many_owned(count).map_err(|_| no_room())?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}

fn no_room() -> Problem {
    Problem::unavailable("too many bytes of request bodies are held at present")
}

impl Received {
    /// Reads the body of a request, which must be JSON.
    pub(crate) async fn read(parts: &Parts, body: Body, room: &Arc<Semaphore>, deadline: Instant) -> Result<Received, Problem> {
        body_format(&parts.headers, &[Format::Json])?;
        timeout_at(deadline, collect(body, room))
            .await
            .map_err(|_| Problem::slow_request("the body did not arrive within Raftgate-Timeout"))?
    }

    /// The body as one JSON value.
    pub(crate) async fn json(self) -> Result<(serde_json::Value, Share), Problem> {
        let value = offload(self.bytes.len(), move || read_json(&self.bytes)).await?;
        Ok((value, self.share))
    }
}

async fn collect(mut body: Body, room: &Arc<Semaphore>) -> Result<Received, Problem> {
    // Where there is no room for what is announced, it is not held even in part.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced <= BODY_BYTES_MAX && announced * SHARE_OF_BYTE > room.available_permits() {
        discard(body).await;
        return Err(no_room());
    }
    let mut bytes = BytesMut::new();
    let mut share = Share::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::malformed(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let fits = match bytes.len() + data.len() > BODY_BYTES_MAX {
            true => Err(Problem::too_large(format!("the body is over the limit of {BODY_BYTES_MAX} bytes"))),
            false => share.grow(room, data.len()),
        };
        if let Err(problem) = fits {
            drop((bytes, share));
            discard(body).await;
            return Err(problem);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Received { bytes: bytes.freeze(), share })
}

/// Reads and throws away what is left of a body, up to a bound.
pub(crate) async fn discard(mut body: Body) {
    let mut left = DISCARDED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = rest;
    }
}

/// Work above this many bytes leaves the async workers, which all calls share.
const OFFLOAD_BYTES_MIN: usize = 64 * 1024;

/// Pieces of such work at one time. More would only hold more memory, and take the processors from Raft and the proxy.
pub(crate) const OFFLOADED_MAX: usize = 2;

/// One permit a piece of such work.
static TURNS: Semaphore = Semaphore::const_new(OFFLOADED_MAX);

/// Runs `work` over about `bytes` bytes of input: here, or in its turn on a blocking thread where it takes long.
pub(crate) async fn offload<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if bytes < OFFLOAD_BYTES_MIN {
        return work();
    }
    let turn = TURNS.acquire().await.map_err(|error| Problem::internal(error.to_string()))?;
    let worked = tokio::task::spawn_blocking(move || {
        // Also where nobody waits for it any more, it has its turn until it ends.
        let _turn = turn;
        work()
    });
    worked.await.map_err(|error| Problem::internal(format!("the request's work failed: {error}")))?
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
        assert_eq!(ok.json().await.map(|(value, _)| value).ok(), Some(serde_json::json!({})));
        let large = read(Body::from(vec![b' '; BODY_BYTES_MAX + 1]), BODIES_BYTES_MAX).await.expect_err("too large");
        assert!(format!("{large:?}").contains("413"), "{large:?}");
        let crowded = read(Body::from(vec![b' '; 13]), 100).await.expect_err("no room");
        assert!(format!("{crowded:?}").contains("503"), "{crowded:?}");
        let pieces = stream::iter(["        ", "        "].map(|piece| Ok::<_, Infallible>(Bytes::from(piece))));
        let unannounced = read(Body::from_stream(pieces), 100).await.expect_err("no room");
        assert!(format!("{unannounced:?}").contains("503"), "{unannounced:?}");
        let endless = stream::once(async { Ok::<_, Infallible>(Bytes::from("{")) });
        let stuck = Body::from_stream(futures_util::StreamExt::chain(endless, stream::pending()));
        let slow = read(stuck, 100).await.expect_err("never ends");
        assert!(format!("{slow:?}").contains("408"), "{slow:?}");
    }

    #[tokio::test]
    async fn what_a_call_may_take_is_held_until_the_call_ends() {
        let (parts, ()) = http::Request::new(()).into_parts();
        let room = Arc::new(Semaphore::new(100));
        let read = || Received::read(&parts, Body::from("[1,2,3]"), &room, Instant::now() + Duration::from_secs(10));
        let (_, share) = read().await.expect("room").json().await.expect("JSON");
        read().await.expect_err("the first call goes on");
        drop(share);
        read().await.expect("room again");
    }

    #[tokio::test]
    async fn long_work_is_done_two_pieces_at_a_time() {
        let (begin, present) = (Arc::new(std::sync::Barrier::new(2)), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (begin, present) = (Arc::clone(&begin), Arc::clone(&present));
            calls.spawn(offload(usize::MAX, move || {
                let others = present.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                // Pairs: neither can end before the other has begun.
                begin.wait();
                present.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                Ok(others)
            }));
        }
        while let Some(others) = calls.join_next().await {
            assert!(others.expect("it ran").expect("it ended") < OFFLOADED_MAX);
        }
    }
}
