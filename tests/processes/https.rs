//! HTTPS by certificates of the table: from the configuration and one write to the handshake at another node.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::StatusCode;
use rustls::client::Resumption;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::harness::{Backend, Cluster, Node, eventually, route};
use crate::listeners::{configure, wait_for_reloads};
use crate::secrets::new_key;

/// A client that knows the authority, and a certificate's document for this host.
fn made(host: &str) -> (Arc<ClientConfig>, Value) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = builder.with_root_certificates(roots).with_no_client_auth();
    (Arc::new(client), json!({"certificate": certificate.pem(), "privateKey": key.serialize_pem()}))
}

/// The answer of the node at a port to a GET at `host`; `None` where there is none.
async fn get(node: &Node, port: u16, client: &Arc<ClientConfig>, host: &'static str) -> Option<String> {
    let stream = tokio::net::TcpStream::connect((node.host.as_str(), port)).await.ok()?;
    let connector = TlsConnector::from(Arc::clone(client));
    let mut stream = connector.connect(ServerName::try_from(host).unwrap(), stream).await.ok()?;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// A cluster whose nodes can seal, at the level that takes certificates.
async fn with_key(environment: &[(&'static str, PathBuf)]) -> Cluster {
    let mut cluster = Cluster::prepare();
    let key = cluster.path().join("key");
    new_key(&key).await;
    for node in &mut cluster.nodes {
        node.environment = environment.to_vec();
        node.environment.push(("RAFTGATE_SECRETS__KEY_FILE", key.clone()));
        node.start();
    }
    for index in 0..3 {
        cluster.wait_ready(index).await;
    }
    eventually("the second feature level", || async {
        (cluster.get(2, "/v1/cluster").await?["featureLevel"] == json!(2)).then_some(())
    })
    .await;
    cluster
}

/// An authority for clients in PEM, and `client` with a certificate of it.
fn known(client: &ClientConfig) -> (String, Arc<ClientConfig>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().signed_by(&key, &authority).unwrap();
    let key = any_supported_type(&PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap();
    let mut client = client.clone();
    let shown = CertifiedKey::new(vec![certificate.der().clone()], key);
    client.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(shown));
    // A session of before would be another client's.
    client.resumption = Resumption::disabled();
    (authority.pem(), Arc::new(client))
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_take_up_tls_and_change_it_at_sighup() {
    let cluster = with_key(&[]).await;
    let backend = Backend::start("secure").await;
    let (client, certificate) = made("shop.example");
    cluster.put(0, "/v1/services/s", &backend.service()).await;
    cluster.put(0, "/v1/certificates/shop", &certificate).await;
    cluster.put(0, "/v1/routes/r?wait=live", &route("/", "s")).await;
    let node = &cluster.nodes[0];
    let is_served = async |port, client: &Arc<ClientConfig>| {
        let answer = get(node, port, client, "shop.example").await;
        answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200 OK\r\n"))
    };
    assert!(!is_served(8081, &client).await);

    // One that spoke clear text, and one that comes.
    configure(&cluster, "", &[("public", 8081, "tls = true"), ("second", 8082, "tls = true")]);
    wait_for_reloads(&cluster, "applied", 1).await;
    assert!(is_served(8081, &client).await && is_served(8082, &client).await);
    assert!(cluster.client.get(node.proxy("/")).send().await.is_ok_and(|answer| answer.status() == StatusCode::BAD_REQUEST));

    // Clients are asked who they are, and the authority who vouches for them is another one then, in the same file.
    let (file, ((first, by_first), (second, by_second))) = (cluster.path().join("clients.pem"), (known(&client), known(&client)));
    let asking = format!("tls = {{ client_ca = \"{}\" }}", file.display());
    for (count, authority, expected) in [(2, first, [false, true, false]), (3, second, [false, false, true])] {
        fs::write(&file, authority).unwrap();
        configure(&cluster, "", &[("public", 8081, ""), ("second", 8082, &asking)]);
        wait_for_reloads(&cluster, "applied", count).await;
        let served = [is_served(8082, &client).await, is_served(8082, &by_first).await, is_served(8082, &by_second).await];
        assert_eq!(served, expected);
    }
    assert_eq!(cluster.client.get(node.proxy("/")).send().await.unwrap().status(), StatusCode::OK);

    // What cannot be loaded changes nothing, and the first listener stays as it was too.
    for (count, (settings, words)) in
        [("tls = { cipher_suites = [\"RC4\"] }", "`listener[1].tls.cipher_suites`"), (&asking, "`listener[1].tls.client_ca`")]
            .into_iter()
            .enumerate()
    {
        fs::write(&file, "").unwrap();
        configure(&cluster, "", &[("public", 8081, "tls = true"), ("second", 8082, settings)]);
        wait_for_reloads(&cluster, "refused", count as u32 + 1).await;
        assert!(node.log().contains(words), "{}", node.log());
        assert!(!is_served(8081, &client).await && is_served(8082, &by_second).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_written_at_one_node_answers_at_all() {
    let cluster = with_key(&[("RAFTGATE_LISTENER__0__TLS", "true".into())]).await;
    // Its proxy may come after its control plane.
    let ready = eventually("the third node serves", || cluster.get(2, "/readyz")).await;
    let warning = ready["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("listener \"public\" speaks TLS"), "{ready}");

    let backend = Backend::start("secure").await;
    let (client, certificate) = made("shop.example");
    assert_eq!(get(&cluster.nodes[2], 8081, &client, "shop.example").await, None);
    cluster.put(0, "/v1/services/s", &backend.service()).await;
    cluster.put(0, "/v1/routes/r", &route("/", "s")).await;
    let revision = cluster.put(1, "/v1/certificates/shop", &certificate).await;
    cluster.wait_agreement(&[0, 1, 2], revision).await;
    for node in &cluster.nodes {
        let answer = get(node, 8081, &client, "shop.example").await.expect("an answer over TLS");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("secure"), "{answer}");
        assert_eq!(get(node, 8081, &client, "other.example").await, None);
    }
    let ready = cluster.get(2, "/readyz").await.unwrap();
    assert_eq!(ready["warnings"], json!([]), "{ready}");
}

#[test]
fn settings_of_tls_that_cannot_be_loaded_are_named() {
    let cluster = Cluster::prepare();
    let config = fs::read_to_string(cluster.nodes[0].config_file()).unwrap();
    for (settings, words) in [
        (
            "client_ca = \"/nowhere/ca.pem\"",
            ["`listener[0].tls.client_ca`: cannot read PEM from /nowhere/ca.pem", "No such file"],
        ),
        ("cipher_suites = [\"RC4\"]", ["`listener[0].tls.cipher_suites`: `RC4`", "TLS_AES_128_GCM_SHA256"]),
    ] {
        let path = cluster.path().join("wrong.toml");
        fs::write(&path, format!("{config}[listener.tls]\n{settings}\n")).unwrap();
        let (code, text) = Node::start_and_fail(&path);
        assert_eq!(code, Some(1), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}
