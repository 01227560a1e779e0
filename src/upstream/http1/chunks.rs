//! A body in chunks (RFC 9112 7.1) with its trailers, cut out of the bytes that come.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::super::chunk_frame::{ChunkFlaw, ChunkFrame, Sizes};
use super::error::Http1Error;
use super::head::FIELDS_MAX;

/// Bytes of all trailers.
const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// Where a body stands.
#[derive(Debug)]
enum Place {
    Chunks(ChunkFrame),
    /// After the last chunk: trailers, up to an empty line.
    Trailers,
    Done,
}

/// A body on its way.
#[derive(Debug)]
pub(super) struct Chunks {
    place: Place,
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
        Chunks { place: Place::Chunks(ChunkFrame::new(Sizes::Padded)), trailers: Vec::new(), flaw: None }
    }

    /// Whether the end came, and nothing of it is left to be told.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.place, Place::Done) && self.trailers.is_empty()
    }

    /// Takes the next part out of `input`.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Part, Http1Error> {
        self.skip_frame(input);
        if let Some(flaw) = self.flaw {
            return Err(Http1Error::Flaw(flaw));
        }
        match &mut self.place {
            Place::Chunks(frame) if !input.is_empty() => {
                let data = input.split_to(frame.pass_data(input.len()));
                // So that who gets the last of it knows that it is the last.
                self.skip_frame(input);
                Ok(Part::Data(data))
            }
            Place::Done => Ok(Part::End(self.take_trailers()?)),
            Place::Chunks(_) | Place::Trailers => Ok(Part::Starved),
        }
    }

    /// Goes past all bytes up to the next chunk's own.
    fn skip_frame(&mut self, input: &mut Bytes) {
        let mut at = 0;
        while let Some(&byte) = input.get(at).filter(|_| self.flaw.is_none()) {
            let passed = match &mut self.place {
                Place::Chunks(frame) if frame.is_at_data() => break,
                Place::Chunks(frame) => frame.pass(byte).map_err(told).map(|()| frame.is_over().then_some(Place::Trailers)),
                Place::Trailers => self.trailer(byte).map(Some),
                Place::Done => break,
            };
            match passed {
                Ok(Some(place)) => self.place = place,
                Ok(None) => {}
                Err(flaw) => self.flaw = Some(flaw),
            }
            at += 1;
        }
        let _ = input.split_to(at);
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

fn told(found: ChunkFlaw) -> &'static str {
    match found {
        ChunkFlaw::Size => "a chunk's size is not a hexadecimal number of at most 16 digits",
        ChunkFlaw::BareLf | ChunkFlaw::BareCr => "a chunk's size ends with half a line end",
        ChunkFlaw::Extension => "a chunk's extension holds a control character",
        ChunkFlaw::Extensions => "the extensions of the chunks are over 4 KiB",
        ChunkFlaw::End => "a chunk of the answer is longer than its size",
    }
}
