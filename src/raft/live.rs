//! Waiting until every member serves a revision.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::peers::call;
use super::shared::Shared;
use super::status::MemberLive;
use crate::model::{NodeId, Revision};
use crate::pb::peer as pb;

/// How long a member is asked to wait at a time: its answer is a sign of life.
const SLICE: Duration = Duration::from_millis(500);
/// A member that has given no answer for this long leaves the wait.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// How long a member that was silent when the wait began may take to show that it is back.
const LAST_TRY: Duration = Duration::from_millis(100);
/// Between two tries at a member that refuses connections.
const RETRY_DELAY: Duration = Duration::from_millis(50);

impl Shared {
    pub(super) async fn wait_live(self: &Arc<Self>, revision: Revision, deadline: Instant) -> Vec<MemberLive> {
        let mut waits = JoinSet::new();
        for id in self.other_members() {
            let shared = Arc::clone(self);
            waits.spawn(async move { shared.wait_for_member(id, revision, deadline).await });
        }
        let mut members = vec![self.wait_for_self(revision, deadline).await];
        while let Some(waited) = waits.join_next().await {
            match waited {
                Ok(member) => members.push(member),
                Err(error) => tracing::error!(%error, "wait for a member failed"),
            }
        }
        members.sort_by_key(|member| member.id);
        members
    }

    async fn wait_for_self(&self, revision: Revision, deadline: Instant) -> MemberLive {
        let published = self.await_published(revision, deadline).await.revision;
        let live = published >= revision;
        let reason = (!live).then(|| "not published in time".to_owned());
        MemberLive { id: self.node_id(), revision: Some(published), live, reason }
    }

    /// What this node's table serves once that is `revision` or later, or at the deadline.
    pub(super) async fn await_published(&self, revision: Revision, deadline: Instant) -> crate::model::Published {
        let mut published = self.published.clone();
        // Both a passed deadline and a publisher that is gone end the wait; what is served then is the answer.
        let _ = tokio::time::timeout_at(deadline, published.wait_for(|published| published.revision >= revision)).await;
        *self.published.borrow()
    }

    /// A member that the board knows to be silent is asked once more, briefly: it may just have come back.
    async fn wait_for_member(&self, id: NodeId, revision: Revision, deadline: Instant) -> MemberLive {
        let mut published = self.board.report(id).map(|report| report.published);
        let mut answered_at = self.board.silent_since(id).unwrap_or_else(Instant::now);
        let mut last_try = answered_at.elapsed() >= SILENCE_MAX;
        loop {
            answered_at = answered_at.max(self.board.silent_since(id).unwrap_or(answered_at));
            let now = Instant::now();
            let silent_at = answered_at + SILENCE_MAX;
            let reason = if now >= silent_at && !last_try {
                Some(format!("no answer for {} s", (now - answered_at).as_secs()))
            } else {
                (now >= deadline).then(|| "not published in time".to_owned())
            };
            if reason.is_some() {
                return MemberLive { id, revision: published, live: false, reason };
            }
            let (wait, patience) =
                if last_try { (Duration::ZERO, LAST_TRY) } else { (SLICE.min(deadline - now), silent_at - now) };
            let limit = patience.min(deadline + RETRY_DELAY - now);
            let answer = self.ask_published(id, revision, wait, limit).await;
            match answer {
                Some(answer) if answer >= revision => return MemberLive { id, revision: Some(answer), live: true, reason: None },
                Some(answer) => {
                    published = Some(answer);
                    answered_at = Instant::now();
                }
                None if last_try => {}
                None => tokio::time::sleep(RETRY_DELAY).await,
            }
            last_try = false;
        }
    }

    async fn ask_published(&self, id: NodeId, revision: Revision, wait: Duration, limit: Duration) -> Option<Revision> {
        let peer = self.member(id).ok()?;
        let header = Some(self.identity.header(id));
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let mut client = peer.bulk();
        let request = pb::AwaitPublishedRequest { header, revision: revision.0, wait_ms };
        let answer = call(limit, client.await_published(request)).await.ok()?;
        let published = Revision(answer.revision);
        self.board.note_published(id, published);
        Some(published)
    }
}
