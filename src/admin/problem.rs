//! Problems: the one shape of every error that the admin API answers (RFC 9457).
//!
//! A [`Problem`] is made where the fault is found and knows nothing of the request around it. [`super::call`] adds what only the
//! request tells: a problem that answers a write always has an `outcome`, and where nobody set one, nothing was applied.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::model::Revision;
use crate::model::spec::FieldError;

/// Errors that one problem lists at most; more of them help nobody and would make a bad request's answer larger than the request.
pub(crate) const ERRORS_MAX: usize = 100;

/// Whether a write that was answered with a problem may have happened all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// It certainly did not happen.
    NotApplied,
    /// It may have happened, or may happen yet.
    Unknown,
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    status: StatusCode,
    /// Last part of the `type` URI, the same for every problem of one sort.
    slug: &'static str,
    title: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    outcome: Option<WriteOutcome>,
    /// Of a failed precondition: where the resource stands; `Some(None)` where it does not exist.
    present: Option<Option<Revision>>,
    /// The revision that this was answered at, where it is known.
    pub(crate) revision: Option<Revision>,
}

impl Problem {
    fn new(status: StatusCode, slug: &'static str, title: &'static str, detail: impl Into<String>) -> Problem {
        let detail = detail.into();
        Problem { status, slug, title, detail, errors: Vec::new(), outcome: None, present: None, revision: None }
    }

    /// 400: the request cannot be read at all.
    pub(crate) fn malformed(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "malformed", "The request is malformed", detail)
    }

    /// 401: neither a token nor a certificate, or a token that is not known.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "A caller must say who it is", detail)
    }

    /// 404: there is nothing under this name or path.
    pub(crate) fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 405: the path exists, the method does not.
    pub(crate) fn method_not_allowed(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here", detail)
    }

    /// 408: the body did not arrive in time.
    pub(crate) fn slow_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request did not arrive in time", detail)
    }

    /// 409: not as the cluster stands now.
    pub(crate) fn conflict(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, "conflict", "Not as the cluster stands now", detail)
    }

    /// 409: meant for another cluster.
    pub(crate) fn other_cluster(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, "other-cluster", "The request is meant for another cluster", detail)
    }

    /// 410: what was asked for is kept no longer.
    pub(crate) fn gone(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::GONE, "gone", "No longer kept", detail)
    }

    /// 412: a precondition does not hold.
    pub(crate) fn precondition(detail: impl Into<String>, present: Option<Revision>) -> Problem {
        let mut problem =
            Problem::new(StatusCode::PRECONDITION_FAILED, "precondition-failed", "A precondition does not hold", detail);
        problem.present = Some(present);
        problem
    }

    /// 413: over a limit of size.
    pub(crate) fn too_large(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large", detail)
    }

    /// 415: a body of a type that is not read here.
    pub(crate) fn media_type(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "The content type is not supported", detail)
    }

    /// 422: readable, but its content is wrong. `errors` says where.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Problem {
        let detail = match errors.as_slice() {
            [] => "the content is invalid".to_owned(),
            [only] => describe(only),
            [first, rest @ ..] => format!("{} (and {} more)", describe(first), rest.len()),
        };
        let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The content is invalid", detail);
        problem.errors = errors;
        problem
    }

    /// 422 with one error.
    pub(crate) fn invalid_at(path: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem::invalid(vec![FieldError { path: path.into(), message: message.into() }])
    }

    /// 422: an idempotency key that belongs to another request.
    pub(crate) fn idempotency_key_reused() -> Problem {
        let detail = "this Idempotency-Key was used before with another request; use a new key for a new request";
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The idempotency key was used before", detail)
    }

    /// 501: in the contract, but not served by this version.
    pub(crate) fn not_supported(what: &str) -> Problem {
        let detail = format!("{what}: not supported yet");
        Problem::new(StatusCode::NOT_IMPLEMENTED, "not-supported-yet", "Not supported yet", detail)
    }

    /// 503: nothing happened; try again.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available now", detail)
    }

    /// 503: this node holds something else than the majority, and says nothing as if it were the cluster's word.
    pub(crate) fn diverged(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "diverged", "This node has diverged from the cluster", detail)
    }

    /// 504: the write may have happened.
    pub(crate) fn unknown_outcome(detail: impl Into<String>) -> Problem {
        let title = "The outcome of the write is unknown";
        let mut problem = Problem::new(StatusCode::GATEWAY_TIMEOUT, "unknown-outcome", title, detail);
        problem.outcome = Some(WriteOutcome::Unknown);
        problem
    }

    /// 500: a fault of this program.
    pub(crate) fn internal(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "An internal error", detail)
    }

    /// Says at which revision it was answered.
    pub(crate) fn at(mut self, revision: Revision) -> Problem {
        self.revision = Some(revision);
        self
    }

    /// Says where in the request it is.
    pub(crate) fn with_error(mut self, error: Option<FieldError>) -> Problem {
        self.errors.extend(error);
        self
    }

    /// Says that the problem answers a write: nothing was applied, unless something else is known.
    pub(crate) fn of_write(mut self) -> Problem {
        self.outcome.get_or_insert(WriteOutcome::NotApplied);
        self
    }

    /// Of a part that changes nothing by itself: whatever became of it, nothing was applied.
    pub(crate) fn of_staging(self) -> Problem {
        match self.outcome {
            Some(WriteOutcome::Unknown) => {
                Problem::unavailable(format!("nothing was applied, a part was not staged: {}", self.detail))
            }
            _ => self,
        }
    }

    /// The words for people.
    #[cfg(test)]
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("type".to_owned(), json!(format!("urn:raftgate:problem:{}", self.slug)));
        body.insert("title".to_owned(), json!(self.title));
        body.insert("status".to_owned(), json!(self.status.as_u16()));
        body.insert("detail".to_owned(), json!(self.detail));
        if !self.errors.is_empty() {
            body.insert("errors".to_owned(), json!(self.errors.iter().take(ERRORS_MAX).collect::<Vec<_>>()));
        }
        if let Some(present) = self.present {
            body.insert("presentRevision".to_owned(), json!(present));
        }
        if let Some(outcome) = self.outcome {
            let outcome = match outcome {
                WriteOutcome::NotApplied => "notApplied",
                WriteOutcome::Unknown => "unknown",
            };
            body.insert("outcome".to_owned(), json!(outcome));
        }
        Value::Object(body)
    }
}

fn describe(error: &FieldError) -> String {
    if error.path.is_empty() { error.message.clone() } else { format!("{}: {}", error.path, error.message) }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"raftgate\""));
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_and_where() {
        let errors = (0..150).map(|n| FieldError { path: format!("/rules/{n}"), message: "no".to_owned() }).collect();
        let body = Problem::invalid(errors).of_write().body();
        assert_eq!(body["status"], 422);
        assert_eq!(body["detail"], "/rules/0: no (and 149 more)");
        assert_eq!(body["errors"].as_array().map(Vec::len), Some(ERRORS_MAX));
        assert_eq!(body["outcome"], "notApplied");
    }

    #[test]
    fn an_unknown_outcome_stays_unknown() {
        assert_eq!(Problem::unknown_outcome("lost").of_write().body()["outcome"], "unknown");
    }

    #[test]
    fn a_resource_that_does_not_exist_has_the_present_revision_null() {
        let body = Problem::precondition("no such route", None).body();
        assert!(body.as_object().is_some_and(|object| object.get("presentRevision") == Some(&Value::Null)), "{body}");
    }
}
