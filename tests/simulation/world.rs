//! One run: three hosts, the faults of the seed, then peace, and the judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use raftgate::model::NodeId;
use serde::{Deserialize, Serialize};
use turmoil::{Builder, Sim};

use crate::disk::{Disk, Honesty};
use crate::judge;
use crate::node::{self, Place};
use crate::plan::{self, Act};
use crate::record::{Record, Seen};

const NODES: [NodeId; 3] = [1, 2, 3];
const TICK: Duration = Duration::from_millis(1);
/// How long the cluster may take to be whole again once everything is healed.
const RECOVERY_MAX: Duration = Duration::from_secs(15);

/// What a run did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) acknowledged: u64,
    pub(crate) reads: u64,
    pub(crate) unknown: u64,
    pub(crate) not_applied: u64,
    pub(crate) crashes: u64,
    pub(crate) partitions: u64,
    pub(crate) slow_disks: u64,
    /// Batches that a crash took.
    pub(crate) lost_batches: u64,
    /// Snapshots that a node took over from another.
    pub(crate) snapshots: u64,
    pub(crate) longest_recovery: Duration,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Report) {
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.unknown += other.unknown;
        self.not_applied += other.not_applied;
        self.crashes += other.crashes;
        self.partitions += other.partitions;
        self.slow_disks += other.slow_disks;
        self.lost_batches += other.lost_batches;
        self.snapshots += other.snapshots;
        self.longest_recovery = self.longest_recovery.max(other.longest_recovery);
    }
}

pub(crate) struct Ended {
    pub(crate) trace: Vec<String>,
    pub(crate) report: Report,
}

/// Runs a seed; `Err` says what was broken.
pub(crate) fn run(seed: u64, honesty: Honesty) -> Result<Ended, String> {
    // openraft's and our own randomness.
    fastrand::seed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::Builder::new().prefix("raftgate-simulation-").tempdir_in(scratch()).unwrap();
    let record = Record::default();
    let quiet = Arc::new(AtomicBool::new(false));
    let members: BTreeMap<NodeId, String> = NODES.iter().map(|&id| (id, node::address(id))).collect();
    let mut sim = Builder::new()
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(TICK)
        .min_message_latency(Duration::from_micros(100))
        .max_message_latency(Duration::from_millis(plan::LATENCY_MS))
        .tcp_capacity(1 << 16)
        .rng_seed(seed)
        .build();
    let mut places = BTreeMap::new();
    for id in NODES {
        let place = Arc::new(Place {
            id,
            members: members.clone(),
            directory: directory.path().join(node::host(id)),
            disk: Disk::new(id, honesty, record.clone(), random.fork()),
            record: record.clone(),
            seed,
            starts: AtomicU64::new(0),
            running: std::sync::Mutex::default(),
            quiet: Arc::clone(&quiet),
        });
        places.insert(id, Arc::clone(&place));
        sim.host(node::host(id), move || node::run(Arc::clone(&place)));
    }
    let mut world = World { sim, places, record, down: BTreeSet::new(), report: Report::default() };
    world.inject(plan::make(&mut random, &NODES))?;
    quiet.store(true, Ordering::Relaxed);
    world.recover()?;
    judge::judge(&world.record, &world.places)?;
    Ok(world.end())
}

/// Where the small files and snapshots stand: in memory where there is such a place.
fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() }
}

struct World<'a> {
    sim: Sim<'a>,
    places: BTreeMap<NodeId, Arc<Place>>,
    record: Record,
    down: BTreeSet<NodeId>,
    report: Report,
}

impl World<'_> {
    fn step(&mut self) -> Result<(), String> {
        self.sim.step().map(drop).map_err(|error| format!("a node ended: {error}"))
    }

    fn inject(&mut self, acts: Vec<(Duration, Act)>) -> Result<(), String> {
        for (at, act) in acts {
            while self.sim.elapsed() < at {
                self.step()?;
            }
            self.act(&act);
        }
        while self.sim.elapsed() < plan::LENGTH {
            self.step()?;
        }
        Ok(())
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Crash(id) => {
                if self.down.insert(id) {
                    self.report.crashes += 1;
                    *self.places[&id].running.lock().unwrap() = None;
                    self.sim.crash(node::host(id));
                    self.places[&id].disk.crash();
                }
            }
            Act::Start(id) => {
                if self.down.remove(&id) {
                    self.sim.bounce(node::host(id));
                }
            }
            Act::Cut(from, to) => {
                self.report.partitions += 1;
                self.sim.partition_oneway(node::host(from), node::host(to));
            }
            Act::Mend(from, to) => self.sim.repair_oneway(node::host(from), node::host(to)),
            Act::SlowDisk(id) => {
                self.report.slow_disks += 1;
                self.places[&id].disk.set_slow(true);
            }
            Act::FastDisk(id) => self.places[&id].disk.set_slow(false),
            Act::Latency(one, other, millis) => {
                let most = Duration::from_millis(millis);
                self.sim.set_link_max_message_latency(node::host(one), node::host(other), most);
            }
        }
    }

    /// Heals everything and waits until all nodes have, and serve, one and the same State under one leader.
    fn recover(&mut self) -> Result<(), String> {
        for id in NODES {
            for other in NODES.into_iter().filter(|&other| other != id) {
                self.act(&Act::Mend(id, other));
                self.act(&Act::Latency(id, other, plan::LATENCY_MS));
            }
            self.act(&Act::FastDisk(id));
            self.act(&Act::Start(id));
        }
        let healed = self.sim.elapsed();
        while !self.is_whole() {
            if self.sim.elapsed() > healed + RECOVERY_MAX {
                return Err(format!("I8: not whole {RECOVERY_MAX:?} after everything was healed: {}", self.describe()));
            }
            self.step()?;
        }
        self.report.longest_recovery = self.sim.elapsed() - healed;
        Ok(())
    }

    fn is_whole(&self) -> bool {
        let mut seen = BTreeSet::new();
        let mut leaders = BTreeSet::new();
        for place in self.places.values() {
            let running = place.running.lock().unwrap();
            let Some((node, live)) = &*running else { return false };
            let status = node.status();
            leaders.insert(status.leader);
            let applied = node.applied().borrow().clone();
            seen.insert((applied.log_id, applied.state.revision(), live.load().revision));
        }
        let open = self.record.attempts().iter().any(|attempt| attempt.end.is_none() && attempt.begin > plan::LENGTH);
        leaders.len() == 1 && !leaders.contains(&None) && seen.len() == 1 && seen.iter().all(|seen| seen.1 == seen.2) && !open
    }

    fn describe(&self) -> String {
        let describe = |place: &Arc<Place>| {
            let running = place.running.lock().unwrap();
            let Some((node, live)) = &*running else { return format!("node {} does not run", place.id) };
            let (status, applied) = (node.status(), node.applied().borrow().clone());
            let (leader, revision, log_id, table) =
                (status.leader, applied.state.revision(), applied.log_id, live.load().revision);
            let failed = node.storage_failed().borrow().clone();
            format!("node {}: leader {leader:?}, {log_id:?}, revision {revision}, table {table}, storage {failed:?}", place.id)
        };
        self.places.values().map(describe).collect::<Vec<_>>().join("; ")
    }

    fn end(mut self) -> Ended {
        for attempt in self.record.attempts() {
            let count = match attempt.seen {
                Seen::Applied(_) => &mut self.report.acknowledged,
                Seen::State(_) => &mut self.report.reads,
                Seen::Unknown => &mut self.report.unknown,
                Seen::NotApplied => &mut self.report.not_applied,
                Seen::Refused(_) => continue,
            };
            *count += 1;
        }
        self.report.lost_batches = self.places.values().map(|place| place.disk.lost_batches()).sum();
        self.report.snapshots = self.record.snapshots();
        Ended { trace: self.record.take_trace(), report: self.report }
    }
}
