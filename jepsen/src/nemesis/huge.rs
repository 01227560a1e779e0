//! One change of 10,000 routes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value as Json, json};

use super::act::{Act, Trouble};
use crate::cluster::{Cluster, wait_for};

/// As many operations as one transaction may have (`/v1/transactions`); the bytes stay below its other limit, 4 MiB.
const ROUTES: u32 = 10_000;
/// The gateway's greatest deadline.
const CALL_PATIENCE: Duration = Duration::from_secs(30);
/// How long after the acknowledgement all members serve the change.
const LIVE_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at the memory.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);
/// What a node's resident memory may grow by while it proposes, appends, applies and publishes the change. A debug build was seen to
/// grow by 52 MiB.
const GROWTH_MAX_KIB: u64 = 128 * 1024;

/// Makes the routes and removes them, while each node's memory is watched.
pub(super) async fn change(act: &mut Act<'_>) -> Result<(), Trouble> {
    let cluster = act.cluster();
    act.nodes = cluster.members();
    let Some(&through) = act.shuffled(None).first() else { return Err(Trouble::Missed("no members".to_owned())) };
    let put = transaction("put");
    act.begin(format!("{ROUTES} routes in one transaction of {} bytes, through node {through}", put.to_string().len()));
    let before = resident(cluster).await?;
    let others = routes(cluster, through).await.unwrap_or_default();
    let mut peak = before.clone();
    let made = watched(cluster, &mut peak, apply(cluster, through, &put, |count| count >= u64::from(ROUTES))).await;
    if let Ok(took) = &made {
        act.took_effect(format!("{others} routes before; all members serve {ROUTES} more after {} ms", took.as_millis()));
        act.hold().await;
        act.heal();
    }
    // An unknown outcome may have made them.
    let removed =
        watched(cluster, &mut peak, apply(cluster, through, &transaction("delete"), |count| count < u64::from(ROUTES))).await;
    made?;
    let took = removed?;
    let growths = growths(&before, &peak);
    if let Some((id, growth)) = growths.iter().find(|(_, growth)| **growth > GROWTH_MAX_KIB) {
        let (growth, most) = (growth / 1024, GROWTH_MAX_KIB / 1024);
        return Err(Trouble::Product(format!("the memory of node {id} grew by {growth} MiB, more than {most} MiB")));
    }
    act.healed(format!("removed after {} ms; KiB resident before {before:?}, growth at most {growths:?}", took.as_millis()));
    Ok(())
}

/// Puts or deletes all routes.
fn transaction(op: &str) -> Json {
    let operation = |n: u32| {
        let name = format!("huge-{n:05}");
        let spec = json!({
            "hostnames": [format!("{name}.test")],
            "rules": [{"backendRefs": [{"name": crate::history::backend_of(u64::from(n))}]}],
        });
        let mut operation = json!({"op": op, "kind": "Route", "name": name});
        if op == "put" {
            operation["spec"] = spec;
        }
        operation
    };
    json!({"operations": (0..ROUTES).map(operation).collect::<Vec<_>>()})
}

/// Sends a transaction, and waits until every member's table has as many routes as it says. Gives how long that took.
async fn apply(cluster: &Cluster, through: u32, transaction: &Json, is_there: impl Fn(u64) -> bool) -> Result<Duration, Trouble> {
    let began = Instant::now();
    let called = cluster.call_within(through, Method::POST, "/v1/transactions", transaction, CALL_PATIENCE).await;
    let (status, body) = called.map_err(|error| Trouble::Missed(format!("{error:#}")))?;
    if !(200..300).contains(&status) {
        return Err(Trouble::Missed(format!("{status}: {}", body["detail"])));
    }
    for id in cluster.members() {
        let live = wait_for(LIVE_PATIENCE, || async { routes(cluster, id).await.filter(|&count| is_there(count)) }).await;
        if live.is_none() {
            return Err(Trouble::Product(format!("node {id} does not serve the change {LIVE_PATIENCE:?} after it was made")));
        }
    }
    Ok(began.elapsed())
}

/// How many routes a node serves.
async fn routes(cluster: &Cluster, id: u32) -> Option<u64> {
    cluster.get(id, "/v1/table").await?["routes"].as_u64()
}

/// Keeps each node's most resident memory while something is done.
async fn watched<T>(cluster: &Cluster, peak: &mut BTreeMap<u32, u64>, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(SAMPLE_INTERVAL, work.as_mut()).await {
            Ok(done) => return done,
            Err(_) => {
                for (id, now) in resident(cluster).await.unwrap_or_default() {
                    let most = peak.entry(id).or_insert(now);
                    *most = now.max(*most);
                }
            }
        }
    }
}

/// The resident memory of each member that runs, in KiB.
async fn resident(cluster: &Cluster) -> anyhow::Result<BTreeMap<u32, u64>> {
    let mut found = BTreeMap::new();
    for id in cluster.members() {
        let Some(pid) = cluster.node(id).pid().await else { continue };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = resident_kib(&status);
        found.insert(id, resident.ok_or_else(|| anyhow::anyhow!("/proc/{pid}/status does not tell the resident memory"))?);
    }
    Ok(found)
}

fn resident_kib(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}

fn growths(before: &BTreeMap<u32, u64>, peak: &BTreeMap<u32, u64>) -> BTreeMap<u32, u64> {
    before.iter().map(|(id, kib)| (*id, peak.get(id).map_or(0, |most| most.saturating_sub(*kib)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_change_is_as_large_as_one_may_be() {
        let put = transaction("put");
        assert_eq!(put["operations"].as_array().map(Vec::len), Some(10_000));
        assert!(put.to_string().len() < 4 * 1024 * 1024);
        assert!(transaction("delete")["operations"][0].get("spec").is_none());
    }

    #[test]
    fn memory_is_read_and_its_growth_is_of_the_peak() {
        assert_eq!(resident_kib("Name:\tx\nVmHWM:\t  99 kB\nVmRSS:\t   1234 kB\n"), Some(1234));
        assert_eq!(resident_kib("Name:\tx\n"), None);
        let (before, peak) = (BTreeMap::from([(1, 100), (2, 100), (3, 100)]), BTreeMap::from([(1, 150), (2, 90)]));
        assert_eq!(growths(&before, &peak), BTreeMap::from([(1, 50), (2, 0), (3, 0)]));
    }
}
