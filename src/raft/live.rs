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
        member_live(self.node_id(), revision, published, "not published in time".to_owned())
    }

    /// What this node's table serves once that is `revision` or later, or at the deadline.
    pub(super) async fn await_published(&self, revision: Revision, deadline: Instant) -> crate::model::Published {
        let mut published = self.published.clone();
        // Both a passed deadline and a publisher that is gone end the wait; what is served then is the answer.
        let _ = tokio::time::timeout_at(deadline, published.wait_for(|published| published.revision >= revision)).await;
        *self.published.borrow()
    }

    async fn wait_for_member(&self, id: NodeId, revision: Revision, deadline: Instant) -> MemberLive {
        let mut published = Revision::ZERO;
        let mut answered_at = Instant::now();
        loop {
            let now = Instant::now();
            let silent_at = answered_at + SILENCE_MAX;
            if now >= silent_at {
                return member_live(id, revision, published, "no answer for 1 s".to_owned());
            }
            if now >= deadline {
                return member_live(id, revision, published, "not published in time".to_owned());
            }
            let wait = SLICE.min(deadline - now);
            let limit = (silent_at - now).min(deadline + RETRY_DELAY - now);
            match self.ask_published(id, revision, wait, limit).await {
                Some(answer) if answer >= revision => return member_live(id, revision, answer, String::new()),
                Some(answer) => {
                    published = answer;
                    answered_at = Instant::now();
                }
                None => tokio::time::sleep(RETRY_DELAY).await,
            }
        }
    }

    async fn ask_published(&self, id: NodeId, revision: Revision, wait: Duration, limit: Duration) -> Option<Revision> {
        let peer = self.member(id).ok()?;
        let header = Some(self.identity.header(id));
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let mut client = peer.bulk();
        let request = pb::AwaitPublishedRequest { header, revision: revision.0, wait_ms };
        call(limit, client.await_published(request)).await.ok().map(|answer| Revision(answer.revision))
    }
}

fn member_live(id: NodeId, awaited: Revision, published: Revision, reason: String) -> MemberLive {
    let live = published >= awaited;
    MemberLive { id, revision: published, live, reason: (!live).then_some(reason) }
}
