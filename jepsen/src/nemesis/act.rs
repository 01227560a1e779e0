//! One fault while it is played: whom it meets, and what the history says of it.

use std::time::Duration;

use fastrand::Rng;
use rustix::process::Signal;
use thiserror::Error;

use super::START_PATIENCE;
use super::plan::Planned;
use super::stage::Stage;
use crate::cluster::{Claim, Cluster, wait_for};
use crate::history::{Kind, Op, Process};

/// How long a fault waits for what it needs: a leader, a node that no other fault has.
const NEEDS_PATIENCE: Duration = Duration::from_secs(5);

/// A process that was killed is gone in less, unless its disk holds it.
pub(super) const DEATH_PATIENCE: Duration = Duration::from_secs(20);

/// How long a node may take from its start to being ready.
pub(super) const READY_PATIENCE: Duration = Duration::from_secs(40);

/// Why a fault was not played to its end.
#[derive(Debug, Error)]
pub(crate) enum Trouble {
    /// It did not take effect this time.
    #[error("{0}")]
    Missed(String),
    /// It cannot be injected into this build or on this machine.
    #[error("not injectable: {0}")]
    NotInjectable(String),
    /// The gateway did what it must not do.
    #[error("{0}")]
    Product(String),
    /// A node refused to start, or ended, where no fault explains it.
    #[error("{0}")]
    Ended(String),
    /// The suite itself failed.
    #[error("{0:#}")]
    Harness(#[from] anyhow::Error),
}

/// How far an act is, for what its end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Beginning,
    Broken,
    Healing,
    Healed,
}

/// A fault that is played.
#[derive(Debug)]
pub(crate) struct Act<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) planned: Planned,
    pub(crate) rng: Rng,
    /// Whom it meets; no other fault meets them meanwhile.
    pub(crate) nodes: Vec<u32>,
    claim: Option<Claim>,
    phase: Phase,
}

impl<'a> Act<'a> {
    /// It has not begun.
    pub(crate) fn new(stage: &'a Stage, planned: Planned) -> Act<'a> {
        let rng = Rng::with_seed(planned.seed);
        Act { stage, planned, rng, nodes: Vec::new(), claim: None, phase: Phase::Waiting }
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> &'a Cluster {
        &self.stage.scene.cluster
    }

    /// The node that leads now.
    pub(crate) async fn leader(&self) -> Result<u32, Trouble> {
        let leader = wait_for(NEEDS_PATIENCE, || self.cluster().leader()).await;
        leader.ok_or_else(|| Trouble::Missed("no node led when it should have begun".to_owned()))
    }

    /// Members in an order of this act's own.
    pub(crate) fn shuffled(&mut self, but: Option<u32>) -> Vec<u32> {
        let mut members: Vec<u32> = self.cluster().members().into_iter().filter(|&id| Some(id) != but).collect();
        self.rng.shuffle(&mut members);
        members
    }

    /// More than half of the members, the leader not more likely than others.
    pub(crate) fn majority(&mut self) -> Vec<u32> {
        let mut members = self.shuffled(None);
        members.truncate(members.len() / 2 + 1);
        members
    }

    /// Takes these nodes for itself: their processes and disks are this act's until it ends.
    pub(crate) fn claim(&mut self, nodes: Vec<u32>) -> Result<(), Trouble> {
        let claim = self.cluster().claims.take(&nodes);
        self.claim = Some(claim.map_err(|taken| Trouble::Missed(format!("node {taken} has another fault, or joins or leaves")))?);
        self.nodes = nodes;
        Ok(())
    }

    /// No other fault meets these nodes any more: one of them has ended and stays so.
    pub(crate) fn lose(&mut self) {
        if let Some(claim) = self.claim.take() {
            claim.keep();
        }
    }

    /// Sends a signal to a node's process. One that has ended although nothing ended it has done what it must not.
    pub(crate) async fn signal(&self, id: u32, signal: Signal) -> Result<(), Trouble> {
        let node = self.cluster().node(id);
        if node.runs().await {
            return Ok(node.signal(signal).await?);
        }
        Err(Trouble::Ended(format!("node {id} has ended by itself: {}", node.last_words())))
    }

    /// The first of its nodes that has ended by itself: then whatever went wrong with it is no failure of the suite.
    pub(crate) async fn ended(&self) -> Option<Trouble> {
        for &id in &self.nodes {
            let node = self.cluster().node(id);
            if let Some(status) = node.ended_by_itself().await {
                return Some(Trouble::Ended(node.tell_end(status)));
            }
        }
        None
    }

    /// kill -9, and waits until it is gone.
    pub(crate) async fn kill(&self, id: u32) -> Result<(), Trouble> {
        self.signal(id, Signal::KILL).await?;
        self.cluster().node(id).wait(DEATH_PATIENCE).await?;
        Ok(())
    }

    /// Waits until a node that this act has claimed takes part in the cluster: what begins earlier meets a process that is still starting.
    pub(crate) async fn wait_ready(&self, id: u32) -> Result<(), Trouble> {
        ready(self.cluster(), id, READY_PATIENCE, || self.stage.is_over()).await
    }

    /// The fault begins.
    pub(crate) fn begin(&mut self, detail: impl Into<String>) {
        self.record(Kind::Invoke, false, detail.into(), None);
        self.phase = Phase::Beginning;
    }

    /// It was seen to have taken effect.
    pub(crate) fn took_effect(&mut self, detail: impl Into<String>) {
        self.record(Kind::Ok, false, detail.into(), None);
        self.phase = Phase::Broken;
    }

    /// It lasts as planned, unless the test ends before.
    pub(crate) async fn hold(&self) {
        self.stage.sleep(self.planned.length).await;
    }

    /// It lasts a part of what was planned.
    pub(crate) async fn hold_for(&self, length: Duration) {
        self.stage.sleep(length).await;
    }

    /// The healing begins.
    pub(crate) fn heal(&mut self) {
        self.record(Kind::Invoke, true, String::new(), None);
        self.phase = Phase::Healing;
    }

    /// It is healed: what was taken away is back.
    pub(crate) fn healed(&mut self, detail: impl Into<String>) {
        self.record(Kind::Ok, true, detail.into(), None);
        self.phase = Phase::Healed;
    }

    /// It did not happen this time, and may begin again.
    pub(crate) fn missed(&mut self, reason: &str) {
        self.gave_up(reason);
        self.phase = Phase::Waiting;
    }

    /// It ends in the middle, for this reason.
    pub(crate) fn gave_up(&mut self, reason: &str) {
        let error = Some(reason.to_owned());
        if self.phase == Phase::Waiting {
            self.begin("");
        }
        match self.phase {
            Phase::Beginning => self.record(Kind::Fail, false, String::new(), error),
            Phase::Broken => {
                self.heal();
                self.record(Kind::Fail, true, String::new(), error);
            }
            Phase::Healing => self.record(Kind::Fail, true, String::new(), error),
            Phase::Waiting | Phase::Healed => {}
        }
        self.phase = Phase::Healed;
    }

    /// Starts a node, and waits for its first answer.
    pub(crate) async fn start(&self, id: u32) -> Result<(), Trouble> {
        let cluster = self.cluster();
        cluster.start(id).await?;
        self.wait_alive(id).await
    }

    /// Waits until a node answers; one that ended instead has done what it must not.
    pub(crate) async fn wait_alive(&self, id: u32) -> Result<(), Trouble> {
        let cluster = self.cluster();
        let alive = wait_for(START_PATIENCE, || async {
            if !cluster.node(id).runs().await {
                return Some(false);
            }
            cluster.get(id, "/livez").await.or(cluster.get(id, "/v1/table").await).map(|_| true)
        });
        match alive.await {
            Some(true) => Ok(()),
            Some(false) => {
                let words = cluster.node(id).last_words();
                Err(Trouble::Ended(format!("node {id} ended by itself after its start: {words}")))
            }
            None => Err(Trouble::Product(format!("node {id} did not answer within {START_PATIENCE:?} of its start"))),
        }
    }

    fn record(&self, kind: Kind, heals: bool, detail: String, error: Option<String>) {
        let op = Op::Fault { name: self.planned.fault.name().to_owned(), nodes: self.nodes.clone(), heals, detail };
        let recorder = &self.stage.scene.recorder;
        match kind {
            Kind::Invoke => recorder.invoke(Process::Nemesis, None, op),
            Kind::Ok | Kind::Fail | Kind::Info => recorder.end(Process::Nemesis, kind, None, op, error),
        }
    }
}

/// Waits until a node says that its control plane is ready; one that is not, or not before the time for faults is over, meets no fault.
async fn ready(cluster: &Cluster, id: u32, patience: Duration, is_over: impl Fn() -> bool) -> Result<(), Trouble> {
    let ready = wait_for(patience, || async {
        if is_over() {
            return Some(false);
        }
        cluster.get(id, "/readyz/control").await.map(|_| true)
    });
    match ready.await {
        Some(true) => Ok(()),
        Some(false) => Err(Trouble::Missed(format!("node {id} was not ready before the time for faults was over"))),
        None => Err(Trouble::Missed(format!("node {id} was not ready within {patience:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::nemesis::kind::Fault;
    use crate::nemesis::rehearsal;

    /// Answers every request with these statuses in turn, and then with the last of them.
    async fn answer(listener: TcpListener, statuses: &[u16]) {
        let mut left = statuses.iter();
        let mut status = 0;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            status = left.next().copied().unwrap_or(status);
            let _ = stream.read(&mut [0; 4096]).await;
            let text = format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
            let _ = stream.write_all(text.as_bytes()).await;
        }
    }

    #[tokio::test]
    async fn a_node_is_ready_when_it_says_so() {
        let directory = tempfile::tempdir().unwrap();
        for (statuses, is_ready) in [([503, 503, 200], true), ([503, 503, 503], false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let cluster = rehearsal::cluster(directory.path(), listener.local_addr().unwrap()).await;
            let patience = if is_ready { Duration::from_secs(60) } else { Duration::from_millis(300) };
            let waited = tokio::select! {
                waited = ready(&cluster, 1, patience, || false) => waited,
                () = answer(listener, &statuses) => unreachable!("it answers for ever"),
            };
            match waited {
                Ok(()) => assert!(is_ready),
                Err(Trouble::Missed(why)) => assert!(!is_ready && why.contains("node 1 was not ready"), "{why}"),
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[tokio::test]
    async fn a_fault_that_did_not_happen_may_begin_again() {
        let directory = tempfile::tempdir().unwrap();
        let cluster = rehearsal::cluster(directory.path(), "127.0.0.1:1".parse().unwrap()).await;
        let stage = rehearsal::stage(cluster, false);
        let mut act = Act::new(&stage, rehearsal::planned(Fault::PowerCutAll, 1));
        act.claim(vec![1]).unwrap();
        act.begin("");
        act.missed("the cuts were 71 ms apart");
        act.begin("");
        act.took_effect("");
        act.heal();
        act.healed("");
        // Nothing is added where it was healed.
        act.gave_up("late");
        let events = stage.scene.recorder.events();
        let kinds: Vec<Kind> = events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [Kind::Invoke, Kind::Fail, Kind::Invoke, Kind::Ok, Kind::Invoke, Kind::Ok]);
        assert_eq!(events[1].error.as_deref(), Some("the cuts were 71 ms apart"));
        assert!(events.iter().all(|event| matches!(&event.op, Op::Fault { nodes, .. } if *nodes == [1])));
    }
}
