//! One snapshot file: written once, checked whenever it is read.
//!
//! ```text
//! magic "RGSNAP\0" version:u8                      8 bytes
//! chunk*                                           header first, then records, then one empty chunk as the end
//! chunk = length:u32 crc32c:u32 body               little-endian; the checksum covers the chunk's number and its body
//! ```
//!
//! The header's body is the last log id and the membership; every other body is a run of bincode [`StateRecord`]s, each whole within
//! its chunk. The number in the checksum shows chunks that are missing, doubled or out of order; the empty chunk shows a file that
//! was cut; State's own digests in the footer record show the rest.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::{DigestedRecord, State, StateBuilder, StateRecord};
use crate::store::codec::{CodecError, decode_body, encode_into};
use crate::store::format::{DiskLogId, DiskStoredMembership};
use crate::store::types::{LogId, SnapshotMeta, StoredMembership};

const MAGIC: [u8; 8] = *b"RGSNAP\0\x01";

/// A chunk is closed once it is at least this long.
const CHUNK_BYTES: usize = 256 * 1024;

/// A larger file is loaded by two threads.
const PARALLEL_BYTES_MIN: u64 = 4 * CHUNK_BYTES as u64;
/// Decoded chunks that wait to be put together.
const CHUNKS_AHEAD: usize = 8;

#[derive(Serialize, Deserialize)]
struct DiskHeader {
    last_log_id: Option<DiskLogId>,
    membership: DiskStoredMembership,
}

/// A complete snapshot file, open for reading. Cloning shares the descriptor; it stays readable when the file is replaced by a newer
/// one and deleted.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    path: Arc<Path>,
    file: Arc<File>,
    meta: Arc<SnapshotMeta>,
    byte_count: u64,
    /// Of a file that was received and not installed.
    _temporary: Option<Arc<Temporary>>,
}

/// A name that goes with its last user. Once installed, the file has another.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed here is removed at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

impl SnapshotFile {
    /// Opens the file at `path` and reads its header. Blocks.
    pub(crate) fn open(path: &Path) -> io::Result<SnapshotFile> {
        let file = File::open(path)?;
        let byte_count = file.metadata()?.len();
        let file = Arc::new(file);
        let mut reader = ChunkReader::new(&file, byte_count)?;
        let header: DiskHeader = decode_body(&reader.next()?.ok_or_else(|| invalid("no header"))?)?;
        let meta = SnapshotMeta {
            last_log_id: header.last_log_id.map(LogId::from),
            last_membership: StoredMembership::try_from(header.membership)?,
        };
        Ok(SnapshotFile { path: Arc::from(path), file, meta: Arc::new(meta), byte_count, _temporary: None })
    }

    /// Opens a temporary file, which is removed when nobody uses it any more and it was not installed. Blocks.
    pub(super) fn open_temporary(path: &Path) -> io::Result<SnapshotFile> {
        let file = SnapshotFile::open(path)?;
        Ok(SnapshotFile { _temporary: Some(Arc::new(Temporary(path.to_path_buf()))), ..file })
    }

    /// Reads all of it and checks every chunk; what is in them is checked when it is loaded. Blocks.
    pub(super) fn check(&self) -> io::Result<()> {
        let mut reader = ChunkReader::new(&self.file, self.byte_count)?;
        while reader.next()?.is_some() {}
        Ok(())
    }

    /// What it covers.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// Its size.
    pub fn byte_count(&self) -> u64 {
        self.byte_count
    }

    /// At most `bytes_max` bytes from `offset` on; empty at the end. Blocks on the disk.
    pub fn read_chunk(&self, offset: u64, bytes_max: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.byte_count.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; left.min(bytes_max)];
        self.file.read_exact_at(&mut buffer, offset)?;
        Ok(Bytes::from(buffer))
    }

    /// The CRC-32C of the whole file. Blocks on the disk.
    pub fn crc32c(&self) -> io::Result<u32> {
        let mut crc = 0;
        let mut offset = 0;
        loop {
            let chunk = self.read_chunk(offset, CHUNK_BYTES)?;
            if chunk.is_empty() {
                return Ok(crc);
            }
            crc = crc32c::crc32c_append(crc, &chunk);
            offset += chunk.len() as u64;
        }
    }

    /// Where it stands.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and checks all of it. Blocks.
    ///
    /// Of a large one a thread of its own reads, checks and decodes the chunks while this one puts together those before: a start waits for it.
    pub(crate) fn load(&self) -> io::Result<State> {
        let mut reader = ChunkReader::new(&self.file, self.byte_count)?;
        reader.next()?.ok_or_else(|| invalid("no header"))?;
        let mut chunks =
            std::iter::from_fn(move || reader.next().and_then(|body| body.map(|body| records(&body)).transpose()).transpose());
        if self.byte_count < PARALLEL_BYTES_MIN {
            return build(chunks);
        }
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel(CHUNKS_AHEAD);
            scope.spawn(move || chunks.try_for_each(|chunk| sender.send(chunk)));
            build(receiver.into_iter())
        })
    }
}

/// The records of a chunk.
fn records(mut body: &[u8]) -> io::Result<Vec<DigestedRecord>> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let (length, rest) = body.split_first_chunk::<4>().ok_or_else(|| invalid("a record is cut short"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let (record, rest) = rest.split_at_checked(length).ok_or_else(|| invalid("a record is cut short"))?;
        records.push(DigestedRecord::from(decode_body::<StateRecord>(record)?));
        body = rest;
    }
    Ok(records)
}

/// The State of all chunks.
fn build(chunks: impl Iterator<Item = io::Result<Vec<DigestedRecord>>>) -> io::Result<State> {
    let mut builder = StateBuilder::new();
    for records in chunks {
        for record in records? {
            builder.add(record).map_err(|error| invalid(&error.to_string()))?;
        }
    }
    builder.finish().map_err(|error| invalid(&error.to_string()))
}

/// Writes a snapshot of `state` to `path`, which must not exist, and syncs the file. Blocks.
pub(crate) fn write(path: &Path, meta: &SnapshotMeta, state: &State) -> io::Result<()> {
    let file = File::create_new(path)?;
    let mut writer = ChunkWriter { output: BufWriter::with_capacity(CHUNK_BYTES, file), number: 0 };
    writer.output.write_all(&MAGIC)?;
    let header = DiskHeader {
        last_log_id: meta.last_log_id.map(DiskLogId::from),
        membership: DiskStoredMembership::from(&meta.last_membership),
    };
    let mut body = Vec::with_capacity(CHUNK_BYTES * 2);
    encode_into(&header, &mut body)?;
    writer.write(&mut body)?;
    for record in state.records() {
        let start = body.len();
        body.extend_from_slice(&[0; 4]);
        encode_into(&record, &mut body)?;
        let length = u32::try_from(body.len() - start - 4).map_err(|_| invalid("a record of over 4 GiB"))?;
        body[start..start + 4].copy_from_slice(&length.to_le_bytes());
        if body.len() >= CHUNK_BYTES {
            writer.write(&mut body)?;
        }
    }
    if !body.is_empty() {
        writer.write(&mut body)?;
    }
    writer.write(&mut body)?;
    writer.output.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

struct ChunkWriter {
    output: BufWriter<File>,
    number: u64,
}

impl ChunkWriter {
    /// Writes `body` as the next chunk and empties it.
    fn write(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        let length = u32::try_from(body.len()).map_err(|_| invalid("a chunk of over 4 GiB"))?;
        self.output.write_all(&length.to_le_bytes())?;
        self.output.write_all(&checksum(self.number, body).to_le_bytes())?;
        self.output.write_all(body)?;
        self.number += 1;
        body.clear();
        Ok(())
    }
}

struct ChunkReader {
    input: BufReader<PositionedReader>,
    number: u64,
    /// Bytes of the file that were not read yet: no chunk is longer, whatever its head says.
    bytes_left: u64,
}

impl ChunkReader {
    fn new(file: &Arc<File>, byte_count: u64) -> io::Result<ChunkReader> {
        let input = BufReader::with_capacity(CHUNK_BYTES, PositionedReader { file: Arc::clone(file), offset: 0 });
        let mut reader = ChunkReader { input, number: 0, bytes_left: byte_count };
        let magic = reader.read::<8>()?;
        if magic[..7] != MAGIC[..7] {
            return Err(invalid("not a snapshot"));
        }
        if magic[7] != MAGIC[7] {
            return Err(CodecError::Version { found: magic[7], known: MAGIC[7] }.into());
        }
        Ok(reader)
    }

    /// The next chunk's body; `None` at the end, beyond which nothing may stand.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let length = u32::from_le_bytes(self.read::<4>()?);
        let expected = u32::from_le_bytes(self.read::<4>()?);
        self.take(u64::from(length))?;
        let mut body = vec![0; length as usize];
        self.input.read_exact(&mut body)?;
        if checksum(self.number, &body) != expected {
            return Err(invalid(&format!("chunk {}: wrong checksum", self.number)));
        }
        self.number += 1;
        if length > 0 {
            return Ok(Some(body));
        }
        if self.bytes_left > 0 {
            return Err(invalid("bytes beyond the end"));
        }
        Ok(None)
    }

    fn read<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.take(N as u64)?;
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn take(&mut self, count: u64) -> io::Result<()> {
        self.bytes_left = self.bytes_left.checked_sub(count).ok_or_else(|| invalid("cut short"))?;
        Ok(())
    }
}

/// Reads a shared descriptor without moving its position for the others.
struct PositionedReader {
    file: Arc<File>,
    offset: u64,
}

impl Read for PositionedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

fn checksum(number: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), body)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("snapshot: {reason}"))
}

/// The file name of the snapshot that covers up to `log_id`. Names sort as log ids do.
pub(crate) fn name(log_id: Option<LogId>) -> PathBuf {
    let (index, term, node_id) = log_id.map_or((0, 0, 0), |id| (id.index + 1, id.leader_id.term, id.leader_id.node_id));
    PathBuf::from(format!("{index:020}-{term:020}-{node_id:020}.snapshot"))
}
