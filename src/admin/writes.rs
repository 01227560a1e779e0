//! The way of every write: a transaction is proposed (or tried, for `dryRun`), its outcome told, and waited for to be live.
//!
//! What a client learns of a failed write is decided here alone: a refusal is deterministic and final; `notApplied` means that nothing
//! was proposed; `unknown` means that nobody can tell. Nothing is tried again here: [`crate::raft::Node::propose`] does what is safe.

use axum::response::Response;
use http::request::Parts;
use http::{StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Shared;
use super::body::offload;
use super::call::Call;
use super::headers::{idempotency_key, tag_of};
use super::problem::Problem;
use super::query::Parameters;
use super::reads::unreadable;
use super::render::{json_at, key_value, now, shown_value};
use crate::model::spec::FieldError;
use crate::model::{
    Command, CommandBody, Digest, IdempotencyKey, Outcome, Refusal, ResourceKey, ResultItem, Revision, State, Transaction,
};
use crate::raft::{MemberLive, NotAppliedKind, ProposeError};

/// Query parameters of every write.
pub(crate) const WRITE_PARAMETERS: [&str; 2] = ["dryRun", "wait"];

/// What the client wants beside the change itself.
#[derive(Debug)]
pub(crate) struct Wishes {
    /// Only say what it would do.
    pub(crate) dry_run: bool,
    /// Answer once it is live everywhere.
    wait_live: bool,
    /// Apply it once, however often it is sent.
    pub(crate) idempotency: Option<IdempotencyKey>,
}

impl Wishes {
    /// Reads the wishes of a request with this body.
    pub(crate) fn read(parts: &Parts, parameters: &Parameters, actor: &str, body: &[u8]) -> Result<Wishes, Problem> {
        Wishes::without_key(parameters)?.keyed(parts, actor, Sha256::digest(body).into())
    }

    /// Reads what can be read before the body came.
    pub(crate) fn without_key(parameters: &Parameters) -> Result<Wishes, Problem> {
        let dry_run = parameters.flag("dryRun")?;
        let wait_live = parameters.choice("wait", "live", "commit")?;
        if dry_run && wait_live {
            return Err(Problem::malformed("query parameters \"dryRun\" and \"wait\" exclude each other"));
        }
        Ok(Wishes { dry_run, wait_live, idempotency: None })
    }

    /// Reads the idempotency key of a request whose body has this SHA-256.
    pub(crate) fn keyed(self, parts: &Parts, actor: &str, body_sha256: [u8; 32]) -> Result<Wishes, Problem> {
        let key = idempotency_key(&parts.headers)?;
        let request_sha256 = || fingerprint(parts, &body_sha256);
        let idempotency =
            key.map(|key| IdempotencyKey { scoped_key: format!("{actor}\0{key}"), request_sha256: request_sha256() });
        Ok(Wishes { idempotency, ..self })
    }

    /// What is remembered of a request that brought a secret in plain text: nobody who reads State can try guesses on it without the node's
    /// key. Nodes that seal with unlike keys take a retry at one of them for another request.
    pub(crate) fn guarded(self, shared: &Shared, had_plain_secret: bool) -> Wishes {
        if !had_plain_secret {
            return self;
        }
        let keyring = shared.admin.live.keyring();
        let guarded = |key: IdempotencyKey| {
            let fingerprint = keyring.fingerprint(&key.request_sha256).unwrap_or_default();
            IdempotencyKey { request_sha256: Digest::of_parts([fingerprint.as_bytes()]).0, ..key }
        };
        Wishes { idempotency: self.idempotency.map(guarded), ..self }
    }
}

/// What a request asks for: method, target, preconditions and body.
fn fingerprint(parts: &Parts, body_sha256: &[u8; 32]) -> [u8; 32] {
    let header = |name| parts.headers.get(name).map_or(&[][..], http::HeaderValue::as_bytes);
    let target = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let conditions = [header(header::IF_MATCH), header(header::IF_NONE_MATCH)];
    Digest::of_parts([parts.method.as_str().as_bytes(), target.as_bytes(), conditions[0], conditions[1], body_sha256]).0
}

/// A write that was done, or would be.
#[derive(Debug)]
pub(crate) struct Done {
    /// The revision that it made, or the present one.
    pub(crate) revision: Revision,
    /// Whether it made a revision.
    pub(crate) changed: bool,
    /// One an operation.
    pub(crate) results: Vec<ResultItem>,
    /// Of a dry run: what it would change.
    difference: Option<Value>,
    /// Changes of a dry run that `difference` leaves out.
    omitted: usize,
    /// Puts and deletes of an upload that was staged: it has no results one by one.
    uploaded: Option<[u64; 2]>,
    /// Resources of a configuration that were as it wants them, and have no results.
    unchanged: Option<usize>,
    /// Who has published it, where that was asked for.
    live: Option<Vec<MemberLive>>,
}

impl Done {
    /// A write that had nothing to do.
    pub(crate) fn nothing(revision: Revision) -> Done {
        let (results, difference, omitted, uploaded, unchanged, live) = (Vec::new(), None, 0, None, None, None);
        Done { revision, changed: false, results, difference, omitted, uploaded, unchanged, live }
    }

    /// A dry run that shows all but `omitted` changes.
    pub(crate) fn with_omitted(self, omitted: usize) -> Done {
        Done { omitted, ..self }
    }

    /// What was staged and became live with it.
    pub(crate) fn with_uploaded(self, uploaded: Option<[u64; 2]>) -> Done {
        Done { uploaded, ..self }
    }

    /// Of a configuration, so many of whose resources were as it wants them.
    pub(crate) fn with_unchanged(self, unchanged: usize) -> Done {
        Done { unchanged: Some(unchanged), ..self }
    }

    /// The status of a write of one resource.
    pub(crate) fn status(&self) -> StatusCode {
        let created = self.difference.is_none() && matches!(self.results.as_slice(), [only] if only.created);
        if created { StatusCode::CREATED } else { StatusCode::OK }
    }

    /// The answer.
    pub(crate) fn answer(&self, status: StatusCode, warnings: &[String]) -> Response {
        let results = self.results.iter().map(|item| {
            let mut value = key_value(&item.key);
            value["revision"] = json!(item.revision);
            value["created"] = json!(item.created);
            value
        });
        let mut body = json!({
            "revision": self.revision,
            "changed": self.changed,
            "results": results.collect::<Vec<_>>(),
            "warnings": warnings,
        });
        if let Some(difference) = &self.difference {
            body["dryRun"] = json!(true);
            body["changes"] = difference.clone();
            body["changesOmitted"] = json!(self.omitted);
        }
        if let Some([puts, deletes]) = self.uploaded {
            body["operations"] = json!({"put": puts, "delete": deletes});
        }
        if let Some(unchanged) = self.unchanged {
            body["unchanged"] = json!(unchanged);
        }
        if let Some(members) = &self.live {
            body["live"] = json!(members.iter().all(|member| member.live));
            body["members"] = members.iter().map(member_value).collect();
        }
        json_at(status, self.revision, &body)
    }

    /// The answer to a write of one resource, with its entity tag where the write left one.
    pub(crate) fn answer_of_one(&self, is_put: bool, warnings: &[String]) -> Response {
        let mut response = self.answer(self.status(), warnings);
        if let [only] = self.results.as_slice()
            && is_put
            && self.difference.is_none()
        {
            response.headers_mut().insert(header::ETAG, tag_of(only.revision));
        }
        response
    }
}

fn member_value(member: &MemberLive) -> Value {
    json!({"id": member.id, "revision": member.revision, "live": member.live, "reason": member.reason})
}

/// How a request names the parts of its transaction, for problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One resource, named by the path.
    Single,
    /// `/operations/3`, `/preconditions/0`.
    Transaction,
}

/// Does what the client wishes with `transaction`.
pub(crate) async fn perform(
    shared: &Shared,
    call: &Call,
    transaction: Transaction,
    wishes: &Wishes,
    shape: Shape,
) -> Result<Done, Problem> {
    if wishes.dry_run {
        let state = shared.admin.cluster.read(call.deadline).await.map_err(|error| unreadable(&error))?;
        return rehearse(call, transaction, state, shape).await;
    }
    let done = done_of(propose(shared, call, CommandBody::Transaction(transaction)).await?, shape)?;
    Ok(await_live(shared, call, wishes, done).await)
}

/// What was done, or the problem that tells why not.
pub(crate) fn done_of(outcome: Outcome, shape: Shape) -> Result<Done, Problem> {
    match outcome {
        Outcome::Refused { revision, refusal } => Err(refused(revision, &refusal, shape)),
        Outcome::Applied { revision, changed, results } => Ok(Done { changed, results, ..Done::nothing(revision) }),
    }
}

/// Waits until `done` is live everywhere, if that was wished for.
pub(crate) async fn await_live(shared: &Shared, call: &Call, wishes: &Wishes, mut done: Done) -> Done {
    if wishes.wait_live {
        done.live = Some(shared.admin.cluster.wait_live(done.revision, call.deadline).await);
    }
    done
}

/// Proposes `body` in the caller's name.
pub(crate) async fn propose(shared: &Shared, call: &Call, body: CommandBody) -> Result<Outcome, Problem> {
    shared.admin.cluster.propose(command(call, body), call.deadline).await.map_err(|error| not_proposed(&error))
}

fn command(call: &Call, body: CommandBody) -> Command {
    Command { proposed_at: now(), actor: call.actor.to_string(), body }
}

/// Says what `transaction` would do at `state`.
pub(crate) async fn rehearse(call: &Call, mut transaction: Transaction, state: State, shape: Shape) -> Result<Done, Problem> {
    // A remembered outcome would tell what happened long ago, not what would happen now.
    transaction.idempotency = None;
    let bytes = transaction.operations.iter().map(crate::model::Operation::byte_count).sum();
    let command = command(call, CommandBody::Transaction(transaction));
    if let Some(reason) = command.body.refused_at(state.feature_level()) {
        return Err(Problem::conflict(reason));
    }
    offload(bytes, move || match state.preview(&command) {
        (Outcome::Refused { revision, refusal }, _) => Err(refused(revision, &refusal, shape)),
        (Outcome::Applied { changed, results, .. }, after) => {
            let difference = Some(difference(&state, &after));
            Ok(Done { changed, results, difference, ..Done::nothing(state.revision()) })
        }
    })
    .await
}

/// What differs from `before` to `after`, resource by resource.
fn difference(before: &State, after: &State) -> Value {
    let spec = |resource: Option<&std::sync::Arc<crate::model::Resource>>| resource.map(|resource| shown_value(resource));
    let changes = after.changes_since(before).filter_map(|(old, new)| {
        let change = match (old, new) {
            (None, _) => "created",
            (_, None) => "deleted",
            (Some(_), Some(_)) => "updated",
        };
        let mut value = key_value(&new.or(old)?.key);
        value["change"] = json!(change);
        value["before"] = json!(spec(old));
        value["after"] = json!(spec(new));
        Some(value)
    });
    changes.collect()
}

fn not_proposed(error: &ProposeError) -> Problem {
    match error {
        ProposeError::NotApplied { kind: NotAppliedKind::Unsupported, reason } => Problem::conflict(reason.as_str()),
        ProposeError::NotApplied { kind: NotAppliedKind::NoLeader | NotAppliedKind::NoQuorum, reason } => {
            Problem::unavailable(format!("nothing was applied: no leader was found before the deadline ({reason})"))
        }
        ProposeError::NotApplied { reason, .. } => Problem::unavailable(format!("nothing was applied: {reason}")),
        ProposeError::Unknown { reason } => Problem::unknown_outcome(format!("the write may have been applied: {reason}")),
        ProposeError::TooLarge { bytes, limit } => {
            Problem::too_large(format!("the transaction takes {bytes} bytes in the log, the limit is {limit}"))
        }
    }
}

/// The problem that tells of a refusal at `revision`.
pub(crate) fn refused(revision: Revision, refusal: &Refusal, shape: Shape) -> Problem {
    let place = |list: &str, index: u32| match shape {
        Shape::Single => String::new(),
        Shape::Transaction => format!("/{list}/{index}"),
    };
    let problem = match refusal {
        Refusal::Precondition { index, key, present } => failed_precondition(key, *present).with_error(match shape {
            Shape::Single => None,
            Shape::Transaction => Some(error(place("preconditions", *index), describe(key, *present))),
        }),
        Refusal::StateRevision { present } => {
            Problem::precondition(format!("the configuration is at revision {present}"), Some(*present))
        }
        Refusal::NotFound { index, key } => Problem::not_found(format!("{key} does not exist")).with_error(match shape {
            Shape::Single => None,
            Shape::Transaction => Some(error(place("operations", *index), format!("{key} does not exist"))),
        }),
        Refusal::DuplicateOperation { index, key } => {
            Problem::invalid_at(place("operations", *index), format!("{key} is changed twice in one transaction"))
        }
        Refusal::TooLarge { what, count, limit } => Problem::too_large(format!("{count} {what}, the limit is {limit}")),
        Refusal::IdempotencyKeyReused => Problem::idempotency_key_reused(),
        Refusal::IdempotencyMemoryFull => Problem::unavailable("too many idempotency keys are remembered at present"),
        Refusal::StagingFull => {
            Problem::unavailable("as many large configurations are on their way as the cluster takes at one time")
        }
        Refusal::Upload { .. } => Problem::unavailable("the upload took so long that the cluster no longer holds it"),
    };
    problem.at(revision)
}

fn failed_precondition(key: &ResourceKey, present: Option<Revision>) -> Problem {
    Problem::precondition(describe(key, present), present)
}

fn describe(key: &ResourceKey, present: Option<Revision>) -> String {
    match present {
        Some(present) => format!("{key} is at revision {present}"),
        None => format!("{key} does not exist"),
    }
}

fn error(path: String, message: String) -> FieldError {
    FieldError { path, message }
}
