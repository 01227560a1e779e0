//! The beginning of a cluster, and nodes that may not take part in it.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_cluster_says_that_it_is_starting() {
    let mut cluster = Cluster::prepare(3).await;
    cluster.start_node(1).await;
    let mut client = PeerClient::connect(format!("http://{}", cluster.members[&1])).await.unwrap();
    let header = Some(pb::Header { protocol: 1, receiver: 1, ..pb::Header::default() });
    let refused = client.status(pb::StatusRequest { header }).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (tonic::Code::FailedPrecondition, "node 1 is starting"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_does_not_come_back_under_its_id() {
    let mut cluster = Cluster::start(3).await;
    put_at(&cluster.node(1), "orders", "kept").await;
    cluster.stop_node(3).await;
    std::fs::remove_dir_all(cluster.data_dir(3)).unwrap();
    cluster.start_node(3).await;
    let node = cluster.node(3);
    eventually("the wiped node refuses", || node.status().bootstrap_failed.is_some()).await;
    let reason = node.status().bootstrap_failed.unwrap();
    assert!(reason.contains("already belongs to cluster"), "{reason}");
    put_at(&cluster.node(1), "orders", "goes on").await;
    // Nor with a list of members that is out of date: where it expects node 2, node 1 answers.
    cluster.stop_node(3).await;
    std::fs::remove_dir_all(cluster.data_dir(3)).unwrap();
    let [one, two] = [1, 2].map(|id| cluster.members[&id].clone());
    cluster.members.extend([(1, two), (2, one)]);
    cluster.start_node(3).await;
    let node = cluster.node(3);
    eventually("the wiped node refuses", || node.status().bootstrap_failed.is_some()).await;
    let reason = node.status().bootstrap_failed.unwrap();
    assert!(reason.contains("node 2, at the address of member 1, already belongs to cluster"), "{reason}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_bootstrap_goes_on() {
    let mut cluster = Cluster::prepare(3).await;
    cluster.start_node(1).await;
    cluster.start_node(2).await;
    cluster.start_node(3).await;
    let first = cluster.node(1);
    eventually("node 1 has its identity", || first.cluster_id().is_some()).await;
    cluster.stop_node(1).await;
    cluster.stop_node(3).await;
    cluster.start_node(3).await;
    cluster.start_node(1).await;
    cluster.leader().await;
    put_at(&cluster.node(3), "orders", "formed").await;
    cluster.all_at(Revision(1)).await;
    cluster.stop().await;
}
