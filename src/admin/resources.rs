//! One resource: `GET`, `PUT` and `DELETE` of `/v1/{kind-plural}/{name}`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{StatusCode, header};

use super::Shared;
use super::advice::advise;
use super::body::{Received, offload};
use super::call::Call;
use super::content::{Content, Draft, KINDS_NOT_SERVED, at, check_limits};
use super::document::read_json;
use super::headers::{already_has, conditions, tag_of};
use super::problem::Problem;
use super::query::Parameters;
use super::reads::state_for;
use super::render::{resource_text, text_at};
use super::sealing::Sealer;
use super::writes::{Shape, WRITE_PARAMETERS, Wishes, perform};
use crate::model::{Kind, Name, Operation, ResourceKey, Transaction};

/// The kind whose path segment this is.
fn kind_of(plural: &str) -> Result<Kind, Problem> {
    Kind::from_plural(plural).ok_or_else(|| match KINDS_NOT_SERVED.iter().find(|(_, known)| *known == plural) {
        Some((kind, _)) => Problem::not_supported(&format!("kind {kind}")),
        None => Problem::not_found(format!("there is no /v1/{plural}")),
    })
}

/// The resource that a path names.
pub(crate) struct Target(ResourceKey);

impl FromRequestParts<Arc<Shared>> for Target {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Target, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, shared).await;
        let Path((plural, name)) = path.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
        let kind = kind_of(&plural)?;
        let name = Name::new(&name).map_err(|error| Problem::invalid(vec![at("/name", error.to_string())]))?;
        Ok(Target(ResourceKey::new(kind, name)))
    }
}

/// The kind that a path names.
pub(crate) struct TargetKind(pub(crate) Kind);

impl FromRequestParts<Arc<Shared>> for TargetKind {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<TargetKind, Problem> {
        let path = Path::<String>::from_request_parts(parts, shared).await;
        let Path(plural) = path.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
        kind_of(&plural).map(TargetKind)
    }
}

/// `GET /v1/{kind-plural}/{name}`
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    Extension(call): Extension<Call>,
    Target(key): Target,
    request: Request,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(request.uri(), &["consistency"])?;
    let state = state_for(&shared, &call, &parameters).await?;
    let Some(resource) = state.get(&key) else {
        return Err(Problem::not_found(format!("{key} does not exist")).at(state.revision()));
    };
    let tag = tag_of(resource.revision);
    let mut response = if already_has(request.headers(), &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        text_at(StatusCode::OK, state.revision(), resource_text(resource))
    };
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// `PUT /v1/{kind-plural}/{name}`: the body is the spec.
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    Extension(call): Extension<Call>,
    Target(key): Target,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let parameters = Parameters::read(&parts.uri, &WRITE_PARAMETERS)?;
    let preconditions = conditions(&parts.headers, &key)?.into_iter().collect();
    let received = Received::read(&parts, body, &shared.bodies, call.deadline).await?;
    let wishes = Wishes::read(&parts, &parameters, &call.actor, &received.bytes)?;
    let sealer = Sealer::of_call(&shared, &call, !key.kind.secret_fields().is_empty()).await?;
    let Received { bytes, share: _share } = received;
    let content = offload(bytes.len(), move || {
        let spec = read_json(&bytes)?;
        let mut draft = Draft::new(sealer);
        draft.put(key, &spec, "");
        draft.finish()
    })
    .await?;
    check_limits(&content.operations)?;
    let wishes = wishes.guarded(&shared, content.findings.had_plain_secret);
    let (content, warnings) = advise(&shared, content).await?;
    let transaction = Transaction { preconditions, operations: content.operations, idempotency: wishes.idempotency.clone() };
    let done = perform(&shared, &call, transaction, &wishes, Shape::Single).await?;
    Ok(done.answer_of_one(true, &warnings.lines()))
}

/// `DELETE /v1/{kind-plural}/{name}`
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Extension(call): Extension<Call>,
    Target(key): Target,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let parameters = Parameters::read(&parts.uri, &WRITE_PARAMETERS)?;
    let preconditions = conditions(&parts.headers, &key)?.into_iter().collect();
    let wishes = Wishes::read(&parts, &parameters, &call.actor, &[])?;
    let content = Content { operations: vec![Operation::Delete { key }], ..Content::default() };
    let (content, warnings) = advise(&shared, content).await?;
    let transaction = Transaction { preconditions, operations: content.operations, idempotency: wishes.idempotency.clone() };
    let done = perform(&shared, &call, transaction, &wishes, Shape::Single).await?;
    Ok(done.answer_of_one(false, &warnings.lines()))
}
