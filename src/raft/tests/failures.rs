//! A disk that fails, and a core that ends.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_fails_leaves_raft_for_good_and_the_others_go_on() {
    let mut cluster = Cluster::start(3).await;
    let revision = put_at(&cluster.node(1), "orders", "before").await;
    cluster.all_at(revision).await;
    // A new cluster's own first command shall not be the one that meets the broken disk.
    eventually("the first feature level", || cluster.node(1).state().feature_level() > 0).await;
    let broken = cluster.leader().await;
    cluster.running[&broken].log.break_disk();
    let node = cluster.node(broken);
    // Appended at the leader, and perhaps committed by the others: unknown. "Not applied" is true only where an entry of Raft's own met the
    // broken disk before it, as after an election; it is held to that at the end.
    let lost = node.propose(put(&[("lost", spec("?"))], None), Instant::now() + SOON).await;
    assert!(
        matches!(
            lost,
            Ok(_) | Err(ProposeError::Unknown { .. } | ProposeError::NotApplied { kind: NotAppliedKind::StorageFailed, .. })
        ),
        "{lost:?}"
    );
    eventually("the failure shows", || node.status().storage_failed.is_some()).await;
    let status = node.status();
    assert!(status.storage_failed.unwrap().contains("injected"));
    assert!(!status.quorum && status.leader.is_none());
    let refused = node.propose(put(&[("orders", spec("never"))], None), Instant::now() + SOON).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NotApplied { kind: NotAppliedKind::StorageFailed, .. }), "{refused:?}");
    assert!(matches!(node.read(Instant::now() + SOON).await, Err(ReadError::StorageFailed(_))));
    assert_eq!(text_of(&node.state(), "orders"), Some(spec("before")), "what is known is still served");

    let other = (1..=3).find(|&id| id != broken).unwrap();
    put_at(&cluster.node(other), "orders", "after").await;
    assert_eq!(text_of(&node.state(), "orders"), Some(spec("before")), "it never resumes");
    cluster.stop_node(broken).await;
    cluster.start_node(broken).await;
    let state = cluster.node(broken).read(Instant::now() + SOON).await.unwrap();
    assert_eq!(text_of(&state, "orders"), Some(spec("after")));
    if matches!(lost, Err(ProposeError::NotApplied { .. })) {
        assert_eq!(text_of(&state, "lost"), None, "not applied");
    }
    let revision = state.revision();
    cluster.all_at(revision).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_core_that_ends_by_itself_is_reported() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(1);
    put_at(&node, "orders", "before").await;
    // As after a panic inside of it: nobody asked this node to stop.
    node.end_core().await;
    eventually("the end shows", || node.status().storage_failed.is_some()).await;
    assert!(!node.status().quorum);
    let refused = node.propose(put(&[("orders", spec("never"))], None), Instant::now() + SOON).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NotApplied { kind: NotAppliedKind::StorageFailed, .. }), "{refused:?}");
    assert!(cluster.running[&1].failure.reason().is_some());
    cluster.stop().await;
}
