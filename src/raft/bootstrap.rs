//! Forming a new cluster (`api.md`, section 6).
//!
//! Every member of the configured list is asked, again and again, who it is. The steps, each of which can be cut short by a crash and
//! goes on from what is on disk:
//!
//! 1. All answer, are empty, and report the same hash of (name, members).
//! 2. The lowest id makes the cluster's id and syncs its identity {cluster id, own incarnation}.
//! 3. The others see that, adopt the id and sync theirs. From then on their incarnation is fixed.
//! 4. The lowest id, once all have adopted, writes the first membership with the incarnations that they report, and the vote begins.
//!
//! Nobody votes before its identity is on disk, for the Raft core starts only then. A member that already belongs to a formed cluster
//! ends the attempt: a wiped directory must not come back under its old id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::identity::PROTOCOL;
use super::peers::{CallError, Peer, call};
use super::server::VERSION;
use super::shared::{Raft, Shared};
use super::wire;
use crate::model::NodeId;
use crate::observe::KnownBug;
use crate::pb::peer as pb;
use crate::store::{ClusterId, Incarnation, Member};

const POLL_INTERVAL: Duration = Duration::from_millis(100);
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
/// Polls between two lines in the log that say what is waited for.
const POLLS_A_NOTE: u32 = 50;

/// Of the cluster's name and its initial members, so that nodes of another configuration are found out.
pub(super) fn members_hash(name: &str, members: &BTreeMap<NodeId, String>) -> Bytes {
    let mut hasher = Sha256::new();
    let mut add = |part: &[u8]| {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    add(name.as_bytes());
    for (id, address) in members {
        add(&id.to_le_bytes());
        add(address.as_bytes());
    }
    Bytes::copy_from_slice(&hasher.finalize())
}

/// What a member says of itself.
#[derive(Debug, Clone)]
struct Hello {
    /// Who answers; another than was asked for only where it belongs to a formed cluster.
    node_id: NodeId,
    cluster_id: Option<ClusterId>,
    incarnation: Incarnation,
    members_hash: Bytes,
    formed: bool,
    admin_address: String,
}

/// What the answers of all members allow.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Not yet, because of this.
    Wait(String),
    /// Never, because of this.
    Stop(String),
    /// Make the cluster's id.
    Found,
    /// Take over the cluster's id from the lowest.
    Adopt(ClusterId),
}

impl Shared {
    pub(super) fn hello(&self) -> pb::HelloResponse {
        pb::HelloResponse {
            node_id: self.node_id(),
            cluster_id: self.identity.cluster_id().map(|id| Bytes::copy_from_slice(&id.0)).unwrap_or_default(),
            incarnation: Bytes::copy_from_slice(&self.identity.incarnation().0),
            members_hash: self.members_hash.clone(),
            formed: self.is_formed(),
            version: VERSION.to_owned(),
            admin_address: self.admin_address.clone(),
            protocol: PROTOCOL,
        }
    }

    /// What every other initial member says, or why it says nothing.
    async fn hellos(&self) -> BTreeMap<NodeId, Result<Hello, String>> {
        let others = self.initial_members.iter().filter(|&(&id, _)| id != self.node_id());
        let asked = others.map(|(&id, address)| async move { (id, self.ask_hello(id, address).await) });
        join_all(asked).await.into_iter().collect()
    }

    /// Asks who is there. A receiver of 0 stands for whoever answers.
    pub(super) async fn say_hello(&self, peer: &Peer, receiver: NodeId) -> Result<pb::HelloResponse, CallError> {
        let request = pb::HelloRequest { sender: self.node_id(), receiver, protocol: PROTOCOL };
        let mut client = peer.control();
        call(HELLO_TIMEOUT, client.hello(request)).await
    }

    async fn ask_hello(&self, id: NodeId, address: &str) -> Result<Hello, String> {
        let peer = self.peers.get(id, address).map_err(|error| error.to_string())?;
        let answer = self.say_hello(&peer, id).await.map_err(|error| error.to_string())?;
        // A list from before members were replaced names addresses where others are now.
        let is_member = answer.formed && !answer.cluster_id.is_empty();
        if answer.node_id != id && !is_member {
            return Err(format!("node {} answers at {address}", answer.node_id));
        }
        if answer.protocol != PROTOCOL {
            return Err(format!("it speaks protocol {}, this node {PROTOCOL}", answer.protocol));
        }
        Ok(Hello {
            node_id: answer.node_id,
            cluster_id: wire::read_cluster_id(&answer.cluster_id).map_err(|error| error.to_string())?,
            incarnation: wire::read_incarnation(&answer.incarnation).map_err(|error| error.to_string())?,
            members_hash: answer.members_hash,
            formed: answer.formed,
            admin_address: answer.admin_address,
        })
    }

    fn lowest(&self) -> Option<NodeId> {
        self.initial_members.keys().next().copied()
    }
}

/// How long a new cluster may take to agree on its first feature level.
const FIRST_LEVEL_DEADLINE: Duration = Duration::from_secs(30);
const FIRST_LEVEL_PAUSE: Duration = Duration::from_millis(20);

/// Asks until the cluster's id is known; `Err` says why that will never be. The caller syncs the identity, then starts Raft.
pub(super) async fn find_cluster(shared: &Shared) -> Result<ClusterId, String> {
    let mut polls = 0;
    loop {
        let hellos = shared.hellos().await;
        let lowest = shared.lowest().ok_or("cluster.initial_members is empty")?;
        match next_step(shared.node_id(), lowest, &shared.members_hash, &hellos) {
            Step::Stop(reason) => return Err(reason),
            Step::Found => return Ok(ClusterId::random()),
            Step::Adopt(id) => return Ok(id),
            Step::Wait(reason) => note(&mut polls, &reason),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn note(polls: &mut u32, reason: &str) {
    if polls.is_multiple_of(POLLS_A_NOTE) {
        tracing::info!(reason, "the cluster is not formed yet");
    }
    *polls += 1;
}

fn next_step(own: NodeId, lowest: NodeId, hash: &Bytes, hellos: &BTreeMap<NodeId, Result<Hello, String>>) -> Step {
    for (id, hello) in hellos {
        let Ok(hello) = hello else { continue };
        if let Some(cluster) = hello.cluster_id.filter(|_| hello.formed) {
            if KnownBug::IdReuse.is_on() {
                return Step::Adopt(cluster);
            }
            let who = match hello.node_id {
                other if other != *id => format!("node {other}, at the address of member {id},"),
                _ => format!("member {id}"),
            };
            return Step::Stop(format!(
                "{who} already belongs to cluster {cluster}: start this node with an empty data directory under a new id and \
                 join it (serve --join ADDRESS, with cluster.initial_members taken out of its configuration); if node {own} was a member, \
                 remove it first (raftgate cluster remove {own})"
            ));
        }
        if let Some(cluster) = hello.cluster_id.filter(|_| own == lowest) {
            return Step::Stop(format!(
                "member {id} has adopted cluster {cluster}, which this node does not know: its data directory was lost while the \
                 cluster was formed; empty the data directories of all members and start again"
            ));
        }
    }
    for (id, hello) in hellos {
        match hello {
            Err(reason) if own == lowest || *id == lowest => return Step::Wait(format!("member {id}: {reason}")),
            Ok(hello) if hello.members_hash != hash => {
                return Step::Wait(format!("member {id} has another cluster.name or cluster.initial_members"));
            }
            _ => {}
        }
    }
    if own == lowest {
        return Step::Found;
    }
    match hellos.get(&lowest) {
        Some(Ok(Hello { cluster_id: Some(id), .. })) => Step::Adopt(*id),
        _ => Step::Wait(format!("member {lowest} waits for the others")),
    }
}

/// Writes the first membership once every member has adopted `cluster`, unless somebody shows that this happened before.
pub(super) async fn form(shared: &Arc<Shared>, raft: &Raft, cluster: ClusterId) {
    let mut polls = 0;
    while !shared.is_formed() {
        let hellos = shared.hellos().await;
        match first_membership(shared, cluster, &hellos) {
            Ok(members) => match raft.initialize(members).await {
                Ok(()) => {
                    tracing::info!(%cluster, "cluster formed");
                    return raise_first_level(shared).await;
                }
                Err(error) => note(&mut polls, &error.to_string()),
            },
            Err(reason) => note(&mut polls, &reason),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// A new cluster begins at the highest level of features that all its members know: nobody can go back behind its first version.
async fn raise_first_level(shared: &Arc<Shared>) {
    let deadline = Instant::now() + FIRST_LEVEL_DEADLINE;
    loop {
        match shared.raise_to_common_level(deadline).await {
            Ok(level) => return tracing::info!(level, "feature level of the new cluster"),
            Err(error) if Instant::now() >= deadline => {
                return tracing::warn!(%error, "feature level not raised: use `raftgate cluster raise-feature-level`");
            }
            Err(_) => tokio::time::sleep(FIRST_LEVEL_PAUSE).await,
        }
    }
}

fn first_membership(
    shared: &Shared,
    cluster: ClusterId,
    hellos: &BTreeMap<NodeId, Result<Hello, String>>,
) -> Result<BTreeMap<NodeId, Member>, String> {
    let mut members = BTreeMap::new();
    for (&id, address) in &shared.initial_members {
        let (incarnation, admin_address) = if id == shared.node_id() {
            (shared.identity.incarnation(), shared.admin_address.clone())
        } else {
            match hellos.get(&id) {
                None => return Err(format!("member {id} was not asked")),
                Some(Err(reason)) => return Err(format!("member {id}: {reason}")),
                Some(Ok(hello)) if hello.formed => return Err(format!("member {id} knows a membership already")),
                Some(Ok(hello)) if hello.cluster_id != Some(cluster) => {
                    return Err(format!("member {id} has not adopted cluster {cluster}"));
                }
                Some(Ok(hello)) => (hello.incarnation, hello.admin_address.clone()),
            }
        };
        members.insert(id, Member { peer_address: address.clone(), admin_address, incarnation });
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(cluster: Option<u8>, formed: bool, hash: &'static [u8]) -> Result<Hello, String> {
        Ok(Hello {
            node_id: 0,
            cluster_id: cluster.map(|byte| ClusterId([byte; 16])),
            incarnation: Incarnation([9; 16]),
            members_hash: Bytes::from_static(hash),
            formed,
            admin_address: String::new(),
        })
    }

    #[test]
    fn the_steps_follow_from_what_the_others_say() {
        let away = || Err("refused".to_owned());
        let empty = || hello(None, false, b"h");
        // own id, what the two others say, what follows
        let cases = [
            (1, (2, empty()), (3, empty()), "found"),
            (1, (2, empty()), (3, away()), "wait"),
            (1, (2, empty()), (3, hello(None, false, b"other")), "wait"),
            (1, (2, hello(Some(7), false, b"h")), (3, empty()), "stop"),
            (1, (2, hello(Some(7), true, b"h")), (3, away()), "stop"),
            (2, (1, empty()), (3, empty()), "wait"),
            (2, (1, hello(Some(7), false, b"h")), (3, away()), "adopt"),
            (2, (1, hello(Some(7), false, b"other")), (3, empty()), "wait"),
            (2, (1, hello(Some(7), true, b"h")), (3, empty()), "stop"),
            (2, (1, away()), (3, hello(Some(7), false, b"h")), "wait"),
            (2, (1, away()), (3, hello(Some(7), true, b"h")), "stop"),
        ];
        for (own, (first, one), (second, two), expected) in cases {
            let hellos = BTreeMap::from([(first, one), (second, two)]);
            let step = next_step(own, 1, &Bytes::from_static(b"h"), &hellos);
            let found = match &step {
                Step::Wait(_) => "wait",
                Step::Stop(_) => "stop",
                Step::Found => "found",
                Step::Adopt(id) => {
                    assert_eq!(*id, ClusterId([7; 16]));
                    "adopt"
                }
            };
            assert_eq!(found, expected, "node {own}: {hellos:?} gave {step:?}");
        }
        assert_eq!(next_step(4, 4, &Bytes::new(), &BTreeMap::new()), Step::Found, "a cluster of one");
    }

    #[test]
    fn the_hash_tells_names_and_members_apart() {
        let members = |address: &str| BTreeMap::from([(1, address.to_owned())]);
        let hash = members_hash("a", &members("h:1"));
        assert_ne!(hash, members_hash("b", &members("h:1")));
        assert_ne!(hash, members_hash("a", &members("h:2")));
        assert_eq!(hash, members_hash("a", &members("h:1")));
    }
}
