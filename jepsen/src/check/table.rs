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
        if let Some((blamed, revision)) = answer.upstream_error().map(|(_, service)| service).zip(answer.revision) {
            // What nobody saw may have been the table's.
            let held = timeline.held(key, revision).filter(|held| held.exact && !timeline.is_unsure(key))?;
            let named = backend_of(held.value);
            return Some(if named == blamed {
                Ok(())
            } else {
                Err(format!("{place}: route {key} named {named} at revision {revision}, and {blamed} is blamed"))
            });
        }
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

#[cfg(test)]
mod tests {
    use crate::check::story::{Story, failed_upstream, read, refused, request, write};
    use crate::history::{Answered, Kind, Op};
    use crate::test::Outcome;

    fn two_writes() -> Story {
        let mut story = Story::new();
        story.ok(0, write(&[(1, 10)], 1)).ok(0, write(&[(1, 20)], 3)).run(1, 1, Kind::Info, write(&[(1, 30)], 0));
        story
    }

    #[test]
    fn answers_of_one_table() {
        let mut story = two_writes();
        for answer in [
            refused(1, 404, Some(0)),
            request(1, 1, 10),
            request(1, 2, 10),
            request(1, 3, 20),
            request(1, 5, 30),
            request(1, 4, 20),
        ] {
            story.ok(2, answer);
        }
        story.is("I5", Outcome::Pass, "6 proxied answers");
    }

    #[test]
    fn answers_of_two() {
        for (answer, words) in [
            (request(1, 3, 10), "where the write of 1=20"),
            (request(1, 2, 20), "where the write of 1=10"),
            (request(1, 0, 10), "before the write of 1=10"),
            (request(1, 3, 99), "which nobody wrote"),
            (refused(1, 404, Some(2)), "no route 1 at revision 2"),
        ] {
            let mut story = two_writes();
            story.ok(2, answer).is("I5", Outcome::Fail, words);
        }
        let backend = Some("backend-3".to_owned());
        let answer = Answered { status: 200, revision: Some(1), value: Some(10), backend, proxy_status: None, life: 1 };
        let mut story = two_writes();
        story.ok(2, Op::Request { key: 1, answer: Some(answer) }).is(
            "I5",
            Outcome::Fail,
            "names backend-2, and backend-3 answered",
        );
    }

    #[test]
    fn the_backend_that_is_blamed_is_the_routes_own() {
        for (blamed, outcome) in [("backend-2", Outcome::Pass), ("backend-0", Outcome::Fail)] {
            let mut story = Story::new();
            story.ok(0, write(&[(1, 10)], 1)).ok(0, write(&[(1, 20)], 3));
            story.ok(2, failed_upstream(1, 502, 2, "connection_refused", blamed)).is("I5", outcome, "");
        }
    }

    #[test]
    fn an_unknown_write_that_traffic_saw_has_happened_by_then() {
        let mut story = two_writes();
        story.ok(2, request(1, 5, 30)).ok(2, request(1, 6, 20)).is("I5", Outcome::Fail, "answered 1=20 at revision 6, where");
        let mut story = two_writes();
        story.ok(2, request(1, 5, 30)).ok(2, read(1, 5, Some((3, 20)))).is("I2", Outcome::Fail, "after the write of 1=30");
        let mut story = two_writes();
        story.ok(2, request(1, 4, 30)).ok(2, read(1, 6, Some((5, 30)))).is("I5", Outcome::Fail, "answered 1=30 at revision 4");
    }
}
