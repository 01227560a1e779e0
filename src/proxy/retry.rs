//! Whether a request is sent again, and when. Pure but for the bodies that it keeps: time and randomness are arguments.
//!
//! Without a stanza a request is sent again once, at once, and only if no byte of it went out, or if its connection ended before a byte of
//! an answer came and the request is idempotent (RFC 9110 9.2.2). With one (Gateway API `HTTPRouteRetry`):
//!
//! - an answer with one of its `codes` is let go, whatever the method;
//! - a failure after bytes went out counts for idempotent methods (RFC 9110 9.2.2), any other failure for all;
//! - before each re-try there is a wait, of which `backoff` is the least. Where it would end after the request's deadline there is no
//!   further try: what the last one gave is the answer.
//!
//! A body goes out again from its first byte, if all of it that went out is still kept.

use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};

use crate::model::spec::Retry;
use crate::upstream::RequestBody;

/// Re-tries, where no stanza says otherwise.
const RETRIES_DEFAULT: u32 = 1;
/// By how much the least wait is exceeded at most, however often a request was sent again.
const GROWTH_MAX: u32 = 10;
/// The longest wait, unless the stanza's least is longer.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What is left of a try, for the next one.
#[derive(Debug)]
pub(super) enum Remains {
    /// The request itself: no byte of it went out.
    Unsent(Request<RequestBody>),
    /// The request itself, which may have gone out.
    Sent(Request<RequestBody>),
    /// A copy of what may have gone out, if there is one.
    Exposed(Option<Copy>),
}

impl Remains {
    fn is_exposed(&self) -> bool {
        matches!(self, Remains::Exposed(_) | Remains::Sent(_))
    }

    fn method(&self) -> Option<&Method> {
        match self {
            Remains::Unsent(request) | Remains::Sent(request) => Some(request.method()),
            Remains::Exposed(copy) => copy.as_ref().map(|copy| &copy.method),
        }
    }

    fn into_request(self) -> Option<Request<RequestBody>> {
        match self {
            Remains::Unsent(request) | Remains::Sent(request) => Some(request),
            Remains::Exposed(copy) => copy.map(Copy::into_request),
        }
    }
}

/// A request to send again, where a failed one does not come back. Next to none is used, so its fields are a list: a map would be copied
/// with its index, and made again only to be dropped.
#[derive(Debug)]
pub(super) struct Copy {
    method: Method,
    uri: Uri,
    fields: Vec<(HeaderName, HeaderValue)>,
    body: RequestBody,
}

impl Copy {
    fn of(request: &Request<RequestBody>) -> Option<Copy> {
        let body = request.body().again()?;
        let fields = request.headers().iter();
        Some(Copy {
            method: request.method().clone(),
            uri: request.uri().clone(),
            fields: fields.map(|(name, value)| (name.clone(), value.clone())).collect(),
            body,
        })
    }

    fn into_request(self) -> Request<RequestBody> {
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        for (name, value) in self.fields {
            request.headers_mut().append(name, value);
        }
        request
    }
}

/// A try that follows.
#[derive(Debug)]
pub(super) struct Next {
    /// What is sent.
    pub(super) request: Request<RequestBody>,
    /// How long to wait before.
    pub(super) wait: Duration,
    /// Whether the last try ended with an answer.
    pub(super) has_answered: bool,
}

/// The re-tries of one request.
#[derive(Debug)]
pub(super) struct Retries<'a> {
    policy: Option<&'a Retry>,
    made: u32,
    deadline: Option<Instant>,
}

impl<'a> Retries<'a> {
    /// None made yet. `policy` is the rule's stanza, `deadline` the request's.
    pub(super) fn new(policy: Option<&'a Retry>, deadline: Option<Instant>) -> Retries<'a> {
        Retries { policy, made: 0, deadline }
    }

    /// The request as the first try takes it: with a body that can be sent again, where that may be asked for.
    pub(super) fn keep(&self, request: Request<RequestBody>) -> Request<RequestBody> {
        match self.policy {
            None if !request.method().is_idempotent() => request,
            None | Some(_) => request.map(RequestBody::keep),
        }
    }

    /// A copy of what is about to be sent, where there may be a use for it: none, without a stanza, if a request that failed comes back.
    pub(super) fn copy(&self, request: &Request<RequestBody>, comes_back: bool) -> Option<Copy> {
        let is_idempotent = request.method().is_idempotent();
        let is_useful = match self.policy {
            Some(policy) => self.made < policy.attempts && (is_idempotent || !policy.codes.is_empty()),
            None => self.made < RETRIES_DEFAULT && is_idempotent && !comes_back,
        };
        if is_useful { Copy::of(request) } else { None }
    }

    /// The try after an answer of this status; `None` where the answer stands.
    pub(super) fn after_answer(
        &mut self,
        status: StatusCode,
        remains: Remains,
        now: impl FnOnce() -> Instant,
        random: impl FnOnce() -> u64,
    ) -> Option<Next> {
        self.policy.filter(|policy| policy.codes.contains(&status))?;
        self.next(remains.into_request()?, true, now(), random)
    }

    /// The try after a failure; `None` where the failure stands. `was_closed` tells a connection that ended before an answer from
    /// other failures.
    pub(super) fn after_failure(
        &mut self,
        was_closed: bool,
        remains: Remains,
        now: Instant,
        random: impl FnOnce() -> u64,
    ) -> Option<Next> {
        let is_safe = match self.policy {
            Some(_) => remains.method()?.is_idempotent(),
            None => was_closed && remains.method()?.is_idempotent(),
        };
        if remains.is_exposed() && !is_safe {
            return None;
        }
        self.next(remains.into_request()?, false, now, random)
    }

    fn next(
        &mut self,
        request: Request<RequestBody>,
        has_answered: bool,
        now: Instant,
        random: impl FnOnce() -> u64,
    ) -> Option<Next> {
        let allowed = self.policy.map_or(RETRIES_DEFAULT, |policy| policy.attempts);
        if self.made >= allowed || !request.body().is_whole() {
            return None;
        }
        let wait = self.policy.map_or(Duration::ZERO, |policy| wait(policy.backoff, self.made, random()));
        if self.deadline.is_some_and(|deadline| now + wait >= deadline) {
            return None;
        }
        self.made += 1;
        Some(Next { request, wait, has_answered })
    }
}

/// The wait before a re-try, of which `made` were made before: from `least` up to a bound that doubles each time, taken evenly by
/// `random`, so that clients that failed together do not come back together.
fn wait(least: Duration, made: u32, random: u64) -> Duration {
    let factor = 2_u32.checked_pow(made.saturating_add(1)).map_or(GROWTH_MAX, |factor| factor.min(GROWTH_MAX));
    let most = least.saturating_mul(factor).min(WAIT_MAX).max(least);
    least + (most - least).mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(codes: &[u16], attempts: u32) -> Retry {
        let codes = codes.iter().map(|code| StatusCode::from_u16(*code).unwrap()).collect();
        Retry { codes, attempts, backoff: Duration::from_millis(10) }
    }

    fn request(method: Method) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = method;
        request
    }

    /// What is left after `request` went out.
    fn exposed(retries: &Retries<'_>, method: Method) -> Remains {
        Remains::Exposed(retries.copy(&request(method), false))
    }

    fn unsent(method: Method) -> Remains {
        Remains::Unsent(request(method))
    }

    #[test]
    fn waits_grow_up_to_a_cap_and_are_never_below_the_least() {
        let ms = Duration::from_millis;
        for (least, made, shortest, longest) in [
            (ms(50), 0, ms(50), ms(100)),
            (ms(50), 1, ms(50), ms(200)),
            (ms(50), 2, ms(50), ms(400)),
            (ms(50), 3, ms(50), ms(500)),
            (ms(50), u32::MAX, ms(50), ms(500)),
            (Duration::from_secs(20), 5, Duration::from_secs(20), Duration::from_secs(60)),
            (Duration::from_secs(60), 5, Duration::from_secs(60), Duration::from_secs(60)),
            (Duration::ZERO, 7, Duration::ZERO, Duration::ZERO),
        ] {
            assert_eq!((wait(least, made, 0), wait(least, made, u64::MAX)), (shortest, longest), "{least:?} {made}");
            let middle = wait(least, made, u64::MAX / 2);
            assert!((shortest..=longest).contains(&middle), "{middle:?}");
        }
    }

    #[test]
    fn without_a_stanza_one_re_try_where_it_is_safe() {
        let now = Instant::now();
        for (method, was_closed, expected) in [
            (Method::GET, true, true),
            (Method::PUT, true, true),
            (Method::GET, false, false),
            (Method::POST, true, false),
            (Method::PATCH, true, false),
        ] {
            let mut retries = Retries::new(None, None);
            let remains = exposed(&retries, method.clone());
            let next = retries.after_failure(was_closed, remains, now, || 0);
            assert_eq!(next.is_some(), expected, "{method} {was_closed}");
            assert!(retries.copy(&request(method.clone()), false).is_none() || !expected, "there is one re-try");
        }
        let mut retries = Retries::new(None, None);
        let next = retries.after_failure(false, unsent(Method::POST), now, || 0).unwrap();
        assert_eq!((next.request.method(), next.wait), (&Method::POST, Duration::ZERO));
        assert!(retries.after_failure(false, unsent(Method::POST), now, || 0).is_none(), "a second re-try");
        let mut retries = Retries::new(None, None);
        assert!(retries.after_answer(StatusCode::BAD_GATEWAY, unsent(Method::GET), || now, || 0).is_none());
    }

    #[test]
    fn a_copy_is_what_it_was_made_of() {
        let mut original = request(Method::GET);
        *original.uri_mut() = Uri::from_static("/a?b");
        for (name, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
            original.headers_mut().append(name, HeaderValue::from_static(value));
        }
        let copy = Copy::of(&original).unwrap().into_request();
        assert_eq!((copy.method(), copy.uri(), copy.headers()), (original.method(), original.uri(), original.headers()));
    }

    #[test]
    fn codes_count_for_every_method_and_failures_for_idempotent_ones() {
        let (policy, now) = (policy(&[503], 2), Instant::now());
        for (method, status, expected) in [(Method::GET, 503, true), (Method::POST, 503, true), (Method::GET, 502, false)] {
            let mut retries = Retries::new(Some(&policy), None);
            let remains = exposed(&retries, method.clone());
            let next = retries.after_answer(StatusCode::from_u16(status).unwrap(), remains, || now, || 0);
            assert_eq!(next.map(|next| next.wait), expected.then_some(policy.backoff), "{method} {status}");
        }
        for (method, expected) in [(Method::GET, true), (Method::DELETE, true), (Method::POST, false), (Method::PATCH, false)] {
            let mut retries = Retries::new(Some(&policy), None);
            let remains = exposed(&retries, method.clone());
            assert_eq!(retries.after_failure(false, remains, now, || 0).is_some(), expected, "{method}");
            assert!(retries.after_failure(false, unsent(method), now, || 0).is_some(), "no byte went out");
        }
    }

    #[test]
    fn attempts_and_the_deadline_bound_the_re_tries() {
        let (policy, now) = (policy(&[503], 2), Instant::now());
        let mut retries = Retries::new(Some(&policy), None);
        for expected in [true, true, false] {
            let remains = exposed(&retries, Method::GET);
            assert_eq!(retries.after_answer(StatusCode::SERVICE_UNAVAILABLE, remains, || now, || 0).is_some(), expected);
        }
        for (left, expected) in [(9, false), (10, false), (11, true)] {
            let mut retries = Retries::new(Some(&policy), Some(now + Duration::from_millis(left)));
            assert_eq!(retries.after_failure(true, unsent(Method::GET), now, || 0).is_some(), expected, "{left} ms left");
        }
    }
}
