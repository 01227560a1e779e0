//! Files on their way to a node: read on a thread, and taken in batches.
//!
//! The thread is at most [`BATCHES_AHEAD`] batches ahead of whoever takes them, and ends once nobody does, so that the memory of a call
//! does not grow with its files.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{mem, thread};

use tokio::sync::mpsc;

use super::documents::{DocumentError, Files, Item, Taker, read_files};

/// Bytes of a batch; it is full once it has as many.
const BATCH_BYTES: usize = 64 * 1024;

/// Batches that wait to be taken.
const BATCHES_AHEAD: usize = 4;

/// What comes from the thread. Without [`Message::End`] or an error it died.
enum Message {
    Batch(Vec<Item>),
    End,
}

/// Files that are being read.
pub(super) struct Reading {
    files: Arc<Mutex<Files>>,
    messages: mpsc::Receiver<Result<Message, DocumentError>>,
}

impl Reading {
    /// Begins to read.
    pub(super) fn of(paths: Vec<PathBuf>) -> Reading {
        Reading::by(move |batches| read_files(&paths, batches))
    }

    /// Begins to read by `read`, on a thread that may outlive this where it waits for a standard input that never ends.
    pub(super) fn by(read: impl FnOnce(&mut Batches) -> Result<(), DocumentError> + Send + 'static) -> Reading {
        let files = Arc::new(Mutex::new(Files::default()));
        let (sender, messages) = mpsc::channel(BATCHES_AHEAD);
        let mut batches = Batches { files: Arc::clone(&files), sender, batch: Vec::new(), byte_count: 0 };
        thread::spawn(move || {
            let end = read(&mut batches).map(|()| Message::End);
            if batches.hand_over() {
                // An error: nobody is there to take it.
                let _ = batches.sender.blocking_send(end);
            }
        });
        Reading { files, messages }
    }

    /// The next resources; none at the end of all files.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Item>>, DocumentError> {
        match self.messages.recv().await {
            Some(Ok(Message::Batch(batch))) => Ok(Some(batch)),
            Some(Ok(Message::End)) => Ok(None),
            Some(Err(error)) => Err(error),
            None => Err(DocumentError::GivenUp),
        }
    }

    /// What is known of the files by now.
    pub(super) fn files(&self) -> Arc<Mutex<Files>> {
        Arc::clone(&self.files)
    }
}

/// What is shared with the thread, also after it died.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's end.
pub(super) struct Batches {
    files: Arc<Mutex<Files>>,
    sender: mpsc::Sender<Result<Message, DocumentError>>,
    batch: Vec<Item>,
    byte_count: usize,
}

impl Batches {
    /// Sends what there is. False: nobody takes it.
    fn hand_over(&mut self) -> bool {
        self.byte_count = 0;
        let batch = mem::take(&mut self.batch);
        batch.is_empty() || self.sender.blocking_send(Ok(Message::Batch(batch))).is_ok()
    }
}

impl Taker for Batches {
    fn with_files<T>(&mut self, work: impl FnOnce(&mut Files) -> T) -> T {
        work(&mut lock(&self.files))
    }

    fn take(&mut self, item: Item) -> bool {
        self.byte_count += item.byte_count();
        self.batch.push(item);
        self.byte_count < BATCH_BYTES || self.hand_over()
    }
}
