//! The retry stanza of a rule.

use std::time::Duration;

use http::StatusCode;

use super::cursor::Cursor;
use super::report::Report;
use super::route::duration;
use crate::model::spec::duration::format_duration;
use crate::model::spec::route::Retry;

/// Statuses that a backend's answer may be sent again for: 400 to 599, each once.
const CODES_MAX: usize = 200;

/// Re-tries of one request at most.
const ATTEMPTS_MAX: u32 = 100;

/// Re-tries where a stanza does not say, as many as without a stanza.
const ATTEMPTS_DEFAULT: u32 = 1;

/// The least wait where a stanza does not say.
const BACKOFF_DEFAULT: Duration = Duration::from_millis(25);

/// The longest least wait.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The whole stanza. It may be empty: then requests are sent again for failures of connections alone.
pub(super) fn retry(cursor: &Cursor<'_>, report: &mut Report) -> Option<Retry> {
    let object = cursor.object(&["codes", "attempts", "backoff"], &[], report)?;
    let codes = codes(&object.list("codes", CODES_MAX, report), report);
    let attempts = object.get("attempts").map_or(Some(ATTEMPTS_DEFAULT), |field| field.integer(1..=ATTEMPTS_MAX, report));
    let backoff = object.get("backoff").map_or(Some(BACKOFF_DEFAULT), |field| backoff(&field, report));
    Some(Retry { codes: codes?, attempts: attempts?, backoff: backoff? })
}

/// The statuses, or nothing where one could not be read.
fn codes(fields: &[Cursor<'_>], report: &mut Report) -> Option<Vec<StatusCode>> {
    let (mut codes, mut is_good) = (Vec::with_capacity(fields.len()), true);
    for field in fields {
        let code = field.integer(400..=599, report).and_then(|code| u16::try_from(code).ok());
        match code.and_then(|code| StatusCode::from_u16(code).ok()) {
            Some(code) if codes.contains(&code) => {
                report.warn(field.path(), &format!("{} occurs twice in the list", code.as_u16()));
            }
            Some(code) => codes.push(code),
            None => is_good = false,
        }
    }
    is_good.then_some(codes)
}

fn backoff(cursor: &Cursor<'_>, report: &mut Report) -> Option<Duration> {
    let wait = duration(cursor, report)?;
    if wait > BACKOFF_MAX {
        cursor.fail(report, format!("must be from 0s to {}, found {}", format_duration(BACKOFF_MAX), format_duration(wait)));
        return None;
    }
    Some(wait)
}
