//! What the author of a write is told of it beside its outcome, judged by what this node serves when the write comes in.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::Shared;
use super::body::offload;
use super::call::wait_published;
use super::content::{Content, gone};
use super::explain::Listener;
use super::findings::Findings;
use super::problem::Problem;
use super::warnings::Warnings;
use crate::model::{Kind, Operation, ResourceKey, Revision, State, hostname};
use crate::table::{Others, RouteOutline, Snapshot, Users};

/// What a look at one route costs, in bytes of a document.
const OUTLINE_BYTES: usize = 1024;

/// What happens to resources that the documents of a write do not name.
#[derive(Debug)]
pub(super) struct Rest {
    /// The State that they stand in.
    pub(super) state: State,
    /// Services and certificates that go.
    pub(super) gone: BTreeSet<ResourceKey>,
    /// Routes and certificates that go; `None`: all.
    pub(super) removed: Option<Vec<ResourceKey>>,
}

/// Checks what only the whole table can tell of `content`; gives it back with its warnings.
pub(super) async fn advise(shared: &Arc<Shared>, mut content: Content) -> Result<(Content, Warnings), Problem> {
    content.check_patterns(&shared.admin.live.load())?;
    let removed = content.operations.iter().filter_map(|operation| match operation {
        Operation::Delete { key } if key.kind != Kind::Service => Some(key.clone()),
        Operation::Put { .. } | Operation::Delete { .. } => None,
    });
    let (state, gone) = (shared.admin.cluster.state(), gone(&content.operations));
    let rest = Rest { state, gone, removed: Some(removed.collect()) };
    let mut told = bereft(shared, &content, &rest.gone).await?;
    told.append(warnings(shared, std::mem::take(&mut content.findings), rest).await?);
    Ok((content, told))
}

/// Warnings about what refers to a service or a certificate that goes, and is not changed itself: what is, is told in its own right.
async fn bereft(shared: &Arc<Shared>, content: &Content, gone: &BTreeSet<ResourceKey>) -> Result<Warnings, Problem> {
    let mut told = Warnings::default();
    if gone.is_empty() {
        return Ok(told);
    }
    let (table, gone) = (shared.admin.live.load(), gone.clone());
    let changed: BTreeSet<ResourceKey> = content.operations.iter().map(|operation| operation.key().clone()).collect();
    offload(usize::MAX, move || {
        told.add(table.users_of(&gone, |key| changed.contains(key)).into_iter().map(|(key, users)| missed(key, &users)));
        Ok(told)
    })
    .await
}

fn missed(gone: &ResourceKey, users: &Users) -> String {
    let mut names: Vec<String> = users.named.iter().map(ToString::to_string).collect();
    match users.count - names.len() {
        0 => {}
        more => names.push(format!("{more} more")),
    }
    let last = names.pop().unwrap_or_default();
    let (who, verb) = match (names.is_empty(), users.count) {
        (true, _) => (last, "refers"),
        (false, _) => (format!("{} and {last}", names.join(", ")), "refer"),
    };
    let meanwhile = match gone.kind {
        Kind::Certificate => "their requests are answered with 500",
        _ => "their share of it is answered with 500, to gRPC with UNAVAILABLE, and nothing is mirrored to it,",
    };
    format!("{gone}: {who} {verb} to it; {meanwhile} until it exists again")
}

/// The warnings of a write.
pub(super) async fn warnings(shared: &Arc<Shared>, findings: Findings, rest: Rest) -> Result<Warnings, Problem> {
    let (table, shared) = (shared.admin.live.load(), Arc::clone(shared));
    let cost = match table.opens_contest(findings.outlines()) {
        true => usize::MAX,
        false => findings.outlines().len() * OUTLINE_BYTES,
    };
    offload(cost, move || {
        let mut told = findings.waiting(&table, rest.removed.as_deref());
        if !findings.certificates.is_empty() {
            told.extend(findings.certificates.warnings(&table, rest.removed.as_deref()));
        }
        Ok(findings.warnings(&rest.state, &rest.gone, told, &shared.admin.listeners()))
    })
    .await
}

impl Findings {
    /// Routes that will be kept and not serve, or not on all of their listeners, because one of the other kind stands in their way: `Accepted=False` in Gateway API.
    fn waiting(&self, table: &Snapshot, removed: Option<&[ResourceKey]>) -> Vec<String> {
        let others = removed.map_or(Others::Go, Others::StayBut);
        let waiting = table.waiting_after(self.outlines(), others).into_iter();
        waiting.map(|(key, reason)| waits(&key, &reason)).collect()
    }
}

fn waits(key: &ResourceKey, reason: &str) -> String {
    format!("{key}: is kept and does not serve: {reason}")
}

/// What is to be told of routes that wait for others, where they are too many to be told before the write.
#[derive(Debug)]
pub(super) struct Aftermath {
    before: Arc<Snapshot>,
}

impl Aftermath {
    /// Before the write. `None`: there is nothing to be told afterwards.
    pub(super) fn of(shared: &Shared, findings: &Findings) -> Option<Aftermath> {
        let before = shared.admin.live.load();
        (findings.is_large() && (findings.has_grpc() || before.has_contest())).then_some(Aftermath { before })
    }

    /// After the write, which made `revision`, or would make one. It is waited for until `deadline`. Whatever comes of it, the write is done.
    pub(super) async fn warnings(
        self,
        shared: &Shared,
        revision: Option<Revision>,
        deadline: Instant,
        is_written: impl Fn(&ResourceKey) -> bool + Send + 'static,
    ) -> Warnings {
        let Some(revision) = revision else {
            return only("which routes wait for others is told of so many only once they are live");
        };
        let late = "this node does not serve the new revision yet; /v1/table tells then which routes wait for others";
        if wait_published(shared, revision, deadline).await.is_err() {
            return only(late);
        }
        let after = shared.admin.live.load();
        let told = offload(usize::MAX, move || {
            let mut warnings = Warnings::default();
            let tell = |key: &ResourceKey| after.reason_waiting(key).map(|reason| waits(key, &reason));
            warnings.add_told(after.waiting_since(&self.before, is_written), tell);
            Ok(warnings)
        });
        told.await.unwrap_or_else(|_| only(late))
    }
}

fn only(warning: &str) -> Warnings {
    let mut warnings = Warnings::default();
    warnings.add([warning.to_owned()]);
    warnings
}

/// Routes that get no request, because no hostname of theirs intersects with that of a listener which they are bound to:
/// `NoMatchingListenerHostname` in Gateway API.
pub(super) fn unreached(outlines: &[RouteOutline], listeners: &[Listener]) -> Warnings {
    let unreached = outlines.iter().filter(|outline| {
        let is_bound = |listener: &&Listener| outline.listeners.is_empty() || outline.listeners.contains(&listener.name);
        let mut bound = listeners.iter().filter(is_bound).peekable();
        bound.peek().is_some() && !bound.any(|listener| reaches(listener, &outline.hostnames))
    });
    let reason = "no hostname of it intersects with that of a listener which it is bound to";
    let mut warnings = Warnings::default();
    warnings.add_told(unreached, |outline| Some(format!("{}: gets no request on this node: {reason}", outline.key)));
    warnings
}

/// Whether a listener takes a host that these hostnames match; none match every host.
fn reaches(listener: &Listener, hostnames: &[String]) -> bool {
    let Some(taken) = &listener.hostname else { return true };
    hostnames.is_empty() || hostnames.iter().any(|hostname| hostname::intersect(hostname, taken))
}
