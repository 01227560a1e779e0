//! Frames as they pass, split anywhere (RFC 9113 4.1).

/// Types of frames.
pub mod kind {
    /// Part of a body (RFC 9113 6.1).
    pub const DATA: u8 = 0;
    /// The beginning of a header block (6.2).
    pub const HEADERS: u8 = 1;
    /// The end of a stream before its time (6.4).
    pub const RST_STREAM: u8 = 3;
    /// More of a header block (6.10).
    pub const CONTINUATION: u8 = 9;
}

/// Flags of DATA and HEADERS (RFC 9113 6.1, 6.2).
pub mod flag {
    /// The last of the message.
    pub const END_STREAM: u8 = 1;
    /// The last of the header block; of CONTINUATION too.
    pub const END_HEADERS: u8 = 4;
    /// The payload begins with a length, and ends with so much padding.
    pub const PADDED: u8 = 8;
    /// Five bytes of priority stand before the block.
    pub const PRIORITY: u8 = 32;
}

/// Bytes of a frame before its payload.
const HEAD_BYTES: usize = 9;

/// Follows frames in one direction.
#[derive(Debug, Default)]
pub struct Frames {
    /// Bytes before the first frame that are still to come.
    preface_left: usize,
    /// As much of a frame's head as there is.
    head: [u8; HEAD_BYTES],
    head_length: usize,
    /// Bytes of the payload, and those of them that are still to come.
    length: usize,
    left: usize,
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy)]
pub struct FrameHead {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// The stream, 0 for the connection.
    pub stream: u32,
}

/// Part of a payload.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// What came of it.
    pub bytes: &'a [u8],
    /// Where it ends in what is followed.
    pub end: usize,
    /// Whether nothing of the payload came before.
    pub is_first: bool,
    /// Whether nothing of it comes after.
    pub is_last: bool,
}

/// The stream in these four bytes: the highest bit is another's.
pub fn stream_of(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes) & 0x7fff_ffff
}

impl Frames {
    /// From the beginning, where so many bytes stand before the first frame.
    pub fn after(preface_bytes: usize) -> Frames {
        Frames { preface_left: preface_bytes, ..Frames::default() }
    }

    /// Follows the next bytes; `take` gets each payload, part by part, an empty one as one part.
    pub fn follow(&mut self, all: &[u8], mut take: impl FnMut(FrameHead, Part<'_>)) {
        let (preface, mut bytes) = all.split_at(self.preface_left.min(all.len()));
        self.preface_left -= preface.len();
        while !bytes.is_empty() {
            if self.left == 0 {
                let (part, rest) = bytes.split_at((HEAD_BYTES - self.head_length).min(bytes.len()));
                self.head[self.head_length..][..part.len()].copy_from_slice(part);
                self.head_length += part.len();
                bytes = rest;
                if self.head_length < HEAD_BYTES {
                    return;
                }
                let [high, middle, low, ..] = self.head;
                self.length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                (self.left, self.head_length) = (self.length, 0);
                if self.length > 0 {
                    continue;
                }
            }
            let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
            let is_first = self.left == self.length;
            self.left -= part.len();
            bytes = rest;
            take(self.frame_head(), Part { bytes: part, end: all.len() - bytes.len(), is_first, is_last: self.left == 0 });
        }
    }

    /// The type of the frame whose payload is awaited, if one is.
    pub fn awaited(&self) -> Option<u8> {
        (self.left > 0).then(|| self.frame_head().kind)
    }

    fn frame_head(&self) -> FrameHead {
        let [_, _, _, kind, flags, stream @ ..] = self.head;
        FrameHead { kind, flags, stream: stream_of(stream) }
    }
}
