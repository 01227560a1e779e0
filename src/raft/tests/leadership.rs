//! Leaders that come, go, and hand over.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_goes_on_without_its_leader_and_takes_it_back() {
    let mut cluster = Cluster::start(3).await;
    put_at(&cluster.node(1), "orders", "before").await;
    let old = cluster.leader().await;
    cluster.stop_node(old).await;
    let follower = *cluster.running.keys().next().unwrap();
    let command = put(&[("orders", spec("after"))], Some("once"));
    let outcome = cluster.node(follower).propose(command.clone(), Instant::now() + SOON).await.unwrap();
    assert_eq!(outcome.revision(), Revision(2));
    let again = cluster.node(follower).propose(command, Instant::now() + SOON).await.unwrap();
    assert_eq!(again, outcome, "the idempotency key is remembered");
    cluster.start_node(old).await;
    let state = cluster.node(old).read(Instant::now() + SOON).await.unwrap();
    assert_eq!(text_of(&state, "orders"), Some(spec("after")));
    cluster.all_at(Revision(2)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_without_a_gap() {
    let cluster = Cluster::start(3).await;
    put_at(&cluster.node(1), "orders", "before").await;
    let old = cluster.leader().await;
    let started = Instant::now();
    assert!(cluster.node(old).hand_over(Instant::now() + Duration::from_secs(5)).await);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_ne!(cluster.leader().await, old);
    put_at(&cluster.node(old), "orders", "after").await;
    cluster.stop().await;
}

/// The next leader has all of the log although it never stops growing: each hand-over is one election, which its target wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_under_writes() {
    let cluster = Cluster::start(3).await;
    put_at(&cluster.node(1), "orders", "before").await;
    let stop = CancellationToken::new();
    let written = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..16_u64 {
        let (node, stop, written) = (cluster.node(writer % 3 + 1), stop.clone(), Arc::clone(&written));
        writers.spawn(async move {
            let mut count = 0_u64;
            while !stop.is_cancelled() {
                count += 1;
                let (name, key) = (format!("w{writer}"), format!("{writer}-{count}"));
                let command = put(&[(name.as_str(), spec(&key))], Some(&key));
                node.propose(command, Instant::now() + SOON).await.unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for _ in 0..5 {
        let before = written.load(Ordering::Relaxed);
        eventually("writes go on", || written.load(Ordering::Relaxed) >= before + 16).await;
        let old = cluster.leader().await;
        assert!(cluster.node(old).hand_over(Instant::now() + Duration::from_secs(5)).await, "by node {old}");
    }
    stop.cancel();
    writers.join_all().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_applied_and_nothing_is_read() {
    let mut cluster = Cluster::start(3).await;
    put_at(&cluster.node(1), "orders", "before").await;
    let leader = cluster.leader().await;
    for id in (1..=3).filter(|&id| id != leader) {
        cluster.stop_node(id).await;
    }
    let node = cluster.node(leader);
    eventually("the quorum is missed", || !node.status().quorum).await;
    assert_eq!(node.status().leader, None, "who leads nobody is not shown as the leader");
    let deadline = Duration::from_millis(500);
    let started = Instant::now();
    let error = node.propose(put(&[("orders", spec("never"))], None), started + deadline).await.unwrap_err();
    assert!(matches!(error, ProposeError::NotApplied { .. }), "{error:?}");
    assert!(started.elapsed() < deadline * 3, "{:?}", started.elapsed());
    let error = node.read(Instant::now() + deadline).await.unwrap_err();
    assert!(matches!(&error, ReadError::Unavailable(reason) if !reason.contains(['{', '['])), "{error:?}");
    assert_eq!(text_of(&node.state(), "orders"), Some(spec("before")), "the local State stays");

    let follower = (1..=3).find(|&id| id != leader).unwrap();
    cluster.stop_node(leader).await;
    cluster.start_node(follower).await;
    let node = cluster.node(follower);
    eventually("the members are known", || node.status().members.len() == 3).await;
    let status = node.status();
    assert!(status.leader.is_none() && !status.quorum, "{status:?}");
    for member in status.members.iter().filter(|member| member.id != follower) {
        assert!(!member.reachable && member.revision.is_none() && member.digest.is_none(), "{member:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_no_leader_reaches_knows_that_it_is_behind() {
    let mut cluster = Cluster::start(3).await;
    let revision = put_at(&cluster.node(1), "orders", "before").await;
    cluster.all_at(revision).await;
    let moved = cluster.leader().await % 3 + 1;
    cluster.stop_node(moved).await;
    let other = *cluster.running.keys().next().unwrap();
    for number in 0..20 {
        put_at(&cluster.node(other), "orders", &number.to_string()).await;
    }
    // It asks the others, and none of them finds it at its new address.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    cluster.start_as(moved, Some(moved), BTreeMap::new(), None, listener).await;
    let node = cluster.node(moved);
    eventually("it knows", || {
        let status = node.status();
        let own = status.members.iter().find(|member| member.id == moved);
        status.committed_index >= status.applied_index + 20 && own.is_some_and(|own| own.lag_entries >= 20)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_follower_learns_of_a_commit_before_the_next_heartbeat() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    put_at(&cluster.node(leader), "orders", "first").await;
    let mut delays = Vec::new();
    for write in 0..40 {
        let revision = put_at(&cluster.node(leader), "orders", &write.to_string()).await;
        let answered = Instant::now();
        for follower in (1..=3).filter(|&id| id != leader) {
            let mut states = cluster.node(follower).states();
            let applied = states.wait_for(|state| state.revision() >= revision);
            tokio::time::timeout(SOON, applied).await.unwrap().unwrap();
        }
        delays.push(answered.elapsed());
    }
    delays.sort();
    assert!(delays[20] < Duration::from_millis(20), "as slow as a heartbeat of 50 ms would be: {delays:?}");
    cluster.stop().await;
}
