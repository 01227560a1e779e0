//! One node's State is made another than the log makes it: who finds it, and who goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use tokio::task::JoinHandle;

use super::*;

/// How long a divergence may go unnoticed.
const FOUND_WITHIN: Duration = Duration::from_secs(5);

/// Writes at every node in turn until it is stopped.
struct Stream {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Stream {
    fn start(cluster: &Cluster) -> Stream {
        let nodes: Vec<Node> = cluster.running.values().map(|running| running.node.clone()).collect();
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&written));
        let task = tokio::spawn(async move {
            for (write, node) in nodes.iter().cycle().enumerate() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // Leadership moves in between; what is certain not to have happened is tried again by the node itself.
                let key = format!("write {write}");
                let command = put(&[(&format!("r{}", write % 50), spec(&key))], Some(&key));
                node.propose(command, Instant::now() + SOON).await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Stream { stop, written, task }
    }

    /// Waits for so many further writes.
    async fn more(&self, count: u64) {
        let before = self.written.load(Ordering::Relaxed);
        eventually("writes go on", || self.written.load(Ordering::Relaxed) >= before + count).await;
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

/// Waits until every running node knows that `victim` has diverged, at most [`FOUND_WITHIN`].
async fn found_everywhere(cluster: &Cluster, victim: NodeId) {
    let started = Instant::now();
    eventually("every node has found it", || {
        cluster.running.values().all(|running| {
            let status = running.node.status();
            let of_victim = status.members.iter().any(|member| member.id == victim && member.diverged.is_some());
            of_victim && status.diverged.is_some() && running.metrics.raft_diverged.get() == 1
        })
    })
    .await;
    assert!(started.elapsed() < FOUND_WITHIN, "{:?}", started.elapsed());
}

/// The victim stands aside, and the others serve.
async fn check_sides(cluster: &Cluster, victim: NodeId) {
    let own = cluster.node(victim);
    eventually("another node leads", || {
        let status = own.status();
        status.leader.is_some_and(|leader| leader != victim) && status.quorum
    })
    .await;
    // That it differs is found from one peer already, and that it is the one that is wrong from two.
    eventually("the metric shows", || cluster.running[&victim].metrics.raft_stands_aside.get() == 1).await;
    assert!(matches!(own.read(Instant::now() + SOON).await, Err(ReadError::Diverged(_))));
    for (&id, running) in cluster.running.iter().filter(|(id, _)| **id != victim) {
        running.node.read(Instant::now() + SOON).await.unwrap();
        // Until the third node told its digest of the revision, two differ and nobody knows which of them stands alone.
        eventually(&format!("node {id} knows who stands alone"), || {
            let status = running.node.status();
            let diverged = status.members.iter().filter(|member| member.diverged.is_some()).map(|member| member.id);
            diverged.eq([victim]) && status.diverged.is_some_and(|text| text.contains("goes on"))
        })
        .await;
        assert_eq!(running.metrics.raft_stands_aside.get(), 0);
        for kind in ["state", "revision"] {
            assert!(running.metrics.divergences.with_label_values(&[kind]).get() <= 1, "one alarm a peer and kind");
        }
    }
}

/// Makes one node diverge under a stream of writes.
async fn diverge(pick: impl Fn(NodeId) -> NodeId) -> (Cluster, NodeId) {
    let cluster = Cluster::start(3).await;
    let stream = Stream::start(&cluster);
    stream.more(30).await;
    let victim = pick(cluster.leader().await);
    cluster.running[&victim].tamper.store(true, Ordering::Relaxed);
    found_everywhere(&cluster, victim).await;
    check_sides(&cluster, victim).await;
    stream.more(30).await;
    stream.finish().await;
    (cluster, victim)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_diverges_is_found_and_does_not_stand_for_election() {
    let (mut cluster, victim) = diverge(|leader| leader % 3 + 1).await;
    // Without the leader, the victim and the third node are left: the victim never stands.
    for _ in 0..3 {
        let leader = cluster.leader().await;
        // The third must hold all that is committed, or nobody could be elected.
        let last = || cluster.running.values().map(|running| running.node.status().last_log_index);
        eventually("all hold the same log", || last().min() == last().max()).await;
        cluster.stop_node(leader).await;
        let next = cluster.leader().await;
        assert_ne!(next, victim);
        put_at(&cluster.node(victim), "orders", &format!("at {next}")).await;
        assert!(matches!(cluster.node(victim).read(Instant::now() + SOON).await, Err(ReadError::Diverged(_))));
        cluster.start_node(leader).await;
        let healthy = cluster.node(leader);
        healthy.read(Instant::now() + SOON).await.unwrap();
    }
    // Only the victim's log is long enough to win an election: nobody leads until the old leader is back.
    let leader = cluster.leader().await;
    let third = (1..=3).find(|&id| id != leader && id != victim).unwrap();
    cluster.stop_node(third).await;
    put_at(&cluster.node(leader), "orders", "without the third").await;
    let last = || cluster.running.values().map(|running| running.node.status().last_log_index);
    eventually("the victim has the entry", || last().min() == last().max()).await;
    cluster.stop_node(leader).await;
    cluster.start_node(third).await;
    sleep(RaftSettings::default().election_timeout_max * 6).await;
    for running in cluster.running.values() {
        assert_eq!(running.node.status().leader, None, "as node {} sees it", running.node.node_id());
    }
    cluster.start_node(leader).await;
    assert_eq!(cluster.leader().await, leader);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_diverges_hands_leadership_over() {
    let (cluster, victim) = diverge(|leader| leader).await;
    // Nor is it given back: who hands over passes it by, and it refuses.
    for _ in 0..4 {
        let leader = cluster.leader().await;
        assert_ne!(leader, victim);
        assert!(cluster.node(leader).hand_over(Instant::now() + SOON).await);
    }
    assert_ne!(cluster.leader().await, victim);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_on_any_side_all_alarm_and_nobody_stops() {
    let cluster = Cluster::start(2).await;
    put_at(&cluster.node(1), "orders", "before").await;
    cluster.running[&2].tamper.store(true, Ordering::Relaxed);
    put_at(&cluster.node(1), "orders", "after").await;
    found_everywhere(&cluster, 2).await;
    for running in cluster.running.values() {
        let status = running.node.status();
        assert!(status.members.iter().all(|member| member.diverged.is_some()), "{status:?}");
        assert!(status.diverged.is_some_and(|text| text.contains("no side has a majority")));
        assert_eq!(running.metrics.raft_stands_aside.get(), 0);
        running.node.read(Instant::now() + SOON).await.unwrap();
    }
    put_at(&cluster.node(2), "orders", "goes on").await;
    cluster.stop().await;
}

/// Writes a snapshot of what the stopped node has, and of what no command made besides.
async fn tamper_on_disk(cluster: &Cluster, id: NodeId) {
    let options = StoreOptions {
        dir: cluster.data_dir(id),
        node_id: Some(id),
        cluster_name: cluster.name.to_owned(),
        feature_level_max: FEATURE_LEVEL_MAX,
        metrics: Metrics::new(),
    };
    let mut opened = store::open(options).unwrap();
    let committed = openraft::storage::RaftLogStorage::read_committed(&mut opened.log).await.unwrap().unwrap();
    let mut reader = openraft::storage::RaftLogStorage::get_log_reader(&mut opened.log).await;
    let entries = openraft::storage::RaftLogReader::try_get_log_entries(&mut reader, 0..committed.index + 1).await.unwrap();
    opened.tamper.store(true, Ordering::Relaxed);
    let entries: Vec<_> = entries.into_iter().map(|entry| Ok((entry, None))).collect();
    opened.state_machine.apply(futures_util::stream::iter(entries)).await.unwrap();
    opened.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let closer = opened.closer.clone();
    drop((opened, reader));
    closer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_divergence_that_is_on_disk_is_found_again_after_every_restart() {
    let mut cluster = Cluster::start(3).await;
    put_at(&cluster.node(1), "orders", "kept").await;
    cluster.all_at(Revision(1)).await;
    cluster.stop_node(3).await;
    tamper_on_disk(&cluster, 3).await;
    for _ in 0..2 {
        cluster.start_node(3).await;
        cluster.leader().await;
        // Nobody writes: the newest log ids are compared.
        found_everywhere(&cluster, 3).await;
        check_sides(&cluster, 3).await;
        cluster.stop_node(3).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_writes_a_restart_and_a_snapshot_raise_no_alarm() {
    const WRITERS: u64 = 48;
    const WRITES: u64 = 60;
    let mut cluster = Cluster::start(3).await;
    let round = |cluster: &Cluster, round: u64| {
        let mut writers = tokio::task::JoinSet::new();
        let nodes: Vec<Node> = cluster.running.values().map(|running| running.node.clone()).collect();
        for writer in 0..WRITERS {
            let node = nodes[usize::try_from(writer).unwrap() % nodes.len()].clone();
            writers.spawn(async move {
                for write in 0..WRITES {
                    put_at(&node, &format!("r{writer}"), &format!("{round} {write}")).await;
                }
            });
        }
        writers
    };
    round(&cluster, 1).join_all().await;
    // A follower is away while the others write past the purge, and comes back into a stream of writes: it gets a snapshot.
    let leader = cluster.leader().await;
    let away = leader % 3 + 1;
    cluster.stop_node(away).await;
    let purged_before = cluster.node(leader).status().purged_index;
    let large = "x".repeat(900_000);
    let mut number = 0;
    while cluster.node(leader).status().purged_index <= purged_before + 2 {
        number += 1;
        put_at(&cluster.node(leader), "large", &format!("{number}{large}")).await;
    }
    let writers = round(&cluster, 2);
    cluster.start_node(away).await;
    writers.join_all().await;
    round(&cluster, 3).join_all().await;
    let revision = cluster.node(leader).state().revision();
    assert!(revision.0 > 3 * WRITERS * WRITES);
    cluster.all_at(revision).await;
    assert!(cluster.running[&away].metrics.raft_snapshots_installed.get() >= 1, "caught up by a snapshot");
    // Every node has compared its newest log id with every other's, and all agree.
    let compared = |running: &Running| {
        let status = running.node.status();
        status.members.iter().all(|member| member.reachable && member.revision == Some(revision) && member.lag_entries == 0)
    };
    eventually("all have heard of all", || cluster.running.values().all(compared)).await;
    for (id, running) in &cluster.running {
        let status = running.node.status();
        assert!(
            status.diverged.is_none() && status.members.iter().all(|member| member.diverged.is_none()),
            "node {id}: {status:?}"
        );
        for kind in ["state", "revision"] {
            assert_eq!(running.metrics.divergences.with_label_values(&[kind]).get(), 0, "node {id}: {kind}");
        }
        assert_eq!((running.metrics.raft_diverged.get(), running.metrics.raft_stands_aside.get()), (0, 0));
    }
    cluster.stop().await;
}
