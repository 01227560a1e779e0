//! Documents of Kubernetes, taken as they are.
//!
//! An `HTTPRoute` of the Gateway API becomes a `Route`, a `GRPCRoute` the resource of that kind. What only means something inside Kubernetes is left out and told in a warning: each
//! field once, with its first place. What would change where requests go is an error that names the field. All else goes on as it stands,
//! for the node to judge: it knows the fields of the standard. Documents of other kinds that stand beside routes, a Gateway or a Deployment, are left
//! out in the same way; other kinds of routes are errors.
//!
//! Names: `name` of the namespace `default`, or of no namespace, stays `name`; any other becomes `namespace_name`. Kubernetes has no `_` in
//! names, so no two resources get one name. A backend's name is mapped in the same way.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::model::Name;

type Fields = Map<String, Value>;

/// The API group of the routes.
const GROUP: &str = "gateway.networking.k8s.io";

/// Version and kind of the documents that are taken, and the kind that they become.
const TAKEN: [(&str, &str, &str); 3] =
    [("v1", "HTTPRoute", "Route"), ("v1beta1", "HTTPRoute", "Route"), ("v1", "GRPCRoute", "GRPCRoute")];

/// Kinds of the group that say nothing of where requests go here.
const LEFT_OUT: [&str; 3] = ["Gateway", "GatewayClass", "ReferenceGrant"];

const NAMESPACE_DEFAULT: &str = "default";

/// Fields of `metadata` (ObjectMeta) beside name and namespace.
const METADATA: [&str; 13] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// What was met in all documents of a call.
#[derive(Debug, Default)]
pub(super) struct Kubernetes {
    ignored: Vec<Ignored>,
    /// The port that a service is asked for by, and where it was first.
    ports: BTreeMap<String, (Value, String)>,
}

/// A field without meaning here.
#[derive(Debug)]
struct Ignored {
    /// Its path without the places in lists.
    field: String,
    /// Its first place, and why it is left out.
    text: String,
    more: usize,
}

/// One document while it is read.
struct Reading<'a> {
    met: &'a mut Kubernetes,
    /// `file: document 2 (HTTPRoute shop/orders)`
    place: String,
    namespace: String,
}

/// Whether a document is one of Kubernetes.
pub(super) fn is_document(fields: &Fields) -> bool {
    fields.contains_key("apiVersion")
}

impl Kubernetes {
    /// Kind, name and spec that the document at `place` comes to; `None`: it is left out. Errors: what is wrong, with its JSON pointer.
    pub(super) fn resource(&mut self, place: &str, mut fields: Fields) -> Result<Option<(String, String, Value)>, String> {
        drop_nulls_of(&mut fields);
        let version = text(&mut fields, "", "apiVersion")?.unwrap_or_default();
        let kind = text(&mut fields, "", "kind")?.ok_or("/kind is missing")?;
        let (group, number) = version.split_once('/').unwrap_or(("", &version));
        let taken = TAKEN.iter().find(|(known, of, _)| (group, *known, *of) == (GROUP, number, kind.as_str()));
        let Some((_, _, served)) = taken else {
            let is_list = kind == "List" || kind.ends_with("Route");
            if !is_list && (group != GROUP || LEFT_OUT.contains(&kind.as_str())) {
                self.leave_out(place, &kind);
                return Ok(None);
            }
            return Err(format!(
                "/kind: {kind} of {version}: of Kubernetes, HTTPRoute of {GROUP}/v1 and v1beta1 and GRPCRoute of {GROUP}/v1 are taken"
            ));
        };
        let mut metadata = object(&mut fields, "", "metadata")?.ok_or("/metadata is missing")?;
        let name = text(&mut metadata, "/metadata", "name")?.ok_or("/metadata/name is missing")?;
        let namespace = text(&mut metadata, "/metadata", "namespace")?.unwrap_or_else(|| NAMESPACE_DEFAULT.to_owned());
        let who = format!("{kind} {namespace}/{name}");
        let mut reading = Reading { met: self, place: format!("{place} ({who})"), namespace };
        let (name, spec) = reading.route(&name, &metadata, fields).map_err(|fault| format!("{who}: {fault}"))?;
        Ok(Some(((*served).to_owned(), name, spec)))
    }

    /// Notes a document of a kind that has no meaning here.
    fn leave_out(&mut self, place: &str, kind: &str) {
        let hint = if kind == "Service" { ": give its endpoints as a Service of this gateway" } else { "" };
        let text = format!("{place}: {kind} of Kubernetes has no meaning here and is left out{hint}");
        self.note(kind.to_owned(), text);
    }

    /// Notes a thing once, with how often it was met.
    fn note(&mut self, field: String, text: String) {
        match self.ignored.iter_mut().find(|ignored| ignored.field == field) {
            Some(ignored) => ignored.more += 1,
            None => self.ignored.push(Ignored { field, text, more: 0 }),
        }
    }

    /// What was left out, each field once.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.ignored.iter().map(|ignored| match ignored.more {
            0 => ignored.text.clone(),
            1 => format!("{} (and in one more place)", ignored.text),
            more => format!("{} (and in {more} more places)", ignored.text),
        })
    }
}

impl Reading<'_> {
    fn route(&mut self, name: &str, metadata: &Fields, mut fields: Fields) -> Result<(String, Value), String> {
        let name = resource_name(&self.namespace, name).map_err(|fault| format!("/metadata: {fault}"))?;
        for field in metadata.keys() {
            let path = format!("/metadata/{field}");
            if !METADATA.contains(&field.as_str()) {
                return Err(format!("{path}: unknown field"));
            }
            let why = match field.as_str() {
                "creationTimestamp" => {
                    "of routes that match alike the one that was created here first answers, then the first by name"
                }
                _ => "is not kept",
            };
            self.ignore(&path, why);
        }
        let mut spec = object(&mut fields, "", "spec")?.ok_or("/spec is missing")?;
        if fields.remove("status").is_some() {
            self.ignore("/status", "is not kept");
        }
        if let Some(unknown) = fields.keys().next() {
            return Err(format!("/{unknown}: unknown field"));
        }
        if spec.remove("useDefaultGateways").is_some() {
            self.ignore("/spec/useDefaultGateways", "every route is one of this gateway");
        }
        self.parents(&mut spec)?;
        // The standard's default: one rule for every path.
        let rules = spec.entry("rules").or_insert_with(|| json!([{}]));
        for (rule, path) in objects(Some(rules), "/spec/rules") {
            self.rule(rule, &path)?;
        }
        Ok((name, Value::Object(spec)))
    }

    /// `parentRefs` becomes `listeners`: those that the parents name by `sectionName`, all where one names none.
    fn parents(&mut self, spec: &mut Fields) -> Result<(), String> {
        if spec.contains_key("listeners") {
            return Err("/spec/listeners: unknown field; listeners are named by parentRefs[].sectionName".to_owned());
        }
        let mut parents = spec.remove("parentRefs");
        let is_list =
            parents.as_ref().is_none_or(|parents| parents.as_array().is_some_and(|list| list.iter().all(Value::is_object)));
        if !is_list {
            return Err("/spec/parentRefs: expected an array of objects".to_owned());
        }
        let mut listeners: Vec<Value> = Vec::new();
        let mut of_all = false;
        for (parent, path) in objects(parents.as_mut(), "/spec/parentRefs") {
            match self.listener(parent, &path)? {
                Some(name) if listeners.contains(&json!(name)) => {}
                Some(name) => listeners.push(json!(name)),
                None => of_all = true,
            }
        }
        if listeners.is_empty() && !of_all {
            self.note("/spec/parentRefs", "/spec/parentRefs: there are none; the route serves on all listeners");
        } else if !of_all {
            spec.insert("listeners".to_owned(), Value::Array(listeners));
        }
        Ok(())
    }

    fn listener(&mut self, parent: &mut Fields, path: &str) -> Result<Option<String>, String> {
        let group = text(parent, path, "group")?;
        let kind = text(parent, path, "kind")?;
        if group.as_deref().is_some_and(|group| group != GROUP) || kind.as_deref().is_some_and(|kind| kind != "Gateway") {
            let (group, kind) = (group.as_deref().unwrap_or(GROUP), kind.as_deref().unwrap_or("Gateway"));
            return Err(format!("{path}: a parent of kind {kind} in group {group:?}; only a Gateway of {GROUP} can be one"));
        }
        let listener = text(parent, path, "sectionName")?;
        if let Some(Err(fault)) = listener.as_deref().map(Name::new) {
            return Err(format!("{path}/sectionName: {fault}"));
        }
        for field in std::mem::take(parent).into_iter().map(|(field, _)| field) {
            let path = format!("{path}/{field}");
            match field.as_str() {
                "name" | "namespace" => self.ignore(&path, "listeners are known by sectionName alone"),
                "port" if listener.is_some() => self.ignore(&path, "the listener that sectionName names has its own port"),
                "port" => return Err(format!("{path}: listeners are not chosen by port; name one by sectionName")),
                _ => return Err(format!("{path}: unknown field")),
            }
        }
        Ok(listener)
    }

    fn rule(&mut self, rule: &mut Fields, path: &str) -> Result<(), String> {
        self.filters(rule, path)?;
        for (backend, path) in objects(rule.get_mut("backendRefs"), &format!("{path}/backendRefs")) {
            self.backend(backend, &path)?;
            self.filters(backend, &path)?;
        }
        Ok(())
    }

    fn filters(&mut self, owner: &mut Fields, path: &str) -> Result<(), String> {
        for (filter, path) in objects(owner.get_mut("filters"), &format!("{path}/filters")) {
            if let Some(Value::Object(backend)) = filter.get_mut("requestMirror").and_then(|mirror| mirror.get_mut("backendRef"))
            {
                self.backend(backend, &format!("{path}/requestMirror/backendRef"))?;
            }
        }
        Ok(())
    }

    /// The name of a service; its other fields stay for the node to judge.
    fn backend(&mut self, backend: &mut Fields, path: &str) -> Result<(), String> {
        for (field, served) in [("group", ""), ("kind", "Service")] {
            match text(backend, path, field)? {
                Some(other) if other != served => {
                    return Err(format!("{path}/{field}: {other:?}; a backend is a Service of the core group"));
                }
                Some(_) => self.ignore(&format!("{path}/{field}"), "a backend is always a Service"),
                None => {}
            }
        }
        let name = text(backend, path, "name")?.ok_or(format!("{path}/name is missing"))?;
        let namespace = text(backend, path, "namespace")?.unwrap_or_else(|| self.namespace.clone());
        if namespace != self.namespace {
            self.note(&format!("{path}/namespace"), &format!("{path}/namespace: no ReferenceGrant is asked for here"));
        }
        let service = resource_name(&namespace, &name).map_err(|fault| format!("{path}: {fault}"))?;
        if let Some(port) = backend.remove("port") {
            self.port(&service, port, &format!("{path}/port"))?;
        }
        backend.insert("name".to_owned(), json!(service));
        Ok(())
    }

    /// A service has its endpoints' ports: one that is asked for by two ports would be two services.
    fn port(&mut self, service: &str, port: Value, path: &str) -> Result<(), String> {
        let here = format!("{}: {path}", self.place);
        let (known, at) = self.met.ports.entry(service.to_owned()).or_insert_with(|| (port.clone(), here));
        if *known != port {
            return Err(format!(
                "{path}: {port}, and {known} at {at}; Service {service} has one set of endpoints, so give each port a Service"
            ));
        }
        self.ignore(path, "the endpoints of a Service have their ports");
        Ok(())
    }

    fn ignore(&mut self, path: &str, why: &str) {
        self.note(path, &format!("{path} has no meaning here: {why}"));
    }

    fn note(&mut self, path: &str, text: &str) {
        let steps = path.split('/').filter(|step| step.parse::<usize>().is_err());
        let field = steps.collect::<Vec<_>>().join("/");
        self.met.note(field, format!("{}: {text}", self.place));
    }
}

/// The name here of what Kubernetes calls `namespace`/`name`.
fn resource_name(namespace: &str, name: &str) -> Result<String, String> {
    let plain = |text: &str, others: &[u8]| {
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || others.contains(&byte))
    };
    if namespace.is_empty() || !plain(namespace, b"") {
        return Err(format!("namespace {namespace:?}: expected letters a-z, digits and `-` (RFC 1123 label)"));
    }
    if !plain(name, b".") {
        return Err(format!("name {name:?}: expected letters a-z, digits, `-` and `.` (RFC 1123 subdomain)"));
    }
    let whole = if namespace == NAMESPACE_DEFAULT { name.to_owned() } else { format!("{namespace}_{name}") };
    match Name::new(name).and_then(|_| Name::new(&whole)) {
        Ok(_) => Ok(whole),
        Err(fault) => Err(format!("name {whole:?}: {fault}")),
    }
}

/// Takes a string out.
fn text(fields: &mut Fields, path: &str, field: &str) -> Result<Option<String>, String> {
    match fields.remove(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{path}/{field}: expected a string")),
    }
}

/// Takes an object out.
fn object(fields: &mut Fields, path: &str, field: &str) -> Result<Option<Fields>, String> {
    match fields.remove(field) {
        None => Ok(None),
        Some(Value::Object(inner)) => Ok(Some(inner)),
        Some(_) => Err(format!("{path}/{field}: expected an object")),
    }
}

/// The objects of a list, with their pointers. What is none is left for the node to refuse.
fn objects<'v>(list: Option<&'v mut Value>, path: &str) -> Vec<(&'v mut Fields, String)> {
    let values = list.and_then(Value::as_array_mut).into_iter().flatten().enumerate();
    values.filter_map(|(index, value)| Some((value.as_object_mut()?, format!("{path}/{index}")))).collect()
}

fn drop_nulls_of(fields: &mut Fields) {
    fields.retain(|_, value| !value.is_null());
    fields.values_mut().for_each(drop_nulls);
}

/// Fields that are null count as not there, as Kubernetes has it. Parsers bound how deep a value is.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => drop_nulls_of(fields),
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
