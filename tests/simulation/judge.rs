//! The judgement: State's own history, replayed revision by revision, must explain everything that the clients saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use raftgate::model::{NodeId, Revision, State};
use raftgate::table::{RequestView, Snapshot};

use crate::client::{KEYS, key, tag_of};
use crate::node::Place;
use crate::record::{Asked, Attempt, Record, Seen};

type Content = BTreeMap<u64, (Revision, String)>;

pub(crate) fn judge(record: &Record, places: &BTreeMap<NodeId, Arc<Place>>) -> Result<(), String> {
    let mut broken = record.all_broken();
    let running: Vec<_> = places.values().filter_map(|place| place.running.lock().unwrap().clone()).collect();
    let state = running.first().map(|(node, _)| node.state()).ok_or("no node runs")?;
    for (node, live) in &running {
        let own = node.state();
        if own.state_digest() != state.state_digest() {
            broken.push(format!("I4: node {} ends with another State", node.node_id()));
        }
        broken.extend(table_differs(&live.load(), &own).map(|what| format!("I5: node {}: {what}", node.node_id())));
    }
    let contents = replay(&state)?;
    let attempts = record.attempts();
    broken.extend(attempts.iter().filter_map(|attempt| unexplained(attempt, &contents, state.revision())));
    broken.extend(effects(&attempts, &state));
    broken.extend(out_of_order(&attempts));
    if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
}

/// What each revision held.
fn replay(state: &State) -> Result<BTreeMap<Revision, Content>, String> {
    let mut content = Content::new();
    let mut contents = BTreeMap::from([(Revision::ZERO, content.clone())]);
    for (expected, entry) in (Revision::ZERO.0 + 1..).zip(state.history()) {
        if entry.revision.0 != expected {
            return Err(format!("history goes from {} to {}", expected - 1, entry.revision));
        }
        for change in &entry.changes {
            let number = change.key.name.as_str()[1..].parse().unwrap();
            match &change.after {
                Some(version) => drop(content.insert(number, (entry.revision, tag_of(&version.spec)))),
                None => drop(content.remove(&number)),
            }
        }
        contents.insert(entry.revision, content.clone());
    }
    Ok(contents)
}

fn content_of(state: &State) -> Content {
    let of = |number| state.get(&key(number)).map(|resource| (number, (resource.revision, tag_of(&resource.spec))));
    (0..KEYS).filter_map(of).collect()
}

/// Whether an answer is one that the history does not have.
fn unexplained(attempt: &Attempt, contents: &BTreeMap<Revision, Content>, last: Revision) -> Option<String> {
    match (&attempt.asked, &attempt.seen) {
        (Asked::Read, Seen::State(state)) => {
            let expected = contents.get(&state.revision());
            (expected != Some(&content_of(state)))
                .then(|| format!("I2: a read saw revision {} as it never was", state.revision()))
        }
        (Asked::Put { keys, tag, at }, Seen::Applied(revision)) => {
            let Some(content) = contents.get(revision) else {
                return Some(format!("I1: {tag} was acknowledged at {revision}, history ends at {last}"));
            };
            if keys.iter().any(|number| content.get(number) != Some(&(*revision, tag.clone()))) {
                return Some(format!("I1: {tag} was acknowledged at {revision}, which holds {content:?}"));
            }
            let before = contents.get(&Revision(revision.0 - 1))?.get(&keys[0]).map_or(Revision::ZERO, |(revision, _)| *revision);
            at.filter(|at| *at != before).map(|at| format!("I2: {tag} was applied at {revision} on {before}, not on {at}"))
        }
        (Asked::Put { keys, tag, at }, Seen::Refused(revision)) => {
            let present = contents.get(revision)?.get(&keys[0]).map_or(Revision::ZERO, |(revision, _)| *revision);
            let wrongly = at.is_none_or(|at| at == present);
            wrongly.then(|| format!("I2: {tag} was refused at {revision}, where its condition {at:?} holds"))
        }
        (Asked::Delete { key }, Seen::Applied(revision)) => {
            let gone = contents.get(revision).is_some_and(|content| !content.contains_key(key));
            (!gone).then(|| format!("I1: r{key} was removed at {revision}, and is there"))
        }
        (Asked::Delete { key }, Seen::Refused(revision)) => {
            let there = contents.get(revision)?.contains_key(key);
            there.then(|| format!("I2: removing r{key} was refused at {revision}, where it is"))
        }
        _ => None,
    }
}

/// What certainly did not happen is nowhere; what happened, happened once (I9).
fn effects(attempts: &[Attempt], state: &State) -> Vec<String> {
    let mut made: BTreeMap<String, BTreeSet<Revision>> = BTreeMap::new();
    for entry in state.history() {
        for version in entry.changes.iter().filter_map(|change| change.after.as_ref()) {
            made.entry(tag_of(&version.spec)).or_default().insert(entry.revision);
        }
    }
    let mut broken = Vec::new();
    for attempt in attempts {
        let Asked::Put { tag, .. } = &attempt.asked else { continue };
        let revisions = made.get(tag).cloned().unwrap_or_default();
        if revisions.len() > 1 {
            broken.push(format!("I9: {tag} took effect at {revisions:?}"));
        }
        if matches!(attempt.seen, Seen::NotApplied | Seen::Refused(_)) && !revisions.is_empty() {
            broken.push(format!("{tag} was answered {:?}, and is at {revisions:?}", attempt.seen));
        }
    }
    broken
}

/// Whatever began after an answer came stands at the same revision or a later one.
fn out_of_order(attempts: &[Attempt]) -> Vec<String> {
    let revision_of = |attempt: &Attempt| match &attempt.seen {
        Seen::Applied(revision) | Seen::Refused(revision) => Some(*revision),
        Seen::State(state) => Some(state.revision()),
        Seen::Unknown | Seen::NotApplied => None,
    };
    let mut ends: Vec<(Duration, Revision)> =
        attempts.iter().filter_map(|attempt| Some((attempt.end?, revision_of(attempt)?))).collect();
    ends.sort();
    let mut highest = Revision::ZERO;
    for (_, revision) in &mut ends {
        highest = highest.max(*revision);
        *revision = highest;
    }
    let mut broken = Vec::new();
    for attempt in attempts {
        let Some(revision) = revision_of(attempt) else { continue };
        let known = ends.partition_point(|(end, _)| *end < attempt.begin);
        let Some((_, known)) = known.checked_sub(1).map(|at| ends[at]) else { continue };
        if revision < known {
            broken.push(format!("I2: {:?} began when {known} was known, and was answered at {revision}", attempt.asked));
        }
    }
    broken
}

/// Whether the published table sends a key's path elsewhere than State says.
fn table_differs(table: &Arc<Snapshot>, state: &State) -> Option<String> {
    let headers = HeaderMap::new();
    let expected = content_of(state);
    (0..KEYS).find_map(|number| {
        let path = format!("/r{number}");
        let request = RequestView {
            listener: "default",
            host: "a.test",
            path: &path,
            query: None,
            method: &Method::GET,
            headers: &headers,
        };
        let found = table.find(&request).map(|matched| matched.rule.rule.backend_refs[0].name.as_str().to_owned());
        let tag = expected.get(&number).map(|(_, tag)| tag.clone());
        (found != tag).then(|| format!("{path} goes to {found:?}, State says {tag:?}"))
    })
}
