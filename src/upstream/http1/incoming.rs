//! What comes: bytes that were read and nobody took yet.
//!
//! A connection that is idle holds none. How much is read at once follows what came before: a small answer takes a small buffer, and of
//! a large one up to [`ROOM_MAX`] bytes are read, and passed on, as one piece. Once the client has all of a piece, the next is read
//! into the same room; as long as it has not, less is read, so that many slow clients do not cost a large buffer each.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio_util::io::poll_read_buf;

use super::super::interim::Interim;
use super::error::Http1Error;
use super::head::{self, HEAD_BYTES_MAX, Head};
use super::wire::Wire;

/// What is read at once at first.
const ROOM_MIN: usize = 8 * 1024;
/// What is read at once at most. hyper's server queues as much, and asks for no more until some of that is out: with less, it would ask for the
/// next piece before it has sent this one, and every other would be one for a slow client.
const ROOM_MAX: usize = 80 * 1024;
/// What is read at once as long as the client has not taken what was read before.
const ROOM_OF_SLOW: usize = 16 * 1024;
/// Read beyond a known length: a read that is not filled spares another one, and tells of bytes that are not the answer's.
const BEYOND_BYTES: u64 = 64;

/// The side of a connection that is read.
#[derive(Debug)]
pub(super) struct Incoming {
    /// A head that is not through yet, and room for more.
    pub(super) buffer: BytesMut,
    /// Bytes of the buffer in which no end of a head was found.
    searched: usize,
    /// What follows a head.
    pub(super) input: Bytes,
    /// What is read at once.
    room: usize,
    /// Whether somebody may still hold what was read into the buffer before.
    is_lent: bool,
    /// Interim answers of the present exchange.
    interim: Interim,
}

impl Incoming {
    pub(super) fn new() -> Incoming {
        let (buffer, input) = (BytesMut::new(), Bytes::new());
        Incoming { buffer, searched: 0, input, room: ROOM_MIN, is_lent: false, interim: Interim::default() }
    }

    /// Whether nothing was read that nobody took.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.input.is_empty()
    }

    /// Lets go of everything but what it learnt.
    pub(super) fn rest(&mut self) {
        self.buffer = BytesMut::new();
        self.input = Bytes::new();
        self.searched = 0;
        self.is_lent = false;
    }

    /// The next head that is not an interim one, as far as it came; `on_continue` is called for each 100.
    pub(super) fn take_head(
        &mut self,
        mut room: impl FnMut() -> HeaderMap,
        is_to_head: bool,
        mut on_continue: impl FnMut(),
    ) -> Result<Option<Head>, Http1Error> {
        loop {
            if self.buffer.is_empty() || !self.may_hold_head() {
                return Ok(None);
            }
            match head::parse(&mut self.buffer, &mut room, is_to_head)? {
                Some(head) if head.is_interim() => {
                    if head.response.status() == StatusCode::CONTINUE {
                        on_continue();
                    }
                    self.interim.count(head.response.status()).map_err(Http1Error::Flaw)?;
                    // Its fields are slices of what was read, so they are let go of before that is taken on.
                    drop(head.response);
                    self.buffer = BytesMut::from(head.rest);
                    self.searched = 0;
                }
                Some(mut head) => {
                    self.input = std::mem::take(&mut head.rest);
                    self.searched = 0;
                    if let Some(interim) = self.interim.take() {
                        head.response.extensions_mut().insert(interim);
                    }
                    return Ok(Some(head));
                }
                None if self.buffer.len() >= HEAD_BYTES_MAX => return Err(head::TOO_LARGE),
                None => return Ok(None),
            }
        }
    }

    /// Interim answers of the present exchange, where no answer came to carry them.
    pub(super) fn take_interim(&mut self) -> Interim {
        std::mem::take(&mut self.interim)
    }

    /// Whether it is worth a try: at first, and then once an empty line came. So a head that comes byte by byte is not gone through a
    /// thousand times.
    fn may_hold_head(&mut self) -> bool {
        let is_first = self.searched == 0;
        let unsearched = &self.buffer[self.searched.saturating_sub(2)..];
        self.searched = self.buffer.len();
        is_first
            || self.buffer.len() >= HEAD_BYTES_MAX
            || unsearched.windows(2).any(|two| two == b"\n\n")
            || unsearched.windows(3).any(|three| three == b"\n\r\n")
    }

    /// The connection ended before the head was through: why, or that it ended.
    pub(super) fn end_of_head(&mut self) -> Http1Error {
        match head::parse(&mut self.buffer, HeaderMap::new, false) {
            Err(error) => error,
            Ok(_) if self.buffer.is_empty() => Http1Error::Ended,
            Ok(_) => Http1Error::HeadTruncated,
        }
    }

    /// Reads more of a head.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>, wire: &mut Wire) -> Poll<Result<usize, Http1Error>> {
        // Room is made once there is something to read: who waits for a slow backend holds no buffer.
        ready!(wire.poll_readable(cx))?;
        self.buffer.reserve(self.room.min(HEAD_BYTES_MAX - self.buffer.len()));
        self.poll_read(cx, wire)
    }

    /// Reads more of a body, of which `left` bytes are still to come at least.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>, wire: &mut Wire, left: u64) -> Poll<Result<usize, Http1Error>> {
        ready!(wire.poll_readable(cx))?;
        self.make_room(match left {
            0 => self.room,
            left => usize::try_from(left.saturating_add(BEYOND_BYTES)).map_or(ROOM_MAX, |room| room.min(ROOM_MAX)),
        });
        let count = ready!(self.poll_read(cx, wire))?;
        self.input = self.buffer.split().freeze();
        self.is_lent = true;
        Poll::Ready(Ok(count))
    }

    /// Makes room for so many bytes, or for fewer as long as the client is slow. The buffer holds none.
    fn make_room(&mut self, room: usize) {
        let least = room.min(ROOM_OF_SLOW);
        if self.is_lent && self.buffer.capacity() >= least {
            // What is left costs nothing, for the rest of it is held anyway.
            return;
        }
        let is_held = self.is_lent && !self.buffer.try_reclaim(least);
        let room = if is_held { least } else { room };
        if self.buffer.capacity() < room {
            // Not by `reserve`, which takes as much as there was before at least.
            self.buffer = BytesMut::with_capacity(room);
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, wire: &mut Wire) -> Poll<Result<usize, Http1Error>> {
        let count = ready!(poll_read_buf(Pin::new(wire), cx, &mut self.buffer))?;
        if count >= self.room {
            self.room = (self.room * 2).min(ROOM_MAX);
        } else if count < self.room / 4 {
            self.room = (self.room / 2).max(ROOM_MIN);
        }
        Poll::Ready(Ok(count))
    }
}
