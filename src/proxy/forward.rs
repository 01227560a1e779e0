//! Which backend a request goes to, and the fifth phase of an exchange: which endpoint, one try after another until there is an answer.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};

use super::connection::ClientConnection;
use super::fault::Fault;
use super::retry::{Next, Remains, Retries};
use super::tally::Tally;
use super::upgrade::Upgrade;
use crate::model::spec::{BackendRef, Filter, Rule};
use crate::model::{Kind, Name};
use crate::observe::CounterVec;
use crate::table::{Certificate, Matched, Service};
use crate::upstream::balance::choose;
use crate::upstream::{AnswerBody, BodyProgress, BodyState, Connection, Endpoint, Interim, RequestBody, SendFailure};

/// Where a request goes.
pub(super) struct Backend<'a> {
    /// By the services of the snapshot that the request was matched by.
    pub(super) service: Arc<Service>,
    /// What is shown to its endpoints, of the same snapshot.
    certificate: Option<Arc<Certificate>>,
    /// The filters of this share alone.
    pub(super) filters: &'a [Filter],
}

/// The backend whose share this request falls into.
pub(super) fn choose_backend<'a>(
    connection: &ClientConnection,
    matched: &'a Matched,
    tally: &mut Tally,
) -> Result<Backend<'a>, Fault> {
    let references = &matched.rule.rule.backend_refs;
    let index = match &**references {
        [only] if only.weight > 0 => Some(0),
        _ => choose(references.iter().map(|reference| reference.weight), connection.worker().point()),
    };
    let Some(BackendRef { name, filters, .. }) = index.map(|index| &references[index]) else {
        let reason = if references.is_empty() { "the rule has no backends" } else { "no backend has a weight" };
        return Err(Fault::configuration(format!("route {}: {reason}", matched.rule.route)));
    };
    let service = matched.snapshot.service(name).cloned().ok_or_else(|| Fault::missing_service(name))?;
    tally.note_service(&service);
    if matched.rule.kind() == Kind::GrpcRoute && !service.spec.protocol.carries_grpc() {
        return Err(Fault::no_grpc(name));
    }
    let certificate =
        matched.snapshot.client_certificate(&service).map_err(|missing| Fault::missing_certificate(name, missing))?;
    Ok(Backend { certificate: certificate.cloned(), service, filters })
}

/// An answer, and until when its body may come.
pub(super) type Forwarded = (Response<AnswerBody>, Option<Instant>);

/// Sends `request` to endpoints of the backend's service until one answers, or until there is no further try.
pub(super) async fn forward(
    connection: &Rc<ClientConnection>,
    rule: &Rule,
    backend: &Backend<'_>,
    request: Request<RequestBody>,
    asked: &Asked,
    tally: &mut Tally,
) -> Result<Forwarded, Fault> {
    let Backend { service, certificate, .. } = backend;
    let total = earlier(rule.timeouts().request, asked.timeout).map(|timeout| tally.started() + timeout);
    let retries = Retries::new(rule.retry.as_deref(), total);
    let mut request = retries.keep(request);
    let mut tries = Tries { connection, rule, service, upgrade: asked.upgrade.as_ref(), total, retries };
    let mut last: Option<(Rc<Endpoint>, bool)> = None;
    loop {
        let avoided = last.as_ref().map(|(endpoint, _)| endpoint);
        let endpoint = connection.worker().upstreams.endpoint(service, certificate.as_ref(), avoided);
        let endpoint = endpoint.ok_or_else(|| Fault::no_endpoint(&service.id.name))?;
        tally.note_try(endpoint.address());
        // After a failure a connection that was kept is no longer trusted.
        let is_fresh = last.is_some_and(|(_, has_answered)| !has_answered);
        let next = match tries.once(&endpoint, request, is_fresh, tally).await? {
            Step::Answered(forwarded) => return Ok(forwarded),
            Step::Again(next) => next,
        };
        if !next.wait.is_zero() {
            let waited = within(connection, None, pin!(tokio::time::sleep(next.wait))).await;
            waited.ok_or_else(|| Fault::no_answer_in_time(&service.id.name))?;
        }
        request = next.request;
        request.body_mut().hold_anew();
        last = Some((endpoint, next.has_answered));
    }
}

/// What a request asks of its sending, beside what it says to the backend.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// To speak something else.
    pub(super) upgrade: Option<Upgrade>,
    /// To be answered within this time (gRPC's `grpc-timeout`).
    pub(super) timeout: Option<Duration>,
}

/// The tries of one request.
struct Tries<'a> {
    connection: &'a Rc<ClientConnection>,
    rule: &'a Rule,
    service: &'a Arc<Service>,
    upgrade: Option<&'a Upgrade>,
    /// The request's deadline.
    total: Option<Instant>,
    retries: Retries<'a>,
}

/// What follows a try.
enum Step {
    Answered(Forwarded),
    Again(Next),
}

impl Tries<'_> {
    async fn once(
        &mut self,
        endpoint: &Rc<Endpoint>,
        request: Request<RequestBody>,
        is_fresh: bool,
        tally: &mut Tally,
    ) -> Result<Step, Fault> {
        let progress = request.body().progress();
        let asked = Instant::now();
        let deadline = earlier(self.total, self.rule.timeouts().backend_request.map(|timeout| asked + timeout));
        let connects = &self.connection.worker().metrics.upstream_connects;
        let opening = open(connects, self.service, endpoint, is_fresh);
        let upstream = match within(self.connection, deadline, pin!(opening)).await {
            Some(Ok(upstream)) => upstream,
            Some(Err(failure)) => return self.failed(&failure, progress.as_deref(), Remains::Unsent(request)),
            None => return self.late(progress.as_deref(), Remains::Unsent(request)),
        };
        let remains = Remains::Exposed(self.retries.copy(&request, upstream.gives_back()));
        match within(self.connection, deadline, pin!(upstream.send(endpoint, request))).await {
            Some(Ok(response)) => {
                tally.note_upstream(asked);
                if let Some(interim) = response.extensions().get() {
                    self.count_interim(interim);
                }
                self.answered(response, deadline, remains)
            }
            Some(Err(error)) => {
                self.count_interim(&error.interim);
                let remains = match error.request {
                    Some(request) if error.is_unsent => Remains::Unsent(*request),
                    Some(request) => Remains::Sent(*request),
                    None => remains,
                };
                self.failed(&error.failure, progress.as_deref(), remains)
            }
            None => self.late(progress.as_deref(), remains),
        }
    }

    fn count_interim(&self, interim: &Interim) {
        let count =
            |status, number| self.connection.worker().metrics.upstream_informational.with_label_values(&[status]).inc_by(number);
        let found = [("102", interim.processing), ("103", interim.early_hints), ("other", interim.other)];
        found.into_iter().filter(|(_, number)| *number > 0).for_each(|(status, number)| count(status, number.into()));
    }

    fn answered(&mut self, response: Response<AnswerBody>, deadline: Option<Instant>, remains: Remains) -> Result<Step, Fault> {
        let name = &self.service.id.name;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = self.upgrade.ok_or_else(|| Fault::unexpected_upgrade(name))?;
            if !upgrade.is_taken_up(&response) {
                return Err(Fault::wrong_upgrade(name));
            }
        }
        if self.upgrade.is_some_and(|upgrade| upgrade.is_mistaken_for(response.status())) {
            return Err(Fault::not_upgraded(name, response.status()));
        }
        let random = || self.connection.worker().random();
        match self.retries.after_answer(response.status(), remains, Instant::now, random) {
            None => Ok(Step::Answered((response, deadline))),
            // What is left of the answer is not waited for: without it the connection is closed.
            Some(next) => Ok(Step::Again(next)),
        }
    }

    fn failed(&mut self, failure: &SendFailure, progress: Option<&BodyProgress>, remains: Remains) -> Result<Step, Fault> {
        if let Some(fault) = body_fault(progress) {
            return Err(fault);
        }
        let name = &self.service.id.name;
        tracing::debug!(service = %name, error = failure as &dyn std::error::Error, "try failed");
        let was_closed = matches!(failure, SendFailure::Terminated { .. });
        let random = || self.connection.worker().random();
        let next = self.retries.after_failure(was_closed, remains, Instant::now(), random);
        next.map(Step::Again).ok_or_else(|| Fault::upstream(name, failure))
    }

    /// No answer in time. It is another endpoint's turn only where a stanza says so, and where this one is to blame.
    fn late(&mut self, progress: Option<&BodyProgress>, remains: Remains) -> Result<Step, Fault> {
        let fault = late_fault(progress, self.total, &self.service.id.name);
        let is_awaited = progress.is_some_and(|progress| progress.state() == BodyState::Awaited);
        if self.rule.retry.is_none() || is_awaited || self.connection.is_stalled() || body_fault(progress).is_some() {
            return Err(fault);
        }
        let random = || self.connection.worker().random();
        let next = self.retries.after_failure(false, remains, Instant::now(), random);
        next.map(Step::Again).ok_or(fault)
    }
}

/// A connection to `endpoint`, counted if it is a new one.
pub(super) async fn open(
    connects: &CounterVec,
    service: &Service,
    endpoint: &Endpoint,
    is_fresh: bool,
) -> Result<Connection, SendFailure> {
    let count = |result| connects.with_label_values(&[service.id.name.as_str(), result]).inc();
    let opened = endpoint.connection(service.spec.connect_timeout, is_fresh).await;
    match &opened {
        Ok(upstream) if upstream.is_reused() => {}
        Ok(_) => count("opened"),
        Err(_) => count("failed"),
    }
    opened
}

/// What the client did to its own request, if that is why a try failed.
fn body_fault(progress: Option<&BodyProgress>) -> Option<Fault> {
    match progress?.state() {
        BodyState::TooLarge => Some(Fault::body_too_large()),
        BodyState::Broken => Some(Fault::body_broken()),
        BodyState::Unstarted | BodyState::Started | BodyState::Awaited | BodyState::Complete | BodyState::Lagged => None,
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
        true => Fault::request_incomplete(),
        false => Fault::request_timeout(),
    }
}

fn earlier<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// `future`'s output, or `None` once the deadline passed or the connection stood still for too long. A timer is armed only for a
/// deadline of the rule's own. The caller keeps the future: what an async function takes, it moves more than once.
async fn within<F: Future>(
    connection: &ClientConnection,
    deadline: Option<Instant>,
    mut future: Pin<&mut F>,
) -> Option<F::Output> {
    let mut timer = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline.into())));
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let is_late = timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
        if is_late || connection.is_stalled() { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}
