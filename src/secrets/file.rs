//! Key files: 32 random bytes as base64 or hexadecimal digits, for their owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::rand::{SecureRandom as _, SystemRandom};
use thiserror::Error;
use zeroize::Zeroizing;

use super::key::{KEY_BYTES, Key};

/// Bytes of a key file at most: 64 digits and a little white space.
const FILE_BYTES_MAX: u64 = 256;

/// Permissions of a new key file.
const MODE: u32 = 0o600;

/// The bits of a mode that let others than the owner read.
const READABLE_BY_OTHERS: u32 = 0o044;

/// Why a key file cannot be used or made.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The system refuses it.
    #[error("key file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "key file {path}: expected 32 bytes as base64 or as 64 hexadecimal digits and nothing else; raftgate secrets new-key makes one"
    )]
    Content {
        /// Which file.
        path: PathBuf,
    },
    /// The system gives no random bytes, or its cipher fails.
    #[error("key file {path}: the system's cryptography failed")]
    Cryptography {
        /// Which file.
        path: PathBuf,
    },
}

/// Makes a new key in a file that must not exist yet, readable by its owner alone. Gives the key's id.
///
/// # Errors
///
/// The file is there, or cannot be written.
pub fn create_key_file(path: &Path) -> Result<String, KeyFileError> {
    let failed = |source| KeyFileError::File { path: path.to_owned(), source };
    let cryptography = || KeyFileError::Cryptography { path: path.to_owned() };
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    SystemRandom::new().fill(bytes.as_mut()).map_err(|_| cryptography())?;
    let key = Key::derive(&bytes).map_err(|_| cryptography())?;
    let mut text = Zeroizing::new(STANDARD.encode(bytes.as_ref()));
    text.push('\n');
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path).map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|source| {
        // Half a key must not stay: the next attempt would refuse to overwrite it.
        let _ = fs::remove_file(path);
        failed(source)
    })?;
    Ok(key.id)
}

/// Reads the key of a file. Warns where others can read it too.
pub(super) fn read_key(path: &Path) -> Result<Key, KeyFileError> {
    let failed = |source| KeyFileError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & READABLE_BY_OTHERS != 0 {
        let mode = format!("{:03o}", mode & 0o777);
        tracing::warn!(path = %path.display(), mode, "the key file is readable by others than its owner: chmod 600 it");
    }
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize + 1));
    let content = || KeyFileError::Content { path: path.to_owned() };
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => content(),
        _ => failed(error),
    })?;
    let bytes = decode(text.trim()).filter(|_| text.len() as u64 <= FILE_BYTES_MAX).ok_or_else(content)?;
    Key::derive(&bytes).map_err(|_| KeyFileError::Cryptography { path: path.to_owned() })
}

/// 32 bytes of 64 hexadecimal digits, or of base64 with or without padding.
fn decode(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let bytes = match text.len() == 2 * KEY_BYTES && text.is_ascii() {
        true => {
            let digits = (0..KEY_BYTES).map(|index| text.get(2 * index..2 * index + 2));
            digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<Vec<u8>>>()?
        }
        false => STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?,
    };
    let bytes = Zeroizing::new(bytes);
    let key: [u8; KEY_BYTES] = bytes.as_slice().try_into().ok()?;
    Some(Zeroizing::new(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_new_key_is_its_owners_alone_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let id = create_key_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_key(&path).unwrap().id, id);
        let before = fs::read(&path).unwrap();
        let error = create_key_file(&path).unwrap_err().to_string();
        assert!(error.contains("exists") && error.contains("key"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn base64_and_hexadecimal_digits_are_one_key_and_anything_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let read = |text: &[u8]| {
            fs::write(&path, text).unwrap();
            read_key(&path).map(|key| key.id)
        };
        let base64 = STANDARD.encode([7; KEY_BYTES]);
        let id = read(base64.as_bytes()).unwrap();
        for text in [format!("  {base64}\r\n"), base64.trim_end_matches('=').to_owned(), "07".repeat(32), "07".repeat(32) + "\n"]
        {
            assert_eq!(read(text.as_bytes()).unwrap(), id, "{text}");
        }
        let long = format!("{base64}{}", " ".repeat(300));
        for text in ["", "AAAA", "not a key", &"0x".repeat(32), &STANDARD.encode([7; 31]), &STANDARD.encode([7; 33]), &long] {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("expected 32 bytes"), "{text}: {error}");
        }
        assert!(read(&[0xff; 44]).unwrap_err().to_string().contains("expected 32 bytes"));
        assert!(matches!(read_key(&dir.path().join("none")), Err(KeyFileError::File { .. })));
    }
}
