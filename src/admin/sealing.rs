//! Secrets of a write: sealed before anything is proposed, or kept where the client sent back what a read showed.
//!
//! What is kept is looked up by its digest in the State that the write is judged by; where others change the secret meanwhile, the later write
//! wins, as it does with every other field. A chain is checked against its key here, while the key is at hand.

use std::sync::Arc;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Shared;
use super::call::Call;
use super::content::at;
use super::problem::Problem;
use super::reads::unreadable;
use crate::model::spec::{CertificateSpec, FieldError, SealedSecret, Secret, parse_certificate};
use crate::model::{Kind, ResourceKey, State};
use crate::secrets::{Keyring, Place};
use crate::table::{CertificateError, Chain};

/// The field of a certificate that is sealed.
const PRIVATE_KEY: &str = "privateKey";

/// Seals the secrets of one write.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sealer {
    keyring: Arc<Keyring>,
    /// Holds what may be kept.
    state: State,
}

/// A certificate that may be proposed.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Its document, sealed.
    pub(super) document: Value,
    /// What its chain says.
    pub(super) chain: Chain,
    /// Whether it is marked as default.
    pub(super) is_default: bool,
    /// Whether the key came in plain text.
    pub(super) was_plain: bool,
}

impl Sealer {
    /// A sealer with this node's keys that keeps what stands in `state`.
    pub(crate) fn new(keyring: Arc<Keyring>, state: State) -> Sealer {
        Sealer { keyring, state }
    }

    /// The sealer for a call. Where the call writes resources with secrets, what is kept is judged by a linearizable read.
    pub(crate) async fn of_call(shared: &Shared, call: &Call, has_secrets: bool) -> Result<Sealer, Problem> {
        if !has_secrets {
            return Ok(Sealer::default());
        }
        let state = shared.admin.cluster.read(call.deadline).await.map_err(|error| unreadable(&error))?;
        Ok(Sealer::new(shared.admin.live.keyring(), state))
    }

    /// Checks and seals a certificate.
    pub(super) fn certificate(&self, key: &ResourceKey, document: &Value) -> Result<Admitted, Vec<FieldError>> {
        let spec = parse_certificate(document)?.spec;
        let chain = Chain::admit(&spec.certificate).map_err(at_fault)?;
        let stored = self.stored(key);
        let sealed = self.sealed(key, &spec, &chain, stored.as_ref()).map_err(|error| vec![error])?;
        let fields = document.as_object().into_iter().flatten().filter(|(name, _)| *name != PRIVATE_KEY);
        let mut fields: Map<String, Value> = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
        fields.insert(PRIVATE_KEY.to_owned(), sealed.document());
        let was_plain = matches!(spec.private_key, Secret::Plain(_));
        Ok(Admitted { document: Value::Object(fields), chain, is_default: spec.is_default, was_plain })
    }

    fn sealed(
        &self,
        key: &ResourceKey,
        spec: &CertificateSpec,
        chain: &Chain,
        stored: Option<&(SealedSecret, String)>,
    ) -> Result<SealedSecret, FieldError> {
        let place = Place { kind: Kind::Certificate, name: &key.name, field: PRIVATE_KEY };
        match &spec.private_key {
            Secret::Plain(pem) => {
                let pem = one_spelling(pem);
                chain.with_key(pem.as_bytes()).map_err(fault)?;
                let sealed = self.keyring.seal(place, &pem, stored.map(|(sealed, _)| sealed));
                sealed.map_err(|error| at(format!("/{PRIVATE_KEY}"), error.to_string()))
            }
            Secret::Kept { digest } => {
                let path = format!("/{PRIVATE_KEY}/secretDigest");
                let (sealed, certificate) = stored.ok_or_else(|| {
                    let message = format!("{key} does not exist, and a digest only keeps what is stored: send the key in PEM");
                    at(path.clone(), message)
                })?;
                if sealed.digest != *digest {
                    let message = "it is not the digest of what is stored: read the resource again, or send the key in PEM";
                    return Err(at(path, message));
                }
                // A chain that stays has been checked, and a node without keys can keep it.
                if *certificate != spec.certificate {
                    let plain = self.keyring.open(place, sealed);
                    let plain = plain.map_err(|error| at(path, format!("the new certificate cannot be checked: {error}")))?;
                    chain.with_key(&plain).map_err(fault)?;
                }
                Ok(sealed.clone())
            }
            Secret::Sealed(_) => {
                let message = "a sealed key is not taken: send it in PEM, or {\"secretDigest\"} alone, as a read shows it";
                Err(at(format!("/{PRIVATE_KEY}"), message))
            }
        }
    }

    /// The key that is stored, and its chain.
    fn stored(&self, key: &ResourceKey) -> Option<(SealedSecret, String)> {
        let document = serde_json::from_slice(&self.state.get(key)?.spec).ok()?;
        let spec = parse_certificate(&document).ok()?.spec;
        match spec.private_key {
            Secret::Sealed(sealed) => Some((sealed, spec.certificate)),
            Secret::Plain(_) | Secret::Kept { .. } => None,
        }
    }
}

/// Whether a request body of `{"operations": [{"kind"}]}` has operations on resources with secrets.
pub(super) fn has_secrets(body: &Value) -> bool {
    let operations = body.get("operations").and_then(Value::as_array).into_iter().flatten();
    let kinds = operations.filter_map(|operation| operation.get("kind")?.as_str()?.parse::<Kind>().ok());
    kinds.into_iter().any(|kind| !kind.secret_fields().is_empty())
}

/// The same key has one digest however a file of it is indented, and however its lines end.
fn one_spelling(pem: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(pem.len() + 1));
    for line in pem.lines().map(str::trim).filter(|line| !line.is_empty()) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn fault(error: CertificateError) -> FieldError {
    at(format!("/{}", error.field()), error.to_string())
}

fn at_fault(error: CertificateError) -> Vec<FieldError> {
    vec![fault(error)]
}
