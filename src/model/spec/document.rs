//! A JSON document that is read once and then dropped.
//!
//! It is what `serde_json::Value` is, but its texts are those of the bytes that it is read from, wherever these have no escapes, and an object is
//! a list. A node that starts reads a document for every route before it can serve.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Document<'j> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text, without its escapes.
    String(Cow<'j, str>),
    /// A list.
    Array(Vec<Document<'j>>),
    /// Fields.
    Object(Fields<'j>),
}

/// The fields of an object, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fields<'j>(Vec<(Cow<'j, str>, Document<'j>)>);

impl<'j> Fields<'j> {
    /// Puts fields in order. Of a name that is repeated the last counts, as it does in a `Value`.
    fn of(mut fields: Vec<(Cow<'j, str>, Document<'j>)>) -> Fields<'j> {
        // Canonical documents (RFC 8785) have them in order.
        if !fields.is_sorted_by(|(one, _), (next, _)| one < next) {
            fields.sort_by(|(one, _), (other, _)| other.cmp(one));
            fields.reverse();
            fields.dedup_by(|(later, _), (kept, _)| later == kept);
        }
        Fields(fields)
    }

    /// The field of this name.
    pub fn get(&self, name: &str) -> Option<&Document<'j>> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }
}

impl<'j> From<&'j Value> for Document<'j> {
    fn from(value: &'j Value) -> Document<'j> {
        match value {
            Value::Null => Document::Null,
            Value::Bool(value) => Document::Bool(*value),
            Value::Number(number) => Document::Number(number.clone()),
            Value::String(text) => Document::String(Cow::Borrowed(text)),
            Value::Array(values) => Document::Array(values.iter().map(Document::from).collect()),
            Value::Object(map) => Document::Object(Fields::of(
                map.iter().map(|(name, value)| (Cow::Borrowed(name.as_str()), value.into())).collect(),
            )),
        }
    }
}

/// Numbers and texts as JSON has them; of others the type is enough for a message.
impl fmt::Display for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Document::Null => f.write_str("null"),
            Document::Bool(value) => value.fmt(f),
            Document::Number(number) => number.fmt(f),
            Document::String(text) => Value::from(text.as_ref()).fmt(f),
            Document::Array(_) => f.write_str("an array"),
            Document::Object(_) => f.write_str("an object"),
        }
    }
}

impl<'de> Deserialize<'de> for Document<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Document<'de>, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Document<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Document<'de>, E> {
        Ok(Document::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Document<'de>, E> {
        Ok(Document::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Document<'de>, E> {
        Ok(Document::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Document<'de>, E> {
        Ok(Document::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Document<'de>, E> {
        Ok(Number::from_f64(value).map_or(Document::Null, Document::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Document<'de>, E> {
        Ok(Document::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Document<'de>, E> {
        Ok(Document::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Document<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element()? {
            values.push(value);
        }
        Ok(Document::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Document<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((Text(name), value)) = access.next_entry()? {
            fields.push((name, value));
        }
        Ok(Document::Object(Fields::of(fields)))
    }
}

/// A name, borrowed where it can be.
struct Text<'j>(Cow<'j, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'de>, D::Error> {
        match deserializer.deserialize_str(Reader)? {
            Document::String(text) => Ok(Text(text)),
            _ => Err(D::Error::custom("a field's name is a text")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_the_same_as_the_value_of_its_bytes() {
        for text in [
            r#"{"a":[1,-2,3.5,null,true,"x\n\u00e9"],"b":{"c":"","d\"":{}}}"#,
            r#"{"b":1,"a":2,"b":{"x":3},"a":"last"}"#,
            "[]",
            r#""plain""#,
            "18446744073709551615",
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            let document: Document<'_> = serde_json::from_str(text).unwrap();
            assert_eq!(document, Document::from(&value), "{text}");
        }
        for text in ["", "{", r#"{"a":1}}"#, r#"{1:2}"#, "nul"] {
            assert!(serde_json::from_str::<Document<'_>>(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Document<'_>>(&"[".repeat(100_000)).is_err(), "the depth is bounded");
    }

    #[test]
    fn plain_texts_are_not_copied() {
        let document: Document<'_> = serde_json::from_str(r#"{"plain":"text","esc\t":"\t"}"#).unwrap();
        let Document::Object(Fields(fields)) = document else { panic!("no object") };
        let is_borrowed = |text: &Cow<'_, str>| matches!(text, Cow::Borrowed(_));
        let found: Vec<_> = fields
            .iter()
            .map(|(name, value)| match value {
                Document::String(text) => (is_borrowed(name), is_borrowed(text)),
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(found, [(false, false), (true, true)]);
    }
}
