//! Snapshots that arrive whole, broken off, damaged or unwanted.

use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::*;
use crate::pb::peer::snapshot_request::Part;

/// A node, and the snapshot of another one with its head as a peer would send it.
struct Receiving {
    cluster: Cluster,
    client: PeerClient<Channel>,
    head: pb::SnapshotHead,
    bytes: Vec<u8>,
}

impl Receiving {
    async fn start() -> Receiving {
        let cluster = Cluster::start(1).await;
        put_at(&cluster.node(1), "orders", "kept").await;
        let mut client = PeerClient::connect(format!("http://{}", cluster.members[&1])).await.unwrap();
        let hello = client.hello(pb::HelloRequest::default()).await.unwrap().into_inner();
        let options = StoreOptions {
            dir: cluster.directory.path().join("sender"),
            node_id: Some(9),
            cluster_name: cluster.name.to_owned(),
            feature_level_max: FEATURE_LEVEL_MAX,
            metrics: Metrics::new(),
        };
        let mut opened = store::open(options).unwrap();
        let commands = (0..200).map(|number| put(&[(&format!("r{number}"), spec(&"x".repeat(10_000)))], None));
        let entries = commands.enumerate().map(|(index, command)| {
            let log_id = store::LogId::new(store::LeaderId { term: 1, node_id: 9 }, index as u64);
            let proposal = store::Proposal(store::encode_command(&command).unwrap());
            Ok((store::Entry { log_id, payload: store::Payload::Normal(proposal) }, None))
        });
        opened.state_machine.apply(futures_util::stream::iter(entries.collect::<Vec<_>>())).await.unwrap();
        let snapshot = opened.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        let bytes = snapshot.snapshot.read_chunk(0, usize::MAX).unwrap().to_vec();
        let last = snapshot.meta.last_log_id.unwrap();
        let head = pb::SnapshotHead {
            header: Some(pb::Header {
                cluster_id: hello.cluster_id,
                sender: 9,
                incarnation: Bytes::from_static(&[3; 16]),
                receiver: 1,
                protocol: 1,
            }),
            // Of a leader that is none any more.
            vote: Some(pb::VoteState { leader: Some(pb::LeaderId { term: 0, node_id: 9 }), committed: true }),
            last_log_id: Some(wire::log_id(last)),
            membership: Some(wire::stored_membership(&snapshot.meta.last_membership)),
            byte_count: bytes.len() as u64,
            crc32c: crc32c::crc32c(&bytes),
        };
        assert!(bytes.len() > 1_000_000, "several parts: {}", bytes.len());
        Receiving { cluster, client, head, bytes }
    }

    /// Sends the head and `bytes`.
    async fn send(&self, head: pb::SnapshotHead, bytes: &[u8]) -> Result<pb::SnapshotResponse, tonic::Status> {
        let parts = std::iter::once(Part::Head(head))
            .chain(bytes.chunks(300_000).map(|chunk| Part::Data(Bytes::copy_from_slice(chunk))))
            .map(|part| pb::SnapshotRequest { part: Some(part) });
        let stream = futures_util::stream::iter(parts.collect::<Vec<_>>());
        self.client.clone().snapshot(stream).await.map(tonic::Response::into_inner)
    }

    fn temporary_files(&self) -> usize {
        let files = std::fs::read_dir(self.cluster.data_dir(1).join("snapshots")).unwrap();
        files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|suffix| suffix == "tmp")).count()
    }

    /// The node goes on, with what it had.
    async fn check(&self) {
        eventually("no temporary file is left", || self.temporary_files() == 0).await;
        let node = self.cluster.node(1);
        let state = node.read(Instant::now() + SOON).await.unwrap();
        assert_eq!((state.revision(), node.status().storage_failed), (Revision(1), None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_damaged_mislabelled_or_unwanted_leaves_nothing_behind() {
    let receiving = Receiving::start().await;
    // The sender's disk flipped a bit before it took the checksum.
    let mut damaged = receiving.bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let head = pb::SnapshotHead { crc32c: crc32c::crc32c(&damaged), ..receiving.head.clone() };
    let error = receiving.send(head, &damaged).await.unwrap_err();
    assert!(error.message().contains("wrong checksum"), "{error}");
    receiving.check().await;

    // The same bit on the way.
    let error = receiving.send(receiving.head.clone(), &damaged).await.unwrap_err();
    assert!(error.message().contains("the sender says"), "{error}");
    let error = receiving.send(receiving.head.clone(), &receiving.bytes[..middle]).await.unwrap_err();
    assert!(error.message().contains("the sender says"), "{error}");
    let longer = [receiving.bytes.as_slice(), b"x"].concat();
    let error = receiving.send(receiving.head.clone(), &longer).await.unwrap_err();
    assert!(error.message().contains("more bytes than announced"), "{error}");
    let elsewhere = Some(pb::LogId { leader: Some(pb::LeaderId { term: 9, node_id: 9 }), index: 1_000 });
    let head = pb::SnapshotHead { last_log_id: elsewhere, ..receiving.head.clone() };
    let error = receiving.send(head, &receiving.bytes).await.unwrap_err();
    assert!(error.message().contains("covers something else"), "{error}");
    receiving.check().await;

    // Whole and good, from a leader that was voted out.
    let answer = receiving.send(receiving.head.clone(), &receiving.bytes).await.unwrap();
    let term = answer.vote.and_then(|vote| vote.leader).map(|leader| leader.term);
    assert!(term.is_some_and(|term| term > 0), "it names the later vote: {term:?}");
    receiving.check().await;
    receiving.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_sender_dies_gives_way_to_the_next_one() {
    let receiving = Receiving::start().await;
    for _ in 0..3 {
        let client = PeerClient::connect(format!("http://{}", receiving.cluster.members[&1])).await.unwrap();
        let (parts, stream) = mpsc::channel(4);
        let call = tokio::spawn({
            let mut client = client;
            async move { client.snapshot(ReceiverStream::new(stream)).await }
        });
        let data = Bytes::copy_from_slice(&receiving.bytes[..300_000]);
        for part in [Part::Head(receiving.head.clone()), Part::Data(data)] {
            parts.send(pb::SnapshotRequest { part: Some(part) }).await.unwrap();
        }
        eventually("it arrives", || receiving.temporary_files() == 1).await;
        // One at a time: what arrives together takes the disk once.
        let error = receiving.send(receiving.head.clone(), &receiving.bytes).await.unwrap_err();
        assert!(error.message().contains("another snapshot is arriving"), "{error}");
        call.abort();
        drop(parts);
        receiving.check().await;
    }
    receiving.send(receiving.head.clone(), &receiving.bytes).await.unwrap();
    receiving.check().await;
    receiving.cluster.stop().await;
}
