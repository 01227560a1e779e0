//! Replaying the writes in the order of their revisions explains every read (I2), whole transactions at a time.
//!
//! At revision R the routes are exactly what the writes up to R made of them. A write with an unknown outcome fills the gap where a read
//! saw its value: the route's own revision is then the write's.

use std::collections::{HashMap, HashSet};

use super::Finding;
use super::effect::{Effect, Effects};
use super::operation::Operation;
use super::timeline::Timeline;
use crate::history::{Key, Op, Value};

/// Checks all reads and all preconditions against the replay, and that what was acknowledged is in the last read of each route.
pub(crate) fn check(operations: &[Operation<'_>], effects: &Effects<'_>, timeline: &Timeline) -> Vec<Finding> {
    let replay = Replay { effects, timeline };
    let mut violations = Vec::new();
    let mut reads = 0;
    for operation in operations.iter().filter(|operation| operation.is_ok()) {
        match operation.op() {
            Op::Read { keys, seen: Some(seen) } => {
                reads += 1;
                for (key, item) in keys.iter().zip(&seen.items) {
                    let wrong = replay.explain(operation, *key, *item, seen.revision);
                    violations.extend(wrong.map(|wrong| replay.add_half(operation, wrong, *key)));
                }
            }
            Op::ReadAll { seen: Some(seen) } => {
                reads += 1;
                for (key, revision, value) in &seen.items {
                    violations.extend(replay.explain(operation, *key, Some((*revision, *value)), seen.revision));
                }
                replay.missing(operation, &seen.items, seen.revision, &mut violations);
            }
            _ => {}
        }
    }
    let conditional = replay.preconditions(&mut violations);
    let mut findings = vec![Finding::of("I2", reads, "reads that the writes explain", &violations)];
    if conditional > 0 && violations.is_empty() {
        findings[0].detail.push_str(&format!(", and {conditional} conditional writes"));
    }
    findings.push(replay.lost(operations));
    findings
}

struct Replay<'a> {
    effects: &'a Effects<'a>,
    timeline: &'a Timeline,
}

impl<'a> Replay<'a> {
    /// What is wrong with an item that was seen at a revision.
    fn explain(&self, operation: &Operation<'_>, key: Key, item: Option<(u64, Value)>, revision: u64) -> Option<String> {
        let place = operation.place();
        let held = self.timeline.held(key, revision);
        let Some((own, value)) = item else {
            let held = held?;
            return Some(format!(
                "{place}: route {key} is missing at revision {revision}, after {}",
                self.effect(held.effect).name()
            ));
        };
        let saw = format!("{place}: saw {key}={value} of revision {own} at revision {revision}");
        let Some(at) = self.effects.writer(key, value) else { return Some(format!("{saw}, which nobody wrote")) };
        let writer = self.effect(at);
        if !writer.possible {
            return Some(format!("{saw}, and {} certainly did nothing", writer.name()));
        }
        if operation.finish() < writer.begin {
            return Some(format!("{saw}, before it was asked for by {}", writer.name()));
        }
        if own > revision {
            return Some(format!("{saw}: its own revision is yet to come"));
        }
        if writer.revision != Some(own) {
            return Some(format!("{saw}, which is not the revision of {}", writer.name()));
        }
        match held {
            Some(held) if held.effect != at => Some(format!("{saw}, after {}", self.effect(held.effect).name())),
            _ => None,
        }
    }

    /// Says so where the same read saw the other part of the write that this route lacks.
    fn add_half(&self, operation: &Operation<'_>, wrong: String, key: Key) -> String {
        let Op::Read { keys, seen: Some(seen) } = operation.op() else { return wrong };
        let Some(held) = self.timeline.held(key, seen.revision) else { return wrong };
        let other = keys.iter().zip(&seen.items).any(|(other, item)| {
            *other != key && item.is_some_and(|(_, value)| self.effects.writer(*other, value) == Some(held.effect))
        });
        if other { format!("half of a transaction: {wrong}") } else { wrong }
    }

    /// Routes that a read of everything lacks.
    fn missing(&self, operation: &Operation<'_>, items: &[(Key, u64, Value)], revision: u64, violations: &mut Vec<String>) {
        let seen: HashSet<Key> = items.iter().map(|(key, _, _)| *key).collect();
        if seen.len() != items.len() {
            violations.push(format!("{}: saw a route twice at revision {revision}", operation.place()));
        }
        let missing = self.timeline.existing(revision).filter(|key| !seen.contains(key));
        violations.extend(missing.filter_map(|key| self.explain(operation, key, None, revision)));
    }

    /// A conditional write that happened found its routes at the revisions that it named.
    fn preconditions(&self, violations: &mut Vec<String>) -> u64 {
        let mut looked_at = 0;
        for effect in &self.effects.all {
            let Some(before) = effect.revision.and_then(|revision| revision.checked_sub(1)) else { continue };
            for &(key, asked) in effect.preconditions {
                looked_at += 1;
                let present = self.timeline.held(key, before);
                let holds = match present {
                    Some(held) if held.exact => held.revision == asked,
                    Some(held) => asked > 0 && asked <= held.revision,
                    None => asked == 0,
                };
                // A write that nobody saw may have made the revision asked for, where it lies after all that is known.
                let later = present.is_none_or(|held| asked > held.revision) && asked <= before && self.timeline.is_unsure(key);
                if !holds && !later {
                    let was = present.map_or_else(|| "did not exist".to_owned(), |held| format!("was at {}", held.revision));
                    violations.push(format!("{} asked for route {key} at revision {asked}, which {was}", effect.name()));
                }
            }
        }
        looked_at
    }

    /// Acknowledged writes that the last read of their route does not know (I1): neither their value nor a later one.
    fn lost(&self, operations: &[Operation<'_>]) -> Finding {
        let mut last: HashMap<Key, (&Operation<'_>, u64)> = HashMap::new();
        for operation in operations.iter().filter(|operation| operation.is_ok()) {
            if let Op::Read { keys, seen: Some(seen) } = operation.op() {
                for (key, item) in keys.iter().zip(&seen.items) {
                    last.insert(*key, (operation, item.map_or(0, |(own, _)| own)));
                }
            }
        }
        let mut looked_at = 0;
        let mut lost = Vec::new();
        for effect in self.effects.all.iter().filter(|effect| effect.acknowledged) {
            for (key, _) in effect.writes {
                let Some((read, own)) = last.get(key) else { continue };
                if effect.end < read.begin() {
                    looked_at += 1;
                    if *own < effect.revision.unwrap_or(0) {
                        lost.push(format!("{} is lost: {} saw route {key} at revision {own}", effect.name(), read.place()));
                    }
                }
            }
        }
        Finding::of("I1", looked_at, "acknowledged changes that the last reads know", &lost)
    }

    fn effect(&self, at: usize) -> &'a Effect<'a> {
        &self.effects.all[at]
    }
}
