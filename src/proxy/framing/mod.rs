//! The framing of a client's HTTP/1.1 connection, followed byte by byte before the library reads it.
//!
//! The library is lenient where RFC 9112 lets a server be: it takes bare LF, and drops a length beside chunks before anybody sees it. Two
//! readers that differ about where a request ends are what request smuggling is made of, so a gateway refuses whatever could be
//! read in two ways. A [`Follower`] is given each piece of what comes from the client, and says which of it may be passed on. It holds
//! no bytes back: what it needs to know of a head is a handful of numbers.
//!
//! ```text
//! Head --> (nothing follows) --> Head
//!      --> Body(bytes left) ---> Head
//!      --> Chunks --> Trailers -> Head
//! ```
//!
//! `head` judges the bytes of a head and decides what follows it (RFC 9112 6.3), `chunks` those of a chunked body, `values` the two fields
//! that matter to either. `flaw` lists every reason for a refusal. What is about meaning and not about framing (whether a host is valid,
//! which methods pass) is left to the exchange, which knows the listener.
//!
//! Of HTTP/2 only heads come here, once they are read (`fields`): its preface and its frames must not.

mod chunks;
mod fields;
mod flaw;
mod head;
mod octets;
mod values;

pub(super) use fields::check_head;
pub use flaw::Flaw;
pub(super) use flaw::{HEAD_LONG, PSEUDO_FIELDS, TRAILERS_FIELDS, TRAILERS_LONG};

use chunks::Chunks;
use head::{Content, Head};

/// Fields of a head at most, and trailers.
pub(super) const FIELDS_MAX: usize = 100;
/// Bytes of a request's target at most.
pub(super) const TARGET_BYTES_MAX: usize = 8 * 1024;

/// Why a connection's bytes are not passed on any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// How many of the bytes at hand may still be passed on.
    pub passed: usize,
    /// Whether they end within a body, whose reader must be told that it broke off. Else they end between two messages or, where a
    /// head came in several pieces, within that head.
    pub is_within_body: bool,
    /// What is wrong.
    pub flaw: Flaw,
}

/// Follows the bytes of one connection.
#[derive(Debug)]
pub struct Follower {
    part: Part,
    head: Head,
    head_bytes_max: usize,
    /// Bytes that the present head, or the present trailers, may still have.
    room: usize,
    heads: u64,
}

/// The part of a message that the next byte belongs to.
#[derive(Debug)]
enum Part {
    Head,
    /// A body with this many bytes to come.
    Body(u64),
    Chunks(Chunks),
    Trailers,
    Refused(Flaw),
}

impl Follower {
    /// At the beginning of a connection. `head_bytes_max` bounds each head (over it, 431) and each set of trailers (400).
    pub fn new(head_bytes_max: usize) -> Follower {
        Follower { part: Part::Head, head: Head::new(), head_bytes_max, room: head_bytes_max, heads: 0 }
    }

    /// Follows the next bytes. They may be split anywhere.
    ///
    /// Errors: they are not sound. Of a message that began within `bytes` nothing is passed; of one that began before, what comes before
    /// the flaw has to be. After a refusal nothing passes any more.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut began = None;
        let mut at = 0;
        while at < bytes.len() {
            if self.is_between_messages() {
                began = Some(at);
            }
            match self.step(&bytes[at..]) {
                Ok(count) => at += count,
                Err((sound, flaw)) => return Err(self.refuse(began, at + sound, flaw)),
            }
        }
        Ok(())
    }

    /// How many heads came to their end and passed.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether the next byte is the first of a message.
    pub fn is_between_messages(&self) -> bool {
        matches!(self.part, Part::Head) && self.room == self.head_bytes_max
    }

    /// Whether the head of the last message that began is through, and not all that follows it.
    pub fn is_in_body(&self) -> bool {
        matches!(self.part, Part::Body(_) | Part::Chunks(_) | Part::Trailers)
    }

    /// One part of a message, as far as `bytes` has it. A flaw comes with how many bytes before it are sound.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, (usize, Flaw)> {
        match &mut self.part {
            Part::Head | Part::Trailers => self.fields(bytes).map_err(|flaw| (0, flaw)),
            Part::Body(left) => {
                let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                if *left == 0 {
                    self.begin_message();
                }
                Ok(count)
            }
            Part::Chunks(chunks) => {
                let count = chunks.follow(bytes)?;
                if chunks.is_done() {
                    self.begin_trailers();
                }
                Ok(count)
            }
            Part::Refused(flaw) => Err((0, *flaw)),
        }
    }

    /// A head or trailers.
    fn fields(&mut self, bytes: &[u8]) -> Result<usize, Flaw> {
        let is_head = matches!(self.part, Part::Head);
        let count = self.head.follow(&bytes[..bytes.len().min(self.room)])?;
        self.room -= count;
        if self.head.is_done() {
            match is_head {
                true => self.end_head()?,
                false => self.begin_message(),
            }
        } else if self.room == 0 {
            return Err(if is_head { flaw::HEAD_LONG } else { flaw::TRAILERS_LONG });
        }
        Ok(count)
    }

    fn end_head(&mut self) -> Result<(), Flaw> {
        let content = self.head.content()?;
        self.heads += 1;
        match content {
            Content::Nothing => self.begin_message(),
            Content::Bytes(left) => self.part = Part::Body(left),
            Content::Chunks => self.part = Part::Chunks(Chunks::new()),
        }
        Ok(())
    }

    fn begin_message(&mut self) {
        self.part = Part::Head;
        self.head.reset();
        self.room = self.head_bytes_max;
    }

    fn begin_trailers(&mut self) {
        self.part = Part::Trailers;
        self.head.begin_trailers();
        // One less: the library takes as many bytes for too many already.
        self.room = self.head_bytes_max.saturating_sub(1);
    }

    fn refuse(&mut self, began: Option<usize>, sound: usize, flaw: Flaw) -> Refusal {
        let is_head = matches!(self.part, Part::Head | Part::Refused(_));
        self.part = Part::Refused(flaw);
        if began.is_some() && !is_head {
            self.heads -= 1;
        }
        match began {
            Some(began) => Refusal { passed: began, is_within_body: false, flaw },
            // Of a head that began earlier the library has a part; the rest is of no use to it.
            None if is_head => Refusal { passed: 0, is_within_body: false, flaw },
            None => Refusal { passed: sound, is_within_body: true, flaw },
        }
    }
}
