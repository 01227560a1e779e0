//! A body in chunks (RFC 9112 7.1) with its trailers, cut out of the bytes that come.

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::error::Http1Error;
use super::head::FIELDS_MAX;

/// Bytes of all extensions of one body at most. Nothing here understands any, and they are not passed on.
const EXTENSION_BYTES_MAX: u16 = 16 * 1024;
/// Bytes of all trailers.
const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// Digits of a size at most: as many as 64 bits have.
const SIZE_DIGITS_MAX: u8 = 16;

/// The next byte's place.
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
    /// After the last chunk: trailers, up to an empty line.
    Trailers,
    Done,
}

/// A body on its way.
#[derive(Debug)]
pub(super) struct Chunks {
    place: Place,
    /// The present chunk's size while it is read, then what is left of it.
    size: u64,
    extension_bytes: u16,
    /// The trailers as they stand, so far as they came.
    trailers: Vec<u8>,
    /// What was found while looking ahead.
    flaw: Option<&'static str>,
}

/// What comes next of a body in chunks.
#[derive(Debug)]
pub(super) enum Part {
    /// Bytes of a chunk.
    Data(Bytes),
    /// Its end, with the trailers if there are any.
    End(Option<HeaderMap>),
    /// Nothing, until more bytes come.
    Starved,
}

impl Chunks {
    pub(super) fn new() -> Chunks {
        Chunks { place: Place::Size(0), size: 0, extension_bytes: 0, trailers: Vec::new(), flaw: None }
    }

    /// Whether the end came, and nothing of it is left to be told.
    pub(super) fn is_done(&self) -> bool {
        self.place == Place::Done && self.trailers.is_empty()
    }

    /// Takes the next part out of `input`.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Part, Http1Error> {
        self.skip_frame(input);
        if let Some(flaw) = self.flaw {
            return Err(Http1Error::Flaw(flaw));
        }
        match self.place {
            Place::Data if !input.is_empty() => {
                let count = input.len().min(usize::try_from(self.size).unwrap_or(usize::MAX));
                self.size -= count as u64;
                if self.size == 0 {
                    self.place = Place::DataCr;
                }
                let data = input.split_to(count);
                // So that who gets the last of it knows that it is the last.
                self.skip_frame(input);
                Ok(Part::Data(data))
            }
            Place::Done => Ok(Part::End(self.take_trailers()?)),
            _ => Ok(Part::Starved),
        }
    }

    /// Goes past all bytes up to the next chunk's own.
    fn skip_frame(&mut self, input: &mut Bytes) {
        let mut at = 0;
        while self.flaw.is_none()
            && !matches!(self.place, Place::Data | Place::Done)
            && let Some(&byte) = input.get(at)
        {
            match self.after(byte) {
                Ok(place) => self.place = place,
                Err(flaw) => self.flaw = Some(flaw),
            }
            at += 1;
        }
        input.advance(at);
    }

    /// The place after a byte that is no chunk's own.
    fn after(&mut self, byte: u8) -> Result<Place, &'static str> {
        match (self.place, byte) {
            (Place::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(digits, byte),
            (Place::Size(1..) | Place::SizeSpace, b' ' | b'\t') => self.extend(Place::SizeSpace),
            (Place::Size(1..) | Place::SizeSpace, b';') => self.extend(Place::Extension),
            (Place::Size(1..) | Place::SizeSpace | Place::Extension, b'\r') => Ok(Place::SizeLf),
            (Place::Extension, byte) if byte != b'\n' => self.extend(Place::Extension),
            (Place::SizeLf, b'\n') if self.size == 0 => Ok(Place::Trailers),
            (Place::SizeLf, b'\n') => Ok(Place::Data),
            (Place::DataCr, b'\r') => Ok(Place::DataLf),
            (Place::DataLf, b'\n') => Ok(Place::Size(0)),
            (Place::Trailers, byte) => self.trailer(byte),
            (Place::DataCr | Place::DataLf, _) => Err("a chunk of the answer is longer than its size"),
            (Place::SizeLf | Place::Extension, _) => Err("a chunk's size ends with half a line end"),
            _ => Err("a chunk's size is not a number"),
        }
    }

    fn digit(&mut self, digits: u8, byte: u8) -> Result<Place, &'static str> {
        if digits == SIZE_DIGITS_MAX {
            return Err("a chunk's size is over 64 bits");
        }
        let value = char::from(byte).to_digit(16).map_or(0, u64::from);
        self.size = self.size << 4 | value;
        Ok(Place::Size(digits + 1))
    }

    fn extend(&mut self, place: Place) -> Result<Place, &'static str> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX { Err("the extensions of the chunks are over 16 KiB") } else { Ok(place) }
    }

    fn trailer(&mut self, byte: u8) -> Result<Place, &'static str> {
        if self.trailers.len() == TRAILER_BYTES_MAX {
            return Err("the answer's trailers are over 16 KiB");
        }
        if (byte == b'\n') != (self.trailers.last() == Some(&b'\r')) {
            return Err("a trailer ends with half a line end");
        }
        self.trailers.push(byte);
        if self.trailers == b"\r\n" {
            self.trailers = Vec::new();
            return Ok(Place::Done);
        }
        Ok(if self.trailers.ends_with(b"\r\n\r\n") { Place::Done } else { Place::Trailers })
    }

    fn take_trailers(&mut self) -> Result<Option<HeaderMap>, Http1Error> {
        if self.trailers.is_empty() {
            return Ok(None);
        }
        let text = std::mem::take(&mut self.trailers);
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let httparse::Status::Complete((_, fields)) = httparse::parse_headers(&text, &mut fields)? else {
            return Err(Http1Error::Flaw("the answer's trailers do not end"));
        };
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| httparse::Error::HeaderName)?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| httparse::Error::HeaderValue)?;
            trailers.append(name, value);
        }
        Ok(Some(trailers))
    }
}
