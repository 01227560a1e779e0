//! Fault windows: when which fault was on, where, and what it excuses.
//!
//! A window lasts from the moment a fault is asked for until its healing is done. The nemesis names its faults; what a name means to the
//! checkers is decided here, by words in it, and a name that is not known excuses nothing.

use std::collections::HashMap;

use super::operation::Operation;
use crate::down::Down;
use crate::history::{Kind, Op};

/// What a fault does to the nodes that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// No process runs, from the fault until it is healed: kill, crash, power cut.
    Down,
    /// Stopped by a signal: no process answers, and none has died.
    Paused,
    /// Stopped in good order and started again: nothing that was under way may fail.
    Restart,
    /// The node's data were damaged or taken away while it was down. It may have to stay away for ever.
    Data,
    /// A member leaves for good.
    Removed,
    /// Disk full, slow, stuck or broken: the process lives and serves on. Healing may restart it.
    Disk,
    /// The backends themselves break: the gateway has to say so with 502, 503 or 504.
    Backend,
    /// Everything else (networks, clocks, leader transfers, storms of changes): no proxied request may suffer.
    Other,
}

/// Words in names, the first that fits.
const CLASSES: [(&str, Class); 26] = [
    // kill -9, and started again at once.
    ("restart-leader", Class::Down),
    ("backend", Class::Backend),
    ("wipe", Class::Data),
    ("torn", Class::Data),
    ("truncat", Class::Data),
    ("flip", Class::Data),
    ("corrupt", Class::Data),
    ("damage", Class::Data),
    ("remove", Class::Removed),
    ("replace", Class::Removed),
    ("shrink", Class::Removed),
    ("rolling", Class::Restart),
    ("restart", Class::Restart),
    ("upgrade", Class::Restart),
    ("power", Class::Down),
    ("kill", Class::Down),
    ("crash", Class::Down),
    ("failpoint", Class::Down),
    ("dies", Class::Down),
    ("pause", Class::Paused),
    ("stop", Class::Paused),
    ("disk", Class::Disk),
    ("sync", Class::Disk),
    ("write-error", Class::Disk),
    ("io-error", Class::Disk),
    ("freeze", Class::Disk),
];

/// What a fault's name means.
pub(crate) fn class_of(name: &str) -> Class {
    CLASSES.iter().find(|(word, _)| name.contains(word)).map_or(Class::Other, |(_, class)| *class)
}

/// One fault, from where it was asked for to where it was healed. Times in nanoseconds since the test began.
#[derive(Debug, Clone)]
pub(crate) struct Window<'a> {
    pub(crate) name: &'a str,
    pub(crate) class: Class,
    /// Empty for a fault of the whole cluster.
    pub(crate) nodes: &'a [u32],
    /// What was said of it beside its nodes: the backends that it breaks.
    pub(crate) detail: &'a str,
    pub(crate) begin: u64,
    /// When which node was down, where the fault met one after the other and said so.
    pub(crate) downs: Vec<Down>,
    /// When it had taken effect; none where it never did.
    pub(crate) effect: Option<u64>,
    /// When its healing began; the end of time where it never did.
    pub(crate) healing: u64,
    /// When its healing was done; the end of time where it never was.
    pub(crate) end: u64,
}

impl Window<'_> {
    /// Whether it meets a node.
    pub(crate) fn hits(&self, node: u32) -> bool {
        self.nodes.is_empty() || self.nodes.contains(&node)
    }

    /// Whether it is on at some time of a span.
    pub(crate) fn overlaps(&self, begin: u64, end: u64) -> bool {
        self.begin <= end && begin <= self.end
    }
}

/// All faults of a test.
#[derive(Debug)]
pub(crate) struct Faults<'a> {
    pub(crate) windows: Vec<Window<'a>>,
}

impl<'a> Faults<'a> {
    /// Pairs faults with what healed them.
    pub(crate) fn gather(operations: &[Operation<'a>]) -> Faults<'a> {
        let mut windows: Vec<Window<'a>> = Vec::new();
        for operation in operations {
            let Op::Fault { heals: false, .. } = operation.invoke.op else { continue };
            // Which nodes it met may be known only from its effect.
            let Op::Fault { name, nodes, detail, .. } = operation.end.map_or(&operation.invoke.op, |end| &end.op) else {
                continue;
            };
            let effect = operation.end.filter(|end| end.kind == Kind::Ok).map(|end| end.time);
            // One that certainly did not happen is over with its answer.
            let end = operation.end.filter(|end| end.kind == Kind::Fail).map_or(u64::MAX, |end| end.time);
            let begin = operation.invoke.time;
            let (class, downs) = (class_of(name), Down::all_in(detail));
            windows.push(Window { name, class, nodes, detail, begin, downs, effect, healing: end, end });
        }
        for operation in operations {
            let Op::Fault { name: healed, nodes: healed_nodes, heals: true, .. } = &operation.invoke.op else { continue };
            let done = operation.end.filter(|end| end.kind == Kind::Ok).map_or(u64::MAX, |end| end.time);
            let downs = match operation.end.map(|end| &end.op) {
                Some(Op::Fault { detail, .. }) => Down::all_in(detail),
                _ => Vec::new(),
            };
            for window in &mut windows {
                let meets = healed_nodes.is_empty() || healed_nodes.iter().any(|node| window.hits(*node));
                if window.name == healed && meets && window.begin <= operation.invoke.time && window.end == u64::MAX {
                    window.healing = window.healing.min(operation.invoke.time);
                    window.end = done;
                    window.downs.extend(&downs);
                }
            }
        }
        Faults { windows }
    }

    /// Whether a fault of a class ever met a node.
    pub(crate) fn ever_hit(&self, node: u32, class: Class) -> bool {
        self.windows.iter().any(|window| window.class == class && window.effect.is_some() && window.hits(node))
    }

    /// When each node was first meant to go down and come up again.
    pub(crate) fn first_restarts(&self) -> HashMap<u32, u64> {
        let mut first = HashMap::new();
        let restarts = |class| matches!(class, Class::Down | Class::Data | Class::Restart);
        for window in self.windows.iter().filter(|window| window.effect.is_some() && restarts(window.class)) {
            for node in window.nodes {
                let begin = first.entry(*node).or_insert(window.begin);
                *begin = window.begin.min(*begin);
            }
        }
        first
    }

    /// The nodes that have to answer at the end: all but those that left, lost their data, or were never healed.
    pub(crate) fn survivors(&self, nodes: u32) -> Vec<u32> {
        let away = |node: u32| {
            self.windows.iter().filter(|window| window.effect.is_some() && window.hits(node)).any(|window| match window.class {
                Class::Data | Class::Removed => window.end == u64::MAX,
                _ => false,
            })
        };
        (1..=nodes).filter(|node| !away(*node)).collect()
    }

    /// When the last of the faults was healed, if all were.
    pub(crate) fn last_heal(&self) -> Option<u64> {
        self.windows.iter().filter(|window| window.effect.is_some()).map(|window| window.end).max().filter(|end| *end < u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::operation::pair;
    use crate::check::story::Story;

    #[test]
    fn names_mean_what_the_matrix_means() {
        for (name, class) in [
            ("kill-majority", Class::Down),
            ("power-cut-all", Class::Down),
            ("pause-leader", Class::Paused),
            ("rolling-restart", Class::Restart),
            ("restart-leader", Class::Down),
            ("wiped-disk", Class::Data),
            ("torn-tail", Class::Data),
            ("disk-full", Class::Disk),
            ("slow-disk", Class::Disk),
            ("fsync-error", Class::Disk),
            ("member-remove", Class::Removed),
            ("flapping-backends", Class::Backend),
            ("disk-error", Class::Disk),
            ("rolling-upgrade", Class::Restart),
            ("huge-change", Class::Other),
            ("wrong-peer", Class::Other),
            ("partition-one-way", Class::Other),
            ("clock-jump", Class::Other),
            ("slow-link", Class::Other),
            ("cut-mid-frame", Class::Other),
            ("half-open", Class::Other),
            ("leader-transfer", Class::Other),
            ("swap-storm", Class::Other),
            ("snapshot-install", Class::Other),
        ] {
            assert_eq!(class_of(name), class, "{name}");
        }
    }

    #[test]
    fn a_window_lasts_until_its_healing_is_done() {
        let mut story = Story::new();
        story
            .fault("kill", &[1])
            .fault("kill", &[2])
            .heal("kill", &[2])
            .nemesis("pause", &[3], false, Kind::Fail)
            .fault("clock", &[1]);
        let (operations, _) = pair(&story.events);
        let faults = Faults::gather(&operations);
        let ends: Vec<_> = faults.windows.iter().map(|window| (window.name, window.effect.is_some(), window.end)).collect();
        let open = u64::MAX;
        assert_eq!(ends, [("kill", true, open), ("kill", true, 5_000_000), ("pause", false, 7_000_000), ("clock", true, open)]);
        assert_eq!(faults.last_heal(), None);
        assert_eq!(faults.survivors(3), [1, 2, 3]);
    }

    #[test]
    fn a_node_that_left_need_not_answer() {
        let mut story = Story::new();
        story.fault("remove", &[3]).fault("wipe", &[2]).heal("wipe", &[2]);
        let (operations, _) = pair(&story.events);
        assert_eq!(Faults::gather(&operations).survivors(3), [1, 2]);
    }
}
