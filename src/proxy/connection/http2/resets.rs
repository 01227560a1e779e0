//! The streams that are reset, read from the frames that go out: what h2 refuses by itself it tells nobody but the client.

use h2::Reason;

/// Bytes of a frame before its payload (RFC 9113 4.1).
const HEAD_BYTES: usize = 9;
/// The frame that resets a stream (RFC 9113 6.4). Its payload is the reason.
const RST_STREAM: u8 = 3;

/// Follows frames as they are written, split anywhere.
#[derive(Debug, Default)]
pub(in super::super) struct Resets {
    /// As much of a frame's head as there is.
    head: [u8; HEAD_BYTES],
    head_length: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
    /// The last four bytes of the payload.
    end: u32,
}

impl Resets {
    /// Follows the next bytes; `note` is told of each reset.
    pub(in super::super) fn follow(&mut self, mut bytes: &[u8], mut note: impl FnMut(Reason)) {
        while !bytes.is_empty() {
            let is_head = self.left == 0;
            let wanted = if is_head { HEAD_BYTES - self.head_length } else { self.left };
            let (part, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            if is_head {
                self.head[self.head_length..][..part.len()].copy_from_slice(part);
                self.head_length += part.len();
                if self.head_length == HEAD_BYTES {
                    let [high, middle, low, ..] = self.head;
                    self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                    self.head_length = 0;
                }
                continue;
            }
            self.left -= part.len();
            if self.head[3] == RST_STREAM {
                self.end = part.iter().fold(self.end, |end, byte| end << 8 | u32::from(*byte));
                if self.left == 0 {
                    note(self.end.into());
                }
            }
        }
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
