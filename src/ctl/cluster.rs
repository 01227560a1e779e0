//! Commands under `cluster`: the members, and changes of them.

use reqwest::Method;
use serde_json::{Value, json};

use super::arguments::{ClusterCommand, Output};
use super::client::Client;
use super::print::{BAD, GOOD, WARN, out, plain, raw, styled, table};

/// One of them.
pub(super) async fn run(client: &Client, command: &ClusterCommand) -> anyhow::Result<()> {
    match *command {
        ClusterCommand::Status { output } => status(client, output).await,
        ClusterCommand::Add { ref peer_address, id } => {
            let mut body = json!({"peerAddress": peer_address});
            if let Some(id) = id {
                body["id"] = json!(id);
            }
            let answer = client.change(Method::POST, "/v1/cluster/members", Some(&body)).await?;
            done(&answer, &format!("node {} {}", plain(&answer, "id"), styled(GOOD, "is a learner")));
            Ok(())
        }
        ClusterCommand::Promote { id } => set_role(client, id, "voter").await,
        ClusterCommand::Demote { id } => set_role(client, id, "learner").await,
        ClusterCommand::Remove { id } => {
            let answer = client.change(Method::DELETE, &format!("/v1/cluster/members/{id}"), None).await?;
            done(&answer, &format!("node {id} {}; its id is never used again", styled(GOOD, "removed")));
            Ok(())
        }
        ClusterCommand::RaiseFeatureLevel { level } => {
            let answer = client.change(Method::POST, "/v1/cluster/feature-level", Some(&json!({"level": level}))).await?;
            out(format!("the cluster is at feature level {}", plain(&answer, "featureLevel")));
            Ok(())
        }
        ClusterCommand::Transfer { id } => {
            let answer = client.change(Method::POST, "/v1/cluster/leader", Some(&json!({"id": id}))).await?;
            done(&answer, &format!("node {id} {}", styled(GOOD, "leads")));
            Ok(())
        }
    }
}

async fn set_role(client: &Client, id: u64, role: &str) -> anyhow::Result<()> {
    let path = format!("/v1/cluster/members/{id}");
    let answer = client.change(Method::PATCH, &path, Some(&json!({"role": role}))).await?;
    done(&answer, &format!("node {id} {}", styled(GOOD, format!("is a {role}"))));
    Ok(())
}

/// What was done, and the members after it.
fn done(answer: &Value, what: &str) {
    out(what);
    members(answer, &plain(answer, "leader"));
}

fn members(answer: &Value, leader: &str) {
    let members = answer.get("members").and_then(Value::as_array).into_iter().flatten();
    let rows: Vec<Vec<String>> = members.map(|member| member_row(member, leader)).collect();
    table(&["ID", "ROLE", "PEERS", "ADMIN", "REVISION", "DIGEST", "LAG", "REACHABLE", "VERSION"], &rows);
}

/// `cluster status`
async fn status(client: &Client, output: Output) -> anyhow::Result<()> {
    let status = client.get("/v1/cluster").await?;
    if raw(&status, output)? {
        return Ok(());
    }
    let quorum = match status.get("quorum").and_then(Value::as_bool) {
        Some(true) => styled(GOOD, "quorum"),
        _ => styled(BAD, "no quorum"),
    };
    let leader = plain(&status, "leader");
    out(format!(
        "cluster {}, term {}, leader {leader}, {quorum} (as node {} sees it)",
        plain(&status, "clusterId"),
        plain(&status, "term"),
        plain(&status, "nodeId")
    ));
    for (key, what) in [("removed", "this node was removed"), ("diverged", "diverged"), ("storageFailed", "storage failed")] {
        if let Some(reason) = status.get(key).and_then(Value::as_str) {
            out(format!("{}: {reason}", styled(BAD, what)));
        }
    }
    if let Some(voters) = status.get("jointVoters").filter(|voters| !voters.is_null()) {
        out(format!("{}: voters {voters}", styled(WARN, "a change of the voters is under way")));
    }
    members(&status, &leader);
    divergences(&status).into_iter().for_each(out);
    Ok(())
}

/// A line for each member that holds something else than the others.
fn divergences(status: &Value) -> Vec<String> {
    let members = status.get("members").and_then(Value::as_array).into_iter().flatten();
    let line = |member: &Value| {
        let why = member.get("diverged").and_then(Value::as_str)?;
        Some(format!("node {} {}: {why}", plain(member, "id"), styled(BAD, "has diverged")))
    };
    members.filter_map(line).collect()
}

/// A member as a row. What is not known of one that was never heard is `-`.
fn member_row(member: &Value, leader: &str) -> Vec<String> {
    let id = plain(member, "id");
    let role = if id == leader { "leader".to_owned() } else { plain(member, "role") };
    let digest = plain(member, "digest").chars().take(12).collect();
    let reachable = if member.get("reachable").and_then(Value::as_bool) == Some(true) { "yes" } else { "no" };
    let [peers, admin, revision] = ["peerAddress", "adminAddress", "revision"].map(|key| plain(member, key));
    let [lag, version] = ["lagEntries", "version"].map(|key| plain(member, key));
    vec![id, role, peers, admin, revision, digest, lag, reachable.to_owned(), version]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_of_a_member_is_a_dash() {
        let heard = json!({"id": 1, "role": "voter", "peerAddress": "h:1", "adminAddress": "h:2", "version": "0.1.0", "revision": 7,
            "digest": "0123456789abcdef", "lagEntries": 0, "reachable": true});
        assert_eq!(member_row(&heard, "1"), ["1", "leader", "h:1", "h:2", "7", "0123456789ab", "0", "yes", "0.1.0"]);
        let never = json!({"id": 2, "role": "voter", "peerAddress": "h:3", "adminAddress": null, "version": null, "revision": null,
            "digest": null, "lagEntries": null, "reachable": false});
        // Nobody leads either.
        assert_eq!(member_row(&never, "-"), ["2", "voter", "h:3", "-", "-", "-", "-", "no", "-"]);
    }

    #[test]
    fn who_has_diverged_is_told() {
        let members = json!([{"id": 1, "diverged": null}, {"id": 2}, {"id": 3, "diverged": "at revision 7"}]);
        let lines: Vec<String> =
            divergences(&json!({"members": members})).iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        assert_eq!(lines, ["node 3 has diverged: at revision 7"]);
    }
}
