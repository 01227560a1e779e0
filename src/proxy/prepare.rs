//! The fourth phase of an exchange: what the backend and the mirrors will see, made of what the client sent.

use std::borrow::Cow;

use http::header::{EXPECT, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Uri, Version, request};

use super::fault::Fault;
use super::forward::{Asked, Backend};
use super::present::Present;
use super::upgrade::Upgrade;
use super::{filter, grpc, headers, rewrite};
use crate::model::spec::Filter;
use crate::table::Matched;
use crate::upstream::RequestBody;

/// The path of a request in the form that is matched and sent on.
#[derive(Debug)]
pub(super) struct NormalPath(pub(super) Option<String>);

impl NormalPath {
    /// `uri` is the request's own target, where that is normal already.
    pub(super) fn of<'a>(&'a self, uri: &'a Uri) -> &'a str {
        self.0.as_deref().unwrap_or(uri.path())
    }
}

/// Takes out of a head what is for the gateway. What the gateway has set no client's `Connection` removes.
pub(super) fn strip(head: &mut request::Parts, present: Present) {
    headers::remove_hop_by_hop(&mut head.headers, present);
    if present.has(Present::EXPECT) {
        head.headers.remove(EXPECT);
    }
    headers::join_cookies(&mut head.headers, present);
}

/// A head as the filters before `place` make it; `None` where that cannot be sent.
pub(super) fn prepared_up_to(
    place: usize,
    mut head: request::Parts,
    path: &NormalPath,
    matched: &Matched,
) -> Option<request::Parts> {
    let filters = matched.rule.rule.filters.get(..place)?;
    prepare(filters, &mut head, path, matched).ok()?;
    Some(head)
}

/// Turns the client's head into the backend's. The rule's filters come last, for they are the operator's word. Gives the client's target.
pub(super) fn prepare(filters: &[Filter], head: &mut request::Parts, path: &NormalPath, matched: &Matched) -> Result<Uri, Fault> {
    let by_rule = apply(filters, &mut head.headers, path.of(&head.uri), matched)?;
    let sent_on = target(&head.uri, by_rule.or(path.0.as_deref().map(Cow::Borrowed)))?;
    head.version = Version::HTTP_11;
    Ok(std::mem::replace(&mut head.uri, sent_on))
}

/// What the backend is asked for beside the request itself.
pub(super) fn ask(
    backend: &Backend<'_>,
    headers: &mut HeaderMap,
    upgrade: Option<Upgrade>,
    takes_trailers: bool,
) -> Result<Asked, Fault> {
    let speaks_http2 = backend.service.spec.protocol.carries_grpc();
    if let Some(upgrade) = &upgrade {
        if speaks_http2 {
            return Err(Fault::no_upgrade(&backend.service.id.name));
        }
        upgrade.ask(headers);
    }
    if speaks_http2 && takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(Asked { upgrade, timeout: grpc::timeout(headers) })
}

/// Passes `100-continue` on (RFC 9110 10.1.1): the client is asked for its body once the backend asks, for that is when it is read.
pub(super) fn wait_for_go_ahead(mut head: request::Parts, mut body: RequestBody, is_expected: bool) -> Request<RequestBody> {
    if is_expected && body.hold() {
        head.headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
    }
    Request::from_parts(head, body)
}

/// Runs the filters of the backend alone, after the rule's. `client_target` is what the client asked for.
pub(super) fn prepare_for(
    backend: &Backend<'_>,
    head: &mut request::Parts,
    path: &NormalPath,
    matched: &Matched,
    client_target: &Uri,
) -> Result<(), Fault> {
    if let Some(new) = apply(backend.filters, &mut head.headers, path.of(client_target), matched)? {
        head.uri = target(client_target, Some(new))?;
    }
    Ok(())
}

/// Applies filters to the fields of a request; gives the new path where there is one.
fn apply<'a>(
    filters: &'a [Filter],
    headers: &mut HeaderMap,
    path: &str,
    matched: &Matched,
) -> Result<Option<Cow<'a, str>>, Fault> {
    filter::modify_request(filters, headers).map_err(|_| Fault::configuration("the rewritten host is not valid"))?;
    let modifier = filter::url_rewrite(filters).and_then(|rewrite| rewrite.path.as_ref());
    Ok(modifier.map(|modifier| rewrite::modified_path(modifier, path, &matched.route_match().path.value, matched.captures())))
}

/// The origin form that is sent on. The query stays as it came.
fn target(uri: &Uri, new_path: Option<Cow<'_, str>>) -> Result<Uri, Fault> {
    let invalid = |_| Fault::configuration("the rewritten path is not valid");
    let path_and_query = match (new_path, uri.query()) {
        (None, _) => uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
        (Some(path), None) => PathAndQuery::try_from(path.into_owned()).map_err(invalid)?,
        (Some(path), Some(query)) => PathAndQuery::try_from(format!("{path}?{query}")).map_err(invalid)?,
    };
    Ok(Uri::from(path_and_query))
}
