//! Templates that share a literal prefix: mostly one, else a trie of the elements after it.
//!
//! One alone is compared with the path element by element. The walk of a trie is depth first, at each element the literal before the parameter before the rest, which gives every template that matches
//! in order of precedence. A dead end costs a step back; the steps are bounded by the nodes of the shard that agree with the path.
//!
//! Templates are read from their normal text, as `model::template::Template` displays them: an element is a literal, `{name}` or
//! `{*name}`, and nothing else in it has braces. `matchit` is not used for serving: it refuses many sets that are legal here (`/{a}`
//! beside `/{b}`, under other methods), gives one winner where the next best is needed too, and must be rebuilt by every change. It is
//! the oracle of a test.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::bucket::{self, Bucket, Placed};
use super::key::{TextMap, text_map};
use super::rule::Candidate;
use super::trie::Counted;

/// The literal elements that a template begins with: `/a` of `/a/{id}/b`.
pub(super) fn literal_prefix(template: &str) -> &str {
    // A brace begins an element.
    &template[..template.find('{').map_or(template.len(), |at| at.saturating_sub(1))]
}

/// What follows `literal`, the beginning of a path, in a template whose literal prefix it is.
fn tail_under<'c>(template: &'c str, literal: &str) -> Option<&'c str> {
    // Faster than to look for the first parameter, which only a path with a brace makes necessary.
    let tail = template.strip_prefix(literal).filter(|tail| tail.is_empty() || tail.starts_with("/{"))?;
    (!literal.contains('{') || literal_prefix(template) == literal).then_some(tail)
}

/// What a template asks of one element.
#[derive(PartialEq, Eq)]
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

/// The templates of one literal prefix, by what follows it. What else has the hash of that prefix may stand with them.
#[derive(Debug, Clone)]
pub(super) enum Shard {
    /// Nearly always there is one: all candidates have the same elements after the prefix, but for names.
    One(Bucket),
    /// Two or more, or one that is left of them.
    Many(Arc<Node>),
}

impl Shard {
    /// With one candidate.
    pub(super) fn new(placed: Placed) -> Shard {
        Shard::One(Bucket::One(placed))
    }

    /// Adds a candidate.
    pub(super) fn insert(&mut self, placed: Placed) {
        match self {
            Shard::One(bucket) if is_same(tail_of(bucket), template_tail(&placed.candidate)) => bucket.insert(placed),
            Shard::One(bucket) => {
                let mut node = Node::default();
                bucket.iter().cloned().chain([placed]).for_each(|placed| node.add(placed));
                *self = Shard::Many(Arc::new(node));
            }
            Shard::Many(node) => Arc::make_mut(node).add(placed),
        }
    }

    /// Takes a candidate out that is in it. True: nothing is left, and the shard has to go.
    pub(super) fn remove(&mut self, candidate: &Candidate) -> bool {
        match self {
            Shard::One(bucket) => bucket.remove(candidate),
            Shard::Many(node) => Arc::make_mut(node).remove(template_tail(candidate), candidate),
        }
    }

    /// What stands where a template that goes on with `tail` ends.
    pub(super) fn bucket(&self, tail: &str) -> Option<&Bucket> {
        match self {
            Shard::One(bucket) => Some(bucket).filter(|bucket| is_same(tail_of(bucket), tail)),
            Shard::Many(node) => node.bucket(tail),
        }
    }

    /// As [`Shard::bucket`], to change it.
    pub(super) fn bucket_mut(&mut self, tail: &str) -> Option<&mut Bucket> {
        match self {
            Shard::One(bucket) => Some(bucket).filter(|bucket| is_same(tail_of(bucket), tail)),
            Shard::Many(node) => Arc::make_mut(node).bucket_mut(tail),
        }
    }

    /// Visits the candidates whose template has the prefix `literal` and matches `tail` after it, best first.
    pub(super) fn walk<'t, B>(
        &'t self,
        literal: &str,
        tail: &str,
        visit: &mut impl FnMut(&'t Placed) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let tail_of = |placed: &'t Placed| tail_under(placed.candidate.pattern().1, literal);
        match self {
            Shard::One(bucket) => bucket.walk(&mut |placed| match tail_of(placed) {
                Some(template) if fits(template, tail) => visit(placed),
                _ => ControlFlow::Continue(()),
            }),
            Shard::Many(node) => node.walk(tail, &mut |placed| match tail_of(placed) {
                Some(_) => visit(placed),
                None => ControlFlow::Continue(()),
            }),
        }
    }
}

impl Counted for Shard {
    fn count(&self) -> usize {
        match self {
            Shard::One(bucket) => bucket.count(),
            Shard::Many(node) => node.count(),
        }
    }
}

/// What follows the literal prefix in a candidate's template.
pub(super) fn template_tail(candidate: &Candidate) -> &str {
    let template = candidate.pattern().1;
    &template[literal_prefix(template).len()..]
}

fn tail_of(bucket: &Bucket) -> &str {
    bucket.iter().next().map_or("", |placed| template_tail(&placed.candidate))
}

/// Whether two ends of templates differ in nothing but names.
fn is_same(one: &str, other: &str) -> bool {
    match (split_template(one), split_template(other)) {
        (None, None) => true,
        (Some((one, one_next)), Some((other, other_next))) => one == other && is_same(one_next, other_next),
        _ => false,
    }
}

/// Whether the end of a path is one that the end of a template stands for. What the walk of a trie with this template alone does.
fn fits(template: &str, path: &str) -> bool {
    let Some((element, template_next)) = split_template(template) else { return path.is_empty() };
    let Some((text, path_next)) = split(path) else { return false };
    match element {
        Element::Rest => path.len() > 1,
        Element::Parameter if text.is_empty() => false,
        Element::Literal(literal) if literal != text => false,
        Element::Parameter | Element::Literal(_) => fits(template_next, path_next),
    }
}

/// A node: what may come next, and the templates that end here.
#[derive(Debug, Clone)]
pub(super) struct Node {
    literals: TextMap<Arc<str>, Arc<Node>>,
    parameter: Option<Arc<Node>>,
    rest: Option<Bucket>,
    end: Option<Bucket>,
}

impl Default for Node {
    fn default() -> Node {
        Node { literals: text_map(), parameter: None, rest: None, end: None }
    }
}

impl Node {
    /// Adds a candidate by its whole tail.
    fn add(&mut self, placed: Placed) {
        let tail = template_tail(&placed.candidate).to_owned();
        self.insert(&tail, placed);
    }

    /// Adds a candidate whose template goes on with `tail` from here.
    fn insert(&mut self, tail: &str, placed: Placed) {
        match split_template(tail) {
            None => bucket::insert_into(&mut self.end, placed),
            Some((Element::Rest, _)) => bucket::insert_into(&mut self.rest, placed),
            Some((Element::Parameter, next)) => {
                Arc::make_mut(self.parameter.get_or_insert_default()).insert(next, placed);
            }
            Some((Element::Literal(text), next)) => {
                let child = self.literals.entry(Arc::from(text)).or_default();
                Arc::make_mut(child).insert(next, placed);
            }
        }
    }

    /// Takes a candidate out again, and the nodes that nothing else needs. True: this node is one of them.
    fn remove(&mut self, tail: &str, candidate: &Candidate) -> bool {
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
    fn bucket(&self, tail: &str) -> Option<&Bucket> {
        match split_template(tail) {
            None => self.end.as_ref(),
            Some((Element::Rest, _)) => self.rest.as_ref(),
            Some((Element::Parameter, next)) => self.parameter.as_ref()?.bucket(next),
            Some((Element::Literal(text), next)) => self.literals.get(text)?.bucket(next),
        }
    }

    /// As [`Node::bucket`], to change it.
    fn bucket_mut(&mut self, tail: &str) -> Option<&mut Bucket> {
        match split_template(tail) {
            None => self.end.as_mut(),
            Some((Element::Rest, _)) => self.rest.as_mut(),
            Some((Element::Parameter, next)) => Arc::make_mut(self.parameter.as_mut()?).bucket_mut(next),
            Some((Element::Literal(text), next)) => Arc::make_mut(self.literals.get_mut(text)?).bucket_mut(next),
        }
    }

    /// Visits the candidates whose template matches `tail`, best first.
    fn walk<'t, B>(&'t self, tail: &str, visit: &mut impl FnMut(&'t Placed) -> ControlFlow<B>) -> ControlFlow<B> {
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

fn visit_all<'t, B>(bucket: Option<&'t Bucket>, visit: &mut impl FnMut(&'t Placed) -> ControlFlow<B>) -> ControlFlow<B> {
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
