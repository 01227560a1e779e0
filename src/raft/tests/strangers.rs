//! Peers that are none, and peers that give up.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_counted() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.running[&1];
    // The membership counts once it is applied.
    node.node.read(Instant::now() + SOON).await.unwrap();
    let mut client = PeerClient::connect(format!("http://{}", cluster.members[&1])).await.unwrap();
    let hello = client.hello(pb::HelloRequest::default()).await.unwrap().into_inner();
    assert!(hello.formed);
    let good = pb::Header {
        cluster_id: hello.cluster_id,
        sender: 9,
        incarnation: Bytes::from_static(&[3; 16]),
        receiver: 1,
        protocol: 1,
    };
    let cases = [
        (None, "no_header"),
        (Some(pb::Header { cluster_id: Bytes::from_static(&[0; 16]), ..good.clone() }), "cluster"),
        (Some(pb::Header { receiver: 2, ..good.clone() }), "receiver"),
        (Some(pb::Header { sender: 1, ..good.clone() }), "incarnation"),
        (Some(pb::Header { protocol: 99, ..good.clone() }), "protocol"),
        (Some(pb::Header { incarnation: Bytes::new(), ..good.clone() }), "malformed"),
    ];
    for (header, reason) in cases {
        let refused = client.status(pb::StatusRequest { header }).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{reason}");
        assert_eq!(node.metrics.raft_peer_refusals.with_label_values(&[reason]).get(), 1, "{reason}");
    }
    client.status(pb::StatusRequest { header: Some(good) }).await.unwrap();
    cluster.stop().await;
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_that_were_given_up_at_once_do_not_end_a_connection() {
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    let cluster = Cluster::start(1).await;
    let mut stream = tokio::net::TcpStream::connect(&cluster.members[&1]).await.unwrap();
    let mut bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat();
    for call in 0..100 {
        let id = call * 2 + 1;
        // POST http /, with the end of the headers; then the reset "cancelled".
        bytes.extend(frame(1, 4, id, &[0x83, 0x86, 0x84]));
        bytes.extend(frame(3, 0, id, &8u32.to_be_bytes()));
    }
    bytes.extend(frame(PING, 0, 0, &[7; 8]));
    stream.write_all(&bytes).await.unwrap();
    let answered = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload).await.unwrap();
            assert_ne!(head[3], GOAWAY, "{}", String::from_utf8_lossy(&payload));
            if head[3] == PING && payload == [7; 8] {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, answered).await.unwrap();
    cluster.stop().await;
}
