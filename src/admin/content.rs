//! From documents to operations: everything that a write's content is checked for before it is proposed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;

use super::explain::Listener;
use super::problem::Problem;
use crate::model::limits::{DOCUMENT_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_OPERATIONS_MAX};
use crate::model::spec::{FieldError, Protocol, canonical, parse_grpc_route, parse_route, parse_service};
use crate::model::{Kind, Name, Operation, ResourceKey, State};
use crate::table::{RouteOutline, Snapshot};

/// Kinds of the contract that this version does not serve.
pub(crate) const KINDS_NOT_SERVED: [(&str, &str); 4] =
    [("Certificate", "certificates"), ("Consumer", "consumers"), ("Policy", "policies"), ("Discovery", "discoveries")];

/// A place that names a service.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    place: String,
    service: Name,
    /// Whether gRPC calls go there.
    is_grpc: bool,
    /// Whether it gets copies alone.
    is_mirror: bool,
}

/// A spec that may be proposed.
#[derive(Debug)]
pub(crate) struct Document {
    /// Its canonical form.
    pub(crate) bytes: Bytes,
    /// What its author should know all the same.
    warnings: Vec<String>,
    /// The services that it refers to, and from where.
    references: Vec<Reference>,
    /// The hosts that it is for.
    hostnames: Vec<String>,
    /// The listeners that it is bound to.
    listeners: Vec<String>,
    /// Regular expressions in it.
    pattern_count: usize,
}

/// Checks the spec of a resource of `kind`. `pointer` is where it stands in the request: `/operations/3/spec`.
pub(crate) fn document(kind: Kind, spec: &Value, pointer: &str) -> Result<Document, Vec<FieldError>> {
    let mut pattern_count = 0;
    let (mut hostnames, mut listeners) = (Vec::new(), Vec::new());
    let (warnings, references) = match kind {
        Kind::Route | Kind::GrpcRoute => {
            let is_grpc = kind == Kind::GrpcRoute;
            let parsed = if is_grpc { parse_grpc_route(spec) } else { parse_route(spec) };
            let parsed = parsed.map_err(|errors| under(pointer, errors))?;
            let references = parsed.spec.references().map(|named| Reference {
                place: format!("{pointer}{}", named.pointer),
                service: named.service.clone(),
                is_grpc,
                is_mirror: named.is_mirror,
            });
            let references = references.collect();
            pattern_count = parsed.spec.pattern_count();
            (hostnames, listeners) = (parsed.spec.hostnames, parsed.spec.listeners);
            (parsed.warnings, references)
        }
        Kind::Service => (parse_service(spec).map_err(|errors| under(pointer, errors))?.warnings, Vec::new()),
        Kind::Unknown(_) => return Err(vec![at(pointer, "this kind is not supported yet")]),
    };
    let bytes = canonical(spec).map_err(|error| under(pointer, vec![error]))?;
    Ok(Document { bytes, warnings, references, hostnames, listeners, pattern_count })
}

fn under(pointer: &str, errors: Vec<FieldError>) -> Vec<FieldError> {
    errors.into_iter().map(|error| FieldError { path: format!("{pointer}{}", error.path), message: error.message }).collect()
}

/// An error at `path`.
pub(crate) fn at(path: impl Into<String>, message: impl Into<String>) -> FieldError {
    FieldError { path: path.into(), message: message.into() }
}

/// Operations in the making: they are checked one by one, all faults are collected.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    operations: Vec<Operation>,
    errors: Vec<FieldError>,
    warnings: Vec<String>,
    references: Vec<Reference>,
    bindings: Vec<(String, String)>,
    outlines: Vec<RouteOutline>,
    pattern_count: usize,
    too_large: Option<String>,
    /// Whether messages begin with the resource, because its place in the request says little.
    naming: bool,
}

/// What a draft became.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// In the order of the request.
    pub(crate) operations: Vec<Operation>,
    /// Of the documents themselves.
    warnings: Vec<String>,
    references: Vec<Reference>,
    /// Where routes are bound to listeners, and to which.
    bindings: Vec<(String, String)>,
    /// The routes that it makes.
    pub(super) outlines: Vec<RouteOutline>,
    /// Regular expressions in it.
    pattern_count: usize,
}

impl Draft {
    /// A draft whose messages name the resource.
    pub(crate) fn naming() -> Draft {
        Draft { naming: true, ..Draft::default() }
    }

    /// Adds "make or replace".
    pub(crate) fn put(&mut self, key: ResourceKey, spec: &Value, pointer: &str) {
        match document(key.kind, spec, pointer) {
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
                self.warnings.extend(document.warnings.iter().map(|warning| format!("{key}: {warning}")));
                let references = document.references.into_iter();
                let named = references.map(|reference| Reference { place: format!("{key}: {}", reference.place), ..reference });
                self.references.extend(named);
                let listeners = document.listeners.iter();
                self.bindings.extend(listeners.map(|listener| (format!("{key}: {pointer}/listeners"), listener.clone())));
                if matches!(key.kind, Kind::Route | Kind::GrpcRoute) {
                    let (hostnames, listeners) = (document.hostnames, document.listeners);
                    self.outlines.push(RouteOutline { key: key.clone(), hostnames, listeners });
                }
                self.pattern_count += document.pattern_count;
                self.operations.push(Operation::Put { key, spec: document.bytes });
            }
        }
    }

    /// Adds "remove".
    pub(crate) fn delete(&mut self, key: ResourceKey) {
        self.operations.push(Operation::Delete { key });
    }

    /// Adds faults.
    pub(crate) fn errors(&mut self, errors: impl IntoIterator<Item = FieldError>) {
        self.errors.extend(errors);
    }

    /// All operations, if there was no fault.
    pub(crate) fn finish(self) -> Result<Content, Problem> {
        if !self.errors.is_empty() {
            return Err(Problem::invalid(self.errors));
        }
        if let Some(detail) = self.too_large {
            return Err(Problem::too_large(detail));
        }
        let Draft { operations, warnings, references, bindings, outlines, pattern_count, .. } = self;
        Ok(Content { operations, warnings, references, bindings, outlines, pattern_count })
    }
}

impl Content {
    /// Warnings for the answer: the documents' own, routes that will wait for others of `table`, references to services that stand neither
    /// in `state` nor in this content, or that `operations` remove, and routes that this node's `listeners` leave out.
    pub(crate) fn warnings(
        &self,
        state: &State,
        table: &Snapshot,
        operations: &[Operation],
        listeners: &[Listener],
    ) -> Vec<String> {
        let removed = |operation: &Operation| match operation {
            Operation::Delete { key } if key.kind == Kind::Service => Some(key.name.clone()),
            Operation::Put { .. } | Operation::Delete { .. } => None,
        };
        let made: BTreeMap<&Name, &Bytes> = self.operations.iter().filter_map(service_made).collect();
        let gone: BTreeSet<Name> = operations.iter().filter_map(removed).collect();
        let spec_of = |name: &Name| {
            let present = || state.get(&ResourceKey::new(Kind::Service, name.clone())).map(|resource| &resource.spec);
            made.get(name).copied().or_else(|| present().filter(|_| !gone.contains(name)))
        };
        let of_references = self.references.iter().filter_map(|reference| reference.warning(spec_of(&reference.service)));
        let is_here = |name: &str| listeners.iter().any(|listener| listener.name == name);
        let unbound = self.bindings.iter().filter(|(_, name)| !is_here(name)).map(|(place, name)| {
            format!("{place}: listener {name:?} does not exist on this node; only nodes that have it serve the route there")
        });
        let waiting = self.waiting(table, operations);
        self.warnings
            .iter()
            .cloned()
            .chain(waiting)
            .chain(of_references)
            .chain(unbound)
            .chain(self.unreached(listeners))
            .take(WARNINGS_MAX)
            .collect()
    }
}

/// Regular expressions in the whole table at most: each takes kilobytes on every node. Judged by the live table of the node that takes the
/// write, so that writes at several nodes at once may pass it by what they bring.
const PATTERNS_MAX: usize = 10_000;

impl Content {
    /// Refuses regular expressions beyond [`PATTERNS_MAX`], counted with those of `table` that neither this nor `operations` replace.
    pub(crate) fn check_patterns(&self, table: &Snapshot, operations: &[Operation]) -> Result<(), Problem> {
        if self.pattern_count == 0 {
            return Ok(());
        }
        let replaced: BTreeSet<&ResourceKey> = self.operations.iter().chain(operations).map(Operation::key).collect();
        let replaced: usize = replaced.into_iter().map(|key| table.pattern_count_of(key)).sum();
        let count = table.pattern_count().saturating_sub(replaced) + self.pattern_count;
        if count <= PATTERNS_MAX {
            return Ok(());
        }
        Err(Problem::too_large(format!(
            "the table would hold {count} regular expressions, the limit is {PATTERNS_MAX}; PathPrefix and PathTemplate have none"
        )))
    }
}

impl Reference {
    /// What its author should know, where the service has this spec, or none.
    fn warning(&self, spec: Option<&Bytes>) -> Option<String> {
        let Reference { place, service, is_grpc, is_mirror } = self;
        let name = service.as_str();
        let answer = if *is_grpc { "UNAVAILABLE" } else { "500" };
        let Some(spec) = spec else {
            let meanwhile = match is_mirror {
                true => "nothing is mirrored to it".to_owned(),
                false => format!("its share is answered with {answer}"),
            };
            return Some(format!("{place}: service {name:?} does not exist; {meanwhile} until it does"));
        };
        let carries = |spec: &Bytes| protocol_of(spec).is_none_or(Protocol::carries_grpc);
        let refused = *is_grpc && !carries(spec);
        refused.then(|| {
            format!("{place}: service {name:?} speaks HTTP/1.1, which carries no gRPC: its share is answered with {answer}")
        })
    }
}

/// The service that an operation makes, with its spec.
fn service_made(operation: &Operation) -> Option<(&Name, &Bytes)> {
    match operation {
        Operation::Put { key, spec } if key.kind == Kind::Service => Some((&key.name, spec)),
        Operation::Put { .. } | Operation::Delete { .. } => None,
    }
}

/// What a service speaks, as far as this version can read it.
fn protocol_of(spec: &Bytes) -> Option<Protocol> {
    let document = serde_json::from_slice(spec).ok()?;
    parse_service(&document).ok().map(|parsed| parsed.spec.protocol)
}

/// Warnings that one answer lists at most.
const WARNINGS_MAX: usize = 100;

/// Refuses what every node would refuse, before it is sent to the leader.
pub(crate) fn check_limits(operations: &[Operation], hint: &str) -> Result<(), Problem> {
    let count = operations.len();
    if count > TRANSACTION_OPERATIONS_MAX {
        return Err(Problem::too_large(format!(
            "the transaction has {count} operations, the limit is {TRANSACTION_OPERATIONS_MAX}{hint}"
        )));
    }
    let bytes: usize = operations.iter().map(Operation::byte_count).sum();
    if bytes > TRANSACTION_BYTES_MAX {
        return Err(Problem::too_large(format!("the transaction has {bytes} bytes, the limit is {TRANSACTION_BYTES_MAX}{hint}")));
    }
    Ok(())
}

/// Reads `kind`, which stands at `path`.
pub(crate) fn kind_at(text: &str, path: &str) -> Result<Kind, FieldError> {
    text.parse().map_err(|()| match KINDS_NOT_SERVED.iter().any(|(kind, _)| *kind == text) {
        true => at(path, format!("kind {text:?} is not supported yet")),
        false => at(path, format!("kind {text:?} is not known; known are Route, GRPCRoute and Service")),
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
    use serde_json::json;

    use super::*;
    use crate::model::{Command, CommandBody, Timestamp, Transaction};

    #[test]
    fn envelopes_name_every_fault() {
        let value = json!({"kind": "Certificate", "name": "-x"});
        let fields =
            Fields::read(&value, "/operations/3", &["kind", "name"]).map_err(|errors| format!("{errors:?}")).expect("fields");
        let errors = fields.key().expect_err("two faults");
        assert_eq!(errors[0], at("/operations/3/kind", "kind \"Certificate\" is not supported yet"));
        assert_eq!(errors[1].path, "/operations/3/name");
        let unknown = json!({"kind": "Route", "na/me": 1});
        let errors = Fields::read(&unknown, "/items/0", &["kind"]).err().expect("unknown");
        assert_eq!(errors[0].path, "/items/0/na~1me");
    }

    #[test]
    fn limits_are_checked_before_proposing() {
        let key = |n: usize| ResourceKey::new(Kind::Route, Name::new(&format!("r{n}")).expect("a name"));
        let many: Vec<Operation> = (0..=TRANSACTION_OPERATIONS_MAX).map(|n| Operation::Delete { key: key(n) }).collect();
        assert!(check_limits(&many, "").expect_err("too many").detail().contains("10001 operations"));
        assert!(check_limits(&many[1..], "").is_ok());
        let large = Operation::Put { key: key(0), spec: Bytes::from(vec![b'x'; TRANSACTION_BYTES_MAX]) };
        assert!(check_limits(&[large], "").expect_err("too large").detail().contains("bytes"));
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
        content.pattern_count = PATTERNS_MAX;
        content.check_patterns(&table, &[]).expect("it replaces the one that is there");
        assert!(content.check_patterns(&Snapshot::empty(), &[]).is_ok());
        content.operations.clear();
        assert!(content.check_patterns(&table, &[]).expect_err("too many").detail().contains("10001 regular expressions"));
    }
}
