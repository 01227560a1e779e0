//! Specs: what documents say, checked before they are proposed.
//!
//! A spec is read in two steps. [`parse_route`], [`parse_grpc_route`], [`parse_service`] and [`parse_certificate`] turn JSON into the types below and collect *every* fault as a
//! JSON pointer (RFC 6901) and a message: unknown fields, wrong types, values out of range, and fields that this version does not
//! serve ("not supported yet"). [`canonical`] makes the document that is logged. A node reads documents from the log with the same
//! functions; what it cannot read it keeps and reports.

mod certificate;
mod cors;
mod document;
mod duration;
mod level;
mod mirror;
mod parse;
mod pattern;
mod route;
mod secret;
mod service;
mod size;
mod tls;

pub use certificate::{CertificateSpec, other_section};
pub use cors::{Cors, Listed, Origin, OriginHost, OriginPattern, Origins};
pub use document::{Document, Fields};
pub use duration::*;
pub use level::feature_level;
pub use mirror::{Reference, RequestMirror, Share};
pub use parse::{
    FieldError, Parsed, canonical, hostname_or_wildcard, parse_certificate, parse_grpc_route, parse_route, parse_service,
    read_grpc_route, read_route,
};
pub use pattern::{PATTERN_BYTES_MAX, Pattern};
pub use route::{
    BackendRef, Filter, HeaderMatch, HeaderModifier, HeaderValue, Matches, PathMatch, PathMatchType, PathModifier, QueryMatch,
    RedirectScheme, RequestRedirect, Retry, RouteMatch, RouteSpec, Rule, RuleLimits, Timeouts, UrlRewrite, ValueMatch,
};
pub use secret::{SealedSecret, Secret, redact};
pub use service::{Endpoint, Protocol, ServiceSpec};
pub use size::parse_size;
pub use tls::{Authorities, ServiceTls, TlsVersion};
