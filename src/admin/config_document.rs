//! `/v1/config`: the whole configuration as one document.
//!
//! The document is `{"items": [{"kind", "name", "spec"}, ...]}`, in JSON or YAML; a YAML body may also be a stream of documents, each of
//! them such a document or one `{kind, name, spec}`. What `GET` answers, `PUT` takes, however large it is: in YAML, of which no more than a
//! whole document can be read at one time, `GET` answers one document a resource.
//!
//! `GET` is here; [`super::config_upload`] is `PUT`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State as Shares};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};

use super::Shared;
use super::call::Call;
use super::document::Format;
use super::headers::{REVISION, already_has, answer_format, tag_of};
use super::problem::Problem;
use super::query::Parameters;
use super::reads::state_for;
use super::render::{key_value, shown, shown_value};
use crate::model::{Kind, Resource, ResourceKey, State};

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
                let spec = shown(resource);
                let (kind, name) = (resource.key.kind, &resource.key.name);
                chunk.push_str(&format!(r#"{{"kind":"{kind}","name":"{name}","spec":{spec}}}"#));
            }
            Format::Yaml => {
                let mut item = key_value(&resource.key);
                item["spec"] = shown_value(resource);
                chunk.push_str("---\n");
                chunk.push_str(&serde_norway::to_string(&item).unwrap_or_default());
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
