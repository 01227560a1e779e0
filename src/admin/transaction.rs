//! `POST /v1/transactions`: several operations that take effect together or not at all.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::Shared;
use super::advice::advise;
use super::body::{Received, offload};
use super::call::Call;
use super::content::{Content, Draft, Fields, at, check_limits, type_of};
use super::document::read_json;
use super::headers::no_conditions;
use super::problem::Problem;
use super::query::Parameters;
use super::sealing::{Sealer, has_secrets};
use super::writes::{Shape, WRITE_PARAMETERS, Wishes, perform};
use crate::model::limits::TRANSACTION_OPERATIONS_MAX;
use crate::model::spec::FieldError;
use crate::model::{Precondition, Revision, Transaction};

/// `POST /v1/transactions`
pub(crate) async fn post(
    State(shared): State<Arc<Shared>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let parameters = Parameters::read(&parts.uri, &WRITE_PARAMETERS)?;
    no_conditions(&parts.headers)?;
    let received = Received::read(&parts, body, &shared.bodies, call.deadline).await?;
    let wishes = Wishes::read(&parts, &parameters, &call.actor, &received.bytes)?;
    let Received { bytes, share: _share } = received;
    let (preconditions, content) = match offload(bytes.len(), move || parse(&bytes)).await? {
        Parsed::Whole(parts) => *parts,
        Parsed::Unsealed { body, byte_count } => {
            let sealer = Sealer::of_call(&shared, &call, true).await?;
            offload(byte_count, move || read(&body, sealer)).await?
        }
    };
    check_limits(&content.operations)?;
    let wishes = wishes.guarded(&shared, content.findings.had_plain_secret);
    let (content, warnings) = advise(&shared, content).await?;
    let transaction = Transaction { preconditions, operations: content.operations, idempotency: wishes.idempotency.clone() };
    let done = perform(&shared, &call, transaction, &wishes, Shape::Transaction).await?;
    Ok(done.answer(StatusCode::OK, &warnings.lines()))
}

/// What can be had of a body at once.
enum Parsed {
    Whole(Box<(Vec<Precondition>, Content)>),
    /// It has secrets, and to seal them takes more than the body.
    Unsealed {
        body: Value,
        byte_count: usize,
    },
}

/// Values take many times the bytes of their text. Those of a body without secrets are gone when its turn ends.
fn parse(bytes: &Bytes) -> Result<Parsed, Problem> {
    let body = read_json(bytes)?;
    if has_secrets(&body) {
        return Ok(Parsed::Unsealed { body, byte_count: bytes.len() });
    }
    read(&body, Sealer::default()).map(|read| Parsed::Whole(Box::new(read)))
}

fn read(body: &Value, sealer: Sealer) -> Result<(Vec<Precondition>, Content), Problem> {
    let fields = Fields::read(body, "", &["preconditions", "operations"]).map_err(Problem::invalid)?;
    let lists = fields.list("preconditions").and_then(|first| Ok((first, fields.list("operations")?)));
    let (preconditions, operations) = lists.map_err(|error| Problem::invalid(vec![error]))?;
    if operations.is_empty() {
        return Err(Problem::invalid_at("/operations", "a transaction has at least one operation"));
    }
    for (what, count) in [("preconditions", preconditions.len()), ("operations", operations.len())] {
        if count > TRANSACTION_OPERATIONS_MAX {
            let detail = format!("the transaction has {count} {what}, the limit is {TRANSACTION_OPERATIONS_MAX}");
            return Err(Problem::too_large(detail));
        }
    }
    let mut draft = Draft::new(sealer);
    let mut read_preconditions = Vec::with_capacity(preconditions.len());
    for (index, value) in preconditions.iter().enumerate() {
        match precondition(value, &format!("/preconditions/{index}")) {
            Ok(precondition) => read_preconditions.push(precondition),
            Err(errors) => draft.errors(errors),
        }
    }
    for (index, value) in operations.iter().enumerate() {
        if let Err(errors) = operation(&mut draft, value, &format!("/operations/{index}")) {
            draft.errors(errors);
        }
    }
    Ok((read_preconditions, draft.finish()?))
}

/// `{"kind", "name", "revision"}`; revision 0 means that it does not exist.
fn precondition(value: &Value, pointer: &str) -> Result<Precondition, Vec<FieldError>> {
    let fields = Fields::read(value, pointer, &["kind", "name", "revision"])?;
    let key = fields.key()?;
    let revision = fields.required("revision").map_err(|error| vec![error])?;
    let revision = revision.as_u64().ok_or_else(|| {
        let message = format!("expected a revision, or 0 for \"does not exist\"; found {}", type_of(revision));
        vec![at(fields.path("revision"), message)]
    })?;
    Ok(Precondition::Revision { key, revision: Revision(revision) })
}

/// `{"op", "kind", "name", "spec"}`
fn operation(draft: &mut Draft, value: &Value, pointer: &str) -> Result<(), Vec<FieldError>> {
    let fields = Fields::read(value, pointer, &["op", "kind", "name", "spec"])?;
    let op = fields.string("op").map_err(|error| vec![error])?;
    let key = fields.key()?;
    match op {
        "put" => {
            let spec = fields.required("spec").map_err(|error| vec![error])?;
            draft.put(key, spec, &fields.path("spec"));
        }
        "delete" if fields.get("spec").is_some() => return Err(vec![at(fields.path("spec"), "a delete has no spec")]),
        "delete" => draft.delete(key),
        other => return Err(vec![at(fields.path("op"), format!("expected \"put\" or \"delete\", found {other:?}"))]),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn faults_are_named_by_their_place() {
        for (body, place) in [
            (json!([]), "expected an object"),
            (json!({"operation": []}), "/operation: unknown field"),
            (json!({}), "/operations: a transaction has at least one"),
            (json!({"operations": {}}), "/operations: expected a list"),
            (json!({"operations": [1]}), "/operations/0: expected an object"),
            (json!({"operations": [{"kind": "Route", "name": "a"}]}), "/operations/0/op: this field is required"),
            (
                json!({"operations": [{"op": "put", "kind": "Rout", "name": "a"}]}),
                "/operations/0/kind: kind \"Rout\" is not known",
            ),
            (json!({"operations": [{"op": "put", "kind": "Route", "name": "A"}]}), "/operations/0/name: a name has only"),
            (json!({"operations": [{"op": "put", "kind": "Route", "name": "a"}]}), "/operations/0/spec: this field is required"),
            (json!({"operations": [{"op": "move", "kind": "Route", "name": "a"}]}), "/operations/0/op: expected"),
            (
                json!({"operations": [{"op": "delete", "kind": "Route", "name": "a", "spec": {}}]}),
                "/operations/0/spec: a delete has no spec",
            ),
            (
                json!({"preconditions": [{"kind": "Route", "name": "a", "revision": -1}], "operations": [{}]}),
                "/preconditions/0/revision: expected a revision",
            ),
        ] {
            let problem = read(&body, Sealer::default()).expect_err(place);
            assert!(problem.detail().contains(place), "{problem:?}");
        }
    }

    #[test]
    fn a_good_transaction_keeps_its_order() {
        let body = json!({
            "preconditions": [{"kind": "Route", "name": "a", "revision": 0}],
            "operations": [{"op": "delete", "kind": "Route", "name": "b"}, {"op": "delete", "kind": "Route", "name": "a"}],
        });
        let (preconditions, content) = read(&body, Sealer::default()).expect("a transaction");
        assert!(matches!(preconditions.as_slice(), [Precondition::Revision { revision: Revision::ZERO, .. }]));
        let names: Vec<&str> = content.operations.iter().map(|operation| operation.key().name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
    }
}
