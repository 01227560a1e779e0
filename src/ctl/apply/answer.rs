//! What a node answers to a write, printed.

use std::collections::BTreeMap;
use std::iter;

use anyhow::bail;
use serde_json::Value;

use crate::ctl::arguments::ApplyArguments;
use crate::ctl::print::{DIM, GOOD, out, plain, styled, text, warning};

/// Resources that are told one by one; of more, how many they are.
const LINES_MAX: usize = 20;

/// Prints the answer to a write. Fails where `waited` for every member to serve it and one does not.
pub(in crate::ctl) fn print_written(answer: &Value, waited: bool) -> anyhow::Result<()> {
    print(answer, usize::MAX, waited)
}

/// Prints the answer to what `apply` sent: of many resources their counts, unless all of them are asked for.
pub(super) fn print_applied(answer: &Value, arguments: &ApplyArguments) -> anyhow::Result<()> {
    print(answer, if arguments.verbose { usize::MAX } else { LINES_MAX }, arguments.wait)
}

fn print(answer: &Value, lines_max: usize, waited: bool) -> anyhow::Result<()> {
    for warning_text in list(answer, "warnings").iter().filter_map(Value::as_str) {
        warning(warning_text);
    }
    lines(answer, lines_max).iter().for_each(out);
    if waited { check_live(answer, &plain(answer, "revision")) } else { Ok(()) }
}

fn lines(answer: &Value, lines_max: usize) -> Vec<String> {
    if answer.get("dryRun").and_then(Value::as_bool) == Some(true) {
        return changes(answer, lines_max);
    }
    let revision = plain(answer, "revision");
    let changed = answer.get("changed").and_then(Value::as_bool).unwrap_or(true);
    let word = |result: &Value| match result.get("created").and_then(Value::as_bool) {
        Some(true) => "created",
        _ if changed && plain(result, "revision") == revision => "changed",
        _ => "unchanged",
    };
    let results = list(answer, "results");
    // Resources of a configuration that are as they were have no results.
    let unchanged = answer.get("unchanged").and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let mut lines: Vec<String> = if results.len() > lines_max {
        let words = results.iter().map(word).chain(iter::repeat_n("unchanged", unchanged));
        vec![format!("{} resources: {}", results.len() + unchanged, counts(words))]
    } else {
        let coloured = |word| styled(if word == "unchanged" { DIM } else { GOOD }, word);
        let line = |result| format!("{} {} {}", text(result, "kind"), text(result, "name"), coloured(word(result)));
        let rest = (unchanged > 0 && answer.get("operations").is_none()).then(|| format!("{unchanged} resources unchanged"));
        results.iter().map(line).chain(rest).collect()
    };
    // Of a large change, which has no results.
    if let Some(operations) = answer.get("operations") {
        let rest = if unchanged > 0 { format!(", {unchanged} unchanged") } else { String::new() };
        lines.push(format!("{} resources put, {} deleted{rest}", plain(operations, "put"), plain(operations, "delete")));
    }
    lines.push(format!("revision {revision}{}", if changed { "" } else { " (nothing changed)" }));
    lines
}

fn changes(answer: &Value, lines_max: usize) -> Vec<String> {
    let changes = list(answer, "changes");
    let mut lines: Vec<String> = if changes.len() > lines_max {
        let words = changes.iter().map(|change| text(change, "change"));
        vec![format!("{} resources would change: {}", changes.len(), counts(words))]
    } else {
        let line = |change| format!("{} {} would be {}", text(change, "kind"), text(change, "name"), text(change, "change"));
        changes.iter().map(line).collect()
    };
    match answer.get("changesOmitted").and_then(Value::as_u64) {
        Some(more) if more > 0 => lines.push(format!("and {more} more would change")),
        _ if lines.is_empty() => lines.push("nothing would change".to_owned()),
        _ => {}
    }
    lines
}

/// `3 changed, 12 created`
fn counts<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut counts = BTreeMap::new();
    words.for_each(|word| *counts.entry(word).or_insert(0) += 1);
    counts.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

fn check_live(answer: &Value, revision: &str) -> anyhow::Result<()> {
    let members = list(answer, "members");
    let behind: Vec<String> = members
        .iter()
        .filter(|member| member.get("live").and_then(Value::as_bool) != Some(true))
        .map(|member| {
            format!("node {}: at revision {}, {}", plain(member, "id"), plain(member, "revision"), plain(member, "reason"))
        })
        .collect();
    if answer.get("live").and_then(Value::as_bool) == Some(true) {
        out(format!("live on {} of {} members", members.len(), members.len()));
        return Ok(());
    }
    bail!("revision {revision} was made, but not every member serves it yet\n  {}", behind.join("\n  "))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_of_any_size_are_told() {
        let result = |name, revision, created| json!({"kind": "Route", "name": name, "revision": revision, "created": created});
        let change = json!({"kind": "Route", "name": "a", "change": "created"});
        for (answer, expected) in [
            (
                json!({"revision": 7, "results": [result("a", 7, true), result("b", 7, false), result("c", 3, false)]}),
                "Route a created\nRoute b changed\nRoute c unchanged\nrevision 7",
            ),
            (json!({"revision": 7, "changed": false, "results": []}), "revision 7 (nothing changed)"),
            (
                json!({"revision": 8, "results": [], "operations": {"put": 12000, "delete": 3}}),
                "12000 resources put, 3 deleted\nrevision 8",
            ),
            (
                json!({"revision": 8, "results": [], "operations": {"put": 12000, "delete": 3}, "unchanged": 5}),
                "12000 resources put, 3 deleted, 5 unchanged\nrevision 8",
            ),
            (
                json!({"revision": 7, "results": [result("a", 7, true)], "unchanged": 2}),
                "Route a created\n2 resources unchanged\nrevision 7",
            ),
            (json!({"dryRun": true, "changes": []}), "nothing would change"),
            (json!({"dryRun": true, "changes": [change], "changesOmitted": 0}), "Route a would be created"),
            (
                json!({"dryRun": true, "changes": [change], "changesOmitted": 12000}),
                "Route a would be created\nand 12000 more would change",
            ),
        ] {
            assert_eq!(anstream::adapter::strip_str(&lines(&answer, LINES_MAX).join("\n")).to_string(), expected);
        }
    }

    #[test]
    fn many_resources_are_counted() {
        let result =
            |number| json!({"kind": "Route", "name": format!("r{number}"), "revision": 7 - number % 3, "created": number == 3});
        let answer = |count: usize| json!({"revision": 7, "results": (0..count).map(result).collect::<Vec<_>>()});
        assert_eq!(lines(&answer(LINES_MAX), LINES_MAX).len(), LINES_MAX + 1);
        let summary = "21 resources: 6 changed, 1 created, 14 unchanged";
        assert_eq!(lines(&answer(LINES_MAX + 1), LINES_MAX), [summary, "revision 7"]);
        assert_eq!(lines(&answer(LINES_MAX + 1), usize::MAX).len(), LINES_MAX + 2);
        let mut of_more = answer(LINES_MAX + 1);
        of_more["unchanged"] = json!(2_000);
        assert_eq!(lines(&of_more, LINES_MAX)[0], "2021 resources: 6 changed, 1 created, 2014 unchanged");
        let change = |number| json!({"kind": "Route", "name": "r", "change": if number == 0 { "deleted" } else { "created" }});
        let dry = json!({"dryRun": true, "changes": (0..30).map(change).collect::<Vec<_>>()});
        assert_eq!(lines(&dry, LINES_MAX), ["30 resources would change: 29 created, 1 deleted"]);
    }

    #[test]
    fn a_member_that_is_behind_fails_the_wait_and_only_that() {
        let behind = json!({"revision": 7, "live": false, "results": [], "members": [
            {"id": 1, "revision": 7, "live": true, "reason": null},
            {"id": 3, "revision": 5, "live": false, "reason": "no answer for 1 s"}]});
        let message = print_written(&behind, true).unwrap_err().to_string();
        assert!(message.contains("revision 7 was made") && message.contains("node 3: at revision 5, no answer"), "{message}");
        assert!(!message.contains("node 1"), "{message}");
        assert!(print_written(&behind, false).is_ok());
        assert!(print_written(&json!({"revision": 7, "live": true, "members": [{"id": 1, "live": true}]}), true).is_ok());
    }
}
