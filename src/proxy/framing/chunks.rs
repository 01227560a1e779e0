//! A body in chunks (RFC 9112 7.1), up to its trailers.

use super::flaw::{self, Flaw};

/// Bytes of all extensions of one body at most. Nothing here understands any, and they are not passed on.
const EXTENSION_BYTES_MAX: u16 = 4096;
/// Digits of a size at most: as many as 64 bits have.
const SIZE_DIGITS_MAX: u8 = 16;

/// The next byte's place in a body of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Digits of a size; this many came.
    Size(u8),
    /// White space before a semicolon.
    SizeSpace,
    /// After a semicolon. Its grammar is not looked at: quoted or not, no extension holds CR or LF.
    Extension,
    SizeLf,
    /// The chunk's own bytes, [`Chunks::size`] of them.
    Data,
    DataCr,
    DataLf,
    /// The last chunk's size line is over: trailers follow.
    Done,
}

/// A body in chunks on its way.
#[derive(Debug)]
pub(super) struct Chunks {
    place: Place,
    /// The present chunk's size while it is read, then what is left of it.
    size: u64,
    extension_bytes: u16,
}

impl Chunks {
    pub(super) fn new() -> Chunks {
        Chunks { place: Place::Size(0), size: 0, extension_bytes: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// Follows `bytes` up to the trailers; gives how many of them belong to the chunks. A flaw comes with how many bytes before it are
    /// sound.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, (usize, Flaw)> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            at += self.step(&bytes[at..]).map_err(|flaw| (at, flaw))?;
        }
        Ok(at)
    }

    fn step(&mut self, rest: &[u8]) -> Result<usize, Flaw> {
        if self.place == Place::Data {
            let count = rest.len().min(usize::try_from(self.size).unwrap_or(usize::MAX));
            self.size -= count as u64;
            if self.size == 0 {
                self.place = Place::DataCr;
            }
            return Ok(count);
        }
        self.place = self.after(rest[0])?;
        Ok(1)
    }

    /// The place after a byte of a chunk's frame.
    fn after(&mut self, byte: u8) -> Result<Place, Flaw> {
        match (self.place, byte) {
            (Place::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(digits, byte),
            (Place::Size(1..) | Place::SizeSpace, b' ' | b'\t') => self.extend(Place::SizeSpace),
            (Place::Size(1..) | Place::SizeSpace, b';') => self.extend(Place::Extension),
            (Place::Size(1..) | Place::Extension, b'\r') => Ok(Place::SizeLf),
            (Place::Extension, b'\t' | b' '..=0x7e | 0x80..) => self.extend(Place::Extension),
            (Place::SizeLf, b'\n') if self.size == 0 => Ok(Place::Done),
            (Place::SizeLf, b'\n') => Ok(Place::Data),
            (Place::DataCr, b'\r') => Ok(Place::DataLf),
            (Place::DataLf, b'\n') => {
                self.size = 0;
                Ok(Place::Size(0))
            }
            (Place::SizeLf, _) => Err(flaw::BARE_CR),
            (Place::DataCr | Place::DataLf, _) => Err(flaw::CHUNK_END),
            (_, b'\n') => Err(flaw::BARE_LF),
            (Place::Extension, _) => Err(flaw::CHUNK_EXTENSION),
            _ => Err(flaw::CHUNK_SIZE),
        }
    }

    fn digit(&mut self, digits: u8, byte: u8) -> Result<Place, Flaw> {
        if digits == SIZE_DIGITS_MAX {
            return Err(flaw::CHUNK_SIZE);
        }
        let value = char::from(byte).to_digit(16).map_or(0, u64::from);
        self.size = self.size << 4 | value;
        Ok(Place::Size(digits + 1))
    }

    fn extend(&mut self, place: Place) -> Result<Place, Flaw> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX { Err(flaw::CHUNK_EXTENSIONS) } else { Ok(place) }
    }
}
