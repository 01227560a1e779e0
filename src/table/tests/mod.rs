//! Tests of matching: cases as scripts, and random tables against a reference.

mod certificates;
pub(super) mod documents;
mod forecast;
mod precedence;
mod random;
mod reference;
mod script;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::compile::compile_route;
use super::request::RequestView;
use super::rule::CompiledRoute;
use super::snapshot::Snapshot;
use crate::model::spec::{HeaderMatch, PathMatch, PathMatchType, Pattern, QueryMatch, RouteMatch, RouteSpec, Rule, ValueMatch};
use crate::model::{Kind, Name, Resource, ResourceKey, Revision, Timestamp};

/// A route of a test, before it is compiled.
#[derive(Debug, Clone)]
struct TestRoute {
    name: String,
    created: u64,
    is_grpc: bool,
    spec: RouteSpec,
}

impl TestRoute {
    fn kind(&self) -> Kind {
        if self.is_grpc { Kind::GrpcRoute } else { Kind::Route }
    }

    fn key(&self) -> ResourceKey {
        ResourceKey::new(self.kind(), Name::new(&self.name).unwrap())
    }
}

/// A request that owns its parts.
#[derive(Debug, Clone)]
struct TestRequest {
    listener: String,
    host: String,
    path: String,
    query: Option<String>,
    method: Method,
    headers: HeaderMap,
}

impl TestRequest {
    fn view(&self) -> RequestView<'_> {
        RequestView {
            listener: &self.listener,
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
        }
    }

    fn add_header(&mut self, name: &str, value: &str) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
    }
}

fn compiled(route: &TestRoute) -> Arc<CompiledRoute> {
    let revision = Revision(route.created);
    let spec = Bytes::from_static(b"{}");
    let resource = Resource { key: route.key(), created_revision: revision, revision, updated_at: Timestamp(0), spec };
    Arc::new(compile_route(&resource, route.spec.clone()))
}

fn add(snapshot: &mut Snapshot, route: &TestRoute) {
    snapshot.add_route(compiled(route));
}

/// All at once.
fn snapshot_of(routes: &[TestRoute]) -> Arc<Snapshot> {
    let mut snapshot = Snapshot::empty();
    snapshot.fill(routes.iter().map(compiled).collect());
    Arc::new(snapshot)
}

/// `~` before an expression, the text itself otherwise.
fn value_match(text: &str) -> ValueMatch {
    match text.strip_prefix('~') {
        Some(expression) => ValueMatch::RegularExpression(Arc::new(Pattern::new(expression).unwrap())),
        None => ValueMatch::Exact(text.to_owned()),
    }
}

/// `route/rule/match`, or `404`.
fn answer(snapshot: &Arc<Snapshot>, request: &TestRequest) -> String {
    match snapshot.find(&request.view()) {
        Some(found) => format!("{}/{}/{}", found.rule.route, found.rule.rule_index, found.match_index),
        None => "404".to_owned(),
    }
}

fn path_match(match_type: PathMatchType, value: &str) -> RouteMatch {
    let pattern = (match_type == PathMatchType::RegularExpression).then(|| Arc::new(Pattern::new(value).unwrap()));
    let path = PathMatch { match_type, value: value.into(), pattern };
    RouteMatch { path, method: None, headers: Box::default(), query_params: Box::default() }
}

fn header_match(name: &str, value: &str) -> HeaderMatch {
    HeaderMatch { name: HeaderName::from_bytes(name.as_bytes()).unwrap(), value: value_match(value) }
}

fn query_match(name: &str, value: &str) -> QueryMatch {
    QueryMatch { name: name.to_owned(), value: value_match(value) }
}

/// Adds a condition to a list.
fn push<T>(list: &mut Box<[T]>, item: T) {
    *list = std::mem::take(list).into_iter().chain([item]).collect();
}

fn rule_of(matches: Vec<RouteMatch>) -> Rule {
    Rule { matches: matches.into(), ..Rule::default() }
}
