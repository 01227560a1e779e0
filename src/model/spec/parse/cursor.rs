//! A place in a JSON document: a value, and the pointer that leads to it.
//!
//! Every document is read at least once on every node, and hardly one has a fault: so a pointer becomes text only where it is reported.

use std::fmt;
use std::ops::RangeInclusive;

use super::report::{Report, shown, suggestion};
use crate::model::spec::document::{Document, Fields};
use crate::model::spec::size::parse_size;

/// Steps of the deepest place that a spec has: `/rules/0/filters/0/requestHeaderModifier/set/0/name` has 8.
const STEPS_MAX: usize = 12;

/// One step down.
#[derive(Debug, Clone, Copy)]
enum Step {
    Field(&'static str),
    Index(usize),
}

/// A JSON pointer (RFC 6901) of known fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pointer {
    steps: [Step; STEPS_MAX],
    depth: usize,
}

impl Pointer {
    const ROOT: Pointer = Pointer { steps: [Step::Index(0); STEPS_MAX], depth: 0 };

    /// One step further. The readers' own code decides how deep it goes, never a document.
    fn then(mut self, step: Step) -> Pointer {
        debug_assert!(self.depth < STEPS_MAX, "a spec grew deeper than STEPS_MAX");
        if let Some(place) = self.steps.get_mut(self.depth) {
            *place = step;
            self.depth += 1;
        }
        self
    }

    /// The pointer of a field that a document names.
    fn unknown_field(&self, name: &str) -> String {
        format!("{self}/{}", name.replace('~', "~0").replace('/', "~1"))
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps[..self.depth].iter().try_for_each(|step| match step {
            Step::Field(name) => write!(f, "/{name}"),
            Step::Index(index) => write!(f, "/{index}"),
        })
    }
}

/// A value and its JSON pointer.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    value: &'a Document<'a>,
    path: Pointer,
}

/// An object whose field names were checked.
#[derive(Debug)]
pub(super) struct Object<'a> {
    fields: &'a Fields<'a>,
    path: Pointer,
}

impl<'a> Cursor<'a> {
    pub(super) fn root(value: &'a Document<'a>) -> Cursor<'a> {
        Cursor { value, path: Pointer::ROOT }
    }

    pub(super) fn path(&self) -> Pointer {
        self.path
    }

    /// Notes a fault of this value.
    pub(super) fn fail(&self, report: &mut Report, message: impl Into<String>) {
        report.error(self.path, message);
    }

    /// The good value, or a note of what is wrong with it.
    pub(super) fn check<T>(&self, report: &mut Report, result: Result<T, impl ToString>) -> Option<T> {
        result.map_err(|error| self.fail(report, error.to_string())).ok()
    }

    /// Whether it is a string, where other types are good too.
    pub(super) fn is_string(&self) -> bool {
        matches!(self.value, Document::String(_))
    }

    /// An object with no fields but `served` ones. Fields of `not_yet` are known, but refused.
    pub(super) fn object(&self, served: &[&str], not_yet: &[&str], report: &mut Report) -> Option<Object<'a>> {
        let Document::Object(fields) = self.value else { return self.wrong_type("an object", report) };
        for name in fields.names().filter(|name| !served.contains(name)) {
            if report.is_full() {
                break;
            }
            let message = if not_yet.contains(&name) {
                format!("field {name:?} is not supported yet")
            } else {
                let nearest = suggestion(name, served.iter().chain(not_yet).copied());
                format!("unknown field {}{nearest}", shown(name))
            };
            report.error(self.path.unknown_field(name), message);
        }
        Some(Object { fields, path: self.path })
    }

    /// A field of an object, looked at without a note of what else there is.
    pub(super) fn peek(&self, name: &'static str) -> Option<Cursor<'a>> {
        let Document::Object(fields) = self.value else { return None };
        fields.get(name).map(|value| Cursor { value, path: self.path.then(Step::Field(name)) })
    }

    /// The elements of an array of at most `max`; of a longer one the first `max`, after a note.
    pub(super) fn list(&self, max: usize, report: &mut Report) -> Option<Vec<Cursor<'a>>> {
        let Document::Array(values) = self.value else { return self.wrong_type("an array", report) };
        if values.len() > max {
            self.fail(report, format!("at most {max} elements, found {}", values.len()));
        }
        let at = |(index, value)| Cursor { value, path: self.path.then(Step::Index(index)) };
        Some(values.iter().take(max).enumerate().map(at).collect())
    }

    /// A string with a number of bytes in `range`.
    pub(super) fn string(&self, range: RangeInclusive<usize>, report: &mut Report) -> Option<&'a str> {
        let Document::String(text) = self.value else { return self.wrong_type("a string", report) };
        if text.len() < *range.start() {
            self.fail(report, "must not be empty");
            return None;
        }
        if text.len() > *range.end() {
            self.fail(report, format!("at most {} bytes, found {}", range.end(), text.len()));
            return None;
        }
        Some(text)
    }

    /// What `read` makes of a string with a number of bytes in `range`.
    pub(super) fn read<T, E: ToString>(
        &self,
        range: RangeInclusive<usize>,
        read: impl FnOnce(&str) -> Result<T, E>,
        report: &mut Report,
    ) -> Option<T> {
        let text = self.string(range, report)?;
        self.check(report, read(text))
    }

    /// An integer in `range`.
    pub(super) fn integer(&self, range: RangeInclusive<u32>, report: &mut Report) -> Option<u32> {
        let Document::Number(number) = self.value else { return self.wrong_type("an integer", report) };
        let number = number.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number));
        if number.is_none() {
            let (least, greatest) = range.into_inner();
            self.fail(report, format!("must be an integer from {least} to {greatest}, found {}", self.value));
        }
        number
    }

    /// A number of bytes, or one with a unit.
    pub(super) fn size(&self, report: &mut Report) -> Option<u64> {
        let bytes = match self.value {
            Document::Number(number) => number.as_u64(),
            Document::String(text) => parse_size(text),
            _ => return self.wrong_type("a size", report),
        };
        if bytes.is_none() {
            let message =
                format!("must be a number of bytes, or one with KiB, MiB or GiB such as \"64KiB\", found {}", self.value);
            self.fail(report, message);
        }
        bytes
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, report: &mut Report) -> Option<bool> {
        let Document::Bool(value) = self.value else { return self.wrong_type("a boolean", report) };
        Some(*value)
    }

    /// One of the `served` names. Names of `not_yet` are known, but refused.
    pub(super) fn choice<T: Copy>(&self, served: &[(&str, T)], not_yet: &[&str], report: &mut Report) -> Option<T> {
        let text = self.string(0..=usize::MAX, report)?;
        let found = served.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() && not_yet.contains(&text) {
            self.fail(report, format!("{text:?} is not supported yet"));
        } else if found.is_none() {
            let known: Vec<&str> = served.iter().map(|(name, _)| *name).chain(not_yet.iter().copied()).collect();
            self.fail(report, format!("unknown value {}; known are {}", shown(text), known.join(", ")));
        }
        found
    }

    fn wrong_type<T>(&self, expected: &str, report: &mut Report) -> Option<T> {
        let found = match self.value {
            Document::Null => "null",
            Document::Bool(_) => "a boolean",
            Document::Number(_) => "a number",
            Document::String(_) => "a string",
            Document::Array(_) => "an array",
            Document::Object(_) => "an object",
        };
        self.fail(report, format!("expected {expected}, found {found}"));
        None
    }
}

impl<'a> Object<'a> {
    pub(super) fn path(&self) -> Pointer {
        self.path
    }

    /// The field, if it is there.
    pub(super) fn get(&self, name: &'static str) -> Option<Cursor<'a>> {
        self.fields.get(name).map(|value| Cursor { value, path: self.path.then(Step::Field(name)) })
    }

    /// A field that is left out, with the value that it has then.
    pub(super) fn assume(&self, name: &'static str, value: &'a Document<'a>) -> Cursor<'a> {
        Cursor { value, path: self.path.then(Step::Field(name)) }
    }

    /// The field, or a note that it is missing.
    pub(super) fn require(&self, name: &'static str, report: &mut Report) -> Option<Cursor<'a>> {
        let field = self.get(name);
        if field.is_none() {
            report.error(self.path.then(Step::Field(name)), "is required");
        }
        field
    }

    /// The elements of an array field; none where it is missing.
    pub(super) fn list(&self, name: &'static str, max: usize, report: &mut Report) -> Vec<Cursor<'a>> {
        self.get(name).and_then(|field| field.list(max, report)).unwrap_or_default()
    }
}
