//! `membership`: the cluster grows, shrinks, and has members replaced, while the clients of `register` go on.
//!
//! Ids are never used again, so each spare node joins once. One change is under way at a time, and each is read back.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value as Json, json};
use tokio::process::Command;

use super::{Choice, Scene};
use crate::cluster::{Cluster, wait_for};
use crate::history::{Kind, Op, Process};

/// Nodes that may join in a test.
pub(crate) const SPARES: u32 = 4;
/// No change goes below this.
const MEMBERS_MIN: usize = 3;
/// How long a change may take, with whatever is broken meanwhile.
const CHANGE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a removed node may take to find out.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a removed node goes on before it is killed: proxied requests under way end in less.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Between two changes.
const PAUSE: Duration = Duration::from_secs(1);
/// The operator's generator comes after those of all clients.
const OPERATOR: u32 = 3_000;

/// Whether the program under test can change its membership; else what to say.
pub(crate) async fn refusal(cluster: &Cluster) -> Option<String> {
    let help = Command::new(&cluster.settings.binary).args(["serve", "--help"]).output().await;
    let knows = help.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("--join"));
    (!knows).then(|| "not injectable: this build has no membership API (`serve` has no --join)".to_owned())
}

/// What the operator does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Grow { spare: u32 },
    Shrink { member: u32 },
    Replace { member: u32, spare: u32 },
    DemoteAndPromote { member: u32 },
}

impl Change {
    fn nodes(self) -> Vec<u32> {
        match self {
            Change::Grow { spare } => vec![spare],
            Change::Shrink { member } | Change::DemoteAndPromote { member } => vec![member],
            Change::Replace { member, spare } => vec![member, spare],
        }
    }

    fn words(self) -> String {
        match self {
            Change::Grow { spare } => format!("grow by node {spare}"),
            Change::Shrink { member } => format!("shrink by node {member}"),
            Change::Replace { member, spare } => format!("replace node {member} by node {spare}"),
            Change::DemoteAndPromote { member } => format!("demote node {member} and promote it again"),
        }
    }

    /// Who is no member after it.
    fn leaves(self) -> Option<u32> {
        match self {
            Change::Shrink { member } | Change::Replace { member, .. } => Some(member),
            Change::Grow { .. } | Change::DemoteAndPromote { .. } => None,
        }
    }
}

/// Changes the membership until the test ends.
pub(super) async fn run(scene: Scene) {
    let mut choice = Choice::new(scene.seed, OPERATOR);
    let mut spares: Vec<u32> = (scene.nodes + 1..=scene.nodes + SPARES).rev().collect();
    let mut process = scene.recorder.new_process();
    while !scene.stopped() {
        scene.pause(PAUSE + choice.think()).await;
        let change = choose(&mut choice, &scene.cluster.members(), spares.last().copied());
        // What a fault has now is left alone; the next choice may be another.
        let Ok(_claim) = scene.cluster.claims.take(&change.nodes()) else { continue };
        if matches!(change, Change::Grow { .. } | Change::Replace { .. }) {
            spares.pop();
        }
        process = play(&scene, process, change).await;
    }
}

fn choose(choice: &mut Choice, members: &[u32], spare: Option<u32>) -> Change {
    let member = choice.one_of(members).unwrap_or(1);
    let (may_shrink, turn) = (members.len() > MEMBERS_MIN, choice.key(4));
    match (spare, turn) {
        (Some(spare), 0) => Change::Grow { spare },
        (Some(spare), 1 | 2) => Change::Replace { member, spare },
        _ if may_shrink && turn < 3 => Change::Shrink { member },
        _ => Change::DemoteAndPromote { member },
    }
}

/// Records the change; gives the process that goes on.
async fn play(scene: &Scene, process: Process, change: Change) -> Process {
    let op = Op::Membership { change: change.words(), leaves: change.leaves() };
    scene.recorder.invoke(process, None, op.clone());
    match make(&scene.cluster, change).await {
        Ok(()) => {
            scene.recorder.end(process, Kind::Ok, None, op, None);
            process
        }
        Err(error) => {
            scene.recorder.end(process, Kind::Info, None, op, Some(error));
            scene.recorder.new_process()
        }
    }
}

async fn make(cluster: &Cluster, change: Change) -> Result<(), String> {
    match change {
        Change::Grow { spare } => join(cluster, spare).await,
        Change::Shrink { member } => remove(cluster, member).await,
        Change::Replace { member, spare } => {
            join(cluster, spare).await?;
            remove(cluster, member).await
        }
        Change::DemoteAndPromote { member } => {
            set_role(cluster, member, "learner").await?;
            set_role(cluster, member, "voter").await
        }
    }
}

/// Starts a spare, which becomes a learner by itself, and promotes it.
async fn join(cluster: &Cluster, spare: u32) -> Result<(), String> {
    let through = cluster.members().first().copied().ok_or("there are no members")?;
    let address = cluster.node(through).peer.to_string();
    let started = cluster.start_with(spare, &["--join".to_owned(), address]).await;
    started.map_err(|error| format!("{error:#}"))?;
    // From here on it is healed and restarted as a member is.
    cluster.set_member(spare, true);
    let learns = wait_for(CHANGE_PATIENCE, || async { role(cluster, spare).await.flatten() }).await;
    learns.ok_or_else(|| format!("node {spare} did not become a learner within {CHANGE_PATIENCE:?}"))?;
    set_role(cluster, spare, "voter").await
}

async fn set_role(cluster: &Cluster, id: u32, wanted: &str) -> Result<(), String> {
    change_until(cluster, Method::PATCH, id, &json!({"role": wanted}), |role| role == Some(wanted)).await
}

/// Removes a member, sees that it knows, and stops it.
async fn remove(cluster: &Cluster, id: u32) -> Result<(), String> {
    let removed = change_until(cluster, Method::DELETE, id, &Json::Null, |role| role.is_none()).await;
    if removed.is_ok() || role(cluster, id).await == Some(None) {
        cluster.set_member(id, false);
    }
    removed?;
    let knows = wait_for(REMOVAL_PATIENCE, || async { cluster.get(id, "/readyz/control").await.is_none().then_some(()) }).await;
    // What its proxy has begun is answered; nothing new comes to one that is no member.
    tokio::time::sleep(LAST_ANSWERS).await;
    cluster.node(id).kill().await.map_err(|error| format!("{error:#}"))?;
    knows.ok_or_else(|| format!("node {id} was removed and says that its control plane is ready"))
}

/// Asks for a change until it is read back: while no leader is known, a refusal is no answer.
async fn change_until(
    cluster: &Cluster,
    method: Method,
    id: u32,
    body: &Json,
    done: impl Fn(Option<&str>) -> bool,
) -> Result<(), String> {
    let last = std::sync::Mutex::new("nobody answered".to_owned());
    let changed = wait_for(CHANGE_PATIENCE, || async {
        let through = cluster.members().into_iter().find(|&member| member != id)?;
        let asked = cluster.call(through, method.clone(), &format!("/v1/cluster/members/{id}"), body).await;
        let answer = match asked {
            Ok((status, answer)) => format!("{status} {}", answer["detail"]),
            Err(error) => format!("{error:#}"),
        };
        if let Ok(mut last) = last.lock() {
            *last = answer;
        }
        let role = role(cluster, id).await?;
        done(role.as_deref()).then_some(())
    });
    let changed = changed.await;
    let last = last.into_inner().unwrap_or_default();
    changed.ok_or_else(|| format!("{method} of member {id}: not read back within {CHANGE_PATIENCE:?}; the last answer: {last}"))
}

/// The role of a node as the leader knows it: inner none where it is no member, outer none where nobody leads.
async fn role(cluster: &Cluster, id: u32) -> Option<Option<String>> {
    let leader = cluster.leader().await?;
    let status = cluster.get(leader, "/v1/cluster").await?;
    let members = status["members"].as_array()?;
    let member = members.iter().find(|member| member["id"].as_u64() == Some(u64::from(id)));
    Some(member.and_then(|member| member["role"].as_str()).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_keep_three_members_and_use_each_spare_once() {
        for seed in 0..50 {
            let mut choice = Choice::new(seed, OPERATOR);
            let (mut members, mut spares) = (vec![1, 2, 3], vec![7, 6, 5, 4]);
            for _ in 0..40 {
                match choose(&mut choice, &members, spares.last().copied()) {
                    Change::Grow { spare } => members.push(spare),
                    Change::Shrink { member } => members.retain(|&id| id != member),
                    Change::Replace { member, spare } => {
                        members.push(spare);
                        members.retain(|&id| id != member);
                    }
                    Change::DemoteAndPromote { member } => assert!(members.contains(&member)),
                }
                spares.retain(|spare| !members.contains(spare));
                assert!(members.len() >= MEMBERS_MIN, "{members:?}");
            }
        }
    }
}
