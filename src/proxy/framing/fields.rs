//! What is asked of the fields of HTTP/2, whose library leaves it to its user.

use http::HeaderMap;
use http::header::COOKIE;

use super::FIELDS_MAX;
use super::flaw::{self, Flaw};
use crate::upstream::has_loose_value;

/// Refuses a head that HTTP/1.1 would not bring here: one of too many fields, and one whose values begin or end with white space, which
/// is malformed (RFC 9113 8.2.1).
pub(in super::super) fn check_fields(headers: &HeaderMap) -> Result<(), Flaw> {
    // A cookie that comes in pieces is one field (RFC 9113 8.2.3), and a browser may have a hundred.
    let is_over = headers.len() > FIELDS_MAX && headers.len() - headers.get_all(COOKIE).iter().skip(1).count() > FIELDS_MAX;
    match (is_over, has_loose_value(headers)) {
        (true, _) => Err(flaw::HEAD_FIELDS),
        (false, true) => Err(flaw::FIELD_ENDS),
        (false, false) => Ok(()),
    }
}
