//! What matching takes and what it gives.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use smol_str::SmolStr;

use super::rule::CompiledRule;
use super::shard::captures;
use super::snapshot::Snapshot;
use crate::model::spec::{PathMatchType, RouteMatch};

/// The parts of a request that rules look at.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The name of the listener that took it.
    pub listener: &'a str,
    /// The authority's host in lower case, without the port.
    pub host: &'a str,
    /// The path as `model::path::normalize` gives it.
    pub path: &'a str,
    /// The query without its `?`, as sent.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// The header fields.
    pub headers: &'a HeaderMap,
}

impl RequestView<'_> {
    pub(super) fn is_grpc(&self) -> bool {
        is_grpc(self.method, self.headers)
    }
}

/// Whether this is the head of a gRPC request (gRPC over HTTP/2, "Requests"): POST with the content type `application/grpc`, alone or
/// followed by `+` and an encoding, or by parameters. gRPC-Web is another protocol.
pub fn is_grpc(method: &Method, headers: &HeaderMap) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    if method != Method::POST {
        return false;
    }
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let Some((start, rest)) = value.as_bytes().split_at_checked(TYPE.len()) else { return false };
    start.eq_ignore_ascii_case(TYPE) && rest.first().is_none_or(|next| matches!(next, b'+' | b';' | b' '))
}

/// The rule that answers a request. Revision, rule and services come from one snapshot, which it keeps alive.
#[derive(Debug, Clone)]
pub struct Matched {
    /// What it was matched by; retry and mirror look services up here.
    pub snapshot: Arc<Snapshot>,
    /// The rule.
    pub rule: Arc<CompiledRule>,
    /// Which of the rule's matches held.
    pub match_index: usize,
    /// The request's path, where the match has parameters. A short one stands in place.
    path: Option<SmolStr>,
}

impl Matched {
    /// Of a match that holds for `path`.
    pub(super) fn new(snapshot: Arc<Snapshot>, rule: Arc<CompiledRule>, match_index: usize, path: &str) -> Matched {
        let match_type = rule.rule.matches[match_index].path.match_type;
        let path = (match_type == PathMatchType::PathTemplate).then(|| SmolStr::new(path));
        Matched { snapshot, rule, match_index, path }
    }

    /// The match that held.
    pub fn route_match(&self) -> &RouteMatch {
        &self.rule.rule.matches[self.match_index]
    }

    /// The values of its parameters.
    pub fn captures(&self) -> Captures<'_> {
        match &self.path {
            Some(path) => Captures { template: &self.route_match().path.value, path },
            None => Captures::default(),
        }
    }
}

/// The values of a template's parameters, in the order of the template. Empty for other paths.
///
/// Few rules use them: the path is taken apart by who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Captures<'m> {
    template: &'m str,
    path: &'m str,
}

impl<'m> Captures<'m> {
    /// The value of the parameter `name`.
    pub fn get(self, name: &str) -> Option<&'m str> {
        self.iter().find(|(parameter, _)| *parameter == name).map(|(_, value)| value)
    }

    /// Names and values.
    pub fn iter(self) -> impl Iterator<Item = (&'m str, &'m str)> {
        captures(self.template, self.path)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }
}
