//! One request, from its head to the head of its answer, phase by phase. Read [`run`] from top to bottom.
//!
//! 1. *admit*: refuse what cannot be understood in one way only;
//! 2. *park*: wait for the revision that the request asks for;
//! 3. *match*: load the table once; revision, rule and service all come from this load;
//! 4. *prepare*: what the backend will see: fields, path, host;
//! 5. *forward*: choose service and endpoint, send, and send again once where that is safe;
//! 6. *answer*: what the client will see.
//!
//! Bodies stream on beside this, in both directions, one frame at a time; [`ResponseBody`] ends the exchange.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, LOCATION, TRAILER, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, request};
use hyper::body::{Body, Incoming};

use super::authority::{Authority, authority};
use super::body::ResponseBody;
use super::connection::ClientConnection;
use super::fault::Fault;
use super::listener::ListenerOptions;
use super::tally::Tally;
use super::{filter, grpc, headers, rewrite};
use crate::model::spec::RequestRedirect;
use crate::model::{Kind, MethodRefusal, Name, path};
use crate::table::{Matched, RequestView, Service, is_grpc};
use crate::upstream::balance::choose;
use crate::upstream::{BodyProgress, BodyState, Endpoint, Lease, RequestBody, SendError, SendFailure};

/// Bytes of a request's target at most.
const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Tries at most, where no retry stanza says otherwise.
const TRIES_MAX: u32 = 2;

/// Answers one request. Never an error: every failure has an answer, or ends the connection through the body.
pub(super) async fn serve(
    connection: Rc<ClientConnection>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let mut tally = Tally::begin(&connection, &request);
    let is_grpc = is_grpc(request.method(), request.headers());
    let mut options = &connection.listener().options;
    let (mut head, content) = match run(&connection, request, &mut tally, &mut options).await {
        Ok(Answer { head, content }) => (head, content),
        Err(fault) => {
            tally.note_error(fault.error());
            let (head, body) = told(&fault, is_grpc);
            (head, Content::Whole(body))
        }
    };
    if options.debug_headers {
        head.headers_mut().insert(headers::RAFTGATE_REVISION, HeaderValue::from(tally.revision().0));
    }
    if matches!(content, Content::Whole(_)) {
        // A backend says itself what it answered to; nobody else says it of the gateway's own answers.
        head.headers_mut().insert(headers::X_REQUEST_ID, tally.request_id());
    }
    if connection.worker().is_draining() {
        head.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    tally.note_status(head.status());
    Ok(head.map(|()| match content {
        Content::Whole(bytes) => ResponseBody::whole(bytes, tally),
        Content::Backend { incoming, lease, deadline } => ResponseBody::backend(incoming, lease, deadline.map(Into::into), tally),
    }))
}

/// The gateway's own answer: a problem or, to a gRPC request, a status of gRPC.
fn told(fault: &Fault, is_grpc: bool) -> (Response<()>, Bytes) {
    let (status, (headers, body)) = match is_grpc && !fault.is_http_only() {
        true => (StatusCode::OK, grpc::answer(fault)),
        false => (fault.status(), fault.answer()),
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    (response, body)
}

/// The head of an answer and where its body comes from.
struct Answer {
    head: Response<()>,
    content: Content,
}

enum Content {
    Whole(Bytes),
    Backend { incoming: Incoming, lease: Lease, deadline: Option<Instant> },
}

/// `options` become those of the listener that takes the request, once its host is known.
async fn run<'c>(
    connection: &'c Rc<ClientConnection>,
    request: Request<Incoming>,
    tally: &mut Tally,
    options: &mut &'c ListenerOptions,
) -> Result<Answer, Fault> {
    let (mut head, body) = request.into_parts();

    let admitted = admit(connection, &head)?;
    *options = admitted.options;
    tally.note_host(&admitted.authority.host());

    if admitted.options.min_revision {
        connection.worker().parking.wait(&head.headers).await?;
    }

    let matched = find_rule(connection, &head, &admitted, tally)?;
    if let Some(redirect) = filter::redirect(&matched.rule.rule) {
        return redirected(connection, &head, &admitted, &matched, redirect);
    }

    head.headers.insert(headers::X_REQUEST_ID, tally.request_id());
    let takes_trailers = headers::takes_trailers(&head);
    prepare(connection, &mut head, &admitted, &matched)?;

    let request = Request::from_parts(head, RequestBody::new(body, admitted.options.body_bytes_max));
    let (response, lease, deadline) = forward(connection, &matched, request, tally).await?;

    Ok(answer(&matched, response, lease, deadline, takes_trailers))
}

// ---- admit

/// What a request means, once that is beyond doubt.
struct Admitted<'c> {
    /// Those of the listener that takes it.
    options: &'c ListenerOptions,
    authority: Authority,
    /// Normalised; `None` where the target's own path is normal already.
    path: Option<String>,
}

impl Admitted<'_> {
    fn path<'a>(&'a self, uri: &'a Uri) -> &'a str {
        self.path.as_deref().unwrap_or(uri.path())
    }
}

fn admit<'c>(connection: &'c ClientConnection, head: &request::Parts) -> Result<Admitted<'c>, Fault> {
    if let Some(refusal) = MethodRefusal::of(&head.method) {
        return Err(Fault::method(refusal));
    }
    headers::check_framing(&head.headers)?;
    headers::check_expectation(&head.headers)?;
    let uri = &head.uri;
    if uri.path_and_query().map_or(0, |target| target.as_str().len()) > TARGET_BYTES_MAX {
        return Err(Fault::uri_too_long());
    }
    if !is_target(&head.method, uri) {
        return Err(Fault::bad_request("the request target is not a path"));
    }
    let authority = authority(uri, &head.headers)?;
    let options = connection.listener().of_host(&authority.host()).ok_or_else(Fault::no_listener)?;
    let is_too_large = |limit: u64| content_length(&head.headers).is_some_and(|length| length > limit);
    if options.body_bytes_max.is_some_and(is_too_large) {
        return Err(Fault::body_too_large());
    }
    let path = match uri.path() {
        "*" => None,
        path => match path::normalize(path, options.escaped_slashes) {
            Ok(Cow::Borrowed(_)) => None,
            Ok(Cow::Owned(normal)) => Some(normal),
            Err(_) => return Err(Fault::bad_request("the path is not valid, or holds an escaped slash")),
        },
    };
    Ok(Admitted { options, authority, path })
}

/// Origin form, absolute form of `http`, or `*` with OPTIONS (RFC 9112 3.2). hyper reads `GET foo` as an authority.
fn is_target(method: &Method, uri: &Uri) -> bool {
    match uri.scheme_str() {
        None => uri.authority().is_none() && (uri.path().starts_with('/') || (uri.path() == "*" && *method == Method::OPTIONS)),
        Some(scheme) => scheme == "http" && uri.path().starts_with('/'),
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

// ---- match

fn find_rule(
    connection: &ClientConnection,
    head: &request::Parts,
    admitted: &Admitted<'_>,
    tally: &mut Tally,
) -> Result<Matched, Fault> {
    let snapshot = connection.worker().live.load();
    let listener = &admitted.options.name;
    let host = admitted.authority.host();
    let found = snapshot.find(&RequestView {
        listener,
        host: &host,
        path: admitted.path(&head.uri),
        query: head.uri.query(),
        method: &head.method,
        headers: &head.headers,
    });
    tally.note_rule(snapshot.revision, found.as_ref().map(|matched| &matched.rule));
    let Some(matched) = found else {
        connection.worker().metrics.route_misses.inc();
        let is_grpc = is_grpc(&head.method, &head.headers) && snapshot.has_grpc(&host, listener);
        return Err(if is_grpc { Fault::no_grpc_route() } else { Fault::no_route() });
    };
    match &matched.rule.unservable {
        Some(reason) => Err(Fault::configuration(format!("route {}: {reason}", matched.rule.route))),
        None => Ok(matched),
    }
}

fn redirected(
    connection: &ClientConnection,
    head: &request::Parts,
    admitted: &Admitted<'_>,
    matched: &Matched,
    redirect: &RequestRedirect,
) -> Result<Answer, Fault> {
    let path = admitted.path(&head.uri);
    let path = match &redirect.path {
        None => Cow::Borrowed(path),
        Some(modifier) => rewrite::modified_path(modifier, path, &matched.route_match().path.value, &matched.captures),
    };
    let port = connection.listener().address.port();
    let location = rewrite::location(redirect, &admitted.authority.host(), port, &path, head.uri.query());
    let location = HeaderValue::try_from(location).map_err(|_| Fault::configuration("the redirect's location is not valid"))?;
    let mut response = Response::new(());
    *response.status_mut() = redirect.status_code;
    response.headers_mut().insert(LOCATION, location);
    filter::modify_response(&matched.rule.rule, response.headers_mut());
    Ok(Answer { head: response, content: Content::Whole(Bytes::new()) })
}

// ---- prepare

/// Turns the client's head into the backend's. What the gateway sets comes after what a client's `Connection` may remove; the
/// rule's filters come last, for they are the operator's word.
fn prepare(
    connection: &ClientConnection,
    head: &mut request::Parts,
    admitted: &Admitted<'_>,
    matched: &Matched,
) -> Result<(), Fault> {
    let rule = &matched.rule.rule;
    headers::remove_hop_by_hop(&mut head.headers);
    head.headers.remove(EXPECT);
    let sender = headers::Sender { address: connection.forwarded_for(), is_trusted: connection.is_trusted() };
    headers::set_forwarded(&mut head.headers, &admitted.authority, sender);
    let rewrite = filter::url_rewrite(rule);
    if let Some(hostname) = rewrite.and_then(|rewrite| rewrite.hostname.as_deref()) {
        let value = HeaderValue::from_str(hostname).map_err(|_| Fault::configuration("the rewritten host is not valid"))?;
        head.headers.insert(HOST, value);
    }
    filter::modify_request(rule, &mut head.headers);
    let modifier = rewrite.and_then(|rewrite| rewrite.path.as_ref());
    let new_path = match modifier {
        Some(modifier) => {
            let prefix = &matched.route_match().path.value;
            Some(rewrite::modified_path(modifier, admitted.path(&head.uri), prefix, &matched.captures))
        }
        None => admitted.path.as_deref().map(Cow::Borrowed),
    };
    head.uri = target(&head.uri, new_path)?;
    head.version = Version::HTTP_11;
    Ok(())
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

// ---- forward

type Forwarded = (Response<Incoming>, Lease, Option<Instant>);

async fn forward(
    connection: &Rc<ClientConnection>,
    matched: &Matched,
    request: Request<RequestBody>,
    tally: &mut Tally,
) -> Result<Forwarded, Fault> {
    let service = choose_service(connection, matched)?;
    tally.note_service(&service);
    let name = &service.id.name;
    if matched.rule.kind() == Kind::GrpcRoute && !service.spec.protocol.carries_grpc() {
        return Err(Fault::no_grpc(name));
    }
    let timeouts = matched.rule.rule.timeouts;
    let total = timeouts.request.map(|timeout| tally.started() + timeout);
    let progress = request.body().progress();
    let mut request = request;
    let mut failed: Option<Rc<Endpoint>> = None;
    for attempt in 1..=TRIES_MAX {
        let endpoint = connection.worker().upstreams.endpoint(&service, failed.as_ref());
        let endpoint = endpoint.ok_or_else(|| Fault::no_endpoint(name))?;
        tally.note_try(endpoint.address());
        let asked = Instant::now();
        let deadline = earlier(total, timeouts.backend_request.map(|timeout| asked + timeout));
        let tried = within(connection, deadline, send(connection, &service, &endpoint, request, attempt > 1)).await;
        let failure = match tried {
            Some(Ok((response, lease))) => {
                tally.note_upstream(asked);
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    return Err(Fault::unexpected_upgrade(name));
                }
                return Ok((response, lease, deadline));
            }
            Some(Err(failure)) => failure,
            None => return Err(late_fault(progress.as_deref(), total, name)),
        };
        if let Some(fault) = body_fault(progress.as_deref()) {
            return Err(fault);
        }
        tracing::debug!(service = %name, error = &failure.failure as &dyn std::error::Error, attempt, "try failed");
        match failure.unsent {
            Some(unsent) if attempt < TRIES_MAX => request = *unsent,
            _ => return Err(Fault::upstream(name, &failure.failure)),
        }
        failed = Some(endpoint);
    }
    Err(Fault::no_endpoint(name))
}

/// The service whose share this request falls into, by the services of the snapshot that it was matched by.
fn choose_service(connection: &ClientConnection, matched: &Matched) -> Result<Arc<Service>, Fault> {
    let references = &matched.rule.rule.backend_refs;
    let index = match references.as_slice() {
        [only] if only.weight > 0 => Some(0),
        _ => choose(references.iter().map(|reference| reference.weight), connection.worker().point()),
    };
    let Some(index) = index else {
        let reason = if references.is_empty() { "the rule has no backends" } else { "no backend has a weight" };
        return Err(Fault::configuration(format!("route {}: {reason}", matched.rule.route)));
    };
    let name = &references[index].name;
    matched.snapshot.service(name).cloned().ok_or_else(|| Fault::missing_service(name))
}

/// One try. An error gives the request back where sending it again is safe: no byte of it went out, or the other side closed a reused
/// connection before a byte of an answer, and the method is idempotent (RFC 9110 9.2.2) and there is no body.
async fn send(
    connection: &ClientConnection,
    service: &Service,
    endpoint: &Rc<Endpoint>,
    request: Request<RequestBody>,
    fresh: bool,
) -> Result<(Response<Incoming>, Lease), SendError> {
    let upstream = match endpoint.connection(service.spec.connect_timeout, fresh).await {
        Ok(upstream) => upstream,
        Err(error) => {
            count_connect(connection, service, "failed");
            return Err(SendError { unsent: Some(Box::new(request)), ..error });
        }
    };
    if !upstream.is_reused() {
        count_connect(connection, service, "opened");
    }
    let copy = (upstream.is_reused() && request.method().is_idempotent() && matches!(request.body(), RequestBody::Empty))
        .then(|| copy_of(&request));
    let sent = upstream.send(endpoint, request).await;
    sent.map_err(|error| match (error.unsent, *error.failure) {
        (None, failure @ SendFailure::Terminated { .. }) => SendError { failure: Box::new(failure), unsent: copy.map(Box::new) },
        (unsent, failure) => SendError { failure: Box::new(failure), unsent },
    })
}

fn count_connect(connection: &ClientConnection, service: &Service, result: &str) {
    let family = &connection.worker().metrics.upstream_connects;
    family.with_label_values(&[service.id.name.as_str(), result]).inc();
}

fn copy_of(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// What the client did to its own request, if that is why a try failed.
fn body_fault(progress: Option<&BodyProgress>) -> Option<Fault> {
    match progress?.state() {
        BodyState::TooLarge => Some(Fault::body_too_large()),
        BodyState::Broken => Some(Fault::body_broken()),
        BodyState::Unstarted | BodyState::Started | BodyState::Awaited | BodyState::Complete => None,
    }
}

/// Whose fault it is that there is no answer in time: not the service's where the client still owes part of its request.
fn late_fault(progress: Option<&BodyProgress>, total: Option<Instant>, name: &Name) -> Fault {
    if let Some(fault) = body_fault(progress) {
        return fault;
    }
    let is_awaited = progress.is_some_and(|progress| progress.state() == BodyState::Awaited);
    match total.is_some_and(|total| Instant::now() >= total) {
        _ if !is_awaited => Fault::no_answer_in_time(name),
        true => Fault::request_incomplete("the request did not complete within timeouts.request"),
        false => Fault::request_incomplete("the request's body did not come in time"),
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// `future`'s output, or `None` once the deadline passed or the connection stood still for too long. A timer is armed only for a
/// deadline of the rule's own.
async fn within<F: Future>(connection: &ClientConnection, deadline: Option<Instant>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let unless_stalled = poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if connection.is_stalled() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    match deadline {
        None => unless_stalled.await,
        Some(deadline) => tokio::time::timeout_at(deadline.into(), unless_stalled).await.unwrap_or(None),
    }
}

// ---- answer

/// Turns the backend's head into the client's; its fields are moved, not copied.
fn answer(
    matched: &Matched,
    response: Response<Incoming>,
    lease: Lease,
    deadline: Option<Instant>,
    takes_trailers: bool,
) -> Answer {
    let (mut head, incoming) = response.into_parts();
    // Only chunks are followed by trailers, and only where the client takes them.
    if !takes_trailers || incoming.is_end_stream() || !head.headers.contains_key(TRANSFER_ENCODING) {
        head.headers.remove(TRAILER);
    }
    headers::remove_hop_by_hop(&mut head.headers);
    headers::extend_via(&mut head.headers);
    filter::modify_response(&matched.rule.rule, &mut head.headers);
    head.version = Version::HTTP_11;
    // What hyper's client noted of this message (a reason phrase) is not the client's concern.
    head.extensions.clear();
    Answer { head: Response::from_parts(head, ()), content: Content::Backend { incoming, lease, deadline } }
}
