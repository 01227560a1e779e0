//! Which request methods are passed on. The proxy refuses the others before it asks any rule, and `explain` says so: both ask here.

use http::{Method, StatusCode};

/// Why a request is refused for its method alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodRefusal {
    /// CONNECT: this is no forward proxy.
    Connect,
    /// None of the methods that a route can match. Methods are compared with case (RFC 9110 9.1): `get` is one of these.
    Unknown,
}

impl MethodRefusal {
    /// The refusal of a request with `method`; `None` where it is passed on.
    pub fn of(method: &Method) -> Option<MethodRefusal> {
        match *method {
            Method::CONNECT => Some(MethodRefusal::Connect),
            Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::OPTIONS
            | Method::TRACE
            | Method::PATCH => None,
            _ => Some(MethodRefusal::Unknown),
        }
    }

    /// What it is answered with: 405 or 501.
    pub fn status(self) -> StatusCode {
        match self {
            MethodRefusal::Connect => StatusCode::METHOD_NOT_ALLOWED,
            MethodRefusal::Unknown => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// The reason, for people.
    pub fn detail(self) -> &'static str {
        match self {
            MethodRefusal::Connect => "CONNECT is not allowed",
            MethodRefusal::Unknown => "the method is not known",
        }
    }
}
