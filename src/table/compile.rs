//! From resources to rules and services.
//!
//! A document that this node cannot read (it is of a later version, say) is never dropped in silence. It is reported, and a route's share
//! of the requests is answered with 500, as far as that share can be known:
//!
//! - its hostnames and listeners, if they can be read; else nothing is known and it is only reported;
//! - of each rule the matches, if they can be read; else every path of its hostnames, behind all candidates for `PathPrefix /` there.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};
use smol_str::SmolStr;

use super::certificate::Certificate;
use super::certificates::compile_certificate;
use super::key::ANY_HOST;
use super::rule::{CompiledRoute, CompiledRule, Scope, Service, ServiceId};
use crate::model::spec::{
    Document, FieldError, Matches, Parsed, PathMatch, PathMatchType, RouteMatch, RouteSpec, Rule, parse_route, parse_service,
    read_grpc_route, read_route,
};
use crate::model::{Kind, Resource};
use crate::secrets::Keyring;

/// A document in the form that serves.
#[derive(Debug)]
pub(super) enum Compiled {
    Route(Arc<CompiledRoute>),
    Service(Arc<Service>),
    Certificate(Certificate),
    Nothing,
}

/// From this many resources on, all cores compile: it is most of what a start waits for.
pub(super) const PARALLEL_MIN: usize = 1_000;

/// What a resource compiles to, and the reason why it does not compile, or not wholly.
pub(super) type Compilation = (Compiled, Option<Arc<str>>);

/// Compiles resources, in their order.
pub(super) fn compile_all<'a>(resources: &[&'a Resource], keyring: &Keyring) -> Vec<(&'a Resource, Compilation)> {
    let compile_these = |resources: &[&'a Resource]| -> Vec<(&'a Resource, Compilation)> {
        resources.iter().map(|resource| (*resource, compile(resource, keyring))).collect()
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    if resources.len() < PARALLEL_MIN || cores == 1 {
        return compile_these(resources);
    }
    thread::scope(|scope| {
        let parts = resources.chunks(resources.len().div_ceil(cores));
        let parts: Vec<_> = parts.map(|part| scope.spawn(move || compile_these(part))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Does two things, at one time where that is worth a thread.
pub(super) fn side_by_side<A, B: Send>(is_large: bool, one: impl FnOnce() -> A, other: impl FnOnce() -> B + Send) -> (A, B) {
    if !is_large {
        return (one(), other());
    }
    thread::scope(|scope| {
        let other = scope.spawn(other);
        (one(), other.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Compiles a resource; beside it the reason why it does not compile, or not wholly. Secrets are opened with `keyring`.
pub(super) fn compile(resource: &Resource, keyring: &Keyring) -> Compilation {
    if let Kind::Unknown(code) = resource.key.kind {
        return (Compiled::Nothing, Some(format!("kind {code} is not known to this version").into()));
    }
    if let Kind::Route | Kind::GrpcRoute = resource.key.kind {
        return compile_any_route(resource);
    }
    let document: Value = match serde_json::from_slice(&resource.spec) {
        Ok(document) => document,
        Err(error) => return not_json(&error),
    };
    match resource.key.kind {
        Kind::Service => match parse_service(&document) {
            Ok(parsed) => {
                let id = ServiceId { name: resource.key.name.clone(), created_revision: resource.created_revision };
                (Compiled::Service(Arc::new(Service { id, spec: parsed.spec })), None)
            }
            Err(errors) => (Compiled::Nothing, Some(reason(&errors).into())),
        },
        Kind::Certificate => match compile_certificate(resource, &document, keyring) {
            Ok(certificate) => (Compiled::Certificate(certificate), None),
            Err(reason) => (Compiled::Nothing, Some(reason.into())),
        },
        Kind::Route | Kind::GrpcRoute | Kind::Unknown(_) => (Compiled::Nothing, None),
    }
}

fn not_json(error: &serde_json::Error) -> Compilation {
    (Compiled::Nothing, Some(format!("the document is not JSON: {error}").into()))
}

fn compile_any_route(resource: &Resource) -> Compilation {
    let document: Document<'_> = match serde_json::from_slice(&resource.spec) {
        Ok(document) => document,
        Err(error) => return not_json(&error),
    };
    match reader(resource)(&document) {
        Ok(parsed) => (Compiled::Route(Arc::new(compile_route(resource, parsed.spec))), None),
        Err(errors) => unreadable_route(resource, reason(&errors)),
    }
}

/// What reads the documents of a route's kind.
fn reader(route: &Resource) -> fn(&Document<'_>) -> Result<Parsed<RouteSpec>, Vec<FieldError>> {
    if route.key.kind == Kind::GrpcRoute { read_grpc_route } else { read_route }
}

/// A route whose spec was read.
pub(super) fn compile_route(resource: &Resource, spec: RouteSpec) -> CompiledRoute {
    let scope = scope(spec.hostnames, spec.listeners);
    let rules = spec.rules.into_iter().zip(0..);
    let rules = rules.map(|(rule, index)| compiled_rule(resource, index, rule, &scope, None, false));
    CompiledRoute { key: resource.key.clone(), rules: rules.collect() }
}

fn unreadable_route(resource: &Resource, reason: String) -> Compilation {
    let document: Value = serde_json::from_slice(&resource.spec).unwrap_or_default();
    let outline = json!({
        "hostnames": document.get("hostnames").unwrap_or(&json!([])),
        "listeners": document.get("listeners").unwrap_or(&json!([])),
        "rules": [{}],
    });
    let Ok(outline) = parse_route(&outline) else { return (Compiled::Nothing, Some(reason.into())) };
    let scope = scope(outline.spec.hostnames, outline.spec.listeners);
    let empty = Vec::new();
    let rules = document.get("rules").and_then(Value::as_array).unwrap_or(&empty);
    let rules = rules.iter().zip(0..).map(|(rule, index)| {
        let known = readable_matches(resource, rule);
        let guessed = known.is_none();
        let rule = Rule { matches: known.unwrap_or_else(|| Matches::One(every_path())), ..Rule::default() };
        compiled_rule(resource, index, rule, &scope, Some(Box::from(reason.as_str())), guessed)
    });
    let route = CompiledRoute { key: resource.key.clone(), rules: rules.collect() };
    (Compiled::Route(Arc::new(route)), Some(reason.into()))
}

fn readable_matches(route: &Resource, rule: &Value) -> Option<Matches> {
    let matches = rule.get("matches").cloned().unwrap_or_else(|| json!([]));
    let parsed = reader(route)(&(&json!({ "rules": [{ "matches": matches }] })).into()).ok()?;
    parsed.spec.rules.into_iter().next().map(|rule| rule.matches)
}

fn every_path() -> RouteMatch {
    let path = PathMatch { match_type: PathMatchType::PathPrefix, value: SmolStr::new_static("/"), pattern: None };
    RouteMatch { path, method: None, headers: Box::default(), query_params: Box::default() }
}

fn scope(mut hostnames: Vec<String>, listeners: Vec<String>) -> Arc<Scope> {
    if hostnames.is_empty() {
        hostnames.push(ANY_HOST.to_owned());
    }
    hostnames.sort();
    hostnames.dedup();
    let hostnames = hostnames.into_iter().map(SmolStr::from).collect();
    let listeners = listeners.into_iter().map(String::into_boxed_str).collect();
    Arc::new(Scope { hostnames, listeners })
}

fn compiled_rule(
    resource: &Resource,
    rule_index: u32,
    rule: Rule,
    scope: &Arc<Scope>,
    unservable: Option<Box<str>>,
    guessed: bool,
) -> Arc<CompiledRule> {
    Arc::new(CompiledRule {
        route: resource.key.name.clone(),
        created_revision: resource.created_revision,
        rule_index,
        rule,
        unservable,
        guessed,
        is_grpc: resource.key.kind == Kind::GrpcRoute,
        scope: Arc::clone(scope),
    })
}

/// Faults of a document in one line.
pub(super) fn reason(errors: &[FieldError]) -> String {
    let list: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
    list.join("; ")
}
