//! Peers over TLS.

use tokio::net::TcpStream;

use super::*;
use crate::raft::transport::Transport;
use crate::tls::PeerTls;
use crate::tls::tests::Pki;

fn identity(pki: &Pki, id: NodeId) -> Arc<PeerTls> {
    Arc::new(pki.peer(id))
}

fn tls_failures(running: &Running, place: &str, reason: &str) -> u64 {
    running.metrics.node_tls_failures.with_label_values(&[place, reason]).get()
}

/// Calls node 1 as node `id` of `pki` is able to.
async fn client(cluster: &Cluster, pki: &Pki, id: NodeId) -> PeerClient<tonic::transport::Channel> {
    let dialer = Transport::Tls { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), identity: identity(pki, id) };
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", cluster.members[&1])).unwrap();
    PeerClient::new(dialer.dialer(&Metrics::new()).channel(endpoint, Some(1)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_elect_commit_change_their_leader_and_let_a_node_in_over_tls() {
    let mut cluster = Cluster::prepare(3).await;
    let pki = Pki::new();
    for id in 1..=3 {
        cluster.identities.insert(id, identity(&pki, id));
        cluster.start_node(id).await;
    }
    let old = cluster.leader().await;
    for id in 1..=3 {
        assert_eq!(put_at(&cluster.node(id), "orders", &format!("from {id}")).await, Revision(id));
    }
    cluster.stop_node(old).await;
    let other = (1..=3).find(|id| *id != old).unwrap();
    put_once_at(&cluster.node(other), "orders", "after").await;
    cluster.start_node(old).await;
    cluster.all_at(Revision(4)).await;

    cluster.identities.insert(4, identity(&pki, 4));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let join = Some(cluster.members[&1].clone());
    cluster.start_as(4, Some(4), BTreeMap::new(), join, listener).await;
    eventually("the new node has everything", || cluster.node(4).state().revision() == Revision(4)).await;
    put_at(&cluster.node(4), "orders", "through the learner").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_another_node_than_the_certificates_is_refused_and_counted() {
    let mut cluster = Cluster::prepare(1).await;
    let pki = Pki::new();
    cluster.identities.insert(1, identity(&pki, 1));
    cluster.start_node(1).await;
    cluster.leader().await;
    let refusals = || cluster.running[&1].metrics.raft_peer_refusals.with_label_values(&["certificate"]).get();
    let cluster_id = uuid::Uuid::parse_str(&cluster.node(1).cluster_id().unwrap()).unwrap();
    let header = |sender| pb::Header {
        cluster_id: Bytes::copy_from_slice(cluster_id.as_bytes()),
        sender,
        incarnation: Bytes::from_static(&[7; 16]),
        receiver: 1,
        protocol: 1,
    };
    let mut client = client(&cluster, &pki, 3).await;
    let refused = client.status(pb::StatusRequest { header: Some(header(2)) }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("the message is of node 2, and the certificate of node 3"), "{refused}");
    assert_eq!(refusals(), 1);
    client.status(pb::StatusRequest { header: Some(header(3)) }).await.unwrap();
    let hello = |sender| pb::HelloRequest { sender, receiver: 1, protocol: 1 };
    assert!(client.hello(hello(2)).await.is_err());
    client.hello(hello(3)).await.unwrap();
    client.hello(hello(0)).await.unwrap();
    let join = pb::JoinRequest { node_id: 5, protocol: 1, ..pb::JoinRequest::default() };
    assert!(client.join(join).await.is_err());
    assert_eq!(refusals(), 3);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_and_without_tls_and_of_another_ca_tell_each_other_apart() {
    let mut cluster = Cluster::prepare(3).await;
    let (pki, other) = (Pki::new(), Pki::new());
    cluster.identities.insert(1, identity(&pki, 1));
    cluster.identities.insert(3, identity(&other, 3));
    for id in 1..=3 {
        cluster.start_node(id).await;
    }
    let expected = [
        (1, "peer_in", "clear_text"),
        (1, "peer_out", "clear_text"),
        (1, "peer_in", "alert"),
        (1, "peer_out", "certificate"),
        (2, "peer_in", "tls"),
        (2, "peer_out", "tls"),
    ];
    for (id, place, reason) in expected {
        let counted = || tls_failures(&cluster.running[&id], place, reason) > 0;
        eventually(&format!("node {id} counts {place} {reason}"), counted).await;
    }
    assert!(cluster.running.values().all(|running| running.node.cluster_id().is_none()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_do_not_keep_a_peer_out() {
    let mut cluster = Cluster::prepare(1).await;
    let pki = Pki::new();
    cluster.identities.insert(1, identity(&pki, 1));
    cluster.start_node(1).await;
    cluster.leader().await;
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(TcpStream::connect(&cluster.members[&1]).await.unwrap());
    }
    let mut client = client(&cluster, &pki, 2).await;
    client.hello(pb::HelloRequest { sender: 2, receiver: 1, protocol: 1 }).await.unwrap();
    assert!(tls_failures(&cluster.running[&1], "peer_in", "crowded") > 0);
    drop(silent);
    cluster.stop().await;
}

/// Both commit all the same; what it takes is printed, for people.
#[expect(clippy::print_stdout, reason = "a measurement is for reading")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_commit_takes_in_clear_text_and_over_tls() {
    let pki = Pki::new();
    let mut notes = Vec::new();
    for is_secured in [false, true] {
        let mut cluster = Cluster::prepare(3).await;
        for id in 1..=3 {
            if is_secured {
                cluster.identities.insert(id, identity(&pki, id));
            }
            cluster.start_node(id).await;
        }
        let leader = cluster.leader().await;
        let mut times = Vec::new();
        for number in 0..100 {
            let started = Instant::now();
            put_at(&cluster.node(leader), "orders", &number.to_string()).await;
            times.push(started.elapsed());
        }
        times.sort();
        notes.push(format!("TLS {is_secured}: median {:?}, 90 % {:?}", times[50], times[90]));
        cluster.all_at(Revision(100)).await;
        cluster.stop().await;
    }
    println!("100 commits one after the other at the leader of three: {}", notes.join("; "));
}
