//! What a cluster must know before a spec may be written.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::service::Protocol;
use crate::model::Kind;

/// The level of services over TLS.
const TLS_LEVEL: u32 = 2;

/// Those parts of a service that came after the first version.
#[derive(Deserialize)]
struct Outline<'a> {
    #[serde(borrow, default)]
    protocol: Option<Cow<'a, str>>,
    #[serde(default)]
    tls: Option<IgnoredAny>,
}

/// The feature level that the cluster must have been raised to before a resource of `kind` with this document may be written: a member
/// that does not know a field of it would keep it, and answer 500 for it.
pub fn feature_level(kind: Kind, document: &[u8]) -> u32 {
    let of_document = match kind {
        Kind::Service => level_of_service(document),
        _ => 0,
    };
    kind.feature_level().max(of_document)
}

fn level_of_service(document: &[u8]) -> u32 {
    // What is not a service here was not admitted here either.
    let Ok(outline) = serde_json::from_slice::<Outline<'_>>(document) else { return 0 };
    let is_over_tls =
        [Protocol::Https, Protocol::H2].iter().any(|over_tls| outline.protocol.as_deref() == Some(over_tls.as_str()));
    if is_over_tls || outline.tls.is_some() { TLS_LEVEL } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_over_tls_need_a_later_level() {
        let table = [
            (Kind::Service, r#"{"endpoints":[{"address":"a:1"}]}"#, 0),
            (Kind::Service, r#"{"protocol":"h2c"}"#, 0),
            (Kind::Service, r#"{"endpoints":[{"address":"a:1"}],"protocol":"https"}"#, 2),
            (Kind::Service, r#"{"protocol":"h\u0032"}"#, 2),
            (Kind::Service, r#"{"protocol":"http1","tls":{}}"#, 2),
            (Kind::Service, r#"{"protocol":5}"#, 0),
            (Kind::Service, "no json", 0),
            (Kind::Route, r#"{"protocol":"https"}"#, 0),
            (Kind::GrpcRoute, "{}", 1),
            (Kind::Unknown(99), r#"{"protocol":"https"}"#, 0),
        ];
        for (kind, document, expected) in table {
            assert_eq!(feature_level(kind, document.as_bytes()), expected, "{kind} {document}");
        }
    }
}
