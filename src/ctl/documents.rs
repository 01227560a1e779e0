//! Files of resources: YAML or JSON documents of `{kind, name, spec}`, or of [Kubernetes](super::kubernetes).
//!
//! Only the outer form is checked here; content is the node's to judge. What the node finds wrong it names by the document's place in the
//! request, and [`Documents::locate`] turns that back into a file and a document of it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::Deserialize;
use serde_json::{Value, json};
use serde_norway::Value as Yaml;
use thiserror::Error;

use super::kubernetes::{self, Kubernetes};

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
            let text = read_text(file).map_err(|source| DocumentError::Read { name: name.clone(), source })?;
            documents.add(&name, &text)?;
        }
        Ok(documents)
    }

    /// The documents of one text.
    #[cfg(test)]
    pub(super) fn of_text(file: &str, text: &str) -> Result<Documents, DocumentError> {
        let mut documents = Documents::default();
        documents.add(file, text).map(|()| documents)
    }

    fn add(&mut self, file: &str, text: &str) -> Result<(), DocumentError> {
        let before = self.list.len();
        for (index, value) in parse(text).into_iter().enumerate() {
            let form = |message: String| DocumentError::Form { name: file.to_owned(), number: index + 1, message };
            let value = value.and_then(|value| serde_json::to_value(value).map_err(|error| error.to_string())).map_err(form)?;
            if value.is_null() {
                continue;
            }
            for resource in resources(value) {
                let (kind, name, spec) = match resource {
                    Value::Object(fields) if kubernetes::is_document(&fields) => {
                        self.kubernetes.resource(&format!("{file}: document {}", index + 1), fields)
                    }
                    other => resource_of(other),
                }
                .map_err(form)?;
                self.list.push(Document { file: file.to_owned(), number: index + 1, kind, name, spec });
            }
        }
        if self.list.len() == before { Err(DocumentError::Empty(file.to_owned())) } else { Ok(()) }
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

fn read_text(file: &Path) -> io::Result<String> {
    if file != Path::new("-") {
        return fs::read_to_string(file);
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text)?;
    Ok(text)
}

/// Every document of a text. JSON is read as JSON (YAML takes no tabs), both into YAML's values, whose maps refuse a repeated key.
fn parse(text: &str) -> Vec<Result<Yaml, String>> {
    if text.trim_start().starts_with(['{', '[']) {
        let documents = serde_json::Deserializer::from_str(text).into_iter::<Yaml>();
        return documents.map(|document| document.map_err(|error| error.to_string())).collect();
    }
    let mut documents = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        documents.push(Yaml::deserialize(document).map_err(|error| error.to_string()));
        if documents.last().is_some_and(Result::is_err) {
            break;
        }
    }
    documents
}

/// A document is a resource, a list of them, `{"items": [...]}` as a node shows lists, or a `List` of Kubernetes, whose metadata is that of
/// the answer it came in.
fn resources(document: Value) -> Vec<Value> {
    match document {
        Value::Array(list) => list,
        Value::Object(mut fields) if fields.get("kind").is_none_or(|kind| kind == "List") => match fields.remove("items") {
            Some(Value::Array(list)) => list,
            _ => vec![Value::Object(fields)],
        },
        other => vec![other],
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
            ("kind: Route\nkind: Service\nname: b\nspec: {}", "duplicate"),
            ("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute", "/metadata is missing"),
            ("kind: [", "line"),
        ];
        for (text, expected) in script {
            let message = read(&format!("{good}{text}")).unwrap_err().to_string();
            assert!(message.starts_with("f.yaml: document 2: ") && message.contains(expected), "{text}\n  gave {message}");
        }
        let message = read("{\"kind\": \"Route\", \"kind\": \"Route\"}").unwrap_err().to_string();
        assert!(message.contains("duplicate"), "{message}");
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
