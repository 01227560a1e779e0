//! One request, from its head to the head of its answer, phase by phase. Read [`run`] from top to bottom.
//!
//! 1. *admit*: refuse what cannot be understood in one way only;
//!    What asks for another protocol is known from here on (`upgrade`);
//! 2. *park*: wait for the revision that the request asks for;
//! 3. *match*: load the table once; revision, rule and service all come from this load. Preflights and redirects are answered here;
//! 4. *prepare*: choose the backend, and make what it and the mirrors will see: fields, path, host (`prepare`);
//! 5. *forward*: choose an endpoint, send, and send again where that is safe (`forward`);
//! 6. *answer*: what the client will see.
//!
//! Bodies stream on beside this, in both directions, one frame at a time; [`ResponseBody`] ends the exchange.

use std::borrow::Cow;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, LOCATION, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, request};
use hyper::body::Body;

use super::authority::{Authority, authority};
use super::body::ResponseBody;
use super::connection::{ClientConnection, Protocol};
use super::cors::Sharing;
use super::fault::Fault;
use super::forward::{choose_backend, forward};
use super::framing::Flaw;
use super::listener::ListenerOptions;
use super::prepare::{NormalPath, ask, prepare, prepare_for, prepared_up_to, strip, wait_for_go_ahead};
use super::present::Present;
use super::tally::Tally;
use super::tunnel::Tunnel;
use super::upgrade::Upgrade;
use super::{filter, framing, grpc, headers, mirror, rewrite};
use crate::model::sender::{self, Sender};
use crate::model::spec::{Filter, RequestRedirect};
use crate::model::{MethodRefusal, path};
use crate::table::{Matched, RequestView, is_grpc};
use crate::upstream::{AnswerBody, ClientBody, RequestBody, Switched, Trailers};

/// Answers one request. Never an error: every failure has an answer, or ends the connection through the body.
pub(super) async fn serve(
    connection: Rc<ClientConnection>,
    request: Request<ClientBody>,
) -> Result<Response<ResponseBody>, Infallible> {
    let present = Present::of(request.headers());
    let mut tally = Tally::begin(&connection, &request, present);
    let is_grpc = is_grpc(request.method(), request.headers());
    let (is_chunked, is_http10) = (present.has(Present::TRANSFER_ENCODING), request.version() == Version::HTTP_10);
    let mut options = &connection.listener().options;
    let mut sharing = None;
    let (mut head, content) = match run(&connection, request, present, &mut tally, &mut options, &mut sharing).await {
        Ok(Answer { head, content }) => (head, content),
        Err(fault) => {
            tally.note_error(fault.error());
            let (head, body) = told(&fault, is_grpc);
            (head, Content::Whole(body))
        }
    };
    if let Some(sharing) = sharing {
        // Of all answers of the rule, the gateway's own too: a page can tell its author what failed only if it may read it.
        sharing.write(head.headers_mut());
    }
    if options.debug_headers {
        head.headers_mut().insert(headers::RAFTGATE_REVISION, HeaderValue::from(tally.revision().0));
    }
    if matches!(content, Content::Whole(_)) {
        // A backend says itself what it answered to; nobody else says it of the gateway's own answers.
        head.headers_mut().insert(headers::X_REQUEST_ID, tally.request_id());
    }
    match connection.protocol() {
        // It has no fields that concern the connection (RFC 9113 8.2.2): a drain is told by GOAWAY.
        Protocol::Http2 => drop(head.headers_mut().remove(CONNECTION)),
        Protocol::Http1 if content.is_last(&connection, is_chunked, is_http10) => {
            head.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            if is_http10 {
                // Else hyper says, to a client that asked, that it is kept.
                *head.version_mut() = Version::HTTP_10;
            }
        }
        Protocol::Http1 => {}
    }
    tally.note_status(head.status());
    let body = match content {
        Content::Whole(bytes) => ResponseBody::whole(bytes, tally),
        Content::Backend { body, deadline } => {
            ResponseBody::backend(body, trailers_after(connection.protocol(), &head), deadline.map(Into::into), tally)
        }
        Content::Tunnel(upstream) => {
            connection.set_tunnel(Tunnel { upstream, tally });
            ResponseBody::none()
        }
    };
    Ok(head.map(|()| body))
}

/// Announces the trailers that end a call of gRPC, which no backend does: over HTTP/1.1 none is sent without.
fn announce_grpc(head: &mut Response<()>) {
    if matches!(Trailers::of(head.headers()), Trailers::OfGrpc) {
        head.headers_mut().append(TRAILER, grpc::TRAILERS);
    }
}

/// Which trailers may follow an answer. Over HTTP/1.1 hyper goes by its head.
fn trailers_after(protocol: Protocol, head: &Response<()>) -> Trailers {
    match protocol {
        Protocol::Http1 => Trailers::OfHead,
        Protocol::Http2 => Trailers::of(head.headers()),
    }
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

impl Answer {
    fn without_body(status: StatusCode) -> Answer {
        let mut head = Response::new(());
        *head.status_mut() = status;
        Answer { head, content: Content::Whole(Bytes::new()) }
    }
}

enum Content {
    Whole(Bytes),
    Backend { body: AnswerBody, deadline: Option<Instant> },
    Tunnel(Switched),
}

impl Content {
    /// Whether the connection, of HTTP/1.1, ends with this answer to a request that `is_chunked`, or of HTTP/1.0.
    fn is_last(&self, connection: &ClientConnection, is_chunked: bool, is_http10: bool) -> bool {
        // The rest of a request is not waited for beyond its answer (RFC 9112 9.3).
        let leaves_rest = connection.is_request_unfinished();
        match self {
            Content::Tunnel(_) => false,
            _ if connection.is_ending() => true,
            // Of chunks that nobody reads hyper takes one.
            Content::Whole(_) => leaves_rest || is_chunked,
            // One of unknown length may wait for the rest; to HTTP/1.0 its end is told by the connection's (RFC 9112 6.3).
            Content::Backend { body, .. } if body.size_hint().exact().is_none() => is_http10,
            Content::Backend { .. } => leaves_rest,
        }
    }
}

/// `options` become those of the listener that takes the request, once its host is known; `sharing` is what the rule says of CORS.
async fn run<'c>(
    connection: &'c Rc<ClientConnection>,
    request: Request<ClientBody>,
    present: Present,
    tally: &mut Tally,
    options: &mut &'c ListenerOptions,
    sharing: &mut Option<Box<Sharing>>,
) -> Result<Answer, Fault> {
    let (mut head, body) = request.into_parts();

    let upgrade = Upgrade::of(&mut head, present, || connection.worker().random_id())?;
    let admitted = admit(connection, &head, present)?;
    *options = admitted.options;
    tally.note_host(admitted.authority.host());

    if !headers::count_down(&head.method, &mut head.headers) {
        return match head.method {
            Method::TRACE => Err(Fault::not_implemented("TRACE to the gateway itself")),
            _ => Ok(Answer::without_body(StatusCode::NO_CONTENT)),
        };
    }
    if admitted.options.min_revision {
        Box::pin(connection.worker().parking.wait(&head.headers)).await?;
    }

    // Before a rule is looked for, which may match on it: on what is true of the client, and not on what it says.
    let (is_trusted, secured) = (connection.is_trusted(), connection.secured());
    let client = secured.and_then(|secured| secured.client.as_ref());
    sender::set_client_certificate(&mut head.headers, client, is_trusted);
    let sender = Sender {
        address: connection.forwarded_for(),
        is_trusted,
        is_secured: secured.is_some(),
        makes_claims: present.has(Present::CLAIMS),
        version: head.version,
    };
    sender::set_forwarded(&mut head.headers, &admitted.authority.field, admitted.authority.is_host, sender);
    let matched = find_rule(connection, &head, &admitted, tally)?;
    let body_bytes_max = matched.rule.rule.limits.max_request_body.or(admitted.options.body_bytes_max);
    if body_bytes_max.is_some_and(|limit| content_length(&head.headers).is_some_and(|length| length > limit)) {
        return Err(Fault::body_too_large());
    }
    if let Some(cors) = filter::cors(&matched.rule.rule.filters) {
        let sharing = sharing.insert(Box::new(Sharing::of(cors, &head)));
        if sharing.is_preflight() {
            return Ok(Answer::without_body(StatusCode::NO_CONTENT));
        }
    }
    if let Some(redirect) = filter::redirect(&matched.rule.rule.filters) {
        return redirected(connection, &head, &admitted, &matched, redirect);
    }

    head.headers.insert(headers::X_REQUEST_ID, tally.request_id());
    tally.pass_trace_on(&mut head.headers);
    let takes_trailers = headers::takes_trailers(&head, present);
    let expects_go_ahead = head.version != Version::HTTP_10 && present.has(Present::EXPECT);
    let backend = choose_backend(connection, &matched, tally)?;
    strip(&mut head, present);
    let (target, body) = {
        let filters = &*matched.rule.rule.filters;
        let untouched = mirror::is_before_others(filters).then(|| head.clone());
        let target = prepare(filters, &mut head, &admitted.path, &matched)?;
        let is_ours =
            |name: &HeaderName| [filters, backend.filters].into_iter().any(|list| filter::names_request_field(list, name));
        let mut body = RequestBody::new(body, || Trailers::of_request(&head.headers, is_ours), body_bytes_max);
        connection.follow(body.progress(), || is_grpc(&head.method, &head.headers));
        if upgrade.is_none() {
            let before = |place| prepared_up_to(place, untouched.clone()?, &admitted.path, &matched);
            mirror::send_copies(connection.worker(), &matched, &head, before, &mut body);
        }
        (target, body)
    };
    prepare_for(&backend, &mut head, &admitted.path, &matched, &target)?;
    let asked = ask(&backend, &mut head.headers, upgrade, takes_trailers)?;

    let request = wait_for_go_ahead(head, body, expects_go_ahead);
    let (response, deadline) = forward(connection, &matched.rule.rule, &backend, request, &asked, tally).await?;

    let filters = [&*matched.rule.rule.filters, backend.filters];
    let mut answer = answer(filters, response, deadline, takes_trailers);
    if let (Some(upgrade), Content::Tunnel(_)) = (&asked.upgrade, &answer.content) {
        if connection.has_early_bytes() {
            return Err(Fault::bad_request("bytes of another protocol came before it was agreed on"));
        }
        upgrade.tell(&mut answer.head);
    }
    if takes_trailers && connection.protocol() == Protocol::Http1 && matches!(answer.content, Content::Backend { .. }) {
        announce_grpc(&mut answer.head);
    }
    Ok(answer)
}

// ---- admit

/// What a request means, once that is beyond doubt.
struct Admitted<'c> {
    /// Those of the listener that takes it.
    options: &'c ListenerOptions,
    authority: Authority,
    path: NormalPath,
}

fn admit<'c>(connection: &'c ClientConnection, head: &request::Parts, present: Present) -> Result<Admitted<'c>, Fault> {
    if let Some(refusal) = MethodRefusal::of(&head.method) {
        return Err(Fault::method(refusal));
    }
    if head.version == Version::HTTP_2 {
        framing::check_head(head, connection.listener().options.header_bytes_max).map_err(|flaw| refused(connection, &flaw))?;
    }
    headers::check_framing(&head.headers, present)?;
    headers::check_expectation(&head.headers, present)?;
    let uri = &head.uri;
    if !is_target(head, connection.secured().is_some()) {
        return Err(Fault::bad_request("the request target is not a path"));
    }
    let authority = authority(head)?;
    let options = connection.listener().of_host(authority.host()).ok_or_else(Fault::no_listener)?;
    if connection.secured().is_some_and(|secured| secured.listener.as_ref() != Some(&options.name)) {
        return Err(Fault::misdirected());
    }
    let path = match uri.path() {
        "*" => None,
        path => match path::normalize(path, options.escaped_slashes) {
            Ok(Cow::Borrowed(_)) => None,
            Ok(Cow::Owned(normal)) => Some(normal),
            Err(_) => return Err(Fault::bad_request("the path is not valid, or holds an escaped slash")),
        },
    };
    Ok(Admitted { options, authority, path: NormalPath(path) })
}

/// What over HTTP/1.1 is refused, and counted, before it is a request.
fn refused(connection: &ClientConnection, flaw: &Flaw) -> Fault {
    connection.count_refusal(flaw.reason);
    Fault::refused(flaw)
}

/// Origin form, absolute form of the connection's own scheme, or `*` with OPTIONS (RFC 9112 3.2). hyper reads `GET foo` as an authority. HTTP/2 says all of it
/// in parts (RFC 9113 8.3.1).
fn is_target(head: &request::Parts, is_secured: bool) -> bool {
    let uri = &head.uri;
    // `Uri::path` says `/` where there is a query alone, which only the absolute form may leave it to (RFC 9112 3.2.2).
    let is_path = match uri.scheme() {
        Some(_) if head.version != Version::HTTP_2 => uri.path().starts_with('/'),
        _ => uri.path_and_query().is_some_and(|target| target.as_str().starts_with('/')),
    };
    let is_server = path::is_whole_server(&head.method, uri.path());
    match uri.scheme_str() {
        // Of HTTP/2 either scheme of HTTP is taken over either kind of connection, as Envoy does: behind something that ends TLS and passes the
        // bytes on, as below something that begins it, the client's own word is not that of its connection. Nothing goes by it.
        scheme if head.version == Version::HTTP_2 => matches!(scheme, None | Some("http" | "https")) && (is_path || is_server),
        None => uri.authority().is_none() && (is_path || is_server),
        Some(scheme) => scheme == sender::scheme(is_secured) && is_path,
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
    let listener = &admitted.options.name;
    let host = admitted.authority.host();
    let found = connection.worker().live.load().answer(&RequestView {
        listener,
        host,
        path: admitted.path.of(&head.uri),
        query: head.uri.query(),
        method: &head.method,
        headers: &head.headers,
    });
    let matched = match found {
        Ok(matched) => matched,
        Err(snapshot) => {
            tally.note_rule(snapshot.revision, None);
            connection.worker().metrics.route_misses.inc();
            return Err(Fault::no_route());
        }
    };
    tally.note_rule(matched.snapshot.revision, Some(&matched));
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
    let path = admitted.path.of(&head.uri);
    let path = match &redirect.path {
        None => Cow::Borrowed(path),
        Some(modifier) => rewrite::modified_path(modifier, path, &matched.route_match().path.value, matched.captures()),
    };
    let here = rewrite::Here { is_https: connection.secured().is_some(), port: connection.listener().address.port() };
    let location = rewrite::location(redirect, here, admitted.authority.host(), &path, head.uri.query());
    let location = HeaderValue::try_from(location).map_err(|_| Fault::configuration("the redirect's location is not valid"))?;
    let mut answer = Answer::without_body(redirect.status_code);
    answer.head.headers_mut().insert(LOCATION, location);
    filter::modify_response(&matched.rule.rule.filters, answer.head.headers_mut());
    Ok(answer)
}

// ---- answer

/// Turns the backend's head into the client's; its fields are moved, not copied.
fn answer(filters: [&[Filter]; 2], response: Response<AnswerBody>, deadline: Option<Instant>, takes_trailers: bool) -> Answer {
    let (mut head, body) = response.into_parts();
    let present = Present::of(&head.headers);
    // Only chunks are followed by trailers, or frames of HTTP/2, and only where the client takes them.
    let may_end_in_trailers = present.has(Present::TRANSFER_ENCODING) || head.version == Version::HTTP_2;
    if present.has(Present::TRAILER) && (!takes_trailers || body.is_end_stream() || !may_end_in_trailers) {
        head.headers.remove(TRAILER);
    }
    headers::remove_hop_by_hop(&mut head.headers, present);
    if present.has(Present::VIA) {
        sender::extend_via(&mut head.headers, head.version);
    }
    filters.into_iter().for_each(|filters| filter::modify_response(filters, &mut head.headers));
    head.version = Version::HTTP_11;
    // What hyper's client noted of this message is not the client's concern.
    head.extensions.clear();
    let switched = if head.status == StatusCode::SWITCHING_PROTOCOLS { body.into_switched() } else { Err(body) };
    let content = match switched {
        Ok(upstream) => Content::Tunnel(upstream),
        Err(body) => Content::Backend { body, deadline },
    };
    Answer { head: Response::from_parts(head, ()), content }
}
