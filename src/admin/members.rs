//! Members of the cluster: `/v1/cluster/members` and `/v1/cluster/leader`. What each change means and when it is refused stands in
//! [`crate::raft`]; every call is answered with the cluster as this node sees it after the change.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri, header};
use serde_json::{Value, json};

use super::Shared;
use super::body::Received;
use super::call::Call;
use super::content::{Fields, at, type_of};
use super::headers::IDEMPOTENCY_KEY;
use super::problem::Problem;
use super::query::Parameters;
use super::reads::member;
use super::render::json_at;
use crate::model::NodeId;
use crate::model::spec::FieldError;
use crate::raft::{MemberChange, MemberError};

/// `POST /v1/cluster/members`: `{"peerAddress", "id"?}` of a node that belongs to no cluster and waits. It becomes a learner.
pub(crate) async fn add(
    State(shared): State<Arc<Shared>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Problem> {
    let body = body(&shared, &call, request).await?;
    let fields = Fields::read(&body, "", &["peerAddress", "id"]).map_err(Problem::invalid)?;
    let address = fields.string("peerAddress").map_err(invalid)?;
    if address.parse::<http::uri::Authority>().ok().and_then(|authority| authority.port_u16()).is_none() {
        return Err(Problem::invalid_at("/peerAddress", format!("{address:?} is not host:port")));
    }
    let id = fields.get("id").map(|id| node_id(id, "/id")).transpose().map_err(invalid)?;
    let added = shared.admin.cluster.add_member(address.to_owned(), id, call.deadline).await.map_err(not_changed)?;
    Ok(shown(&shared, StatusCode::CREATED, Some(added)))
}

/// `PATCH /v1/cluster/members/{id}`: `{"role": "voter" | "learner"}`
pub(crate) async fn patch(
    State(shared): State<Arc<Shared>>,
    Extension(call): Extension<Call>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id = id_of_path(&id)?;
    let body = body(&shared, &call, request).await?;
    let fields = Fields::read(&body, "", &["role"]).map_err(Problem::invalid)?;
    let role = fields.string("role").map_err(invalid)?;
    let change = match role {
        "voter" => MemberChange::Promote(id),
        "learner" => MemberChange::Demote(id),
        other => return Err(Problem::invalid_at("/role", format!("expected \"voter\" or \"learner\", found {other:?}"))),
    };
    make(&shared, &call, change, Some(id)).await
}

/// `DELETE /v1/cluster/members/{id}`
pub(crate) async fn remove(
    State(shared): State<Arc<Shared>>,
    Extension(call): Extension<Call>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id = id_of_path(&id)?;
    check(request.uri(), request.headers())?;
    make(&shared, &call, MemberChange::Remove(id), None).await
}

/// `POST /v1/cluster/leader`: `{"id"}` of the voter that is to lead.
pub(crate) async fn lead(
    State(shared): State<Arc<Shared>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Problem> {
    let body = body(&shared, &call, request).await?;
    let fields = Fields::read(&body, "", &["id"]).map_err(Problem::invalid)?;
    let id = fields.required("id").and_then(|id| node_id(id, "/id")).map_err(invalid)?;
    make(&shared, &call, MemberChange::Lead(id), Some(id)).await
}

/// `POST /v1/cluster/feature-level`: `{"level"}` that commands may use from here on.
pub(crate) async fn raise_feature_level(
    State(shared): State<Arc<Shared>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Problem> {
    let body = body(&shared, &call, request).await?;
    let fields = Fields::read(&body, "", &["level"]).map_err(Problem::invalid)?;
    let level = fields.required("level").map_err(invalid)?;
    let level = level.as_u64().and_then(|level| u32::try_from(level).ok());
    let level = level.ok_or_else(|| Problem::invalid_at("/level", "expected a number from 0"))?;
    shared.admin.cluster.raise_feature_level(level, call.deadline).await.map_err(not_changed)?;
    let state = shared.admin.cluster.state();
    Ok(json_at(StatusCode::OK, state.revision(), &json!({"featureLevel": state.feature_level()})))
}

/// `PUT /v1/note`: `{"text"}` that `/v1/cluster` shows.
#[cfg(feature = "next-format")]
pub(crate) async fn put_note(
    State(shared): State<Arc<Shared>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Problem> {
    let body = body(&shared, &call, request).await?;
    let text = body["text"].as_str().unwrap_or_default().to_owned();
    super::writes::propose(&shared, &call, crate::model::CommandBody::SetNote(text)).await?;
    Ok(shown(&shared, StatusCode::OK, None))
}

/// Makes one change and answers with the members; `about` is the one that it was about and that is there still.
async fn make(shared: &Shared, call: &Call, change: MemberChange, about: Option<NodeId>) -> Result<Response, Problem> {
    shared.admin.cluster.change_member(change, call.deadline).await.map_err(not_changed)?;
    Ok(shown(shared, StatusCode::OK, about))
}

async fn body(shared: &Shared, call: &Call, request: Request) -> Result<Value, Problem> {
    let (parts, body) = request.into_parts();
    check(&parts.uri, &parts.headers)?;
    let (value, _) = Received::read(&parts, body, &shared.bodies, call.deadline).await?.json().await?;
    Ok(value)
}

/// These calls have no parameters and no conditions, and find by themselves what is done already.
fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    Parameters::read(uri, &[])?;
    let unused = [header::IF_MATCH, header::IF_NONE_MATCH, IDEMPOTENCY_KEY].into_iter().find(|name| headers.contains_key(name));
    unused.map_or(Ok(()), |name| Err(Problem::malformed(format!("header {name} is not used here"))))
}

fn id_of_path(text: &str) -> Result<NodeId, Problem> {
    let id = text.parse().ok().filter(|&id: &NodeId| id > 0 && id.to_string() == text);
    id.ok_or_else(|| Problem::not_found(format!("{text:?} is no member's id: they are numbers from 1")))
}

fn node_id(value: &Value, path: &str) -> Result<NodeId, FieldError> {
    value.as_u64().filter(|&id| id > 0).ok_or_else(|| {
        let found = if value.is_number() { value.to_string() } else { type_of(value).to_owned() };
        at(path.to_owned(), format!("expected a member's id, a number from 1; found {found}"))
    })
}

/// The members as this node sees them, and the one that it was about.
fn shown(shared: &Shared, status: StatusCode, id: Option<NodeId>) -> Response {
    let cluster = shared.admin.cluster.status();
    let body = json!({
        "id": id,
        "leader": cluster.leader,
        "members": cluster.members.iter().map(member).collect::<Vec<Value>>(),
    });
    json_at(status, shared.admin.cluster.state().revision(), &body)
}

fn invalid(error: FieldError) -> Problem {
    Problem::invalid(vec![error])
}

fn not_changed(error: MemberError) -> Problem {
    match error {
        MemberError::NotFound(reason) => Problem::not_found(reason),
        MemberError::Conflict(reason) => Problem::conflict(reason),
        MemberError::Refused(reason) => Problem::invalid_at("", reason),
        MemberError::NotApplied { reason, .. } => Problem::unavailable(format!("nothing was changed: {reason}")),
        MemberError::Unknown(reason) => Problem::unknown_outcome(format!("the members may have been changed: {reason}")),
    }
}
