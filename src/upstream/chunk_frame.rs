//! The frame of a body in chunks (RFC 9112 7.1), read byte by byte: its sizes, extensions and line ends, up to the trailers.
//!
//! Requests and answers are framed alike, and who differs from others about where a body ends can be used to smuggle. So there is one
//! reader, for what comes from clients and from backends.

/// Bytes of all extensions of one body at most. Nothing here understands any, and they are not passed on.
const EXTENSION_BYTES_MAX: u16 = 4096;
/// Digits of a size at most: as many as 64 bits have.
const SIZE_DIGITS_MAX: u8 = 16;

/// The next byte's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Digits of a size; this many came.
    Size(u8),
    /// White space behind a size.
    SizeSpace,
    /// After a semicolon. Its grammar is not looked at: quoted or not, no extension holds CR or LF.
    Extension,
    SizeLf,
    /// The chunk's own bytes, [`ChunkFrame::size`] of them.
    Data,
    DataCr,
    DataLf,
    /// The last chunk's size line is over: trailers follow.
    Over,
}

/// How sizes may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// As the grammar has it.
    Exact,
    /// With white space behind them too, which some servers fill a fixed width with.
    Padded,
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkFlaw {
    /// A size is not a hexadecimal number of at most 16 digits.
    Size,
    /// A line ends in LF without CR.
    BareLf,
    /// A CR stands without LF.
    BareCr,
    /// An extension holds a control character.
    Extension,
    /// The extensions are over 4 KiB.
    Extensions,
    /// A chunk is not followed by CR and LF.
    End,
}

/// How far a frame is.
#[derive(Debug)]
pub struct ChunkFrame {
    place: Place,
    /// The present chunk's size while it is read, then what is left of it.
    size: u64,
    extension_bytes: u16,
    sizes: Sizes,
}

impl ChunkFrame {
    /// At the beginning of a body.
    pub fn new(sizes: Sizes) -> ChunkFrame {
        ChunkFrame { place: Place::Size(0), size: 0, extension_bytes: 0, sizes }
    }

    /// Whether trailers follow.
    pub fn is_over(&self) -> bool {
        self.place == Place::Over
    }

    /// Whether the next byte is a chunk's own.
    pub fn is_at_data(&self) -> bool {
        self.place == Place::Data
    }

    /// How many of `available` bytes are the present chunk's own; they are past.
    pub fn pass_data(&mut self, available: usize) -> usize {
        if self.place != Place::Data {
            return 0;
        }
        let count = available.min(usize::try_from(self.size).unwrap_or(usize::MAX));
        self.size -= count as u64;
        if self.size == 0 {
            self.place = Place::DataCr;
        }
        count
    }

    /// Goes past one byte that is no chunk's own.
    ///
    /// # Errors
    ///
    /// The byte cannot stand there.
    pub fn pass(&mut self, byte: u8) -> Result<(), ChunkFlaw> {
        self.place = self.after(byte)?;
        Ok(())
    }

    fn after(&mut self, byte: u8) -> Result<Place, ChunkFlaw> {
        match (self.place, byte) {
            (Place::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(digits, byte),
            (Place::Size(1..) | Place::SizeSpace, b' ' | b'\t') => self.extend(Place::SizeSpace),
            (Place::Size(1..) | Place::SizeSpace, b';') => self.extend(Place::Extension),
            (Place::Size(1..) | Place::Extension, b'\r') => Ok(Place::SizeLf),
            (Place::SizeSpace, b'\r') if self.sizes == Sizes::Padded => Ok(Place::SizeLf),
            (Place::Extension, b'\t' | b' '..=0x7e | 0x80..) => self.extend(Place::Extension),
            (Place::SizeLf, b'\n') if self.size == 0 => Ok(Place::Over),
            (Place::SizeLf, b'\n') => Ok(Place::Data),
            (Place::DataCr, b'\r') => Ok(Place::DataLf),
            (Place::DataLf, b'\n') => Ok(Place::Size(0)),
            (Place::SizeLf, _) => Err(ChunkFlaw::BareCr),
            (Place::DataCr | Place::DataLf, _) => Err(ChunkFlaw::End),
            (_, b'\n') => Err(ChunkFlaw::BareLf),
            (Place::Extension, _) => Err(ChunkFlaw::Extension),
            _ => Err(ChunkFlaw::Size),
        }
    }

    fn digit(&mut self, digits: u8, byte: u8) -> Result<Place, ChunkFlaw> {
        if digits == SIZE_DIGITS_MAX {
            return Err(ChunkFlaw::Size);
        }
        let value = char::from(byte).to_digit(16).map_or(0, u64::from);
        self.size = self.size << 4 | value;
        Ok(Place::Size(digits + 1))
    }

    fn extend(&mut self, place: Place) -> Result<Place, ChunkFlaw> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX { Err(ChunkFlaw::Extensions) } else { Ok(place) }
    }
}
