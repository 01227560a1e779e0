//! Frames of HTTP/2 that would be misread, changed as they come.
//!
//! - RST_STREAM with NO_ERROR in the middle of a message: whoever reads a stream sees no difference to one behind a whole answer (RFC 9113 8.1),
//!   so that what broke off would go on as if it were whole. It becomes INTERNAL_ERROR.
//! - DATA without a byte that is not the last: h2 allows a hundred in a connection's life and then ends it. It becomes a frame of no known
//!   type, which is ignored (RFC 9113 5.5). Not where hundreds follow each other: that is a flood, and h2's to end.

use std::collections::VecDeque;

use h2::Reason;

use super::frames::Frames;
use super::frames::flag::{END_STREAM, PADDED};
use super::frames::kind::{DATA, HEADERS, RST_STREAM};

/// A type that no standard has.
const UNKNOWN: u8 = 0xbf;
/// Empty frames of bodies in a row that are taken from h2.
const EMPTY_MAX: u32 = 100;
/// How far a frame's type stands before its payload.
const TYPE_BEFORE_PAYLOAD: usize = 6;
/// Streams whose message was whole of late. What resets one does so soon after.
const ENDED_MAX: usize = 256;
/// The last byte of the code that a reset gets. The others are those of NO_ERROR.
const INTERNAL_ERROR: u8 = 2;

/// Follows the frames of one direction.
#[derive(Debug)]
pub(super) struct Mender {
    frames: Frames,
    ended: VecDeque<u32>,
    /// Empty frames of bodies since the last that had something in it.
    empty: u32,
    /// The code of the present reset, as far as it came.
    code: u32,
}

impl Mender {
    /// At the beginning, where so many bytes stand before the first frame.
    pub(super) fn new(preface_bytes: usize) -> Mender {
        Mender { frames: Frames::after(preface_bytes), ended: VecDeque::new(), empty: 0, code: 0 }
    }

    /// Mends what comes next. It may be split anywhere; a type that is gone already stays.
    pub(super) fn mend(&mut self, bytes: &mut [u8]) {
        let Mender { frames, ended, empty, code } = self;
        let mut changes = Vec::new();
        frames.follow(bytes, |head, part| {
            let is_end = head.flags & END_STREAM != 0;
            // What is wrong in itself stays so.
            let is_plain = head.stream != 0 && head.flags & PADDED == 0;
            if matches!(head.kind, DATA | HEADERS) && !part.bytes.is_empty() {
                *empty = 0;
            }
            match head.kind {
                DATA | HEADERS if is_end && part.is_first => {
                    if ended.len() == ENDED_MAX {
                        ended.pop_front();
                    }
                    ended.push_back(head.stream);
                }
                DATA if part.is_first && part.bytes.is_empty() && !is_end && is_plain && *empty < EMPTY_MAX => {
                    *empty += 1;
                    changes.extend(part.end.checked_sub(TYPE_BEFORE_PAYLOAD).map(|place| (place, UNKNOWN)));
                }
                RST_STREAM => {
                    *code = part.bytes.iter().fold(*code, |code, byte| code << 8 | u32::from(*byte));
                    let is_told_as_end = part.is_last && Reason::from(*code) == Reason::NO_ERROR && !part.bytes.is_empty();
                    if is_told_as_end && !ended.contains(&head.stream) {
                        changes.push((part.end - 1, INTERNAL_ERROR));
                    }
                }
                _ => {}
            }
        });
        for (place, byte) in changes {
            bytes[place] = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    }

    #[test]
    fn what_would_be_misread_is_changed_wherever_it_is_split() {
        let reset = |stream, code| frame(RST_STREAM, 0, stream, &[0, 0, 0, code]);
        // As it comes, and as it goes on where no type is gone already.
        let table = [
            (frame(HEADERS, 4, 1, b"head"), frame(HEADERS, 4, 1, b"head")),
            (frame(DATA, 0, 1, &reset(1, 0)), frame(DATA, 0, 1, &reset(1, 0))),
            (frame(DATA, 0, 1, b""), frame(UNKNOWN, 0, 1, b"")),
            (frame(DATA, 0, 0, b""), frame(DATA, 0, 0, b"")),
            (frame(DATA, PADDED, 1, b""), frame(DATA, PADDED, 1, b"")),
            (frame(DATA, END_STREAM, 3, b""), frame(DATA, END_STREAM, 3, b"")),
            (frame(HEADERS, 4 | END_STREAM, 5, b"head"), frame(HEADERS, 4 | END_STREAM, 5, b"head")),
            (reset(3, 0), reset(3, 0)),
            (reset(5, 0), reset(5, 0)),
            (reset(1, 0), reset(1, INTERNAL_ERROR)),
            (reset(7, 8), reset(7, 8)),
            (frame(4, 0, 0, b""), frame(4, 0, 0, b"")),
            (reset(9, 0), reset(9, INTERNAL_ERROR)),
        ];
        let (came, mended): (Vec<_>, Vec<_>) = table.into_iter().unzip();
        let (came, mended) = ([b"preface".to_vec(), came.concat()].concat(), [b"preface".to_vec(), mended.concat()].concat());
        for size in [1, 2, 5, 9, 10, 13, 30, came.len()] {
            let mut mender = Mender::new(7);
            let mut bytes = came.clone();
            bytes.chunks_mut(size).for_each(|part| mender.mend(part));
            // A type that went on before the flags came stays what it was.
            let is_same = |(is, was): (&u8, &u8)| is == was || (*is, *was) == (DATA, UNKNOWN);
            assert!(bytes.iter().zip(&mended).all(is_same), "{size}");
            assert!(size < 6 || bytes == mended || bytes.iter().filter(|byte| **byte == UNKNOWN).count() == 0, "{size}");
        }
        let (mut mender, mut bytes) = (Mender::new(7), came);
        mender.mend(&mut bytes);
        assert_eq!(bytes, mended);
    }

    #[test]
    fn a_flood_of_empty_frames_is_left_to_h2() {
        let mut mender = Mender::new(0);
        let mut is_mended = || {
            let mut bytes = frame(DATA, 0, 1, b"");
            mender.mend(&mut bytes);
            let is_mended = bytes[3] == UNKNOWN;
            if !is_mended {
                mender.mend(&mut frame(DATA, 0, 1, b"x"));
            }
            is_mended
        };
        let mended: Vec<bool> = (0..=2 * EMPTY_MAX).map(|_| is_mended()).collect();
        let expected = |number: u32| number != EMPTY_MAX;
        assert_eq!(mended, (0..=2 * EMPTY_MAX).map(expected).collect::<Vec<_>>());
    }

    #[test]
    fn streams_that_ended_are_known_for_a_while() {
        let mut mender = Mender::new(0);
        let id = |stream: usize| u32::try_from(2 * stream + 1).unwrap().to_be_bytes();
        let with_id = |mut frame: Vec<u8>, stream| {
            frame[5..9].copy_from_slice(&id(stream));
            frame
        };
        for stream in 0..=ENDED_MAX {
            mender.mend(&mut with_id(frame(DATA, END_STREAM, 0, b"x"), stream));
        }
        assert_eq!(mender.ended.len(), ENDED_MAX);
        for (stream, code) in [(0, INTERNAL_ERROR), (1, 0), (ENDED_MAX, 0)] {
            let mut reset = with_id(frame(RST_STREAM, 0, 0, &[0; 4]), stream);
            mender.mend(&mut reset);
            assert_eq!(reset[12], code, "{stream}");
        }
    }
}
