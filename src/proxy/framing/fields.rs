//! What is asked of the fields of HTTP/2, whose library leaves it to its user.

use http::header::{CONTENT_LENGTH, COOKIE};
use http::request;

use super::flaw::{self, Flaw};
use super::values::Length;
use super::{FIELDS_MAX, TARGET_BYTES_MAX};
use crate::upstream::is_malformed;

/// What HTTP/2 counts of a field beside its name and value (RFC 9113 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// Refuses a head that HTTP/1.1 would not bring here: one whose target is too long, one of more than `bytes_max` bytes, as HTTP/2 counts them
/// without the pseudo fields, or of too many fields, one whose values begin or end with white space,
/// which is malformed (RFC 9113 8.2.1), and one that was found to have a flaw as it came.
pub(in super::super) fn check_head(head: &request::Parts, bytes_max: usize) -> Result<(), Flaw> {
    if let Some(flaw) = head.extensions.get::<Flaw>() {
        return Err(*flaw);
    }
    let headers = &head.headers;
    if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > TARGET_BYTES_MAX) {
        return Err(flaw::TARGET_LONG);
    }
    let size = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum::<usize>();
    if size > bytes_max {
        return Err(flaw::HEAD_LONG);
    }
    // h2 reads it only where a body follows.
    if let Some(value) = headers.get(CONTENT_LENGTH) {
        let mut length = Length::Named;
        length.read(value.as_bytes()).and_then(|()| length.end())?;
    }
    // A cookie that comes in pieces is one field (RFC 9113 8.2.3), and a browser may have a hundred.
    let is_over = headers.len() > FIELDS_MAX && headers.len() - headers.get_all(COOKIE).iter().skip(1).count() > FIELDS_MAX;
    match (is_over, is_malformed(headers)) {
        (true, _) => Err(flaw::HEAD_FIELDS),
        (false, true) => Err(flaw::FIELD_ENDS),
        (false, false) => Ok(()),
    }
}
