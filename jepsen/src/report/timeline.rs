//! `timeline.html`: each operation as a bar in its process's row, with what was asked and answered as hover text, and the faults shaded.
//!
//! A process whose outcome was unknown is never used again, so that rows would be many: processes share a row where their times do not
//! overlap. Of long histories only a part is drawn: what did not succeed first, and of the rest an even choice.

use std::collections::HashMap;

use super::chart::{colour_of, escape, name_of, push, seconds};
use crate::check::fault::Faults;
use crate::check::operation::Operation;
use crate::history::{Kind, Op, Process};
use crate::test::{Outcome, Results, Test};

/// How many operations are drawn at most.
const BARS_MAX: usize = 10_000;
/// How long a hover text is at most, in characters.
const TEXT_MAX: usize = 400;
const SECOND_PX: f64 = 120.0;
const WIDTH_PX_MAX: f64 = 100_000.0;
const ROW_PX: f64 = 14.0;
const TOP_PX: f64 = 24.0;

const STYLE: &str = "body{font:13px sans-serif;margin:12px}table{border-collapse:collapse}td{padding:2px 10px;vertical-align:top}\
    .chart{overflow-x:auto;border:1px solid #aaa;margin-top:12px}.ok{fill:#6fa8dc}.info{fill:#e69138}.fail{fill:#cc0066}\
    rect:hover{stroke:#000}";

/// Draws the page.
pub(crate) fn draw(test: &Test, results: &Results, operations: &[Operation<'_>], faults: &Faults<'_>) -> String {
    let clients: Vec<&Operation<'_>> =
        operations.iter().filter(|operation| matches!(operation.invoke.process, Process::Client(_))).collect();
    let length = operations.iter().map(|operation| operation.end.unwrap_or(operation.invoke).time).max().unwrap_or(0);
    let pixels = (seconds(length) * SECOND_PX).clamp(300.0, WIDTH_PX_MAX);
    let x = |time: u64| seconds(time.min(length)) / seconds(length.max(1)) * pixels;
    let (rows, count) = rows(&clients, length);
    let drawn = choose(&clients);
    let height = TOP_PX + f64::from(count) * ROW_PX + 6.0;
    let mut page = String::from("<!doctype html>\n<html><head><meta charset=\"utf-8\"><title>timeline</title>");
    push(&mut page, format_args!("<style>{STYLE}</style></head><body>\n{}", head(test, results)));
    let all = clients.len();
    let part =
        if drawn.len() < all { format!("Drawn: {} of {all} operations.", drawn.len()) } else { format!("{all} operations.") };
    push(&mut page, format_args!("<p>{part} Rows are processes that are not in use at one time; columns are faults.</p>\n"));
    push(&mut page, format_args!(r#"<div class="chart"><svg width="{pixels:.0}" height="{height:.0}" font-size="11">"#));
    for window in &faults.windows {
        let (left, right) = (x(window.begin), x(window.end));
        let (width, name) = ((right - left).max(2.0), escape(&name_of(window)));
        let shade = format_args!(
            "<rect x=\"{left:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{height:.0}\" fill=\"{}\" fill-opacity=\"0.25\"><title>{name}</title></rect>\n",
            colour_of(window)
        );
        push(&mut page, shade);
    }
    let every = (SECOND_PX * seconds(length) / pixels).ceil().max(1.0);
    let marks = std::iter::successors(Some(0.0), |second| Some(second + every)).take_while(|second| *second <= seconds(length));
    for second in marks {
        let left = second / seconds(length.max(1)) * pixels;
        push(&mut page, format_args!("<text x=\"{left:.0}\" y=\"12\">{second:.0} s</text>\n"));
    }
    for operation in drawn {
        let row = rows.get(&operation.invoke.process).copied().unwrap_or(0);
        let end = operation.end.map_or(length, |end| end.time);
        let (left, top) = (x(operation.invoke.time), TOP_PX + f64::from(row) * ROW_PX);
        let (width, class) = ((x(end) - left).max(2.0), class_of(operation));
        let bar = format_args!(
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.0}\" width=\"{width:.1}\" height=\"{:.0}\"><title>{}</title></rect>\n",
            ROW_PX - 2.0,
            escape(&text_of(operation))
        );
        push(&mut page, bar);
    }
    page.push_str("</svg></div></body></html>\n");
    page
}

/// What the test was, and the verdicts.
fn head(test: &Test, results: &Results) -> String {
    let mut head = String::new();
    let overall = outcome_name(crate::check::overall(results));
    push(
        &mut head,
        format_args!("<h1>{overall}</h1><p>Seed {}. Again: <code>{}</code></p><table>\n", test.seed, escape(&test.command)),
    );
    for verdict in &results.verdicts {
        let (name, outcome, detail) = (escape(&verdict.name), outcome_name(verdict.outcome), escape(&verdict.detail));
        push(&mut head, format_args!("<tr><td>{name}</td><td>{outcome}</td><td>{detail}</td></tr>\n"));
    }
    head.push_str("</table>\n");
    head
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
        Outcome::Unknown => "unknown",
        Outcome::NotTested => "not tested",
    }
}

/// A row for each process; those whose times do not overlap share one. Gives the number of rows, too.
fn rows(operations: &[&Operation<'_>], length: u64) -> (HashMap<Process, u32>, u32) {
    let mut spans: HashMap<Process, (u64, u64)> = HashMap::new();
    for operation in operations {
        let (begin, end) = (operation.invoke.time, operation.end.map_or(length, |end| end.time));
        let span = spans.entry(operation.invoke.process).or_insert((begin, end));
        *span = (span.0.min(begin), span.1.max(end));
    }
    let mut spans: Vec<(u64, u64, Process)> = spans.into_iter().map(|(process, (begin, end))| (begin, end, process)).collect();
    spans.sort_unstable();
    let mut free_at: Vec<u64> = Vec::new();
    let mut rows = HashMap::new();
    for (begin, end, process) in spans {
        let row = free_at.iter().position(|free| *free < begin).unwrap_or(free_at.len());
        match free_at.get_mut(row) {
            Some(free) => *free = end,
            None => free_at.push(end),
        }
        rows.insert(process, u32::try_from(row).unwrap_or(u32::MAX));
    }
    (rows, u32::try_from(free_at.len()).unwrap_or(u32::MAX))
}

/// What is drawn: at most half of the room for what did not succeed, and the rest for an even choice of what did.
fn choose<'a, 'b>(operations: &[&'b Operation<'a>]) -> Vec<&'b Operation<'a>> {
    let (ok, other): (Vec<_>, Vec<_>) = operations.iter().copied().partition(|operation| operation.is_ok());
    let mut drawn = even(&other, if operations.len() > BARS_MAX { BARS_MAX / 2 } else { BARS_MAX });
    drawn.extend(even(&ok, BARS_MAX - drawn.len()));
    drawn
}

fn even<T: Copy>(all: &[T], most: usize) -> Vec<T> {
    all.iter().copied().step_by(all.len().div_ceil(most.max(1)).max(1)).collect()
}

fn class_of(operation: &Operation<'_>) -> &'static str {
    match operation.outcome() {
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Invoke | Kind::Info => "info",
    }
}

fn text_of(operation: &Operation<'_>) -> String {
    let what = match operation.op() {
        Op::Read { keys, seen } => {
            let keys = keys.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
            let seen = seen.as_ref().map(|seen| {
                let items =
                    seen.items.iter().map(|item| item.map_or_else(|| "none".to_owned(), |(own, value)| format!("{own}={value}")));
                format!(": {} at revision {}", items.collect::<Vec<_>>().join(" "), seen.revision)
            });
            format!("read {keys}{}", seen.unwrap_or_default())
        }
        Op::Write { writes, preconditions, idempotency_key, made } => {
            let writes = writes.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
            let conditions =
                preconditions.iter().map(|(key, revision)| format!(" if {key} is at {revision}")).collect::<String>();
            let key = idempotency_key.as_ref().map(|key| format!(" once as {key}")).unwrap_or_default();
            let made = made
                .as_ref()
                .map(|made| format!(": revision {}{}", made.revision, if made.changed { "" } else { ", unchanged" }));
            format!("write {writes}{conditions}{key}{}", made.unwrap_or_default())
        }
        Op::ReadAll { seen } => {
            let seen = seen.as_ref().map(|seen| format!(": {} routes at revision {}", seen.items.len(), seen.revision));
            format!("read all{}", seen.unwrap_or_default())
        }
        Op::Poll { seen } => {
            let seen =
                seen.as_ref().map(|seen| format!(": revision {} digest {} life {}", seen.revision, seen.digest, seen.life));
            format!("poll{}", seen.unwrap_or_default())
        }
        Op::Request { key, answer } => {
            let answer = answer.as_ref().map(|answer| {
                let number = |number: Option<u64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
                let backend = answer.backend.as_deref().unwrap_or("no backend");
                format!(": {} value {} revision {} by {backend}", answer.status, number(answer.value), number(answer.revision))
            });
            format!("request {key}{}", answer.unwrap_or_default())
        }
        Op::Membership { change, .. } => format!("membership: {change}"),
        Op::Fault { name, .. } => name.clone(),
        Op::End { .. } => "end".to_owned(),
    };
    let error = operation.end.and_then(|end| end.error.as_deref()).map(|error| format!("\n{error}")).unwrap_or_default();
    let took =
        operation.end.map(|end| format!(" in {:.1} ms", seconds(end.time - operation.invoke.time) * 1e3)).unwrap_or_default();
    let text = format!(
        "{what}\n{}, {:?}{took} at {:.3} s{error}",
        operation.place(),
        operation.outcome(),
        seconds(operation.invoke.time)
    );
    text.chars().take(TEXT_MAX).collect()
}
