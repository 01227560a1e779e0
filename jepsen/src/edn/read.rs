//! Reading EDN: one value from a text, strictly.

use super::Edn;

/// How deep values may lie in one another: more than any history needs, and little enough for the stack.
const DEPTH_MAX: usize = 64;

/// Why a text is not the EDN that this reader knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {problem}")]
pub(crate) struct Error {
    /// From 1, in bytes.
    pub(crate) column: usize,
    pub(crate) problem: &'static str,
}

/// Reads the one value that a text holds.
pub(crate) fn parse(text: &str) -> Result<Edn, Error> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.skip_blanks();
    if reader.at < text.len() { Err(reader.error("more after the value")) } else { Ok(value) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, problem: &'static str) -> Error {
        Error { column: self.at + 1, problem }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|character| character.is_whitespace() || character == ',') {
            self.next();
        }
    }

    fn value(&mut self, depth: usize) -> Result<Edn, Error> {
        if depth > DEPTH_MAX {
            return Err(self.error("values lie too deep in one another"));
        }
        self.skip_blanks();
        match self.peek() {
            None => Err(self.error("a value is missing")),
            Some('"') => self.text(),
            Some('[') => self.sequence(']', depth).map(Edn::Vector),
            Some('{') => {
                let begin = self.at;
                let mut items = self.sequence('}', depth)?.into_iter();
                let mut entries = Vec::with_capacity(items.len() / 2);
                while let Some(key) = items.next() {
                    let value = items.next().ok_or(Error { column: begin + 1, problem: "a map has a key without a value" })?;
                    if entries.iter().any(|(known, _)| *known == key) {
                        return Err(Error { column: begin + 1, problem: "a map has a key twice" });
                    }
                    entries.push((key, value));
                }
                Ok(Edn::Map(entries))
            }
            Some(_) => self.atom(),
        }
    }

    fn sequence(&mut self, close: char, depth: usize) -> Result<Vec<Edn>, Error> {
        self.next();
        let mut items = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek() {
                Some(character) if character == close => {
                    self.next();
                    return Ok(items);
                }
                None => return Err(self.error("a collection is not closed")),
                Some(_) => items.push(self.value(depth + 1)?),
            }
        }
    }

    fn text(&mut self) -> Result<Edn, Error> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next().ok_or_else(|| self.error("a text is not closed"))? {
                '"' => return Ok(Edn::Text(text)),
                '\\' => text.push(self.escape()?),
                plain => text.push(plain),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        match self.next() {
            Some('"') => Ok('"'),
            Some('\\') => Ok('\\'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => {
                let digits = self.text.get(self.at..self.at + 4).ok_or_else(|| self.error("\\u needs four digits"))?;
                let code = u32::from_str_radix(digits, 16).map_err(|_| self.error("\\u needs four digits"))?;
                self.at += 4;
                char::from_u32(code).ok_or_else(|| self.error("\\u names no character"))
            }
            _ => Err(self.error("an escape that is not known")),
        }
    }

    fn atom(&mut self) -> Result<Edn, Error> {
        let begin = self.at;
        while self.peek().is_some_and(|c| !c.is_whitespace() && !matches!(c, ',' | '[' | ']' | '{' | '}' | '(' | ')' | '"' | ';'))
        {
            self.next();
        }
        let word: &'a str = &self.text[begin..self.at];
        let error = |problem| Error { column: begin + 1, problem };
        match word {
            "" => Err(error("a form that is not known")),
            "nil" => Ok(Edn::Nil),
            "true" => Ok(Edn::Bool(true)),
            "false" => Ok(Edn::Bool(false)),
            "##NaN" => Ok(Edn::Float(f64::NAN)),
            "##Inf" => Ok(Edn::Float(f64::INFINITY)),
            "##-Inf" => Ok(Edn::Float(f64::NEG_INFINITY)),
            _ => match word.strip_prefix(':') {
                Some("") => Err(error("a keyword has no name")),
                Some(name) => Ok(Edn::Keyword(name.to_owned())),
                None => number(word).ok_or(error("neither a number nor a word that is known")),
            },
        }
    }
}

fn number(word: &str) -> Option<Edn> {
    let digits = word.strip_suffix('N').unwrap_or(word);
    if !digits.strip_prefix(['-', '+']).unwrap_or(digits).starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    match digits.parse() {
        Ok(number) => Some(Edn::Int(number)),
        Err(_) => word.parse().ok().map(Edn::Float),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "nil",
            "[]",
            "{}",
            "[1 -2 3.5 1e300]",
            "{:a [true false], :b \"x\\\"y\\\\\\n\"}",
            "18446744073709551615N",
            ":read-all",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("{:a,,1}").unwrap(), Edn::map([("a", 1u64.into())]));
        assert_eq!(parse("\"\\u0007\"").unwrap().to_string(), "\"\\u0007\"");
    }

    #[test]
    fn refuses_the_rest_with_its_place() {
        for (text, column) in [
            ("", 1),
            ("[1 2", 5),
            ("{:a}", 1),
            ("{:a 1 :a 2}", 1),
            ("\"abc", 5),
            ("\"\\x\"", 4),
            ("1 2", 3),
            ("#inst \"x\"", 1),
            ("(1)", 1),
            (":", 1),
            ("abc", 1),
            ("-", 1),
            ("\"\\ud800\"", 8),
            ("\"\\u00é\"", 4),
        ] {
            assert_eq!(parse(text).map_err(|error| error.column), Err(column), "{text}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
