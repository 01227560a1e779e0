//! What h2 lets pass of a client's header blocks without a word, read beside it from the frames that come: it cuts a fragment off a `:path`,
//! drops from trailers pseudo fields and whatever is over its bound, and answers a head that is over it by itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::super::super::framing::{FIELDS_MAX, Flaw, HEAD_LONG, TRAILERS_FIELDS, TRAILERS_LONG};
use super::super::io::PREFACE;
use super::hpack::{Outline, Reader};
use crate::upstream::frames::flag::{END_HEADERS, PADDED, PRIORITY};
use crate::upstream::frames::kind::{CONTINUATION, HEADERS};
use crate::upstream::frames::{FrameHead, Frames, Part, stream_of};

/// What stands before the block where a frame has priorities.
const PRIORITY_BYTES: usize = 5;
/// Notes that nobody has asked for yet. For some nobody ever does: h2 refused their stream.
const NOTES_MAX: usize = 256;
/// How many times a head's bound a block may have: h2 gives up at four, and four bytes of Huffman's code may stand for one.
const BOUNDS_MAX: usize = 16;

/// The blocks of a connection that are malformed (RFC 9113 8.1.1), though h2 does not say so.
#[derive(Debug, Default)]
pub(super) struct Malformed {
    notes: RefCell<Vec<Note>>,
    /// Whether nothing can be said of what comes next.
    is_lost: Cell<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    stream: u32,
    is_head: bool,
}

impl Malformed {
    /// Whether the head of this stream is one of them; from then on it is none.
    pub(super) fn take_head(&self, stream: u32) -> bool {
        self.take(Note { stream, is_head: true })
    }

    /// The same of its trailers.
    pub(super) fn take_trailers(&self, stream: u32) -> bool {
        self.take(Note { stream, is_head: false })
    }

    /// Whether the connection had to end because nothing could be said of what came next.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.get()
    }

    /// Forgets a stream that is over.
    pub(super) fn forget(&self, stream: u32) {
        self.notes.borrow_mut().retain(|note| note.stream != stream);
    }

    fn take(&self, note: Note) -> bool {
        let mut notes = self.notes.borrow_mut();
        let found = notes.iter().position(|other| *other == note);
        found.map(|index| notes.swap_remove(index)).is_some()
    }

    fn note(&self, note: Note) {
        let mut notes = self.notes.borrow_mut();
        notes.push(note);
        if notes.len() == NOTES_MAX {
            self.lose();
        }
    }

    fn lose(&self) {
        self.is_lost.set(true);
    }
}

/// Follows frames as they are read, split anywhere.
#[derive(Debug)]
pub(in super::super) struct Blocks {
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
    /// Whether a block, or a frame of another type, came to its end since this was asked last.
    has_ended: bool,
}

impl Blocks {
    /// From the preface on. h2 refuses heads of `head_bytes_max` itself.
    pub(super) fn new(head_bytes_max: usize, trailers_bytes_max: usize, malformed: Rc<Malformed>) -> Blocks {
        let (payload, block) = (Vec::new(), Vec::new());
        let (reader, last_stream, is_open, has_ended) = (Reader::default(), 0, false, false);
        let joined =
            Joined { reader, malformed, head_bytes_max, trailers_bytes_max, last_stream, payload, block, is_open, has_ended };
        Blocks { frames: Frames::after(PREFACE.len()), joined }
    }

    /// Whether nothing can be said of what comes next. h2 ends such a connection by itself once it has what came; no more may be given to it.
    pub(in super::super) fn are_lost(&self) -> bool {
        self.joined.malformed.is_lost()
    }

    /// Whether the client has begun to send a block and not come to its end.
    pub(in super::super) fn are_open(&self) -> bool {
        self.joined.is_open || self.frames.awaited() == Some(HEADERS)
    }

    /// Whether a block, or anything else, came to its end since this was asked last.
    pub(in super::super) fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.joined.has_ended)
    }

    /// Follows the next bytes; `refuse` is told of each block that is over a bound: of a head that h2 refuses, and of trailers.
    pub(in super::super) fn follow(&mut self, bytes: &[u8], mut refuse: impl FnMut(Flaw)) {
        self.frames.follow(bytes, |head, part| self.joined.take(head, part, &mut refuse));
    }
}

impl Joined {
    fn take(&mut self, head: FrameHead, part: Part<'_>, refuse: &mut impl FnMut(Flaw)) {
        self.is_open |= head.kind == HEADERS;
        self.has_ended |= part.is_last && !matches!(head.kind, HEADERS | CONTINUATION);
        match head.kind {
            _ if self.malformed.is_lost() => {}
            HEADERS if part.is_first && part.is_last => self.begin(head, part.bytes, refuse),
            HEADERS => {
                self.payload.extend_from_slice(part.bytes);
                if part.is_last {
                    let payload = std::mem::take(&mut self.payload);
                    self.begin(head, &payload, refuse);
                }
            }
            CONTINUATION => {
                self.block.extend_from_slice(part.bytes);
                if self.block.len() > self.head_bytes_max.saturating_mul(BOUNDS_MAX) {
                    self.malformed.lose();
                } else if part.is_last {
                    self.fragment(head, Some(&[]), refuse);
                }
            }
            _ => {}
        }
    }

    /// A frame of HEADERS.
    fn begin(&mut self, head: FrameHead, payload: &[u8], refuse: &mut impl FnMut(Flaw)) {
        if depends_on_itself(head, payload) {
            // h2 resets the stream and does not read the block, so that its table stays as it is.
            (self.is_open, self.has_ended) = (false, true);
            return;
        }
        self.fragment(head, without_padding(head.flags, payload), refuse);
    }

    /// Judges a block once this frame has ended it.
    fn fragment(&mut self, head: FrameHead, fragment: Option<&[u8]>, refuse: &mut impl FnMut(Flaw)) {
        let Some(fragment) = fragment else { return self.malformed.lose() };
        if head.flags & END_HEADERS == 0 {
            self.block.extend_from_slice(fragment);
            return;
        }
        (self.is_open, self.has_ended) = (false, true);
        let outline = match self.block.is_empty() {
            true => self.reader.read(fragment),
            false => {
                self.block.extend_from_slice(fragment);
                self.reader.read(&std::mem::take(&mut self.block))
            }
        };
        match outline {
            None => self.malformed.lose(),
            Some(outline) => self.judge(head.stream, outline, refuse),
        }
    }

    fn judge(&mut self, stream: u32, outline: Outline, refuse: &mut impl FnMut(Flaw)) {
        let is_head = stream > self.last_stream;
        self.last_stream = self.last_stream.max(stream);
        let flaw = match is_head {
            true => (outline.bytes >= self.head_bytes_max).then_some(HEAD_LONG),
            false if outline.bytes > self.trailers_bytes_max => Some(TRAILERS_LONG),
            false => (outline.fields > FIELDS_MAX).then_some(TRAILERS_FIELDS),
        };
        if let Some(flaw) = flaw {
            refuse(flaw);
        }
        // A head may be both, for h2 counts less where a fragment of the block is malformed.
        let is_malformed = match is_head {
            true => outline.has_fragment || outline.is_disordered,
            false => outline.has_pseudo || flaw.is_some(),
        };
        if is_malformed {
            self.malformed.note(Note { stream, is_head });
        }
    }
}

/// Whether a payload of HEADERS says that its stream depends on itself (RFC 7540 5.3.1).
fn depends_on_itself(head: FrameHead, payload: &[u8]) -> bool {
    let priority = payload.get(usize::from(head.flags & PADDED != 0)..).filter(|_| head.flags & PRIORITY != 0);
    let dependency = priority.and_then(|priority| priority.first_chunk());
    dependency.is_some_and(|dependency| stream_of(*dependency) == head.stream)
}

/// The part of a payload of HEADERS that is the block's. `None`: it is not as long as its padding and priorities.
fn without_padding(flags: u8, mut payload: &[u8]) -> Option<&[u8]> {
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (length, rest) = payload.split_first()?;
        (padding, payload) = (usize::from(*length), rest);
    }
    if flags & PRIORITY != 0 {
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

    /// The streams that are malformed, why blocks are refused for their size, and whether the rest is lost, however the input is split.
    fn judge(frames: &[Vec<u8>]) -> (Vec<u32>, Vec<&'static str>, bool) {
        let input = [PREFACE, &frames.concat()[..]].concat();
        let verdicts = [1, 2, 3, 7, 10, 64, input.len()].map(|size| {
            let malformed = Rc::new(Malformed::default());
            let (mut blocks, mut refused) = (Blocks::new(1989, 1000, Rc::clone(&malformed)), Vec::new());
            input.chunks(size).for_each(|part| blocks.follow(part, |flaw| refused.push(flaw.reason)));
            (malformed.notes.take().iter().map(|note| note.stream).collect(), refused, blocks.are_lost())
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
            frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 7, &padded),
            frame(HEADERS, 0, 9, &FRAGMENT[..3]),
            frame(CONTINUATION, 0, 9, &FRAGMENT[3..]),
            frame(CONTINUATION, END_HEADERS, 9, &[]),
        ]);
        assert_eq!(found, (vec![3, 1, 5, 7, 9], vec![], false));
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
        assert_eq!(found, (vec![3, 5], vec!["head_size", "trailers", "trailers"], false));
        let found = judge(&[frame(HEADERS, END_HEADERS, 1, &[BASE, FRAGMENT, &large, &[0xbe]].concat())]);
        assert_eq!(found, (vec![1], vec!["head_size"], false));
    }

    #[test]
    fn what_cannot_be_followed_is_lost() {
        let is_lost = |frames: &[Vec<u8>]| judge(frames).2;
        assert!(is_lost(&[frame(HEADERS, END_HEADERS, 1, &[0x80])]));
        assert!(is_lost(&[frame(HEADERS, END_HEADERS | PADDED, 1, &[3, 0x82, 0])]));
        assert!(is_lost(&[frame(HEADERS, END_HEADERS | PADDED, 1, &[])]));
        assert!(is_lost(&[frame(HEADERS, END_HEADERS | PRIORITY, 1, &[0; 4])]));
        let pieces =
            || std::iter::once(frame(HEADERS, 0, 1, BASE)).chain(std::iter::repeat_n(frame(CONTINUATION, 0, 1, &[0; 8000]), 4));
        assert!(!is_lost(&pieces().take(4).collect::<Vec<_>>()));
        assert!(is_lost(&pieces().chain([frame(CONTINUATION, 0, 1, &[0; 8000])]).collect::<Vec<_>>()));
        let flood = |count: usize| vec![frame(HEADERS, END_HEADERS, 1, FRAGMENT); count];
        assert!(!is_lost(&flood(NOTES_MAX - 1)) && is_lost(&flood(NOTES_MAX)));
    }

    #[test]
    fn a_block_of_a_stream_that_depends_on_itself_is_not_read() {
        let itself = |flags, before: &[u8]| {
            frame(HEADERS, END_HEADERS | PRIORITY | flags, 3, &[before, &[0x80, 0, 0, 3, 0, 0x44, 1, b'/']].concat())
        };
        let found = judge(&[
            frame(HEADERS, END_HEADERS, 1, &[0x44, 2, b'/', b'#']),
            itself(0, &[]),
            itself(PADDED, &[0]),
            // The newest of the table, at this stream and at the next.
            frame(HEADERS, END_HEADERS, 3, &[0xbe]),
            frame(HEADERS, END_HEADERS, 5, &[0xbe]),
        ]);
        assert_eq!(found, (vec![1, 3, 5], vec![], false));
    }

    #[test]
    fn a_block_is_open_until_its_end() {
        let mut blocks = Blocks::new(2000, 1000, Rc::default());
        let mut after = |bytes: &[u8]| {
            blocks.follow(bytes, |_| {});
            (blocks.are_open(), blocks.take_ended())
        };
        assert_eq!(after(PREFACE), (false, false));
        let headers = frame(HEADERS, 0, 1, BASE);
        assert_eq!(after(&headers[..5]), (false, false));
        assert_eq!(after(&headers[5..9]), (true, false));
        assert_eq!(after(&headers[9..]), (true, false));
        assert_eq!(after(&frame(CONTINUATION, 0, 1, &[])), (true, false));
        assert_eq!(after(&frame(CONTINUATION, END_HEADERS, 1, &[])), (false, true));
        // Another begins in the read in which one ends.
        assert_eq!(after(&[frame(0, 0, 1, b"x"), frame(HEADERS, 0, 3, BASE)].concat()), (true, true));
    }

    #[test]
    fn a_stream_is_malformed_until_it_is_asked_for() {
        let malformed = Malformed::default();
        for is_head in [true, false, false] {
            malformed.note(Note { stream: 3, is_head });
        }
        assert_eq!([malformed.take_head(1), malformed.take_head(3), malformed.take_head(3)], [false, true, false]);
        assert!(malformed.take_trailers(3));
        malformed.forget(3);
        assert!(!malformed.take_trailers(3));
    }
}
