//! Bodies of JSON and YAML that are held whole, read strictly (see [`StrictValue`]). The number of values is bounded: a YAML document of a
//! few kilobytes can name one list a million times by aliases.

use std::cell::Cell;
use std::fmt;

use serde::de::DeserializeSeed as _;
use serde_json::Value;

use super::problem::Problem;
use crate::documents::StrictValue;

/// Values (of any type, at any depth) in one body.
const VALUES_MAX: usize = 1_000_000;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `application/json`
    Json,
    /// `application/yaml` (RFC 9512)
    Yaml,
}

/// Reads one JSON document.
pub(crate) fn read_json(bytes: &[u8]) -> Result<Value, Problem> {
    let budget = Cell::new(VALUES_MAX);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = StrictValue { budget: &budget }.deserialize(&mut deserializer);
    let value = read.and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| failed("JSON", &budget, &error))
}

/// Reads every document of a YAML stream; empty ones are left out.
pub(crate) fn read_yaml(bytes: &[u8]) -> Result<Vec<Value>, Problem> {
    let budget = Cell::new(VALUES_MAX);
    let mut documents = Vec::new();
    for document in serde_norway::Deserializer::from_slice(bytes) {
        let value = StrictValue { budget: &budget }.deserialize(document).map_err(|error| failed("YAML", &budget, &error))?;
        if !value.is_null() {
            documents.push(value);
        }
    }
    Ok(documents)
}

fn failed(language: &str, budget: &Cell<usize>, error: &dyn fmt::Display) -> Problem {
    if budget.get() == 0 {
        return Problem::too_large(format!("the body has more than {VALUES_MAX} values"));
    }
    Problem::malformed(format!("the body is not valid {language}: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_read_as_serde_json_reads_it() {
        let text = r#"{"a":[1,-2,3.5,true,null,"x\n"],"b":{"c":{}}}"#;
        assert_eq!(read_json(text.as_bytes()).ok(), serde_json::from_str(text).ok());
    }

    #[test]
    fn bad_json_is_named_by_line_and_column() {
        for (text, part) in [
            ("{\"a\":1,\n\"a\":2}", "\"a\" stands twice in one object at line 2 column"),
            ("{\"a\":", "line 1 column 5"),
            ("{} x", "trailing characters at line 1 column 4"),
            ("", "line 1 column 0"),
            ("\u{1}", "line 1 column 1"),
        ] {
            let problem = read_json(text.as_bytes()).expect_err(text);
            assert!(problem.detail().contains(part), "{problem:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(read_json(deep.as_bytes()).is_err());
    }

    #[test]
    fn yaml_streams_are_read_document_by_document() {
        let text = "kind: Route\nport: 80\n---\n---\n- 1\n- x: null\n";
        assert_eq!(read_yaml(text.as_bytes()).ok(), Some(vec![json!({"kind": "Route", "port": 80}), json!([1, {"x": null}])]));
        assert!(read_yaml(b"a: 1\na: 2\n").is_err());
        assert!(read_yaml(b"a: [1\n").is_err());
        assert!(read_yaml(b"a: .nan\n").is_err());
        assert!(read_yaml(b"a: !secret x\n").is_err());
    }

    #[test]
    fn values_are_bounded_through_aliases() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let names = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{names}]\n"));
        }
        assert!(read_yaml(text.as_bytes()).is_err());
        let list = format!("[{}0]", "0,".repeat(VALUES_MAX));
        assert!(format!("{:?}", read_json(list.as_bytes())).contains("413"));
    }
}
