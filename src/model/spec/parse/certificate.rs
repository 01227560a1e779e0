//! Certificates and secrets: their shape. Whether a chain and a key are good is not asked here.

use zeroize::Zeroizing;

use super::cursor::Cursor;
use super::report::Report;
use crate::model::spec::certificate::CertificateSpec;
use crate::model::spec::secret::{SealedSecret, Secret};

/// Bytes of a chain in PEM at most: ten certificates of usual size, and more names than a public authority puts into one.
const CHAIN_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a secret in plain text at most; an RSA key of 8,192 bits takes 6.5 KiB.
const SECRET_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a sealed secret in base64 at most: a nonce, a tag and a third more.
const SEALED_BYTES_MAX: usize = 2 * SECRET_BYTES_MAX;

/// Bytes of a digest or a key's id at most.
const LABEL_BYTES_MAX: usize = 128;

/// The whole spec.
pub(super) fn certificate(cursor: &Cursor<'_>, report: &mut Report) -> Option<CertificateSpec> {
    let object = cursor.object(&["certificate", "privateKey", "default"], &[], report)?;
    let chain = object.require("certificate", report);
    let chain = chain.and_then(|field| field.string(1..=CHAIN_BYTES_MAX, report));
    let private_key = object.require("privateKey", report).and_then(|field| secret(&field, report));
    let is_default = object.get("default").map_or(Some(false), |field| field.boolean(report));
    Some(CertificateSpec { certificate: chain?.to_owned(), private_key: private_key?, is_default: is_default? })
}

/// A secret in one of its three forms. No message repeats it.
fn secret(cursor: &Cursor<'_>, report: &mut Report) -> Option<Secret> {
    if cursor.is_string() {
        let text = cursor.string(1..=SECRET_BYTES_MAX, report)?;
        return Some(Secret::Plain(Zeroizing::new(text.to_owned())));
    }
    let object = cursor.object(&["secretDigest", "sealed", "keyId"], &[], report)?;
    let digest = object.require("secretDigest", report);
    let digest = digest.and_then(|field| field.string(1..=LABEL_BYTES_MAX, report)).map(str::to_owned);
    if object.get("sealed").is_none() && object.get("keyId").is_none() {
        return digest.map(|digest| Secret::Kept { digest });
    }
    let sealed = object.require("sealed", report).and_then(|field| field.string(1..=SEALED_BYTES_MAX, report));
    let key_id = object.require("keyId", report).and_then(|field| field.string(1..=LABEL_BYTES_MAX, report));
    Some(Secret::Sealed(SealedSecret { sealed: sealed?.to_owned(), key_id: key_id?.to_owned(), digest: digest? }))
}
