//! One test from its beginning to its verdict.
//!
//! Cluster, clients, faults; then everything is healed, the recovery is timed, every key is used once more at every node; then the
//! checkers judge. What goes wrong in the suite itself is an error here; what the gateway does wrong is a verdict. Each part has a bound.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::sync::watch;

use crate::backend::Backend;
use crate::canary::Canary;
use crate::client::put_service;
use crate::cluster::isolation::Isolation;
use crate::cluster::{Cluster, Settings, wait_for};
use crate::history::{Event, Kind, Op};
use crate::injectable;
use crate::journal::Journal;
use crate::nemesis::{self, Fault, Plan, Stage};
use crate::phases::Phases;
use crate::record::Recorder;
use crate::request::{self, Circumstances, Request};
use crate::terminal::say;
use crate::test::{Outcome, Results, Test, Verdict, Workload};
use crate::workload::{self, Scene};
use crate::{check, report, routes};

/// How long a new cluster may take to form.
const FORM_PATIENCE: Duration = Duration::from_secs(60);
/// How long all may take before the first fault.
const SETUP_PATIENCE: Duration = Duration::from_secs(90);
/// How long a healed cluster may take to recover.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(60);
/// The last faults are healed in less after the end of their time: the longest wait for a snapshot.
const FAULTS_PATIENCE: Duration = Duration::from_secs(150);
/// Operations go on for so long after the last fault.
const AFTERMATH: Duration = Duration::from_secs(2);
/// Clients end their operation under way in less.
const CLIENTS_PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to heal everything and to see each node answer or end.
const HEAL_PATIENCE: Duration = Duration::from_secs(90);
/// How long a started node may take to its first answer.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long the last writes and reads may take.
const FINAL_PATIENCE: Duration = Duration::from_secs(90);
/// How long it may take to end all processes and to give the disks back.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
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
    let mut ground = ground.clone();
    if request.is_of_connections() && ground.settings.isolation != Isolation::Loopback {
        ground.settings.isolation = Isolation::Loopback;
        say!("{} is done to connections: nodes have loopback addresses and a TCP proxy for each link", request.nemesis.join(","));
    }
    let Settings { binary, other_binary, isolation, environment, .. } = ground.settings.clone();
    let (binary, isolation) = (Some(binary), Some(isolation.into()));
    request.save(&directory, Circumstances { binary, other_binary, isolation, environment })?;
    let test = Test {
        workload: request::workload(&request.workload).map_err(anyhow::Error::msg)?,
        nemeses: request.nemesis.iter().filter(|name| *name != "none").cloned().collect(),
        nodes: request.nodes,
        seconds: request.time,
        seed: request.seed,
        isolation: ground.settings.isolation.name().to_owned(),
        command: format!("cargo run --release -p raftgate-jepsen -- replay {}", directory.display()),
    };
    report::write_test(&directory, &test)?;
    say!("{}", request.arguments());
    say!("results in {}", directory.display());
    let not_injectable = injectable::refused(request, &ground.settings, test.workload);
    if !not_injectable.is_empty() {
        let results = Results { verdicts: vec![injectable::not_run(&not_injectable)], numbers: Vec::new() };
        report::write_results(&directory, &test, &results)?;
        return Ok(Finished { results, directory, history: Vec::new(), not_injectable });
    }
    let mut settings = ground.settings.clone();
    settings.nodes = request.nodes;
    settings.spares = if request.workload == "membership" { workload::membership::SPARES } else { 0 };
    settings.logs.clone_from(&directory);
    settings.scratch = ground.settings.scratch.join(directory.file_name().context("a directory with a name")?);
    if !request.nemesis.iter().any(|name| name == Fault::ClockJump.name()) {
        settings.faketime = None;
    }
    let cluster = Arc::new(Cluster::create(settings).await.context("prepare the cluster")?);
    let mut phases = Phases::default();
    let recorder = Arc::new(Recorder::new());
    let mut journal = Journal::create(&directory, &recorder)?;
    let canary = Canary::start(&recorder)?;
    let played = tokio::select! {
        played = play(request, &cluster, &recorder, &mut phases) => played,
        error = journal.keep() => Err(error),
    };
    // Whoever looks into a failure wants the data as it was.
    let kept = (!played.as_ref().is_ok_and(Played::passed)).then_some(directory.as_path());
    let stopped = phases.run("stop", STOP_PATIENCE, stop(&cluster, kept)).await;
    let scratch = cluster.settings.scratch.clone();
    drop(cluster);
    let played = played?;
    if stopped.transpose()?.is_some() {
        std::fs::remove_dir_all(&scratch).context("remove the cluster's files")?;
    }
    let mut verdicts = vec![played.verdict(), played.nodes(), phases.verdict()];
    verdicts.extend(played.membership(test.workload, &recorder.events()));
    recorder.finish(|before| Op::End { verdicts, stalls: canary.stalls(), seal: Some(report::seal(before)) });
    journal.catch_up()?;
    let history = recorder.events();
    let mut results = check::judge(&test, &history);
    if let Some(recovery) = played.recovery {
        results.numbers.push(("final-recovery-seconds".to_owned(), recovery.as_secs_f64()));
    }
    report::write(&directory, &test, &history, &results)?;
    Ok(Finished { results, directory, history, not_injectable: played.not_injectable })
}

/// What happened in a test.
#[derive(Debug, Default)]
struct Played {
    /// From the end of the healing to one leader and one table.
    recovery: Option<Duration>,
    /// What the gateway did wrong, as the runner and the faults saw it.
    wrong: Vec<String>,
    /// Nodes that refused to start, or ended, where no fault explains it, with their last words.
    ended: Vec<String>,
    not_injectable: Vec<(Fault, String)>,
    /// Why the membership did not change, where it should have.
    no_changes: Option<String>,
}

impl Played {
    /// The verdict of what the runner itself looked at.
    fn verdict(&self) -> Verdict {
        let (outcome, detail) = match (self.wrong.as_slice(), self.recovery) {
            ([], Some(recovery)) => {
                (Outcome::Pass, format!("recovered in {} ms; every key can be used at every node", recovery.as_millis()))
            }
            ([], None) => (Outcome::Fail, "it did not come to the last writes and reads".to_owned()),
            (wrong, _) => (Outcome::Fail, wrong.join("; ")),
        };
        Verdict { name: report::FINAL.to_owned(), outcome, detail }
    }

    /// Whether all nodes live that a fault does not excuse.
    fn nodes(&self) -> Verdict {
        let (outcome, detail) = match self.ended.as_slice() {
            [] => (Outcome::Pass, "no node ended by itself".to_owned()),
            ended => (Outcome::Fail, ended.join("; ")),
        };
        Verdict { name: report::NODES.to_owned(), outcome, detail }
    }

    /// Whether the runner saw nothing wrong.
    fn passed(&self) -> bool {
        self.verdict().outcome == Outcome::Pass && self.ended.is_empty()
    }

    /// Whether the membership was changed as the workload of that name must: at least once.
    fn membership(&self, workload: Workload, history: &[Event]) -> Option<Verdict> {
        let changes = history.iter().filter(|event| matches!(event.op, Op::Membership { .. }));
        let (ok, unknown): (Vec<&Event>, Vec<&Event>) =
            changes.filter(|event| event.kind != Kind::Invoke).partition(|event| event.kind == Kind::Ok);
        let errors = unknown.iter().filter_map(|event| event.error.as_deref()).collect::<Vec<_>>().join("; ");
        let (outcome, detail) = match &self.no_changes {
            Some(reason) => (Outcome::NotTested, reason.clone()),
            None if ok.is_empty() => (Outcome::Fail, format!("no change of membership was made: {errors}")),
            None => (Outcome::Pass, format!("{} changes made, {} not read back: {errors}", ok.len(), unknown.len())),
        };
        (workload == Workload::Membership).then(|| Verdict { name: report::MEMBERSHIP.to_owned(), outcome, detail })
    }
}

async fn play(
    request: &Request,
    cluster: &Arc<Cluster>,
    recorder: &Arc<Recorder>,
    phases: &mut Phases,
) -> anyhow::Result<Played> {
    let (stop_clients, clients_stop) = watch::channel(false);
    let (stop_faults, faults_stop) = watch::channel(false);
    let mut played = Played::default();
    let setup = set_up(request, cluster, recorder, clients_stop);
    let (scene, changes) = match phases.run("setup", SETUP_PATIENCE, setup).await.transpose()? {
        Some(Ok(prepared)) => prepared,
        unprepared => {
            played.wrong.extend(unprepared.and_then(Result::err));
            played.ended = ended_nodes(cluster).await;
            return Ok(played);
        }
    };
    played.no_changes = changes;
    let stage = Stage::new(Scene { stop: faults_stop, ..scene.clone() });
    let usable = |fault| nemesis::refusal(fault, &cluster.settings, scene.workload).is_none();
    let plan = Plan::new(&request.nemesis, request.seed, Duration::from_secs(request.time), usable)?;
    let mut clients = workload::start(&scene)?;
    let length = Duration::from_secs(request.time);
    let faults = phases.run("faults", length + FAULTS_PATIENCE, nemesis::play(&stage, plan));
    let end = async {
        watch_progress(recorder, length).await;
        stop_faults.send_replace(true);
    };
    let (faults, ()) = tokio::join!(faults, end);
    faults.transpose()?;
    tokio::time::sleep(AFTERMATH).await;
    stop_clients.send_replace(true);
    let ended = phases.run("clients", CLIENTS_PATIENCE, async {
        while let Some(client) = clients.join_next().await {
            client.context("a client")?;
        }
        anyhow::Ok(())
    });
    ended.await.transpose()?;
    // Those that did not end.
    clients.shutdown().await;
    let notes = stage.notes();
    for line in notes.seen {
        say!("  {line}");
    }
    played.not_injectable = notes.not_injectable;
    played.wrong = notes.wrong;
    played.ended = notes.ended;
    conclude(&scene, phases, &mut played).await?;
    Ok(played)
}

/// The cluster forms, and every route is written once. Gives also why the membership cannot be changed, where it should be. The inner
/// error is what the gateway did not do.
async fn set_up(
    request: &Request,
    cluster: &Arc<Cluster>,
    recorder: &Arc<Recorder>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Result<(Scene, Option<String>), String>> {
    let workload = request::workload(&request.workload).map_err(anyhow::Error::msg)?;
    for id in cluster.members() {
        cluster.start(id).await?;
    }
    if let Err(missing) = cluster.wait_recovered(FORM_PATIENCE).await {
        return Ok(Err(format!("the cluster did not form within {FORM_PATIENCE:?}: {missing}")));
    }
    let mut backends = Vec::new();
    for name in routes::services() {
        let backend = Backend::start(name, &cluster.suite_host).await?;
        put_service(cluster, &backend.name, &backend.address.to_string()).await?;
        backends.push(backend);
    }
    let changes = match workload {
        Workload::Membership => workload::membership::refusal(cluster).await,
        _ => None,
    };
    recorder.begin();
    let scene = Scene {
        cluster: Arc::clone(cluster),
        recorder: Arc::clone(recorder),
        workload,
        seed: request.seed,
        nodes: request.nodes,
        spares: if changes.is_none() { cluster.settings.spares } else { 0 },
        backends: Arc::new(backends),
        added: Arc::default(),
        stop,
    };
    Ok(match workload::initial_writes(&scene).await? {
        None => Ok((scene, changes)),
        Some(refused) => Err(refused),
    })
}

/// Heals everything, times the recovery, and uses every key at every node that runs.
async fn conclude(scene: &Scene, phases: &mut Phases, played: &mut Played) -> anyhow::Result<()> {
    let cluster = &scene.cluster;
    let Some(ended) = phases.run("heal", HEAL_PATIENCE, heal(cluster)).await.transpose()? else { return Ok(()) };
    let healed = Instant::now();
    // Those of a fault were told with its name.
    let untold = |told: &String| !played.ended.iter().any(|known| known.ends_with(told.as_str()));
    let ended: Vec<String> = ended.into_iter().filter(untold).collect();
    played.ended.extend(ended);
    for id in cluster.members() {
        if !cluster.node(id).runs().await {
            // The rest has to go on without it.
            cluster.set_member(id, false);
        }
    }
    if cluster.members().is_empty() {
        return Ok(());
    }
    if let Err(missing) = cluster.wait_recovered(RECOVERY_PATIENCE).await {
        phases.was_late("recovery", RECOVERY_PATIENCE, &missing);
        return Ok(());
    }
    let recovery = healed.elapsed();
    let finals = phases.run("final reads", FINAL_PATIENCE, async {
        let mut wrong = workload::proves_each_key(scene).await?;
        if let Err(missing) = cluster.wait_recovered(RECOVERY_PATIENCE).await {
            wrong.push(format!("after the last writes: {missing}"));
        }
        wrong.extend(workload::looks_at_each_node(scene).await?);
        anyhow::Ok(wrong)
    });
    if let Some(wrong) = finals.await.transpose()? {
        played.wrong.extend(wrong);
        played.recovery = Some(recovery);
    }
    Ok(())
}

/// Mends what faults have left, and starts every member that does not run. Gives all that ended by themselves so far.
async fn heal(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    cluster.network.heal().await?;
    for id in cluster.members() {
        let node = cluster.node(id);
        if node.runs().await {
            // Harmless to one that is not stopped.
            node.signal(Signal::CONT).await?;
        }
        node.disk.mend().await?;
        if node.disk.is_image() && node.disk.is_dead() {
            if node.runs().await {
                node.kill().await?;
            }
            node.disk.unmount().await?;
            node.disk.mount().await?;
        }
        if !node.runs().await {
            cluster.start(id).await?;
        }
    }
    for id in cluster.members() {
        let node = cluster.node(id);
        // One that neither answers nor ends is the recovery's affair.
        wait_for(START_PATIENCE, || async {
            (!node.runs().await || cluster.get(id, "/v1/cluster").await.is_some()).then_some(())
        })
        .await;
    }
    Ok(ended_nodes(cluster).await)
}

/// What of the members ended although nothing of the suite ended it, also where it was started again since; with its last words.
async fn ended_nodes(cluster: &Cluster) -> Vec<String> {
    let mut ended = Vec::new();
    for id in cluster.members() {
        ended.extend(cluster.node(id).ends_by_itself().await);
    }
    ended
}

/// Ends the cluster, and keeps its data where that is asked for.
async fn stop(cluster: &Cluster, kept: Option<&Path>) -> anyhow::Result<()> {
    if let Some(directory) = kept {
        keep_data(cluster, directory).await;
    }
    cluster.destroy().await
}

/// A line every few seconds until the test's time is over.
async fn watch_progress(recorder: &Recorder, length: Duration) {
    let mut told = 0;
    loop {
        let left = length.saturating_sub(recorder.elapsed());
        tokio::time::sleep(left.min(PROGRESS)).await;
        let events = recorder.events_from(told);
        for event in &events {
            if let Op::Fault { name, nodes, heals, detail } = &event.op
                && event.kind != Kind::Invoke
            {
                let what = if *heals { "healed" } else { "broke " };
                let error = event.error.as_deref().map(|error| format!("failed: {error}")).unwrap_or_default();
                say!("  {:6.1} s {what} {name} {nodes:?} {detail}{error}", event.time as f64 / 1e9);
            }
        }
        told += events.len();
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
