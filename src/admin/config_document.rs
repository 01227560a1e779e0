//! `/v1/config`: the whole configuration as one document.
//!
//! The document is `{"items": [{"kind", "name", "spec"}, ...]}`, in JSON or YAML; what `GET` answers, `PUT` takes. A YAML body may
//! also be a stream of documents, each of them such a document or one `{kind, name, spec}`.
//!
//! A `PUT` is computed from a linearizable read and proposed on the condition that the State has not moved since; where it has, it is
//! computed again, within the deadline. So it makes the configuration so in one revision, whoever else writes. Only what differs is
//! proposed: applying a large file with one change is a small transaction. Without `prune` what the document does not name stays.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State as Shares};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use tokio::time::Instant;

use super::Shared;
use super::body::{Received, offload};
use super::call::Call;
use super::content::{Content, Draft, Fields, at, check_limits};
use super::document::{Format, read_json, read_yaml};
use super::headers::{REVISION, already_has, answer_format, state_condition, tag_of};
use super::problem::Problem;
use super::query::Parameters;
use super::reads::{state_for, unreadable};
use super::render::key_value;
use super::writes::{Done, Shape, WRITE_PARAMETERS, Wishes, await_live, done_of, propose, rehearse};
use crate::model::spec::FieldError;
use crate::model::{
    IdempotencyKey, Kind, Operation, Outcome, Precondition, Refusal, Resource, ResourceKey, Revision, State, Transaction,
};

/// `GET /v1/config`
pub(crate) async fn get(
    Shares(shared): Shares<Arc<Shared>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(request.uri(), &["consistency"])?;
    let state = state_for(&shared, &call, &parameters).await?;
    let revision = state.revision();
    let tag = tag_of(revision);
    let mut response = if already_has(request.headers(), &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        whole(state, answer_format(request.headers()))
    };
    response.headers_mut().insert(header::ETAG, tag);
    response.headers_mut().insert(REVISION, HeaderValue::from(revision.0));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// The whole State as a stream of chunks: a million routes never stand in memory as one text.
fn whole(state: State, format: Format) -> Response {
    let start = Cursor { state, format, kinds: Kind::SERVED.into(), after: None, begun: false };
    let body = Body::from_stream(stream::unfold(start, |cursor| async { cursor.next() }));
    let content_type = match format {
        Format::Json => "application/json",
        Format::Yaml => "application/yaml",
    };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
}

/// Resources in one chunk.
const CHUNK_ITEMS: usize = 64;

/// Where the writing of a configuration stands.
struct Cursor {
    state: State,
    format: Format,
    /// The kind that is written, and those to come. Empty at the end.
    kinds: VecDeque<Kind>,
    after: Option<ResourceKey>,
    /// Whether an item was written.
    begun: bool,
}

impl Cursor {
    /// The next chunk.
    fn next(mut self) -> Option<(Result<String, Infallible>, Cursor)> {
        let kind = *self.kinds.front()?;
        let mut chunk = String::new();
        let after = self.after.take();
        let state = self.state.clone();
        let mut resources = state.resources_after(kind, after.as_ref().map(|key| &key.name));
        for resource in resources.by_ref().take(CHUNK_ITEMS) {
            self.write(resource, &mut chunk);
            self.after = Some(resource.key.clone());
        }
        if resources.next().is_none() {
            self.kinds.pop_front();
            self.after = None;
        }
        if self.kinds.is_empty() {
            self.end(&mut chunk);
        }
        Some((Ok(chunk), self))
    }

    fn write(&mut self, resource: &Resource, chunk: &mut String) {
        match self.format {
            Format::Json => {
                chunk.push_str(if self.begun { ",\n" } else { "{\"items\":[\n" });
                // Neither kinds nor names have a character that JSON escapes.
                let spec = String::from_utf8_lossy(&resource.spec);
                let (kind, name) = (resource.key.kind, &resource.key.name);
                chunk.push_str(&format!(r#"{{"kind":"{kind}","name":"{name}","spec":{spec}}}"#));
            }
            Format::Yaml => {
                chunk.push_str(if self.begun { "" } else { "items:\n" });
                let mut item = key_value(&resource.key);
                item["spec"] = serde_json::from_slice(&resource.spec).unwrap_or_default();
                // A list of one item, so that its text is an element of the list that was begun.
                chunk.push_str(&serde_norway::to_string(&[item]).unwrap_or_default());
            }
        }
        self.begun = true;
    }

    fn end(&self, chunk: &mut String) {
        chunk.push_str(match (self.format, self.begun) {
            (Format::Json, true) => "\n]}\n",
            (Format::Json, false) => "{\"items\":[]}\n",
            (Format::Yaml, true) => "",
            (Format::Yaml, false) => "items: []\n",
        });
    }
}

/// `PUT /v1/config?prune=true`
pub(crate) async fn put(
    Shares(shared): Shares<Arc<Shared>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let known: Vec<&str> = WRITE_PARAMETERS.into_iter().chain(["prune"]).collect();
    let parameters = Parameters::read(&parts.uri, &known)?;
    let prune = parameters.flag("prune")?;
    let expected = state_condition(&parts.headers)?;
    let received = Received::read(&parts, body, &[Format::Json, Format::Yaml], &shared.bodies, call.deadline).await?;
    let wishes = Wishes::read(&parts, &parameters, &call.actor, &received.bytes)?;
    let content = offload(received.bytes.len(), move || read(&received)).await?;
    let wanted = Arc::new(Configuration { content, prune });
    let (done, warnings) = make_so(&shared, &call, &wanted, expected, &wishes).await?;
    Ok(done.answer(StatusCode::OK, &warnings))
}

fn read(received: &Received) -> Result<Content, Problem> {
    let documents = match received.format {
        Format::Json => vec![read_json(&received.bytes)?],
        Format::Yaml => read_yaml(&received.bytes)?,
    };
    let mut draft = Draft::naming();
    if documents.is_empty() {
        // An upload that was cut off must not pass for a wish to remove everything.
        draft.errors([at("", "the body holds no document; an empty configuration is written as items: []".to_owned())]);
    }
    let mut seen = BTreeSet::new();
    for (index, document) in documents.iter().enumerate() {
        let pointer = if documents.len() == 1 { String::new() } else { format!("/{index}") };
        let is_list = document.get("items").is_some() || document.get("kind").is_none();
        let taken = if is_list {
            items(&mut draft, &mut seen, document, &pointer)
        } else {
            item(&mut draft, &mut seen, document, &pointer)
        };
        draft.errors(taken.err().into_iter().flatten());
    }
    draft.finish()
}

fn items(draft: &mut Draft, seen: &mut BTreeSet<ResourceKey>, document: &Value, pointer: &str) -> Result<(), Vec<FieldError>> {
    let fields = Fields::read(document, pointer, &["items"])?;
    fields.required("items").map_err(|error| vec![error])?;
    for (index, value) in fields.list("items").map_err(|error| vec![error])?.iter().enumerate() {
        let taken = item(draft, seen, value, &format!("{pointer}/items/{index}"));
        draft.errors(taken.err().into_iter().flatten());
    }
    Ok(())
}

fn item(draft: &mut Draft, seen: &mut BTreeSet<ResourceKey>, value: &Value, pointer: &str) -> Result<(), Vec<FieldError>> {
    let fields = Fields::read(value, pointer, &["kind", "name", "spec"])?;
    let key = fields.key()?;
    let spec = fields.required("spec").map_err(|error| vec![error])?;
    if !seen.insert(key.clone()) {
        return Err(vec![at(pointer, format!("{key} stands twice in the configuration"))]);
    }
    draft.put(key, spec, &fields.path("spec"));
    Ok(())
}

/// What the configuration shall be.
#[derive(Debug)]
struct Configuration {
    content: Content,
    prune: bool,
}

impl Configuration {
    /// The operations that lead from `state` there.
    fn difference(&self, state: &State) -> Vec<Operation> {
        let differs = |operation: &&Operation| match operation {
            Operation::Put { key, spec } => state.get(key).is_none_or(|present| present.spec != *spec),
            Operation::Delete { .. } => true,
        };
        let mut operations: Vec<Operation> = self.content.operations.iter().filter(differs).cloned().collect();
        if self.prune {
            let named: BTreeSet<&ResourceKey> = self.content.operations.iter().map(Operation::key).collect();
            let kinds = Kind::SERVED.into_iter().flat_map(|kind| state.resources_after(kind, None));
            let surplus = kinds.map(|resource| &resource.key).filter(|key| !named.contains(key));
            operations.extend(surplus.map(|key| Operation::Delete { key: key.clone() }));
        }
        operations
    }
}

const TOO_LARGE_HINT: &str = "; a larger change of the configuration needs a staged upload, which is not supported yet";

async fn make_so(
    shared: &Shared,
    call: &Call,
    wanted: &Arc<Configuration>,
    expected: Option<Revision>,
    wishes: &Wishes,
) -> Result<(Done, Vec<String>), Problem> {
    for attempt in 0_u64.. {
        if attempt > 0 && Instant::now() >= call.deadline {
            break;
        }
        let state = shared.admin.cluster.read(call.deadline).await.map_err(|error| unreadable(&error))?;
        let (operations, warnings) = plan(shared, wanted, &state).await?;
        let revision = expected.unwrap_or(state.revision());
        let idempotency = wishes.idempotency.as_ref().map(|key| of_attempt(key, attempt));
        let transaction = Transaction { preconditions: vec![Precondition::State { revision }], operations, idempotency };
        if wishes.dry_run {
            return Ok((rehearse(call, transaction, state, Shape::Single).await?, warnings));
        }
        // A request with an idempotency key is remembered even if it does nothing, so that its retry does nothing either.
        if transaction.operations.is_empty() && transaction.idempotency.is_none() && revision == state.revision() {
            return Ok((await_live(shared, call, wishes, Done::nothing(revision)).await, warnings));
        }
        let outcome = propose(shared, call, transaction).await?;
        let moved = matches!(outcome, Outcome::Refused { refusal: Refusal::StateRevision { .. }, .. });
        if !moved || expected.is_some() {
            let done = done_of(outcome, Shape::Single)?;
            return Ok((await_live(shared, call, wishes, done).await, warnings));
        }
    }
    Err(Problem::unavailable("the configuration was changed by others each time before this one could be applied"))
}

async fn plan(shared: &Shared, wanted: &Arc<Configuration>, state: &State) -> Result<(Vec<Operation>, Vec<String>), Problem> {
    let (wanted, state, listeners) = (Arc::clone(wanted), state.clone(), shared.admin.listeners.clone());
    let table = shared.admin.live.load();
    let cost = wanted.content.operations.iter().map(Operation::byte_count).sum::<usize>() + state.len();
    offload(cost, move || {
        let operations = wanted.difference(&state);
        check_limits(&operations, TOO_LARGE_HINT)?;
        wanted.content.check_patterns(&table, &operations)?;
        let warnings = wanted.content.warnings(&state, &table, &operations, &listeners);
        Ok((operations, warnings))
    })
    .await
}

/// The key of one attempt. A refused attempt is remembered as well: under one key the next one would be answered with that refusal. A
/// retried request walks the same attempts and ends at the one that was applied.
fn of_attempt(key: &IdempotencyKey, attempt: u64) -> IdempotencyKey {
    IdempotencyKey { scoped_key: format!("{}\0{attempt}", key.scoped_key), request_sha256: key.request_sha256 }
}
