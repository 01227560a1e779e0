//! Linearizability of single routes (I2), by search: `porcupine-rs`, an implementation of Wing and Gong's algorithm with Lowe's cache.
//!
//! Each route is a register with revisions. That reads what the revision order says too, but by another way: it looks at nothing but one
//! route and real time, and so it also judges where the global revision would be wrong.
//!
//! A write with an unknown outcome that no read saw is left out. It may have happened unseen, but then an order exists without it: no two
//! writes have the same value, and nobody can have asked for a revision that he never saw. (Where somebody did, such writes stay in.) One that
//! was seen happened before the end of the first read that saw it. So nothing stays open for ever, the history of a route falls into
//! pieces between which nothing is under way, and memory is bounded: the search remembers a bit an operation of a piece for each step.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use porcupine_rs::{CheckResult, Model, Operation as Call, check_operations_timeout};

use super::Finding;
use super::effect::Effects;
use super::operation::Operation;
use crate::history::{Key, Op, Value};
use crate::test::Outcome;

/// How many operations a piece has at least, where the history can be cut.
const PIECE_MIN: usize = 1_000;

/// The largest piece that is searched: about 100 MB of memory where the first order tried is the right one.
const PIECE_MAX: usize = 30_000;

/// What the search of one piece may remember before it is given up.
const MEMORY_BYTES_MAX: usize = 1 << 30;

/// How many steps a second it remembers at most, and what a step takes besides its bits. Measured, and rounded up.
const STEPS_A_SECOND: usize = 500_000;
const STEP_BYTES: usize = 150;

/// What a route may hold: its value and its own revision, where that is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Held {
    /// 0 where the route does not exist.
    revision: Option<u64>,
    value: Option<Value>,
}

#[derive(Debug, Clone)]
enum Step {
    /// What earlier pieces left.
    Begin(Held),
    Read(Option<(u64, Value)>),
    Write {
        value: Value,
        revision: Option<u64>,
        precondition: Option<u64>,
        certain: bool,
    },
}

#[derive(Debug, Clone)]
struct Register;

impl Model for Register {
    type State = Held;
    type Op = Step;
    type Metadata = ();

    fn init() -> Held {
        Held { revision: Some(0), value: None }
    }

    fn step(held: &Held, step: &Step) -> (bool, Held) {
        match step {
            Step::Begin(begin) => (true, begin.clone()),
            Step::Read(None) => (held.value.is_none(), held.clone()),
            Step::Read(Some((revision, value))) => {
                let agrees = held.value == Some(*value) && held.revision.is_none_or(|known| known == *revision);
                (agrees, Held { revision: Some(*revision), value: Some(*value) })
            }
            Step::Write { value, revision, precondition, certain } => {
                let allowed = match (held.revision, precondition) {
                    (Some(present), Some(asked)) => present == *asked,
                    _ => true,
                };
                let grows = match (held.revision, revision) {
                    (Some(present), Some(made)) => made > &present,
                    _ => true,
                };
                match (allowed && grows, certain) {
                    (true, _) => (true, Held { revision: *revision, value: Some(*value) }),
                    // Nothing says that it happened: here it did not.
                    (false, false) => (true, held.clone()),
                    (false, true) => (false, held.clone()),
                }
            }
        }
    }
}

/// One operation on one route.
#[derive(Debug, Clone)]
struct Timed {
    begin: u64,
    end: u64,
    step: Step,
    /// For what is said about it.
    place: String,
}

/// Searches an order for each route, within a time for all.
pub(crate) fn check(operations: &[Operation<'_>], effects: &Effects<'_>, timeout: Duration) -> Finding {
    let deadline = Instant::now() + timeout;
    let mut looked_at = 0;
    let mut violations = Vec::new();
    let mut unknown = Vec::new();
    for (key, mut history) in by_route(operations, effects) {
        if !history.iter().any(|timed| matches!(timed.step, Step::Read(_))) {
            continue;
        }
        looked_at += history.len() as u64;
        history.sort_by_key(|timed| timed.begin);
        match route(&history, deadline) {
            Ok(()) => {}
            Err(Stop::Illegal(place)) => violations.push(format!("route {key}: no order explains its operations up to {place}")),
            Err(Stop::Unknown(why)) => unknown.push(format!("route {key}: {why}")),
        }
    }
    if violations.is_empty() && !unknown.is_empty() {
        return Finding::new("I2", Outcome::Unknown, format!("linearizability of {} routes: {}", unknown.len(), unknown[0]));
    }
    Finding::of("I2", looked_at, "operations on single routes in a linear order", &violations)
}

fn by_route(operations: &[Operation<'_>], effects: &Effects<'_>) -> BTreeMap<Key, Vec<Timed>> {
    let mut routes: BTreeMap<Key, Vec<Timed>> = BTreeMap::new();
    let mut revisions: HashSet<(Key, u64)> = HashSet::new();
    for operation in operations.iter().filter(|operation| operation.is_ok()) {
        if let Op::Read { keys, seen: Some(seen) } = operation.op() {
            for (key, item) in keys.iter().zip(&seen.items) {
                revisions.extend(item.map(|(own, _)| (*key, own)));
                let (begin, end) = (operation.begin(), operation.finish());
                routes.entry(*key).or_default().push(Timed { begin, end, step: Step::Read(*item), place: operation.place() });
            }
        }
    }
    for effect in &effects.all {
        revisions.extend(effect.writes.iter().filter_map(|(key, _)| Some((*key, effect.revision?))));
    }
    let asked = effects.all.iter().filter(|effect| effect.happened()).flat_map(|effect| effect.preconditions);
    let guessed: HashSet<Key> = asked.filter(|asked| asked.1 > 0 && !revisions.contains(asked)).map(|(key, _)| *key).collect();
    for effect in effects.all.iter().filter(|effect| effect.possible || effect.happened()) {
        for &(key, value) in effect.writes {
            let certain = effect.acknowledged || effect.revision.is_some();
            if !certain && !guessed.contains(&key) {
                continue;
            }
            let precondition = effect.preconditions.iter().find(|(asked, _)| *asked == key).map(|(_, revision)| *revision);
            let step = Step::Write { value, revision: effect.revision, precondition, certain };
            routes.entry(key).or_default().push(Timed {
                begin: effect.begin,
                end: effect.end,
                step,
                place: effect.first.place(),
            });
        }
    }
    routes
}

enum Stop {
    /// Where the first operation ends that nothing explains.
    Illegal(String),
    Unknown(String),
}

/// Searches an order of one route's operations, sorted by their beginning, piece by piece.
fn route(history: &[Timed], deadline: Instant) -> Result<(), Stop> {
    let mut held = Register::init();
    let mut from = 0;
    while from < history.len() {
        let to = cut(history, from);
        let piece = &history[from..to];
        if piece.len() > PIECE_MAX {
            return Err(Stop::Unknown(format!("{} operations without a pause are more than is searched", piece.len())));
        }
        match search(&held, piece, deadline) {
            CheckResult::Ok => {}
            CheckResult::Unknown => return Err(Stop::Unknown("no answer within the time for it".to_owned())),
            CheckResult::Illegal => return Err(Stop::Illegal(first(&held, piece, deadline))),
        }
        held = piece.iter().fold(held, after);
        from = to;
    }
    Ok(())
}

/// Where the piece ends that begins at `from`: nothing is under way there.
fn cut(history: &[Timed], from: usize) -> usize {
    let mut open_until = 0;
    for (at, timed) in history.iter().enumerate().skip(from) {
        if at - from >= PIECE_MIN && timed.begin > open_until {
            return at;
        }
        // What a piece leaves is known only where all its writes have their revision.
        let open = matches!(timed.step, Step::Write { revision: None, .. });
        open_until = open_until.max(if open { u64::MAX } else { timed.end });
    }
    history.len()
}

/// What a route holds after an operation of a piece that is in order: revisions grow, so the greatest one.
fn after(held: Held, timed: &Timed) -> Held {
    match timed.step {
        Step::Write { value, revision: Some(revision), .. } | Step::Read(Some((revision, value)))
            if Some(revision) > held.revision =>
        {
            Held { revision: Some(revision), value: Some(value) }
        }
        _ => held,
    }
}

fn search(held: &Held, piece: &[Timed], deadline: Instant) -> CheckResult {
    let left = deadline.saturating_duration_since(Instant::now()).min(patience(piece.len()));
    if left.is_zero() {
        return CheckResult::Unknown;
    }
    let call = |begin: u64, end: u64, step: &Step| Call::<Register> {
        client_id: None,
        call_time: i64::try_from(begin).unwrap_or(i64::MAX),
        return_time: i64::try_from(end).unwrap_or(i64::MAX),
        op: step.clone(),
        metadata: None,
    };
    let mut calls = Vec::with_capacity(piece.len() + 1);
    calls.push(Call::<Register> { call_time: -2, return_time: -1, ..call(0, 0, &Step::Begin(held.clone())) });
    calls.extend(piece.iter().map(|timed| call(timed.begin, timed.end, &timed.step)));
    check_operations_timeout(&calls, left)
}

/// How long a piece may be searched. The crate bounds its time and not its memory, so that time stands for both; an order that exists is
/// found far sooner.
fn patience(operations: usize) -> Duration {
    let seconds = MEMORY_BYTES_MAX / (STEPS_A_SECOND * (STEP_BYTES + operations / 8));
    Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX).max(1))
}

/// The end of the first operation that no order explains. A history that has an order has one for each of its beginnings, so half and
/// half again finds it.
fn first(held: &Held, piece: &[Timed], deadline: Instant) -> String {
    let mut ends: Vec<(u64, &str)> = piece.iter().map(|timed| (timed.end, timed.place.as_str())).collect();
    ends.sort_unstable();
    let legal = |end: &(u64, &str)| search(held, &until(piece, end.0), deadline) != CheckResult::Illegal;
    let at = ends.partition_point(legal);
    ends.get(at).or(ends.last()).map(|(_, place)| (*place).to_owned()).unwrap_or_default()
}

/// The history as it was at a point: what ended later is unknown.
fn until(piece: &[Timed], point: u64) -> Vec<Timed> {
    let known = piece.iter().filter(|timed| timed.begin <= point);
    let cut = known.filter_map(|timed| match &timed.step {
        _ if timed.end <= point => Some(timed.clone()),
        Step::Write { value, revision, precondition, .. } => {
            let step = Step::Write { value: *value, revision: *revision, precondition: *precondition, certain: false };
            Some(Timed { end: u64::MAX, step, ..timed.clone() })
        }
        _ => None,
    });
    cut.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::operation::pair;
    use crate::check::story::{Story, read, write, write_if};
    use crate::history::Kind;

    fn judge(story: &Story) -> Finding {
        let (operations, wrong) = pair(&story.events);
        assert_eq!(wrong, Vec::<String>::new());
        check(&operations, &Effects::gather(&operations), Duration::from_secs(10))
    }

    #[test]
    fn an_order_is_found() {
        let mut story = Story::new();
        story.begin(0, 1, &write(&[(1, 10)], 1)).ok(1, read(1, 0, None)).ok(1, read(1, 1, Some((1, 10))));
        story.end(0, 1, Kind::Ok, write(&[(1, 10)], 1)).ok(2, write_if(&[(1, 11)], &[(1, 1)], 2));
        story.run(3, 1, Kind::Info, write(&[(1, 12)], 0)).run(4, 1, Kind::Info, write(&[(1, 13)], 0));
        story.ok(1, read(1, 2, Some((2, 11)))).ok(1, read(1, 4, Some((4, 13)))).run(1, 1, Kind::Fail, write(&[(1, 14)], 0));
        assert_eq!(judge(&story).outcome, Outcome::Pass);
    }

    #[test]
    fn no_order_is_found_and_its_first_event_is_named() {
        let stale = |story: &mut Story| {
            story.ok(0, write(&[(1, 10)], 1)).ok(0, write(&[(1, 11)], 2)).ok(1, read(1, 2, Some((1, 10))));
        };
        let skipped = |story: &mut Story| {
            story.ok(0, write(&[(1, 10)], 1)).ok(0, write(&[(1, 11)], 2)).ok(0, write_if(&[(1, 12)], &[(1, 1)], 3));
        };
        let back_and_forth = |story: &mut Story| {
            story.begin(0, 1, &write(&[(1, 10)], 1)).ok(1, read(1, 1, Some((1, 10)))).ok(1, read(1, 1, None));
        };
        for (what, tell) in [("stale", &stale as &dyn Fn(&mut Story)), ("skipped", &skipped), ("back and forth", &back_and_forth)]
        {
            let mut story = Story::new();
            tell(&mut story);
            let wrong = story.events.last().expect("a story").index;
            let found = story.ok(7, write(&[(1, 90)], 9)).ok(7, read(1, 9, Some((9, 90))));
            let found = judge(found);
            assert_eq!(found.outcome, Outcome::Fail, "{what}");
            assert!(found.detail.contains(&format!("-{wrong}, process")), "{what}: {}", found.detail);
        }
    }

    #[test]
    fn a_revision_that_only_an_unseen_write_can_have_made() {
        let mut story = Story::new();
        story
            .run(0, 1, Kind::Info, write(&[(1, 10)], 0))
            .ok(1, write_if(&[(1, 11)], &[(1, 4)], 5))
            .ok(1, read(1, 5, Some((5, 11))));
        assert_eq!(judge(&story).outcome, Outcome::Pass);
        let mut story = Story::new();
        story.ok(1, write_if(&[(1, 11)], &[(1, 4)], 5)).ok(1, read(1, 5, Some((5, 11))));
        assert_eq!(judge(&story).outcome, Outcome::Fail);
    }

    #[test]
    fn long_histories_are_judged_in_pieces() {
        let mut story = Story::new();
        for revision in 1..=2_500 {
            story.ok(0, write(&[(1, revision)], revision)).ok(1, read(1, revision, Some((revision, revision))));
        }
        assert_eq!(judge(&story).outcome, Outcome::Pass);
        story.ok(1, read(1, 2_500, Some((2_499, 2_499))));
        assert_eq!(judge(&story).outcome, Outcome::Fail);
        let held = story.ok(1, read(1, 2_500, None));
        assert_eq!(judge(held).outcome, Outcome::Fail);
    }

    #[test]
    fn no_time_is_unknown() {
        let mut story = Story::new();
        story.ok(0, write(&[(1, 10)], 1)).ok(1, read(1, 1, Some((1, 10))));
        let (operations, _) = pair(&story.events);
        assert_eq!(check(&operations, &Effects::gather(&operations), Duration::ZERO).outcome, Outcome::Unknown);
    }

    /// Forty writes of which nobody knows whether they happened, some of which must have made a revision, and a read that nothing explains:
    /// too many orders to try.
    #[test]
    fn a_search_without_end_is_given_up() {
        let mut story = Story::new();
        for process in 0..40 {
            story.run(process, 1, Kind::Info, write(&[(1, process.into())], 0));
        }
        story.ok(50, write_if(&[(1, 90)], &[(1, 4)], 5)).ok(50, write_if(&[(1, 91)], &[(1, 4)], 6)).ok(50, read(1, 7, None));
        let (operations, _) = pair(&story.events);
        let began = Instant::now();
        let found = check(&operations, &Effects::gather(&operations), Duration::from_millis(500));
        assert_eq!(found.outcome, Outcome::Unknown, "{}", found.detail);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!((patience(1_000), patience(30_000)), (Duration::from_secs(7), Duration::from_secs(1)));
    }
}
