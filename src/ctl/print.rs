//! Printing: the only place that writes to the standard streams, in colour where that is a terminal.

use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::arguments::Output;

/// What went well.
pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What did not.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What a person should look at.
pub(super) const WARN: Style = AnsiColor::Yellow.on_default().bold();
/// Headings and names.
pub(super) const STRONG: Style = Style::new().bold();
/// What can be skipped.
pub(super) const DIM: Style = Style::new().dimmed();

/// `text` in `style`; the streams leave the style out where there is no terminal.
pub(super) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A line of the answer.
pub(super) fn out(text: impl std::fmt::Display) {
    anstream::println!("{text}");
}

/// Lines of a long answer. Errors: nobody can read them; there is no use in going on.
pub(super) fn write(lines: &[String]) -> io::Result<()> {
    let mut stream = anstream::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(stream, "{line}"))
}

/// A line that is not part of the answer.
pub(super) fn note(text: impl std::fmt::Display) {
    anstream::eprintln!("{text}");
}

/// Why it failed.
pub(super) fn error(text: &str) {
    note(format!("{} {text}", styled(BAD, "error:")));
}

/// What its author should know all the same.
pub(super) fn warning(text: &str) {
    note(format!("{} {text}", styled(WARN, "warning:")));
}

/// The answer as the node gave it. False for [`Output::Table`], which every command prints in its own way.
pub(super) fn raw(value: &Value, output: Output) -> anyhow::Result<bool> {
    match output {
        Output::Table => return Ok(false),
        Output::Json => out(serde_json::to_string_pretty(value)?),
        Output::Yaml => out(serde_norway::to_string(value)?.trim_end()),
    }
    Ok(true)
}

/// Rows under headings, in columns.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) {
    columns(&mut vec![0; headings.len()], Some(headings), rows).iter().for_each(out);
}

/// Lines of columns that are at least as wide as `widths`, which become as wide as those are.
pub(super) fn columns(widths: &mut [usize], headings: Option<&[&str]>, rows: &[Vec<String>]) -> Vec<String> {
    let headings = headings.map(|headings| headings.iter().map(|heading| (*heading).to_owned()).collect::<Vec<_>>());
    for row in headings.iter().chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&*widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    headings.iter().map(|headings| styled(STRONG, line(headings))).chain(rows.iter().map(line)).collect()
}

/// A text field of an answer, or nothing.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A field of an answer as people write it: strings without quotes, null as `-`.
pub(super) fn plain(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), String::new()]];
        let mut widths = [0; 2];
        let lines = columns(&mut widths, Some(&["NAME", "REV"]), &rows);
        let lines: Vec<String> = lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        assert_eq!(lines, ["NAME    REV", "a       1", "longer"]);
        assert_eq!(columns(&mut widths, None, &[vec!["b".to_owned(), "22".to_owned()]]), ["b       22"]);
    }
}
