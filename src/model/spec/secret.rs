//! Secrets in documents: as clients send them, as they are stored, and as they are shown.
//!
//! A secret comes in plain text and is sealed by the node that admits the write, so that log, snapshots and history never hold it. Every read
//! shows its digest in its place; a client that sends the digest back means "as it is".

use std::fmt;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::model::Kind;

/// A field that holds a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The secret itself, as a client sends it. Never in the log.
    Plain(Zeroizing<String>),
    /// What is stored under this digest stays.
    Kept {
        /// As a read showed it.
        digest: String,
    },
    /// As it is stored.
    Sealed(SealedSecret),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Plain(_) => f.write_str("Plain(..)"),
            Secret::Kept { digest } => write!(f, "Kept({digest})"),
            Secret::Sealed(sealed) => write!(f, "Sealed({})", sealed.digest),
        }
    }
}

/// A secret as it is stored. What `sealed` holds is the business of `secrets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Cipher text, in base64.
    pub sealed: String,
    /// Which key opens it.
    pub key_id: String,
    /// Tells secrets apart, for those who read.
    pub digest: String,
}

impl SealedSecret {
    /// The form that documents have it in.
    pub fn document(&self) -> Value {
        json!({"sealed": self.sealed, "keyId": self.key_id, "secretDigest": self.digest})
    }
}

/// Puts into the place of each secret of a document of `kind` what may be shown of it: its digest, `null` where it has none.
pub fn redact(kind: Kind, document: &mut Value) {
    for field in kind.secret_fields() {
        if let Some(secret) = document.get_mut(field) {
            let digest = secret.get_mut("secretDigest").map_or(Value::Null, Value::take);
            let shown = if digest.is_string() { digest } else { Value::Null };
            *secret = Value::Object(Map::from_iter([("secretDigest".to_owned(), shown)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_a_secret_field_only_its_digest_is_shown() {
        for (stored, shown) in [
            (json!({"sealed": "AAAA", "keyId": "k", "secretDigest": "d", "later": 1}), json!({"secretDigest": "d"})),
            (json!("-----BEGIN"), json!({"secretDigest": null})),
            (json!({"secretDigest": {"inner": "x"}}), json!({"secretDigest": null})),
            (json!([{"secretDigest": "d"}]), json!({"secretDigest": null})),
        ] {
            let mut document = json!({"certificate": "c", "privateKey": stored});
            redact(Kind::Certificate, &mut document);
            assert_eq!(document, json!({"certificate": "c", "privateKey": shown}));
        }
        let mut route = json!({"privateKey": 1});
        redact(Kind::Route, &mut route);
        assert_eq!(route, json!({"privateKey": 1}));
    }

    #[test]
    fn a_plain_secret_is_not_printed() {
        let text = format!("{:?}", Secret::Plain(Zeroizing::new("hunter2".to_owned())));
        assert!(!text.contains("hunter2"), "{text}");
    }
}
