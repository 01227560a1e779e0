//! From documents to operations: everything that a write's content is checked for before it is proposed.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::{Findings, document};
use super::problem::Problem;
use super::sealing::Sealer;
use crate::model::limits::{DOCUMENT_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_OPERATIONS_MAX};
use crate::model::spec::FieldError;
use crate::model::{Kind, Name, Operation, ResourceKey};
use crate::table::Snapshot;

/// Kinds of the contract that this version does not serve.
pub(crate) const KINDS_NOT_SERVED: [(&str, &str); 3] =
    [("Consumer", "consumers"), ("Policy", "policies"), ("Discovery", "discoveries")];

/// An error at `path`.
pub(crate) fn at(path: impl Into<String>, message: impl Into<String>) -> FieldError {
    FieldError { path: path.into(), message: message.into() }
}

/// Operations in the making: they are checked one by one, all faults are collected.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    content: Content,
    errors: Vec<FieldError>,
    too_large: Option<String>,
    /// Whether messages begin with the resource, because its place in the request says little.
    naming: bool,
    sealer: Sealer,
}

/// What a draft became.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// In the order of the request.
    pub(crate) operations: Vec<Operation>,
    /// What was met in their documents.
    pub(crate) findings: Findings,
}

impl Draft {
    /// A draft whose secrets are sealed by `sealer`.
    pub(crate) fn new(sealer: Sealer) -> Draft {
        Draft { sealer, ..Draft::default() }
    }

    /// A draft whose messages name the resource.
    pub(crate) fn naming(sealer: Sealer) -> Draft {
        Draft { naming: true, sealer, ..Draft::default() }
    }

    /// Adds "make or replace".
    pub(crate) fn put(&mut self, key: ResourceKey, spec: &Value, pointer: &str) {
        match document(&self.sealer, &key, spec, pointer) {
            Err(errors) if self.naming => {
                self.errors.extend(errors.into_iter().map(|error| at(error.path, format!("{key}: {}", error.message))));
            }
            Err(errors) => self.errors.extend(errors),
            Ok(document) => {
                if document.bytes.len() > DOCUMENT_BYTES_MAX {
                    let bytes = document.bytes.len();
                    self.too_large
                        .get_or_insert(format!("the spec of {key} has {bytes} bytes, the limit is {DOCUMENT_BYTES_MAX}"));
                }
                let spec = self.content.findings.add(&key, document, pointer);
                self.content.operations.push(Operation::Put { key, spec });
            }
        }
    }

    /// Adds "remove".
    pub(crate) fn delete(&mut self, key: ResourceKey) {
        self.content.operations.push(Operation::Delete { key });
    }

    /// Adds faults.
    pub(crate) fn errors(&mut self, errors: impl IntoIterator<Item = FieldError>) {
        self.errors.extend(errors);
    }

    /// How many faults there are.
    pub(crate) fn error_count(&self) -> usize {
        self.errors.len() + usize::from(self.too_large.is_some())
    }

    /// What is there so far, to be taken out bit by bit.
    pub(crate) fn content(&mut self) -> &mut Content {
        &mut self.content
    }

    /// All operations, if there was no fault.
    pub(crate) fn finish(self) -> Result<Content, Problem> {
        if !self.errors.is_empty() {
            return Err(Problem::invalid(self.errors));
        }
        match self.too_large {
            Some(detail) => Err(Problem::too_large(detail)),
            None => Ok(self.content),
        }
    }
}

impl Content {
    /// Refuses regular expressions beyond those that `table` can take.
    pub(crate) fn check_patterns(&self, table: &Snapshot) -> Result<(), Problem> {
        let replaced = self.operations.iter().map(|operation| table.pattern_count_of(operation.key())).sum();
        self.findings.check_patterns(table, replaced)
    }
}

/// The services and certificates that `operations` remove.
pub(crate) fn gone(operations: &[Operation]) -> BTreeSet<ResourceKey> {
    let removed = |operation: &Operation| match operation {
        Operation::Delete { key } if matches!(key.kind, Kind::Service | Kind::Certificate) => Some(key.clone()),
        Operation::Put { .. } | Operation::Delete { .. } => None,
    };
    operations.iter().filter_map(removed).collect()
}

/// Refuses what every node would refuse, before it is sent to the leader.
pub(crate) fn check_limits(operations: &[Operation]) -> Result<(), Problem> {
    let count = operations.len();
    if count > TRANSACTION_OPERATIONS_MAX {
        return Err(Problem::too_large(format!(
            "the transaction has {count} operations, the limit is {TRANSACTION_OPERATIONS_MAX}; PUT /v1/config takes a larger configuration"
        )));
    }
    let bytes: usize = operations.iter().map(Operation::byte_count).sum();
    if bytes > TRANSACTION_BYTES_MAX {
        return Err(Problem::too_large(format!(
            "the transaction has {bytes} bytes, the limit is {TRANSACTION_BYTES_MAX}; PUT /v1/config takes a larger configuration"
        )));
    }
    Ok(())
}

/// Reads `kind`, which stands at `path`.
pub(crate) fn kind_at(text: &str, path: &str) -> Result<Kind, FieldError> {
    text.parse().map_err(|()| match KINDS_NOT_SERVED.iter().any(|(kind, _)| *kind == text) {
        true => at(path, format!("kind {text:?} is not supported yet")),
        false => at(path, format!("kind {text:?} is not known; known are Route, GRPCRoute, Service and Certificate")),
    })
}

/// Reads `name`, which stands at `path`.
pub(crate) fn name_at(text: &str, path: &str) -> Result<Name, FieldError> {
    Name::new(text).map_err(|error| at(path, error.to_string()))
}

/// The members of an object of the request, for the envelopes around specs.
pub(crate) struct Fields<'a> {
    object: &'a serde_json::Map<String, Value>,
    pointer: String,
}

impl<'a> Fields<'a> {
    /// The object at `pointer`; every field must be in `known`.
    pub(crate) fn read(value: &'a Value, pointer: &str, known: &[&str]) -> Result<Fields<'a>, Vec<FieldError>> {
        let object =
            value.as_object().ok_or_else(|| vec![at(pointer, format!("expected an object, found {}", type_of(value)))])?;
        let unknown: Vec<FieldError> = object
            .keys()
            .filter(|key| !known.contains(&key.as_str()))
            .map(|key| at(format!("{pointer}/{}", escape(key)), format!("unknown field; known are {}", known.join(", "))))
            .collect();
        if unknown.is_empty() { Ok(Fields { object, pointer: pointer.to_owned() }) } else { Err(unknown) }
    }

    /// Where a field stands.
    pub(crate) fn path(&self, field: &str) -> String {
        format!("{}/{field}", self.pointer)
    }

    /// A field, if it is there.
    pub(crate) fn get(&self, field: &str) -> Option<&'a Value> {
        self.object.get(field)
    }

    /// A field that must be there.
    pub(crate) fn required(&self, field: &str) -> Result<&'a Value, FieldError> {
        self.get(field).ok_or_else(|| at(self.path(field), "this field is required"))
    }

    /// A string that must be there.
    pub(crate) fn string(&self, field: &str) -> Result<&'a str, FieldError> {
        let value = self.required(field)?;
        value.as_str().ok_or_else(|| at(self.path(field), format!("expected a string, found {}", type_of(value))))
    }

    /// A list; empty where it is not there.
    pub(crate) fn list(&self, field: &str) -> Result<&'a [Value], FieldError> {
        match self.get(field) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(at(self.path(field), format!("expected a list, found {}", type_of(other)))),
        }
    }

    /// `kind` and `name`.
    pub(crate) fn key(&self) -> Result<ResourceKey, Vec<FieldError>> {
        let kind = self.string("kind").and_then(|text| kind_at(text, &self.path("kind")));
        let name = self.string("name").and_then(|text| name_at(text, &self.path("name")));
        match (kind, name) {
            (Ok(kind), Ok(name)) => Ok(ResourceKey::new(kind, name)),
            (kind, name) => Err(kind.err().into_iter().chain(name.err()).collect()),
        }
    }
}

/// The JSON type of a value, for messages.
pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A key as a JSON pointer token (RFC 6901 3).
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::super::findings::PATTERNS_MAX;
    use super::*;
    use crate::model::{Command, CommandBody, State, Timestamp, Transaction};

    #[test]
    fn envelopes_name_every_fault() {
        let value = json!({"kind": "Policy", "name": "-x"});
        let fields =
            Fields::read(&value, "/operations/3", &["kind", "name"]).map_err(|errors| format!("{errors:?}")).expect("fields");
        let errors = fields.key().expect_err("two faults");
        assert_eq!(errors[0], at("/operations/3/kind", "kind \"Policy\" is not supported yet"));
        assert_eq!(errors[1].path, "/operations/3/name");
        let unknown = json!({"kind": "Route", "na/me": 1});
        let errors = Fields::read(&unknown, "/items/0", &["kind"]).err().expect("unknown");
        assert_eq!(errors[0].path, "/items/0/na~1me");
    }

    #[test]
    fn limits_are_checked_before_proposing() {
        let key = |n: usize| ResourceKey::new(Kind::Route, Name::new(&format!("r{n}")).expect("a name"));
        let many: Vec<Operation> = (0..=TRANSACTION_OPERATIONS_MAX).map(|n| Operation::Delete { key: key(n) }).collect();
        assert!(check_limits(&many).expect_err("too many").detail().contains("10001 operations"));
        assert!(check_limits(&many[1..]).is_ok());
        let large = Operation::Put { key: key(0), spec: Bytes::from(vec![b'x'; TRANSACTION_BYTES_MAX]) };
        assert!(check_limits(&[large]).expect_err("too large").detail().contains("bytes"));
    }

    #[test]
    fn expressions_of_the_whole_table_are_bounded() {
        let mut state = State::default();
        let route = |expression: &str| {
            let mut draft = Draft::default();
            let path = json!({"type": "RegularExpression", "value": expression});
            let key = ResourceKey::new(Kind::Route, Name::new("r").expect("a name"));
            draft.put(key, &json!({"rules": [{"matches": [{"path": path}]}]}), "");
            draft.finish().expect("content")
        };
        let transaction = Transaction { operations: route("/a.*").operations, ..Transaction::default() };
        let body = CommandBody::Transaction(transaction);
        state.apply(&Command { proposed_at: Timestamp(1), actor: "test".to_owned(), body });
        let table = Snapshot::build(&state);
        assert_eq!(table.pattern_count(), 1);
        let mut content = route("/b.*");
        content.findings.claim_patterns(PATTERNS_MAX);
        content.check_patterns(&table).expect("it replaces the one that is there");
        assert!(content.check_patterns(&Snapshot::empty()).is_ok());
        content.operations.clear();
        assert!(content.check_patterns(&table).expect_err("too many").detail().contains("10001 regular expressions"));
    }
}
