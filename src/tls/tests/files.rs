//! Files that cannot be used, and files that change.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair};

use super::Pki;
use crate::tls::names::{caller_of, node_of};
use crate::tls::{AdminTls, PeerFiles, PeerTls, Validity};

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_key_and_the_fix() {
    let (pki, other) = (Pki::new(), Pki::new());
    let good = pki.node("test", 1, &["127.0.0.1"]);
    let file = |name: &str, text: &str| {
        let path = pki.path(name);
        fs::write(&path, text).unwrap();
        path
    };
    let cut: String = fs::read_to_string(&good.cert).unwrap().chars().take(200).collect();
    let script = [
        (PeerFiles { ca: pki.path("none.pem"), ..good.clone() }, "ca", "none.pem: cannot be read: No such file"),
        (PeerFiles { ca: file("text.pem", "hello"), ..good.clone() }, "ca", "has no certificate in PEM"),
        (PeerFiles { cert: file("cut.pem", &cut), ..good.clone() }, "cert", "is not PEM"),
        (PeerFiles { cert: file("long.pem", &"x".repeat(1024 * 1024 + 1)), ..good.clone() }, "cert", "bytes long"),
        (PeerFiles { cert: good.key.clone(), ..good.clone() }, "cert", "has no certificate in PEM"),
        (PeerFiles { key: good.cert.clone(), ..good.clone() }, "key", "has no private key in PEM"),
        (
            PeerFiles { key: other.node("test", 1, &["127.0.0.1"]).key, ..good.clone() },
            "key",
            "is not the key of the certificate in",
        ),
        (pki.caller("alice"), "cert", "names no node: it lacks the URI raftgate://test/node/N"),
        (
            pki.node("blue", 2, &["127.0.0.1"]),
            "cert",
            "is for raftgate://blue/node/2, and cluster.name asks for raftgate://test/",
        ),
    ];
    for (files, key, expected) in script {
        let error = PeerTls::load(files, "test").unwrap_err();
        let message = error.to_string();
        assert!(error.key == key && message.contains(expected), "{key}, {expected}\n  gave {}: {message}", error.key);
    }
    let mut admin = pki.admin();
    admin.client_ca = Some(pki.path("none.pem"));
    assert_eq!(AdminTls::load(admin).unwrap_err().key, "client_ca");
}

#[test]
fn changed_files_take_effect_once_they_fit() {
    let pki = Pki::new();
    let files = pki.node("test", 1, &["127.0.0.1"]);
    let peer = PeerTls::load(files.clone(), "test").unwrap();
    assert!(!peer.renew().unwrap(), "nothing changed");
    let old_key = fs::read(&files.key).unwrap();
    let before = peer.validity();

    // The new certificate is there, and its key not yet.
    pki.sign("node1", super::Subject::Node { cluster: "test", id: 1, hosts: &["127.0.0.1".to_owned()] }, 60);
    let new_key = fs::read(&files.key).unwrap();
    replace(&files.key, &old_key);
    assert!(peer.renew().unwrap_err().to_string().contains("is not the key of the certificate"));
    assert_eq!(peer.validity(), before);
    assert!(!peer.renew().unwrap(), "what failed is not read again before it changes");
    replace(&files.key, &new_key);
    assert!(peer.renew().unwrap());
    assert!(peer.validity().ends_at > before.ends_at);

    // Of another node.
    let other = pki.node("test", 2, &["127.0.0.1"]);
    replace(&files.cert, &fs::read(other.cert).unwrap());
    replace(&files.key, &fs::read(other.key).unwrap());
    assert!(peer.renew().unwrap_err().to_string().contains("is for node 2, and this is node 1"));
    assert_eq!(peer.node_id(), 1);
}

/// As whoever renews certificates does it.
fn replace(path: &std::path::Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn names_are_taken_from_where_they_stand() {
    let named = |common: Option<&str>, names: &[&str]| {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(rcgen::DnType::CommonName, common);
        }
        let alternative = |name: &&str| match name.contains("://") {
            true => rcgen::SanType::URI((*name).try_into().unwrap()),
            false => rcgen::SanType::DnsName((*name).try_into().unwrap()),
        };
        params.subject_alt_names = names.iter().map(alternative).collect();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    };
    for (common, names, expected) in [
        (Some("alice"), &["a.example"][..], Some("alice")),
        (None, &["a.example"], Some("a.example")),
        (Some("Alice Adams"), &["spiffe://x/alice"], Some("spiffe://x/alice")),
        (Some(""), &[], None),
        (None, &[], None),
    ] {
        let caller = caller_of(&named(common, names));
        assert_eq!(caller.as_ref().map(|name| &*name.0), expected, "{common:?} {names:?}");
    }
    for (names, expected) in [
        (&["raftgate://test/node/7", "a.example", "spiffe://x"][..], Ok(7)),
        (&["raftgate://test/node/0"], Err("asks for raftgate://test/node/N")),
        (&["raftgate://test/node/07"], Err("asks for")),
        (&["raftgate://test/node/"], Err("asks for")),
        (&["raftgate://test/node/1/x"], Err("asks for")),
        (&["raftgate://tes/node/1"], Err("is for raftgate://tes/node/1")),
        (&["raftgate://test/node/1", "raftgate://test/node/2"], Err("is for several nodes")),
        (&["spiffe://test/node/1"], Err("names no node")),
    ] {
        match (node_of(&named(None, names), "test"), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{names:?}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{names:?}: {found}"),
            (found, expected) => panic!("{names:?} gave {found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_certificate_is_spoken_of_before_its_end() {
    let day = 86_400;
    let year = Validity { begins_at: 0, ends_at: 365 * day };
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap());
    let concern = |validity: Validity, now: SystemTime| validity.concern(now).unwrap_or_default();
    assert_eq!(concern(year, at(350 * day)), "");
    assert!(concern(year, at(352 * day)).contains("expires at 1971-01-01T00:00:00Z: renew it"));
    assert!(concern(year, at(365 * day)).contains("expired at"));
    // One of a day is not spoken of all day.
    let short = Validity { begins_at: 1000, ends_at: 1000 + day };
    assert_eq!(concern(short, at(1000 + day / 2)), "");
    assert!(concern(short, at(999)).contains("is the clock right?"));
}
