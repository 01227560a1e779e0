//! The store as a whole: openraft's own suite, and what happens to a data directory between two starts.

mod large;
mod recovery;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{OptionalSend, StorageError};
use tempfile::TempDir;

use super::*;
use crate::model::{Command, CommandBody, State, Timestamp};
use crate::observe::Metrics;

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn options(dir: &Path) -> StoreOptions {
    StoreOptions {
        dir: dir.to_path_buf(),
        node_id: Some(1),
        cluster_name: "test".to_owned(),
        feature_level_max: u32::MAX,
        metrics: Metrics::new(),
    }
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

fn blank(term: u64, index: u64) -> Entry {
    Entry { log_id: log_id(term, index), payload: Payload::Blank }
}

/// A command that no State refuses, of about `bytes` bytes.
fn command(index: u64, bytes: usize) -> Entry {
    let body = CommandBody::RaiseFeatureLevel(u32::try_from(index).unwrap());
    let command = Command { proposed_at: Timestamp(index), actor: "a".repeat(bytes), body };
    let proposal = Proposal(encode_command(&command).unwrap());
    Entry { log_id: log_id(1, index), payload: Payload::Normal(proposal) }
}

fn vote(term: u64) -> Vote {
    Vote { leader_id: LeaderId { term, node_id: 1 }, committed: true }
}

async fn apply(state_machine: &mut StateMachine, entries: impl IntoIterator<Item = Entry> + OptionalSend) -> std::io::Result<()> {
    let items: Vec<_> = entries.into_iter().map(|entry| Ok((entry, None))).collect();
    state_machine.apply(futures_util::stream::iter(items)).await
}

async fn close(opened: Opened) {
    let closer = opened.closer.clone();
    drop(opened);
    closer.close().await;
}

async fn entries(opened: &mut Opened) -> Vec<Entry> {
    opened.log.get_log_reader().await.try_get_log_entries(0..u64::MAX).await.unwrap()
}

/// A closed store with a vote of term 1 and commands 0..count, of which a snapshot covers those up to each index of `snapshots`.
async fn closed_store(dir: &Path, count: u64, snapshots: &[u64]) {
    let mut opened = open(options(dir)).unwrap();
    opened.log.save_vote(&vote(1)).await.unwrap();
    opened.log.blocking_append((0..count).map(|index| command(index, 10))).await.unwrap();
    let mut next = 0;
    for &upto in snapshots {
        apply(&mut opened.state_machine, (next..=upto).map(|index| command(index, 10))).await.unwrap();
        opened.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        next = upto + 1;
    }
    opened.log.save_committed(Some(log_id(1, count - 1))).await.unwrap();
    close(opened).await;
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let directory = TempDir::new().unwrap();
        let opened = open(options(directory.path())).unwrap();
        Ok((directory, opened.log, opened.state_machine))
    }
}

#[tokio::test]
async fn openrafts_own_suite() -> TestResult {
    Suite::test_all(Builder).await?;
    Ok(())
}

#[tokio::test]
async fn everything_comes_back() {
    let directory = TempDir::new().unwrap();
    let mut opened = open(options(directory.path())).unwrap();
    assert!(opened.is_empty);
    let members = BTreeMap::from([(1, Member { peer_address: "a:1".to_owned(), ..Member::default() })]);
    let membership = Membership::new(vec![[1].into()], members).unwrap();
    let written = [
        blank(1, 0),
        Entry { log_id: log_id(1, 1), payload: Payload::Membership(membership) },
        // Larger than one part by far: 300 of them.
        command(2, 1_200_000),
        command(3, 10),
    ];
    opened.log.save_vote(&vote(7)).await.unwrap();
    opened.log.blocking_append(written.clone()).await.unwrap();
    opened.log.save_committed(Some(log_id(1, 2))).await.unwrap();
    close(opened).await;

    let mut opened = open(options(directory.path())).unwrap();
    assert!(!opened.is_empty);
    assert_eq!(entries(&mut opened).await, written);
    assert_eq!(opened.log.get_log_reader().await.read_vote().await.unwrap(), Some(vote(7)));
    assert_eq!(opened.log.read_committed().await.unwrap(), Some(log_id(1, 2)));
}

#[tokio::test]
async fn what_memory_has_forgotten_is_read_from_disk() {
    let directory = TempDir::new().unwrap();
    let mut opened = open(options(directory.path())).unwrap();
    opened.log.save_vote(&vote(1)).await.unwrap();
    // 24 MiB, more than the tail keeps.
    let written: Vec<Entry> = (0..24).map(|index| command(index, 1 << 20)).collect();
    for entry in &written {
        opened.log.blocking_append([entry.clone()]).await.unwrap();
    }
    assert_eq!(entries(&mut opened).await, written);
    let mut reader = opened.log.get_log_reader().await;
    for start in [0, 3, 20] {
        let limited = reader.limited_get_log_entries(start, 24).await.unwrap();
        assert_eq!(limited, written[start as usize..start as usize + 3], "4 MiB hold three of them");
    }
    opened.log.truncate_after(Some(log_id(1, 4))).await.unwrap();
    opened.log.purge(log_id(1, 1)).await.unwrap();
    assert_eq!(entries(&mut opened).await, written[2..5]);
    close(opened).await;
    assert_eq!(blob_files(directory.path()), Vec::<PathBuf>::new(), "sled never syncs blob files");
}

fn blob_files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory.join("log/blobs")).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn purge_and_truncation_outlive_a_restart() {
    let directory = TempDir::new().unwrap();
    closed_store(directory.path(), 2000, &[1500]).await;
    let mut opened = open(options(directory.path())).unwrap();
    opened.log.truncate_after(Some(log_id(1, 1800))).await.unwrap();
    opened.log.purge(log_id(1, 1400)).await.unwrap();
    close(opened).await;

    let mut opened = open(options(directory.path())).unwrap();
    let state = opened.log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 1400)), Some(log_id(1, 1800))));
    assert_eq!(entries(&mut opened).await.len(), 400);
    assert_eq!(opened.log.read_committed().await.unwrap(), Some(log_id(1, 1800)), "never beyond the last entry");
    close(opened).await;
}

#[tokio::test]
async fn appends_that_wait_share_one_sync() {
    let directory = TempDir::new().unwrap();
    let options = options(directory.path());
    let metrics = options.metrics.clone();
    let mut opened = open(options).unwrap();
    opened.log.save_vote(&vote(1)).await.unwrap();
    let mut waiting = Vec::new();
    for index in 0..1000 {
        let (sender, receiver) = TypeConfig::oneshot();
        opened.log.append([command(index, 10)], IOFlushed::signal(sender)).await.unwrap();
        waiting.push(receiver);
    }
    for receiver in waiting {
        receiver.await.unwrap().unwrap();
    }
    let syncs = metrics.log_sync_duration.get_sample_count();
    assert!((1..300).contains(&syncs), "{syncs} syncs for 1000 appends");
    close(opened).await;
}

#[tokio::test]
async fn a_damaged_newest_snapshot_costs_nothing_and_two_cost_the_node() {
    let directory = TempDir::new().unwrap();
    closed_store(directory.path(), 30, &[10, 20]).await;
    let mut snapshots: Vec<PathBuf> =
        fs::read_dir(directory.path().join("snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
    snapshots.sort();
    assert_eq!(snapshots.len(), 2);

    flip_bit(&snapshots[1], 100);
    let mut opened = open(options(directory.path())).unwrap();
    assert_eq!(opened.applied.borrow().log_id, Some(log_id(1, 10)));
    assert_eq!(opened.states.borrow().feature_level(), 10);
    let later = entries(&mut opened).await.split_off(11);
    apply(&mut opened.state_machine, later).await.unwrap();
    assert_eq!(opened.states.borrow().feature_level(), 29);
    close(opened).await;

    flip_bit(&snapshots[0], 100);
    let error = open(options(directory.path())).unwrap_err().to_string();
    assert!(error.contains("no snapshot can be read") && error.contains("under a new id"), "{error}");
}

fn flip_bit(path: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

#[tokio::test]
async fn a_snapshot_travels_and_is_checked() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    closed_store(from.path(), 30, &[10, 20]).await;
    let sender = open(options(from.path())).unwrap();
    let snapshot = sender.snapshots.newest().unwrap();

    let mut receiver = open(options(to.path())).unwrap();
    let receive = |damage: bool| {
        let mut incoming = receiver.snapshots.receive().unwrap();
        loop {
            let chunk = snapshot.read_chunk(incoming.byte_count(), 64).unwrap();
            if chunk.is_empty() {
                return incoming.finish(snapshot.byte_count(), snapshot.crc32c().unwrap());
            }
            let chunk = if damage { Bytes::from(vec![0; chunk.len()]) } else { chunk };
            incoming.write(&chunk).unwrap();
        }
    };
    assert!(matches!(receive(true), Err(ReceiveError::Differs { .. })));
    let received = receive(false).unwrap();
    receiver.state_machine.install_snapshot(snapshot.meta(), received).await.unwrap();
    assert_eq!(receiver.states.borrow().state_digest(), sender.states.borrow().state_digest());
    assert_eq!(receiver.applied.borrow().log_id, Some(log_id(1, 20)));
    receiver.log.save_vote(&vote(1)).await.unwrap();
    receiver.log.purge(log_id(1, 20)).await.unwrap();
    close(receiver).await;

    let mut again = open(options(to.path())).unwrap();
    assert_eq!(again.states.borrow().feature_level(), 20);
    let files = || fs::read_dir(to.path().join("snapshots")).unwrap().count();
    let newest = again.state_machine.get_current_snapshot().await.unwrap().unwrap();
    again.state_machine.install_snapshot(&newest.meta, newest.snapshot).await.unwrap();
    assert_eq!(files(), 1, "installing what is there writes nothing");
    close(again).await;
    close(sender).await;
}

#[tokio::test]
async fn a_log_that_lost_entries_is_refused() {
    let directory = TempDir::new().unwrap();
    closed_store(directory.path(), 30, &[]).await;
    // As sled does after damage: it opens, and entries at the end are gone.
    rewrite_log(directory.path(), |db| {
        db.remove(log::keys::part_key(29, 0)).unwrap();
    });
    let error = open(options(directory.path())).unwrap_err().to_string();
    assert!(error.contains("ends at T1-N1.28") && error.contains("held T1-N1.29"), "{error}");
    assert!(error.contains("under a new id"), "{error}");
    // All of it, as after a truncated file.
    fs::remove_dir_all(directory.path().join("log")).unwrap();
    let error = open(options(directory.path())).unwrap_err().to_string();
    assert!(error.contains("ends at nothing"), "{error}");
}

fn rewrite_log(directory: &Path, change: impl FnOnce(&sled::Db)) {
    let db = sled::open(directory.join("log")).unwrap();
    change(&db);
    db.flush().unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_an_entry_names_it() {
    let directory = TempDir::new().unwrap();
    closed_store(directory.path(), 30, &[]).await;
    rewrite_log(directory.path(), |db| {
        let key = log::keys::part_key(17, 0);
        let mut value = db.get(key).unwrap().unwrap().to_vec();
        value[12] ^= 1;
        db.insert(key, value).unwrap();
    });
    let error = open(options(directory.path())).unwrap_err().to_string();
    assert!(error.contains("log entry 17 is damaged"), "{error}");
}

#[tokio::test]
async fn a_vote_that_went_back_is_refused() {
    let directory = TempDir::new().unwrap();
    closed_store(directory.path(), 3, &[]).await;
    fs::remove_file(directory.path().join("vote")).unwrap();
    let error = open(options(directory.path())).unwrap_err().to_string();
    assert!(error.contains("the vote is of term 0, the log of term 1"), "{error}");
}

#[tokio::test]
async fn a_directory_has_one_owner() {
    let directory = TempDir::new().unwrap();
    let mut opened = open(options(directory.path())).unwrap();
    let error = open(options(directory.path())).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    let identity = Identity {
        cluster_id: ClusterId::random(),
        cluster_name: "test".to_owned(),
        node_id: 1,
        incarnation: Incarnation::random(),
    };
    opened.identity.write(identity.clone()).unwrap();
    assert!(opened.identity.write(Identity { node_id: 2, ..identity.clone() }).is_err());
    close(opened).await;

    let error = open(StoreOptions { node_id: Some(2), ..options(directory.path()) }).unwrap_err();
    assert!(matches!(error, OpenError::OtherNode { found: 1, configured: 2, .. }), "{error}");
    let error = open(StoreOptions { cluster_name: "other".to_owned(), ..options(directory.path()) }).unwrap_err();
    assert!(matches!(error, OpenError::OtherCluster { .. }), "{error}");
    let opened = open(options(directory.path())).unwrap();
    assert_eq!(opened.identity.get(), Some(&identity));
    close(opened).await;

    fs::remove_file(directory.path().join("vote")).unwrap();
    let error = open(options(directory.path())).unwrap_err().to_string();
    assert!(
        error.contains("\"vote\" is missing") && error.contains("cluster remove 1)") && error.contains("under a new id"),
        "{error}"
    );
}

#[tokio::test]
async fn a_command_that_cannot_be_decoded_stops_the_node() {
    let directory = TempDir::new().unwrap();
    let mut opened = open(options(directory.path())).unwrap();
    let unknown = Entry { log_id: log_id(1, 0), payload: Payload::Normal(Proposal(Bytes::from_static(b"\x63"))) };
    assert!(apply(&mut opened.state_machine, [unknown]).await.is_err());
    let reason = opened.failed.borrow().clone().unwrap();
    assert!(reason.contains("version 99 is not known"), "{reason}");
    close(opened).await;
}

#[tokio::test]
async fn after_a_hole_nothing_is_acknowledged() {
    let directory = TempDir::new().unwrap();
    let mut opened = open(options(directory.path())).unwrap();
    opened.log.save_vote(&vote(1)).await.unwrap();
    opened.log.blocking_append([blank(1, 0)]).await.unwrap();
    assert!(opened.log.blocking_append([blank(1, 2)]).await.is_err());
    let closer = opened.closer.clone();
    tokio::time::timeout(Duration::from_secs(10), closer.close()).await.unwrap();
    let error = opened.log.save_vote(&vote(2)).await.unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
}

#[tokio::test]
async fn a_snapshot_that_is_late_is_not_the_newest() {
    let directory = TempDir::new().unwrap();
    let opened = open(options(directory.path())).unwrap();
    let meta = |index| SnapshotMeta { last_log_id: Some(log_id(1, index)), ..SnapshotMeta::default() };
    opened.snapshots.write(&meta(20), &opened.states.borrow().clone()).unwrap();
    opened.snapshots.write(&meta(10), &opened.states.borrow().clone()).unwrap();
    assert_eq!(opened.snapshots.newest().unwrap().meta(), &meta(20));
    assert_eq!(opened.snapshots.previous().unwrap().meta(), &meta(10));
    close(opened).await;
}

#[tokio::test]
async fn truncation_takes_whole_entries_of_any_size() {
    let directory = TempDir::new().unwrap();
    let mut opened = open(options(directory.path())).unwrap();
    opened.log.save_vote(&vote(1)).await.unwrap();
    // 2, 5 and 800 parts: more and less than one step of the removal takes.
    let written = [5_000, 20_000, 3_200_000, 3_200_000, 20_000, 5_000].into_iter().enumerate();
    let written: Vec<_> = written.map(|(index, bytes)| command(index as u64, bytes)).collect();
    opened.log.blocking_append(written.clone()).await.unwrap();
    opened.log.truncate_after(Some(log_id(1, 1))).await.unwrap();
    close(opened).await;
    let mut opened = open(options(directory.path())).unwrap();
    assert_eq!(entries(&mut opened).await, written[..2]);
    close(opened).await;
}

#[test]
fn what_a_crash_left_of_older_snapshots_is_removed_unless_one_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let open = || SnapshotDirectory::open(dir.path()).unwrap().ok().unwrap().directory;
    let meta = |index| SnapshotMeta { last_log_id: Some(log_id(1, index)), ..SnapshotMeta::default() };
    let snapshots = open();
    let oldest = snapshots.write(&meta(10), &State::default()).unwrap().path().to_path_buf();
    let bytes = fs::read(&oldest).unwrap();
    snapshots.write(&meta(20), &State::default()).unwrap();
    let newest = snapshots.write(&meta(30), &State::default()).unwrap().path().to_path_buf();
    assert!(!oldest.exists());

    fs::write(&oldest, &bytes).unwrap();
    let snapshots = open();
    assert!(!oldest.exists(), "it is older than the two that are kept");
    assert_eq!(snapshots.newest().unwrap().path(), newest);
    assert_eq!(snapshots.previous().unwrap().meta(), &meta(20));

    fs::write(&oldest, &bytes).unwrap();
    fs::write(&newest, b"damaged").unwrap();
    assert_eq!(open().newest().unwrap().meta(), &meta(20));
    assert!(oldest.exists() && newest.exists(), "nothing is removed beside a damaged one");
}
