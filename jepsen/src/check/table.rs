//! One table an answer (I5): the revision, the value and the backend of a proxied answer belong together.

use super::Finding;
use super::effect::Effects;
use super::operation::Operation;
use super::timeline::Timeline;
use crate::history::{Answered, Key, Op, backend_of};

/// Compares each proxied answer with what its route held at the revision that it names.
pub(crate) fn check(operations: &[Operation<'_>], effects: &Effects<'_>, timeline: &Timeline) -> Finding {
    let mut violations = Vec::new();
    let mut looked_at = 0;
    for operation in operations.iter().filter(|operation| operation.is_ok()) {
        let Op::Request { key, answer: Some(answer) } = operation.op() else { continue };
        let Some(judged) = judge(operation, *key, answer, effects, timeline) else { continue };
        looked_at += 1;
        violations.extend(judged.err());
    }
    Finding::of("I5", looked_at, "proxied answers of one table each", &violations)
}

/// None where the answer says nothing about the table: an error, whose availability others judge, or no revision.
fn judge(
    operation: &Operation<'_>,
    key: Key,
    answer: &Answered,
    effects: &Effects<'_>,
    timeline: &Timeline,
) -> Option<Result<(), String>> {
    let place = operation.place();
    let Some(value) = answer.value else {
        // An answer of the gateway itself, without a route: 404. Any other shows no value because no filter ran.
        let revision = answer.revision.filter(|_| answer.status == 404)?;
        return Some(match timeline.held(key, revision) {
            None => Ok(()),
            Some(held) => {
                let writer = effects.all[held.effect].name();
                Err(format!("{place}: no route {key} at revision {revision}, after {writer}"))
            }
        });
    };
    let of_table =
        answer.revision.map_or(Ok(()), |revision| at_revision(&place, key, value, revision, operation, effects, timeline));
    let named = backend_of(value);
    Some(of_table.and(match &answer.backend {
        Some(backend) if *backend != named => {
            Err(format!("{place}: value {value} of route {key} names {named}, and {backend} answered"))
        }
        _ => Ok(()),
    }))
}

fn at_revision(
    place: &str,
    key: Key,
    value: u64,
    revision: u64,
    operation: &Operation<'_>,
    effects: &Effects<'_>,
    timeline: &Timeline,
) -> Result<(), String> {
    let saw = format!("{place}: answered {key}={value} at revision {revision}");
    let Some(at) = effects.writer(key, value) else { return Err(format!("{saw}, which nobody wrote")) };
    let writer = &effects.all[at];
    if !writer.possible {
        return Err(format!("{saw}, and {} certainly did nothing", writer.name()));
    }
    if operation.finish() < writer.begin {
        return Err(format!("{saw}, before it was asked for by {}", writer.name()));
    }
    match timeline.held(key, revision) {
        Some(held) if held.effect == at => Ok(()),
        Some(held) => Err(format!("{saw}, where {} holds", effects.all[held.effect].name())),
        None => Err(format!("{saw}, before {} made it", writer.name())),
    }
}
