//! A new cluster of one node, made from a survivor of a cluster that has lost its majority for good.
//!
//! Only for when the majority's disks are gone: what they committed and this node had not received is lost, and what this node had
//! received and nobody committed becomes committed. So the result is *another cluster*: it has an id of its own, and this data directory
//! a new incarnation, so that no old member ever talks to it as to its like.
//!
//! The steps. A crash between any two leaves a state that the next call goes on from, and nothing is ever removed that a node wrote:
//!
//! 1. Take the lock, read and check everything, fold the whole log over State ([`Survivor::examine`]).
//! 2. Write the new directory beside the old one, `NAME.recovering`, and sync it. What a crash left of that is removed first.
//! 3. Rename the old directory to `NAME.before-recovery-CLUSTER`, where it stays.
//! 4. Rename the new one to `NAME`. Cut off before this step, `NAME` is missing: no node starts then ([`super::OpenError::Interrupted`]),
//!    and [`finish_interrupted`] makes up for it.
//!
//! The new directory holds one snapshot, which ends with the membership of this node alone, under a later term than anything in the log;
//! the log begins after it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::format::{DiskMark, DiskVote};
use super::open::{Examined, StoreOptions, examine};
use super::open_error::OpenError;
use super::sidecar::{DirectoryLock, Identity, IdentityFile, Slots, sync_directory};
use super::snapshot::SnapshotDirectory;
use super::state_machine::AppliedState;
use super::types::{ClusterId, Incarnation, LeaderId, LogId, Member, Membership, StoredMembership, Vote};
use crate::model::limits::FEATURE_LEVEL_MAX;
use crate::model::{NodeId, Revision};
use crate::observe::Metrics;

const NEW_SUFFIX: &str = "recovering";
const OLD_SUFFIX: &str = "before-recovery";

/// Why nothing was recovered. The data directory is as it was.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// There is nothing.
    #[error("data directory {path}: there is none")]
    Missing {
        /// The data directory.
        path: PathBuf,
    },
    /// It never belonged to a cluster.
    #[error("data directory {path}: it belongs to no cluster, so that there is nothing to recover")]
    NoCluster {
        /// The data directory.
        path: PathBuf,
    },
    /// Its node has its majority in itself.
    #[error(
        "data directory {path}: node {node_id} is the only voter of its cluster and needs no other: start it with `raftgate serve`"
    )]
    OnlyVoter {
        /// The data directory.
        path: PathBuf,
        /// The node.
        node_id: NodeId,
    },
    /// It is in use, belongs to another node, or is damaged.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An entry of its log cannot be applied.
    #[error("data directory {path}: {source}; recover from another survivor")]
    Apply {
        /// The data directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The disk failed, or does not allow it.
    #[error("{what} {path}: {source}")]
    File {
        /// What was being done.
        what: &'static str,
        /// With which path.
        path: PathBuf,
        /// Why that failed.
        source: io::Error,
    },
}

fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecoveryError {
    move |source| RecoveryError::File { what, path: path.to_path_buf(), source }
}

/// What stands on a survivor's disk.
#[derive(Debug, Clone)]
pub struct SurvivorReport {
    /// Which node, of which cluster.
    pub identity: Identity,
    /// The voters that this node knows last, by id.
    pub voters: BTreeMap<NodeId, Member>,
    /// The last log id that this disk says was committed.
    pub committed: Option<LogId>,
    /// State's revision there.
    pub committed_revision: Revision,
    /// The last entry of the log.
    pub last: Option<LogId>,
    /// State's revision there: what the new cluster begins with.
    pub revision: Revision,
    /// Resources at that revision.
    pub resource_count: usize,
}

impl SurvivorReport {
    /// Entries that nobody may have committed, and that become committed.
    pub fn uncommitted_count(&self) -> u64 {
        let index = |log_id: Option<LogId>| log_id.map_or(0, |log_id| log_id.index + 1);
        index(self.last).saturating_sub(index(self.committed))
    }
}

/// A survivor's data directory, locked and found whole. Nothing is changed until [`Survivor::found_cluster`].
#[derive(Debug)]
pub struct Survivor {
    dir: PathBuf,
    report: SurvivorReport,
    /// State after the whole log.
    applied: AppliedState,
    vote: Option<Vote>,
    own: Option<Member>,
    _lock: DirectoryLock,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The new cluster.
    pub cluster_id: ClusterId,
    /// Where the old data directory is kept.
    pub kept: PathBuf,
}

impl Survivor {
    /// Reads and checks the data directory of a stopped node. Blocks.
    ///
    /// # Errors
    ///
    /// A directory that is in use, damaged, of another node, or without anything to recover.
    pub fn examine(dir: &Path, node_id: Option<NodeId>, cluster_name: &str) -> Result<Survivor, RecoveryError> {
        let dir = match resolve(dir) {
            Ok(dir) if dir.exists() => dir,
            Ok(_) => return Err(RecoveryError::Missing { path: dir.to_path_buf() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RecoveryError::Missing { path: dir.to_path_buf() });
            }
            Err(error) => return Err(file_error("data directory", dir)(error)),
        };
        if IdentityFile::open(&dir).map_err(file_error("identity in", &dir))?.get().is_none() {
            return Err(RecoveryError::NoCluster { path: dir });
        }
        let options = StoreOptions {
            dir: dir.clone(),
            node_id,
            cluster_name: cluster_name.to_owned(),
            feature_level_max: FEATURE_LEVEL_MAX,
            metrics: Metrics::new(),
        };
        let examined = examine(&options)?;
        Survivor::read(dir, examined)
    }

    fn read(dir: PathBuf, examined: Examined) -> Result<Survivor, RecoveryError> {
        let Examined { identity, vote, current, database, log, files, .. } = examined;
        let identity = identity.get().cloned().ok_or_else(|| RecoveryError::NoCluster { path: dir.clone() })?;
        let last = log.tail.last().max(current.log_id);
        // Without a sync of its own it may be behind the snapshot.
        let committed = log.tail.committed().max(current.log_id);
        let mut applied = current;
        let mut committed_revision = applied.state.revision();
        let apply_error = |source| RecoveryError::Apply { path: dir.clone(), source };
        for entry in database.entries(applied.log_id.map_or(0, |id| id.index + 1)..=u64::MAX) {
            let (entry, _) = entry.map_err(apply_error)?;
            applied.apply(entry).map_err(apply_error)?;
            if applied.log_id <= committed {
                committed_revision = applied.state.revision();
            }
        }
        let level = applied.state.feature_level();
        if level > FEATURE_LEVEL_MAX {
            return Err(OpenError::FeatureLevel { path: dir, found: level, known: FEATURE_LEVEL_MAX }.into());
        }
        let membership = applied.membership.membership();
        if applied.log_id.is_none() || membership.nodes().next().is_none() {
            return Err(RecoveryError::NoCluster { path: dir });
        }
        let voters: BTreeMap<NodeId, Member> =
            membership.voter_ids().filter_map(|id| Some((id, membership.get_node(&id)?.clone()))).collect();
        if voters.keys().eq([&identity.node_id]) {
            return Err(RecoveryError::OnlyVoter { path: dir, node_id: identity.node_id });
        }
        let own = membership.get_node(&identity.node_id).cloned();
        let report = SurvivorReport {
            identity,
            voters,
            committed,
            committed_revision,
            last,
            revision: applied.state.revision(),
            resource_count: applied.state.len(),
        };
        Ok(Survivor { dir, report, applied, vote, own, _lock: files.lock })
    }

    /// What was found.
    pub fn report(&self) -> &SurvivorReport {
        &self.report
    }

    /// Where this node's membership says that it is reached; `None` where it is no member any more.
    pub fn own(&self) -> Option<&Member> {
        self.own.as_ref()
    }

    /// Makes the new cluster, of this node alone, under these addresses. Blocks; durable when this returns.
    ///
    /// # Errors
    ///
    /// The disk failed, or the directory cannot be renamed (a mount point, for instance). Calling it all again goes on.
    pub fn found_cluster(self, peer_address: String, admin_address: String) -> Result<Recovered, RecoveryError> {
        let new = beside(&self.dir, NEW_SUFFIX);
        let old = beside(&self.dir, &format!("{OLD_SUFFIX}-{}", self.report.identity.cluster_id));
        if old.exists() {
            return Err(file_error("kept directory", &old)(io::Error::from(io::ErrorKind::AlreadyExists)));
        }
        let identity =
            Identity { cluster_id: ClusterId::random(), incarnation: Incarnation::random(), ..self.report.identity.clone() };
        let cluster_id = identity.cluster_id;
        let member = Member { peer_address, admin_address, incarnation: identity.incarnation };
        self.write(&new, identity, member).map_err(file_error("writing", &new))?;
        rename(&self.dir, &old).map_err(file_error("renaming the data directory to", &old))?;
        rename(&new, &self.dir).map_err(file_error("renaming the new data directory to", &self.dir))?;
        Ok(Recovered { cluster_id, kept: old })
    }

    /// Writes the new data directory, whole and synced.
    fn write(&self, new: &Path, identity: Identity, member: Member) -> io::Result<()> {
        match fs::remove_dir_all(new) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::create_dir(new)?;
        let node_id = identity.node_id;
        let (last_term, last_index) = self.applied.log_id.map_or((0, 0), |last| (last.leader_id.term, last.index));
        let term = last_term.max(self.vote.map_or(0, |vote| vote.leader_id.term)) + 1;
        let log_id = LogId::new(LeaderId { term, node_id }, last_index + 1);
        let membership =
            Membership::new(vec![[node_id].into()], BTreeMap::from([(node_id, member)])).map_err(io::Error::other)?;
        let applied = AppliedState {
            state: self.applied.state.clone(),
            log_id: Some(log_id),
            membership: StoredMembership::new(Some(log_id), membership),
        };
        let snapshots = SnapshotDirectory::open(&new.join("snapshots"))?;
        // A directory that was just made has no damaged snapshot.
        let snapshots = snapshots.map_err(|damaged| io::Error::other(damaged.reasons.join("; ")))?.directory;
        snapshots.write(&applied.meta(), &applied.state)?;
        let (mut vote, _) = Slots::<DiskVote>::open(&new.join("vote"), b"vote")?;
        vote.write_twice(&DiskVote::from(&Vote { leader_id: LeaderId { term, node_id }, committed: false }))?;
        Slots::<DiskMark>::open(&new.join("mark"), b"mark")?;
        IdentityFile::open(new)?.write(identity)?;
        sync_directory(new)
    }
}

/// Does the last step of a recovery of `dir` that was cut off before it; `None` where there is none. Blocks.
///
/// # Errors
///
/// The disk failed, or another process is at it.
pub fn finish_interrupted(dir: &Path) -> Result<Option<ClusterId>, RecoveryError> {
    if !is_interrupted(dir).map_err(file_error("data directory", dir))? {
        return Ok(None);
    }
    let dir = resolve(dir).map_err(file_error("data directory", dir))?;
    let new = beside(&dir, NEW_SUFFIX);
    let lock = DirectoryLock::take(&new).map_err(file_error("lock in", &new))?;
    let _lock = lock.ok_or_else(|| OpenError::Locked { path: new.clone() })?;
    let identity = IdentityFile::open(&new).map_err(file_error("identity in", &new))?;
    let cluster_id = identity.get().map(|identity| identity.cluster_id);
    rename(&new, &dir).map_err(file_error("renaming the new data directory to", &dir))?;
    Ok(cluster_id)
}

/// Whether the data directory is away and the one that replaces it is complete. The old one goes only once the new one is.
pub(super) fn is_interrupted(dir: &Path) -> io::Result<bool> {
    if dir.exists() {
        return Ok(false);
    }
    match resolve(dir) {
        Ok(dir) => Ok(!dir.exists() && beside(&dir, NEW_SUFFIX).exists()),
        // Its parent is not there either.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The directory itself, also where it is missing: a link to it stays as it is.
fn resolve(dir: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let target = fs::read_link(dir).map_or_else(|_| dir.to_path_buf(), |target| parent(dir).join(target));
    let name = target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(fs::canonicalize(parent(&target))?.join(name))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `NAME.suffix` beside `NAME`.
fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(suffix);
    dir.with_file_name(name)
}

/// Renames, durably, what has no other name yet.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory(parent(to))
}
