//! The streams that are reset, read from the frames that go out: what h2 refuses by itself it tells nobody but the client.

use h2::Reason;

use crate::upstream::frames::Frames;
use crate::upstream::frames::kind::RST_STREAM;

/// Follows frames as they are written, split anywhere.
#[derive(Debug, Default)]
pub(in super::super) struct Resets {
    frames: Frames,
    /// The last four bytes of a reset's payload.
    end: u32,
}

impl Resets {
    /// Follows the next bytes; `note` is told of each reset.
    pub(in super::super) fn follow(&mut self, bytes: &[u8], mut note: impl FnMut(Reason)) {
        let end = &mut self.end;
        self.frames.follow(bytes, |head, part| {
            // Its payload is the reason (RFC 9113 6.4).
            if head.kind == RST_STREAM {
                *end = part.bytes.iter().fold(*end, |end, byte| end << 8 | u32::from(*byte));
                if part.is_last {
                    note((*end).into());
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_are_found_wherever_the_frames_are_split() {
        let frame = |kind: u8, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
            [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
        };
        let written = [
            frame(4, &[]),
            frame(3, &[0, 0, 0, 7]),
            // A payload that looks like a reset.
            frame(0, &frame(3, &[0, 0, 0, 2])),
            frame(0, &vec![3; 70_000]),
            frame(3, &[0, 0, 0, 1]),
            frame(1, &[0x88]),
        ]
        .concat();
        for size in [1, 2, 5, 9, 13, written.len()] {
            let (mut resets, mut found) = (Resets::default(), Vec::new());
            written.chunks(size).for_each(|part| resets.follow(part, |reason| found.push(reason)));
            assert_eq!(found, [Reason::REFUSED_STREAM, Reason::PROTOCOL_ERROR], "{size}");
        }
    }
}
