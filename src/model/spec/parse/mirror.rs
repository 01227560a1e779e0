//! The `RequestMirror` filter of a rule.

use super::cursor::Cursor;
use super::report::Report;
use crate::model::Name;
use crate::model::spec::mirror::{RequestMirror, Share};

/// What a fraction is made of at most, as in Gateway API.
const PART_MAX: u32 = i32::MAX as u32;

/// What a share is a part of, where the document does not say.
const DENOMINATOR_DEFAULT: u32 = 100;

/// The whole filter.
pub(super) fn request_mirror(cursor: &Cursor<'_>, report: &mut Report) -> Option<RequestMirror> {
    let object = cursor.object(&["backendRef", "percent", "fraction"], &[], report)?;
    let backend = object.require("backendRef", report).and_then(|field| field.object(&["name"], &[], report));
    let service = backend.and_then(|backend| backend.require("name", report));
    let service = service.and_then(|field| field.read(0..=usize::MAX, Name::new, report));
    let share = match (object.get("percent"), object.get("fraction")) {
        (None, None) => Some(Share { numerator: 1, denominator: 1 }),
        (Some(percent), None) => {
            percent.integer(0..=100, report).map(|numerator| Share { numerator, denominator: DENOMINATOR_DEFAULT })
        }
        (None, Some(field)) => fraction(&field, report),
        (Some(percent), Some(_)) => {
            percent.fail(report, "`percent` and `fraction` exclude each other: remove one");
            None
        }
    };
    Some(RequestMirror { service: service?, share: share? })
}

fn fraction(cursor: &Cursor<'_>, report: &mut Report) -> Option<Share> {
    let object = cursor.object(&["numerator", "denominator"], &[], report)?;
    let numerator = object.require("numerator", report).and_then(|field| field.integer(0..=PART_MAX, report));
    let denominator = object.get("denominator");
    let denominator = denominator.map_or(Some(DENOMINATOR_DEFAULT), |field| field.integer(1..=PART_MAX, report));
    let share = Share { numerator: numerator?, denominator: denominator? };
    if share.numerator > share.denominator {
        cursor.fail(report, format!("the numerator must not be over the denominator, which is {}", share.denominator));
        return None;
    }
    Some(share)
}
