//! Certificates: what compiles, and which one answers whom.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::documents::{apply, put};
use crate::model::spec::canonical;
use crate::model::{Kind, Name, Operation, ResourceKey, State};
use crate::secrets::{Keyring, Place};
use crate::table::{Chain, Snapshot};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Chain and key in PEM.
struct Made {
    chain: String,
    key: String,
}

fn made(hosts: &[&str]) -> Made {
    let key = KeyPair::generate().unwrap();
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let certificate = CertificateParams::new(hosts).unwrap().self_signed(&key).unwrap();
    Made { chain: certificate.pem(), key: key.serialize_pem() }
}

/// The document as it is stored.
fn document(ring: &Keyring, resource: &str, made: &Made, is_default: bool) -> Value {
    let name = name(resource);
    let place = Place { kind: Kind::Certificate, name: &name, field: "privateKey" };
    let sealed = ring.seal(place, &made.key, None).unwrap();
    json!({"certificate": made.chain, "privateKey": sealed.document(), "default": is_default})
}

fn put_certificate(resource: &str, document: &Value) -> Operation {
    let key = ResourceKey::new(Kind::Certificate, name(resource));
    Operation::Put { key, spec: canonical(document).unwrap() }
}

fn delete(resource: &str) -> Operation {
    Operation::Delete { key: ResourceKey::new(Kind::Certificate, name(resource)) }
}

fn with_keys(bytes: &[u8]) -> (Arc<Keyring>, Snapshot) {
    let ring = Arc::new(Keyring::of_bytes(bytes));
    (Arc::clone(&ring), Snapshot::with_keyring(ring))
}

fn chosen<'a>(snapshot: &'a Snapshot, sni: Option<&str>) -> Option<&'a str> {
    snapshot.certificate_for(sni).map(|certificate| certificate.name.as_str())
}

#[test]
fn the_server_name_chooses() {
    let (ring, empty) = with_keys(&[1]);
    let mut state = State::default();
    let rows: [(&str, &[&str], bool); 6] = [
        ("exact", &["shop.example.com", "Other.Example.com"], false),
        ("wild", &["*.example.com", "*.b.example.com"], false),
        ("z-old-default", &["old.example.org"], true),
        ("a-new-default", &["new.example.org"], true),
        ("a-younger-twin", &["shop.example.com", "*.example.com"], false),
        ("odd", &["*", "x*.example.net", "*x.example.net", "localhost"], false),
    ];
    for (resource, hosts, is_default) in rows {
        apply(&mut state, vec![put_certificate(resource, &document(&ring, resource, &made(hosts), is_default))]);
    }
    let snapshot = empty.rebuilt(&state);
    assert_eq!(snapshot.not_compiled().collect::<Vec<_>>(), []);
    let default = Some("z-old-default");
    for (sni, expected) in [
        (Some("shop.example.com"), Some("exact")),
        (Some("SHOP.example.COM"), Some("exact")),
        (Some("other.example.com"), Some("exact")),
        (Some("a.example.com"), Some("wild")),
        // A wildcard stands for one label.
        (Some("a.c.example.com"), default),
        (Some("a.b.example.com"), Some("wild")),
        (Some("b.example.com"), Some("wild")),
        (Some("example.com"), default),
        (Some(".example.com"), default),
        (Some("old.example.org"), Some("z-old-default")),
        (Some("new.example.org"), Some("a-new-default")),
        (Some("localhost"), Some("odd")),
        // A star that is no whole label, or the only one, stands for nothing.
        (Some("x1.example.net"), default),
        (Some("1x.example.net"), default),
        (Some("anything"), default),
        (Some(""), default),
        (None, default),
    ] {
        assert_eq!(chosen(&snapshot, sni), expected, "{sni:?}");
    }
    let before = state.clone();
    apply(&mut state, vec![delete("exact"), delete("z-old-default")]);
    let snapshot = snapshot.updated(&before, &state);
    assert_eq!(chosen(&snapshot, Some("shop.example.com")), Some("a-younger-twin"));
    assert_eq!(
        (chosen(&snapshot, None), chosen(&snapshot, Some("old.example.org"))),
        (Some("a-new-default"), Some("a-new-default"))
    );
    let before = state.clone();
    apply(&mut state, vec![delete("a-new-default")]);
    assert_eq!(chosen(&snapshot.updated(&before, &state), None), None);
}

#[test]
fn what_does_not_compile_says_why_and_serves_nobody() {
    let (ring, empty) = with_keys(&[1]);
    let good = made(&["a.com"]);
    let other = made(&["b.com"]);
    let stored = document(&ring, "c", &good, true);
    let with = |field: &str, value: Value| {
        let mut document = stored.clone();
        document[field] = value;
        document
    };
    let swapped = document(&ring, "c", &Made { chain: good.chain.clone(), key: other.key.clone() }, false);
    let foreign = document(&Keyring::of_bytes(&[9]), "c", &good, false);
    let id = Keyring::of_bytes(&[9]).key_ids().next().unwrap().to_owned();
    for (document, reason) in [
        (with("certificate", json!(other.chain)), "/privateKey: it is not the key of the certificate".to_owned()),
        (with("certificate", json!("x")), "/certificate: it holds no certificate".to_owned()),
        (with("privateKey", json!(good.key)), "/privateKey: it is not sealed".to_owned()),
        (with("privateKey", json!({"secretDigest": "x"})), "/privateKey: it is not sealed".to_owned()),
        (with("later", json!(1)), "/later: unknown field".to_owned()),
        (swapped, "/privateKey: it is not the key of the certificate".to_owned()),
        (foreign, format!("/privateKey: it is sealed with the key {id}, which this node does not have")),
        (self::document(&ring, "d", &good, false), "/privateKey: it is not what the key".to_owned()),
    ] {
        let mut state = State::default();
        apply(&mut state, vec![put_certificate("c", &document)]);
        let snapshot = empty.rebuilt(&state);
        let told = snapshot.reason_not_compiled(&ResourceKey::new(Kind::Certificate, name("c"))).unwrap_or_default();
        assert!(told.starts_with(&reason), "{told}, not {reason}");
        assert!(!told.contains(&good.key[40..60]), "{told}");
        assert_eq!((chosen(&snapshot, Some("a.com")), snapshot.counts().not_compiled), (None, 1));
        assert_eq!(snapshot.check(&state, None, 10), Ok(None));
    }
}

#[test]
fn chains_and_keys_are_read_or_the_field_is_named() {
    let (leaf, other) = (made(&["b.com", "A.com", "*.a.com", "b.com"]), made(&["o.com"]));
    let chain = Chain::read(&format!("text before\n{}{}", leaf.chain, other.chain)).unwrap();
    assert_eq!(chain.hosts, ["*.a.com", "a.com", "b.com"]);
    assert!(chain.not_before < chain.not_after);
    assert_eq!(chain.with_key(leaf.key.as_bytes()).unwrap().cert.len(), 2);
    let broken = leaf.chain.replace("END", "ENT");
    let foreign = format!("{}{}", leaf.chain, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for (pem, words) in [
        (String::new(), "no certificate"),
        (leaf.key.clone(), "no certificate"),
        (broken, "not PEM"),
        (foreign, "certificate 2 of the chain is not X.509"),
        (leaf.chain.repeat(11), "more than 10"),
    ] {
        let error = Chain::read(&pem).unwrap_err();
        assert!(error.to_string().contains(words) && error.field() == "certificate", "{error}");
    }
    let (key, chain_of) = (&leaf.key, |more: &str| format!("{}{more}", leaf.chain));
    for (pem, label) in [
        (chain_of(key), "`PRIVATE KEY`"),
        (format!("{key}{}", leaf.chain), "`PRIVATE KEY`"),
        (chain_of(key).replace("--\n--", "----"), "`PRIVATE KEY`"),
        (chain_of(&key.replace("PRIVATE", "ENCRYPTED PRIVATE")), "`ENCRYPTED PRIVATE KEY`"),
        (chain_of("-----BEGIN DH PARAMETERS"), "`DH PARAMETERS`"),
        (chain_of(&key.replace("-----", "----")), "`PRIVATE KEY`"),
        (chain_of(&key.replace("PRIVATE KEY-----", "PRIVATE KEY--")), "`PRIVATE KEY`"),
        (chain_of(&format!("-----BEGIN {}-----", "X".repeat(50))), &*format!("`{}`", "X".repeat(40))),
    ] {
        let error = Chain::admit(&pem).unwrap_err();
        assert!(error.to_string().contains(label) && error.field() == "certificate", "{error}");
    }
    assert_eq!(Chain::admit(&format!("text before\n{}{}", leaf.chain, other.chain)).as_ref(), Ok(&chain));
    let p521 = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n-----END PRIVATE KEY-----\n";
    for (key, words, field) in [
        ("", "no private key", "privateKey"),
        (leaf.chain.as_str(), "no private key", "privateKey"),
        (p521, "cannot be used", "privateKey"),
        (made(&[]).key.as_str(), "not the key of the certificate", "privateKey"),
        (other.key.as_str(), "certificate 2 of the chain: the leaf must come first", "certificate"),
    ] {
        let error = chain.with_key(key.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(words) && error.field() == field, "{error}");
    }
}

#[test]
fn a_change_costs_no_connection_its_certificate_and_the_rest_is_shared() {
    let (ring, empty) = with_keys(&[1]);
    let mut state = State::default();
    for resource in ["a", "b"] {
        let host = format!("{resource}.com");
        apply(&mut state, vec![put_certificate(resource, &document(&ring, resource, &made(&[&host]), false))]);
    }
    let first = empty.rebuilt(&state);
    let held = Arc::clone(first.certificate_for(Some("a.com")).unwrap());
    let before = state.clone();
    apply(&mut state, vec![put_certificate("a", &document(&ring, "a", &made(&["a.com"]), false))]);
    let second = first.updated(&before, &state);
    let fresh = second.certificate_for(Some("a.com")).unwrap();
    assert!(fresh.key.cert != held.key.cert && fresh.created_revision == held.created_revision && fresh.revision > held.revision);
    assert!(Arc::ptr_eq(first.certificate(&name("b")).unwrap(), second.certificate(&name("b")).unwrap()));
    let changes: Vec<_> = second.certificate_changes(&first).map(|(_, after)| after.unwrap().name.as_str()).collect();
    assert_eq!(changes, ["a"]);
    assert_eq!(second.certificate_changes(&second).count(), 0);
}

#[test]
fn a_table_of_changes_is_that_of_the_state() {
    let (ring, empty) = with_keys(&[1]);
    let resources = ["a", "b", "c", "d"];
    let hosts: [&[&str]; 5] = [&["x.com"], &["x.com", "*.x.com"], &["*.x.com", "y.com"], &[], &["y.com"]];
    let mut documents: Vec<Vec<Value>> = Vec::new();
    for resource in resources {
        let of_hosts = hosts.iter().enumerate().map(|(index, hosts)| document(&ring, resource, &made(hosts), index % 2 == 0));
        let unread = [json!({}), document(&Keyring::of_bytes(&[9]), resource, &made(&["x.com"]), true)];
        documents.push(of_hosts.chain(unread).collect());
    }
    let mut unlike = 0;
    for seed in 0..30 {
        let mut rng = Rng::with_seed(seed);
        let mut state = State::default();
        let mut snapshot = empty.rebuilt(&state);
        for _ in 0..20 {
            let before = state.clone();
            for _ in 0..rng.usize(1..3) {
                let index = rng.usize(..resources.len());
                let key = ResourceKey::new(Kind::Certificate, name(resources[index]));
                let operation = match state.get(&key).is_some() && rng.u8(..3) == 0 {
                    true => delete(resources[index]),
                    false => put_certificate(resources[index], &documents[index][rng.usize(..documents[index].len())]),
                };
                apply(&mut state, vec![operation]);
            }
            apply(
                &mut state,
                vec![put(Kind::Service, "s", &json!({"endpoints": [], "connectTimeout": format!("{}ms", rng.u16(1..))}))],
            );
            snapshot = snapshot.updated(&before, &state);
            let scratch = empty.rebuilt(&state);
            assert_eq!(snapshot.counts(), scratch.counts(), "seed {seed}");
            assert!(snapshot.not_compiled().eq(scratch.not_compiled()), "seed {seed}");
            let choices = |table: &Snapshot| {
                let asked = [None, Some("x.com"), Some("a.x.com"), Some("y.com"), Some("a.y.com")];
                asked.map(|sni| chosen(table, sni).map(str::to_owned))
            };
            assert_eq!(choices(&snapshot), choices(&scratch), "seed {seed}");
            unlike += usize::from(choices(&snapshot)[0] != choices(&snapshot)[1]);
            assert_eq!(snapshot.check(&state, None, 100), Ok(None), "seed {seed}");
        }
    }
    assert!(unlike > 100, "only {unlike} tables chose by name");
}

#[test]
fn a_certificate_that_is_not_what_it_was_made_of_is_found() {
    let (ring, empty) = with_keys(&[1]);
    let mut state = State::default();
    apply(&mut state, vec![put_certificate("a", &document(&ring, "a", &made(&["a.com", "*.a.com"]), true))]);
    let good = empty.rebuilt(&state);
    assert_eq!(good.check(&state, None, 10), Ok(None));
    assert!(empty.check(&state, None, 10).unwrap_err().contains("the certificate is missing"));
    let mut later = state.clone();
    apply(&mut later, vec![put_certificate("a", &document(&ring, "a", &made(&["a.com"]), true))]);
    assert!(good.check(&later, None, 10).unwrap_err().contains("another one"));
    assert!(good.check(&State::default(), None, 10).unwrap_err().contains("stands for 1 resources, and there are 0"));
    let mut damaged = good.clone();
    damaged.certificates.damage("a.com");
    assert!(damaged.check(&state, None, 10).unwrap_err().contains("does not lead to it"));
    // A later kind of document stays what it is.
    let unread = put_certificate("a", &json!({"later": 1}));
    apply(&mut later, vec![unread]);
    assert_eq!(empty.rebuilt(&later).check(&later, None, 10), Ok(None));
}

#[test]
fn damaged_certificates_and_keys_are_refused_and_never_a_panic() {
    let good = made(&["a.com", "*.b.com"]);
    let (chain, key) = (Chain::read(&good.chain).unwrap(), good.key.as_bytes());
    let der = |pem: &str| STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
    let pem = |label: &str, der: &[u8]| format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
    let (mut read, mut usable) = (0, 0);
    let certificate = der(&good.chain);
    for (index, bit) in (0..certificate.len()).flat_map(|index| [(index, 1), (index, 0x80)]) {
        let mut changed = certificate.clone();
        changed[index] ^= bit;
        // Whatever comes of it serves nobody else's hosts without a key that is its own.
        let Ok(changed) = Chain::read(&pem("CERTIFICATE", &changed)) else { continue };
        read += 1;
        usable += usize::from(changed.with_key(key).is_ok());
    }
    assert!(read > usable && usable > 0, "{read} read, {usable} with the key");
    for length in 0..certificate.len() {
        assert!(Chain::read(&pem("CERTIFICATE", &certificate[..length])).is_err(), "{length} bytes");
    }
    let private = der(&good.key);
    for (index, bit) in (0..private.len()).flat_map(|index| [(index, 1), (index, 0x80)]) {
        let mut changed = private.clone();
        changed[index] ^= bit;
        // The scalar and the public key are checked against each other.
        assert!(chain.with_key(pem("PRIVATE KEY", &changed).as_bytes()).is_err(), "byte {index}");
    }
}
