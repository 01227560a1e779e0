//! From State to the live table.
//!
//! A thread of its own follows State through a watch, so that a burst of changes becomes one table, and nothing that compiles ever
//! delays `apply` or a request. It makes the next snapshot by what changed and stores it. Requests may hold old snapshots for as long
//! as they like; the thread keeps those too until it is the last to do so, and frees them: dropping a million routes takes 0.3 s, which
//! no worker should pay.
//!
//! Until a node may serve ([`Publisher::start`]) the thread makes tables and stores none: the first one then costs no more than what changed
//! since. At a million routes that is two seconds of a start, which pass while the log is read.
//!
//! Between changes the thread compares the live table with one made from scratch, a few resources at a time. A difference raises the
//! divergence alarm, and the table is built anew.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::model::{ResourceKey, State};
use crate::observe::{KnownBug, Metrics, crash_point};
use crate::table::{Live, Snapshot};

/// Between two publications at least: under a load of changes each table takes some of them, and costs one round of copied nodes for
/// all. A change that comes alone does not wait.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(1);
/// How often retired snapshots are looked at, while there are any.
const RETIRED_INTERVAL: Duration = Duration::from_millis(200);

/// Between two pieces of the check.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a piece takes, which a change may wait for it: a hundredth of a core, however large the table is.
const CHECK_TIME: Duration = Duration::from_millis(1);
/// Resources of one piece at most.
const CHECK_RESOURCES: usize = 256;
/// Resources between two looks at the clock. Of a large table, whose documents no cache holds, one takes 20 microseconds.
const CHECK_STEP: usize = 8;
/// Between two passes of the check over the whole table.
const CHECK_PAUSE: Duration = Duration::from_secs(2);

/// The running publisher. It ends when the State's sender, or this handle, is gone.
#[derive(Debug)]
pub struct Publisher {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Starts the thread. It publishes nothing before `begin` fires (the cold start's gate), then the present State at once.
    ///
    /// Errors: no thread or runtime could be made.
    pub fn start(
        states: watch::Receiver<State>,
        begin: oneshot::Receiver<()>,
        live: Arc<Live>,
        metrics: Metrics,
    ) -> io::Result<Publisher> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = Publisher::follow(states, begin, live, metrics) => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("publisher".into()).spawn(run)?;
        Ok(Publisher { stop: Some(stop), thread: Some(thread) })
    }

    /// What the thread does, for who brings a task of his own: a simulation.
    pub async fn follow(states: watch::Receiver<State>, begin: oneshot::Receiver<()>, live: Arc<Live>, metrics: Metrics) {
        let (published, prepared) = (State::default(), None);
        Follower { states, live, metrics, published, prepared, retired: Vec::new(), check: Check::new() }.run(begin).await;
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("publisher panicked");
        }
    }
}

struct Follower {
    states: watch::Receiver<State>,
    live: Arc<Live>,
    metrics: Metrics,
    /// What the live snapshot was made of, or the prepared one.
    published: State,
    /// The table that is ready for when the first may be published.
    prepared: Option<Snapshot>,
    retired: Vec<Arc<Snapshot>>,
    check: Check,
}

/// How far the check of the live table has come.
struct Check {
    /// The resource that the last piece ended with.
    after: Option<ResourceKey>,
    due: tokio::time::Instant,
}

impl Check {
    fn new() -> Check {
        Check { after: None, due: tokio::time::Instant::now() + CHECK_PAUSE }
    }
}

impl Follower {
    async fn run(mut self, begin: oneshot::Receiver<()>) {
        if !self.prepare_until(begin).await {
            return;
        }
        self.states.mark_changed();
        loop {
            tokio::select! {
                biased;
                changed = self.states.changed() => match changed {
                    Ok(()) => {
                        self.publish();
                        tokio::time::sleep(PUBLISH_INTERVAL).await;
                    }
                    Err(_) => return,
                },
                () = tokio::time::sleep(RETIRED_INTERVAL), if !self.retired.is_empty() => {}
                () = tokio::time::sleep_until(self.check.due) => {}
            }
            if self.check.due <= tokio::time::Instant::now() {
                self.check();
            }
            self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        }
    }

    /// Follows State with a table that is not published yet. False: it never will be.
    async fn prepare_until(&mut self, mut begin: oneshot::Receiver<()>) -> bool {
        self.states.mark_changed();
        loop {
            tokio::select! {
                biased;
                begun = &mut begin => return begun.is_ok(),
                changed = self.states.changed() => match changed {
                    Ok(()) => self.prepare(),
                    Err(_) => return false,
                },
            }
            tokio::time::sleep(PUBLISH_INTERVAL).await;
        }
    }

    fn prepare(&mut self) {
        let state = self.states.borrow_and_update().clone();
        // An upload that changes most of it may be about to become live: then a table of what is before would be for nothing.
        if state.is_empty() || state.staged_operation_count() > state.len() / 2 {
            return;
        }
        self.prepared = Some(match self.prepared.take() {
            Some(prepared) => prepared.updated(&self.published, &state),
            None => self.live.load().rebuilt(&state),
        });
        self.published = state;
    }

    fn check(&mut self) {
        let live = self.live.load();
        match self.check_piece(&live) {
            Ok(after) => {
                let pause = if after.is_some() { CHECK_INTERVAL } else { CHECK_PAUSE };
                self.check = Check { after, due: tokio::time::Instant::now() + pause };
            }
            Err(what) => {
                tracing::error!(what, revision = %live.revision, "DIVERGED: the live table is not what it was made of; building it anew");
                self.live.raise_divergence(&what);
                self.metrics.divergences.with_label_values(&["table"]).inc();
                self.metrics.table_diverged.set(1);
                self.live.store(Arc::new(live.rebuilt(&self.published)));
                self.retired.push(live);
                self.check = Check::new();
            }
        }
    }

    /// Checks the next piece; gives where the one after it begins.
    fn check_piece(&self, live: &Snapshot) -> Result<Option<ResourceKey>, String> {
        let begun = Instant::now();
        let mut after = self.check.after.clone();
        for _ in 0..CHECK_RESOURCES / CHECK_STEP {
            after = live.check(&self.published, after.as_ref(), CHECK_STEP)?;
            if after.is_none() || begun.elapsed() >= CHECK_TIME {
                break;
            }
        }
        Ok(after)
    }

    fn publish(&mut self) {
        let started = Instant::now();
        let state = self.states.borrow_and_update().clone();
        let old = self.live.load();
        let is_first = old.published_at().is_none();
        if !is_first && old.revision == state.revision() && old.digest == state.digest() {
            return;
        }
        let next = match self.prepared.take() {
            Some(prepared) => prepared.updated(&self.published, &state),
            None if is_first => old.rebuilt(&state),
            None if KnownBug::StaleTable.is_on() => old.updated(&state, &state),
            None => old.updated(&self.published, &state),
        };
        let (revision, counts) = (next.revision, next.counts());
        self.note_certificates(&old, &next);
        crash_point("table-built");
        self.live.store(Arc::new(next));
        crash_point("table-published");
        self.metrics.table_revision.set(revision.0 as i64);
        self.metrics.table_routes.set(counts.routes as i64);
        self.metrics.table_services.set(counts.services as i64);
        self.metrics.table_not_compiled.set(counts.not_compiled as i64);
        self.metrics.table_publish_duration.observe(started.elapsed().as_secs_f64());
        tracing::debug!(%revision, routes = counts.routes, services = counts.services, "table published");
        self.retired.push(old);
        self.published = state;
    }
    /// Tells when the certificates expire that changed.
    fn note_certificates(&self, old: &Snapshot, next: &Snapshot) {
        let expiry = &self.metrics.certificate_expiry;
        for (before, after) in next.certificate_changes(old) {
            match (before, after) {
                (_, Some(certificate)) => expiry.with_label_values(&[certificate.name.as_str()]).set(certificate.not_after),
                // An error says that there was none.
                (Some(certificate), None) => _ = expiry.remove_label_values(&[certificate.name.as_str()]),
                (None, None) => {}
            }
        }
    }
}
