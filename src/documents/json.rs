//! JSON from a reader.

use std::io::{self, BufReader, Cursor, Read};

use serde_json::Deserializer;

use super::resources::{Budget, Reading};
use super::{Limits, ReadError, Sink};

/// Bytes that are read at one time.
const BUFFER_BYTES: usize = 64 * 1024;

/// U+FEFF, as editors of some systems put it before a text.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads every document of a text; gives their number.
pub(crate) fn read_json<R: Read, S: Sink>(reader: R, sink: &mut S, limits: &Limits) -> Result<usize, ReadError<S::Error>> {
    // There are no aliases: no text has more values than bytes.
    let budget = Budget::new(*limits, usize::MAX);
    let reader = without_mark(reader).map_err(ReadError::Io)?;
    let mut deserializer = Deserializer::from_reader(Metered { reader, budget: &budget });
    let mut reading = Reading::new(sink, &budget);
    loop {
        budget.renew();
        // What is left after white space is the next document.
        let read = match deserializer.end() {
            Ok(()) => return Ok(reading.document),
            Err(error) if error.is_io() => Err(error),
            Err(_) => reading.read(&mut deserializer),
        };
        if let Err(error) = read {
            let document = reading.document;
            return Err(match reading.broken_off() {
                Some(why) => why,
                None if error.is_io() => ReadError::Io(error.into()),
                None => ReadError::Syntax { document, message: error.to_string() },
            });
        }
    }
}

/// The text behind a byte order mark.
pub(super) fn without_mark<R: Read>(mut reader: R) -> io::Result<BufReader<impl Read>> {
    let mut first = Vec::new();
    reader.by_ref().take(MARK.len() as u64).read_to_end(&mut first)?;
    if first == MARK {
        first.clear();
    }
    Ok(BufReader::with_capacity(BUFFER_BYTES, Cursor::new(first).chain(reader)))
}

/// A reader that gives what the budget has left.
struct Metered<'a, R> {
    reader: BufReader<R>,
    budget: &'a Budget,
}

impl<R: Read> Read for Metered<'_, R> {
    // serde_json asks for one byte at a time.
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.bytes.get();
        if left == 0 {
            return Err(io::Error::other("over the limit"));
        }
        let room = buffer.len().min(left);
        let count = self.reader.read(&mut buffer[..room])?;
        self.budget.bytes.set(left - count);
        Ok(count)
    }
}
