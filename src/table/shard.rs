//! Templates that share a literal prefix: a trie of the elements after it.
//!
//! The walk is depth first, at each element the literal before the parameter before the rest, which gives every template that matches
//! in order of precedence. A dead end costs a step back; the steps are bounded by the nodes of the shard that agree with the path.
//!
//! Templates are read from their normal text, as `model::template::Template` displays them: an element is a literal, `{name}` or
//! `{*name}`, and nothing else in it has braces. `matchit` is not used for serving: it refuses many sets that are legal here (`/{a}`
//! beside `/{b}`, under other methods), gives one winner where the next best is needed too, and must be rebuilt by every change. It is
//! the oracle of a test.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::bucket::{self, Bucket};
use super::key::{TextMap, text_map};
use super::rule::Candidate;

/// The literal elements that a template begins with: `/a` of `/a/{id}/b`.
pub(super) fn literal_prefix(template: &str) -> &str {
    &template[..template.find("/{").unwrap_or(template.len())]
}

/// What a template asks of one element.
enum Element<'a> {
    Literal(&'a str),
    Parameter,
    Rest,
}

/// The first element of `tail` (which starts with `/`, or is at its end) and what follows it.
fn split(tail: &str) -> Option<(&str, &str)> {
    let after = tail.strip_prefix('/')?;
    Some(after.split_at(after.find('/').unwrap_or(after.len())))
}

fn split_template(tail: &str) -> Option<(Element<'_>, &str)> {
    let (text, next) = split(tail)?;
    let element = match text.strip_prefix('{') {
        Some(name) if name.starts_with('*') => Element::Rest,
        Some(_) => Element::Parameter,
        None => Element::Literal(text),
    };
    Some((element, next))
}

/// A node: what may come next, and the templates that end here.
#[derive(Debug, Clone)]
pub(super) struct Shard {
    literals: TextMap<Arc<str>, Arc<Shard>>,
    parameter: Option<Arc<Shard>>,
    rest: Option<Bucket>,
    end: Option<Bucket>,
}

impl Default for Shard {
    fn default() -> Shard {
        Shard { literals: text_map(), parameter: None, rest: None, end: None }
    }
}

impl Shard {
    /// Adds a candidate whose template goes on with `tail` from here.
    pub(super) fn insert(&mut self, tail: &str, candidate: Candidate) {
        match split_template(tail) {
            None => bucket::insert_into(&mut self.end, candidate),
            Some((Element::Rest, _)) => bucket::insert_into(&mut self.rest, candidate),
            Some((Element::Parameter, next)) => {
                Arc::make_mut(self.parameter.get_or_insert_default()).insert(next, candidate);
            }
            Some((Element::Literal(text), next)) => {
                let child = self.literals.entry(Arc::from(text)).or_default();
                Arc::make_mut(child).insert(next, candidate);
            }
        }
    }

    /// Takes a candidate out again, and the nodes that nothing else needs. True: this node is one of them.
    pub(super) fn remove(&mut self, tail: &str, candidate: &Candidate) -> bool {
        match split_template(tail) {
            None => bucket::remove_from(&mut self.end, candidate),
            Some((Element::Rest, _)) => bucket::remove_from(&mut self.rest, candidate),
            Some((Element::Parameter, next)) => {
                if self.parameter.as_mut().is_some_and(|child| Arc::make_mut(child).remove(next, candidate)) {
                    self.parameter = None;
                }
            }
            Some((Element::Literal(text), next)) => {
                if self.literals.get_mut(text).is_some_and(|child| Arc::make_mut(child).remove(next, candidate)) {
                    self.literals.remove(text);
                }
            }
        }
        self.literals.is_empty() && self.parameter.is_none() && self.rest.is_none() && self.end.is_none()
    }

    /// What stands where a template that goes on with `tail` ends.
    pub(super) fn bucket(&self, tail: &str) -> Option<&Bucket> {
        match split_template(tail) {
            None => self.end.as_ref(),
            Some((Element::Rest, _)) => self.rest.as_ref(),
            Some((Element::Parameter, next)) => self.parameter.as_ref()?.bucket(next),
            Some((Element::Literal(text), next)) => self.literals.get(text)?.bucket(next),
        }
    }

    /// Visits the candidates whose template matches `tail`, best first.
    pub(super) fn walk<'t, B>(&'t self, tail: &str, visit: &mut impl FnMut(&'t Candidate) -> ControlFlow<B>) -> ControlFlow<B> {
        let Some((element, next)) = split(tail) else {
            // A tail that is neither at its end nor starts with a slash is that of `*`, which no template matches.
            return if tail.is_empty() { visit_all(self.end.as_ref(), visit) } else { ControlFlow::Continue(()) };
        };
        if let Some(child) = self.literals.get(element) {
            child.walk(next, visit)?;
        }
        if let Some(child) = self.parameter.as_ref().filter(|_| !element.is_empty()) {
            child.walk(next, visit)?;
        }
        visit_all(self.rest.as_ref().filter(|_| tail.len() > 1), visit)
    }
}

fn visit_all<'t, B>(bucket: Option<&'t Bucket>, visit: &mut impl FnMut(&'t Candidate) -> ControlFlow<B>) -> ControlFlow<B> {
    bucket.into_iter().flat_map(Bucket::iter).try_for_each(visit)
}

/// Names and values of the parameters of `template` in `path`, which it matches.
pub(super) fn captures<'a>(template: &'a str, path: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let mut template = template;
    let mut path = path;
    std::iter::from_fn(move || {
        loop {
            let (text, template_next) = split(template)?;
            let (value, path_next) = split(path)?;
            let whole = &path[1..];
            (template, path) = (template_next, path_next);
            let Some(name) = text.strip_prefix('{').map(|name| name.trim_end_matches('}')) else { continue };
            return Some(match name.strip_prefix('*') {
                Some(name) => (name, whole),
                None => (name, value),
            });
        }
    })
}
