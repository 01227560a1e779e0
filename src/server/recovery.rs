//! `raftgate recover`: from a configuration to [`crate::store`]'s recovery, and the words for it.

use std::fmt;
use std::net::SocketAddr;

use crate::config::NodeConfig;
use crate::store::{self, ClusterId, LogId, Member, Recovered, RecoveryError, Survivor, SurvivorReport};

/// What became of a recovery.
#[derive(Debug, Clone)]
pub enum Recovery {
    /// There is a new cluster.
    Done(Recovered),
    /// One that was cut off is finished now.
    Finished(ClusterId),
    /// Nobody agreed to it: nothing was changed.
    Declined,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recovery::Done(Recovered { cluster_id, kept }) => {
                writeln!(f, "recovered as cluster {cluster_id}; the old data directory is kept as {}", kept.display())?;
            }
            Recovery::Finished(cluster_id) => writeln!(f, "a recovery that was cut off is finished: cluster {cluster_id}")?,
            Recovery::Declined => return f.write_str("not confirmed: nothing was changed"),
        }
        f.write_str("start the node with `raftgate serve`, and other nodes, empty, with `raftgate serve --join`")
    }
}

/// Makes a new cluster of one node from the stopped node of `config`, if `agree` does when it has read what was found. Blocks.
///
/// # Errors
///
/// The data directory is in use, damaged or of no use, or `agree` failed. Nothing is ever removed; running it again goes on.
pub fn recover<E>(config: &NodeConfig, agree: impl FnOnce(&str) -> Result<bool, E>) -> Result<Recovery, E>
where
    E: From<RecoveryError>,
{
    if let Some(cluster_id) = store::finish_interrupted(&config.data_dir)? {
        return Ok(Recovery::Finished(cluster_id));
    }
    let survivor = Survivor::examine(&config.data_dir, config.node_id, &config.cluster.name)?;
    if !agree(&describe(survivor.report()))? {
        return Ok(Recovery::Declined);
    }
    let (peer_address, admin_address) = addresses(config, survivor.report().identity.node_id, survivor.own());
    Ok(Recovery::Done(survivor.found_cluster(peer_address, admin_address)?))
}

/// Where the node is reached, as the configuration says; a port that is taken anew at each start only the old membership knows.
fn addresses(config: &NodeConfig, node_id: u64, own: Option<&Member>) -> (String, String) {
    let bound = |address: SocketAddr, old: Option<&String>| match old {
        Some(old) if address.port() == 0 => old.clone(),
        _ => address.to_string(),
    };
    let cluster = &config.cluster;
    let configured = cluster.advertise.as_ref().or_else(|| cluster.initial_members.get(&node_id)).cloned();
    let peer = configured.unwrap_or_else(|| bound(cluster.peer_address, own.map(|own| &own.peer_address)));
    let admin = config.admin.advertise.clone();
    let admin = admin.unwrap_or_else(|| bound(config.admin.address, own.map(|own| &own.admin_address)));
    (peer, admin)
}

/// What a person must know before agreeing.
fn describe(report: &SurvivorReport) -> String {
    let show = |log_id: Option<LogId>| {
        log_id.map_or_else(|| "none".to_owned(), |id| format!("term {}, index {}", id.leader_id.term, id.index))
    };
    let identity = &report.identity;
    let voters: Vec<String> = report.voters.iter().map(|(id, member)| format!("{id} ({})", member.peer_address)).collect();
    let mut lines = vec![
        format!("node {} of cluster {:?} ({})", identity.node_id, identity.cluster_name, identity.cluster_id),
        format!("  voters:          {}", voters.join(", ")),
        format!("  last entry:      {}", show(report.last)),
        format!("  known committed: {} (revision {})", show(report.committed), report.committed_revision),
        format!("  revision:        {} with {} resources", report.revision, report.resource_count),
        String::new(),
        "This makes a new cluster, with a new id, whose only member is this node. It is for when the majority's disks are lost for good."
            .to_owned(),
        "- Lost is what the others committed and this node had not received. No disk that is left can tell whether there is any: recover \
         the survivor whose last entry is the highest, by term and then by index."
            .to_owned(),
    ];
    lines.push(match report.uncommitted_count() {
        0 => "- Every entry of its log is known to be committed.".to_owned(),
        count => format!(
            "- {count} entries become committed that this disk does not know to be committed (revision {} to {}). Some may have been \
             answered as failed or unknown.",
            report.committed_revision, report.revision
        ),
    });
    lines.push(
        "- The other members do not belong to the new cluster and are refused. They must stay stopped: together they might still be a \
         majority of the old one."
            .to_owned(),
    );
    lines.push("- The data directory as it is now is kept beside the new one.".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Revision;
    use crate::store::{Identity, Incarnation, LeaderId};

    #[test]
    fn the_description_says_what_is_at_stake() {
        let log_id = |term, index| Some(LogId::new(LeaderId { term, node_id: 2 }, index));
        let identity = Identity {
            cluster_id: ClusterId([7; 16]),
            cluster_name: "shop".to_owned(),
            node_id: 3,
            incarnation: Incarnation([8; 16]),
        };
        let mut report = SurvivorReport {
            identity,
            voters: BTreeMap::from([(3, Member { peer_address: "h:3".to_owned(), ..Member::default() })]),
            committed: log_id(4, 10),
            committed_revision: Revision(8),
            last: log_id(5, 12),
            revision: Revision(9),
            resource_count: 6,
        };
        let text = describe(&report);
        let words = [
            "node 3 of cluster \"shop\"",
            "3 (h:3)",
            "term 5, index 12",
            "term 4, index 10 (revision 8)",
            "9 with 6 resources",
            "2 entries become committed",
            "revision 8 to 9",
            "Lost is",
            "kept",
        ];
        for word in words {
            assert!(text.contains(word), "{word:?} is not in\n{text}");
        }
        report.committed = report.last;
        assert!(describe(&report).contains("Every entry of its log is known to be committed"));
    }
}
