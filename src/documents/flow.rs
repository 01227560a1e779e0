//! How deep the flow collections of a YAML document stand in one another, before a parser looks at it.
//!
//! libyaml looks at every collection that is open with each token, and goes through a whole document before its depth is refused: 128 KiB of
//! `{a: ` take it seconds, 8 MiB would take hours. So the depth has to be known without it, and a bracket is one of a flow collection or
//! part of a text (in block scalars, quotes, plain scalars, comments) by what stands before it. [`Scanner`] goes through a text as libyaml's
//! scanner does: the same tokens begin and end at the same places (YAML 1.1 as libyaml has it; its `yaml_parser_fetch_next_token` and what
//! that calls). Where the two parted, brackets could be hidden, so nothing is simplified but this: it keeps no values, and what libyaml gives
//! up at is passed over, for it reads nothing of what follows.

/// Collections that may be open at one time. The parser takes no deeper values; here it costs no time to refuse them.
pub(super) const DEPTH_MAX: usize = 128;

/// After how many bytes a text is no simple key any more.
const KEY_BYTES_MAX: usize = 1024;

/// The line, counted from 0, where more than [`DEPTH_MAX`] flow collections are open.
pub(super) fn too_deep_at(text: &[u8]) -> Option<usize> {
    let mut scanner = Scanner::new(text);
    while scanner.token() {
        if scanner.depth > DEPTH_MAX {
            return Some(scanner.place.line);
        }
    }
    None
}

/// The places of all brackets that open flow collections.
#[cfg(test)]
pub(super) fn openings(text: &[u8]) -> Vec<usize> {
    let mut scanner = Scanner::new(text);
    let mut found = Vec::new();
    let mut depth = 0;
    while scanner.token() {
        if scanner.depth > depth {
            found.push(scanner.place.byte - 1);
        }
        depth = scanner.depth;
    }
    found
}

#[derive(Debug, Clone, Copy)]
struct Place {
    byte: usize,
    line: usize,
    /// In characters.
    column: usize,
}

/// Where tokens begin and end.
struct Scanner<'a> {
    text: &'a [u8],
    place: Place,
    /// Flow collections that are open.
    depth: usize,
    /// The column of the block collection that is open, plus one; 0: none is.
    indent: usize,
    /// Those around it.
    indents: Vec<usize>,
    /// What may turn out to be a key, outside of flow collections.
    key: Option<Place>,
    is_key_allowed: bool,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a [u8]) -> Scanner<'a> {
        let place = Place { byte: 0, line: 0, column: 0 };
        Scanner { text, place, depth: 0, indent: 0, indents: Vec::new(), key: None, is_key_allowed: true }
    }

    /// The byte that is `after` bytes behind this place; 0 behind the end.
    fn at(&self, after: usize) -> u8 {
        self.text.get(self.place.byte + after).copied().unwrap_or(0)
    }

    /// The bytes of the line break that is `after` bytes behind this place; 0 where there is none.
    fn break_at(&self, after: usize) -> usize {
        match (self.at(after), self.at(after + 1), self.at(after + 2)) {
            (b'\r', b'\n', _) | (0xC2, 0x85, _) => 2,
            (b'\r' | b'\n', ..) => 1,
            (0xE2, 0x80, 0xA8 | 0xA9) => 3,
            _ => 0,
        }
    }

    fn is_break(&self) -> bool {
        self.break_at(0) > 0
    }

    fn is_blank(&self) -> bool {
        matches!(self.at(0), b' ' | b'\t')
    }

    fn is_end(&self) -> bool {
        self.at(0) == 0
    }

    /// Whether white space or the end is `after` bytes behind this place.
    fn is_space_at(&self, after: usize) -> bool {
        matches!(self.at(after), b' ' | b'\t' | 0) || self.break_at(after) > 0
    }

    /// One character on.
    fn skip(&mut self) {
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
    fn skip_break(&mut self) {
        self.place = Place { byte: self.place.byte + self.break_at(0), line: self.place.line + 1, column: 0 };
    }

    fn skip_blanks(&mut self) {
        while self.is_blank() {
            self.skip();
        }
    }

    /// To the end of the line.
    fn skip_line(&mut self) {
        while !self.is_break() && !self.is_end() {
            self.skip();
        }
    }

    fn skip_word(&mut self) {
        while self.at(0).is_ascii_alphanumeric() || matches!(self.at(0), b'_' | b'-') {
            self.skip();
        }
    }

    /// Whether a document begins or ends here.
    fn is_marker(&self) -> bool {
        let three = [self.at(0), self.at(1), self.at(2)];
        self.place.column == 0 && matches!(&three, b"---" | b"...") && self.is_space_at(3)
    }

    /// Passes the next token; false: there is none.
    fn token(&mut self) -> bool {
        self.skip_to_token();
        let place = self.place;
        self.key = self.key.filter(|key| key.line == place.line && key.byte + KEY_BYTES_MAX >= place.byte);
        self.unroll(place.column + 1);
        let in_flow = self.depth > 0;
        match self.at(0) {
            0 => return false,
            b'%' if place.column == 0 => self.directive(),
            _ if self.is_marker() => {
                self.unroll(0);
                self.refuse_key();
                (0..3).for_each(|_| self.skip());
            }
            b'[' | b'{' => {
                self.save_key();
                self.depth += 1;
                self.is_key_allowed = true;
                self.skip();
            }
            b']' | b'}' => {
                self.remove_key();
                self.depth = self.depth.saturating_sub(1);
                self.is_key_allowed = false;
                self.skip();
            }
            b',' => {
                self.remove_key();
                self.is_key_allowed = true;
                self.skip();
            }
            b'-' if self.is_space_at(1) => {
                self.roll(place.column);
                self.remove_key();
                self.is_key_allowed = true;
                self.skip();
            }
            b'?' if in_flow || self.is_space_at(1) => {
                self.roll(place.column);
                self.remove_key();
                self.is_key_allowed = !in_flow;
                self.skip();
            }
            b':' if in_flow || self.is_space_at(1) => self.value(),
            b'*' | b'&' => {
                self.save_key();
                self.is_key_allowed = false;
                self.skip();
                self.skip_word();
            }
            b'!' => self.tag(),
            b'|' | b'>' if !in_flow => self.block_scalar(),
            quote @ (b'\'' | b'"') => self.quoted(quote),
            // Here libyaml gives up.
            b'|' | b'>' | b'%' | b'@' | b'`' | b'\t' => self.skip(),
            _ => self.plain(),
        }
        true
    }

    fn skip_to_token(&mut self) {
        loop {
            if self.place.column == 0 && [self.at(0), self.at(1), self.at(2)] == [0xEF, 0xBB, 0xBF] {
                self.skip();
            }
            while self.at(0) == b' ' || self.at(0) == b'\t' && (self.depth > 0 || !self.is_key_allowed) {
                self.skip();
            }
            if self.at(0) == b'#' {
                self.skip_line();
            }
            if !self.is_break() {
                return;
            }
            self.skip_break();
            self.is_key_allowed |= self.depth == 0;
        }
    }

    /// Begins a block collection at `column`, unless one of that column is open.
    fn roll(&mut self, column: usize) {
        if self.depth == 0 && self.indent < column + 1 {
            self.indents.push(self.indent);
            self.indent = column + 1;
        }
    }

    /// Ends the block collections that stand further in.
    fn unroll(&mut self, indent: usize) {
        while self.depth == 0 && self.indent > indent {
            self.indent = self.indents.pop().unwrap_or(0);
        }
    }

    fn save_key(&mut self) {
        if self.depth == 0 && self.is_key_allowed {
            self.key = Some(self.place);
        }
    }

    fn remove_key(&mut self) {
        if self.depth == 0 {
            self.key = None;
        }
    }

    fn refuse_key(&mut self) {
        self.remove_key();
        self.is_key_allowed = false;
    }

    fn value(&mut self) {
        let key = self.key.take_if(|_| self.depth == 0);
        match key {
            Some(key) => {
                self.roll(key.column);
                self.is_key_allowed = false;
            }
            // In a flow collection this changes nothing but errors.
            None => {
                self.roll(self.place.column);
                self.is_key_allowed = self.depth == 0;
            }
        }
        self.skip();
    }

    /// A directive is a line, whatever it says; one that is not well-formed is given up at.
    fn directive(&mut self) {
        self.unroll(0);
        self.refuse_key();
        self.skip_line();
        if self.is_break() {
            self.skip_break();
        }
    }

    /// Its characters are those that libyaml takes, so that a bracket behind it is seen where it is one.
    fn tag(&mut self) {
        self.save_key();
        self.is_key_allowed = false;
        self.skip();
        let is_verbatim = self.at(0) == b'<';
        if is_verbatim {
            self.skip();
        }
        let is_of_uri = |byte: u8| byte.is_ascii_alphanumeric() || b"_-;/?:@&=+$.%!~*'()".contains(&byte);
        while is_of_uri(self.at(0)) || is_verbatim && matches!(self.at(0), b',' | b'[' | b']') {
            self.skip();
        }
        if is_verbatim && self.at(0) == b'>' {
            self.skip();
        }
    }

    fn block_scalar(&mut self) {
        self.remove_key();
        self.is_key_allowed = true;
        self.skip();
        let mut increment = 0;
        for _ in 0..2 {
            match self.at(0) {
                b'+' | b'-' => self.skip(),
                digit @ b'1'..=b'9' if increment == 0 => {
                    increment = usize::from(digit - b'0');
                    self.skip();
                }
                _ => {}
            }
        }
        self.skip_blanks();
        if self.at(0) == b'#' {
            self.skip_line();
        }
        if !self.is_break() {
            return;
        }
        self.skip_break();
        // The column of the block around it, which has one less than `self.indent`, and the increment.
        let mut indent = if increment > 0 { self.indent.saturating_sub(1) + increment } else { 0 };
        self.skip_indents(&mut indent);
        while self.place.column == indent && !self.is_end() {
            self.skip_line();
            self.skip_break();
            self.skip_indents(&mut indent);
        }
    }

    /// Passes what stands before the next text of a block scalar; finds its indent, if that is 0.
    fn skip_indents(&mut self, indent: &mut usize) {
        let mut column_max = 0;
        loop {
            while self.at(0) == b' ' && (*indent == 0 || self.place.column < *indent) {
                self.skip();
            }
            column_max = column_max.max(self.place.column);
            if !self.is_break() {
                break;
            }
            self.skip_break();
        }
        if *indent == 0 {
            *indent = column_max.max(self.indent).max(1);
        }
    }

    fn quoted(&mut self, quote: u8) {
        self.save_key();
        self.is_key_allowed = false;
        self.skip();
        while !self.is_end() {
            match self.at(0) {
                b'\'' if quote == b'\'' && self.at(1) == b'\'' => {
                    self.skip();
                    self.skip();
                }
                byte if byte == quote => return self.skip(),
                b'\\' if quote == b'"' && self.break_at(1) == 0 => {
                    self.skip();
                    self.skip();
                }
                _ if self.is_break() => self.skip_break(),
                // Here libyaml gives up.
                _ if self.is_marker() => return,
                _ => self.skip(),
            }
        }
    }

    fn plain(&mut self) {
        self.save_key();
        self.is_key_allowed = false;
        let in_flow = self.depth > 0;
        let mut is_new_line = false;
        loop {
            if self.is_marker() || self.at(0) == b'#' {
                break;
            }
            let begin = self.place.byte;
            while !self.is_space_at(0) {
                let ends_here = self.at(0) == b':' && self.is_space_at(1)
                    || in_flow && matches!(self.at(0), b',' | b'[' | b']' | b'{' | b'}');
                if ends_here {
                    break;
                }
                self.skip();
            }
            is_new_line &= self.place.byte == begin;
            if !self.is_blank() && !self.is_break() {
                break;
            }
            while self.is_blank() || self.is_break() {
                if self.is_break() {
                    self.skip_break();
                    is_new_line = true;
                } else {
                    self.skip();
                }
            }
            if !in_flow && self.place.column < self.indent {
                break;
            }
        }
        self.is_key_allowed |= is_new_line;
    }
}
