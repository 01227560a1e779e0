//! What h2 lets pass of a client's header blocks without a word, read beside it from the frames that come: it cuts a fragment off a `:path`,
//! drops from trailers pseudo fields and whatever is over its bound, and answers a head that is over it by itself.

use std::cell::RefCell;
use std::rc::Rc;

use super::super::super::framing::FIELDS_MAX;
use super::PREFACE_BYTES;
use super::hpack::{Outline, Reader};
use crate::upstream::{FrameHead, Frames, Part};

/// Frames and their flags (RFC 9113 6.2, 6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITISED: u8 = 32;
/// What stands before the block where a frame has priorities.
const PRIORITY_BYTES: usize = 5;
/// Streams that are malformed and that nobody has asked for yet. For some nobody ever does: their exchange is over.
const MALFORMED_MAX: usize = 256;
/// How many times a head's bound a block may have: h2 gives up at four, and four bytes of Huffman's code may stand for one.
const BOUNDS_MAX: usize = 16;

/// The streams of a connection whose last block is malformed (RFC 9113 8.1.1), though h2 does not say so.
#[derive(Debug, Default)]
pub(super) struct Malformed(RefCell<Vec<u32>>);

impl Malformed {
    /// Whether this is one of them; from then on it is none.
    pub(super) fn take(&self, stream: u32) -> bool {
        let mut streams = self.0.borrow_mut();
        let found = streams.iter().position(|malformed| *malformed == stream);
        found.map(|index| streams.swap_remove(index)).is_some()
    }

    /// Adds one. Whether there is room for another.
    fn note(&self, stream: u32) -> bool {
        let mut streams = self.0.borrow_mut();
        streams.push(stream);
        streams.len() < MALFORMED_MAX
    }
}

/// Follows frames as they are read, split anywhere.
#[derive(Debug)]
pub(in super::super) struct Blocks {
    preface_left: usize,
    frames: Frames,
    joined: Joined,
}

/// Blocks, put together from frames.
#[derive(Debug)]
struct Joined {
    reader: Reader,
    malformed: Rc<Malformed>,
    /// Bytes of a head from which on h2 refuses it.
    head_bytes_max: usize,
    /// Bytes of trailers.
    trailers_bytes_max: usize,
    /// The last stream that was begun.
    last_stream: u32,
    /// The payload of a frame of HEADERS that is not whole.
    payload: Vec<u8>,
    /// What earlier frames hold of a block that is not whole.
    block: Vec<u8>,
    /// Whether a block has begun and is not whole.
    is_open: bool,
    is_lost: bool,
}

impl Blocks {
    /// From the preface on. h2 refuses heads of `head_bytes_max` itself.
    pub(super) fn new(head_bytes_max: usize, trailers_bytes_max: usize, malformed: Rc<Malformed>) -> Blocks {
        let (payload, block) = (Vec::new(), Vec::new());
        let (reader, last_stream, is_open, is_lost) = (Reader::default(), 0, false, false);
        let joined =
            Joined { reader, malformed, head_bytes_max, trailers_bytes_max, last_stream, payload, block, is_open, is_lost };
        Blocks { preface_left: PREFACE_BYTES, frames: Frames::default(), joined }
    }

    /// Whether nothing can be said of what comes next. h2 ends such a connection by itself once it has what came; no more may be given to it.
    pub(in super::super) fn are_lost(&self) -> bool {
        self.joined.is_lost
    }

    /// Whether the client has begun to send a block and not come to its end, or a frame that may be one.
    pub(in super::super) fn are_open(&self) -> bool {
        self.joined.is_open || self.frames.is_within_head()
    }

    /// Follows the next bytes; `refuse` is called for each head that h2 refuses for its size.
    pub(in super::super) fn follow(&mut self, bytes: &[u8], mut refuse: impl FnMut()) {
        let (preface, bytes) = bytes.split_at(self.preface_left.min(bytes.len()));
        self.preface_left -= preface.len();
        self.frames.follow(bytes, |head, part| self.joined.take(head, part, &mut refuse));
    }
}

impl Joined {
    fn take(&mut self, head: FrameHead, part: Part<'_>, refuse: &mut impl FnMut()) {
        self.is_open |= head.kind == HEADERS;
        match head.kind {
            _ if self.is_lost => {}
            HEADERS if part.is_first && part.is_last => self.fragment(head, without_padding(head.flags, part.bytes), refuse),
            HEADERS => {
                self.payload.extend_from_slice(part.bytes);
                if part.is_last {
                    let payload = std::mem::take(&mut self.payload);
                    self.fragment(head, without_padding(head.flags, &payload), refuse);
                }
            }
            CONTINUATION => {
                self.block.extend_from_slice(part.bytes);
                self.is_lost = self.block.len() > self.head_bytes_max.saturating_mul(BOUNDS_MAX);
                if part.is_last {
                    self.fragment(head, Some(&[]), refuse);
                }
            }
            _ => {}
        }
    }

    /// Judges a block once this frame has ended it.
    fn fragment(&mut self, head: FrameHead, fragment: Option<&[u8]>, refuse: &mut impl FnMut()) {
        let Some(fragment) = fragment.filter(|_| !self.is_lost) else {
            self.is_lost = true;
            return;
        };
        if head.flags & END_HEADERS == 0 {
            self.block.extend_from_slice(fragment);
            return;
        }
        self.is_open = false;
        let outline = match self.block.is_empty() {
            true => self.reader.read(fragment),
            false => {
                self.block.extend_from_slice(fragment);
                self.reader.read(&std::mem::take(&mut self.block))
            }
        };
        match outline {
            None => self.is_lost = true,
            Some(outline) => self.judge(head.stream, outline, refuse),
        }
    }

    fn judge(&mut self, stream: u32, outline: Outline, refuse: &mut impl FnMut()) {
        let is_head = stream > self.last_stream;
        self.last_stream = self.last_stream.max(stream);
        let is_malformed = match is_head {
            true => outline.has_fragment,
            false => outline.has_pseudo || outline.fields > FIELDS_MAX || outline.bytes > self.trailers_bytes_max,
        };
        if is_head && outline.bytes >= self.head_bytes_max {
            refuse();
        } else if is_malformed {
            self.is_lost = !self.malformed.note(stream);
        }
    }
}

/// The part of a payload of HEADERS that is the block's. `None`: it is not as long as its padding and priorities.
fn without_padding(flags: u8, mut payload: &[u8]) -> Option<&[u8]> {
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (length, rest) = payload.split_first()?;
        (padding, payload) = (usize::from(*length), rest);
    }
    if flags & PRIORITISED != 0 {
        payload = payload.get(PRIORITY_BYTES..)?;
    }
    payload.get(..payload.len().checked_sub(padding)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &[u8] = &[0x82, 0x86, 0x84];
    const FRAGMENT: &[u8] = &[0x04, 4, b'/', b'a', b'#', b'b'];

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0x80, 0, 0, stream], payload].concat()
    }

    /// The streams that are malformed, how many heads are refused, and whether the rest is lost, however the input is split.
    fn judge(frames: &[Vec<u8>]) -> (Vec<u32>, usize, bool) {
        let input = [&[b'x'; PREFACE_BYTES], &frames.concat()[..]].concat();
        let verdicts = [1, 2, 3, 7, 10, 64, input.len()].map(|size| {
            let malformed = Rc::new(Malformed::default());
            let (mut blocks, mut refused) = (Blocks::new(1989, 1000, Rc::clone(&malformed)), 0);
            input.chunks(size).for_each(|part| blocks.follow(part, || refused += 1));
            (malformed.0.take(), refused, blocks.are_lost())
        });
        assert!(verdicts.windows(2).all(|pair| pair[0] == pair[1]), "{verdicts:?}");
        verdicts[0].clone()
    }

    #[test]
    fn malformed_streams_are_found_wherever_the_input_is_split() {
        let (settings, data) = (frame(4, 0, 0, &[]), frame(0, 0, 3, &frame(HEADERS, END_HEADERS, 7, FRAGMENT)));
        let padded = [&[2, 0, 0, 0, 0, 9][..], FRAGMENT, &[0, 0]].concat();
        let found = judge(&[
            settings,
            frame(HEADERS, END_HEADERS, 1, BASE),
            frame(HEADERS, END_HEADERS, 3, FRAGMENT),
            data,
            // Trailers, sound and with a pseudo field.
            frame(HEADERS, END_HEADERS | 1, 1, &[0, 1, b'x', 1, b'y']),
            frame(HEADERS, END_HEADERS | 1, 1, &[0x84]),
            // In pieces, one of them empty, and between padding and priorities.
            frame(HEADERS, 0, 5, &FRAGMENT[..3]),
            frame(CONTINUATION, 0, 5, &[]),
            frame(CONTINUATION, END_HEADERS, 5, &FRAGMENT[3..]),
            frame(HEADERS, END_HEADERS | PADDED | PRIORITISED, 7, &padded),
            frame(HEADERS, 0, 9, &FRAGMENT[..3]),
            frame(CONTINUATION, 0, 9, &FRAGMENT[3..]),
            frame(CONTINUATION, END_HEADERS, 9, &[]),
        ]);
        assert_eq!(found, (vec![3, 1, 5, 7, 9], 0, false));
    }

    #[test]
    fn what_is_over_a_bound_is_found() {
        // In the table after the first: 32 + 1 + 900 bytes.
        let large = [&[0x40, 1, b'x', 0x7f, 0x85, 6][..], &[b'y'; 900]].concat();
        let found = judge(&[
            frame(HEADERS, END_HEADERS, 1, &[BASE, &large].concat()),
            frame(HEADERS, END_HEADERS, 3, &[BASE, &[0xbe, 0xbe]].concat()),
            frame(HEADERS, END_HEADERS | 1, 1, &[0xbe]),
            frame(HEADERS, END_HEADERS | 1, 3, &[0xbe, 0xbe]),
            frame(HEADERS, END_HEADERS, 5, BASE),
            frame(HEADERS, END_HEADERS | 1, 5, &[&[0x40, 1, b'z', 0][..], &[0xbe; FIELDS_MAX]].concat()),
        ]);
        assert_eq!(found, (vec![3, 5], 1, false));
    }

    #[test]
    fn what_cannot_be_followed_is_lost() {
        let is_lost = |frames: &[Vec<u8>]| judge(frames).2;
        assert!(is_lost(&[frame(HEADERS, END_HEADERS, 1, &[0x80])]));
        assert!(is_lost(&[frame(HEADERS, END_HEADERS | PADDED, 1, &[3, 0x82, 0])]));
        assert!(is_lost(&[frame(HEADERS, END_HEADERS | PADDED, 1, &[])]));
        assert!(is_lost(&[frame(HEADERS, END_HEADERS | PRIORITISED, 1, &[0; 4])]));
        let pieces =
            || std::iter::once(frame(HEADERS, 0, 1, BASE)).chain(std::iter::repeat_n(frame(CONTINUATION, 0, 1, &[0; 8000]), 4));
        assert!(!is_lost(&pieces().take(4).collect::<Vec<_>>()));
        assert!(is_lost(&pieces().chain([frame(CONTINUATION, 0, 1, &[0; 8000])]).collect::<Vec<_>>()));
        let flood = |count: usize| vec![frame(HEADERS, END_HEADERS, 1, FRAGMENT); count];
        assert!(!is_lost(&flood(MALFORMED_MAX - 1)) && is_lost(&flood(MALFORMED_MAX)));
    }

    #[test]
    fn a_stream_is_malformed_until_it_is_asked_for() {
        let malformed = Malformed::default();
        assert!(malformed.note(3));
        assert_eq!((malformed.take(1), malformed.take(3), malformed.take(3)), (false, true, false));
    }
}
