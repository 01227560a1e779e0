//! What the author of a write is told of it beside its outcome, judged by what this node serves when the write comes in.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Shared;
use super::body::offload;
use super::content::{Content, gone};
use super::explain::Listener;
use super::findings::Findings;
use super::problem::Problem;
use crate::model::{Kind, Operation, ResourceKey, State, hostname};
use crate::table::{Others, Snapshot};

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
pub(super) async fn advise(shared: &Arc<Shared>, mut content: Content) -> Result<(Content, Vec<String>), Problem> {
    content.check_patterns(&shared.admin.live.load())?;
    let removed = content.operations.iter().filter_map(|operation| match operation {
        Operation::Delete { key } if key.kind != Kind::Service => Some(key.clone()),
        Operation::Put { .. } | Operation::Delete { .. } => None,
    });
    let (state, gone) = (shared.admin.cluster.state(), gone(&content.operations));
    let rest = Rest { state, gone, removed: Some(removed.collect()) };
    let warnings = warnings(shared, std::mem::take(&mut content.findings), rest).await?;
    Ok((content, warnings))
}

/// The warnings of a write.
pub(super) async fn warnings(shared: &Arc<Shared>, findings: Findings, rest: Rest) -> Result<Vec<String>, Problem> {
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
        waiting.map(|(key, reason)| format!("{key}: is kept and does not serve: {reason}")).collect()
    }

    /// Routes that get no request, because no hostname of theirs intersects with that of a listener which they are bound to:
    /// `NoMatchingListenerHostname` in Gateway API.
    pub(super) fn unreached(&self, listeners: &[Listener]) -> impl Iterator<Item = String> {
        let unreached = self.outlines().iter().filter(|outline| {
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
