//! Copies of requests to other services (Gateway API `HTTPRequestMirrorFilter`).
//!
//! A copy is made once a request, not a try, of what the rule's filters before the mirror made of it; the filters of the chosen backend are not for it.
//! It goes its own way in a task of the worker's: the request never waits for it, and its answer is read and dropped. Everything that it
//! can take is bounded: how many are under way, in all and to one service (one that hangs shall not take the others' places), how long one may
//! take, how far its body may lag behind the request's, how much of the answer is read. What does not fit is dropped and counted.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::TE;
use http::{HeaderValue, Request, Response, StatusCode, request};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::task::JoinSet;

use super::forward::open;
use super::worker::Worker;
use crate::model::spec::{Filter, RequestMirror, Timeouts};
use crate::model::{Kind, Name};
use crate::observe::CounterVec;
use crate::table::{Matched, Service};
use crate::upstream::{AnswerBody, Endpoint, RequestBody};

/// Copies under way in one worker.
const MIRRORS_MAX: usize = 128;
/// Copies under way to one service in one worker.
pub(super) const MIRRORS_OF_SERVICE_MAX: usize = 32;
/// How long one may take, if the rule's timeouts are not shorter.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read, so that its connection can be kept.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The copies under way in one worker. Dropping it ends them.
#[derive(Debug, Default)]
pub(super) struct Mirrors(RefCell<UnderWay>);

#[derive(Debug, Default)]
struct UnderWay {
    tasks: JoinSet<()>,
    /// Shared by the copies to a service: its count of owners is one more than there are of them.
    by_service: HashMap<Name, Rc<()>>,
}

impl UnderWay {
    /// A place for one more copy to `service`, if there is one. It is taken for as long as it lives.
    fn place(&mut self, service: &Name) -> Option<Rc<()>> {
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= MIRRORS_MAX {
            return None;
        }
        if self.by_service.len() > MIRRORS_MAX {
            self.by_service.retain(|_, places| Rc::strong_count(places) > 1);
        }
        let places = self.by_service.entry(service.clone()).or_default();
        (Rc::strong_count(places) <= MIRRORS_OF_SERVICE_MAX).then(|| Rc::clone(places))
    }
}

/// Whether a mirror stands before a filter that changes what is sent, and so sees less of it than the rule's backends do.
pub(super) fn is_before_others(filters: &[Filter]) -> bool {
    let first = filters.iter().position(|filter| matches!(filter, Filter::RequestMirror(_)));
    first.is_some_and(|first| filters[first..].iter().any(changes_request))
}

fn changes_request(filter: &Filter) -> bool {
    matches!(filter, Filter::RequestHeaderModifier(_) | Filter::UrlRewrite(_))
}

/// Begins a copy for each of the rule's mirrors that draws this request. Filters run in list order: `head` and `body` are as all of them
/// made the request, `before` gives the head as those before the place of a mirror did, where later ones change it.
pub(super) fn send_copies(
    worker: &Worker,
    matched: &Matched,
    head: &request::Parts,
    before: impl Fn(usize) -> Option<request::Parts>,
    body: &mut RequestBody,
) {
    let filters = &matched.rule.rule.filters;
    for (place, filter) in filters.iter().enumerate() {
        let Filter::RequestMirror(mirror) = filter else { continue };
        if !mirror.share.holds(worker.random()) {
            continue;
        }
        let earlier = if filters[place..].iter().any(changes_request) { before(place) } else { None };
        if let Err(result) = begin(worker, matched, mirror, earlier.as_ref().unwrap_or(head), body) {
            worker.metrics.mirrors.with_label_values(&[mirror.service.as_str(), result]).inc();
        }
    }
}

/// One copy. Error: why there is none, as its label in the metrics.
fn begin(
    worker: &Worker,
    matched: &Matched,
    mirror: &RequestMirror,
    head: &request::Parts,
    body: &mut RequestBody,
) -> Result<(), &'static str> {
    let mut under_way = worker.mirrors.0.borrow_mut();
    let place = under_way.place(&mirror.service).ok_or("busy")?;
    let service = matched.snapshot.service(&mirror.service).ok_or("no_service")?;
    let is_call = matched.rule.kind() == Kind::GrpcRoute;
    if is_call && !service.spec.protocol.carries_grpc() {
        return Err("no_grpc");
    }
    let certificate = matched.snapshot.client_certificate(service).map_err(|_| "no_certificate")?;
    let endpoint = worker.upstreams.endpoint(service, certificate, None).ok_or("no_endpoint")?;
    let (body, watch) = body.tap().ok_or("failed")?;
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.headers_mut() = head.headers.clone();
    if is_call {
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    }
    let copy = Copy { service: Arc::clone(service), endpoint, connects: worker.metrics.upstream_connects.clone() };
    let limit = limit(matched.rule.rule.timeouts());
    let results = worker.metrics.mirrors.clone();
    under_way.tasks.spawn_local(async move {
        let _place = place;
        let name = copy.service.id.name.clone();
        // A body that lags makes the sending fail too: what came first counts.
        let result = tokio::select! {
            biased;
            () = watch.lagged() => "lagged",
            sent = tokio::time::timeout(limit, copy.send(request)) => sent.unwrap_or("late"),
        };
        results.with_label_values(&[name.as_str(), result]).inc();
    });
    Ok(())
}

fn limit(timeouts: Timeouts) -> Duration {
    [timeouts.request, timeouts.backend_request].into_iter().flatten().fold(TIME_MAX, Duration::min)
}

/// Where a copy goes.
struct Copy {
    service: Arc<Service>,
    endpoint: Rc<Endpoint>,
    connects: CounterVec,
}

impl Copy {
    /// Sends it and drops the answer; gives the result's label.
    async fn send(self, request: Request<RequestBody>) -> &'static str {
        let Ok(upstream) = open(&self.connects, &self.service, &self.endpoint, false).await else { return "failed" };
        match upstream.send(&self.endpoint, request).await {
            Ok(response) => {
                let_go(response).await;
                "sent"
            }
            Err(error) => {
                tracing::debug!(service = %self.service.id.name, error = &error.failure as &dyn std::error::Error, "copy failed");
                "failed"
            }
        }
    }
}

/// Reads what is left of an answer, so that its connection can be kept. A longer one is cut off with its connection.
async fn let_go(response: Response<AnswerBody>) {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let mut body = response.into_body();
    let mut bytes = 0;
    while !body.is_end_stream() && bytes <= ANSWER_BYTES_MAX {
        match body.frame().await {
            None | Some(Err(_)) => return,
            Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, bytes::Bytes::len),
        }
    }
}
