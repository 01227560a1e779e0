//! A request's head (RFC 9112 2 to 5), and the trailers after chunks, which have the form of its fields.
//!
//! Every byte is judged as it comes, so that nothing is passed on that the library would refuse in its own way.

use super::flaw::{self, Flaw};
use super::octets;
use super::values::{Codings, Length};
use super::{FIELDS_MAX, TARGET_BYTES_MAX};

/// The longest name that means anything here: `transfer-encoding`.
const NAME_BYTES_MAX: usize = 17;
const VERSION: &[u8; 7] = b"HTTP/1.";
const SCHEME: &[u8; 5] = b"https";

/// The next byte's place in a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the request line, where empty lines are skipped (RFC 9112 2.2).
    Start,
    StartLf,
    Method,
    Target(Target),
    /// This many bytes of the version came.
    Version(u8),
    LineEnd,
    LineLf,
    /// Before a field or the empty line.
    Field,
    Name,
    Value,
    ValueLf,
    EndLf,
    Done,
}

/// Where in a request target (RFC 9112 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    First,
    Asterisk,
    /// A scheme or a host; how many bytes of `https` it is so far.
    Word(Option<u8>),
    /// After `scheme:` or `host:`.
    Colon(Option<u8>),
    Slash,
    /// A host after `//`, at its first byte.
    HostFirst,
    Host,
    /// Between brackets, with this many colons.
    Address(u8),
    AddressEnd,
    /// Digits; whether a path may follow.
    Port(bool),
    Path,
    Query,
}

/// A field whose value matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Length,
    Codings,
    Other,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Nothing,
    Bytes(u64),
    Chunks,
}

/// A head on its way.
#[derive(Debug)]
pub(super) struct Head {
    place: Place,
    known: Known,
    /// A name that is split between two reads, as far as it came. A longer one means nothing.
    name: [u8; NAME_BYTES_MAX],
    name_bytes: usize,
    is_1_0: bool,
    is_trailers: bool,
    target_bytes: usize,
    fields: usize,
    hosts: u8,
    length: Length,
    codings: Codings,
}

impl Head {
    pub(super) fn new() -> Head {
        Head {
            place: Place::Start,
            known: Known::Other,
            name: [0; NAME_BYTES_MAX],
            name_bytes: 0,
            is_1_0: false,
            is_trailers: false,
            target_bytes: 0,
            fields: 0,
            hosts: 0,
            length: Length::Absent,
            codings: Codings::default(),
        }
    }

    /// Another head begins.
    pub(super) fn reset(&mut self) {
        self.place = Place::Start;
        self.name_bytes = 0;
        self.is_1_0 = false;
        self.is_trailers = false;
        self.target_bytes = 0;
        self.fields = 0;
        self.hosts = 0;
        self.length = Length::Absent;
        self.codings = Codings::default();
    }

    /// Trailers begin.
    pub(super) fn begin_trailers(&mut self) {
        self.reset();
        self.is_trailers = true;
        self.place = Place::Field;
    }

    pub(super) fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// Follows `bytes` up to the end of the head; gives how many of them belong to it.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, Flaw> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let rest = &bytes[at..];
            at += match self.place {
                Place::Start => match self.whole_request_line(rest) {
                    0 => self.start(byte)?,
                    count => count,
                },
                Place::Method => self.method(rest)?,
                Place::Target(target) => self.target(target, rest)?,
                Place::Version(count) => self.version(count, rest)?,
                Place::Field => match self.whole_fields(rest)? {
                    0 => self.field(byte)?,
                    count => count,
                },
                Place::Name => self.name(rest)?,
                Place::Value => self.value(rest)?,
                Place::LineEnd if byte == b'\r' => self.go(Place::LineLf),
                Place::LineEnd => return Err(misplaced(byte, flaw::PROTOCOL)),
                Place::StartLf if byte == b'\n' => self.go(Place::Start),
                Place::LineLf | Place::ValueLf if byte == b'\n' => self.go(Place::Field),
                Place::EndLf if byte == b'\n' => {
                    self.place = Place::Done;
                    return Ok(at + 1);
                }
                Place::StartLf | Place::LineLf | Place::ValueLf | Place::EndLf => return Err(flaw::BARE_CR),
                Place::Done => return Ok(at),
            };
        }
        Ok(at)
    }

    /// What follows the head (RFC 9112 6.3). The one place that decides about the framing of a body.
    pub(super) fn content(&self) -> Result<Content, Flaw> {
        if self.hosts > 1 {
            return Err(flaw::HOST_TWICE);
        }
        if self.hosts == 0 && !self.is_1_0 {
            return Err(flaw::HOST_MISSING);
        }
        if self.codings.is_absent() {
            return Ok(match self.length.bytes() {
                None | Some(0) => Content::Nothing,
                Some(bytes) => Content::Bytes(bytes),
            });
        }
        if self.length != Length::Absent {
            return Err(flaw::LENGTH_AND_CODING);
        }
        if self.is_1_0 {
            return Err(flaw::CODING_VERSION);
        }
        self.codings.check().map(|()| Content::Chunks)
    }

    /// One byte is taken, and the next stands at `place`.
    fn go(&mut self, place: Place) -> usize {
        self.place = place;
        1
    }

    /// The way that most requests take: a sound request line in origin form that is there as a whole. Of anything else it takes nothing,
    /// and the bytes are judged one by one.
    fn whole_request_line(&mut self, bytes: &[u8]) -> usize {
        let method = octets::token(bytes);
        let Some(rest) = bytes.get(method..).and_then(|rest| rest.strip_prefix(b" /")).filter(|_| method > 0) else { return 0 };
        let mut target = octets::path(rest);
        if rest.get(target) == Some(&b'?') {
            target += 1 + octets::query(&rest[target + 1..]);
        }
        if target >= TARGET_BYTES_MAX || !rest[target..].starts_with(b" HTTP/1.1\r\n") {
            return 0;
        }
        self.place = Place::Field;
        method + b" /".len() + target + b" HTTP/1.1\r\n".len()
    }

    /// The same of fields: those that are sound and there as a whole, and the empty line after them.
    fn whole_fields(&mut self, bytes: &[u8]) -> Result<usize, Flaw> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            if rest.starts_with(b"\r\n") {
                self.place = Place::Done;
                return Ok(at + 2);
            }
            let name = octets::token(rest);
            if name == 0 || rest.get(name) != Some(&b':') || self.fields == FIELDS_MAX {
                return Ok(at);
            }
            let after = &rest[name + 1..];
            let value = octets::value(after);
            if !after[value..].starts_with(b"\r\n") {
                return Ok(at);
            }
            self.fields += 1;
            self.named(&rest[..name])?;
            self.read_value(&after[..value])?;
            self.end_value()?;
            at += name + 1 + value + 2;
        }
    }

    fn start(&mut self, byte: u8) -> Result<usize, Flaw> {
        match byte {
            b'\r' => Ok(self.go(Place::StartLf)),
            _ if octets::token(&[byte]) == 1 => Ok(self.go(Place::Method)),
            _ => Err(misplaced(byte, flaw::METHOD)),
        }
    }

    fn method(&mut self, rest: &[u8]) -> Result<usize, Flaw> {
        let count = octets::token(rest);
        match rest.get(count) {
            None => Ok(count),
            Some(b' ') => Ok(count + self.go(Place::Target(Target::First))),
            Some(&byte) => Err(misplaced(byte, flaw::METHOD)),
        }
    }

    /// A part of a target of one kind of bytes, and the byte after it.
    fn target(&mut self, target: Target, rest: &[u8]) -> Result<usize, Flaw> {
        let count = match target {
            Target::Path => octets::path(rest),
            Target::Query => octets::query(rest),
            Target::Host => octets::registered_name(rest),
            _ => 0,
        };
        self.target_bytes += count;
        let Some(&byte) = rest.get(count) else { return self.check_target().map(|()| count) };
        if byte == b' ' {
            self.check_target()?;
            return match target {
                Target::First => Err(flaw::TARGET_END),
                Target::Colon(_) | Target::Slash | Target::HostFirst | Target::Address(_) => Err(flaw::TARGET_FORM),
                _ => Ok(count + self.go(Place::Version(0))),
            };
        }
        self.target_bytes += 1;
        self.check_target()?;
        let next = target.after(byte)?;
        Ok(count + self.go(Place::Target(next)))
    }

    fn check_target(&self) -> Result<(), Flaw> {
        if self.target_bytes > TARGET_BYTES_MAX { Err(flaw::TARGET_LONG) } else { Ok(()) }
    }

    fn version(&mut self, count: u8, rest: &[u8]) -> Result<usize, Flaw> {
        if count == 0 && rest.len() > VERSION.len() && rest.starts_with(VERSION) {
            self.place = Place::Version(VERSION.len() as u8);
            return Ok(VERSION.len());
        }
        match (VERSION.get(usize::from(count)), rest[0]) {
            (Some(expected), byte) if byte == *expected => Ok(self.go(Place::Version(count + 1))),
            (None, b'1') => Ok(self.go(Place::LineEnd)),
            (None, b'0') => {
                self.is_1_0 = true;
                Ok(self.go(Place::LineEnd))
            }
            (Some(b'1') | None, b'0'..=b'9') => Err(flaw::VERSION),
            (Some(b'H'), b' ') => Err(flaw::TARGET_END),
            (_, byte) => Err(misplaced(byte, flaw::PROTOCOL)),
        }
    }

    fn field(&mut self, byte: u8) -> Result<usize, Flaw> {
        match byte {
            b'\r' => return Ok(self.go(Place::EndLf)),
            b' ' | b'\t' => return Err(flaw::FIELD_SPACE),
            _ if self.fields == FIELDS_MAX && self.is_trailers => return Err(flaw::TRAILERS_FIELDS),
            _ if self.fields == FIELDS_MAX => return Err(flaw::HEAD_FIELDS),
            _ => {}
        }
        self.fields += 1;
        self.name_bytes = 0;
        self.place = Place::Name;
        Ok(0)
    }

    fn name(&mut self, rest: &[u8]) -> Result<usize, Flaw> {
        let count = octets::token(rest);
        match rest.get(count) {
            None => self.keep_name(&rest[..count]),
            Some(b':') if self.name_bytes + count > 0 => {
                if self.name_bytes == 0 {
                    self.named(&rest[..count])?;
                } else {
                    self.keep_name(&rest[..count]);
                    let (name, length) = (self.name, self.name_bytes);
                    self.named(name.get(..length).unwrap_or_default())?;
                }
                return Ok(count + self.go(Place::Value));
            }
            Some(&byte) => return Err(misplaced(byte, flaw::FIELD_NAME)),
        }
        Ok(count)
    }

    /// Keeps a part of a name. Of one that is too long only the length is kept.
    fn keep_name(&mut self, part: &[u8]) {
        let end = self.name_bytes + part.len();
        if let Some(place) = self.name.get_mut(self.name_bytes..end) {
            place.copy_from_slice(part);
        }
        self.name_bytes = end;
    }

    fn named(&mut self, name: &[u8]) -> Result<(), Flaw> {
        self.known = Known::Other;
        if self.is_trailers {
            return Ok(());
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts = self.hosts.saturating_add(1),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.length.name()?;
                self.known = Known::Length;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.codings.name();
                self.known = Known::Codings;
            }
            _ => {}
        }
        Ok(())
    }

    fn value(&mut self, rest: &[u8]) -> Result<usize, Flaw> {
        let count = octets::value(rest);
        self.read_value(&rest[..count])?;
        match rest.get(count) {
            None => Ok(count),
            Some(b'\r') => {
                self.end_value()?;
                Ok(count + self.go(Place::ValueLf))
            }
            Some(&byte) => Err(misplaced(byte, flaw::FIELD_VALUE)),
        }
    }

    fn read_value(&mut self, part: &[u8]) -> Result<(), Flaw> {
        match self.known {
            Known::Other => {}
            Known::Length => self.length.read(part)?,
            Known::Codings => self.codings.read(part),
        }
        Ok(())
    }

    fn end_value(&mut self) -> Result<(), Flaw> {
        match self.known {
            Known::Other => {}
            Known::Length => self.length.end()?,
            Known::Codings => self.codings.end(),
        }
        Ok(())
    }
}

impl Target {
    /// What comes after `byte`, which is no space and not one of those that the present part is made of.
    fn after(self, byte: u8) -> Result<Target, Flaw> {
        let is_word = octets::registered_name(&[byte]) == 1;
        let matches = |count: u8| SCHEME.get(usize::from(count)).is_some_and(|letter| byte.eq_ignore_ascii_case(letter));
        match (self, byte) {
            (Target::First, b'/') => Ok(Target::Path),
            (Target::First, b'*') => Ok(Target::Asterisk),
            (Target::First, _) if is_word => Ok(Target::Word(matches(0).then_some(1))),
            (Target::Word(matched), _) if is_word => {
                Ok(Target::Word(matched.filter(|count| matches(*count)).map(|count| count + 1)))
            }
            (Target::Word(matched), b':') => Ok(Target::Colon(matched)),
            (Target::Colon(Some(4 | 5)), b'/') => Ok(Target::Slash),
            (Target::Slash, b'/') => Ok(Target::HostFirst),
            (Target::HostFirst, b'[') => Ok(Target::Address(0)),
            (Target::HostFirst, _) if is_word => Ok(Target::Host),
            (Target::Address(colons), b':') if colons < 7 => Ok(Target::Address(colons + 1)),
            (Target::Address(colons), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' | b'.') => Ok(Target::Address(colons)),
            (Target::Address(_), b']') => Ok(Target::AddressEnd),
            (Target::Host | Target::AddressEnd, b':') => Ok(Target::Port(true)),
            (Target::Colon(_), b'0'..=b'9') => Ok(Target::Port(false)),
            (Target::Port(is_absolute), b'0'..=b'9') => Ok(Target::Port(is_absolute)),
            (Target::Host | Target::AddressEnd | Target::Port(true), b'/') => Ok(Target::Path),
            (Target::Host | Target::AddressEnd | Target::Port(true) | Target::Path, b'?') => Ok(Target::Query),
            (_, b'\r') => Err(flaw::TARGET_END),
            (Target::Path | Target::Query, _) => Err(misplaced(byte, flaw::TARGET)),
            _ => Err(misplaced(byte, flaw::TARGET_FORM)),
        }
    }
}

/// The flaw of a byte that cannot stand where it does: a line's end is told of by its own name.
fn misplaced(byte: u8, otherwise: Flaw) -> Flaw {
    if byte == b'\n' { flaw::BARE_LF } else { otherwise }
}
