//! A survivor's data directory before, after and in the middle of a recovery.

use super::*;
use crate::model::{Kind, Name, NodeId, Operation, ResourceKey, Revision, Transaction};
use crate::store::recovery::{RecoveryError, Survivor, finish_interrupted};

fn key(index: u64) -> ResourceKey {
    ResourceKey::new(Kind::Route, Name::new(&format!("r{index}")).unwrap())
}

/// The change that makes one resource.
fn change(index: u64) -> Entry {
    let operations = vec![Operation::Put { key: key(index), spec: Bytes::from(format!("{{\"n\":{index}}}")) }];
    let body = CommandBody::Transaction(Transaction { operations, ..Transaction::default() });
    let command = Command { proposed_at: Timestamp(index), actor: "test".to_owned(), body };
    let proposal = Proposal(encode_command(&command).unwrap());
    Entry { log_id: log_id(3, index), payload: Payload::Normal(proposal) }
}

fn membership(voters: &[NodeId]) -> Entry {
    let member = |&id: &NodeId| (id, Member { peer_address: format!("h:{id}"), ..Member::default() });
    let members: BTreeMap<NodeId, Member> = voters.iter().map(member).collect();
    let membership = Membership::new(vec![voters.iter().copied().collect()], members).unwrap();
    Entry { log_id: log_id(3, 0), payload: Payload::Membership(membership) }
}

fn identity() -> Identity {
    let (cluster_id, incarnation) = (ClusterId([1; 16]), Incarnation([2; 16]));
    Identity { cluster_id, cluster_name: "test".to_owned(), node_id: 1, incarnation }
}

/// Node 1 of `voters`, stopped: changes 1..=9, of which 1..=7 are committed and 1..=4 stand in a snapshot.
async fn survivor_of(dir: &Path, voters: &[NodeId]) {
    let mut opened = open(options(dir)).unwrap();
    opened.identity.write(identity()).unwrap();
    opened.log.save_vote(&vote(3)).await.unwrap();
    let entries: Vec<Entry> = std::iter::once(membership(voters)).chain((1..=9).map(change)).collect();
    opened.log.blocking_append(entries.clone()).await.unwrap();
    apply(&mut opened.state_machine, entries[..=4].to_vec()).await.unwrap();
    opened.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    opened.log.save_committed(Some(log_id(3, 7))).await.unwrap();
    close(opened).await;
}

fn examine(dir: &Path) -> Result<Survivor, RecoveryError> {
    Survivor::examine(dir, Some(1), "test")
}

fn recover(dir: &Path) -> Recovered {
    examine(dir).unwrap().found_cluster("new:1".to_owned(), "new:2".to_owned()).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The directory belongs to the new cluster and has all nine changes.
async fn check_recovered(dir: &Path, cluster_id: ClusterId) {
    let opened = open(options(dir)).unwrap();
    let found = opened.identity.get().unwrap().clone();
    assert_eq!((found.cluster_id, found.node_id, found.cluster_name.as_str()), (cluster_id, 1, "test"));
    assert_ne!((found.cluster_id, found.incarnation), (identity().cluster_id, identity().incarnation));
    let applied = opened.applied.borrow().clone();
    assert_eq!(applied.state.revision(), Revision(9));
    assert!((1..=9).all(|index| applied.state.get(&key(index)).is_some()));
    assert!(applied.log_id.unwrap().leader_id.term > 3 && applied.log_id.unwrap().index == 10, "{:?}", applied.log_id);
    let membership = applied.membership.membership().clone();
    assert_eq!(membership.voter_ids().collect::<Vec<_>>(), [1]);
    let member = membership.get_node(&1).unwrap();
    assert_eq!((member.peer_address.as_str(), member.admin_address.as_str()), ("new:1", "new:2"));
    assert_eq!(member.incarnation, found.incarnation);
    close(opened).await;
}

#[tokio::test]
async fn the_whole_log_of_a_survivor_begins_a_new_cluster_and_the_old_directory_stays() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("data");
    survivor_of(&dir, &[1, 2, 3]).await;
    let report = examine(&dir).unwrap().report().clone();
    assert_eq!(report.identity, identity());
    assert_eq!(report.voters.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((report.committed, report.committed_revision), (Some(log_id(3, 7)), Revision(7)));
    assert_eq!((report.last, report.revision, report.resource_count), (Some(log_id(3, 9)), Revision(9), 9));
    assert_eq!(report.uncommitted_count(), 2);
    assert_eq!(names(parent.path()), ["data"], "looking changes nothing");

    let recovered = recover(&dir);
    check_recovered(&dir, recovered.cluster_id).await;
    assert_eq!(names(parent.path()).len(), 2);
    let mut old = open(options(&recovered.kept)).unwrap();
    assert_eq!(old.identity.get(), Some(&identity()));
    assert_eq!(entries(&mut old).await.len(), 10, "the old log as it was");
    close(old).await;
    // Once more would make one cluster more for nothing.
    assert!(matches!(examine(&dir), Err(RecoveryError::OnlyVoter { node_id: 1, .. })));
}

#[tokio::test]
async fn what_was_cut_off_goes_on() {
    let parent = TempDir::new().unwrap();
    let (dir, new) = (parent.path().join("data"), parent.path().join("data.recovering"));
    survivor_of(&dir, &[1, 2, 3]).await;
    assert!(finish_interrupted(&dir).unwrap().is_none());
    // Cut off while the new directory was written.
    fs::create_dir_all(new.join("snapshots")).unwrap();
    fs::write(new.join("snapshots").join("0.tmp"), b"half").unwrap();
    fs::write(new.join("vote"), b"half").unwrap();
    assert!(finish_interrupted(&dir).unwrap().is_none(), "the old one is in its place");
    let recovered = recover(&dir);
    check_recovered(&dir, recovered.cluster_id).await;

    // Cut off between the two renames: nobody starts on nothing.
    fs::rename(&dir, &new).unwrap();
    let error = open(options(&dir)).unwrap_err();
    assert!(matches!(error, OpenError::Interrupted { .. }), "{error}");
    assert!(!dir.exists(), "and nothing is made in its place");
    assert_eq!(finish_interrupted(&dir).unwrap(), Some(recovered.cluster_id));
    assert_eq!(finish_interrupted(&dir).unwrap(), None);
    check_recovered(&dir, recovered.cluster_id).await;
}

#[tokio::test]
async fn a_directory_behind_a_link_is_replaced_where_it_stands() {
    let parent = TempDir::new().unwrap();
    let (dir, link) = (parent.path().join("disk"), parent.path().join("data"));
    survivor_of(&dir, &[1, 2, 3]).await;
    std::os::unix::fs::symlink("disk", &link).unwrap();
    let recovered = recover(&link);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    check_recovered(&link, recovered.cluster_id).await;
    fs::rename(&dir, parent.path().join("disk.recovering")).unwrap();
    assert!(matches!(open(options(&link)), Err(OpenError::Interrupted { .. })));
    assert_eq!(finish_interrupted(&link).unwrap(), Some(recovered.cluster_id));
    check_recovered(&link, recovered.cluster_id).await;
}

#[tokio::test]
async fn what_is_in_use_foreign_or_of_no_use_is_refused_and_left_alone() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("data");
    assert!(matches!(examine(&dir), Err(RecoveryError::Missing { .. })));
    assert!(matches!(examine(&parent.path().join("no/data")), Err(RecoveryError::Missing { .. })));
    fs::create_dir(&dir).unwrap();
    assert!(matches!(examine(&dir), Err(RecoveryError::NoCluster { .. })));
    assert_eq!(names(&dir), Vec::<String>::new());

    survivor_of(&dir, &[1, 2, 3]).await;
    let running = open(options(&dir)).unwrap();
    assert!(matches!(examine(&dir), Err(RecoveryError::Open(OpenError::Locked { .. }))));
    close(running).await;
    let error = Survivor::examine(&dir, Some(2), "test").unwrap_err();
    assert!(matches!(error, RecoveryError::Open(OpenError::OtherNode { .. })), "{error}");
    let error = Survivor::examine(&dir, None, "another").unwrap_err();
    assert!(matches!(error, RecoveryError::Open(OpenError::OtherCluster { .. })), "{error}");
    let survivor = examine(&dir).unwrap();
    assert!(matches!(open(options(&dir)), Err(OpenError::Locked { .. })), "no node starts while a person thinks it over");
    drop(survivor);

    // A part of the log is gone.
    rewrite_log(&dir, |db| {
        db.scan_prefix(b"e").keys().skip(6).for_each(|key| _ = db.remove(key.unwrap()).unwrap());
    });
    assert!(matches!(examine(&dir), Err(RecoveryError::Open(OpenError::Log { .. }))));
    assert_eq!(names(parent.path()), ["data"]);
}
