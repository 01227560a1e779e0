//! Lies: changes of a correct history that make it one which no correct gateway gives.

use std::collections::BTreeMap;

use crate::check::effect::Effects;
use crate::check::operation::{Operation, pair};
use crate::history::{Answered, Event, Kind, Op, Polled, Read, ReadAll, Written};

/// A lie, told about one of the events that allow it. False where none does.
type Lie = fn(&mut [Event], usize) -> bool;

/// Each with the invariants that it breaks for certain.
pub(super) const ALL: &[(&str, &[&str], Lie)] = &[
    ("a read is answered from before an acknowledged write", &["I2"], stale_read),
    ("an acknowledged write is nowhere", &["I1", "I2"], lost_write),
    ("a write that failed was seen", &["I2"], failed_write),
    ("two writes make one revision", &["I2"], repeated_revision),
    ("a read sees half of a transaction", &["I2"], half),
    ("a read sees what nobody wrote", &["I2"], invented),
    ("a route has another revision than its write", &["I2"], wrong_revision),
    ("a conditional write overlooks another", &["I2"], overlooked),
    ("a route is missing in a final read", &["I1", "I2"], missing),
    ("a node has another digest", &["I4"], other_digest),
    ("a node goes back", &["I3"], back),
    ("a request is answered with the value of another revision", &["I5"], old_value),
    ("a request is answered by the backend of another value", &["I5"], other_backend),
    ("a retry takes effect again", &["I9"], twice),
    ("a request fails at a node that is up", &["I6"], no_answer),
    ("no node answers a read after the last fault", &["I8"], no_recovery),
];

/// Changes one of the events that `change` accepts, beginning with the one chosen.
fn tell(events: &mut [Event], choice: usize, mut change: impl FnMut(&mut Event) -> bool) -> bool {
    let count = events.len().max(1);
    (0..count).any(|at| events.get_mut((choice + at) % count).is_some_and(&mut change))
}

/// For each event the greatest revision that was answered before its operation began.
fn floors(events: &[Event]) -> BTreeMap<u64, u64> {
    let (operations, _) = pair(events);
    let answered = |operation: &&Operation<'_>| {
        let revision = match operation.op() {
            Op::Read { seen: Some(seen), .. } => seen.revision,
            Op::Write { made: Some(made), .. } => made.revision,
            _ => return None,
        };
        operation.is_ok().then_some((operation.finish(), revision))
    };
    let mut ends: Vec<(u64, u64)> = operations.iter().filter_map(|operation| answered(&operation)).collect();
    ends.sort_unstable();
    let floor = |begin: u64| ends.iter().take_while(|(end, _)| *end < begin).map(|(_, revision)| *revision).max().unwrap_or(0);
    operations.iter().filter_map(|operation| Some((operation.end?.index, floor(operation.begin())))).collect()
}

fn stale_read(events: &mut [Event], choice: usize) -> bool {
    let floors = floors(events);
    tell(events, choice, |event| match &mut event.op {
        Op::Read { seen: Some(seen), .. } if floors.get(&event.index).is_some_and(|floor| *floor > 0) => {
            seen.revision = floors[&event.index] - 1;
            true
        }
        _ => false,
    })
}

/// The last acknowledged write of routes 2 and 3, and whatever came after it there, are gone from the end of the history on.
fn lost_write(events: &mut [Event], _: usize) -> bool {
    let acknowledged = events.iter().rev().find_map(|event| match &event.op {
        Op::Write { writes, made: Some(made), .. } if writes[0].0 == 2 => Some(made.revision),
        _ => None,
    });
    let Some(revision) = acknowledged else { return false };
    let Some(last) = events.iter().rposition(|event| event.kind == Kind::Ok && matches!(event.op, Op::Fault { .. })) else {
        return false;
    };
    events[last..].iter_mut().for_each(|event| {
        if let Op::ReadAll { seen: Some(ReadAll { items, .. }) } = &mut event.op {
            items.retain(|(key, own, _)| *key < 2 || *own < revision);
        }
    });
    true
}

fn failed_write(events: &mut [Event], choice: usize) -> bool {
    let seen: Vec<u64> = values_seen(events);
    tell(events, choice, |event| match &mut event.op {
        Op::Write { writes, made, idempotency_key: None, .. }
            if made.is_some() && writes.iter().any(|write| seen.contains(&write.1)) =>
        {
            *made = None;
            event.kind = Kind::Fail;
            true
        }
        _ => false,
    })
}

fn values_seen(events: &[Event]) -> Vec<u64> {
    let of = |event: &Event| match &event.op {
        Op::Read { seen: Some(seen), .. } => seen.items.iter().flatten().map(|(_, value)| *value).collect(),
        _ => Vec::new(),
    };
    events.iter().flat_map(of).collect()
}

fn repeated_revision(events: &mut [Event], choice: usize) -> bool {
    let mut first = None;
    tell(events, choice, |event| match (&mut event.op, first) {
        (Op::Write { made: Some(Written { revision, .. }), idempotency_key: None, .. }, None) => {
            first = Some(*revision);
            false
        }
        (Op::Write { made: Some(Written { revision, .. }), idempotency_key: None, .. }, Some(first)) if first != *revision => {
            *revision = first;
            true
        }
        _ => false,
    })
}

fn half(events: &mut [Event], choice: usize) -> bool {
    let mut before: Option<Vec<Option<(u64, u64)>>> = None;
    tell(events, choice, |event| match &mut event.op {
        Op::Read { keys, seen: Some(Read { items, .. }) } if keys.len() == 2 => {
            let now = items.clone();
            let told = before.as_ref().filter(|before| before[0] < now[0]).is_some_and(|before| {
                items[1] = before[1];
                true
            });
            before = Some(now);
            told
        }
        _ => false,
    })
}

fn invented(events: &mut [Event], choice: usize) -> bool {
    tell(events, choice, |event| match &mut event.op {
        Op::Read { seen: Some(Read { items, .. }), .. } => items[0].as_mut().is_some_and(|(_, value)| {
            *value += 1_000_000;
            true
        }),
        _ => false,
    })
}

fn wrong_revision(events: &mut [Event], choice: usize) -> bool {
    let acknowledged: Vec<u64> = {
        let (operations, _) = pair(events);
        let effects = Effects::gather(&operations).all;
        effects
            .iter()
            .filter(|effect| effect.acknowledged)
            .flat_map(|effect| effect.writes.iter().map(|(_, value)| *value))
            .collect()
    };
    tell(events, choice, |event| match &mut event.op {
        Op::Read { seen: Some(Read { items, .. }), .. } => match &mut items[0] {
            Some((own, value)) if acknowledged.contains(value) => {
                *own -= 1;
                true
            }
            _ => false,
        },
        _ => false,
    })
}

fn overlooked(events: &mut [Event], choice: usize) -> bool {
    let at = (0..events.len()).map(|at| (choice + at) % events.len().max(1)).find(|at| {
        matches!(&events[*at].op, Op::Write { preconditions, made: Some(_), .. } if preconditions.iter().any(|(_, asked)| *asked > 0))
    });
    let Some(at) = at else { return false };
    let Op::Write { writes, .. } = events[at].op.clone() else { return false };
    for event in events.iter_mut() {
        if let Op::Write { writes: same, preconditions, .. } = &mut event.op
            && *same == writes
        {
            preconditions.iter_mut().for_each(|(_, asked)| *asked = asked.saturating_sub(1));
        }
    }
    true
}

fn missing(events: &mut [Event], choice: usize) -> bool {
    let mut last = BTreeMap::new();
    for event in events.iter().filter(|event| matches!(&event.op, Op::ReadAll { seen: Some(_) })) {
        last.insert(event.node, event.index);
    }
    let acknowledged: Vec<u32> = events
        .iter()
        .filter_map(|event| match &event.op {
            Op::Write { writes, made: Some(_), .. } => Some(writes[0].0),
            _ => None,
        })
        .collect();
    tell(events, choice, |event| match &mut event.op {
        Op::ReadAll { seen: Some(seen) } if last.get(&event.node) == Some(&event.index) => {
            let place = seen.items.iter().position(|(key, ..)| acknowledged.contains(key));
            place.map(|place| seen.items.remove(place)).is_some()
        }
        _ => false,
    })
}

fn other_digest(events: &mut [Event], choice: usize) -> bool {
    let polls = |events: &[Event], revision: u64| {
        events.iter().filter(|event| matches!(&event.op, Op::Poll { seen: Some(seen) } if seen.revision == revision)).count()
    };
    let all = events.to_vec();
    tell(events, choice, |event| match &mut event.op {
        Op::Poll { seen: Some(Polled { revision, digest, .. }) } if polls(&all, *revision) > 1 => {
            digest.push('x');
            true
        }
        _ => false,
    })
}

fn back(events: &mut [Event], choice: usize) -> bool {
    let floor = |events: &[Event], ended: &Event| {
        let Op::Poll { seen: Some(seen) } = &ended.op else { return 0 };
        let begun = events[..ended.index as usize].iter().rposition(|event| event.process == ended.process).unwrap_or(0);
        let before = events[..begun].iter().filter(|event| event.node == ended.node);
        let polled = before.filter_map(|event| match &event.op {
            Op::Poll { seen: Some(before) } if before.life == seen.life => Some(before.revision),
            _ => None,
        });
        polled.max().unwrap_or(0)
    };
    let all = events.to_vec();
    tell(events, choice, |event| {
        let floor = floor(&all, event);
        match &mut event.op {
            Op::Poll { seen: Some(seen) } if floor > 0 => {
                seen.revision = floor - 1;
                true
            }
            _ => false,
        }
    })
}

fn old_value(events: &mut [Event], choice: usize) -> bool {
    let mut before: BTreeMap<u32, u64> = BTreeMap::new();
    tell(events, choice, |event| match &mut event.op {
        Op::Request { key, answer: Some(Answered { value: Some(value), backend, .. }) } => match before.insert(*key, *value) {
            Some(old) if old != *value => {
                *backend = Some(crate::history::backend_of(old));
                *value = old;
                true
            }
            _ => false,
        },
        _ => false,
    })
}

fn other_backend(events: &mut [Event], choice: usize) -> bool {
    tell(events, choice, |event| match &mut event.op {
        Op::Request { answer: Some(Answered { value: Some(value), backend, .. }), .. } => {
            *backend = Some(crate::history::backend_of(*value + 1));
            true
        }
        _ => false,
    })
}

fn twice(events: &mut [Event], choice: usize) -> bool {
    let keys: Vec<(usize, String)> = events
        .iter()
        .enumerate()
        .filter_map(|(at, event)| match &event.op {
            Op::Write { idempotency_key: Some(key), made: Some(_), .. } => Some((at, key.clone())),
            _ => None,
        })
        .collect();
    let seen = values_seen(events);
    let retried = keys
        .iter()
        .cycle()
        .skip(choice)
        .take(keys.len())
        .find(|(at, _)| matches!(&events[*at].op, Op::Write { writes, .. } if seen.contains(&writes[0].1)));
    let Some((at, _)) = retried else { return false };
    match &mut events[*at].op {
        Op::Write { made: Some(made), .. } => made.revision += 1_000,
        _ => return false,
    }
    true
}

/// The last operation of all is a request that fails, when all nodes are long up again and nothing changes.
fn no_answer(events: &mut [Event], _: usize) -> bool {
    let Some([begin, end, over]) = events.last_chunk_mut() else { return false };
    end.kind = Kind::Fail;
    over.time += 6_000_000_000;
    for event in [begin, end] {
        event.time += 6_000_000_000;
        event.op = Op::Request { key: 0, answer: None };
    }
    true
}

fn no_recovery(events: &mut [Event], _: usize) -> bool {
    let Some(last) = events.iter().rposition(|event| event.kind == Kind::Ok && matches!(event.op, Op::Fault { .. })) else {
        return false;
    };
    for event in &mut events[last..] {
        if let (Op::Read { seen, .. }, Kind::Ok) = (&mut event.op, event.kind) {
            (*seen, event.kind) = (None, Kind::Fail);
        }
        if let (Op::ReadAll { seen }, Kind::Ok) = (&mut event.op, event.kind) {
            (*seen, event.kind) = (None, Kind::Fail);
        }
    }
    true
}
