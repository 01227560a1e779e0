//! The values that decide about a body's framing, read as they come, however they are split.

use super::flaw::{self, Flaw};

/// Lengths above are refused. More than any body, and within what everybody can count.
const LENGTH_MAX: u64 = i64::MAX as u64;
const CHUNKED: &[u8; 7] = b"chunked";

fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// `Content-Length` (RFC 9110 8.6): digits, with optional white space around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Absent,
    /// The field's name was read.
    Named,
    Digits(u64),
    /// White space after digits.
    Ended(u64),
}

impl Length {
    pub(super) fn name(&mut self) -> Result<(), Flaw> {
        match self {
            Length::Absent => *self = Length::Named,
            _ => return Err(flaw::LENGTH_TWICE),
        }
        Ok(())
    }

    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), Flaw> {
        for &byte in bytes {
            *self = match (*self, byte) {
                (Length::Named, b' ' | b'\t') => Length::Named,
                (Length::Named, b'0'..=b'9') => Length::Digits(u64::from(byte - b'0')),
                (Length::Digits(number), b'0'..=b'9') => Length::Digits(Length::append(number, byte)?),
                (Length::Digits(number) | Length::Ended(number), b' ' | b'\t') => Length::Ended(number),
                _ => return Err(flaw::LENGTH),
            };
        }
        Ok(())
    }

    fn append(number: u64, digit: u8) -> Result<u64, Flaw> {
        let longer = number.checked_mul(10).and_then(|number| number.checked_add(u64::from(digit - b'0')));
        longer.filter(|number| *number <= LENGTH_MAX).ok_or(flaw::LENGTH)
    }

    /// The line is over.
    pub(super) fn end(&self) -> Result<(), Flaw> {
        if *self == Length::Named { Err(flaw::LENGTH) } else { Ok(()) }
    }

    /// `None` where there is no such field.
    pub(super) fn bytes(&self) -> Option<u64> {
        match *self {
            Length::Absent | Length::Named => None,
            Length::Digits(number) | Length::Ended(number) => Some(number),
        }
    }
}

/// `Transfer-Encoding` (RFC 9112 6.1): what its elements are, not which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Codings {
    lines: u8,
    /// Elements, and those that are `chunked`.
    elements: u8,
    chunked: u8,
    has_empty: bool,
    ends_chunked: bool,
    element: Element,
}

/// Where in an element of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Element {
    #[default]
    Before,
    /// This many bytes of `chunked`.
    Matches(u8),
    /// White space after this many.
    After(u8),
    /// Something else.
    Differs,
}

impl Codings {
    pub(super) fn name(&mut self) {
        self.lines = self.lines.saturating_add(1);
    }

    pub(super) fn read(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let matches = |count: u8| CHUNKED.get(usize::from(count)).is_some_and(|expected| byte.eq_ignore_ascii_case(expected));
            self.element = match self.element {
                _ if byte == b',' => {
                    self.end();
                    continue;
                }
                Element::Before if is_space(byte) => Element::Before,
                Element::Matches(count) | Element::After(count) if is_space(byte) => Element::After(count),
                Element::Before if matches(0) => Element::Matches(1),
                Element::Matches(count) if matches(count) => Element::Matches(count + 1),
                _ => Element::Differs,
            };
        }
    }

    /// An element is over.
    pub(super) fn end(&mut self) {
        let is_chunked = matches!(self.element, Element::Matches(7) | Element::After(7));
        self.has_empty |= self.element == Element::Before;
        self.elements = self.elements.saturating_add(1);
        self.chunked = self.chunked.saturating_add(u8::from(is_chunked));
        self.ends_chunked = is_chunked;
        self.element = Element::Before;
    }

    pub(super) fn is_absent(&self) -> bool {
        self.lines == 0
    }

    /// Whether it is one `chunked` and nothing else.
    pub(super) fn check(&self) -> Result<(), Flaw> {
        if self.lines > 1 || self.chunked > 1 {
            return Err(flaw::CODING_TWICE);
        }
        // Without chunks at its end a body has no length (RFC 9112 6.3, 4).
        if !self.ends_chunked || self.has_empty {
            return Err(flaw::CODING);
        }
        if self.elements > 1 { Err(flaw::CODING_OTHER) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codings(lines: &[&str], step: usize) -> Result<(), Flaw> {
        let mut codings = Codings::default();
        for line in lines {
            codings.name();
            line.as_bytes().chunks(step).for_each(|bytes| codings.read(bytes));
            codings.end();
        }
        codings.check()
    }

    #[test]
    fn one_chunked_and_nothing_else() {
        let table: &[(&[&str], Result<(), Flaw>)] = &[
            (&["chunked"], Ok(())),
            (&[" ChunkeD \t"], Ok(())),
            (&[""], Err(flaw::CODING)),
            (&["chunke"], Err(flaw::CODING)),
            (&["chunkedd"], Err(flaw::CODING)),
            (&["chun ked"], Err(flaw::CODING)),
            (&["chunked;a=b"], Err(flaw::CODING)),
            (&["\"chunked\""], Err(flaw::CODING)),
            (&["chunked,"], Err(flaw::CODING)),
            (&[",chunked"], Err(flaw::CODING)),
            (&["identity"], Err(flaw::CODING)),
            (&["chunked, gzip"], Err(flaw::CODING)),
            (&["gzip, chunked"], Err(flaw::CODING_OTHER)),
            (&["chunked, chunked"], Err(flaw::CODING_TWICE)),
            (&["chunked", "chunked"], Err(flaw::CODING_TWICE)),
            (&["gzip", "chunked"], Err(flaw::CODING_TWICE)),
        ];
        for (lines, expected) in table {
            for step in [1, 2, 100] {
                assert_eq!(codings(lines, step), *expected, "{lines:?}");
            }
        }
    }

    #[test]
    fn a_length_is_digits() {
        let length = |text: &str, step| {
            let mut length = Length::Absent;
            length.name()?;
            text.as_bytes().chunks(step).try_for_each(|bytes| length.read(bytes))?;
            length.end()?;
            Ok(length.bytes())
        };
        let table = [
            ("0", Ok(Some(0))),
            (" 12\t ", Ok(Some(12))),
            ("0000000000000000000000000012", Ok(Some(12))),
            ("9223372036854775807", Ok(Some(LENGTH_MAX))),
            ("9223372036854775808", Err(flaw::LENGTH)),
            ("18446744073709551616", Err(flaw::LENGTH)),
            ("", Err(flaw::LENGTH)),
            (" ", Err(flaw::LENGTH)),
            ("+1", Err(flaw::LENGTH)),
            ("-1", Err(flaw::LENGTH)),
            ("0x1", Err(flaw::LENGTH)),
            ("1 1", Err(flaw::LENGTH)),
            ("1, 1", Err(flaw::LENGTH)),
            ("1_0", Err(flaw::LENGTH)),
        ];
        for (text, expected) in table {
            for step in [1, 100] {
                assert_eq!(length(text, step), expected, "{text:?}");
            }
        }
    }
}
