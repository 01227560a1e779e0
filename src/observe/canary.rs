//! A thread that does nothing but wake up, and measures how late it was.
//!
//! Raft's timers need the processor in time. Where the machine gives this process none for a good part of an election timeout, a follower
//! stands for election although its leader is fine; that is then the machine's fault and not the protocol's, and is counted apart.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Metrics;

/// Between two wake-ups.
const INTERVAL: Duration = Duration::from_millis(10);
/// The gap that is shown is the worst of this time, or of up to twice of it.
const WINDOW: Duration = Duration::from_secs(1);

/// How late the canary was lately. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SchedulingGap {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Nanoseconds, of the window that is going on and of the one before.
    present: AtomicU64,
    previous: AtomicU64,
}

impl SchedulingGap {
    /// The worst gap of the last one to two seconds.
    pub fn worst(&self) -> Duration {
        let [present, previous] = [&self.shared.present, &self.shared.previous].map(|gap| gap.load(Ordering::Relaxed));
        Duration::from_nanos(present.max(previous))
    }

    fn note(&self, gap: Duration) {
        self.shared.present.fetch_max(u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn turn(&self) {
        let ended = self.shared.present.swap(0, Ordering::Relaxed);
        self.shared.previous.store(ended, Ordering::Relaxed);
    }
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Canary {
    gap: SchedulingGap,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Canary {
    /// Starts it.
    pub fn start(metrics: &Metrics) -> io::Result<Canary> {
        let (gap, stop) = (SchedulingGap::default(), Arc::new(AtomicBool::new(false)));
        let (noted, stopped, histogram) = (gap.clone(), Arc::clone(&stop), metrics.scheduling_gap.clone());
        let thread = thread::Builder::new().name("canary".to_owned()).spawn(move || {
            let mut window = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let slept = Instant::now();
                thread::sleep(INTERVAL);
                let late = slept.elapsed().saturating_sub(INTERVAL);
                noted.note(late);
                histogram.observe(late.as_secs_f64());
                if window.elapsed() >= WINDOW {
                    noted.turn();
                    window = Instant::now();
                }
            }
        })?;
        Ok(Canary { gap, stop, thread: Some(thread) })
    }

    /// What it measures.
    pub fn gap(&self) -> SchedulingGap {
        self.gap.clone()
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and if it did there is nothing left to do.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_gap_is_kept_for_a_window_and_then_forgotten() {
        let gap = SchedulingGap::default();
        gap.note(Duration::from_millis(80));
        gap.note(Duration::from_millis(3));
        assert_eq!(gap.worst(), Duration::from_millis(80));
        gap.turn();
        assert_eq!(gap.worst(), Duration::from_millis(80));
        gap.note(Duration::from_millis(5));
        gap.turn();
        assert_eq!(gap.worst(), Duration::from_millis(5));
    }

    #[test]
    fn the_thread_measures_and_ends() {
        let metrics = Metrics::new();
        let canary = Canary::start(&metrics).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while metrics.scheduling_gap.get_sample_count() < 3 {
            assert!(Instant::now() < deadline, "the canary does not wake up");
            thread::sleep(Duration::from_millis(5));
        }
        drop(canary);
    }
}
