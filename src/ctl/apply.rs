//! `apply`: files become one transaction, so that they take effect as a whole or not at all.

use anyhow::bail;
use reqwest::Method;
use serde_json::{Value, json};

use super::arguments::ApplyArguments;
use super::client::{CallError, Client};
use super::documents::Documents;
use super::print::{DIM, GOOD, out, plain, styled, text, warning};

/// Makes the files' resources so.
pub(super) async fn run(client: &Client, arguments: &ApplyArguments) -> anyhow::Result<()> {
    let documents = Documents::read(&arguments.files)?;
    documents.warnings().for_each(|text| warning(&text));
    let mut query = Vec::new();
    query.extend(arguments.prune.then_some("prune=true"));
    query.extend(arguments.dry_run.then_some("dryRun=true"));
    query.extend(arguments.wait.then_some("wait=live"));
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let answer = if arguments.prune {
        let body = json!({"items": documents.items()});
        client.write(Method::PUT, &format!("/v1/config{query}"), Some(&body)).await
    } else {
        let body = json!({"operations": documents.operations()});
        client.write(Method::POST, &format!("/v1/transactions{query}"), Some(&body)).await
    };
    print_written(&answer.map_err(|error| located(error, &documents))?, arguments.wait)
}

/// A refusal in the words of the files.
fn located(error: CallError, documents: &Documents) -> CallError {
    match error {
        CallError::Refused(mut problem) => {
            for (path, _) in &mut problem.errors {
                *path = documents.locate(path);
            }
            if problem.errors.len() == 1 {
                // It says the same as the one error, at a place of the request.
                problem.detail.clear();
            }
            CallError::Refused(problem)
        }
        other => other,
    }
}

/// Prints the answer to a write. Fails where `waited` for every member to serve it and one does not.
pub(super) fn print_written(answer: &Value, waited: bool) -> anyhow::Result<()> {
    for warning_text in list(answer, "warnings").iter().filter_map(Value::as_str) {
        warning(warning_text);
    }
    let revision = plain(answer, "revision");
    let is_dry = answer.get("dryRun").and_then(Value::as_bool).unwrap_or(false);
    let changed = answer.get("changed").and_then(Value::as_bool).unwrap_or(true);
    if is_dry {
        print_changes(answer);
        return Ok(());
    }
    for result in list(answer, "results") {
        let made_now = changed && plain(result, "revision") == revision;
        let word = match result.get("created").and_then(Value::as_bool) {
            Some(true) => styled(GOOD, "created"),
            _ if made_now => styled(GOOD, "changed"),
            _ => styled(DIM, "unchanged"),
        };
        out(format!("{} {} {word}", text(result, "kind"), text(result, "name")));
    }
    out(format!("revision {revision}{}", if changed { "" } else { " (nothing changed)" }));
    if waited { check_live(answer, &revision) } else { Ok(()) }
}

fn print_changes(answer: &Value) {
    let changes = list(answer, "changes");
    for change in changes {
        out(format!("{} {} would be {}", text(change, "kind"), text(change, "name"), text(change, "change")));
    }
    if changes.is_empty() {
        out("nothing would change");
    }
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
    use super::*;

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
