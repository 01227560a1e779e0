//! Members come and go.

use openraft::async_runtime::WatchReceiver;

use super::*;
use crate::store::{Membership, Payload};

impl Cluster {
    /// Starts an empty node that asks `member` to be let in, or waits to be added.
    async fn join(&mut self, label: u64, node_id: Option<NodeId>, member: Option<NodeId>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let join = member.map(|member| self.members[&member].clone());
        self.start_as(label, node_id, BTreeMap::new(), join, listener).await;
        address
    }

    /// The ids of voters and learners, as a node sees them.
    fn roles(&self, label: u64) -> (Vec<NodeId>, Vec<NodeId>) {
        let members = self.node(label).status().members;
        let of = |role| members.iter().filter(|member| member.role == role).map(|member| member.id).collect();
        (of(Role::Voter), of(Role::Learner))
    }

    async fn change(&self, label: u64, change: MemberChange) -> Result<(), MemberError> {
        self.node(label).change_member(change, Instant::now() + SOON).await
    }

    /// Makes a change of which the outcome may be unknown, because the cluster has just as many members as it needs and a busy machine may
    /// cost it the leader in between: as a client would, by looking and asking again.
    async fn change_surely(&self, label: u64, change: MemberChange, is_done: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        loop {
            match self.change(label, change).await {
                Ok(()) => return,
                Err(MemberError::Unknown(_) | MemberError::NotApplied { .. }) if Instant::now() < deadline => {}
                Err(MemberError::NotFound(_)) if is_done() => return,
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// Every node but `label` is at `revision`, with one digest.
    async fn all_but(&mut self, label: u64, revision: Revision) {
        let away = self.running.remove(&label).unwrap();
        self.all_at(revision).await;
        self.running.insert(label, away);
    }

    async fn refuses(&self, label: u64) -> String {
        let mut failed = self.node(label).bootstrap_failed();
        let reason = tokio::time::timeout(SOON, failed.wait_for(Option::is_some)).await.unwrap().unwrap();
        reason.clone().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_votes_and_leaves_for_ever() {
    let mut cluster = Cluster::start(3).await;
    put_at(&cluster.node(1), "orders", "before").await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    cluster.join(4, None, Some(follower)).await;
    eventually("the new node has everything", || cluster.node(4).state().revision() == Revision(1)).await;
    // The core tells of itself a moment after the State machine has.
    eventually("it knows the members", || cluster.roles(4) == (vec![1, 2, 3], vec![4])).await;
    assert_eq!(cluster.node(4).node_id(), 4);
    put_at(&cluster.node(4), "orders", "through the learner").await;
    assert_eq!(cluster.change(follower, MemberChange::Promote(4)).await, Ok(()));
    assert_eq!(cluster.change(4, MemberChange::Promote(4)).await, Ok(()), "it is so already");
    assert_eq!(cluster.roles(follower), (vec![1, 2, 3, 4], vec![]));
    cluster.stop_node(leader).await;
    put_once_at(&cluster.node(4), "orders", "three of four").await;
    cluster.start_node(leader).await;
    cluster.all_at(Revision(3)).await;
    let learner = cluster.change(follower, MemberChange::Demote(4)).await;
    assert_eq!((learner, cluster.roles(follower)), (Ok(()), (vec![1, 2, 3], vec![4])));
    assert_eq!(cluster.change(follower, MemberChange::Remove(4)).await, Ok(()));
    eventually("the removed node knows", || cluster.node(4).status().removed.is_some()).await;
    let refused = cluster.node(4).propose(put(&[("orders", spec("x"))], None), Instant::now() + SOON).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NotApplied { kind: NotAppliedKind::Removed, .. }), "{refused:?}");
    assert!(cluster.node(4).read(Instant::now() + SOON).await.unwrap_err().to_string().contains("was removed"));
    assert!(cluster.node(4).status().members.iter().all(|member| member.id != 4), "it no longer counts itself");
    assert!(matches!(cluster.change(1, MemberChange::Remove(4)).await, Err(MemberError::NotFound(_))));
    cluster.all_but(4, Revision(3)).await;
    // Started again it hears it again, from a node that was started again too.
    cluster.stop_node(1).await;
    cluster.start_node(1).await;
    cluster.stop_node(4).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    cluster.start_as(4, None, BTreeMap::new(), None, listener).await;
    eventually("the removed node hears it again", || cluster.node(4).status().removed.is_some()).await;
    cluster.join(5, Some(4), Some(1)).await;
    assert!(cluster.refuses(5).await.contains("ids are never used again"));
    cluster.join(6, None, Some(1)).await;
    eventually("another node joins", || cluster.node(6).node_id() == 5).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_waits_is_added_by_any_member() {
    let mut cluster = Cluster::start(3).await;
    let address = cluster.join(4, None, None).await;
    let follower = cluster.leader().await % 3 + 1;
    let id = cluster.node(follower).add_member(&address, Some(7), Instant::now() + SOON).await;
    assert_eq!(id, Ok(7));
    eventually("it knows its id and its cluster", || cluster.node(4).node_id() == 7 && cluster.roles(4).1 == [7]).await;
    let again = cluster.node(1).add_member(&address, None, Instant::now() + SOON).await;
    assert!(matches!(&again, Err(MemberError::Refused(reason)) if reason.contains("belongs to cluster")), "{again:?}");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let away = cluster.node(1).add_member(&nobody, None, Instant::now() + SOON).await;
    assert!(matches!(&away, Err(MemberError::NotApplied { .. })), "{away:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_never_catches_up_keeps_nobody_from_removing_it() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.join(4, None, Some(leader)).await;
    let node = cluster.node(leader);
    // One that has not been asked yet is not reachable either, and an answer on its way would then make it so.
    eventually("the learner is a member that answers", || node.status().members.get(3).is_some_and(|learner| learner.reachable))
        .await;
    cluster.stop_node(4).await;
    eventually("the learner is known to be away", || !node.status().members[3].reachable).await;
    let promotion = tokio::spawn(async move { node.change_member(MemberChange::Promote(4), Instant::now() + SOON).await });
    assert_eq!(cluster.change(leader, MemberChange::Remove(4)).await, Ok(()));
    assert!(matches!(promotion.await.unwrap(), Err(MemberError::NotFound(_))));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_is_refused_and_replaced_by_its_own_steps() {
    let mut cluster = Cluster::start(3).await;
    put_at(&cluster.node(1), "orders", "kept").await;
    let lost = cluster.leader().await % 3 + 1;
    let other = lost % 3 + 1;
    cluster.stop_node(lost).await;
    std::fs::remove_dir_all(cluster.data_dir(lost)).unwrap();
    cluster.start_node(lost).await;
    let reason = cluster.refuses(lost).await;
    assert!(reason.contains("under a new id") && reason.contains("remove it first"), "{reason}");
    cluster.stop_node(lost).await;
    assert_eq!(cluster.change(other, MemberChange::Remove(lost)).await, Ok(()));
    cluster.join(4, None, Some(other)).await;
    eventually("the new node is in", || cluster.node(4).node_id() == 4).await;
    assert_eq!(cluster.change(4, MemberChange::Promote(4)).await, Ok(()));
    let voters: Vec<NodeId> = (1..=4).filter(|id| *id != lost).collect();
    assert_eq!(cluster.roles(4), (voters, vec![]));
    put_at(&cluster.node(4), "orders", "goes on").await;
    cluster.all_at(Revision(2)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_would_leave_no_majority_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (away, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    cluster.stop_node(away).await;
    let refused = cluster.change(leader, MemberChange::Remove(other)).await;
    assert!(matches!(&refused, Err(MemberError::Conflict(reason)) if reason.contains("no majority")), "{refused:?}");
    let refused = cluster.change(other, MemberChange::Lead(away)).await;
    assert!(matches!(refused, Err(MemberError::Conflict(_))), "{refused:?}");
    let is_gone = || !cluster.roles(other).0.contains(&away);
    cluster.change_surely(other, MemberChange::Remove(away), is_gone).await;
    assert_eq!(cluster.roles(other).0, BTreeSet::from([leader, other]).into_iter().collect::<Vec<_>>());
    // The leader goes too: it hands over first.
    assert_eq!(cluster.change(leader, MemberChange::Remove(leader)).await, Ok(()));
    assert_eq!(cluster.leader().await, other);
    eventually("the old leader knows", || cluster.node(leader).status().removed.is_some()).await;
    let last = cluster.change(other, MemberChange::Demote(other)).await;
    assert!(matches!(&last, Err(MemberError::Refused(reason)) if reason.contains("the only voter")), "{last:?}");
    put_at(&cluster.node(other), "orders", "alone").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_to_the_voter_that_was_asked_for() {
    let mut cluster = Cluster::start(3).await;
    cluster.join(4, None, Some(1)).await;
    eventually("the learner is in", || cluster.node(4).node_id() == 4).await;
    for round in 0..6 {
        let target = cluster.leader().await % 3 + 1;
        let mut tries = Vec::new();
        // On a machine that keeps a node from running, another election can come in between.
        while tries.last() != Some(&(Ok(()), target)) {
            assert!(tries.len() < 5, "{tries:?}");
            let moved = cluster.change(round % 4 + 1, MemberChange::Lead(target)).await;
            tries.push((moved, cluster.leader().await));
        }
    }
    let learner = cluster.change(1, MemberChange::Lead(4)).await;
    assert!(matches!(&learner, Err(MemberError::Refused(reason)) if reason.contains("promote it first")), "{learner:?}");
    assert!(matches!(cluster.change(1, MemberChange::Lead(9)).await, Err(MemberError::NotFound(_))));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joint_configuration_that_was_left_is_finished() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    // A leader changes the members once it has committed an entry of its own.
    put_at(&cluster.node(leader), "orders", "before").await;
    let core = cluster.node(leader).core();
    let before = std::sync::Arc::clone(&core.metrics().borrow_watched().membership_config);
    let members: BTreeMap<_, _> = before.nodes().map(|(id, member)| (*id, member.clone())).collect();
    let gone = leader % 3 + 1;
    let rest: BTreeSet<_> = (1..=3).filter(|id| *id != gone).collect();
    let joint = Membership::new(vec![BTreeSet::from([1, 2, 3]), rest.clone()], members).unwrap();
    core.append_membership(joint, Payload::Blank, []).await.unwrap();
    eventually("the change is finished", || cluster.roles(leader) == (rest.iter().copied().collect(), vec![gone])).await;
    assert_eq!(cluster.node(leader).status().joint, None);
    put_at(&cluster.node(gone), "orders", "through the one that left").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_not_let_in() {
    let mut cluster = Cluster::start(1).await;
    cluster.name = "other";
    cluster.join(2, None, Some(1)).await;
    assert!(cluster.refuses(2).await.contains("its cluster.name is \"other\", here it is \"test\""));
    cluster.name = "test";
    // It says that it is where the first node is.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let member = cluster.members[&1].clone();
    let mut client = PeerClient::connect(format!("http://{member}")).await.unwrap();
    let request = pb::JoinRequest {
        cluster_name: "test".to_owned(),
        peer_address: listener.local_addr().unwrap().to_string(),
        incarnation: Bytes::from_static(&[7; 16]),
        protocol: 1,
        feature_level_max: FEATURE_LEVEL_MAX,
        wait_ms: 5_000,
        ..pb::JoinRequest::default()
    };
    let text = |response: pb::JoinResponse| format!("{:?}", response.result);
    let taken = pb::JoinRequest { peer_address: member.clone(), ..request.clone() };
    let taken = text(client.join(taken).await.unwrap().into_inner());
    assert!(taken.contains("Refused") && taken.contains("is the address of member 1"), "{taken}");
    let silent = text(client.join(request.clone()).await.unwrap().into_inner());
    assert!(silent.contains("Later") && silent.contains("no answer from the node"), "{silent}");
    let short = pb::JoinRequest { incarnation: Bytes::from_static(b"short"), ..request };
    assert!(text(client.join(short).await.unwrap().into_inner()).contains("Refused"));
    assert_eq!(cluster.roles(1), (vec![1], vec![]));
    cluster.stop().await;
}

/// Node 3 applies nothing until it is released, and is asked meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_answered_once_the_node_that_answers_shows_it() {
    let mut cluster = Cluster::prepare(3).await;
    for id in 1..=3 {
        cluster.start_node(id).await;
        cluster.running[&id].brake.send_replace(id == 3);
    }
    eventually("the new cluster has its level", || cluster.node(1).state().feature_level() == FEATURE_LEVEL_MAX).await;
    let late = cluster.node(3);
    assert_eq!(late.state().feature_level(), 0);
    let index = || cluster.node(1).status().applied_index;
    let before = index();
    let raise = {
        let late = late.clone();
        tokio::spawn(async move {
            let raised = late.raise_feature_level(FEATURE_LEVEL_MAX, Instant::now() + SOON).await;
            (raised, late.state().feature_level())
        })
    };
    eventually("the majority has applied it", || index() > before || raise.is_finished()).await;
    cluster.running[&3].brake.send_replace(false);
    assert_eq!(raise.await.unwrap(), (Ok(()), FEATURE_LEVEL_MAX));
    // The node that is about to be changed answers for itself.
    cluster.running[&3].brake.send_replace(true);
    let demote = {
        let late = late.clone();
        tokio::spawn(async move {
            let changed = late.change_member(MemberChange::Demote(3), Instant::now() + SOON).await;
            let role = late.status().members.iter().find(|member| member.id == 3).map(|member| member.role);
            (changed, role, late.applied().borrow().membership.voter_ids().collect::<Vec<_>>())
        })
    };
    eventually("the others have changed", || cluster.roles(1) == (vec![1, 2], vec![3])).await;
    cluster.running[&3].brake.send_replace(false);
    assert_eq!(demote.await.unwrap(), (Ok(()), Some(Role::Learner), vec![1, 2]));
    cluster.stop().await;
}
