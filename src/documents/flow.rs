//! How deep the flow collections of a YAML document stand in one another, before a parser looks at it.
//!
//! libyaml looks at every collection that is open with each token, and goes through a whole document before its depth is refused: 128 KiB of
//! `{a: ` take it seconds, 8 MiB would take hours. So the depth has to be known without it, and a bracket is one of a flow collection or
//! part of a text (in block scalars, quotes, plain scalars, comments) by what stands before it. [`Scanner`] goes through a text as libyaml's
//! scanner does: the same tokens begin and end at the same places (YAML 1.1 as libyaml has it; its `yaml_parser_fetch_next_token` and what
//! that calls). Where the two parted, brackets could be hidden, so nothing is simplified but this: it keeps no values, and what libyaml gives
//! up at is passed over, for it reads nothing of what follows.

mod characters;
mod scalars;

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
}
