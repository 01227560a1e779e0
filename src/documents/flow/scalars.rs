//! Where texts end: scalars of every style, tags and directives.

use super::Scanner;

impl Scanner<'_> {
    /// A directive is a line, whatever it says; one that is not well-formed is given up at.
    pub(super) fn directive(&mut self) {
        self.unroll(0);
        self.refuse_key();
        self.skip_line();
        if self.is_break() {
            self.skip_break();
        }
    }

    /// Its characters are those that libyaml takes, so that a bracket behind it is seen where it is one.
    pub(super) fn tag(&mut self) {
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

    pub(super) fn block_scalar(&mut self) {
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

    pub(super) fn quoted(&mut self, quote: u8) {
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

    pub(super) fn plain(&mut self) {
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
