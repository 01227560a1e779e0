//! What the author of a write is told of it beside its outcome, judged by what this node serves when the write comes in.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Shared;
use super::body::offload;
use super::content::Content;
use super::explain::Listener;
use super::problem::Problem;
use crate::model::limits::TRANSACTION_OPERATIONS_MAX;
use crate::model::{Kind, Name, Operation, ResourceKey, hostname};
use crate::table::{RouteOutline, Snapshot};

/// Checks what only the whole table can tell of `content`; gives it back with its warnings.
pub(crate) async fn advise(shared: &Arc<Shared>, content: Content) -> Result<(Content, Vec<String>), Problem> {
    let (table, state) = (shared.admin.live.load(), shared.admin.cluster.state());
    content.check_patterns(&table)?;
    let shared = Arc::clone(shared);
    let cost = match content.findings.opens_contest(&table) {
        true => usize::MAX,
        false => content.operations.iter().map(Operation::byte_count).sum(),
    };
    offload(cost, move || {
        let warnings = content.findings.warnings(&state, &table, &Gone::of(&content.operations), &shared.admin.listeners);
        Ok((content, warnings))
    })
    .await
}

/// What a write removes, as far as it matters for warnings.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    /// By name, for those who refer to them.
    pub(super) services: BTreeSet<Name>,
    /// Of either kind. No more than one transaction has: what is beyond is not looked at.
    pub(super) routes: Vec<ResourceKey>,
}

impl Gone {
    /// What `operations` remove.
    pub(crate) fn of(operations: &[Operation]) -> Gone {
        let mut gone = Gone::default();
        operations.iter().filter(|operation| matches!(operation, Operation::Delete { .. })).for_each(|o| gone.add(o.key()));
        gone
    }

    /// Takes note of one more.
    pub(crate) fn add(&mut self, key: &ResourceKey) {
        match key.kind {
            Kind::Service => {
                self.services.insert(key.name.clone());
            }
            Kind::Route | Kind::GrpcRoute if self.routes.len() < TRANSACTION_OPERATIONS_MAX => self.routes.push(key.clone()),
            Kind::Route | Kind::GrpcRoute | Kind::Unknown(_) => {}
        }
    }
}

/// Routes that will be kept and not serve, because one of the other kind stands in their way: `Accepted=False` in Gateway API.
pub(super) fn waiting(outlines: &[RouteOutline], table: &Snapshot, gone: &Gone) -> Vec<String> {
    let waiting = table.waiting_after(outlines, &gone.routes).into_iter();
    waiting.map(|(key, reason)| format!("{key}: is kept and does not serve: {reason}")).collect()
}

/// Routes that get no request, because no hostname of theirs intersects with that of a listener which they are bound to:
/// `NoMatchingListenerHostname` in Gateway API.
pub(super) fn unreached(outlines: &[RouteOutline], listeners: &[Listener]) -> impl Iterator<Item = String> {
    let unreached = outlines.iter().filter(|outline| {
        let is_bound = |listener: &&Listener| outline.listeners.is_empty() || outline.listeners.contains(&listener.name);
        let mut bound = listeners.iter().filter(is_bound).peekable();
        bound.peek().is_some() && !bound.any(|listener| reaches(listener, &outline.hostnames))
    });
    unreached.map(|outline| {
        let reason = "no hostname of it intersects with that of a listener which it is bound to";
        format!("{}: gets no request on this node: {reason}", outline.key)
    })
}

/// Whether a listener takes a host that these hostnames match; none match every host.
fn reaches(listener: &Listener, hostnames: &[String]) -> bool {
    let Some(taken) = &listener.hostname else { return true };
    hostnames.is_empty() || hostnames.iter().any(|hostname| hostname::intersect(hostname, taken))
}
