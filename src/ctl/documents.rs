//! Files of resources: YAML or JSON documents of `{kind, name, spec}`, or of [Kubernetes](super::kubernetes).
//!
//! Only the outer form is checked here; content is the node's to judge. What the node finds wrong it names by the document's place in the
//! request, and [`Documents::locate`] turns that back into a file and a document of it.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::kubernetes::{self, Kubernetes};
use crate::documents::{Form, Limits, Place, ReadError, Sink, read_json, read_yaml};

/// Keys that a node adds to what it shows, and that may come back.
const ADDED: [&str; 3] = ["createdRevision", "revision", "updatedAt"];

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
    #[error("{name}: document {number}: {message}")]
    Form {
        /// The file.
        name: String,
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        message: String,
    },
    /// Nothing to send.
    #[error("{0}: no documents")]
    Empty(String),
}

/// A resource to be made so.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document {
    file: String,
    number: usize,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) spec: Value,
}

/// All resources of some files, in order.
#[derive(Debug, Default)]
pub(super) struct Documents {
    list: Vec<Document>,
    kubernetes: Kubernetes,
}

impl Documents {
    /// Reads `files`; `-` is the standard input.
    pub(super) fn read(files: &[PathBuf]) -> Result<Documents, DocumentError> {
        let mut documents = Documents::default();
        for file in files {
            let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
            if file == Path::new("-") {
                documents.add(&name, io::stdin().lock())?;
            } else {
                let text = File::open(file).map_err(|source| DocumentError::Read { name: name.clone(), source })?;
                documents.add(&name, text)?;
            }
        }
        Ok(documents)
    }

    /// The documents of one text.
    #[cfg(test)]
    pub(super) fn of_text(file: &str, text: &str) -> Result<Documents, DocumentError> {
        let mut documents = Documents::default();
        documents.add(file, text.as_bytes()).map(|()| documents)
    }

    fn add<R: Read>(&mut self, file: &str, text: R) -> Result<(), DocumentError> {
        let before = self.list.len();
        let form = |document: usize, message| DocumentError::Form { name: file.to_owned(), number: document + 1, message };
        let (is_json, text) = sniff(text).map_err(|source| DocumentError::Read { name: file.to_owned(), source })?;
        let mut sink = FileSink { documents: self, file };
        let read = if is_json { read_json(text, &mut sink, &LIMITS) } else { read_yaml(text, &mut sink, &LIMITS) };
        match read {
            Ok(_) if self.list.len() == before => Err(DocumentError::Empty(file.to_owned())),
            Ok(_) => Ok(()),
            Err(ReadError::Io(source)) => Err(DocumentError::Read { name: file.to_owned(), source }),
            Err(ReadError::Syntax { document, message } | ReadError::TooLarge { document, message }) => {
                Err(form(document, message))
            }
            Err(ReadError::Sink((document, message))) => Err(form(document, message)),
        }
    }

    /// What of the files' content is left out.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.kubernetes.warnings()
    }

    /// The operations that make these resources so.
    pub(super) fn operations(&self) -> Vec<Value> {
        let put = |d: &Document| json!({"op": "put", "kind": d.kind, "name": d.name, "spec": d.spec});
        self.list.iter().map(put).collect()
    }

    /// The resources as a whole configuration.
    pub(super) fn items(&self) -> Vec<Value> {
        self.list.iter().map(|d| json!({"kind": d.kind, "name": d.name, "spec": d.spec})).collect()
    }

    /// Says a place of the request (`/operations/3/spec/rules/0`, `/items/3/name`) in the words of the files.
    pub(super) fn locate(&self, pointer: &str) -> String {
        let found = ["/operations/", "/items/"].iter().find_map(|list| {
            let rest = pointer.strip_prefix(list)?;
            let (index, rest) = rest.split_once('/').unwrap_or((rest, ""));
            Some((self.list.get(index.parse::<usize>().ok()?)?, rest))
        });
        let Some((document, rest)) = found else { return pointer.to_owned() };
        let Document { file, number, kind, name, .. } = document;
        let place = if rest.is_empty() { String::new() } else { format!(": /{rest}") };
        format!("{file}: document {number} ({kind} {name}){place}")
    }
}

/// What is held of a file at one time. A node takes a resource of 1 MiB in its canonical form; the rest is for how it may be written.
const LIMITS: Limits =
    Limits { resource_bytes_max: 8 * 1024 * 1024, values_max: 1_000_000, document_bytes_max: 16 * 1024 * 1024 };

/// What is looked at to tell JSON from YAML.
const SNIFFED_BYTES: u64 = 4096;

/// Whether a text is JSON, and the whole text. JSON is read as JSON: YAML takes no tabs, and not one resource after the other.
fn sniff<R: Read>(mut text: R) -> io::Result<(bool, impl Read)> {
    let mut head = Vec::new();
    text.by_ref().take(SNIFFED_BYTES).read_to_end(&mut head)?;
    let first = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&head).trim_ascii_start().first();
    Ok((matches!(first, Some(b'{' | b'[')), Cursor::new(head).chain(text)))
}

/// Takes the resources of one file. Errors: the document, counted from 0, and what is wrong with it.
struct FileSink<'a> {
    documents: &'a mut Documents,
    file: &'a str,
}

impl Sink for FileSink<'_> {
    type Error = (usize, String);

    fn resource(&mut self, place: Place, value: Value) -> Result<(), Self::Error> {
        let number = place.document + 1;
        let (kind, name, spec) = match value {
            Value::Object(fields) if kubernetes::is_document(&fields) => {
                self.documents.kubernetes.resource(&format!("{}: document {number}", self.file), fields)
            }
            other => resource_of(other),
        }
        .map_err(|message| (place.document, message))?;
        self.documents.list.push(Document { file: self.file.to_owned(), number, kind, name, spec });
        Ok(())
    }

    /// A list as a node shows it, or a `List` of Kubernetes, whose metadata is that of the answer it came in.
    fn envelope(&mut self, document: usize, _form: Form, fields: Map<String, Value>) -> Result<(), Self::Error> {
        let is_kubernetes = fields.get("kind").is_some_and(|kind| kind == "List");
        let is_known = |field: &str| match field {
            "apiVersion" | "kind" | "metadata" => is_kubernetes,
            _ => false,
        };
        match fields.keys().find(|field| !is_known(field)) {
            Some(field) => Err((document, format!("unknown field `{field}` beside `items`"))),
            None => Ok(()),
        }
    }
}

fn resource_of(resource: Value) -> Result<(String, String, Value), String> {
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
        None => Ok((kind, name, spec)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Documents, DocumentError> {
        Documents::of_text("f.yaml", text)
    }

    #[test]
    fn all_forms_give_the_same_resource() {
        let forms = [
            "kind: Route\nname: a\nspec: {rules: []}\n",
            "---\nkind: Route\nname: a\nspec:\n  rules: []\n---\n",
            "{\"kind\": \"Route\",\n\t\"name\": \"a\", \"spec\": {\"rules\": []}}",
            "[{\"kind\": \"Route\", \"name\": \"a\", \"spec\": {\"rules\": []}}]",
            "items:\n- {kind: Route, name: a, revision: 3, createdRevision: 1, updatedAt: x, spec: {rules: []}}\n",
        ];
        for form in forms {
            let documents = read(form).unwrap();
            assert_eq!(
                documents.operations(),
                [json!({"op": "put", "kind": "Route", "name": "a", "spec": {"rules": []}})],
                "{form}"
            );
        }
    }

    #[test]
    fn a_bad_document_is_named_by_file_and_number() {
        let good = "kind: Route\nname: a\nspec: {}\n---\n";
        let script = [
            ("kind: Route\nspec: {}", "`name` is missing"),
            ("kind: Route\nname: b", "Route b: `spec` is missing"),
            ("kind: Route\nname: 3\nspec: {}", "`name`: expected a string"),
            ("kind: Route\nname: b\nspecs: {}\nspec: {}", "Route b: unknown field `specs`"),
            ("just text", "expected an object"),
            ("kind: Route\nkind: Service\nname: b\nspec: {}", "stands twice in one object"),
            ("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute", "/metadata is missing"),
            ("kind: [", "line"),
        ];
        for (text, expected) in script {
            let message = read(&format!("{good}{text}")).unwrap_err().to_string();
            assert!(message.starts_with("f.yaml: document 2: ") && message.contains(expected), "{text}\n  gave {message}");
        }
        let message = read("{\"kind\": \"Route\", \"kind\": \"Route\"}").unwrap_err().to_string();
        assert!(message.contains("stands twice in one object"), "{message}");
        assert_eq!(read("# nothing\n").unwrap_err().to_string(), "f.yaml: no documents");
    }

    #[test]
    fn places_of_the_request_become_places_of_the_files() {
        let documents = read("kind: Service\nname: s\nspec: {}\n---\nkind: Route\nname: a\nspec: {}\n").unwrap();
        let place = documents.locate("/operations/1/spec/rules/0/matchs");
        assert_eq!(place, "f.yaml: document 2 (Route a): /spec/rules/0/matchs");
        assert_eq!(documents.locate("/items/0"), "f.yaml: document 1 (Service s)");
        assert_eq!(documents.locate("/preconditions/0"), "/preconditions/0");
        assert_eq!(documents.locate("/operations/9"), "/operations/9");
    }
}
