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

/// Checks all reads and all preconditions against the replay, and that what was acknowledged is in the last read of each route. Gives
/// the number of writes that are lost there, too.
pub(crate) fn check(operations: &[Operation<'_>], effects: &Effects<'_>, timeline: &Timeline) -> (u64, [Finding; 2]) {
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
    let mut explained = Finding::of("I2", reads, "reads that the writes explain", &violations);
    if conditional > 0 && violations.is_empty() {
        explained.detail.push_str(&format!(", and {conditional} conditional writes"));
    }
    let (lost, kept) = replay.lost(operations);
    (lost, [explained, kept])
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
    fn lost(&self, operations: &[Operation<'_>]) -> (u64, Finding) {
        let mut last: HashMap<Key, (&Operation<'_>, u64)> = HashMap::new();
        for operation in operations.iter().filter(|operation| operation.is_ok()) {
            if let Op::Read { keys, seen: Some(seen) } = operation.op() {
                for (key, item) in keys.iter().zip(&seen.items) {
                    last.insert(*key, (operation, item.map_or(0, |(own, _)| own)));
                }
            }
        }
        let mut looked_at = HashSet::new();
        let mut lost = Vec::new();
        for (at, effect) in self.effects.all.iter().enumerate().filter(|(_, effect)| effect.acknowledged) {
            for (key, _) in effect.writes {
                let Some((read, own)) = last.get(key) else { continue };
                if effect.end < read.begin() {
                    looked_at.insert(at);
                    if *own < effect.revision.unwrap_or(0) {
                        lost.push(format!("{} is lost: {} saw route {key} at revision {own}", effect.name(), read.place()));
                    }
                }
            }
        }
        (lost.len() as u64, Finding::of("I1", looked_at.len() as u64, "acknowledged changes that the last reads know", &lost))
    }

    fn effect(&self, at: usize) -> &'a Effect<'a> {
        &self.effects.all[at]
    }
}

#[cfg(test)]
mod tests {
    use crate::check::story::{Story, read, read_all, read_all_of, write, write_if};
    use crate::history::Kind;
    use crate::test::Outcome;

    fn two_writes() -> Story {
        let mut story = Story::new();
        story.ok(0, write(&[(1, 10), (2, 11)], 1)).ok(0, write(&[(1, 20), (2, 21)], 2));
        story
    }

    #[test]
    fn reads_that_the_writes_explain() {
        let mut story = two_writes();
        story.ok(1, read_all_of(&[1, 2, 3], 2, &[Some((2, 20)), Some((2, 21)), None]));
        story.run(2, 1, Kind::Fail, write_if(&[(1, 30)], &[(1, 1)], 0)).ok(1, write_if(&[(1, 31)], &[(1, 2), (3, 0)], 5));
        story.ok(1, read_all(6, &[(1, 5, 31), (2, 2, 21)])).is("I2", Outcome::Pass, "2 conditional writes");
        story.is("I1", Outcome::Pass, "");
    }

    #[test]
    fn items_that_no_write_explains() {
        for (item, words) in [
            (Some((2, 99)), "which nobody wrote"),
            (Some((1, 10)), "after the write of 1=20 2=21"),
            (Some((3, 20)), "yet to come"),
            (Some((1, 20)), "which is not the revision of the write"),
            (None, "route 1 is missing"),
        ] {
            let mut story = two_writes();
            story.ok(1, read(1, 2, item)).is("I2", Outcome::Fail, words);
        }
        let mut story = two_writes();
        story.run(2, 1, Kind::Fail, write(&[(1, 30)], 0)).ok(1, read(1, 3, Some((3, 30))));
        story.is("I2", Outcome::Fail, "certainly did nothing");
        let mut story = two_writes();
        story.ok(1, read(1, 3, Some((3, 30)))).run(2, 1, Kind::Info, write(&[(1, 30)], 0));
        story.is("I2", Outcome::Fail, "before it was asked for");
    }

    #[test]
    fn half_of_a_transaction_is_not_seen() {
        let mut story = two_writes();
        story.ok(1, read_all_of(&[1, 2], 2, &[Some((2, 20)), Some((1, 11))])).is("I2", Outcome::Fail, "half of a transaction");
        // One half of a write with an unknown outcome tells its revision; the other half must be there as well.
        let mut story = two_writes();
        story.run(2, 1, Kind::Info, write(&[(1, 30), (2, 31)], 0));
        story.ok(1, read_all_of(&[1, 2], 3, &[Some((3, 30)), Some((2, 21))])).is("I2", Outcome::Fail, "half of a transaction");
    }

    #[test]
    fn an_unknown_write_fills_a_gap_or_none() {
        let mut story = two_writes();
        story.run(2, 1, Kind::Info, write(&[(1, 30), (2, 31)], 0)).ok(1, read(1, 2, Some((2, 20))));
        story.ok(1, read_all_of(&[1, 2], 9, &[Some((7, 30)), Some((7, 31))])).is("I2", Outcome::Pass, "");
        story.ok(1, read(1, 10, Some((2, 20)))).is("I2", Outcome::Fail, "after the write of 1=30");
    }

    #[test]
    fn a_conditional_write_found_what_it_named() {
        let mut story = two_writes();
        story.ok(1, write_if(&[(1, 30)], &[(1, 1)], 3)).is(
            "I2",
            Outcome::Fail,
            "asked for route 1 at revision 1, which was at 2",
        );
        let mut story = two_writes();
        story.ok(1, write_if(&[(3, 30)], &[(3, 2)], 3)).is("I2", Outcome::Fail, "which did not exist");
        let mut story = two_writes();
        story.ok(1, write_if(&[(1, 30)], &[(1, 0)], 3)).is("I2", Outcome::Fail, "which was at 2");
        // Revision 3 is that of a write that nobody saw, and perhaps of this one.
        let mut story = two_writes();
        story.run(2, 1, Kind::Info, write(&[(1, 25)], 0)).ok(1, write_if(&[(1, 30)], &[(1, 3)], 4)).is("I2", Outcome::Pass, "");
    }

    #[test]
    fn a_read_of_everything_has_everything_once() {
        let mut story = two_writes();
        story.ok(1, read_all(2, &[(1, 2, 20)])).is("I2", Outcome::Fail, "route 2 is missing");
        let mut story = two_writes();
        story.ok(1, read_all(2, &[(1, 2, 20), (2, 2, 21), (2, 2, 21)])).is("I2", Outcome::Fail, "a route twice");
    }

    #[test]
    fn what_was_acknowledged_is_in_the_last_read() {
        let mut story = two_writes();
        story.ok(1, read(1, 1, Some((1, 10)))).is("I1", Outcome::Fail, "1=20 2=21");
        assert_eq!(story.verdict("I1").1.matches("is lost").count(), 1, "route 2 was not read again");
        story.ok(1, read(1, 2, Some((2, 20)))).is("I1", Outcome::Pass, "");
    }
}
