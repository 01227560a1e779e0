//! Outcomes on the wire: a follower that forwarded a command gets the leader's outcome back, or why there is none.

use super::error::{MemberError, NotAppliedKind, ProposeError};
use super::proposals::{not_applied, unknown};
use super::wire::WireError;
use crate::model::{Kind, Name, Outcome, Refusal, ResourceKey, ResultItem, Revision};
use crate::pb::peer as pb;
use crate::pb::peer::refused::{self, Refusal as Message};

fn key(key: ResourceKey) -> Option<pb::ResourceKey> {
    Some(pb::ResourceKey { kind: u32::from(u16::from(key.kind)), name: key.name.as_str().to_owned() })
}

fn read_key(message: Option<&pb::ResourceKey>) -> Result<ResourceKey, WireError> {
    let message = message.ok_or(WireError("no resource"))?;
    let number = u16::try_from(message.kind).map_err(|_| WireError("unknown kind"))?;
    let name = Name::new(&message.name).map_err(|_| WireError("invalid name"))?;
    Ok(ResourceKey::new(Kind::from(number), name))
}

pub(super) fn outcome(outcome: Outcome) -> pb::Outcome {
    use pb::outcome::Result;
    let revision = outcome.revision().0;
    let result = match outcome {
        Outcome::Applied { changed, results, .. } => {
            let item = |item: ResultItem| pb::ResultItem { key: key(item.key), revision: item.revision.0, created: item.created };
            Result::Applied(pb::Applied { changed, results: results.into_iter().map(item).collect() })
        }
        Outcome::Refused { refusal, .. } => Result::Refused(pb::Refused { refusal: Some(refusal_message(refusal)) }),
    };
    pb::Outcome { revision, result: Some(result) }
}

fn refusal_message(refusal: Refusal) -> Message {
    match refusal {
        Refusal::Precondition { index, key: resource, present } => {
            Message::Precondition(refused::Precondition { index, key: key(resource), present: present.map(|r| r.0) })
        }
        Refusal::StateRevision { present } => Message::StateRevision(present.0),
        Refusal::NotFound { index, key: resource } => Message::NotFound(refused::Operation { index, key: key(resource) }),
        Refusal::DuplicateOperation { index, key: resource } => {
            Message::DuplicateOperation(refused::Operation { index, key: key(resource) })
        }
        Refusal::TooLarge { what, count, limit } => Message::TooLarge(refused::TooLarge { what, count, limit }),
        Refusal::IdempotencyKeyReused => Message::IdempotencyKeyReused(true),
        Refusal::IdempotencyMemoryFull => Message::IdempotencyMemoryFull(true),
        Refusal::Upload { chunks } => Message::Upload(refused::Upload { chunks }),
        Refusal::StagingFull => Message::StagingFull(true),
    }
}

pub(super) fn read_outcome(message: &pb::Outcome) -> Result<Outcome, WireError> {
    use pb::outcome::Result as Kind;
    let revision = Revision(message.revision);
    match message.result.as_ref().ok_or(WireError("no outcome"))? {
        Kind::Applied(applied) => {
            let results = applied.results.iter().map(read_item).collect::<Result<_, _>>()?;
            Ok(Outcome::Applied { revision, changed: applied.changed, results })
        }
        Kind::Refused(refused) => {
            let refusal = read_refusal(refused.refusal.as_ref().ok_or(WireError("no refusal"))?)?;
            Ok(Outcome::Refused { revision, refusal })
        }
    }
}

fn read_item(message: &pb::ResultItem) -> Result<ResultItem, WireError> {
    Ok(ResultItem { key: read_key(message.key.as_ref())?, revision: Revision(message.revision), created: message.created })
}

fn read_refusal(message: &Message) -> Result<Refusal, WireError> {
    Ok(match message {
        Message::Precondition(at) => {
            Refusal::Precondition { index: at.index, key: read_key(at.key.as_ref())?, present: at.present.map(Revision) }
        }
        Message::StateRevision(present) => Refusal::StateRevision { present: Revision(*present) },
        Message::NotFound(at) => Refusal::NotFound { index: at.index, key: read_key(at.key.as_ref())? },
        Message::DuplicateOperation(at) => Refusal::DuplicateOperation { index: at.index, key: read_key(at.key.as_ref())? },
        Message::TooLarge(at) => Refusal::TooLarge { what: at.what.clone(), count: at.count, limit: at.limit },
        Message::IdempotencyKeyReused(_) => Refusal::IdempotencyKeyReused,
        Message::IdempotencyMemoryFull(_) => Refusal::IdempotencyMemoryFull,
        Message::Upload(found) => Refusal::Upload { chunks: found.chunks },
        Message::StagingFull(_) => Refusal::StagingFull,
    })
}

pub(super) fn propose_result(result: Result<Outcome, ProposeError>) -> pb::ProposeResult {
    use pb::not_applied::Kind;
    use pb::propose_result::Result;
    let result = match result {
        Ok(applied) => Result::Outcome(outcome(applied)),
        Err(ProposeError::Unknown { reason }) => Result::Unknown(reason),
        Err(error @ ProposeError::TooLarge { .. }) => {
            Result::NotApplied(pb::NotApplied { kind: Kind::Busy.into(), reason: error.to_string() })
        }
        Err(ProposeError::NotApplied { kind, reason }) => Result::NotApplied(not_applied_message(kind, reason)),
    };
    pb::ProposeResult { result: Some(result) }
}

fn not_applied_message(kind: NotAppliedKind, reason: String) -> pb::NotApplied {
    use pb::not_applied::Kind;
    let kind = match kind {
        NotAppliedKind::NoLeader => Kind::NoLeader,
        NotAppliedKind::NoQuorum => Kind::NoQuorum,
        NotAppliedKind::Busy => Kind::Busy,
        NotAppliedKind::StorageFailed => Kind::StorageFailed,
        NotAppliedKind::Stopping => Kind::Stopping,
        NotAppliedKind::Removed => Kind::Removed,
        NotAppliedKind::Unsupported => Kind::Unsupported,
    };
    pb::NotApplied { kind: kind.into(), reason }
}

fn read_not_applied_kind(message: &pb::NotApplied) -> NotAppliedKind {
    use pb::not_applied::Kind;
    match message.kind() {
        Kind::NoLeader => NotAppliedKind::NoLeader,
        Kind::NoQuorum => NotAppliedKind::NoQuorum,
        Kind::Busy => NotAppliedKind::Busy,
        Kind::Unsupported => NotAppliedKind::Unsupported,
        // That storage or process is the leader's: another leader will come.
        Kind::StorageFailed | Kind::Stopping | Kind::Removed => NotAppliedKind::NoLeader,
    }
}

/// What the leader made of a change of members: the log index that shows it, or why not.
pub(super) fn change_response(result: Result<u64, MemberError>) -> pb::ChangeMemberResponse {
    use pb::change_member_response::Result;
    let result = match result {
        Ok(index) => Result::DoneAtIndex(index),
        Err(MemberError::NotFound(reason)) => Result::NotFound(reason),
        Err(MemberError::Conflict(reason)) => Result::Conflict(reason),
        Err(MemberError::Refused(reason)) => Result::Refused(reason),
        Err(MemberError::NotApplied { kind, reason }) => Result::NotApplied(not_applied_message(kind, reason)),
        Err(MemberError::Unknown(reason)) => Result::Unknown(reason),
    };
    pb::ChangeMemberResponse { result: Some(result) }
}

pub(super) fn read_change_response(message: pb::ChangeMemberResponse) -> Result<u64, MemberError> {
    use pb::change_member_response::Result;
    Err(match message.result {
        Some(Result::DoneAtIndex(index)) => return Ok(index),
        Some(Result::NotFound(reason)) => MemberError::NotFound(reason),
        Some(Result::Conflict(reason)) => MemberError::Conflict(reason),
        Some(Result::Refused(reason)) => MemberError::Refused(reason),
        Some(Result::NotApplied(refused)) => MemberError::not_applied(read_not_applied_kind(&refused), refused.reason),
        Some(Result::Unknown(reason)) => MemberError::Unknown(reason),
        None => MemberError::Unknown("empty answer".to_owned()),
    })
}

pub(super) fn read_propose_result(message: pb::ProposeResult) -> Result<Outcome, ProposeError> {
    use pb::propose_result::Result;
    match message.result {
        Some(Result::Outcome(outcome)) => read_outcome(&outcome).map_err(|error| unknown(error.to_string())),
        Some(Result::Unknown(reason)) => Err(unknown(reason)),
        Some(Result::NotApplied(refused)) => Err(not_applied(read_not_applied_kind(&refused), refused.reason)),
        None => Err(unknown("empty answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_survives_the_wire() {
        let key = ResourceKey::new(Kind::Route, Name::new("orders").unwrap());
        let refusals = [
            Refusal::Precondition { index: 1, key: key.clone(), present: None },
            Refusal::Precondition { index: 1, key: key.clone(), present: Some(Revision(4)) },
            Refusal::StateRevision { present: Revision(5) },
            Refusal::NotFound { index: 2, key: key.clone() },
            Refusal::DuplicateOperation { index: 3, key: key.clone() },
            Refusal::TooLarge { what: "operations".to_owned(), count: 3, limit: 2 },
            Refusal::IdempotencyKeyReused,
            Refusal::IdempotencyMemoryFull,
            Refusal::Upload { chunks: None },
            Refusal::Upload { chunks: Some(0) },
            Refusal::StagingFull,
        ];
        let mut outcomes: Vec<Outcome> =
            refusals.into_iter().map(|refusal| Outcome::Refused { revision: Revision(9), refusal }).collect();
        let results = vec![ResultItem { key, revision: Revision(10), created: true }];
        outcomes.push(Outcome::Applied { revision: Revision(10), changed: true, results });
        for expected in outcomes {
            assert_eq!(read_outcome(&outcome(expected.clone())), Ok(expected));
        }
        assert!(read_outcome(&pb::Outcome::default()).is_err());
    }

    #[test]
    fn every_error_keeps_its_meaning_over_the_hop() {
        let cases = [
            (unknown("lost"), unknown("lost")),
            (not_applied(NotAppliedKind::Busy, "b"), not_applied(NotAppliedKind::Busy, "b")),
            (not_applied(NotAppliedKind::NoQuorum, "q"), not_applied(NotAppliedKind::NoQuorum, "q")),
            (not_applied(NotAppliedKind::StorageFailed, "s"), not_applied(NotAppliedKind::NoLeader, "s")),
        ];
        for (error, expected) in cases {
            assert_eq!(read_propose_result(propose_result(Err(error))), Err(expected));
        }
        assert!(matches!(read_propose_result(pb::ProposeResult::default()), Err(ProposeError::Unknown { .. })));
    }
}
