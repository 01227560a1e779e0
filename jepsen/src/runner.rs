//! One test from its beginning to its verdict.
//!
//! Cluster, clients, faults; then everything is healed, the recovery is timed, every key is used once more at every node; then the
//! checkers judge. What goes wrong in the suite itself is an error here; what the gateway does wrong is a verdict.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::sync::watch;

use crate::backend::Backend;
use crate::client::put_service;
use crate::cluster::{Cluster, Settings, wait_for};
use crate::history::{Event, Kind, Op};
use crate::nemesis::{self, Fault, Plan, Stage};
use crate::record::Recorder;
use crate::request::{self, Request};
use crate::terminal::say;
use crate::test::{Outcome, Results, Test, Verdict, Workload};
use crate::workload::{self, Scene};
use crate::{check, report, routes};

/// How long a new cluster may take to form.
const FORM_PATIENCE: Duration = Duration::from_secs(60);
/// How long a healed cluster may take to recover.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(60);
/// The last faults are healed in less after the end of their time: the longest wait for a snapshot.
const FAULTS_PATIENCE: Duration = Duration::from_secs(150);
/// Operations go on for so long after the last fault.
const AFTERMATH: Duration = Duration::from_secs(2);
/// Clients end their operation under way in less.
const CLIENTS_PATIENCE: Duration = Duration::from_secs(20);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// Where a test runs.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) settings: Settings,
    pub(crate) store: PathBuf,
}

/// What came of a test.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) results: Results,
    pub(crate) directory: PathBuf,
    pub(crate) history: Vec<Event>,
    /// Faults that cannot be injected here, and why.
    pub(crate) not_injectable: Vec<(Fault, String)>,
}

/// Runs a test and writes all its files.
pub(crate) async fn run(request: &Request, ground: &Ground) -> anyhow::Result<Finished> {
    let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string().replace(':', "");
    let directory = ground.store.join(request.name()).join(time);
    std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    request.save(&directory)?;
    say!("{}", request.arguments());
    say!("results in {}", directory.display());
    let mut settings = ground.settings.clone();
    settings.nodes = request.nodes;
    settings.spares = if request.workload == "membership" { workload::membership::SPARES } else { 0 };
    settings.logs.clone_from(&directory);
    settings.scratch = ground.settings.scratch.join(directory.file_name().context("a directory with a name")?);
    if !request.nemesis.iter().any(|name| name == Fault::ClockJump.name()) {
        settings.faketime = None;
    }
    let cluster = Arc::new(Cluster::create(settings).await.context("prepare the cluster")?);
    let played = play(request, &cluster).await;
    let failed = !matches!(&played, Ok(played) if played.wrong.is_empty());
    if failed {
        // Whoever looks into it wants the data as it was.
        keep_data(&cluster, &directory).await;
    }
    cluster.destroy().await?;
    std::fs::remove_dir_all(&cluster.settings.scratch).context("remove the cluster's files")?;
    let played = played?;
    let test = Test {
        workload: request::workload(&request.workload).map_err(anyhow::Error::msg)?,
        nemeses: request.nemesis.iter().filter(|name| *name != "none").cloned().collect(),
        nodes: request.nodes,
        seconds: request.time,
        seed: request.seed,
        isolation: ground.settings.isolation.name().to_owned(),
        command: format!("cargo run --release -p raftgate-jepsen -- {}", request.arguments()),
    };
    let mut results = check::judge(&test, &played.history);
    results.verdicts.push(played.verdict());
    results.verdicts.extend(played.membership(test.workload));
    if let Some(recovery) = played.recovery {
        results.numbers.push(("final-recovery-seconds".to_owned(), recovery.as_secs_f64()));
    }
    report::write(&directory, &test, &played.history, &results)?;
    Ok(Finished { results, directory, history: played.history, not_injectable: played.not_injectable })
}

/// What happened in a test.
#[derive(Debug)]
struct Played {
    history: Vec<Event>,
    /// From the end of the healing to one leader and one table.
    recovery: Option<Duration>,
    /// What the gateway did wrong, as the runner and the faults saw it.
    wrong: Vec<String>,
    not_injectable: Vec<(Fault, String)>,
    /// Why the membership did not change, where it should have.
    no_changes: Option<String>,
}

impl Played {
    /// The verdict of what the runner itself looked at.
    fn verdict(&self) -> Verdict {
        let detail = match (self.wrong.as_slice(), self.recovery) {
            ([], Some(recovery)) => format!("recovered in {} ms; every key can be used at every node", recovery.as_millis()),
            (wrong, _) => wrong.join("; "),
        };
        let outcome = if self.wrong.is_empty() { Outcome::Pass } else { Outcome::Fail };
        Verdict { name: "final".to_owned(), outcome, detail }
    }
}

impl Played {
    /// Whether the membership was changed as the workload of that name must: at least once.
    fn membership(&self, workload: Workload) -> Option<Verdict> {
        let changes = self.history.iter().filter(|event| matches!(event.op, Op::Membership { .. }));
        let (ok, unknown): (Vec<&Event>, Vec<&Event>) =
            changes.filter(|event| event.kind != Kind::Invoke).partition(|event| event.kind == Kind::Ok);
        let errors = unknown.iter().filter_map(|event| event.error.as_deref()).collect::<Vec<_>>().join("; ");
        let (outcome, detail) = match &self.no_changes {
            Some(reason) => (Outcome::NotTested, reason.clone()),
            None if ok.is_empty() => (Outcome::Fail, format!("no change of membership was made: {errors}")),
            None => (Outcome::Pass, format!("{} changes made, {} not read back: {errors}", ok.len(), unknown.len())),
        };
        (workload == Workload::Membership).then(|| Verdict { name: "membership".to_owned(), outcome, detail })
    }
}

async fn play(request: &Request, cluster: &Arc<Cluster>) -> anyhow::Result<Played> {
    let workload = request::workload(&request.workload).map_err(anyhow::Error::msg)?;
    for id in cluster.members() {
        cluster.start(id).await?;
    }
    if let Err(missing) = cluster.wait_recovered(FORM_PATIENCE).await {
        let wrong = vec![format!("the cluster did not form within {FORM_PATIENCE:?}: {missing}")];
        return Ok(Played { history: Vec::new(), recovery: None, wrong, not_injectable: Vec::new(), no_changes: None });
    }
    let mut backends = Vec::new();
    for name in routes::services() {
        let backend = Backend::start(name, &cluster.suite_host).await?;
        put_service(cluster, &backend.name, &backend.address.to_string()).await?;
        backends.push(backend);
    }
    let recorder = Arc::new(Recorder::new());
    let (stop_clients, clients_stop) = watch::channel(false);
    let (stop_faults, faults_stop) = watch::channel(false);
    let changes = match workload {
        Workload::Membership => workload::membership::refusal(cluster).await,
        _ => None,
    };
    let scene = Scene {
        cluster: Arc::clone(cluster),
        recorder: Arc::clone(&recorder),
        workload,
        seed: request.seed,
        nodes: request.nodes,
        spares: if changes.is_none() { cluster.settings.spares } else { 0 },
        backends: Arc::new(backends),
        stop: clients_stop,
    };
    let stage = Stage::new(Scene { stop: faults_stop, ..scene.clone() });
    let (plan, mut not_injectable) = plan(request, &scene)?;
    workload::initial_writes(&scene).await?;
    let mut clients = workload::start(&scene)?;
    let faults = tokio::time::timeout(Duration::from_secs(request.time) + FAULTS_PATIENCE, nemesis::play(&stage, plan));
    let end = async {
        watch_progress(&recorder, Duration::from_secs(request.time)).await;
        stop_faults.send_replace(true);
    };
    let (faults, ()) = tokio::join!(faults, end);
    let mut stuck = None;
    match faults {
        Ok(played) => played?,
        Err(_) => stuck = Some(format!("a fault was not healed within {FAULTS_PATIENCE:?} of the end of the test")),
    }
    tokio::time::sleep(AFTERMATH).await;
    stop_clients.send_replace(true);
    let ended = tokio::time::timeout(CLIENTS_PATIENCE, async {
        while let Some(client) = clients.join_next().await {
            client.context("a client")?;
        }
        anyhow::Ok(())
    });
    ended.await.context("clients do not end")??;
    let notes = stage.notes();
    for line in notes.seen {
        say!("  {line}");
    }
    not_injectable.extend(notes.not_injectable);
    let mut wrong = notes.wrong;
    wrong.extend(stuck);
    let recovery = conclude(&scene, &mut wrong).await?;
    Ok(Played { history: recorder.events(), recovery, wrong, not_injectable, no_changes: changes })
}

/// The plan without what cannot be injected here, and that, with the reasons.
fn plan(request: &Request, scene: &Scene) -> anyhow::Result<(Plan, Vec<(Fault, String)>)> {
    let named: Vec<Fault> = request.nemesis.iter().filter_map(|name| Fault::by_name(name)).collect();
    let refused = named.iter().filter_map(|&fault| nemesis::refusal(fault, scene).map(|reason| (fault, reason)));
    let refused: Vec<(Fault, String)> = refused.collect();
    for (fault, reason) in &refused {
        say!("  not injectable: {}: {reason}", fault.name());
    }
    let usable = |fault| nemesis::refusal(fault, scene).is_none();
    Ok((Plan::new(&request.nemesis, request.seed, Duration::from_secs(request.time), usable)?, refused))
}

/// Heals everything, times the recovery, and uses every key at every node.
async fn conclude(scene: &Scene, wrong: &mut Vec<String>) -> anyhow::Result<Option<Duration>> {
    let cluster = &scene.cluster;
    cluster.network.heal().await?;
    for id in cluster.members() {
        let node = cluster.node(id);
        if node.runs().await {
            // Harmless to one that is not stopped.
            node.signal(Signal::CONT).await?;
        } else {
            cluster.start(id).await?;
        }
    }
    let healed = Instant::now();
    for id in cluster.members() {
        if let Some(words) = ends_at_once(cluster, id).await {
            wrong.push(format!("node {id} does not run any more: {words}"));
            return Ok(None);
        }
    }
    if let Err(missing) = cluster.wait_recovered(RECOVERY_PATIENCE).await {
        wrong.push(format!("no recovery within {RECOVERY_PATIENCE:?} of the healing: {missing}"));
        return Ok(None);
    }
    let recovery = healed.elapsed();
    wrong.extend(workload::proves_each_key(scene).await?);
    if let Err(missing) = cluster.wait_recovered(RECOVERY_PATIENCE).await {
        wrong.push(format!("after the last writes: {missing}"));
    }
    wrong.extend(workload::looks_at_each_node(scene).await?);
    Ok(Some(recovery))
}

/// What a node said before it ended, if it does not come up.
async fn ends_at_once(cluster: &Cluster, id: u32) -> Option<String> {
    let node = cluster.node(id);
    let up = wait_for(RECOVERY_PATIENCE, || async {
        if !node.runs().await {
            return Some(false);
        }
        cluster.get(id, "/v1/cluster").await.map(|_| true)
    });
    (up.await == Some(false)).then(|| node.last_words())
}

/// A line every few seconds until the test's time is over.
async fn watch_progress(recorder: &Recorder, length: Duration) {
    let mut told = 0;
    loop {
        let left = length.saturating_sub(recorder.elapsed());
        tokio::time::sleep(left.min(PROGRESS)).await;
        let events = recorder.events();
        for event in &events[told..] {
            if let Op::Fault { name, nodes, heals, detail } = &event.op
                && event.kind != Kind::Invoke
            {
                let what = if *heals { "healed" } else { "broke " };
                let error = event.error.as_deref().map(|error| format!("failed: {error}")).unwrap_or_default();
                say!("  {:6.1} s {what} {name} {nodes:?} {detail}{error}", event.time as f64 / 1e9);
            }
        }
        told = events.len();
        let counts = recorder.counts();
        say!("  {:6.1} s {} ok, {} failed, {} unknown", recorder.elapsed().as_secs_f64(), counts.ok, counts.fail, counts.info);
        if left.is_zero() {
            return;
        }
    }
}

/// Copies what the nodes' disks hold beside the logs. Whatever cannot be copied is left out.
async fn keep_data(cluster: &Cluster, directory: &Path) {
    for node in &cluster.nodes {
        if node.runs().await && node.kill().await.is_err() {
            continue;
        }
        let kept = directory.join(format!("node{}.data", node.id));
        if let Err(error) = crate::cluster::shell::run("cp", &[Path::new("-a"), &node.data(), &kept]).await {
            say!("  the data of node {} is not kept: {error:#}", node.id);
        }
    }
}
