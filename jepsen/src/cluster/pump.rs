//! One connection through a proxy of the suite, and what the rules of its two ways do to it.
//!
//! Each way has a reader, which stamps a piece with the time at which it is due, and a writer, which passes the pieces in order: a delay
//! holds nothing up but what it delays. A stream has one order, and the receiver's TCP restores it whatever a network does: pieces
//! cannot be reordered here, only packets can, below TCP.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::network::{Met, Rule};

/// What is read at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces that are read and not passed yet; then the sender has to wait.
const PIECES_MAX: usize = 64;
/// What a slow link takes at once: connections share it by turns of this, as they share a wire by packets.
const SEGMENT_BYTES: usize = 1400;

/// One link: its present rule, and what came of it. All connections between the two nodes share it.
#[derive(Debug)]
pub(super) struct State {
    present: watch::Sender<Present>,
    met: Mutex<Met>,
    /// When a slow link has passed all that it was given.
    free_at: Mutex<Option<Instant>>,
}

#[derive(Debug, Clone, Copy)]
struct Present {
    rule: Rule,
    /// How often connections have begun to be half-open: those that began before the last time are.
    waves: u64,
}

impl State {
    /// A sound link.
    pub(super) fn new() -> State {
        let present = watch::Sender::new(Present { rule: Rule::SOUND, waves: 0 });
        State { present, met: Mutex::default(), free_at: Mutex::default() }
    }

    /// Makes this its rule.
    pub(super) fn apply(&self, rule: Rule) {
        self.present.send_modify(|present| {
            present.waves += u64::from(rule.half_open && !present.rule.half_open);
            present.rule = rule;
        });
        *self.met.lock().unwrap_or_else(PoisonError::into_inner) = Met::default();
        *self.free_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What the present rule did something to.
    pub(super) fn met(&self) -> Met {
        *self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, bytes: usize) {
        *self.met.lock().unwrap_or_else(PoisonError::into_inner) += Met { pieces: 1, bytes: bytes as u64 };
    }

    /// When so many more bytes have passed a link of this rate.
    fn reserve(&self, bytes: usize, bytes_per_second: u32) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let begin = free_at.map_or(now, |free_at| free_at.max(now));
        let end = begin + Duration::from_secs_f64(bytes as f64 / f64::from(bytes_per_second.max(1)));
        *free_at = Some(end);
        end
    }
}

/// Passes both ways until either ends, or until a half-open connection is reset.
pub(super) async fn join(outer: TcpStream, inner: TcpStream, there: &State, back: &State) {
    let _ = (outer.set_nodelay(true), inner.set_nodelay(true));
    let (mut outer_read, mut outer_write) = outer.into_split();
    let (mut inner_read, mut inner_write) = inner.into_split();
    let (there, back) = (Way::new(there), Way::new(back));
    // Whichever ends first takes the other with it: no half of a connection goes on.
    let (end, target, other) = tokio::select! {
        end = there.pump(&mut outer_read, &mut inner_write) => (end, &mut inner_write, &back),
        end = back.pump(&mut inner_read, &mut outer_write) => (end, &mut outer_write, &there),
    };
    if end == End::Closed {
        let _ = target.shutdown().await;
    }
    // Whoever shall hear nothing hears of no end either.
    let was_silent = end != End::Silenced && other.silence_ends().await;
    if was_silent || end == End::Silenced {
        // A write half that is dropped alone sends an orderly end.
        for stream in [outer_read.reunite(outer_write), inner_read.reunite(inner_write)].into_iter().flatten() {
            let _ = stream.set_zero_linger();
        }
    }
}

/// Why nothing more is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The sender has closed the connection, and all was passed.
    Closed,
    /// The receiver is gone, or a rule has cut the connection.
    Broken,
    /// It was half-open, and that is over.
    Silenced,
}

/// What is read, and when it may arrive.
struct Piece {
    due: Instant,
    is_delayed: bool,
    bytes: Vec<u8>,
}

/// One way of a connection.
struct Way<'a> {
    state: &'a State,
    /// The wave in which it began: that one does not meet it.
    born: Option<u64>,
}

impl<'a> Way<'a> {
    fn new(state: &'a State) -> Way<'a> {
        let present = *state.present.borrow();
        Way { state, born: present.rule.half_open.then_some(present.waves) }
    }

    fn is_silent(&self, present: &Present) -> bool {
        present.rule.half_open && self.born != Some(present.waves)
    }

    async fn pump(&self, from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> End {
        let (pieces, arrived) = mpsc::channel(PIECES_MAX);
        let reading = async {
            self.read(from, pieces).await;
            // The writer has the rest, and ends after it.
            std::future::pending().await
        };
        tokio::select! {
            end = reading => end,
            end = self.pass(arrived, to) => end,
        }
    }

    async fn read(&self, from: &mut (impl AsyncRead + Unpin), pieces: mpsc::Sender<Piece>) {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let delay = self.state.present.borrow().rule.delay;
            let piece = Piece { due: Instant::now() + delay, is_delayed: !delay.is_zero(), bytes: buffer[..count].to_vec() };
            if pieces.send(piece).await.is_err() {
                return;
            }
        }
    }

    /// Passes pieces as the rule says: late, not before a cut is healed, slowly, in part, or not at all.
    async fn pass(&self, mut arrived: mpsc::Receiver<Piece>, to: &mut (impl AsyncWrite + Unpin)) -> End {
        let mut presents = self.state.present.subscribe();
        while let Some(Piece { due, is_delayed, bytes }) = arrived.recv().await {
            // Be it over by now, behind another.
            if is_delayed {
                self.state.count(bytes.len());
                sleep_until(due).await;
            }
            if presents.borrow_and_update().rule.cut {
                self.state.count(bytes.len());
            }
            if presents.wait_for(|present| !present.rule.cut).await.is_err() {
                return End::Broken;
            }
            let present = *presents.borrow_and_update();
            if self.is_silent(&present) {
                return self.swallow(bytes.len(), arrived).await;
            }
            if fastrand::u32(..100) < present.rule.loss_percent {
                self.state.count(bytes.len());
                return End::Broken;
            }
            if bytes.len() > 1 && fastrand::u32(..100) < present.rule.torn_percent {
                let passed = fastrand::usize(1..bytes.len());
                self.state.count(bytes.len() - passed);
                let _ = to.write_all(&bytes[..passed]).await;
                return End::Broken;
            }
            if self.write(&bytes, &mut presents, to).await.is_err() {
                return End::Broken;
            }
        }
        if self.silence_ends().await { End::Silenced } else { End::Closed }
    }

    /// Passes one piece, as slowly as the link is. A rule that is lifted lets the rest go at once.
    async fn write(
        &self,
        mut bytes: &[u8],
        presents: &mut watch::Receiver<Present>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let Some(rate) = presents.borrow_and_update().rule.bytes_per_second else { return to.write_all(bytes).await };
            let (segment, rest) = bytes.split_at(bytes.len().min(SEGMENT_BYTES));
            let free_at = self.state.reserve(segment.len(), rate);
            self.state.count(segment.len());
            let lifted = presents.wait_for(|present| present.rule.bytes_per_second.is_none());
            tokio::select! {
                () = sleep_until(free_at) => {}
                _ = lifted => {}
            }
            to.write_all(segment).await?;
            bytes = rest;
        }
        Ok(())
    }

    /// Takes what arrives and passes nothing, until this is over. There is no way back: the stream has a hole now.
    async fn swallow(&self, first_bytes: usize, mut arrived: mpsc::Receiver<Piece>) -> End {
        self.state.count(first_bytes);
        let swallowing = async {
            while let Some(piece) = arrived.recv().await {
                self.state.count(piece.bytes.len());
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = swallowing => {}
            _ = self.silence_ends() => {}
        }
        End::Silenced
    }

    /// Waits while it is half-open; false where it was not.
    async fn silence_ends(&self) -> bool {
        let mut presents = self.state.present.subscribe();
        let was_silent = self.is_silent(&presents.borrow());
        // An error says that there is no link any more.
        let _ = presents.wait_for(|present| !self.is_silent(present)).await;
        was_silent
    }
}
