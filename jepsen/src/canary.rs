//! The canary: a thread that does nothing but sleep, and notes when it was woken late. Where it was, the machine had no time for the suite,
//! and what was measured then is not the gateway's doing alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::history::Stall;
use crate::record::Recorder;

/// How long it sleeps.
const SLEEP: Duration = Duration::from_millis(5);
/// It notes what came later than this; the shortest time that a checker has a bound for is four times as long.
const STALL_MIN: Duration = Duration::from_millis(50);
/// So many are kept: the longest.
const STALLS_MAX: usize = 1_000;

/// A canary that lives until it is dropped.
#[derive(Debug)]
pub(crate) struct Canary {
    stalls: Arc<Mutex<Vec<Stall>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Canary {
    /// Notes times by the recorder's clock.
    pub(crate) fn start(recorder: &Arc<Recorder>) -> anyhow::Result<Canary> {
        let (stalls, stop): (Arc<Mutex<Vec<Stall>>>, Arc<AtomicBool>) = Default::default();
        let (kept, stopped, recorder) = (Arc::clone(&stalls), Arc::clone(&stop), Arc::clone(recorder));
        let watch = move || {
            let mut before = recorder.elapsed();
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(SLEEP);
                let now = recorder.elapsed();
                note(&kept, before, now);
                before = now;
            }
        };
        let thread = Some(std::thread::Builder::new().name("canary".to_owned()).spawn(watch)?);
        Ok(Canary { stalls, stop, thread })
    }

    /// What it noted, in the order of time.
    pub(crate) fn stalls(&self) -> Vec<Stall> {
        let mut stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stalls.sort_unstable_by_key(|stall| stall.begin);
        stalls
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It can only have ended.
            let _ = thread.join();
        }
    }
}

fn note(kept: &Mutex<Vec<Stall>>, before: Duration, now: Duration) {
    let late = now.saturating_sub(before + SLEEP);
    if late < STALL_MIN {
        return;
    }
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.push(Stall { begin: nanos(before), length: nanos(late) });
    if kept.len() > STALLS_MAX
        && let Some(shortest) = (0..kept.len()).min_by_key(|&at| kept[at].length)
    {
        kept.swap_remove(shortest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_late_is_noted_and_the_longest_are_kept() {
        let kept = Mutex::default();
        let wake = |at: u64, slept: u64| note(&kept, Duration::from_millis(at), Duration::from_millis(at + slept));
        wake(0, 30);
        assert!(kept.lock().unwrap().is_empty());
        wake(100, 305);
        assert_eq!(*kept.lock().unwrap(), [Stall { begin: 100_000_000, length: 300_000_000 }]);
        (0..STALLS_MAX as u64).for_each(|at| wake(1_000 + at * 100, 75));
        let kept = kept.lock().unwrap();
        assert!(kept.len() == STALLS_MAX && kept.iter().any(|stall| stall.length == 300_000_000));
    }
}
