//! The state machine: commands become State.
//!
//! Applied log id, membership and State change together and are published together (etcd#13766 is what happens otherwise), after each
//! batch and before anybody is answered: whoever got an answer finds it in the published State. `apply` works in memory alone; State
//! comes back from the newest snapshot and the log after it. A command that cannot be decoded stops the node, since skipping it would
//! make this node's State another than the others'.

use std::io;
use std::time::Instant;

use futures_util::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use tokio::sync::watch;
use tracing::info;

use super::advisor::SnapshotAdvisor;
use super::blocking::Blocking;
use super::codec::decode_command;
use super::failure::Failure;
use super::samples::Samples;
use super::snapshot::{SnapshotDirectory, SnapshotFile};
use super::types::{Answer, Entry, LogId, Membership, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::model::{Command, CommandBody, State};
use crate::observe::{KnownBug, Metrics, crash_point};

/// State at an applied log id.
#[derive(Debug, Clone, Default)]
pub struct AppliedState {
    /// State.
    pub state: State,
    /// The last entry that went into it.
    pub log_id: Option<LogId>,
    /// The last membership up to there.
    pub membership: StoredMembership,
}

impl AppliedState {
    pub(super) fn meta(&self) -> SnapshotMeta {
        let mut last_log_id = self.log_id;
        if KnownBug::SnapshotOneAhead.is_on() {
            last_log_id = last_log_id.map(|id| LogId::new(id.leader_id, id.index + 1));
        }
        SnapshotMeta { last_log_id, last_membership: self.membership.clone() }
    }

    pub(super) fn apply(&mut self, entry: Entry) -> io::Result<Answer> {
        Ok(self.fold(Decoded::read(entry)?))
    }

    fn fold(&mut self, entry: Decoded) -> Answer {
        let answer = match entry.payload {
            DecodedPayload::Blank => None,
            DecodedPayload::Membership(membership) => {
                for (&id, member) in self.membership.nodes() {
                    if membership.get_node(&id).is_none() {
                        self.state.remember_removed_member(id, member.incarnation.0);
                    }
                }
                if membership.get_joint_config().len() > 1 {
                    crash_point("members-joint");
                }
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                None
            }
            DecodedPayload::Command(command) => Some(self.state.apply(&command)),
        };
        self.log_id = Some(entry.log_id);
        answer
    }
}

/// An entry that this version understands.
struct Decoded {
    log_id: LogId,
    payload: DecodedPayload,
}

enum DecodedPayload {
    Blank,
    Membership(Membership),
    Command(Command),
}

impl Decoded {
    fn read(entry: Entry) -> io::Result<Decoded> {
        let payload =
            match entry.payload {
                Payload::Blank => DecodedPayload::Blank,
                Payload::Membership(membership) => DecodedPayload::Membership(membership),
                Payload::Normal(proposal) => DecodedPayload::Command(decode_command(&proposal.0).map_err(|error| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("command at {}: {error}", entry.log_id))
                })?),
            };
        Ok(Decoded { log_id: entry.log_id, payload })
    }

    /// Whether it may take seconds: a million operations at once.
    fn is_long(&self) -> bool {
        matches!(&self.payload, DecodedPayload::Command(Command { body: CommandBody::Activate(_), .. }))
    }
}

/// What the state machine and its snapshot builders share.
#[derive(Debug, Clone)]
pub(crate) struct Snapshots {
    pub(crate) directory: SnapshotDirectory,
    pub(crate) advisor: SnapshotAdvisor,
    pub(crate) failure: Failure,
    pub(crate) metrics: Metrics,
    pub(crate) blocking: Blocking,
}

impl Snapshots {
    /// Runs disk work. Its failure is the end of the Raft side, openraft's as well as ours.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        self.blocking.run(work).await.inspect_err(|error| self.failure.set(&error.to_string()))
    }
}

/// openraft's state machine.
#[derive(Debug)]
pub struct StateMachine {
    current: AppliedState,
    feature_level_max: u32,
    applied: watch::Sender<AppliedState>,
    states: watch::Sender<State>,
    samples: Samples,
    snapshots: Snapshots,
    #[cfg(test)]
    tamper: Tamper,
    #[cfg(test)]
    brake: watch::Sender<bool>,
}

/// Where a test asks for a State that is another than the log makes: it takes effect with the next batch.
#[cfg(test)]
pub(crate) type Tamper = std::sync::Arc<std::sync::atomic::AtomicBool>;

impl StateMachine {
    pub(crate) fn new(current: AppliedState, feature_level_max: u32, snapshots: Snapshots) -> StateMachine {
        let (applied, states) = (watch::Sender::new(current.clone()), watch::Sender::new(current.state.clone()));
        let samples = Samples::default();
        samples.after_batch(&current);
        StateMachine {
            current,
            feature_level_max,
            applied,
            states,
            samples,
            snapshots,
            #[cfg(test)]
            tamper: Tamper::default(),
            #[cfg(test)]
            brake: watch::Sender::default(),
        }
    }

    /// State with its log id, after each batch.
    pub fn applied(&self) -> watch::Receiver<AppliedState> {
        self.applied.subscribe()
    }

    /// State alone, after each batch.
    pub fn states(&self) -> watch::Receiver<State> {
        self.states.subscribe()
    }

    /// What State was at recent log ids.
    pub fn samples(&self) -> Samples {
        self.samples.clone()
    }

    #[cfg(feature = "known-bugs")]
    pub(crate) fn early(&self) -> watch::Sender<State> {
        self.states.clone()
    }

    #[cfg(test)]
    pub(crate) fn tamper(&self) -> Tamper {
        Tamper::clone(&self.tamper)
    }

    /// While it is true, nothing more is applied.
    #[cfg(test)]
    pub(crate) fn brake(&self) -> watch::Sender<bool> {
        self.brake.clone()
    }

    /// What a later version agreed on cannot be followed by this one.
    fn check_level(&self, state: &State) -> io::Result<()> {
        let (level, known) = (state.feature_level(), self.feature_level_max);
        if level <= known {
            return Ok(());
        }
        let reason = format!("the cluster is at feature level {level}, this version knows up to {known}: run a later version");
        Err(io::Error::new(io::ErrorKind::InvalidData, reason))
    }

    /// Applies an entry: here, or where it takes long on a thread of its own, for heartbeats share this one.
    async fn apply_entry(&mut self, entry: Entry) -> io::Result<Answer> {
        let entry = Decoded::read(entry)?;
        if !entry.is_long() {
            return Ok(self.current.fold(entry));
        }
        let mut current = std::mem::take(&mut self.current);
        let applied = self.snapshots.blocking.run(move || {
            let answer = current.fold(entry);
            Ok((current, answer))
        });
        let (current, answer) = applied.await?;
        self.current = current;
        Ok(answer)
    }

    fn publish(&self) {
        self.samples.after_batch(&self.current);
        self.states.send_replace(self.current.state.clone());
        self.applied.send_replace(self.current.clone());
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.current.log_id, self.current.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        #[cfg(test)]
        self.brake.subscribe().wait_for(|held| !held).await.map_err(io::Error::other)?;
        #[cfg(test)]
        if self.tamper.swap(false, std::sync::atomic::Ordering::Relaxed) {
            self.current.state.tamper();
        }
        crash_point("apply-begun");
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let answer = self.apply_entry(entry).await;
            let answer = answer.and_then(|answer| self.check_level(&self.current.state).map(|()| answer));
            let answer = answer.inspect_err(|error| self.snapshots.failure.set(&error.to_string()))?;
            self.samples.after_entry(&self.current);
            answers.extend(responder.map(|responder| (responder, answer)));
        }
        self.publish();
        crash_point("apply-published");
        answers.into_iter().for_each(|(responder, answer)| responder.send(answer));
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let covered_bytes = self.snapshots.advisor.log_bytes();
        SnapshotBuilder { of: self.current.clone(), covered_bytes, snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> Result<(), io::Error> {
        let covered_bytes = self.snapshots.advisor.log_bytes();
        let directory = self.snapshots.directory.clone();
        let expected = meta.clone();
        crash_point("install-begun");
        let state = self.snapshots.blocking(move || directory.install(&expected, &snapshot)).await?;
        crash_point("install-kept");
        self.check_level(&state).inspect_err(|error| self.snapshots.failure.set(&error.to_string()))?;
        self.snapshots.metrics.raft_snapshots_installed.inc();
        self.snapshots.advisor.snapshot_complete(covered_bytes, &self.snapshots.directory);
        info!(last_log_id = ?meta.last_log_id, revision = %state.revision(), "snapshot installed");
        self.current = AppliedState { state, log_id: meta.last_log_id, membership: meta.last_membership.clone() };
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.snapshots.directory.newest().map(|file| Snapshot { meta: file.meta().clone(), snapshot: file }))
    }
}

/// Writes a snapshot of the State that it was made with, while the state machine goes on.
#[derive(Debug)]
pub struct SnapshotBuilder {
    of: AppliedState,
    covered_bytes: u64,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let started = Instant::now();
        let meta = self.of.meta();
        let newest = self.snapshots.directory.newest().filter(|newest| *newest.meta() == meta);
        let file = match newest {
            Some(newest) => newest,
            None => {
                let (directory, of, meta) = (self.snapshots.directory.clone(), self.of.clone(), meta.clone());
                let file = self.snapshots.blocking(move || directory.write(&meta, &of.state)).await?;
                self.snapshots.metrics.raft_snapshots_built.inc();
                self.snapshots.metrics.raft_snapshot_duration.observe(started.elapsed().as_secs_f64());
                info!(last_log_id = ?self.of.log_id, bytes = file.byte_count(), "snapshot built");
                file
            }
        };
        self.snapshots.advisor.snapshot_complete(self.covered_bytes, &self.snapshots.directory);
        Ok(Snapshot { meta, snapshot: file })
    }
}
