//! Opening a data directory: everything is read and checked before anything is served.

use std::fs;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use tokio::sync::watch;
use tracing::info;

use super::advisor::{LOG_BYTES_MIN, SnapshotAdvisor};
use super::blocking::Blocking;
use super::failure::Failure;
use super::format::{DiskMark, DiskVote};
use super::log::database::Database;
use super::log::keys::{COMMITTED, PURGED};
use super::log::sled_file::SledFile;
use super::log::writer::{Files, Writer};
use super::log::{LogCloser, LogFile, LogShared, LogStore, Tail, entry_bytes};
use super::open_error::{OpenError, is_passing};
use super::recovery;
use super::samples::Samples;
use super::sidecar::{DirectoryLock, IdentityFile, Slots, sync_directory};
use super::snapshot::{AllDamaged, Loaded, SnapshotDirectory};
use super::state_machine::{AppliedState, Snapshots, StateMachine};
use super::types::{LogId, Vote};
use crate::model::{NodeId, State};
use crate::observe::Metrics;

/// What to open.
#[derive(Debug)]
pub struct StoreOptions {
    /// The data directory; made where it is missing.
    pub dir: PathBuf,
    /// The configured node id; without one the directory's identity says it, or the cluster that the node joins.
    pub node_id: Option<NodeId>,
    /// The configured name of the cluster.
    pub cluster_name: String,
    /// The highest feature level that this version knows ([`FEATURE_LEVEL_MAX`](crate::model::limits::FEATURE_LEVEL_MAX)).
    pub feature_level_max: u32,
    /// Where the store's metrics go.
    pub metrics: Metrics,
}

/// An open store.
#[derive(Debug)]
pub struct Opened {
    /// openraft's log storage.
    pub log: LogStore,
    /// openraft's state machine; it holds the newest snapshot's State already.
    pub state_machine: StateMachine,
    /// Who this directory is.
    pub identity: IdentityFile,
    /// State with its log id, after each batch.
    pub applied: watch::Receiver<AppliedState>,
    /// State alone, after each batch.
    pub states: watch::Receiver<State>,
    /// The reason of a storage error, after which this process takes no part in Raft any more.
    pub failed: watch::Receiver<Option<String>>,
    /// Where others than the store report that the Raft side has ended for good.
    pub failure: Failure,
    /// Where received snapshots go.
    pub snapshots: SnapshotDirectory,
    /// When to make a snapshot, and how much of the log may be purged.
    pub advisor: SnapshotAdvisor,
    /// Closes the log at the end.
    pub closer: LogCloser,
    /// What State was at recent log ids.
    pub samples: Samples,
    /// Makes this node's State another than the others'.
    #[cfg(test)]
    pub(crate) tamper: super::Tamper,
    /// Holds this node's State back.
    #[cfg(test)]
    pub(crate) brake: watch::Sender<bool>,
    /// Where work runs that waits for the disk.
    pub blocking: Blocking,
    /// Whether nothing of Raft stands on this disk: no vote, no log, no snapshot.
    pub is_empty: bool,
}

/// Opens the data directory, loads State from the newest good snapshot and starts the log's thread. Blocks.
pub fn open(options: StoreOptions) -> Result<Opened, OpenError> {
    let dir = options.dir.as_path();
    let file_error = |what: &'static str| move |source: io::Error| OpenError::File { path: dir.to_path_buf(), what, source };
    if recovery::is_interrupted(dir).map_err(file_error("directory"))? {
        return Err(OpenError::Interrupted { path: dir.to_path_buf() });
    }
    make_directory(dir).map_err(file_error("directory"))?;
    let examined = examine(&options)?;
    let (writer, opened) = assemble(options.metrics, options.feature_level_max, examined, Blocking::Threads, LOG_BYTES_MIN);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(file_error("thread"))?;
    let run = move || runtime.block_on(writer.run());
    thread::Builder::new().name("raftgate-log".to_owned()).spawn(run).map_err(file_error("thread"))?;
    Ok(opened)
}

fn make_directory(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir).map_err(|error| match dir.exists() && !dir.is_dir() {
        true => {
            io::Error::new(io::ErrorKind::NotADirectory, "it is a file; data_dir is a directory that belongs to this node alone")
        }
        false => error,
    })
}

/// What a simulation brings in place of sled and of threads.
#[derive(Debug)]
pub struct Simulated {
    /// Where the log stands.
    pub file: Arc<dyn LogFile>,
    /// A log that is no longer is not worth a snapshot.
    pub snapshot_log_bytes: u64,
}

/// As [`open`], for a simulation: everything happens in tasks of the present runtime.
pub fn open_simulated(options: StoreOptions, simulated: Simulated) -> Result<Opened, OpenError> {
    let dir = options.dir.as_path();
    make_directory(dir).map_err(|source| OpenError::File { path: dir.to_path_buf(), what: "directory", source })?;
    let examined = examine_with(&options, Blocking::Here, || Ok(simulated.file))?;
    let (writer, opened) =
        assemble(options.metrics, options.feature_level_max, examined, Blocking::Here, simulated.snapshot_log_bytes);
    tokio::spawn(writer.run());
    Ok(opened)
}

/// A data directory that was found whole, and what is in it.
pub(super) struct Examined {
    pub(super) identity: IdentityFile,
    pub(super) vote: Option<Vote>,
    /// State of the newest good snapshot.
    pub(super) current: AppliedState,
    pub(super) database: Database,
    pub(super) log: LoadedLog,
    pub(super) files: Files,
    directory: SnapshotDirectory,
    mark: DiskMark,
}

/// Takes the directory's lock, reads and checks everything in it. Blocks.
pub(super) fn examine(options: &StoreOptions) -> Result<Examined, OpenError> {
    examine_with(options, Blocking::Threads, || Ok(Arc::new(SledFile::open(&options.dir.join("log"))?)))
}

/// Snapshot and log are read side by side, where there may be threads: at a million routes each takes a second.
fn examine_with(
    options: &StoreOptions,
    blocking: Blocking,
    open_log: impl FnOnce() -> io::Result<Arc<dyn LogFile>> + Send,
) -> Result<Examined, OpenError> {
    let dir = options.dir.as_path();
    let file_error = |what: &'static str| move |source: io::Error| OpenError::File { path: dir.to_path_buf(), what, source };
    let lock = DirectoryLock::take(dir).map_err(file_error("lock"))?;
    let lock = lock.ok_or_else(|| OpenError::Locked { path: dir.to_path_buf() })?;
    let identity = open_identity(options)?;
    let node_id = identity.get().map(|known| known.node_id).or(options.node_id);
    let (vote_file, vote) =
        Slots::<DiskVote>::open(&dir.join("vote"), b"vote").map_err(small_file_error(dir, node_id, "vote"))?;
    let (mark_file, mark) =
        Slots::<DiskMark>::open(&dir.join("mark"), b"mark").map_err(small_file_error(dir, node_id, "mark"))?;
    let vote = vote.map(Vote::from);
    let mark = mark.unwrap_or_default();
    let open_snapshots = || SnapshotDirectory::open(&dir.join("snapshots"));
    let (snapshots, log) = match blocking {
        Blocking::Here => (open_snapshots(), read_log(open_log, vote)),
        Blocking::Threads => thread::scope(|scope| {
            let log = scope.spawn(|| read_log(open_log, vote));
            (open_snapshots(), log.join().unwrap_or_else(|panic| resume_unwind(panic)))
        }),
    };
    let Loaded { directory, newest } = snapshots
        .map_err(file_error("snapshots"))?
        .map_err(|AllDamaged { reasons }| OpenError::Snapshots { path: dir.to_path_buf(), node_id, reasons })?;
    let current = newest.map_or_else(AppliedState::default, |(file, state)| AppliedState {
        state,
        log_id: file.meta().last_log_id,
        membership: file.meta().last_membership.clone(),
    });
    let level = current.state.feature_level();
    if level > options.feature_level_max {
        return Err(OpenError::FeatureLevel { path: dir.to_path_buf(), found: level, known: options.feature_level_max });
    }
    let log_error = |reason: String| OpenError::Log { path: dir.to_path_buf(), node_id, reason };
    let (database, log) = log.map_err(|(what, error)| match is_passing(&error) {
        true => file_error("log")(error),
        false => log_error(format!("{what}{error}")),
    })?;
    check(&log, vote, mark, current.log_id).map_err(log_error)?;
    sync_directory(dir).map_err(file_error("directory"))?;
    sync_directory(dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
        .map_err(file_error("parent directory"))?;
    info!(path = %dir.display(), first = ?log.tail.first_index(), last = ?log.tail.last(), snapshot = ?current.log_id, "store opened");
    let files = Files { vote: vote_file, mark: mark_file, lock };
    Ok(Examined { identity, vote, current, database, log, files, directory, mark })
}

/// A small file that is damaged is as good as lost: what it said is not known any more.
fn small_file_error(dir: &Path, node_id: Option<NodeId>, what: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    let path = dir.to_path_buf();
    move |source| match source.kind() {
        io::ErrorKind::InvalidData => OpenError::Log { path, node_id, reason: format!("the file {what:?} is damaged: {source}") },
        _ => OpenError::File { path, what, source },
    }
}

fn open_identity(options: &StoreOptions) -> Result<IdentityFile, OpenError> {
    let path = options.dir.clone();
    let identity = IdentityFile::open(&options.dir).map_err(small_file_error(&options.dir, options.node_id, "identity"))?;
    if let Some(present) = identity.get() {
        if let Some(configured) = options.node_id.filter(|configured| *configured != present.node_id) {
            return Err(OpenError::OtherNode { path, found: present.node_id, configured });
        }
        if present.cluster_name != options.cluster_name {
            let (found, configured) = (present.cluster_name.clone(), options.cluster_name.clone());
            return Err(OpenError::OtherCluster { path, found, configured });
        }
        // They are made before the identity is written: without them the directory forgot what it promised.
        if let Some(missing) = ["vote", "mark"].iter().find(|name| !path.join(name).exists()) {
            let reason = format!("the file {missing:?} is missing");
            return Err(OpenError::Log { path, node_id: Some(present.node_id), reason });
        }
    }
    Ok(identity)
}

/// What the log holds.
pub(super) struct LoadedLog {
    pub(super) tail: Tail,
    /// Bytes of each entry, in order.
    byte_counts: Vec<u64>,
    /// The first entry of each leader, which tell the log id at any index.
    log_ids: Vec<LogId>,
}

impl LoadedLog {
    /// Bytes of the entries that a snapshot up to `last` does not cover.
    fn bytes_after(&self, last: Option<LogId>) -> u64 {
        let first = self.tail.first_index().unwrap_or_default();
        let covered = last.map_or(0, |last| (last.index + 1).saturating_sub(first));
        self.byte_counts.iter().skip(usize::try_from(covered).unwrap_or(usize::MAX)).sum()
    }
}

/// Opens and reads the log. Errors: what it was doing, and why that failed.
fn read_log(
    open_log: impl FnOnce() -> io::Result<Arc<dyn LogFile>>,
    vote: Option<Vote>,
) -> Result<(Database, LoadedLog), (&'static str, io::Error)> {
    let file = open_log().map_err(|error| ("the log in log/ cannot be opened: ", error))?;
    let database = Database::new(file);
    let log = load_log(&database, vote).map_err(|error| ("", error))?;
    Ok((database, log))
}

/// Reads every entry: what is damaged shows now and not when it is needed.
fn load_log(database: &Database, vote: Option<Vote>) -> io::Result<LoadedLog> {
    let purged = database.log_id(PURGED)?;
    let mut tail = Tail::new(purged, database.log_id(COMMITTED)?, vote);
    let mut byte_counts = Vec::new();
    let mut log_ids: Vec<LogId> = Vec::new();
    for entry in database.entries(purged.map_or(0, |purged| purged.index + 1)..=u64::MAX) {
        let (entry, disk_bytes) = entry?;
        let log_id = entry.log_id;
        let size = entry_bytes(&entry);
        tail.push(entry, size).map_err(io::Error::other)?;
        tail.evict(u64::MAX);
        byte_counts.push(disk_bytes as u64);
        if log_ids.last().is_none_or(|last| last.leader_id != log_id.leader_id) {
            log_ids.push(log_id);
        }
    }
    Ok(LoadedLog { tail, byte_counts, log_ids })
}

/// Whether vote, mark, snapshot and log agree. What is missing was promised to others, so that any doubt ends the node.
fn check(log: &LoadedLog, vote: Option<Vote>, mark: DiskMark, snapshot: Option<LogId>) -> Result<(), String> {
    let (first, last, purged) = (log.tail.first_index(), log.tail.last(), log.tail.purged());
    let show = |log_id: Option<LogId>| log_id.map_or("nothing".to_owned(), |log_id| log_id.to_string());
    let mark_purged = mark.purged.map(LogId::from);
    if mark_purged > purged {
        return Err(format!("the log says that it was purged up to {}, its mark says {}", show(purged), show(mark_purged)));
    }
    if let Some(mark) = mark.last.map(LogId::from)
        && purged.is_none_or(|purged| purged.index < mark.index)
    {
        let first = first.unwrap_or(u64::MAX);
        let holder = log.log_ids.iter().rev().find(|start| start.index <= mark.index);
        let holds = last.is_some_and(|last| last.index >= mark.index) && first <= mark.index;
        if !holds || holder.is_none_or(|start| start.leader_id != mark.leader_id) {
            return Err(format!("the log ends at {}, but its mark says that it held {mark}", show(last)));
        }
    }
    if let (Some(purged), Some(first)) = (purged, first)
        && first != purged.index + 1
    {
        return Err(format!("the log begins at {first}, it was purged up to {purged}"));
    }
    if purged.map(|purged| purged.index) > snapshot.map(|snapshot| snapshot.index) {
        return Err(format!("the log is purged up to {}, the snapshot covers {}", show(purged), show(snapshot)));
    }
    let (vote_term, last_term) = (vote.map_or(0, |vote| vote.leader_id.term), last.map_or(0, |last| last.leader_id.term));
    if vote_term < last_term {
        return Err(format!("the vote is of term {vote_term}, the log of term {last_term}"));
    }
    Ok(())
}

fn assemble(
    metrics: Metrics,
    feature_level_max: u32,
    examined: Examined,
    blocking: Blocking,
    snapshot_log_bytes: u64,
) -> (Writer, Opened) {
    let Examined { identity, vote, current, database, log, files, directory, mark } = examined;
    let is_empty = vote.is_none() && log.tail.last().is_none() && current.log_id.is_none();
    let failure = Failure::new(metrics.clone());
    let advisor = SnapshotAdvisor::new(log.bytes_after(current.log_id), snapshot_log_bytes, &directory, metrics.clone());
    let database = Arc::new(database);
    let shared = Arc::new(LogShared::new(log.tail, Arc::clone(&database), blocking, failure.clone(), metrics.clone()));
    let writer = Writer::new(Arc::clone(&shared), database, files, mark, advisor.clone());
    let failed = failure.subscribe();
    let snapshots =
        Snapshots { directory: directory.clone(), advisor: advisor.clone(), failure: failure.clone(), metrics, blocking };
    let state_machine = StateMachine::new(current, feature_level_max, snapshots);
    #[cfg(feature = "known-bugs")]
    shared.publish_early_to(state_machine.early());
    let opened = Opened {
        applied: state_machine.applied(),
        states: state_machine.states(),
        samples: state_machine.samples(),
        #[cfg(test)]
        tamper: state_machine.tamper(),
        #[cfg(test)]
        brake: state_machine.brake(),
        closer: LogCloser::new(Arc::clone(&shared)),
        log: LogStore::new(shared),
        state_machine,
        identity,
        failed,
        failure,
        snapshots: directory,
        advisor,
        blocking,
        is_empty,
    };
    (writer, opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limits::FEATURE_LEVEL_MAX;

    #[test]
    fn a_disk_that_is_full_asks_for_space_and_for_no_other_node() {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            dir: directory.path().to_path_buf(),
            node_id: Some(1),
            cluster_name: "test".to_owned(),
            feature_level_max: FEATURE_LEVEL_MAX,
            metrics: Metrics::new(),
        };
        let message = |kind| {
            let error =
                examine_with(&options, Blocking::Here, || Err(io::Error::from(kind))).err().expect("the log cannot be opened");
            error.to_string()
        };
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let text = message(kind);
            assert!(text.contains("free space") && !text.contains("must not vote"), "{text}");
        }
        assert!(message(io::ErrorKind::InvalidData).contains("must not vote again"));
    }
}
