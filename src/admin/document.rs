//! Reading JSON and YAML from the network into [`Value`], strictly.
//!
//! `serde_json` keeps the last of two equal keys, so that two readers of one document could see two different routes. Here a repeated key
//! is an error. The number of values is bounded too: a YAML document of a few kilobytes can name one list a million times by aliases.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as _, Deserializer};
use serde_json::{Map, Number, Value};

use super::problem::Problem;

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

/// Takes any value without repeated keys.
#[derive(Clone, Copy)]
struct StrictValue<'a> {
    /// How many more values there may be.
    budget: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for StrictValue<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.budget.get().checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
        self.budget.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictValue<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} stands twice in one object")));
            }
            let value = entries.next_value_seed(self)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// A key as text; YAML's numbers and booleans are taken as they are written.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer)
    }
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
