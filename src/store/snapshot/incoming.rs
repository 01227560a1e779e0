//! A snapshot on its way from a peer.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use thiserror::Error;

use super::SnapshotFile;

/// A temporary file that fills up. Dropped before [`IncomingSnapshot::finish`], it removes itself.
#[derive(Debug)]
pub struct IncomingSnapshot {
    file: File,
    /// Taken by `finish`.
    path: Option<PathBuf>,
    byte_count: u64,
    crc: u32,
}

/// Why a received snapshot is not used.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// What arrived is not what was sent.
    #[error("received {found_bytes} bytes with crc32c {found_crc:08x}, the sender says {expected_bytes} and {expected_crc:08x}")]
    Differs {
        /// How many bytes arrived.
        found_bytes: u64,
        /// How many the sender says.
        expected_bytes: u64,
        /// The checksum of what arrived.
        found_crc: u32,
        /// The sender's checksum.
        expected_crc: u32,
    },
    /// The file is no snapshot, or the disk failed.
    #[error("received snapshot: {0}")]
    File(#[from] io::Error),
}

impl IncomingSnapshot {
    pub(super) fn create(path: PathBuf) -> io::Result<IncomingSnapshot> {
        let file = File::create_new(&path)?;
        Ok(IncomingSnapshot { file, path: Some(path), byte_count: 0, crc: 0 })
    }

    /// How many bytes have arrived: the offset of the next chunk.
    pub fn byte_count(&self) -> u64 {
        self.byte_count
    }

    /// Adds the next chunk. Blocks on the disk.
    pub fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk)?;
        self.byte_count += chunk.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, chunk);
        Ok(())
    }

    /// Compares the whole with what the sender says, syncs it and checks every chunk, for the sender's own file may be damaged. The
    /// file is removed with the last use of what this gives, unless it is installed. Blocks on the disk.
    pub fn finish(mut self, expected_bytes: u64, expected_crc: u32) -> Result<SnapshotFile, ReceiveError> {
        if (self.byte_count, self.crc) != (expected_bytes, expected_crc) {
            let (found_bytes, found_crc) = (self.byte_count, self.crc);
            return Err(ReceiveError::Differs { found_bytes, expected_bytes, found_crc, expected_crc });
        }
        self.file.sync_all()?;
        let path = self.path.as_ref().ok_or_else(|| io::Error::other("finished twice"))?;
        let snapshot = SnapshotFile::open_temporary(path)?;
        self.path = None;
        snapshot.check()?;
        Ok(snapshot)
    }
}

impl Drop for IncomingSnapshot {
    fn drop(&mut self) {
        // What cannot be removed here is removed at the next start.
        if let Some(path) = self.path.take() {
            let _ = fs::remove_file(path);
        }
    }
}
