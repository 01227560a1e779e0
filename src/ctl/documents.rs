//! Files of resources: YAML or JSON documents of `{kind, name, spec}`, or of [Kubernetes](super::kubernetes).
//!
//! Only the outer form is checked here; content is the node's to judge. What the node finds wrong it names by the resource's place in the
//! request, and [`Files::locate`] turns that back into a file and a place in it.
//!
//! Resources are given away one by one. What is kept of them is in [`Files`]: where they stood, in a few bytes for each row of them that
//! stand one after the other.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::kubernetes::{self, Kubernetes};
use crate::documents::{Form, Limits, Place, ReadError, Sink, read_json, read_yaml};

/// Keys that a node adds to what it shows, and that may come back.
const ADDED: [&str; 3] = ["createdRevision", "revision", "updatedAt"];

/// What is held of a file at one time. A node takes a resource of 1 MiB in its canonical form; the rest is for how it may be written.
const LIMITS: Limits =
    Limits { resource_bytes_max: 8 * 1024 * 1024, values_max: 1_000_000, document_bytes_max: 16 * 1024 * 1024 };

/// What is looked at to tell JSON from YAML.
const SNIFFED_BYTES: u64 = 4096;

/// Why files cannot be sent.
#[derive(Debug, Error)]
pub(super) enum DocumentError {
    /// A file cannot be read.
    #[error("{name}: {source}")]
    Read {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A document has not the form of one.
    #[error("{name}: {place}: {message}")]
    Form {
        /// The file.
        name: String,
        /// The document, counted from 1, and the place in its list.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// Nothing to send.
    #[error("{name}: no documents{}", left_out.iter().map(|text| format!("\n  {text}")).collect::<String>())]
    Empty {
        /// The file.
        name: String,
        /// What was left out.
        left_out: Vec<String>,
    },
    /// Whoever the resources were for wants no more of them; or whoever read them is gone.
    #[error("the files were not read to their end")]
    GivenUp,
}

/// A resource to be made so.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    kind: String,
    name: String,
    /// JSON.
    spec: String,
}

impl Item {
    fn of(kind: String, name: String, spec: &Value) -> Item {
        Item { kind, name, spec: spec.to_string() }
    }

    /// Bytes that count against a transaction's.
    pub(super) fn byte_count(&self) -> usize {
        self.name.len() + self.spec.len()
    }

    /// Writes it as a JSON object that begins with the fields `before`.
    pub(super) fn write(&self, before: &str, text: &mut String) {
        let (kind, name) = (json!(self.kind), json!(self.name));
        text.push_str(&format!(r#"{{{before}"kind":{kind},"name":{name},"spec":{}}}"#, self.spec));
    }
}

/// The files of one call, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Files {
    names: Vec<String>,
    rows: Vec<Row>,
    /// Resources that were read.
    count: usize,
    kubernetes: Kubernetes,
}

/// Resources that stand one after the other: elements of one list, or documents of one file.
#[derive(Debug)]
struct Row {
    /// Which resource of all is the first.
    first: usize,
    file: usize,
    place: Place,
}

impl Row {
    fn place_of(&self, index: usize) -> Place {
        let Place { document, item } = self.place;
        let after = index - self.first;
        match item {
            Some(item) => Place { document, item: Some(item + after) },
            None => Place { document: document + after, item },
        }
    }
}

/// A place in the words of people, who count documents from 1.
fn words(place: Place) -> String {
    let document = format!("document {}", place.document + 1);
    place.item.map_or(document.clone(), |item| format!("{document}, /items/{item}"))
}

impl Files {
    /// Makes the resource at `place` of the last file one of those that were read. `None`: it is one of Kubernetes that has no meaning here.
    fn take(&mut self, place: Place, value: Value) -> Result<Option<Item>, String> {
        let item = match value {
            Value::Object(fields) if kubernetes::is_document(&fields) => {
                let name = self.names.last().map_or("", String::as_str);
                let taken = self.kubernetes.resource(&format!("{name}: {}", words(place)), fields)?;
                let Some((kind, name, spec)) = taken else { return Ok(None) };
                Item::of(kind, name, &spec)
            }
            other => resource_of(other)?,
        };
        let file = self.names.len().saturating_sub(1);
        let follows = self.rows.last().is_some_and(|row| row.file == file && row.place_of(self.count) == place);
        if !follows {
            self.rows.push(Row { first: self.count, file, place });
        }
        self.count += 1;
        Ok(Some(item))
    }

    /// What of the files' content is left out.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.kubernetes.warnings()
    }

    /// Says a place of the request (`/operations/3/spec/rules/0`, `/items/3/name`) in the words of the files. `items` are those that are
    /// still held.
    pub(super) fn locate(&self, pointer: &str, items: &[Item]) -> String {
        let found = ["/operations/", "/items/"].iter().find_map(|list| {
            let rest = pointer.strip_prefix(list)?;
            let (index, rest) = rest.split_once('/').unwrap_or((rest, ""));
            let index = index.parse::<usize>().ok().filter(|index| *index < self.count)?;
            let row = self.rows.get(self.rows.partition_point(|row| row.first <= index).checked_sub(1)?)?;
            Some((index, self.names.get(row.file)?, row.place_of(index), rest))
        });
        let Some((index, file, place, rest)) = found else { return pointer.to_owned() };
        let who = items.get(index).map_or_else(String::new, |item| format!(" ({} {})", item.kind, item.name));
        let rest = if rest.is_empty() { String::new() } else { format!(": /{rest}") };
        format!("{file}: {}{who}{rest}", words(place))
    }
}

/// Where the resources of files go.
pub(super) trait Taker {
    /// Works on what is known of the files.
    fn with_files<T>(&mut self, work: impl FnOnce(&mut Files) -> T) -> T;

    /// Takes the next resource; false to have no more.
    fn take(&mut self, item: Item) -> bool;
}

/// Reads files one after the other; `-` is the standard input.
pub(super) fn read_files(paths: &[PathBuf], taker: &mut impl Taker) -> Result<(), DocumentError> {
    for path in paths {
        if path == Path::new("-") {
            read_file("standard input", io::stdin().lock(), taker)?;
            continue;
        }
        let name = path.display().to_string();
        match File::open(path) {
            Ok(text) => read_file(&name, text, taker)?,
            Err(source) => return Err(DocumentError::Read { name, source }),
        }
    }
    Ok(())
}

/// Reads one file.
pub(super) fn read_file(name: &str, text: impl Read, taker: &mut impl Taker) -> Result<(), DocumentError> {
    let before = taker.with_files(|files| {
        files.names.push(name.to_owned());
        files.count
    });
    let name = name.to_owned();
    let (is_json, text) = match sniff(text) {
        Ok(sniffed) => sniffed,
        Err(source) => return Err(DocumentError::Read { name, source }),
    };
    let mut sink = Resources { taker };
    let read = if is_json { read_json(text, &mut sink, &LIMITS) } else { read_yaml(text, &mut sink, &LIMITS) };
    match read {
        Ok(_) if taker.with_files(|files| files.count) == before => {
            Err(DocumentError::Empty { name, left_out: taker.with_files(|files| files.warnings().collect()) })
        }
        Ok(_) => Ok(()),
        Err(ReadError::Io(source)) => Err(DocumentError::Read { name, source }),
        Err(ReadError::Syntax { document, message } | ReadError::TooLarge { document, message }) => {
            Err(DocumentError::Form { name, place: words(Place { document, item: None }), message })
        }
        Err(ReadError::Sink(Stop::Form(place, message))) => Err(DocumentError::Form { name, place: words(place), message }),
        Err(ReadError::Sink(Stop::GivenUp)) => Err(DocumentError::GivenUp),
    }
}

/// Whether a text is JSON, and the whole text. JSON is read as JSON: YAML takes no tabs, and not one resource after the other.
fn sniff<R: Read>(mut text: R) -> io::Result<(bool, impl Read)> {
    let mut head = Vec::new();
    text.by_ref().take(SNIFFED_BYTES).read_to_end(&mut head)?;
    let first = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&head).trim_ascii_start().first();
    Ok((matches!(first, Some(b'{' | b'[')), Cursor::new(head).chain(text)))
}

/// Makes [`Item`]s of what a file holds.
struct Resources<'a, T> {
    taker: &'a mut T,
}

/// Why a file is read no further.
enum Stop {
    Form(Place, String),
    GivenUp,
}

impl<T: Taker> Sink for Resources<'_, T> {
    type Error = Stop;

    fn resource(&mut self, place: Place, value: Value) -> Result<(), Stop> {
        let taken = self.taker.with_files(|files| files.take(place, value)).map_err(|message| Stop::Form(place, message))?;
        if taken.is_none_or(|item| self.taker.take(item)) { Ok(()) } else { Err(Stop::GivenUp) }
    }

    /// A list as a node shows a configuration, or a `List` of Kubernetes, whose metadata is that of the answer it came in.
    fn envelope(&mut self, document: usize, _form: Form, fields: Map<String, Value>) -> Result<(), Stop> {
        let is_kubernetes = fields.get("kind").is_some_and(|kind| kind == "List");
        let is_known = |field: &str| is_kubernetes && ["apiVersion", "kind", "metadata"].contains(&field);
        match fields.keys().find(|field| !is_known(field)) {
            Some(field) => Err(Stop::Form(Place { document, item: None }, format!("unknown field `{field}` beside `items`"))),
            None => Ok(()),
        }
    }
}

fn resource_of(resource: Value) -> Result<Item, String> {
    let Value::Object(mut fields) = resource else { return Err("expected an object of {kind, name, spec}".to_owned()) };
    let mut text = |key: &str| match fields.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("`{key}`: expected a string")),
        None => Err(format!("`{key}` is missing")),
    };
    let (kind, name) = (text("kind")?, text("name")?);
    let spec = fields.remove("spec").ok_or_else(|| format!("{kind} {name}: `spec` is missing"))?;
    match fields.keys().find(|key| !ADDED.contains(&key.as_str())) {
        Some(unknown) => Err(format!("{kind} {name}: unknown field `{unknown}`")),
        None => Ok(Item::of(kind, name, &spec)),
    }
}

/// Keeps everything.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) files: Files,
    pub(super) items: Vec<Item>,
}

#[cfg(test)]
impl Taker for Kept {
    fn with_files<T>(&mut self, work: impl FnOnce(&mut Files) -> T) -> T {
        work(&mut self.files)
    }

    fn take(&mut self, item: Item) -> bool {
        self.items.push(item);
        true
    }
}

#[cfg(test)]
impl Kept {
    /// What one text holds.
    pub(super) fn of_text(name: &str, text: &str) -> Result<Kept, DocumentError> {
        let mut kept = Kept::default();
        read_file(name, text.as_bytes(), &mut kept).map(|()| kept)
    }

    /// The resources as values.
    pub(super) fn values(&self) -> Vec<Value> {
        let mut values = Vec::new();
        for item in &self.items {
            let mut text = String::new();
            item.write("", &mut text);
            values.push(serde_json::from_str(&text).unwrap());
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Kept, DocumentError> {
        Kept::of_text("f.yaml", text)
    }

    #[test]
    fn all_forms_give_the_same_resource() {
        let forms = [
            "kind: Route\nname: a\nspec: {rules: []}\n",
            "---\nkind: Route\nname: a\nspec:\n  rules: []\n---\n",
            "{\"kind\": \"Route\",\n\t\"name\": \"a\", \"spec\": {\"rules\": []}}",
            "\u{feff}\n{\"kind\": \"Route\",\n\t\"name\": \"a\", \"spec\": {\"rules\": []}}",
            "[{\"kind\": \"Route\", \"name\": \"a\", \"spec\": {\"rules\": []}}]",
            "items:\n- {kind: Route, name: a, revision: 3, createdRevision: 1, updatedAt: x, spec: {rules: []}}\n",
        ];
        for form in forms {
            assert_eq!(read(form).unwrap().values(), [json!({"kind": "Route", "name": "a", "spec": {"rules": []}})], "{form}");
        }
        let mut text = String::new();
        read("kind: \"\\\"\"\nname: é\nspec: null").unwrap().items[0].write("\"op\":\"put\",", &mut text);
        assert_eq!(text, r#"{"op":"put","kind":"\"","name":"é","spec":null}"#);
    }

    #[test]
    fn a_bad_document_is_named_by_file_and_place() {
        let good = "kind: Route\nname: a\nspec: {}\n---\n";
        let script = [
            ("kind: Route\nspec: {}", "document 2: `name` is missing"),
            ("kind: Route\nname: b", "document 2: Route b: `spec` is missing"),
            ("kind: Route\nname: 3\nspec: {}", "document 2: `name`: expected a string"),
            ("kind: Route\nname: b\nspecs: {}\nspec: {}", "document 2: Route b: unknown field `specs`"),
            ("just text", "document 2: expected an object"),
            ("kind: Route\nkind: Service\nname: b\nspec: {}", "document 2: the key \"kind\" stands twice in one object"),
            ("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute", "document 2: /metadata is missing"),
            ("kind: [", "document 2: did not find expected node content"),
            ("items:\n- {kind: Route, name: b, spec: {}}\n- {kind: Route}", "document 2, /items/1: `name` is missing"),
            ("items: []\ncontinue: x", "document 2: unknown field `continue` beside `items`"),
            ("items: []\nkind: RouteList", "document 2: unknown field `kind` beside `items`"),
            ("items: {}", "document 2: `kind` is missing"),
        ];
        for (text, expected) in script {
            let message = read(&format!("{good}{text}")).unwrap_err().to_string();
            assert!(message.starts_with(&format!("f.yaml: {expected}")), "{text}\n  gave {message}");
        }
        let message = read("{\"kind\": \"Route\", \"kind\": \"Route\"}").unwrap_err().to_string();
        assert!(message.starts_with("f.yaml: document 1: the key \"kind\" stands twice in one object at line 1"), "{message}");
        assert_eq!(read("# nothing\n").unwrap_err().to_string(), "f.yaml: no documents");
        let missing = read_files(&["/no/such/file".into()], &mut Kept::default()).unwrap_err().to_string();
        assert!(missing.starts_with("/no/such/file: "), "{missing}");
    }

    #[test]
    fn places_of_the_request_become_places_of_the_files() {
        let mut kept = Kept::default();
        let resource = |name| format!("{{kind: Route, name: {name}, spec: {{}}}}");
        let (a, b) = (resource("a"), resource("b"));
        for (name, text) in [
            ("f.yaml", format!("---\n{a}\n---\n---\n{b}\n---\nitems:\n- {a}\n- {b}\n---\n{a}")),
            (
                "g.json",
                format!("[{a}, {b}]")
                    .replace("kind", "\"kind\"")
                    .replace("name", "\"name\"")
                    .replace("spec", "\"spec\"")
                    .replace("Route", "\"Route\"")
                    .replace(" a", "\"a\"")
                    .replace(" b", "\"b\""),
            ),
        ] {
            read_file(name, text.as_bytes(), &mut kept).unwrap();
        }
        let Kept { files, items } = kept;
        let script = [
            ("/operations/1/spec/rules/0/matchs", "f.yaml: document 2 (Route b): /spec/rules/0/matchs"),
            ("/items/0", "f.yaml: document 1 (Route a)"),
            ("/items/2/name", "f.yaml: document 3, /items/0 (Route a): /name"),
            ("/items/3", "f.yaml: document 3, /items/1 (Route b)"),
            ("/items/4", "f.yaml: document 4 (Route a)"),
            ("/items/6/spec", "g.json: document 1, /items/1 (Route b): /spec"),
            ("/items/7", "/items/7"),
            ("/preconditions/0", "/preconditions/0"),
        ];
        for (pointer, expected) in script {
            assert_eq!(files.locate(pointer, &items), expected);
        }
        assert_eq!(files.locate("/items/6/spec", &[]), "g.json: document 1, /items/1: /spec");
        assert_eq!(files.rows.len(), 4);
    }
}
