//! From JSON to specs.
//!
//! Documents are read with a [`cursor`], which knows where it stands, instead of by derived deserialisation, which stops at the
//! first fault: somebody who writes a table by hand wants all faults at once. Each reader answers `None` for what it could not read
//! after it told the [`report`], and its caller goes on with the rest. Rules between fields are checked where all sides were read.

mod certificate;
mod cors;
mod cursor;
mod filters;
mod grpc;
mod host;
mod matches;
mod mirror;
mod report;
mod retry;
mod rewrite;
mod route;
mod service;
#[cfg(test)]
mod tests;
mod tls;

use bytes::Bytes;
use serde_json::Value;

use self::cursor::Cursor;
pub use self::host::hostname_or_wildcard;
use self::report::Report;
use super::certificate::CertificateSpec;
use super::document::Document;
use super::route::RouteSpec;
use super::service::ServiceSpec;

/// One fault of a document.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) from the spec's root: `/rules/0/matches/1/path/value`.
    pub path: String,
    /// What is wrong, and the fix.
    pub message: String,
}

/// A good spec, and what its author should know all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<T> {
    /// The spec.
    pub spec: T,
    /// Warnings for the write's answer.
    pub warnings: Vec<String>,
}

/// Reads a `Route` spec. Errors: every fault that was found, 64 at most.
pub fn parse_route(document: &Value) -> Result<Parsed<RouteSpec>, Vec<FieldError>> {
    read_route(&document.into())
}

/// As [`parse_route`].
pub fn read_route(document: &Document<'_>) -> Result<Parsed<RouteSpec>, Vec<FieldError>> {
    let mut report = Report::default();
    let spec = route::route(&Cursor::root(document), &mut report);
    report.finish(spec)
}

/// Reads a `GRPCRoute` spec. Service and method become a path, so that one index serves both kinds. Errors: every fault that was found,
/// 64 at most.
pub fn parse_grpc_route(document: &Value) -> Result<Parsed<RouteSpec>, Vec<FieldError>> {
    read_grpc_route(&document.into())
}

/// As [`parse_grpc_route`].
pub fn read_grpc_route(document: &Document<'_>) -> Result<Parsed<RouteSpec>, Vec<FieldError>> {
    let mut report = Report::default();
    let spec = grpc::grpc_route(&Cursor::root(document), &mut report);
    report.finish(spec)
}

/// Reads a `Service` spec. Errors: every fault that was found, 64 at most.
pub fn parse_service(document: &Value) -> Result<Parsed<ServiceSpec>, Vec<FieldError>> {
    let mut report = Report::default();
    let spec = service::service(&Cursor::root(&document.into()), &mut report);
    report.finish(spec)
}

/// Reads a `Certificate` spec: its shape, not what its PEM holds. Errors: every fault that was found, 64 at most.
pub fn parse_certificate(document: &Value) -> Result<Parsed<CertificateSpec>, Vec<FieldError>> {
    let mut report = Report::default();
    let spec = certificate::certificate(&Cursor::root(&document.into()), &mut report);
    report.finish(spec)
}

/// The canonical form (RFC 8785) of a document.
pub fn canonical(document: &Value) -> Result<Bytes, FieldError> {
    serde_json_canonicalizer::to_vec(document)
        .map(Bytes::from)
        .map_err(|error| FieldError { path: String::new(), message: format!("the document has no canonical form: {error}") })
}
