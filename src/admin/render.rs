//! Answers: resources as JSON, times, and the revision that something was answered at.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::headers::REVISION;
use crate::model::spec::redact;
use crate::model::{Resource, ResourceKey, Revision, Timestamp};

/// An answer of JSON, at `revision`.
pub(crate) fn json_at(status: StatusCode, revision: Revision, body: &Value) -> Response {
    text_at(status, revision, body.to_string())
}

/// An answer of JSON text, at `revision`.
pub(crate) fn text_at(status: StatusCode, revision: Revision, body: String) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REVISION, HeaderValue::from(revision.0));
    response
}

/// A resource's spec as it may be shown: as it is stored, for nobody serialises a document again, but with digests in place of secrets.
pub(crate) fn shown(resource: &Resource) -> Cow<'_, str> {
    match resource.key.kind.secret_fields() {
        [] => String::from_utf8_lossy(&resource.spec),
        _ => Cow::Owned(shown_value(resource).to_string()),
    }
}

/// A resource's spec as it may be shown.
pub(crate) fn shown_value(resource: &Resource) -> Value {
    let mut document = serde_json::from_slice(&resource.spec).unwrap_or_default();
    redact(resource.key.kind, &mut document);
    document
}

/// A resource.
pub(crate) fn resource_text(resource: &Resource) -> String {
    // Kinds, names and times have no character that JSON escapes, and a stored spec is canonical JSON.
    format!(
        r#"{{"kind":"{}","name":"{}","createdRevision":{},"revision":{},"updatedAt":"{}","spec":{}}}"#,
        resource.key.kind,
        resource.key.name,
        resource.created_revision,
        resource.revision,
        time(resource.updated_at),
        shown(resource),
    )
}

/// `{"kind", "name"}` of a resource.
pub(crate) fn key_value(key: &ResourceKey) -> Value {
    json!({"kind": key.kind.as_str(), "name": key.name.as_str()})
}

/// RFC 3339 with milliseconds.
pub(crate) fn time(at: Timestamp) -> String {
    // A wall clock beyond the year 9999 has no such form.
    let latest = Duration::from_secs(253_402_300_799);
    system_time(UNIX_EPOCH + Duration::from_millis(at.0).min(latest))
}

/// RFC 3339 with milliseconds.
pub(crate) fn system_time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// This node's wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{Kind, Name};

    #[test]
    fn a_resource_is_valid_json_with_its_spec_as_stored() {
        let resource = Resource {
            key: ResourceKey::new(Kind::Route, Name::new("a.b_c-d").expect("a name")),
            created_revision: Revision(3),
            revision: Revision(7),
            updated_at: Timestamp(u64::MAX),
            spec: Bytes::from_static(b"{\"rules\":[]}"),
        };
        let value: Value = serde_json::from_str(&resource_text(&resource)).expect("JSON");
        assert_eq!(value["updatedAt"], "9999-12-31T23:59:59.000Z");
        assert_eq!(value["spec"], json!({"rules": []}));
        assert_eq!((value["createdRevision"].as_u64(), value["revision"].as_u64()), (Some(3), Some(7)));
        assert_eq!(time(Timestamp(1_500)), "1970-01-01T00:00:01.500Z");
    }
}
