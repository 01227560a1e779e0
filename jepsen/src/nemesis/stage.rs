//! What all faults of a test share: the cluster and its clients, the time for faults, and what is to be said of them at the end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::act::Trouble;
use super::kind::Fault;
use crate::workload::Scene;

/// What all faults of a test share. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) scene: Scene,
    notes: Arc<Mutex<Notes>>,
    crashes: Arc<AtomicUsize>,
}

/// What is to be said about the faults at the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    /// Fault and reason.
    pub(crate) not_injectable: Vec<(Fault, String)>,
    /// What the gateway did and must not do.
    pub(crate) wrong: Vec<String>,
    /// Nodes that ended by themselves, with their last words.
    pub(crate) ended: Vec<String>,
    /// Other things worth a line.
    pub(crate) seen: Vec<String>,
}

impl Stage {
    /// Nothing is broken yet. `scene.stop` ends the faults, not the clients.
    pub(crate) fn new(scene: Scene) -> Stage {
        let crashes = Arc::new(AtomicUsize::new(scene.seed as usize));
        Stage { scene, notes: Arc::default(), crashes }
    }

    /// Whether the time for faults is over.
    pub(crate) fn is_over(&self) -> bool {
        *self.scene.stop.borrow()
    }

    /// Waits until so long after the test's beginning, or until the time for faults is over.
    pub(crate) async fn wait_until(&self, at: Duration) {
        self.sleep(at.saturating_sub(self.scene.recorder.elapsed())).await;
    }

    /// Waits so long, or until the time for faults is over.
    pub(super) async fn sleep(&self, length: Duration) {
        let mut stop = self.scene.stop.clone();
        let _ = tokio::time::timeout(length, stop.wait_for(|stop| *stop)).await;
    }

    /// Counts the crash points that were tried, from the seed on.
    pub(crate) fn next_crash(&self) -> usize {
        self.crashes.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps what went wrong for the end.
    pub(crate) fn note(&self, fault: Fault, trouble: &Trouble) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!("{}: {trouble}", fault.name());
        match trouble {
            Trouble::NotInjectable(reason) => {
                let refusal = (fault, reason.clone());
                if !notes.not_injectable.contains(&refusal) {
                    notes.not_injectable.push(refusal);
                }
            }
            Trouble::Product(_) => notes.wrong.push(text),
            Trouble::Ended(_) => notes.ended.push(text),
            Trouble::Missed(_) | Trouble::Harness(_) => notes.seen.push(text),
        }
    }

    /// What was kept.
    pub(crate) fn notes(&self) -> Notes {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
