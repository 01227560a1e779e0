//! What the author of a write is told of it beside its outcome, judged by what this node serves when the write comes in.

use std::sync::Arc;

use super::Shared;
use super::body::offload;
use super::content::Content;
use super::explain::Listener;
use super::problem::Problem;
use crate::model::{Kind, Operation, ResourceKey, hostname};
use crate::table::Snapshot;

/// Checks what only the whole table can tell of `content`; gives it back with its warnings.
pub(crate) async fn advise(shared: &Arc<Shared>, content: Content) -> Result<(Content, Vec<String>), Problem> {
    let (table, state) = (shared.admin.live.load(), shared.admin.cluster.state());
    content.check_patterns(&table, &content.operations)?;
    let shared = Arc::clone(shared);
    let cost = match table.opens_contest(&content.outlines) {
        true => usize::MAX,
        false => content.operations.iter().map(Operation::byte_count).sum(),
    };
    offload(cost, move || {
        let warnings = content.warnings(&state, &table, &content.operations, &shared.admin.listeners);
        Ok((content, warnings))
    })
    .await
}

impl Content {
    /// Routes that will be kept and not serve, because one of the other kind stands in their way: `Accepted=False` in Gateway API.
    pub(super) fn waiting(&self, table: &Snapshot, operations: &[Operation]) -> Vec<String> {
        let removed = operations.iter().filter_map(|operation| match operation {
            Operation::Delete { key } if matches!(key.kind, Kind::Route | Kind::GrpcRoute) => Some(key.clone()),
            Operation::Put { .. } | Operation::Delete { .. } => None,
        });
        let removed: Vec<ResourceKey> = removed.collect();
        let waiting = table.waiting_after(&self.outlines, &removed).into_iter();
        waiting.map(|(key, reason)| format!("{key}: is kept and does not serve: {reason}")).collect()
    }

    /// Routes that get no request, because no hostname of theirs intersects with that of a listener which they are bound to:
    /// `NoMatchingListenerHostname` in Gateway API.
    pub(super) fn unreached(&self, listeners: &[Listener]) -> impl Iterator<Item = String> {
        let unreached = self.outlines.iter().filter(|outline| {
            let is_bound = |listener: &&Listener| outline.listeners.is_empty() || outline.listeners.contains(&listener.name);
            let mut bound = listeners.iter().filter(is_bound).peekable();
            bound.peek().is_some() && !bound.any(|listener| reaches(listener, &outline.hostnames))
        });
        unreached.map(|outline| {
            let reason = "no hostname of it intersects with that of a listener which it is bound to";
            format!("{}: gets no request on this node: {reason}", outline.key)
        })
    }
}

/// Whether a listener takes a host that these hostnames match; none match every host.
fn reaches(listener: &Listener, hostnames: &[String]) -> bool {
    let Some(taken) = &listener.hostname else { return true };
    hostnames.is_empty() || hostnames.iter().any(|hostname| hostname::intersect(hostname, taken))
}
