//! `PUT /v1/config`: makes the configuration what a document says, in one revision, whoever else writes.
//!
//! The body is the document of [`super::config_document`], in JSON or YAML; a YAML body may also be a stream of documents, each of them such
//! a document or one `{kind, name, spec}`. Without `prune` what it does not name stays.
//!
//! It is read as it comes ([`super::config_reader`]) and compared with a linearizable read; only what differs is proposed, so that
//! applying a large file with one change is a small transaction. What is more than one transaction is staged in the log, batch by batch,
//! and becomes live by one activation ([`CommandBody::Activate`]). Both are proposed on the condition that the State has not moved since;
//! where it has, what others changed is caught up with, and they are proposed again.
//!
//! `Raftgate-Timeout` bounds each step of a large upload (the next piece of the body, the commit of a batch), [`UPLOAD_TIME_MAX`] all of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State as Shares};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::Shared;
use super::advice::{Aftermath, Rest, warnings};
use super::body::discard;
use super::call::Call;
use super::config_reader::{Batch, BodyReader, Reading, Wanted};
use super::document::Format;
use super::headers::{body_format, state_condition};
use super::problem::Problem;
use super::query::Parameters;
use super::reads::unreadable;
use super::writes::{Done, Shape, WRITE_PARAMETERS, Wishes, await_live, done_of, propose, refused, rehearse};
use crate::model::{
    Activation, Chunk, CommandBody, IdempotencyKey, Operation, Outcome, Precondition, Refusal, Revision, State, Transaction,
    UploadId,
};

/// Configurations that a node takes at one time: each holds some batches in memory.
pub(crate) const CONFIGURATIONS_MAX: usize = 16;

/// How long an upload may take in all.
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(600);

/// What the time for an activation grows by with each operation: all of them are applied before it answers.
const ACTIVATION_TIME_EACH: Duration = Duration::from_micros(50);

/// Pieces of a body that wait to be read.
const PIECES_MAX: usize = 4;

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
    let format = body_format(&parts.headers, &[Format::Json, Format::Yaml])?;
    let wishes = Wishes::without_key(&parameters)?;
    let Ok(_permit) = shared.configurations.try_acquire() else {
        return Err(Problem::unavailable("as many configurations are on their way to this node as it takes at one time"));
    };
    let mut pace = Pace::new(&call);
    let base = shared.admin.cluster.read(call.deadline).await.map_err(|error| unreadable(&error))?;
    let mut upload = Upload::new(&shared, &call);
    let (batches, received) = mpsc::channel(1);
    let (live, listeners) = (Arc::clone(&shared.admin.live), shared.admin.listeners());
    let reading = Reading { base: base.clone(), live, listeners, prune, dry_run: wishes.dry_run, batches };
    let (mut wanted, body_sha256) = take_in(body, format, reading, received, &mut upload, &mut pace).await?;
    let wishes = wishes.keyed(&parts, &call.actor, body_sha256)?.guarded(&shared, wanted.findings.had_plain_secret);
    let removed = (!prune).then(Vec::new);
    let rest = Rest { state: base.clone(), gone: std::mem::take(&mut wanted.gone), removed };
    let aftermath = Aftermath::of(&shared, &wanted.findings);
    let mut told = warnings(&shared, std::mem::take(&mut wanted.findings), rest).await?;
    let done = make_so(&shared, &mut pace, base, &mut wanted, upload, expected, &wishes).await?;
    let done = done.with_unchanged(wanted.unchanged_count());
    if let Some(aftermath) = aftermath {
        let revision = (!wishes.dry_run).then_some(done.revision);
        let deadline = pace.step(Duration::ZERO).deadline;
        let mut waiting = aftermath.warnings(&shared, revision, deadline, move |key| wanted.names(key)).await;
        waiting.append(told);
        told = waiting;
    }
    Ok(done.answer(StatusCode::OK, &told.lines()))
}

/// How long each step may take.
struct Pace {
    call: Call,
    timeout: Duration,
    end: Instant,
}

impl Pace {
    fn new(call: &Call) -> Pace {
        let now = Instant::now();
        Pace { call: call.clone(), timeout: call.deadline - now, end: now + UPLOAD_TIME_MAX }
    }

    /// The call, with the deadline of a step that begins now and may take `longer` than others.
    fn step(&mut self, longer: Duration) -> &Call {
        self.call.deadline = (Instant::now() + self.timeout + longer).min(self.end);
        &self.call
    }
}

/// Reads the body, and stages what is more than one transaction. Gives what is left, and the body's SHA-256.
async fn take_in(
    body: Body,
    format: Format,
    reading: Reading,
    batches: mpsc::Receiver<Vec<Operation>>,
    upload: &mut Upload,
    pace: &mut Pace,
) -> Result<(Wanted, [u8; 32]), Problem> {
    let (pieces, taken) = mpsc::channel(PIECES_MAX);
    let reader = tokio::task::spawn_blocking(move || reading.run(BodyReader::new(taken), format));
    let mut body_pace = Pace { call: pace.call.clone(), ..*pace };
    let pumped = pump(body, pieces, &mut body_pace);
    let staged = stage_all(batches, upload, pace);
    // Each ends when one of the others does: their channels close.
    let (pumped, staged, read) = tokio::join!(pumped, staged, reader);
    let body_sha256 = pumped?;
    staged?;
    let wanted = read.map_err(|error| Problem::internal(format!("the reader failed: {error}")))??;
    Ok((wanted, body_sha256))
}

/// Hands the body on piece by piece. Gives its SHA-256, or that of its beginning where the reader has seen enough.
async fn pump(mut body: Body, pieces: mpsc::Sender<io::Result<Bytes>>, pace: &mut Pace) -> Result<[u8; 32], Problem> {
    let mut hasher = Sha256::new();
    loop {
        let problem = match timeout_at(pace.step(Duration::ZERO).deadline, body.frame()).await {
            Ok(None) => return Ok(hasher.finalize().into()),
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                hasher.update(&data);
                if pieces.send(Ok(data)).await.is_err() {
                    // The client learns why only if it can write on meanwhile; how that ends changes nothing.
                    let _ = timeout_at(pace.step(Duration::ZERO).deadline, discard(body)).await;
                    return Ok(hasher.finalize().into());
                }
                continue;
            }
            Ok(Some(Err(error))) => Problem::malformed(format!("the body broke off: {error}")),
            Err(_) => Problem::slow_request("the body did not go on within Raftgate-Timeout"),
        };
        // A text that was cut off must not pass for a whole one.
        let _ = pieces.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
        return Err(problem);
    }
}

async fn stage_all(mut batches: mpsc::Receiver<Vec<Operation>>, upload: &mut Upload, pace: &mut Pace) -> Result<(), Problem> {
    while let Some(operations) = batches.recv().await {
        upload.stage(operations, pace).await?;
    }
    Ok(())
}

/// What is staged of one configuration. What was begun and did not become live is discarded.
struct Upload {
    shared: Arc<Shared>,
    call: Call,
    id: UploadId,
    chunk_count: u32,
    /// Of all chunks: puts, deletes.
    counts: [u64; 2],
}

impl Upload {
    fn new(shared: &Arc<Shared>, call: &Call) -> Upload {
        let id = UploadId(Uuid::new_v4().into_bytes());
        Upload { shared: Arc::clone(shared), call: call.clone(), id, chunk_count: 0, counts: [0; 2] }
    }

    async fn stage(&mut self, operations: Vec<Operation>, pace: &mut Pace) -> Result<(), Problem> {
        let deletes = operations.iter().filter(|operation| matches!(operation, Operation::Delete { .. })).count() as u64;
        let counts = [operations.len() as u64 - deletes, deletes];
        let chunk = Chunk { upload: self.id, sequence: self.chunk_count, operations };
        // From here on there may be something to discard.
        self.chunk_count += 1;
        let outcome = propose(&self.shared, pace.step(Duration::ZERO), CommandBody::Stage(chunk)).await;
        match outcome.map_err(Problem::of_staging)? {
            Outcome::Applied { .. } => {
                self.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
                Ok(())
            }
            Outcome::Refused { revision, refusal } => Err(refused(revision, &refusal, Shape::Single)),
        }
    }

    /// Proposes all that is wanted: as one transaction, or as the rest of the upload and its activation.
    async fn propose(
        &mut self,
        pending: &mut Batch,
        revision: Revision,
        idempotency: Option<IdempotencyKey>,
        attempt: u64,
        pace: &mut Pace,
    ) -> Result<Outcome, Problem> {
        let precondition = Precondition::State { revision };
        if self.chunk_count == 0 {
            // Where it is refused, it is proposed again with more.
            let operations = pending.operations().to_vec();
            let transaction = Transaction { preconditions: vec![precondition], operations, idempotency };
            return propose(&self.shared, pace.step(Duration::ZERO), CommandBody::Transaction(transaction)).await;
        }
        if !pending.is_empty() {
            self.stage(pending.take(), pace).await?;
        }
        let longer = self.activation_time();
        propose(&self.shared, pace.step(longer), self.activation(precondition, idempotency, attempt)).await
    }

    fn activation(&self, precondition: Precondition, idempotency: Option<IdempotencyKey>, attempt: u64) -> CommandBody {
        // Nobody else knows the upload's id, so that it is a key as well: a lost answer is asked for again.
        let own = || IdempotencyKey {
            scoped_key: format!("\0upload\0{}\0{attempt}", Uuid::from_bytes(self.id.0)),
            request_sha256: [0; 32],
        };
        CommandBody::Activate(Activation {
            upload: self.id,
            chunk_count: self.chunk_count,
            preconditions: vec![precondition],
            idempotency: Some(idempotency.unwrap_or_else(own)),
        })
    }

    fn activation_time(&self) -> Duration {
        let count = self.counts.iter().sum::<u64>();
        ACTIVATION_TIME_EACH.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// It became live. Puts and deletes, where anything was staged.
    fn finish(mut self) -> Option<[u64; 2]> {
        (std::mem::take(&mut self.chunk_count) > 0).then_some(self.counts)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.chunk_count == 0 {
            return;
        }
        let (shared, call, id) = (Arc::clone(&self.shared), self.call.clone(), self.id);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let call = Call { deadline: Instant::now() + Duration::from_secs(5), ..call };
                if propose(&shared, &call, CommandBody::Discard(id)).await.is_err() {
                    tracing::warn!("a staged configuration that was given up could not be discarded: it expires by itself");
                }
            });
        }
    }
}

async fn make_so(
    shared: &Shared,
    pace: &mut Pace,
    base: State,
    wanted: &mut Wanted,
    mut upload: Upload,
    expected: Option<Revision>,
    wishes: &Wishes,
) -> Result<Done, Problem> {
    if wishes.dry_run {
        let preconditions = vec![Precondition::State { revision: expected.unwrap_or(base.revision()) }];
        let transaction = Transaction { preconditions, operations: wanted.pending.take(), idempotency: None };
        let done = rehearse(pace.step(Duration::ZERO), transaction, base, Shape::Single).await?;
        return Ok(done.with_omitted(wanted.omitted));
    }
    // A request with an idempotency key is remembered even if it does nothing, so that its retry does nothing either.
    let is_idle = upload.chunk_count == 0 && wanted.pending.is_empty() && wishes.idempotency.is_none();
    if is_idle && expected.is_none_or(|expected| expected == base.revision()) {
        return Ok(await_live(shared, pace.step(Duration::ZERO), wishes, Done::nothing(base.revision())).await);
    }
    let mut revision = expected.unwrap_or(base.revision());
    let last = pace.step(Duration::ZERO).deadline;
    for attempt in 0_u64.. {
        let idempotency = wishes.idempotency.as_ref().map(|key| of_attempt(key, attempt));
        let outcome = upload.propose(&mut wanted.pending, revision, idempotency, attempt, pace).await?;
        let has_moved = matches!(outcome, Outcome::Refused { refusal: Refusal::StateRevision { .. }, .. });
        if !has_moved || expected.is_some() {
            let done = done_of(outcome, Shape::Single)?;
            let longer = upload.activation_time();
            let done = done.with_uploaded(upload.finish());
            return Ok(await_live(shared, pace.step(longer), wishes, done).await);
        }
        if Instant::now() >= last.max(pace.call.deadline) {
            break;
        }
        let state = shared.admin.cluster.read(pace.call.deadline).await.map_err(|error| unreadable(&error))?;
        for full in wanted.catch_up(&state).into_iter().filter_map(|operation| wanted.pending.push(operation)).collect::<Vec<_>>()
        {
            upload.stage(full, pace).await?;
        }
        revision = state.revision();
    }
    Err(Problem::unavailable("the configuration was changed by others each time before this one could be applied"))
}

/// The key of one attempt. A refused attempt is remembered as well: under one key the next one would be answered with that refusal. A
/// retried request walks the same attempts and ends at the one that was applied.
fn of_attempt(key: &IdempotencyKey, attempt: u64) -> IdempotencyKey {
    IdempotencyKey { scoped_key: format!("{}\0{attempt}", key.scoped_key), request_sha256: key.request_sha256 }
}
