//! Identities that tests make for themselves, and what comes of their handshakes.

mod files;
mod handshakes;

use std::fs;
use std::path::{Path, PathBuf};

use super::{AdminFiles, Authority, ClientFiles, Issued, PeerFiles, PeerTls, Subject};
use crate::model::NodeId;

/// A CA, and a directory of what it signed.
pub(crate) struct Pki {
    directory: tempfile::TempDir,
    authority: Authority,
}

impl Pki {
    pub(crate) fn new() -> Pki {
        let directory = tempfile::tempdir().unwrap();
        let issued = Authority::create(30).unwrap();
        write(directory.path(), "ca", &issued);
        Pki { authority: Authority::load(&issued.certificate, &issued.key).unwrap(), directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes the certificate of a node, in the place of one that was there.
    pub(crate) fn node(&self, cluster: &str, id: NodeId, hosts: &[&str]) -> PeerFiles {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        self.sign(&format!("node{id}"), Subject::Node { cluster, id, hosts: &hosts }, 30)
    }

    /// Makes the certificate of a caller, and gives it in the place of a node's.
    pub(crate) fn caller(&self, name: &str) -> PeerFiles {
        self.sign(name, Subject::Caller(name), 30)
    }

    fn sign(&self, file: &str, subject: Subject<'_>, days: u32) -> PeerFiles {
        let (cert, key) = write(self.directory.path(), file, &self.authority.issue(subject, days).unwrap());
        PeerFiles { ca: self.path("ca.pem"), cert, key }
    }

    /// A node of the cluster `test` on 127.0.0.1.
    pub(crate) fn peer(&self, id: NodeId) -> PeerTls {
        PeerTls::load(self.node("test", id, &["127.0.0.1"]), "test").unwrap()
    }

    /// The admin API of a node on 127.0.0.1, which asks for certificates of this CA.
    pub(crate) fn admin(&self) -> AdminFiles {
        let PeerFiles { ca, cert, key } = self.node("test", 1, &["127.0.0.1", "localhost"]);
        AdminFiles { cert, key, client_ca: Some(ca) }
    }

    /// A client that knows this CA, and shows a certificate for `name`.
    pub(crate) fn client(&self, name: Option<&str>) -> ClientFiles {
        let identity = name.map(|name| self.caller(name)).map(|files| (files.cert, files.key));
        ClientFiles { ca: Some(self.path("ca.pem")), system: false, identity }
    }
}

fn write(dir: &Path, name: &str, issued: &Issued) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}-key.pem")));
    fs::write(&cert, &issued.certificate).unwrap();
    fs::write(&key, &*issued.key).unwrap();
    (cert, key)
}
