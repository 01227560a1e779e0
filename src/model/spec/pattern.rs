//! Regular expressions of matches: crate `regex`, so the time is linear in what is matched.
//!
//! They match bytes: `.` is any but a line feed, and `\w`, `\d`, `\s` and `(?i)` know ASCII alone, as RE2 has it, which Envoy uses. With all of Unicode
//! `\w{3}` takes 260 kB compiled. A thousand routes may ask for the same: those with one text share one.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind, Look};

/// Bytes of an expression's text at most.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// Bytes of one compiled expression at most; its lazily built automaton may take as many again for each thread that uses it.
const COMPILED_BYTES_MAX: usize = 64 * 1024;

/// Texts of compiled expressions that are remembered before those that nothing holds any more are looked for.
const SWEEP_MIN: usize = 64;

/// Groups inside groups at most.
const NEST_MAX: u32 = 64;

/// A regular expression that must match the whole of a value, compiled; or those of a gRPC call's path.
///
/// It is compared by its text and its form.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    form: Form,
    literal: Box<[u8]>,
    /// The lengths by which the longer of two comes first: of the text; of the service and then of the method.
    lengths: (usize, usize),
    /// Whether it matches `literal` and nothing else.
    is_literal: bool,
}

/// What is compared with what.
#[derive(Clone)]
enum Form {
    /// The value.
    Whole(Arc<Regex>),
    /// The service and the method of a path `/service/method`; any name where there is no expression.
    Call { service: Option<Arc<Regex>>, method: Option<Arc<Regex>> },
}

impl Pattern {
    /// Compiles `text` (the syntax of crate `regex`: no look-around, no back-references). Errors: what is wrong with it, for people.
    pub fn new(text: &str) -> Result<Pattern, String> {
        // The expression is read by itself first: what only works inside the group below, `a)|(b` say, is refused.
        let tree =
            ParserBuilder::new().utf8(false).unicode(false).nest_limit(NEST_MAX).build().parse(text).map_err(
                |error| match error {
                    regex_syntax::Error::Parse(error) => {
                        format!("not a regular expression: {} at byte {}", error.kind(), error.span().start.offset)
                    }
                    regex_syntax::Error::Translate(error) => {
                        format!("not a regular expression: {} at byte {}", error.kind(), error.span().start.offset)
                    }
                    error => format!("not a regular expression: {error}"),
                },
            )?;
        let regex = compiled(&KNOWN, text)?;
        let is_literal = matches!(tree.kind(), HirKind::Literal(_));
        let (form, literal) = (Form::Whole(regex), leading_literal(&tree).into());
        Ok(Pattern { text: text.into(), form, literal, lengths: (text.len(), 0), is_literal })
    }

    /// The paths of gRPC calls whose service and method these match, each by itself and as a whole: neither reaches over a `/`.
    pub fn of_call(service: Option<&Pattern>, method: Option<&Pattern>) -> Pattern {
        let text = |part: Option<&Pattern>| part.map_or_else(|| "[^/]+".to_owned(), |part| format!("(?:{})", part.text));
        let regex = |part: Option<&Pattern>| match &part?.form {
            Form::Whole(regex) => Some(Arc::clone(regex)),
            Form::Call { .. } => None,
        };
        let mut literal = [b"/".as_slice(), service.map_or(&[], Pattern::literal)].concat();
        if service.is_some_and(|service| service.is_literal) {
            literal.push(b'/');
        }
        Pattern {
            text: format!("/{}/{}", text(service), text(method)).into(),
            form: Form::Call { service: regex(service), method: regex(method) },
            literal: literal.into(),
            lengths: [service, method].map(|part| part.map_or(0, |part| part.text.len())).into(),
            is_literal: false,
        }
    }

    /// The text that it was made of.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes that everything which it matches begins with; maybe fewer than there are.
    pub fn literal(&self) -> &[u8] {
        &self.literal
    }

    /// By what the longer of two expressions comes first: the length of the text; of a call's, that of the service, and then that of the method.
    pub fn lengths(&self) -> (usize, usize) {
        self.lengths
    }

    /// Whether it matches the whole of `value`.
    pub fn matches(&self, value: &[u8]) -> bool {
        match &self.form {
            Form::Whole(regex) => regex.is_match(value),
            Form::Call { service, method } => call_parts(value).is_some_and(|(service_name, method_name)| {
                let holds = |regex: &Option<Arc<Regex>>, name| regex.as_ref().is_none_or(|regex| regex.is_match(name));
                holds(service, service_name) && holds(method, method_name)
            }),
        }
    }

    /// How many expressions were compiled for it.
    pub fn regex_count(&self) -> usize {
        match &self.form {
            Form::Whole(_) => 1,
            Form::Call { service, method } => usize::from(service.is_some()) + usize::from(method.is_some()),
        }
    }
}

/// The compiled expressions that something holds, by their text.
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Known {
    by_text: HashMap<Box<str>, Weak<Regex>>,
    /// At so many, those that nothing holds any more are let go.
    sweep_at: usize,
}

impl Known {
    fn get(&self, text: &str) -> Option<Arc<Regex>> {
        self.by_text.get(text).and_then(Weak::upgrade)
    }

    /// Remembers an expression, unless somebody else's of that text came first.
    fn keep(&mut self, text: &str, regex: Regex) -> Arc<Regex> {
        if let Some(first) = self.get(text) {
            return first;
        }
        if self.by_text.len() >= self.sweep_at {
            self.by_text.retain(|_, regex| regex.strong_count() > 0);
            self.sweep_at = (self.by_text.len() * 2).max(SWEEP_MIN);
        }
        let regex = Arc::new(regex);
        self.by_text.insert(text.into(), Arc::downgrade(&regex));
        regex
    }
}

/// The expression of this text, which `known` may hold. It is compiled outside of the lock: that takes milliseconds.
fn compiled(known: &Mutex<Known>, text: &str) -> Result<Arc<Regex>, String> {
    let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = lock().get(text) {
        return Ok(regex);
    }
    let regex = compile(text)?;
    Ok(lock().keep(text, regex))
}

fn compile(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(&format!("^(?:{text})$"))
        .unicode(false)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .nest_limit(NEST_MAX + 2)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => {
                format!("compiles to more than {limit} bytes: use fewer repetitions or smaller classes")
            }
            _ => "not a regular expression: a comment or flag of it does not end".to_owned(),
        })
}

/// Service and method of a path `/service/method`, neither of which is empty.
fn call_parts(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = path.strip_prefix(b"/")?.split(|byte| *byte == b'/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(service), Some(method), None) if !service.is_empty() && !method.is_empty() => Some((service, method)),
        _ => None,
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
        self.text == other.text && matches!(self.form, Form::Whole(_)) == matches!(other.form, Form::Whole(_))
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
    fn services_and_methods_are_matched_each_by_itself() {
        let [service, method] = ["shop[.].*|^user$", "Get|List$"].map(|text| Pattern::new(text).unwrap());
        let call = Pattern::of_call(Some(&service), Some(&method));
        assert_eq!((call.text(), call.literal(), call.regex_count()), ("/(?:shop[.].*|^user$)/(?:Get|List$)", &b"/"[..], 2));
        for path in ["/shop.A/Get", "/shop./List", "/user/Get"] {
            assert!(call.matches(path.as_bytes()), "{path}");
        }
        for path in ["/shop.A/B/Get", "/shop.A/Gets", "/users/Get", "/shop.A/", "//Get", "shop.A/Get", "/shop.A/Get/", "/", ""] {
            assert!(!call.matches(path.as_bytes()), "{path}");
        }
        let of_service = Pattern::of_call(Some(&Pattern::new("shop.*").unwrap()), None);
        assert_eq!((of_service.literal(), of_service.regex_count()), (&b"/shop"[..], 1));
        assert!(of_service.matches(b"/shop.A/X") && !of_service.matches(b"/shop.A/") && !of_service.matches(b"/shop/a/X"));
        let of_one_service = Pattern::of_call(Some(&Pattern::new(r"shop\.A").unwrap()), None);
        assert!(of_one_service.literal() == b"/shop.A/" && of_one_service.matches(b"/shop.A/X"));
        let of_method = Pattern::of_call(None, Some(&Pattern::new(".*").unwrap()));
        assert!(of_method.matches(b"/a/X") && !of_method.matches(b"//X") && !of_method.matches(b"/a/b/X"));
        assert_ne!(Pattern::new(of_method.text()).unwrap(), of_method);
    }

    #[test]
    fn one_text_is_compiled_once_for_as_long_as_it_is_held() {
        let whole = |pattern: &Pattern| match &pattern.form {
            Form::Whole(regex) => Arc::clone(regex),
            Form::Call { .. } => panic!("{pattern:?}"),
        };
        let [one, other] = [(), ()].map(|()| Pattern::new("one text, [0-9]+ times").unwrap());
        assert!(Arc::ptr_eq(&whole(&one), &whole(&other)));
        let known = Mutex::new(Known::default());
        let held: Vec<_> = (0..10).map(|number| compiled(&known, &format!("held {number}")).unwrap()).collect();
        for number in 0..10 * SWEEP_MIN {
            compiled(&known, &format!("let go of {number}")).unwrap();
        }
        assert!(Arc::ptr_eq(&held[3], &compiled(&known, "held 3").unwrap()));
        let mut known = known.into_inner().unwrap();
        assert!(known.by_text.len() <= 2 * SWEEP_MIN, "{}", known.by_text.len());
        assert!(Arc::ptr_eq(&held[4], &known.keep("held 4", compile("held 4").unwrap())), "the first one stays");
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
