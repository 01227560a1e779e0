//! YAML from a reader, cut into documents.
//!
//! The cuts are the markers of YAML 1.2, 9.1.2: a line that begins with `---` or `...`, followed by white space or nothing. No such line
//! can stand inside a document, not even in a quoted string or a block scalar, so that nothing else has to be understood to find them.
//!
//! Before the parser looks at a document, [`too_deep_at`] does: what nests too deep would take it hours.

use std::io::{self, BufRead as _, BufReader, Read};

use serde_norway::Deserializer;

use super::flow::{DEPTH_MAX, too_deep_at};
use super::json::without_mark;
use super::resources::{Budget, Reading};
use super::{Limits, ReadError, Sink};

/// Reads every document of a text; gives their number, without those that are empty.
pub(crate) fn read_yaml<R: Read, S: Sink>(reader: R, sink: &mut S, limits: &Limits) -> Result<usize, ReadError<S::Error>> {
    let budget = Budget::new(*limits, limits.values_max);
    let mut reading = Reading::new(sink, &budget);
    let reader = without_mark(reader).map_err(ReadError::Io)?;
    let mut cutter = Cutter { reader, text: Vec::new(), has_begun: false, bytes_max: limits.document_bytes_max };
    let mut lines_before = 0;
    loop {
        let text = match cutter.next() {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(reading.document),
            Err(CutError::Io(error)) => return Err(ReadError::Io(error)),
            Err(CutError::TooLarge(message)) => return Err(ReadError::TooLarge { document: reading.document, message }),
        };
        if let Some(line) = too_deep_at(&text) {
            let line = lines_before + line + 1;
            let message = format!(
                "the YAML document has more than {DEPTH_MAX} lists and mappings in brackets in one another at line {line}"
            );
            return Err(ReadError::TooLarge { document: reading.document, message });
        }
        budget.allow(text.len());
        // More than one where a carriage return alone ends a line.
        for deserializer in Deserializer::from_slice(&text) {
            budget.renew();
            let document = reading.document;
            if let Err(error) = reading.read(deserializer) {
                let syntax = || ReadError::Syntax { document, message: shifted(&error.to_string(), lines_before) };
                return Err(reading.broken_off().unwrap_or_else(syntax));
            }
        }
        lines_before += text.iter().filter(|byte| **byte == b'\n').count();
    }
}

/// A message about lines of one document, for the whole text.
fn shifted(message: &str, lines: usize) -> String {
    let mut parts = message.split(AT_LINE);
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = part.split_at(digits);
        whole.push_str(AT_LINE);
        match number.parse::<usize>() {
            Ok(number) => whole.push_str(&number.saturating_add(lines).to_string()),
            Err(_) => whole.push_str(number),
        }
        whole.push_str(rest);
    }
    whole
}

const AT_LINE: &str = " at line ";

enum CutError {
    Io(io::Error),
    TooLarge(String),
}

/// Cuts a text.
struct Cutter<R> {
    reader: BufReader<R>,
    /// Of the next document, what was read already.
    text: Vec<u8>,
    /// Whether that is more than directives and comments, which belong to the marker that follows them.
    has_begun: bool,
    bytes_max: usize,
}

/// What a line is to the cutter.
enum Line {
    Begin,
    End,
    /// Nothing, a comment or a directive.
    Prefix,
    Content,
}

impl<R: Read> Cutter<R> {
    /// The next document with its markers.
    fn next(&mut self) -> Result<Option<Vec<u8>>, CutError> {
        loop {
            let start = self.text.len();
            if start > self.bytes_max {
                return Err(CutError::TooLarge(format!(
                    "the YAML document is over the limit of {} bytes; separate the resources by lines of ---, or send JSON, \
                     whose items are read one at a time",
                    self.bytes_max
                )));
            }
            let line_bytes_max = self.bytes_max as u64 + 1;
            let count = self.reader.by_ref().take(line_bytes_max).read_until(b'\n', &mut self.text).map_err(CutError::Io)?;
            if count == 0 {
                let rest = std::mem::take(&mut self.text);
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            }
            match line_of(&self.text[start..]) {
                Line::Begin if self.has_begun => {
                    let next = self.text.split_off(start);
                    return Ok(Some(std::mem::replace(&mut self.text, next)));
                }
                // An end after an end; the parser would take it for a document.
                Line::End if !self.has_begun => {
                    self.text.truncate(start);
                    self.text.push(b'\n');
                }
                Line::End if self.text.len() <= self.bytes_max => {
                    self.has_begun = false;
                    return Ok(Some(std::mem::take(&mut self.text)));
                }
                Line::Prefix | Line::End => {}
                Line::Begin | Line::Content => self.has_begun = true,
            }
        }
    }
}

fn line_of(line: &[u8]) -> Line {
    let after = |marker: &[u8]| {
        let rest = line.strip_prefix(marker);
        rest.filter(|rest| rest.first().is_none_or(|next| matches!(next, b' ' | b'\t' | b'\r' | b'\n')))
    };
    // A byte order mark may begin any line (libyaml; YAML 1.2 has it before each document).
    let is_nothing = |text: &[u8]| {
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        text.trim_ascii_start().first().is_none_or(|first| *first == b'#')
    };
    if after(b"---").is_some() {
        Line::Begin
    } else if after(b"...").is_some_and(is_nothing) {
        Line::End
    } else if is_nothing(line) || line.starts_with(b"%") {
        Line::Prefix
    } else {
        Line::Content
    }
}
