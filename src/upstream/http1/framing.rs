//! What follows the head of an answer (RFC 9112 6.3), and how it is cut out of the bytes that come.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use http_body::SizeHint;

use super::chunks::{Chunks, Part};
use super::error::Http1Error;

/// Lengths above are refused. More than any body, and within what everybody can count.
const LENGTH_MAX: u64 = i64::MAX as u64;

/// What the fields of an answer say of its framing, gathered in one pass.
#[derive(Debug, Default)]
pub(super) struct Said {
    length: Option<u64>,
    /// Whether the same length was said more than once.
    is_length_repeated: bool,
    codings: u8,
    is_chunked: bool,
    closes: bool,
    keeps: bool,
}

impl Said {
    /// Takes in one field.
    pub(super) fn read(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Http1Error> {
        match *name {
            CONNECTION => {
                self.closes |= lists(value, b"close");
                self.keeps |= lists(value, b"keep-alive");
            }
            CONTENT_LENGTH => self.read_length(value)?,
            TRANSFER_ENCODING => {
                self.codings = self.codings.saturating_add(1);
                self.is_chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
            }
            _ => {}
        }
        Ok(())
    }

    /// A length may be said more than once, if it is the same (RFC 9110 8.6).
    fn read_length(&mut self, value: &HeaderValue) -> Result<(), Http1Error> {
        for digits in value.as_bytes().split(|byte| *byte == b',') {
            let length = number(digits.trim_ascii()).ok_or(Http1Error::Flaw("the answer's Content-Length is not a number"))?;
            match self.length.replace(length) {
                None => {}
                Some(before) if before == length => self.is_length_repeated = true,
                Some(_) => return Err(Http1Error::Flaw("the answer has several lengths")),
            }
        }
        Ok(())
    }

    /// What follows, and whether the connection may serve another request after it. Leaves one length in `headers`, or none.
    pub(super) fn content(
        &self,
        status: StatusCode,
        version: Version,
        is_to_head: bool,
        headers: &mut HeaderMap,
    ) -> Result<(Content, bool), Http1Error> {
        let is_kept = !self.closes && (version == Version::HTTP_11 || self.keeps);
        let has_coding = self.codings > 0;
        if has_coding {
            headers.remove(CONTENT_LENGTH);
        } else if self.is_length_repeated
            && let Some(length) = self.length
        {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok((Content::Done, false));
        }
        if is_to_head || status == StatusCode::NOT_MODIFIED {
            return Ok((Content::Done, is_kept));
        }
        if status == StatusCode::NO_CONTENT {
            // It has none whatever it says; but who says so may send one (RFC 9110 8.6, RFC 9112 6.1).
            return Ok((Content::Done, is_kept && !has_coding && self.length.is_none_or(|length| length == 0)));
        }
        match self.length {
            length if has_coding => {
                if version != Version::HTTP_11 || self.codings > 1 || !self.is_chunked {
                    return Err(Http1Error::Flaw("the answer's Transfer-Encoding is not one chunked"));
                }
                // Somebody may have been meant to read it by its length.
                Ok((Content::Chunks(Box::new(Chunks::new())), is_kept && length.is_none()))
            }
            Some(0) => Ok((Content::Done, is_kept)),
            Some(length) => Ok((Content::Length(length), is_kept)),
            None => Ok((Content::UntilClose, false)),
        }
    }
}

fn lists(value: &HeaderValue, token: &[u8]) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|listed| listed.trim_ascii().eq_ignore_ascii_case(token))
}

/// The number that these digits are.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let append = |number: u64, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit).filter(|number| *number <= LENGTH_MAX)
    };
    digits.iter().try_fold(0, append)
}

/// What is still to come of an answer's body.
#[derive(Debug)]
pub(super) enum Content {
    /// Nothing.
    Done,
    /// So many bytes.
    Length(u64),
    /// Chunks. Boxed: most answers have a length.
    Chunks(Box<Chunks>),
    /// All that comes until the other side closes.
    UntilClose,
}

/// What comes next of a body.
#[derive(Debug)]
pub(super) enum Piece {
    /// Bytes of it.
    Data(Bytes),
    /// What stands behind it.
    Trailers(HeaderMap),
    /// Its end.
    End,
    /// Nothing, until more bytes come.
    Starved,
}

impl Content {
    /// Takes the next piece out of `input`. What is left there after the end belongs to nobody.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Piece, Http1Error> {
        match self {
            Content::Done => Ok(Piece::End),
            Content::Length(_) | Content::UntilClose if input.is_empty() => Ok(Piece::Starved),
            Content::Length(left) => {
                let count = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= count as u64;
                if *left == 0 {
                    *self = Content::Done;
                }
                Ok(Piece::Data(input.split_to(count)))
            }
            Content::Chunks(chunks) => {
                let piece = match chunks.next(input)? {
                    Part::Data(data) => Piece::Data(data),
                    Part::End(Some(trailers)) => Piece::Trailers(trailers),
                    Part::End(None) => Piece::End,
                    Part::Starved => Piece::Starved,
                };
                if chunks.is_done() {
                    *self = Content::Done;
                }
                Ok(piece)
            }
            Content::UntilClose => Ok(Piece::Data(input.split_to(input.len()))),
        }
    }

    /// The other side closed.
    pub(super) fn end(&mut self) -> Result<(), Http1Error> {
        match self {
            Content::Done => Ok(()),
            Content::UntilClose => {
                *self = Content::Done;
                Ok(())
            }
            Content::Length(_) | Content::Chunks(_) => Err(Http1Error::Truncated),
        }
    }

    /// Whether nothing more comes.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Content::Done)
    }

    /// How many bytes are still to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Content::Done => SizeHint::with_exact(0),
            Content::Length(left) => SizeHint::with_exact(*left),
            Content::Chunks(_) | Content::UntilClose => SizeHint::new(),
        }
    }
}
