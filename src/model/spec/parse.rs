//! From JSON to specs.

use bytes::Bytes;
use serde_json::Value;

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

/// Reads a `Route` spec. Errors: every fault that was found.
pub fn parse_route(_document: &Value) -> Result<Parsed<RouteSpec>, Vec<FieldError>> {
    Err(Vec::new())
}

/// Reads a `Service` spec. Errors: every fault that was found.
pub fn parse_service(_document: &Value) -> Result<Parsed<ServiceSpec>, Vec<FieldError>> {
    Err(Vec::new())
}

/// The canonical form (RFC 8785) of a document.
pub fn canonical(_document: &Value) -> Result<Bytes, FieldError> {
    Ok(Bytes::new())
}
