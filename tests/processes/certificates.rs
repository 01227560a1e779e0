//! Certificates as people make them: by the program, as files, copied to where a node reads them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raftgate::tls::{ClientFiles, client_config};
use reqwest::{Client, ClientBuilder};

use crate::harness::bare;

/// Runs `raftgate certs`, which must succeed; gives what it said.
pub(crate) fn certs(arguments: &[&str]) -> String {
    let output = bare(env!("CARGO_BIN_EXE_raftgate")).arg("certs").args(arguments).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "certs {arguments:?}: {text}");
    text
}

/// A CA and what it signed, in a directory.
pub(crate) struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// A new CA, and the certificate of a caller named `tester`.
    pub(crate) fn create(dir: PathBuf) -> Authority {
        let name = dir.to_str().unwrap().to_owned();
        certs(&["ca", "--dir", &name]);
        certs(&["client", "tester", "--dir", &name]);
        Authority { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn ca(&self) -> String {
        fs::read_to_string(self.path("ca.pem")).unwrap()
    }

    /// Makes a node's certificate anew, and puts it where the node reads it.
    pub(crate) fn certify(&self, id: usize, host: &str, tls: &Path) {
        certs(&["node", &id.to_string(), "--host", host, "--cluster", "test", "--force", "--dir", self.dir.to_str().unwrap()]);
        for (from, to) in [(format!("node{id}-key.pem"), "node-key.pem"), (format!("node{id}.pem"), "node.pem")] {
            replace(&tls.join(to), &fs::read_to_string(self.path(&from)).unwrap());
        }
    }

    /// Calls of HTTPS as `tester`, or as nobody.
    pub(crate) fn client(&self, is_known: bool) -> Client {
        let identity = is_known.then(|| (self.path("client-tester.pem"), self.path("client-tester-key.pem")));
        let files = ClientFiles { ca: Some(self.path("ca.pem")), system: false, identity };
        builder(&files).timeout(Duration::from_secs(20)).build().unwrap()
    }

    /// The command line's settings for the same.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("RAFTGATE_CA", self.path("ca.pem")),
            ("RAFTGATE_CERT", self.path("client-tester.pem")),
            ("RAFTGATE_KEY", self.path("client-tester-key.pem")),
        ]
    }
}

/// Calls of HTTP and HTTPS. The library knows no provider of cryptography by itself.
pub(crate) fn builder(files: &ClientFiles) -> ClientBuilder {
    Client::builder().tls_backend_preconfigured(client_config(files).unwrap()).no_proxy()
}

/// Replaces a file as a whole.
pub(crate) fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// The keys of a configuration for a node whose files stand in `tls`, by section: the peers' and the admin API's.
pub(crate) fn settings(tls: &Path) -> (String, String) {
    let [ca, cert, key] = ["ca.pem", "node.pem", "node-key.pem"].map(|name| tls.join(name));
    let peer = format!("tls = {{ ca = {ca:?}, cert = {cert:?}, key = {key:?} }}\n");
    (peer, format!("tls = {{ cert = {cert:?}, key = {key:?}, client_ca = {ca:?} }}\n"))
}
