//! Path templates: `/users/{id}/orders/{*rest}`.
//!
//! A template is compared with a path element by element. A parameter takes one whole element that is not empty; a rest, which
//! stands last, takes everything that is left and is not empty either. Both have names, by which rewrites refer to what they took.

use std::fmt;

use super::path::{self, EscapedSlashes};

/// Elements of one template at most.
pub const TEMPLATE_ELEMENTS_MAX: usize = 64;

/// A parsed template. Invariants: at least one segment; parameter names differ; a rest stands last.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    segments: Vec<Segment>,
}

/// What one element of a path must be. The order is the precedence: literal before parameter before rest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// Exactly this element, normalised. Empty where the template ends in `/`.
    Literal(String),
    /// Any element that is not empty, under this name.
    Parameter(String),
    /// Everything that is left, if it is not empty, under this name.
    Rest(String),
}

impl Template {
    /// Reads a template. Errors: a sentence that names the fault.
    pub fn parse(text: &str) -> Result<Template, String> {
        let Some(rest) = text.strip_prefix('/') else { return Err("a path template starts with `/`".to_owned()) };
        let count = rest.split('/').count();
        if count > TEMPLATE_ELEMENTS_MAX {
            return Err(format!("a path template has at most {TEMPLATE_ELEMENTS_MAX} elements, this one has {count}"));
        }
        let mut template = Template { segments: Vec::with_capacity(count) };
        for (index, element) in rest.split('/').enumerate() {
            let is_last = index + 1 == count;
            let segment = Segment::parse(element)?;
            match &segment {
                Segment::Rest(name) if !is_last => return Err(format!("`{{*{name}}}` must be the last element")),
                Segment::Literal(literal) if literal.is_empty() && !is_last => {
                    return Err("a path template must not contain `//`".to_owned());
                }
                Segment::Parameter(name) | Segment::Rest(name) if template.parameters().any(|known| known == name) => {
                    return Err(format!("parameter `{name}` occurs twice"));
                }
                Segment::Literal(_) | Segment::Parameter(_) | Segment::Rest(_) => template.segments.push(segment),
            }
        }
        Ok(template)
    }

    /// Its elements, from the left.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The names of its parameters, a rest included, from the left.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Parameter(name) | Segment::Rest(name) => Some(name.as_str()),
        })
    }
}

/// The normal form, which [`Template::parse`] reads back.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments.iter().try_for_each(|segment| match segment {
            Segment::Literal(literal) => write!(f, "/{literal}"),
            Segment::Parameter(name) => write!(f, "/{{{name}}}"),
            Segment::Rest(name) => write!(f, "/{{*{name}}}"),
        })
    }
}

impl Segment {
    fn parse(element: &str) -> Result<Segment, String> {
        if let Some(inner) = element.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
            return match inner.strip_prefix('*') {
                Some(name) => parameter_name(name).map(Segment::Rest),
                None => parameter_name(inner).map(Segment::Parameter),
            };
        }
        if element.contains(['{', '}']) {
            return Err(format!("a parameter is one whole element, as in `/{{id}}/`; {element:?} mixes it with text"));
        }
        let alone = format!("/{element}");
        let normal = path::normalize(&alone, EscapedSlashes::Keep).map_err(|error| error.to_string())?;
        match normal.strip_prefix('/') {
            Some(literal) if literal.is_empty() == element.is_empty() => Ok(Segment::Literal(literal.to_owned())),
            _ => Err("a path template must not contain `.` or `..` as an element".to_owned()),
        }
    }
}

/// Checks the name of a parameter: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub(super) fn parameter_name(name: &str) -> Result<String, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(is_word) {
        return Err(format!("a parameter's name is letters, digits and `_`, and does not start with a digit; {name:?} is not"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_and_written() {
        let table = [
            ("/", "/"),
            ("/users/{id}", "/users/{id}"),
            ("/users/{id}/", "/users/{id}/"),
            ("/{a}/{b_2}/{*_rest}", "/{a}/{b_2}/{*_rest}"),
            ("/%61%c3/{x}", "/a%C3/{x}"),
        ];
        for (text, normal) in table {
            let template = Template::parse(text).expect("a good template");
            assert_eq!(template.to_string(), normal, "{text}");
            assert_eq!(Template::parse(normal), Ok(template), "{text}");
        }
        let template = Template::parse("/users/{id}/{*rest}").expect("a good template");
        assert_eq!(template.parameters().collect::<Vec<_>>(), ["id", "rest"]);
        assert!(Segment::Literal("z".into()) < Segment::Parameter("a".into()));
        assert!(Segment::Parameter("z".into()) < Segment::Rest("a".into()));
    }

    #[test]
    fn faults_are_named() {
        let table = [
            ("", "starts with `/`"),
            ("users/{id}", "starts with `/`"),
            ("/a{id}", "whole element"),
            ("/{id}.json", "whole element"),
            ("/{id", "whole element"),
            ("/{}", "name"),
            ("/{*}", "name"),
            ("/{1a}", "name"),
            ("/{a-b}", "name"),
            ("/{a}/{a}", "twice"),
            ("/{a}/{*a}", "twice"),
            ("/{*rest}/x", "last element"),
            ("/{*rest}/", "last element"),
            ("/a//b", "`//`"),
            ("/a/../b", "`..`"),
            ("/%2e/b", "`..`"),
            ("/a b", "percent-encoded"),
            ("/%zz", "hexadecimal"),
            ("/%00", "%00"),
        ];
        for (text, part) in table {
            let fault = Template::parse(text).expect_err("a fault");
            assert!(fault.contains(part), "{text}: {fault}");
        }
        let longest = "/a".repeat(TEMPLATE_ELEMENTS_MAX);
        assert!(Template::parse(&longest).is_ok());
        assert!(Template::parse(&(longest + "/a")).expect_err("a fault").contains("at most 64"));
    }
}
