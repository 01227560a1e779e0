//! A body in chunks (RFC 9112 7.1), up to its trailers.

use super::flaw::{self, Flaw};
use crate::upstream::{ChunkFlaw, ChunkFrame, Sizes};

/// A body in chunks on its way.
#[derive(Debug)]
pub(super) struct Chunks(ChunkFrame);

impl Chunks {
    pub(super) fn new() -> Chunks {
        Chunks(ChunkFrame::new(Sizes::Exact))
    }

    pub(super) fn is_done(&self) -> bool {
        self.0.is_over()
    }

    /// Follows `bytes` up to the trailers; gives how many of them belong to the chunks. A flaw comes with how many bytes before it are
    /// sound.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, (usize, Flaw)> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            at += match self.0.pass_data(bytes.len() - at) {
                0 => self.0.pass(bytes[at]).map(|()| 1).map_err(|found| (at, told(found)))?,
                count => count,
            };
        }
        Ok(at)
    }
}

fn told(found: ChunkFlaw) -> Flaw {
    match found {
        ChunkFlaw::Size => flaw::CHUNK_SIZE,
        ChunkFlaw::BareLf => flaw::BARE_LF,
        ChunkFlaw::BareCr => flaw::BARE_CR,
        ChunkFlaw::Extension => flaw::CHUNK_EXTENSION,
        ChunkFlaw::Extensions => flaw::CHUNK_EXTENSIONS,
        ChunkFlaw::End => flaw::CHUNK_END,
    }
}
