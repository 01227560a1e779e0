//! What the log needs of the file that it stands in. sled is one such file; the simulation has a model of another.

use std::fmt::Debug;
use std::io;
use std::ops::RangeInclusive;

use futures_util::future::BoxFuture;

/// Keys of the log are short.
pub type Key = Vec<u8>;
/// Pairs in the order of their keys, or in the opposite one.
pub type Pairs = Box<dyn Iterator<Item = io::Result<(Key, Vec<u8>)>> + Send>;

/// Changes that take effect together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Each key with its value; without one it is removed. The last change of a key stands.
    pub changes: Vec<(Key, Option<Vec<u8>>)>,
}

impl Batch {
    pub(crate) fn insert(&mut self, key: &[u8], value: Vec<u8>) {
        self.changes.push((key.to_vec(), Some(value)));
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.changes.push((key.to_vec(), None));
    }
}

/// An ordered map from keys to values in a file.
pub trait LogFile: Debug + Send + Sync + 'static {
    /// Makes the changes of a batch, all or none. What is not synced may be lost in a crash, from the last batch backwards.
    ///
    /// # Errors
    ///
    /// The file is not to be used any more.
    fn apply(&self, batch: Batch) -> io::Result<()>;

    /// Makes durable all that was applied. It may block.
    ///
    /// # Errors
    ///
    /// Nothing is known of what was applied since the last sync; the file is not to be used any more.
    fn sync(&self) -> BoxFuture<'_, io::Result<()>>;

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is damaged.
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// The pairs of a range of keys, from its end where `backwards`.
    fn pairs(&self, keys: RangeInclusive<Key>, backwards: bool) -> Pairs;

    /// Bytes that the file takes on the disk.
    ///
    /// # Errors
    ///
    /// They cannot be told.
    fn disk_bytes(&self) -> io::Result<u64>;
}
