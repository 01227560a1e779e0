//! A list that comes page by page, and is printed so: no more than a page of it is held.
//!
//! As JSON it is one document, `{"items": [...]}`; as YAML one document an item, so that its reader holds no more than one either. In a
//! table the columns of a later page may be wider.

use serde_json::Value;

use super::arguments::Output;
use super::print::{columns, write};

/// A list that is being printed.
pub(super) struct Pages<'a> {
    output: Output,
    headings: &'a [&'a str],
    widths: Vec<usize>,
    has_begun: bool,
    /// The last item as JSON, until it is known whether a comma follows.
    held: Option<String>,
}

impl<'a> Pages<'a> {
    /// Nothing is printed yet.
    pub(super) fn new(output: Output, headings: &'a [&'a str]) -> Pages<'a> {
        Pages { output, headings, widths: vec![0; headings.len()], has_begun: false, held: None }
    }

    /// Prints the next items.
    pub(super) fn page(&mut self, items: &[Value], row: impl Fn(&Value) -> Vec<String>) -> anyhow::Result<()> {
        Ok(write(&self.lines(items, row)?)?)
    }

    /// Prints what stands at the end.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        Ok(write(&self.last_lines())?)
    }

    fn lines(&mut self, items: &[Value], row: impl Fn(&Value) -> Vec<String>) -> anyhow::Result<Vec<String>> {
        let is_first = !self.has_begun && !items.is_empty();
        self.has_begun |= is_first;
        let mut lines = Vec::with_capacity(items.len());
        match self.output {
            Output::Table => {
                let rows: Vec<_> = items.iter().map(row).collect();
                return Ok(columns(&mut self.widths, is_first.then_some(self.headings), &rows));
            }
            Output::Json => {
                lines.extend(is_first.then(|| "{\n  \"items\": [".to_owned()));
                for item in items {
                    // No string has a line break in it.
                    let text = format!("    {}", serde_json::to_string_pretty(item)?.replace('\n', "\n    "));
                    lines.extend(self.held.replace(text).map(|before| before + ","));
                }
            }
            Output::Yaml => {
                for item in items {
                    let text = serde_norway::to_string(item)?;
                    lines.push(format!("---\n{}", text.strip_suffix('\n').unwrap_or(&text)));
                }
            }
        }
        Ok(lines)
    }

    fn last_lines(&mut self) -> Vec<String> {
        match (self.output, self.has_begun) {
            (Output::Table, false) => columns(&mut self.widths, Some(self.headings), &[]),
            (Output::Json, true) => self.held.take().into_iter().chain(["  ]\n}".to_owned()]).collect(),
            (Output::Json, false) => vec!["{\n  \"items\": []\n}".to_owned()],
            (Output::Yaml, false) => vec!["items: []".to_owned()],
            (Output::Table | Output::Yaml, true) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ctl::documents::Kept;

    fn printed(output: Output, pages: &[&[Value]]) -> String {
        let mut printing = Pages::new(output, &["NAME"]);
        let row = |item: &Value| vec![item["name"].as_str().unwrap().to_owned()];
        let mut lines: Vec<String> = pages.iter().flat_map(|page| printing.lines(page, row).unwrap()).collect();
        lines.extend(printing.last_lines());
        anstream::adapter::strip_str(&lines.join("\n")).to_string()
    }

    #[test]
    fn pages_are_printed_as_their_whole() {
        let item = |name: &str| json!({"name": name, "spec": {"text": "one\ntwo", "list": [1, {"a": []}], "none": {}}});
        let (a, b, c) = (item("a"), item("longer"), item("c"));
        for pages in [
            vec![],
            vec![&[][..]],
            vec![&[a.clone()][..]],
            vec![&[a.clone(), b.clone()][..], &[][..], &[c.clone()][..]],
            vec![&[][..], &[a][..], &[b, c][..]],
        ] {
            let whole = json!({"items": pages.concat()});
            assert_eq!(printed(Output::Json, &pages), serde_json::to_string_pretty(&whole).unwrap());
            let documents: Vec<String> =
                pages.concat().iter().map(|item| format!("---\n{}", serde_norway::to_string(item).unwrap())).collect();
            let documents = if documents.is_empty() { "items: []".to_owned() } else { documents.concat() };
            assert_eq!(printed(Output::Yaml, &pages), documents.trim_end());
            let names = pages.concat().iter().map(|item| format!("\n{}", item["name"].as_str().unwrap())).collect::<String>();
            assert_eq!(printed(Output::Table, &pages), format!("NAME{names}"));
        }
    }
    #[test]
    fn yaml_of_any_length_can_be_applied() {
        // One document of it would be over the bound of one.
        let pad = "a: [{ #\n".repeat(100_000);
        let item = |n: usize| json!({"kind": "Route", "name": format!("r{n}"), "revision": n, "spec": {"pad": pad, "none": []}});
        let items: Vec<Value> = (0..30).map(item).collect();
        let text = printed(Output::Yaml, &[&items[..20], &items[20..]]) + "\n";
        assert!(text.len() > 16 * 1024 * 1024, "{} bytes", text.len());
        let read = Kept::of_text("f.yaml", &text).unwrap().values();
        let same = |(read, item): (&Value, &Value)| read["name"] == item["name"] && read["spec"] == item["spec"];
        assert!(read.len() == items.len() && read.iter().zip(&items).all(same));
    }
}
