//! The characters of a text as libyaml tells them apart, and steps over them.

use super::{Place, Scanner};

impl Scanner<'_> {
    /// The byte that is `after` bytes behind this place; 0 behind the end.
    pub(super) fn at(&self, after: usize) -> u8 {
        self.text.get(self.place.byte + after).copied().unwrap_or(0)
    }

    /// The bytes of the line break that is `after` bytes behind this place; 0 where there is none.
    pub(super) fn break_at(&self, after: usize) -> usize {
        match (self.at(after), self.at(after + 1), self.at(after + 2)) {
            (b'\r', b'\n', _) | (0xC2, 0x85, _) => 2,
            (b'\r' | b'\n', ..) => 1,
            (0xE2, 0x80, 0xA8 | 0xA9) => 3,
            _ => 0,
        }
    }

    pub(super) fn is_break(&self) -> bool {
        self.break_at(0) > 0
    }

    pub(super) fn is_blank(&self) -> bool {
        matches!(self.at(0), b' ' | b'\t')
    }

    pub(super) fn is_end(&self) -> bool {
        self.at(0) == 0
    }

    /// Whether white space or the end is `after` bytes behind this place.
    pub(super) fn is_space_at(&self, after: usize) -> bool {
        matches!(self.at(after), b' ' | b'\t' | 0) || self.break_at(after) > 0
    }

    /// One character on.
    pub(super) fn skip(&mut self) {
        let width = match self.at(0) {
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            _ => 1,
        };
        self.place.byte += width;
        self.place.column += 1;
    }

    /// One line break on.
    pub(super) fn skip_break(&mut self) {
        self.place = Place { byte: self.place.byte + self.break_at(0), line: self.place.line + 1, column: 0 };
    }

    pub(super) fn skip_blanks(&mut self) {
        while self.is_blank() {
            self.skip();
        }
    }

    /// To the end of the line.
    pub(super) fn skip_line(&mut self) {
        while !self.is_break() && !self.is_end() {
            self.skip();
        }
    }

    pub(super) fn skip_word(&mut self) {
        while self.at(0).is_ascii_alphanumeric() || matches!(self.at(0), b'_' | b'-') {
            self.skip();
        }
    }

    /// Whether a document begins or ends here.
    pub(super) fn is_marker(&self) -> bool {
        let three = [self.at(0), self.at(1), self.at(2)];
        self.place.column == 0 && matches!(&three, b"---" | b"...") && self.is_space_at(3)
    }
}
