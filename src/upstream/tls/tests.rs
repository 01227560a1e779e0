//! Which services share what, and who vouches where a service names nobody.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls_native_certs::CertificateResult;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::client::{Secured, TlsClient, TlsError};
use super::{TlsClients, TlsProblem};
use crate::model::spec::parse_service;
use crate::model::{Name, Revision};
use crate::table::{Service, ServiceId};

/// A certificate that vouches for itself.
static MACHINE: LazyLock<CertifiedKey<rcgen::KeyPair>> =
    LazyLock::new(|| generate_simple_self_signed(vec!["orders.internal".to_owned()]).unwrap());
static LOADS: AtomicUsize = AtomicUsize::new(0);

fn service(name: &str, created: u64, spec: Value) -> Service {
    let id = ServiceId { name: Name::new(name).unwrap(), created_revision: Revision(created) };
    Service { id, spec: parse_service(&spec).unwrap().spec }
}

fn client(clients: &TlsClients, service: &Service) -> Arc<TlsClient> {
    clients.client(service, service.spec.tls.as_ref().unwrap(), None)
}

fn loaded() -> CertificateResult {
    LOADS.fetch_add(1, Ordering::SeqCst);
    let mut found = CertificateResult::default();
    found.certs.push(MACHINE.cert.der().clone());
    found
}

#[test]
fn a_client_is_shared_by_what_is_the_same() {
    let clients = TlsClients::with_system(CertificateResult::default);
    let https = |fields: Value| {
        let mut spec = json!({"protocol": "https"});
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        spec
    };
    let first = client(&clients, &service("s", 1, https(json!({}))));
    // Another worker, and another revision with other endpoints.
    let same = client(&clients, &service("s", 1, https(json!({"endpoints": [{"address": "a:1"}], "tls": {}}))));
    assert!(Arc::ptr_eq(&first, &same));
    let others = [
        service("s", 1, https(json!({"tls": {"minVersion": "1.3"}}))),
        service("s", 1, https(json!({"tls": {"hostname": "a.internal"}}))),
        service("s", 1, json!({"protocol": "h2"})),
        service("s", 2, https(json!({}))),
        service("t", 1, https(json!({}))),
    ];
    let others: Vec<_> = others.iter().map(|other| client(&clients, other)).collect();
    assert!(others.iter().all(|other| !Arc::ptr_eq(other, &first)));

    // Nobody keeps what nobody uses.
    let gone = Arc::downgrade(&first);
    drop((first, same, others));
    assert!(gone.upgrade().is_none());
    for number in 0..1000 {
        client(&clients, &service(&format!("s{number}"), 1, https(json!({}))));
    }
    assert!(clients.service_count() <= 32, "{}", clients.service_count());
}

#[tokio::test]
async fn the_machines_cas_are_read_once_and_vouch() {
    let key = PrivateKeyDer::try_from(MACHINE.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![MACHINE.cert.der().clone()], key).unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let clients = TlsClients::with_system(loaded);
    for (number, hostname) in ["orders.internal", "other.internal", "orders.internal"].into_iter().enumerate() {
        let spec = json!({"protocol": "https", "tls": {"hostname": hostname}});
        let secured = Secured::new(&client(&clients, &service("s", number as u64, spec)), &address.to_string());
        let accept = async {
            let accepted = acceptor.accept(listener.accept().await.unwrap().0).await;
            accepted.is_ok()
        };
        let connect = async {
            let stream = TcpStream::connect(address).await.unwrap();
            secured.handshake(stream).await.is_ok()
        };
        let is_right = hostname == "orders.internal";
        assert_eq!(tokio::join!(connect, accept), (is_right, is_right), "{hostname}");
    }
    assert_eq!(LOADS.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_machine_without_cas_is_named() {
    let clients = TlsClients::with_system(CertificateResult::default);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let secured = Secured::new(&client(&clients, &service("s", 1, json!({"protocol": "h2"}))), &address.to_string());
    let error = secured.handshake(TcpStream::connect(address).await.unwrap()).await.err();
    assert!(matches!(error, Some(TlsError::Tls(TlsProblem::NoAuthorities, None))), "{error:?}");
}
