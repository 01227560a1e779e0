//! Who gets through.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::Pki;
use crate::model::NodeId;
use crate::tls::{HandshakeError, PeerTls};

/// Longer than any handshake takes.
const LONG: Duration = Duration::from_secs(30);

/// What both sides say of a handshake; the one that is called speaks first after it.
async fn meet(
    called: Arc<PeerTls>,
    calling: &PeerTls,
    host: &str,
    node: Option<NodeId>,
) -> (Result<NodeId, HandshakeError>, Result<(), HandshakeError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, node) = called.accept(stream, LONG).await?;
        stream.write_all(b"settings").await.unwrap();
        // Until the other side is through with it.
        drop(stream.read_u8().await);
        Ok(node)
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let connected = match calling.connect(stream, host, node, LONG).await {
        Err(error) => Err(error),
        Ok(mut stream) => {
            let mut bytes = [0; 8];
            stream.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"settings", "what was waited for is still there");
            Ok(())
        }
    };
    (accepting.await.unwrap(), connected)
}

#[tokio::test]
async fn peers_know_each_other_by_ca_host_and_node() {
    let (pki, other) = (Pki::new(), Pki::new());
    let one = Arc::new(pki.peer(1));
    let two = pki.peer(2);
    let (accepted, connected) = meet(Arc::clone(&one), &two, "127.0.0.1", Some(1)).await;
    assert_eq!((accepted.unwrap(), connected.unwrap()), (2, ()));
    let (accepted, connected) = meet(Arc::clone(&one), &two, "127.0.0.1", None).await;
    assert_eq!((accepted.unwrap(), connected.unwrap()), (2, ()));

    // A wrong node at that address.
    let (_, connected) = meet(Arc::clone(&one), &two, "127.0.0.1", Some(3)).await;
    assert!(connected.unwrap_err().to_string().contains("is for node 1, and node 3 was expected"));

    // A host that the certificate does not name. Brackets around an address of IPv6 are none of it.
    for host in ["127.0.0.2", "gate.example", "[::1]", "::1"] {
        let (accepted, connected) = meet(Arc::clone(&one), &two, host, Some(1)).await;
        let refused = connected.unwrap_err();
        assert!(refused.reason() == "certificate" && refused.to_string().contains("not valid for name"), "{host}: {refused}");
        assert_eq!(accepted.unwrap_err().reason(), "alert", "{host}");
    }

    // Another CA, from either side; each says whose certificate it was.
    let stranger = other.peer(2);
    let (accepted, connected) = meet(Arc::clone(&one), &stranger, "127.0.0.1", Some(1)).await;
    assert!(connected.unwrap_err().to_string().contains("is not signed by the CA that this side knows"));
    assert_eq!(accepted.unwrap_err().reason(), "alert");

    // It knows the cluster's CA, and has no certificate of it: the connecting side would be done before it is refused.
    let mut files = other.node("test", 2, &["127.0.0.1"]);
    files.ca = pki.path("ca.pem");
    let half = PeerTls::load(files, "test").unwrap();
    let (accepted, connected) = meet(Arc::clone(&one), &half, "127.0.0.1", Some(1)).await;
    assert!(accepted.unwrap_err().to_string().contains("is not signed by the CA that this side knows"));
    assert!(matches!(connected, Err(HandshakeError::Alert(_) | HandshakeError::Broken(_))), "{connected:?}");

    // A node of another cluster under the same CA.
    let blue = PeerTls::load(pki.node("blue", 2, &["127.0.0.1"]), "blue").unwrap();
    let (accepted, connected) = meet(one, &blue, "127.0.0.1", Some(1)).await;
    assert!(accepted.unwrap_err().to_string().contains("is for raftgate://blue/node/2"));
    assert!(connected.is_err());
}

#[tokio::test]
async fn a_caller_of_the_admin_api_is_no_peer() {
    let pki = Pki::new();
    let one = pki.peer(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = crate::tls::client_config(&pki.client(Some("alice"))).unwrap();
    let calling = tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "127.0.0.1".try_into().unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.read_u8().await
    });
    let (stream, _) = listener.accept().await.unwrap();
    let refused = one.accept(stream, LONG).await.unwrap_err();
    assert!(refused.to_string().contains("names no node"), "{refused}");
    assert!(calling.await.unwrap().is_err());
}

#[tokio::test]
async fn what_is_no_handshake_is_told_apart() {
    let pki = Pki::new();
    let one = Arc::new(pki.peer(1));
    for (bytes, limit, expected) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], LONG, "clear_text"),
        (b"GET / HTTP/1.1\r\n\r\n", LONG, "clear_text"),
        (b"\x16\x03\x01\x00\x05hello", LONG, "protocol"),
        (b"", Duration::from_millis(50), "deadline"),
        (b"\x16\x03", Duration::from_millis(50), "deadline"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut calling = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        calling.write_all(bytes).await.unwrap();
        let refused = one.accept(stream, limit).await.unwrap_err();
        assert_eq!(refused.reason(), expected, "{bytes:?}: {refused}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(TcpStream::connect(address).await.unwrap());
    let (stream, _) = listener.accept().await.unwrap();
    assert_eq!(one.accept(stream, LONG).await.unwrap_err().reason(), "broken");

    // One that answers in clear text, and one that says nothing.
    for (bytes, limit, expected) in
        [(&b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"[..], LONG, "clear_text"), (b"", Duration::from_millis(50), "deadline")]
    {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut called, _) = listener.accept().await.unwrap();
        called.write_all(bytes).await.unwrap();
        let refused = one.connect(stream, "127.0.0.1", None, limit).await.unwrap_err();
        assert_eq!(refused.reason(), expected, "{bytes:?}: {refused}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_so_said() {
    let pki = Pki::new();
    let files = pki.sign("node2", super::Subject::Node { cluster: "test", id: 2, hosts: &["127.0.0.1".to_owned()] }, 0);
    let expired = PeerTls::load(files, "test").unwrap();
    // It ends with the second in which it was made.
    let ends = UNIX_EPOCH + Duration::from_secs(u64::try_from(expired.validity().ends_at).unwrap() + 1);
    while SystemTime::now() <= ends {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(expired.validity().concern(SystemTime::now()).is_some_and(|concern| concern.contains("expired at")));
    let (accepted, connected) = meet(Arc::new(pki.peer(1)), &expired, "127.0.0.1", None).await;
    let refused = accepted.unwrap_err();
    assert!(refused.reason() == "certificate" && refused.to_string().contains("has expired"), "{refused}");
    assert!(connected.is_err());
}
