//! `certs`: a CA, and the certificates that it signs, as files in one directory. No node is asked.
//!
//! A certificate is renewed by making it again (`--force`) and putting the new files in the place of the old: running nodes look at theirs.
//! Each file is written beside the old one and renamed over it, so that nobody reads half of it; the key first, for a node that reads the two
//! in between finds that they do not fit, and waits for the other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::arguments::{CertsArguments, CertsCommand};
use super::print::{STRONG, out, styled};
use crate::tls::{Authority, Issued, Subject};

/// Of keys: nobody but the owner.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// The two files of a certificate.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn new(dir: &Path, name: &str) -> Pair {
        Pair { certificate: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}-key.pem")) }
    }

    /// Refuses to replace what is there, unless it is wanted.
    fn check_free(&self, force: bool) -> anyhow::Result<()> {
        let taken = [&self.certificate, &self.key].into_iter().find(|path| !force && path.exists());
        taken.map_or(Ok(()), |path| bail!("{} is there already: --force replaces it and its key", path.display()))
    }

    fn write(&self, issued: &Issued) -> anyhow::Result<()> {
        write(&self.key, issued.key.as_bytes(), KEY_MODE)?;
        write(&self.certificate, issued.certificate.as_bytes(), CERTIFICATE_MODE)
    }

    /// What was made, and until when it holds.
    fn tell(&self, issued: &Issued) {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        out(format!("{certificate} and {key}, valid until {}", styled(STRONG, issued.validity)));
    }
}

pub(super) fn run(command: &CertsCommand) -> anyhow::Result<()> {
    match command {
        CertsCommand::Ca { common, days } => make_authority(common, *days),
        CertsCommand::Node { id, hosts, cluster, common, days } => {
            let subject = Subject::Node { cluster, id: *id, hosts };
            let pair = issue(common, &format!("node{id}"), subject, *days)?;
            out(for_node(*id, cluster, &common.dir, &pair));
            Ok(())
        }
        CertsCommand::Client { name, common, days } => {
            let pair = issue(common, &format!("client-{name}"), Subject::Caller(name), *days)?;
            out(for_caller(&common.dir, &pair));
            Ok(())
        }
    }
}

fn make_authority(common: &CertsArguments, days: u32) -> anyhow::Result<()> {
    let pair = Pair::new(&common.dir, "ca");
    pair.check_free(common.force)?;
    fs::create_dir_all(&common.dir).with_context(|| format!("directory {}", common.dir.display()))?;
    let issued = Authority::create(days)?;
    pair.write(&issued)?;
    pair.tell(&issued);
    out(format!(
        "Every node gets {}. Keep {} to yourself: whoever has it can make nodes of this cluster.\nNext: raftgate certs node 1 --host \
         NAME_OR_IP",
        pair.certificate.display(),
        pair.key.display()
    ));
    Ok(())
}

fn issue(common: &CertsArguments, name: &str, subject: Subject<'_>, days: u32) -> anyhow::Result<Pair> {
    let pair = Pair::new(&common.dir, name);
    pair.check_free(common.force)?;
    let ca = Pair::new(&common.dir, "ca");
    let read = |path: &Path| {
        let text = fs::read_to_string(path).map(zeroize::Zeroizing::new);
        text.with_context(|| format!("file {}: `raftgate certs ca` makes it, --dir says where", path.display()))
    };
    let authority = Authority::load(&read(&ca.certificate)?, &read(&ca.key)?);
    let authority = authority.with_context(|| format!("{} and {}", ca.certificate.display(), ca.key.display()))?;
    let issued = authority.issue(subject, days)?;
    pair.write(&issued)?;
    pair.tell(&issued);
    Ok(pair)
}

/// What to put into a node's configuration.
fn for_node(id: u64, cluster: &str, dir: &Path, pair: &Pair) -> String {
    let (ca, cert, key) = (dir.join("ca.pem"), &pair.certificate, &pair.key);
    format!(
        "The configuration of the node, which needs these two files and {}:\n\nnode_id = {id}\n[cluster]\nname = {cluster:?}\ntls = {{ ca = \
         {ca:?}, cert = {cert:?}, key = {key:?} }}\n[admin]\ntls = {{ cert = {cert:?}, key = {key:?}, client_ca = {ca:?} }}\n\nThe same \
         command with --force renews it; a running node takes the new files by itself.",
        ca.display()
    )
}

/// How to call with it.
fn for_caller(dir: &Path, pair: &Pair) -> String {
    let (ca, cert, key) = (dir.join("ca.pem"), pair.certificate.display(), pair.key.display());
    format!(
        "To call with it:\n\nraftgate --server https://HOST:9081 --ca {} --cert {cert} --key {key} cluster status\n\nRAFTGATE_SERVER, \
         RAFTGATE_CA, RAFTGATE_CERT and RAFTGATE_KEY say the same.",
        ca.display()
    )
}

/// Writes a file, whole or not at all.
fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let written = write_new(&temporary, bytes, mode).and_then(|()| fs::rename(&temporary, path));
    written.with_context(|| format!("file {}", path.display()))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // What a call that was cut off left behind; its mode may be another.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn common(dir: &Path, force: bool) -> CertsArguments {
        CertsArguments { dir: dir.to_owned(), force }
    }

    fn node(dir: &Path, hosts: &[&str], force: bool) -> anyhow::Result<()> {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        run(&CertsCommand::Node { id: 1, hosts, cluster: "test".to_owned(), common: common(dir, force), days: 30 })
    }

    #[test]
    fn nothing_is_replaced_without_force_and_keys_are_for_their_owner() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().join("certs");
        let missing = node(&dir, &["10.0.0.1"], false).unwrap_err();
        assert!(format!("{missing:#}").contains("`raftgate certs ca` makes it"), "{missing:#}");
        let ca = |force| run(&CertsCommand::Ca { common: common(&dir, force), days: 30 });
        ca(false).unwrap();
        node(&dir, &["10.0.0.1", "gate.example"], false).unwrap();
        run(&CertsCommand::Client { name: "alice".to_owned(), common: common(&dir, false), days: 30 }).unwrap();
        let key = fs::read_to_string(dir.join("node1-key.pem")).unwrap();
        for refused in [ca(false).unwrap_err(), node(&dir, &["10.0.0.1"], false).unwrap_err()] {
            assert!(refused.to_string().contains("is there already: --force"), "{refused}");
        }
        assert_eq!(fs::read_to_string(dir.join("node1-key.pem")).unwrap(), key);
        node(&dir, &["10.0.0.1"], true).unwrap();
        assert_ne!(fs::read_to_string(dir.join("node1-key.pem")).unwrap(), key);
        let mut names: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let expected = ["ca-key.pem", "ca.pem", "client-alice-key.pem", "client-alice.pem", "node1-key.pem", "node1.pem"];
        assert_eq!(names, expected);
        for name in names.iter().filter(|name| name.ends_with("-key.pem")) {
            assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn what_cannot_stand_in_a_certificate_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        run(&CertsCommand::Ca { common: common(dir, false), days: 30 }).unwrap();
        for host in ["10.0.0.1:7081", "", "a..b", "https://gate"] {
            let refused = node(dir, &[host], false).unwrap_err();
            assert!(refused.to_string().contains(&format!("\"{host}\" is no host name")), "{refused}");
        }
        let client = |name: &str| run(&CertsCommand::Client { name: name.to_owned(), common: common(dir, false), days: 30 });
        assert!(client("../alice").is_err() && client("a b").is_err() && client("").is_err());
        // A key of another CA.
        let other = tempfile::tempdir().unwrap();
        run(&CertsCommand::Ca { common: common(other.path(), false), days: 30 }).unwrap();
        fs::copy(other.path().join("ca-key.pem"), dir.join("ca-key.pem")).unwrap();
        let refused = node(dir, &["10.0.0.1"], false).unwrap_err();
        assert!(format!("{refused:#}").contains("the CA's key is not that of its certificate"), "{refused:#}");
    }
}
