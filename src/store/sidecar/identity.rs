//! Who this data directory is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::sync_directory;
use crate::model::NodeId;
use crate::store::codec::{seal, unseal};
use crate::store::types::{ClusterId, Incarnation};

const VERSION: u8 = 1;
const CONTEXT: &[u8] = b"identity";

/// What a data directory belongs to. Written before the node's first vote and never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, by the random id of its bootstrap.
    pub cluster_id: ClusterId,
    /// The cluster, by its configured name.
    pub cluster_name: String,
    /// The node.
    pub node_id: NodeId,
    /// The data directory.
    pub incarnation: Incarnation,
}

#[derive(Serialize, Deserialize)]
struct DiskIdentity {
    cluster_id: [u8; 16],
    cluster_name: String,
    node_id: NodeId,
    incarnation: [u8; 16],
}

/// The identity file: absent until the node belongs to a cluster.
#[derive(Debug)]
pub struct IdentityFile {
    path: PathBuf,
    identity: Option<Identity>,
}

impl IdentityFile {
    /// Reads the file in `directory`. Blocks.
    pub(crate) fn open(directory: &Path) -> io::Result<IdentityFile> {
        let path = directory.join("identity");
        let identity = match fs::read(&path) {
            Ok(bytes) => Some(decode(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(IdentityFile { path, identity })
    }

    /// The identity, once there is one.
    pub fn get(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Writes the identity; durable when this returns. Writing the same again does nothing, another one is refused. Blocks.
    pub fn write(&mut self, identity: Identity) -> io::Result<()> {
        match &self.identity {
            Some(present) if *present == identity => return Ok(()),
            Some(present) => return Err(io::Error::other(format!("the data directory is already {present:?}"))),
            None => {}
        }
        let disk = DiskIdentity {
            cluster_id: identity.cluster_id.0,
            cluster_name: identity.cluster_name.clone(),
            node_id: identity.node_id,
            incarnation: identity.incarnation.0,
        };
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&seal(VERSION, CONTEXT, &disk)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        sync_directory(self.path.parent().unwrap_or(Path::new(".")))?;
        self.identity = Some(identity);
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> io::Result<Identity> {
    let disk: DiskIdentity = unseal(VERSION, CONTEXT, bytes)?;
    Ok(Identity {
        cluster_id: ClusterId(disk.cluster_id),
        cluster_name: disk.cluster_name,
        node_id: disk.node_id,
        incarnation: Incarnation(disk.incarnation),
    })
}
