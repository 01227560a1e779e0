//! Faults and warnings, as they are found.

use std::fmt::Display;

use super::{FieldError, Parsed};

/// Faults that one answer lists at most; a document may be a megabyte of them.
pub(super) const ERRORS_MAX: usize = 64;

/// Warnings of one document that are listed at most.
const WARNINGS_MAX: usize = 64;

/// Characters of a document's own text that a message repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// Regular expressions of one document at most.
pub(super) const PATTERNS_MAX: usize = 64;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: Vec<FieldError>,
    warnings: Vec<String>,
    /// Warnings beyond [`WARNINGS_MAX`].
    omitted: usize,
    patterns: usize,
}

impl Report {
    /// Notes a fault at the JSON pointer `path`.
    pub(super) fn error(&mut self, path: impl Display, message: impl Into<String>) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(FieldError { path: path.to_string(), message: message.into() });
        }
    }

    /// Notes what is allowed but hardly meant.
    pub(super) fn warn(&mut self, path: impl Display, message: &str) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(format!("{path}: {message}"));
        } else {
            self.omitted += 1;
        }
    }

    /// Counts one more regular expression. False: the document has more than [`PATTERNS_MAX`], and this one is not to be compiled.
    pub(super) fn count_pattern(&mut self) -> bool {
        self.patterns += 1;
        self.patterns <= PATTERNS_MAX
    }

    /// Whether further faults would be dropped, so that they need not be looked for.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= ERRORS_MAX
    }

    /// `spec`, if there were no faults.
    pub(super) fn finish<T>(mut self, spec: Option<T>) -> Result<Parsed<T>, Vec<FieldError>> {
        if self.omitted > 0 {
            self.warnings.push(format!("warnings of the document that are not listed: {}", self.omitted));
        }
        match spec {
            Some(spec) if self.errors.is_empty() => Ok(Parsed { spec, warnings: self.warnings }),
            _ => Err(self.errors),
        }
    }
}

/// `text` in quotes, cut where it is long.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// `; did you mean ...?` with the known name that is nearest to `name`, or nothing where none is near.
pub(super) fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min()
        .map_or_else(String::new, |(_, candidate)| format!("; did you mean {candidate:?}?"))
}

/// Levenshtein's distance without case; infinite for names that are too long to be a slip.
fn distance(left: &str, right: &str) -> usize {
    if left.len() > SHOWN_CHARS_MAX {
        return usize::MAX;
    }
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_that_are_not_listed_are_counted() {
        for (count, last) in [(WARNINGS_MAX, "/63: m"), (WARNINGS_MAX + 3, "warnings of the document that are not listed: 3")] {
            let mut report = Report::default();
            (0..count).for_each(|place| report.warn(format!("/{place}"), "m"));
            let parsed = report.finish(Some(())).expect("no faults");
            assert_eq!(parsed.warnings.last().map(String::as_str), Some(last));
        }
    }
}
