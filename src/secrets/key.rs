//! One sealing key, and what is derived from it.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::hmac;
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;

/// Bytes of a key's id: enough to tell a handful of keys apart.
const ID_BYTES: usize = 8;

/// Says what the derived keys are for, and the version of the sealed form.
const SALT: &[u8] = b"raftgate secrets 1";

/// A cipher or a generator of the system failed, or the text is not what was sealed.
#[derive(Debug)]
pub(super) struct Failed;

impl From<ring::error::Unspecified> for Failed {
    fn from(_: ring::error::Unspecified) -> Failed {
        Failed
    }
}

/// A key, ready for use. The bytes of the file are not kept.
pub(super) struct Key {
    /// In hexadecimal digits; no secret.
    pub(super) id: String,
    cipher: LessSafeKey,
    digest: hmac::Key,
}

/// The length of what is derived.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Key {
    /// Derives everything from the bytes of a key file.
    pub(super) fn derive(bytes: &[u8; KEY_BYTES]) -> Result<Key, Failed> {
        let root = Salt::new(HKDF_SHA256, SALT).extract(bytes);
        let derived = |purpose: &[u8], output: &mut [u8]| root.expand(&[purpose], Length(output.len()))?.fill(output);
        let mut id = [0; ID_BYTES];
        derived(b"id", &mut id)?;
        let mut material = Zeroizing::new([0; KEY_BYTES]);
        derived(b"seal", material.as_mut())?;
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, material.as_ref())?);
        derived(b"digest", material.as_mut())?;
        let digest = hmac::Key::new(hmac::HMAC_SHA256, material.as_ref());
        Ok(Key { id: hex(&id), cipher, digest })
    }

    /// The digest of `plain` at a place.
    pub(super) fn digest(&self, place: &[u8], plain: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.digest);
        context.update(&(place.len() as u64).to_le_bytes());
        context.update(place);
        context.update(plain);
        format!("hmac-sha256:{}", hex(context.sign().as_ref()))
    }

    /// Nonce, cipher text and tag of `plain`.
    pub(super) fn seal(&self, random: &dyn SecureRandom, about: &[u8], plain: &[u8]) -> Result<Vec<u8>, Failed> {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce)?;
        // Room for all of it at once: a buffer that grew would leave plain text behind.
        let mut text = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
        text.extend_from_slice(plain);
        self.cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(about), &mut text)?;
        Ok([&nonce[..], &text].concat())
    }

    /// What was sealed, if `sealed` is that and `about` is the same.
    pub(super) fn open(&self, about: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failed> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Failed)?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = self.cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(about), &mut text)?.len();
        text.truncate(length);
        Ok(text)
    }
}

/// Hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
