//! The conditions of a candidate beside host and path.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::explain::Condition;
use super::request::RequestView;
use super::rule::{Candidate, CompiledRule};
use crate::model::spec::{HeaderMatch, QueryMatch, ValueMatch};

/// A condition that does not hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Failure<'t> {
    /// A route of the other kind serves on the request's listener.
    Waits,
    Listener(&'t [Box<str>]),
    NotGrpc,
    Method(&'t http::Method),
    Header(&'t HeaderMatch),
    Query(&'t QueryMatch),
}

impl Failure<'_> {
    pub(super) fn condition(self) -> Condition {
        match self {
            Failure::Waits | Failure::Listener(_) => Condition::Listener,
            Failure::NotGrpc => Condition::Grpc,
            Failure::Method(_) => Condition::Method,
            Failure::Header(_) => Condition::Header,
            Failure::Query(_) => Condition::Query,
        }
    }
}

/// The first condition that fails, in the order listener, gRPC, method, headers, query. Allocates for expressions alone, where a
/// field is repeated or a parameter has escapes.
pub(super) fn first_failure<'t>(candidate: &'t Candidate, request: &RequestView<'_>) -> Option<Failure<'t>> {
    if !candidate.takes_all
        && let Some(failure) = scope_failure(&candidate.rule, request)
    {
        return Some(failure);
    }
    let conditions = candidate.route_match();
    if let Some(method) = conditions.method.as_ref().filter(|method| *method != request.method) {
        return Some(Failure::Method(method));
    }
    if let Some(header) = conditions.headers.iter().find(|header| !header_holds(header, request.headers)) {
        return Some(Failure::Header(header));
    }
    conditions.query_params.iter().find(|query| !query_holds(query, request.query)).map(Failure::Query)
}

fn scope_failure<'t>(rule: &'t CompiledRule, request: &RequestView<'_>) -> Option<Failure<'t>> {
    let listeners = &rule.scope.listeners;
    if !listeners.is_empty() && !listeners.iter().any(|name| **name == *request.listener) {
        return Some(Failure::Listener(listeners));
    }
    (rule.is_grpc && !request.is_grpc()).then_some(Failure::NotGrpc)
}

/// Compares the values joined with commas (RFC 9110 5.3); those of `Cookie`, which HTTP/2 brings in pieces, with semicolons (RFC 9113 8.2.3).
fn header_holds(expected: &HeaderMatch, headers: &http::HeaderMap) -> bool {
    let between: &[u8] = if expected.name == http::header::COOKIE { b"; " } else { b"," };
    let mut values = headers.get_all(&expected.name).iter().map(http::HeaderValue::as_bytes);
    let Some(first) = values.next() else { return false };
    match &expected.value {
        ValueMatch::Exact(text) => is_joined(text.as_bytes(), first, values, between),
        ValueMatch::RegularExpression(pattern) => match values.next() {
            None => pattern.matches(first),
            Some(second) => {
                let all: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
                pattern.matches(&all.join(between))
            }
        },
    }
}

/// Whether `text` is `first` and the others with `between` between them, without joining them.
fn is_joined<'v>(text: &[u8], first: &[u8], others: impl Iterator<Item = &'v [u8]>, between: &[u8]) -> bool {
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for value in others {
        let Some(after) = rest.strip_prefix(between).and_then(|rest| rest.strip_prefix(value)) else { return false };
        rest = after;
    }
    rest.is_empty()
}

/// The first parameter of that name decides. `+` stands for itself: only forms make it a space.
fn query_holds(expected: &QueryMatch, query: Option<&str>) -> bool {
    let parameters = query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty());
    let mut pairs = parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
    let first = pairs.find(|(name, _)| percent_decode_str(name).eq(expected.name.bytes()));
    first.is_some_and(|(_, value)| match &expected.value {
        ValueMatch::Exact(text) => percent_decode_str(value).eq(text.bytes()),
        ValueMatch::RegularExpression(pattern) => pattern.matches(&Cow::from(percent_decode_str(value))),
    })
}
