//! The feature level: what commands may use, raised once every member's version knows it. It never falls.

use std::sync::Arc;

use tokio::time::Instant;

use super::board::Report;
use super::error::MemberError;
use super::members::ANSWER_TIMEOUT;
use super::shared::Shared;
use crate::model::limits::FEATURE_LEVEL_MAX;
use crate::model::{Command, CommandBody, NodeId, Timestamp};

impl Shared {
    /// Raises the level of features that commands may use.
    pub(super) async fn raise_feature_level(self: &Arc<Self>, level: u32, deadline: Instant) -> Result<(), MemberError> {
        if level > FEATURE_LEVEL_MAX {
            let reason = format!("this node's version knows feature levels up to {FEATURE_LEVEL_MAX}, not {level}");
            return Err(MemberError::Refused(reason));
        }
        for (id, report) in self.poll_others().await? {
            if report.feature_level_max < level {
                let (version, known) = (report.version, report.feature_level_max);
                return Err(MemberError::Conflict(format!(
                    "node {id} runs version {version}, which knows feature levels up to {known}: upgrade it first"
                )));
            }
        }
        self.propose_feature_level(level, deadline).await?;
        // Committed is not yet applied here. The level only rises.
        let mut states = self.states.clone();
        let shown = tokio::time::timeout_at(deadline, states.wait_for(|state| state.feature_level() >= level)).await;
        match shown {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MemberError::Unknown("this node is stopping".to_owned())),
            Err(_) => {
                Err(MemberError::Unknown("it was committed, and this node has not applied it before the deadline".to_owned()))
            }
        }
    }

    /// Raises the level of features to the highest that all members know.
    pub(super) async fn raise_to_common_level(self: &Arc<Self>, deadline: Instant) -> Result<u32, MemberError> {
        let others = self.poll_others().await?;
        let level = others.iter().map(|(_, report)| report.feature_level_max).fold(FEATURE_LEVEL_MAX, u32::min);
        self.propose_feature_level(level, deadline).await?;
        Ok(level)
    }

    async fn poll_others(&self) -> Result<Vec<(NodeId, Report)>, MemberError> {
        let mut reports = Vec::new();
        for id in self.other_members() {
            let report = self.poll(id, ANSWER_TIMEOUT).await;
            let report =
                report.map_err(|error| MemberError::Conflict(format!("node {id} does not say what it knows: {error}")))?;
            reports.push((id, report));
        }
        Ok(reports)
    }

    async fn propose_feature_level(self: &Arc<Self>, level: u32, deadline: Instant) -> Result<(), MemberError> {
        let command =
            Command { proposed_at: Timestamp::default(), actor: String::new(), body: CommandBody::RaiseFeatureLevel(level) };
        self.propose(command, deadline).await?;
        Ok(())
    }
}
