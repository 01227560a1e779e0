//! `apply`: files become one revision, so that they take effect as a whole or not at all.
//!
//! What fits into one transaction is held, and sent as one. What is larger goes as the body of `PUT /v1/config` while it is read: the node
//! stages it, and makes it live once it has all of it.

mod answer;
#[cfg(test)]
mod tests;

use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use reqwest::Method;
use serde_json::Value;

use answer::print_applied;
pub(super) use answer::print_written;

use super::arguments::ApplyArguments;
use super::client::{AGAIN, ANSWER_TIME_MAX, BROKEN_OFF, CallError, Client};
use super::documents::{DocumentError, Files, Item};
use super::print::warning;
use super::reading::{Reading, lock};
use crate::model::limits::{TRANSACTION_BYTES_MAX, TRANSACTION_OPERATIONS_MAX};

/// Makes the files' resources so.
pub(super) async fn run(client: &Client, arguments: &ApplyArguments) -> anyhow::Result<()> {
    let answer = send(client, arguments, Reading::of(arguments.files.clone())).await?;
    print_applied(&answer, arguments)
}

/// Sends what is read. Gives the node's answer.
async fn send(client: &Client, arguments: &ApplyArguments, mut reading: Reading) -> anyhow::Result<Value> {
    let mut items = Vec::new();
    let is_all = fill(&mut reading, &mut items).await?;
    if is_all {
        lock(&reading.files()).warnings().for_each(|text| warning(&text));
        return Ok(transact(client, arguments, &items, &reading.files()).await?);
    }
    upload(client, arguments, items, reading).await
}

/// Takes resources up to a transaction's bounds. False: there are more.
async fn fill(reading: &mut Reading, items: &mut Vec<Item>) -> Result<bool, DocumentError> {
    let mut byte_count = 0;
    while items.len() <= TRANSACTION_OPERATIONS_MAX && byte_count <= TRANSACTION_BYTES_MAX {
        let Some(batch) = reading.next().await? else { return Ok(true) };
        byte_count += batch.iter().map(Item::byte_count).sum::<usize>();
        items.extend(batch);
    }
    Ok(false)
}

/// Path and query of a write.
fn path_of(path: &str, arguments: &ApplyArguments) -> String {
    let flags = [(arguments.prune, "prune=true"), (arguments.dry_run, "dryRun=true"), (arguments.wait, "wait=live")];
    let query: Vec<&str> = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, parameter)| *parameter).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

async fn transact(client: &Client, arguments: &ApplyArguments, items: &[Item], files: &Mutex<Files>) -> Result<Value, CallError> {
    let (method, path, begin, before, longer) = if arguments.prune {
        // What goes may be much more than what stands in the files.
        (Method::PUT, "/v1/config", BEGIN, "", ANSWER_TIME_MAX)
    } else {
        (Method::POST, "/v1/transactions", r#"{"operations":["#, r#""op":"put","#, Duration::ZERO)
    };
    let mut body = begin.to_owned();
    write(items, before, &mut true, &mut body);
    body.push_str(END);
    let answer = client.write_text(method, &path_of(path, arguments), body, longer).await;
    answer.map_err(|error| located(error, &lock(files), items))
}

/// What stands before and after the items of a configuration.
const BEGIN: &str = r#"{"items":["#;
const END: &str = "\n]}\n";

fn write(items: &[Item], before: &str, is_first: &mut bool, text: &mut String) {
    for item in items {
        text.push_str(if mem::take(is_first) { "\n" } else { ",\n" });
        item.write(before, text);
    }
}

async fn upload(client: &Client, arguments: &ApplyArguments, first: Vec<Item>, reading: Reading) -> anyhow::Result<Value> {
    let server = client.choose().await?;
    let files = reading.files();
    let fault = Arc::new(Mutex::new(None));
    let body = Upload { first, reading, is_first: true, is_over: false, fault: Arc::clone(&fault) }.pieces();
    let answer = client.upload(&server, &path_of("/v1/config", arguments), body).await;
    lock(&files).warnings().for_each(|text| warning(&text));
    if let Some(error) = lock(&fault).take() {
        anyhow::bail!("{error}\n  {BROKEN_OFF}");
    }
    Ok(answer.map_err(|error| again(located(error, &lock(&files), &[])))?)
}

/// A body that is made of what is read.
struct Upload {
    /// What was read before it began.
    first: Vec<Item>,
    reading: Reading,
    /// Whether nothing was written yet.
    is_first: bool,
    is_over: bool,
    /// Takes why the files could not be read to their end.
    fault: Arc<Mutex<Option<DocumentError>>>,
}

impl Upload {
    /// The body piece by piece; `None` breaks it off.
    fn pieces(self) -> impl Stream<Item = Option<Bytes>> + Send + 'static {
        stream::unfold(self, |mut upload| async { upload.next().await.map(|piece| (piece, upload)) })
    }

    async fn next(&mut self) -> Option<Option<Bytes>> {
        if self.is_over {
            return None;
        }
        let mut text = if self.is_first { BEGIN.to_owned() } else { String::new() };
        let batch = match mem::take(&mut self.first) {
            none if none.is_empty() => self.reading.next().await,
            first => Ok(Some(first)),
        };
        match batch {
            Ok(Some(items)) => write(&items, "", &mut self.is_first, &mut text),
            Ok(None) => {
                self.is_over = true;
                text.push_str(END);
            }
            Err(error) => {
                self.is_over = true;
                *lock(&self.fault) = Some(error);
                return Some(None);
            }
        }
        Some(Some(text.into()))
    }
}

/// A refusal in the words of the files.
fn located(error: CallError, files: &Files, items: &[Item]) -> CallError {
    match error {
        CallError::Refused(mut problem) => {
            for (path, _) in &mut problem.errors {
                *path = files.locate(path, items);
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

/// A refusal that leaves it open whether anything was applied, with what to do then.
fn again(error: CallError) -> CallError {
    match error {
        CallError::Refused(mut problem) if problem.outcome.as_deref() == Some("unknown") => {
            let separator = if problem.detail.is_empty() { "" } else { "; " };
            problem.detail.push_str(separator);
            problem.detail.push_str(AGAIN);
            CallError::Refused(problem)
        }
        other => other,
    }
}
