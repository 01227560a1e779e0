//! Regular expressions of matches: crate `regex`, so the time is linear in what is matched.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind, Look};

/// Bytes of an expression's text at most.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// Bytes of one compiled expression at most; its lazily built automaton may take as many again for each thread that uses it.
const COMPILED_BYTES_MAX: usize = 256 * 1024;

/// Groups inside groups at most.
const NEST_MAX: u32 = 64;

/// A regular expression that must match the whole of a value, compiled.
///
/// It is compared by its text.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    regex: Regex,
    literal: Box<[u8]>,
}

impl Pattern {
    /// Compiles `text` (the syntax of crate `regex`: no look-around, no back-references). Errors: what is wrong with it, for people.
    pub fn new(text: &str) -> Result<Pattern, String> {
        // The expression is read by itself first: what only works inside the group below, `a)|(b` say, is refused.
        let tree = ParserBuilder::new().utf8(false).nest_limit(NEST_MAX).build().parse(text).map_err(|error| match error {
            regex_syntax::Error::Parse(error) => {
                format!("not a regular expression: {} at byte {}", error.kind(), error.span().start.offset)
            }
            regex_syntax::Error::Translate(error) => {
                format!("not a regular expression: {} at byte {}", error.kind(), error.span().start.offset)
            }
            error => format!("not a regular expression: {error}"),
        })?;
        let regex = RegexBuilder::new(&format!("^(?:{text})$"))
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(COMPILED_BYTES_MAX)
            .nest_limit(NEST_MAX + 2)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(limit) => {
                    format!("compiles to more than {limit} bytes: use fewer repetitions or smaller classes")
                }
                _ => "not a regular expression: a comment or flag of it does not end".to_owned(),
            })?;
        Ok(Pattern { text: text.into(), regex, literal: leading_literal(&tree).into() })
    }

    /// The text that it was made of.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes that everything which it matches begins with; maybe fewer than there are.
    pub fn literal(&self) -> &[u8] {
        &self.literal
    }

    /// Whether it matches the whole of `value`.
    pub fn matches(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }
}

fn leading_literal(tree: &Hir) -> &[u8] {
    match tree.kind() {
        HirKind::Literal(literal) => &literal.0,
        HirKind::Concat(parts) => {
            let first = parts.iter().find(|part| !matches!(part.kind(), HirKind::Look(Look::Start)));
            first.map_or(&[], leading_literal)
        }
        HirKind::Capture(capture) => leading_literal(&capture.sub),
        HirKind::Alternation(branches) => branches.iter().map(leading_literal).reduce(common_prefix).unwrap_or_default(),
        _ => &[],
    }
}

fn common_prefix<'a>(left: &'a [u8], right: &[u8]) -> &'a [u8] {
    &left[..left.iter().zip(right).take_while(|(left, right)| left == right).count()]
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_value_must_match() {
        let pattern = Pattern::new("a|ab").unwrap();
        assert!(pattern.matches(b"a") && pattern.matches(b"ab"));
        assert!(!pattern.matches(b"abc") && !pattern.matches(b"xab") && !pattern.matches(b"a\n"));
        assert!(Pattern::new("/caf.*").unwrap().matches("/café".as_bytes()));
    }

    #[test]
    fn everything_that_matches_begins_with_the_literal() {
        for (text, expected) in [
            ("/a/b[0-9]+", "/a/b"),
            ("^/a/.*$", "/a/"),
            ("(/a/(b))?c", ""),
            ("(/x/y)z", "/x/y"),
            ("/a|/ab", "/a"),
            ("(?i)/a", "/"),
            ("/ab*", "/a"),
            ("", ""),
        ] {
            assert_eq!(String::from_utf8_lossy(Pattern::new(text).unwrap().literal()), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_compiled_is_refused_with_the_place() {
        for (text, expected) in [
            ("/a(", "unclosed group at byte 2"),
            ("a)|(?:b", "unopened group at byte 1"),
            (r"(.)\1", "backreferences are not supported at byte 3"),
            ("(?=a)", "look-around"),
            (r"[\w]{1000}{100}", "compiles to more than"),
            ("(?x)a # b", "comment"),
        ] {
            let error = Pattern::new(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Pattern::new(&"(".repeat(500)).is_err());
    }
}
