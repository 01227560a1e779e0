//! Bodies of JSON that are held whole, read strictly (see [`StrictValue`]), with a bounded number of values.

use std::cell::Cell;

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
    value.map_err(|error| match budget.get() {
        0 => Problem::too_large(format!("the body has more than {VALUES_MAX} values")),
        _ => Problem::malformed(format!("the body is not valid JSON: {error}")),
    })
}

#[cfg(test)]
mod tests {
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
    fn values_are_bounded() {
        let list = format!("[{}0]", "0,".repeat(VALUES_MAX));
        assert!(format!("{:?}", read_json(list.as_bytes())).contains("413"));
    }
}
