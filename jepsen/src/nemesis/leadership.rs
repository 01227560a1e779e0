//! Leadership that is handed over on request.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::act::{Act, Trouble};
use crate::cluster::wait_for;

const PATIENCE: Duration = Duration::from_secs(5);

/// Asks for another leader.
pub(super) async fn transfer(act: &mut Act<'_>) -> Result<(), Trouble> {
    let leader = act.leader().await?;
    let target = act.shuffled(Some(leader))[0];
    act.nodes = vec![leader, target];
    act.begin(format!("from node {leader} to node {target}"));
    let cluster = act.cluster();
    let began = Instant::now();
    let called = cluster.call(leader, Method::POST, "/v1/cluster/leader", &json!({"id": target})).await;
    let (status, body) = called.map_err(|error| Trouble::Missed(format!("{error:#}")))?;
    match status {
        200..300 => {}
        404 | 405 | 501 => return Err(Trouble::NotInjectable("this build has no membership API".to_owned())),
        _ => return Err(Trouble::Missed(format!("{status}: {}", body["detail"]))),
    }
    let leads = wait_for(PATIENCE, || async { cluster.leader().await.filter(|&now| now == target) }).await;
    if leads.is_none() {
        return Err(Trouble::Missed(format!("node {target} did not lead within {PATIENCE:?}")));
    }
    act.took_effect(format!("node {target} leads after {} ms", began.elapsed().as_millis()));
    act.hold().await;
    act.heal();
    act.healed("");
    Ok(())
}
