//! The faults of a seed.

use std::time::Duration;

use raftgate::model::NodeId;

/// How long faults come. After it everything is healed.
pub(crate) const LENGTH: Duration = Duration::from_secs(7);

/// A fault, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Crash(NodeId),
    Start(NodeId),
    /// Nothing arrives in this direction.
    Cut(NodeId, NodeId),
    Mend(NodeId, NodeId),
    SlowDisk(NodeId),
    FastDisk(NodeId),
    /// Messages between two nodes take up to so many milliseconds.
    Latency(NodeId, NodeId, u64),
}

/// Between two nodes while nothing is wrong.
pub(crate) const LATENCY_MS: u64 = 2;

/// What happens when, in order.
pub(crate) fn make(random: &mut fastrand::Rng, nodes: &[NodeId]) -> Vec<(Duration, Act)> {
    let mut acts = Vec::new();
    let mut nodes = nodes.to_vec();
    if random.u8(..3) == 0 {
        // Away for so long that the others purge what it lacks: it must take a snapshot. No other fault brings it back.
        let away = nodes.remove(random.usize(..nodes.len()));
        both(&mut acts, Duration::from_millis(random.u64(250..450)), LENGTH, Act::Crash(away), Act::Start(away));
    }
    let mut at = Duration::from_millis(random.u64(500..2_000));
    while at < LENGTH {
        let end = at + Duration::from_millis(random.u64(30..2_500));
        let mut order = nodes.clone();
        random.shuffle(&mut order);
        let (one, other) = (order[0], order[1]);
        match random.u8(..10) {
            0..4 => {
                let count = [1, 1, 2, nodes.len()][random.usize(..4)];
                for &id in &order[..count] {
                    acts.push((at, Act::Crash(id)));
                    acts.push((end + Duration::from_millis(random.u64(..200)), Act::Start(id)));
                }
            }
            4 => both(&mut acts, at, end, Act::Cut(one, other), Act::Mend(one, other)),
            5 | 6 => {
                for &id in &order[1..] {
                    both(&mut acts, at, end, Act::Cut(one, id), Act::Mend(one, id));
                    both(&mut acts, at, end, Act::Cut(id, one), Act::Mend(id, one));
                }
            }
            7 => both(&mut acts, at, end, Act::Latency(one, other, random.u64(20..300)), Act::Latency(one, other, LATENCY_MS)),
            _ => both(&mut acts, at, end, Act::SlowDisk(one), Act::FastDisk(one)),
        }
        at += Duration::from_millis(random.u64(200..1_800));
    }
    acts.sort_by_key(|(at, _)| *at);
    acts
}

fn both(acts: &mut Vec<(Duration, Act)>, at: Duration, end: Duration, fault: Act, heal: Act) {
    acts.extend([(at, fault), (end, heal)]);
}
