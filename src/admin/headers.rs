//! Request headers of the contract: terms of the call, conditions, and the idempotency key. A value that cannot be read is an error
//! that names the header, never a default: a condition that is ignored would be an unconditional write.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::document::Format;
use super::problem::Problem;
use crate::model::spec::parse_duration;
use crate::model::{Precondition, ResourceKey, Revision};

/// The revision that something was answered at.
pub(crate) const REVISION: HeaderName = HeaderName::from_static("raftgate-revision");
/// The cluster's id.
pub(crate) const CLUSTER: HeaderName = HeaderName::from_static("raftgate-cluster");
const MIN_REVISION: HeaderName = HeaderName::from_static("raftgate-min-revision");
const TIMEOUT: HeaderName = HeaderName::from_static("raftgate-timeout");
/// Names a write, so that it is not applied twice.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// Characters of an idempotency key; with the caller's name it stays below the protocol's limit.
const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

/// What a request asks for before anything is done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// How long it may take. Default 5 s, at most 30 s.
    pub(crate) timeout: Duration,
    /// The live table must be at this revision or later.
    pub(crate) min_revision: Option<Revision>,
    /// The cluster that it is meant for.
    pub(crate) cluster: Option<String>,
}

impl Terms {
    /// Reads the terms.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Terms, Problem> {
        Ok(Terms { timeout: timeout(headers)?, min_revision: min_revision(headers)?, cluster: cluster(headers)? })
    }
}

fn timeout(headers: &HeaderMap) -> Result<Duration, Problem> {
    let Some(text) = text(headers, &TIMEOUT)? else { return Ok(TIMEOUT_DEFAULT) };
    match parse_duration(text) {
        Ok(timeout) if !timeout.is_zero() && timeout <= TIMEOUT_MAX => Ok(timeout),
        Ok(_) => Err(bad(&TIMEOUT, text, "a duration from 1ms to 30s")),
        Err(_) => Err(bad(&TIMEOUT, text, "a duration such as 5s or 250ms")),
    }
}

fn min_revision(headers: &HeaderMap) -> Result<Option<Revision>, Problem> {
    let Some(text) = text(headers, &MIN_REVISION)? else { return Ok(None) };
    number(text).map(|revision| Some(Revision(revision))).ok_or_else(|| bad(&MIN_REVISION, text, "a revision (a number)"))
}

fn cluster(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    Ok(text(headers, &CLUSTER)?.map(str::to_owned))
}

/// `Idempotency-Key`, if there is one.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(key) = text(headers, &IDEMPOTENCY_KEY)? else { return Ok(None) };
    let chars = key.chars().count();
    if !(1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&chars) {
        let detail = format!("header {IDEMPOTENCY_KEY} has 1 to {IDEMPOTENCY_KEY_CHARS_MAX} characters, this one has {chars}");
        return Err(Problem::malformed(detail));
    }
    Ok(Some(key))
}

/// What `If-Match` and `If-None-Match` ask of the resource `key`.
pub(crate) fn conditions(headers: &HeaderMap, key: &ResourceKey) -> Result<Option<Precondition>, Problem> {
    let none_match = text(headers, &header::IF_NONE_MATCH)?;
    let Some(tag) = text(headers, &header::IF_MATCH)? else {
        return match none_match {
            None => Ok(None),
            Some("*") => Ok(Some(Precondition::Revision { key: key.clone(), revision: Revision::ZERO })),
            Some(other) => Err(bad(&header::IF_NONE_MATCH, other, "* at a write")),
        };
    };
    if none_match.is_some() {
        return Err(Problem::malformed("headers if-match and if-none-match exclude each other"));
    }
    if tag == "*" {
        return Ok(Some(Precondition::Exists { key: key.clone() }));
    }
    entity_tag(tag).map(|revision| Some(Precondition::Revision { key: key.clone(), revision }))
}

/// What `If-Match` asks of the whole State.
pub(crate) fn state_condition(headers: &HeaderMap) -> Result<Option<Revision>, Problem> {
    if let Some(tag) = text(headers, &header::IF_NONE_MATCH)? {
        return Err(bad(&header::IF_NONE_MATCH, tag, "not used here"));
    }
    text(headers, &header::IF_MATCH)?.map(revision_of_tag).transpose()
}

/// Refuses conditions on calls whose conditions stand in the body.
pub(crate) fn no_conditions(headers: &HeaderMap) -> Result<(), Problem> {
    match [header::IF_MATCH, header::IF_NONE_MATCH].into_iter().find(|name| headers.contains_key(name)) {
        Some(name) => Err(Problem::malformed(format!("header {name}: a transaction's conditions stand in its preconditions"))),
        None => Ok(()),
    }
}

fn entity_tag(tag: &str) -> Result<Revision, Problem> {
    match revision_of_tag(tag)? {
        Revision::ZERO => Err(bad(&header::IF_MATCH, tag, "a revision from 1 (If-None-Match: * creates only)")),
        revision => Ok(revision),
    }
}

fn revision_of_tag(tag: &str) -> Result<Revision, Problem> {
    if tag.contains(',') {
        // A precondition of the log holds one revision. To choose one of several here would refuse what the list allows, where the
        // resource moves from one of them to another before the write's turn.
        return Err(bad(&header::IF_MATCH, tag, "one ETag, not a list of them"));
    }
    let inner = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let revision = inner.and_then(number).map(Revision);
    revision.ok_or_else(|| bad(&header::IF_MATCH, tag, "one ETag: a revision in double quotes, such as \"42\""))
}

/// Whether a read's `If-None-Match` names this entity tag: then the client has it already (RFC 9110 13.1.2).
pub(crate) fn already_has(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let Ok(tag) = tag.to_str() else { return false };
    let given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

/// The entity tag of a revision.
pub(crate) fn tag_of(revision: Revision) -> HeaderValue {
    // Digits between quotes are always a valid field value.
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The format of the body, by `Content-Type`. Without one the body counts as JSON.
pub(crate) fn body_format(headers: &HeaderMap, accepted: &[Format]) -> Result<Format, Problem> {
    let given = text(headers, &header::CONTENT_TYPE)?.unwrap_or("application/json");
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let known = format_of(&essence).filter(|format| accepted.contains(format));
    known.ok_or_else(|| {
        let names = if accepted.contains(&Format::Yaml) { "application/json or application/yaml" } else { "application/json" };
        Problem::media_type(format!("header content-type is {given:?}; this call reads {names}"))
    })
}

/// The format of the answer, by `Accept`: YAML where it is named and JSON is not named before it.
pub(crate) fn answer_format(headers: &HeaderMap) -> Format {
    let given = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let essences = given.flat_map(|value| value.split(',')).map(|range| range.split(';').next().unwrap_or_default().trim());
    essences.filter_map(|essence| format_of(&essence.to_ascii_lowercase())).next().unwrap_or(Format::Json)
}

fn format_of(essence: &str) -> Option<Format> {
    match essence {
        "application/json" => Some(Format::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Some(Format::Yaml),
        _ => None,
    }
}

/// The value of a header that may stand once.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::malformed(format!("header {name} stands more than once")));
    }
    value.to_str().map(|text| Some(text.trim())).map_err(|_| Problem::malformed(format!("header {name} is not plain text")))
}

/// Digits only: `u64::from_str` also takes a plus sign.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn bad(name: &HeaderName, value: &str, expected: &str) -> Problem {
    Problem::malformed(format!("header {name} is {value:?}; expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Name};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn key() -> ResourceKey {
        ResourceKey::new(Kind::Route, Name::new("a").expect("a name"))
    }

    #[test]
    fn terms_have_defaults_and_bounds() {
        let terms = Terms::read(&headers(&[])).expect("terms");
        assert_eq!(terms, Terms { timeout: TIMEOUT_DEFAULT, min_revision: None, cluster: None });
        let given = [("raftgate-timeout", "250ms"), ("raftgate-min-revision", "7"), ("raftgate-cluster", "abc")];
        let terms = Terms::read(&headers(&given)).expect("terms");
        assert_eq!((terms.timeout, terms.min_revision), (Duration::from_millis(250), Some(Revision(7))));
        for (name, value) in [
            ("raftgate-timeout", "31s"),
            ("raftgate-timeout", "0s"),
            ("raftgate-timeout", "soon"),
            ("raftgate-timeout", ""),
            ("raftgate-min-revision", "-1"),
            ("raftgate-min-revision", "+1"),
            ("raftgate-min-revision", "99999999999999999999"),
        ] {
            let problem = Terms::read(&headers(&[(name, value)])).expect_err(value);
            assert!(problem.detail().contains(name), "{problem:?}");
        }
        assert!(Terms::read(&headers(&[("raftgate-min-revision", "1"), ("raftgate-min-revision", "2")])).is_err());
    }

    #[test]
    fn conditions_are_one_tag_or_a_star() {
        let read = |pairs| conditions(&headers(pairs), &key());
        let at = |revision| Some(Precondition::Revision { key: key(), revision: Revision(revision) });
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("if-match", "\"42\"")]), Ok(at(42)));
        assert_eq!(read(&[("if-match", "*")]), Ok(Some(Precondition::Exists { key: key() })));
        assert_eq!(read(&[("if-none-match", "*")]), Ok(at(0)));
        for (name, value) in [
            ("if-match", "42"),
            ("if-match", "\"0\""),
            ("if-match", "\"x\""),
            ("if-match", "W/\"42\""),
            ("if-match", "\"1\", \"2\""),
            ("if-none-match", "\"42\""),
        ] {
            let problem = conditions(&headers(&[(name, value)]), &key()).expect_err(value);
            assert!(problem.detail().contains(name), "{problem:?}");
        }
        assert!(read(&[("if-match", "*"), ("if-none-match", "*")]).is_err());
        let list = headers(&[("if-match", "\"1\", \"2\"")]);
        for problem in [conditions(&list, &key()).expect_err("a list"), state_condition(&list).expect_err("a list")] {
            assert!(problem.detail().contains("expected one ETag, not a list"), "{problem:?}");
        }
    }

    #[test]
    fn formats_follow_content_type_and_accept() {
        let both = [Format::Json, Format::Yaml];
        let body = |value| body_format(&headers(&[("content-type", value)]), &both);
        assert_eq!(body("application/json; charset=utf-8"), Ok(Format::Json));
        assert_eq!(body("application/yaml"), Ok(Format::Yaml));
        assert!(body("text/html").is_err());
        assert!(body_format(&headers(&[("content-type", "application/yaml")]), &[Format::Json]).is_err());
        let answer = |value| answer_format(&headers(&[("accept", value)]));
        assert_eq!(answer("*/*"), Format::Json);
        assert_eq!(answer("text/html, application/yaml;q=0.9"), Format::Yaml);
        assert_eq!(answer("application/json, application/yaml"), Format::Json);
    }

    #[test]
    fn a_read_knows_what_the_client_has() {
        let tag = tag_of(Revision(42));
        assert!(already_has(&headers(&[("if-none-match", "W/\"1\", \"42\"")]), &tag));
        assert!(!already_has(&headers(&[("if-none-match", "\"43\"")]), &tag));
        assert!(!already_has(&headers(&[]), &tag));
    }
}
