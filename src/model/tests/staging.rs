//! Staged uploads.

use super::*;

const UPLOAD: UploadId = UploadId([7; 16]);

fn staged(millis: u64, upload: UploadId, sequence: u32, operations: Vec<Operation>) -> Command {
    let body = CommandBody::Stage(Chunk { upload, sequence, operations });
    Command { body, ..change(millis, vec![]) }
}

fn activated(millis: u64, chunk_count: u32, preconditions: Vec<Precondition>) -> Command {
    let body = CommandBody::Activate(Activation { upload: UPLOAD, chunk_count, preconditions, idempotency: None });
    Command { body, ..change(millis, vec![]) }
}

fn puts(names: std::ops::Range<usize>) -> Vec<Operation> {
    names.map(|n| put(&format!("r{n}"), "1")).collect()
}

/// Operations that are staged.
fn held(state: &State) -> usize {
    let count = |record| match record {
        StateRecord::StagedChunk { chunk, .. } => chunk.operations.len(),
        _ => 0,
    };
    state.records().map(count).sum()
}

#[test]
fn an_upload_becomes_live_in_one_revision_and_shows_nothing_before() {
    let mut state = State::default();
    state.apply(&change(0, vec![put("old", "1"), put("r3", "0")]));
    let before = state.clone();
    for (sequence, names) in [(0, 0..10), (1, 10..20)] {
        assert_eq!(applied(&state.apply(&staged(1, UPLOAD, sequence, puts(names)))), (1, false));
    }
    state.apply(&staged(2, UPLOAD, 2, vec![delete("old"), delete("never")]));
    assert_eq!((state.digest(), state.len()), (before.digest(), 2));
    assert_ne!(state.state_digest(), before.state_digest());
    assert_eq!(rebuilt(&state).state_digest(), state.state_digest());
    let outcome = state.apply(&activated(3, 3, vec![Precondition::State { revision: Revision(1) }]));
    assert_eq!(outcome, Outcome::Applied { revision: Revision(2), changed: true, results: Vec::new() });
    assert_eq!(state.len(), 20);
    assert_eq!(state.get(&key("r3")).map(|r| (r.created_revision, r.revision)), Some((Revision(1), Revision(2))));
    let entry = state.history_at(Revision(2)).expect("kept");
    assert_eq!((entry.changes.len(), entry.omitted), (21, None));
    assert_eq!(state.at(Revision(1)).map(|past| past.digest()), Some(before.digest()));
    // It is gone.
    assert_eq!(refusal(state.apply(&activated(4, 3, vec![]))), Refusal::Upload { chunks: None });
    assert_eq!(rebuilt(&state).state_digest(), state.state_digest());
}

#[test]
fn a_chunk_is_taken_once_and_in_order() {
    let mut state = State::default();
    let gap = refusal(state.apply(&staged(0, UPLOAD, 1, puts(0..1))));
    assert_eq!(gap, Refusal::Upload { chunks: None });
    state.apply(&staged(0, UPLOAD, 0, puts(0..1)));
    let once = state.state_digest();
    state.apply(&staged(0, UPLOAD, 0, puts(0..1)));
    assert_eq!(state.state_digest(), once);
    assert_eq!(refusal(state.apply(&staged(0, UPLOAD, 0, puts(1..2)))), Refusal::Upload { chunks: Some(1) });
    assert_eq!(refusal(state.apply(&staged(0, UPLOAD, 2, puts(1..2)))), Refusal::Upload { chunks: Some(1) });
    assert_eq!(refusal(state.apply(&activated(0, 2, vec![]))), Refusal::Upload { chunks: Some(1) });
    assert_eq!(applied(&state.apply(&activated(0, 1, vec![]))), (1, true));
}

#[test]
fn a_refused_activation_leaves_the_upload_for_the_next() {
    let mut state = State::default();
    state.apply(&staged(0, UPLOAD, 0, puts(0..2)));
    state.apply(&change(1, vec![put("x", "1")]));
    let refused = refusal(state.apply(&activated(2, 1, vec![Precondition::State { revision: Revision(0) }])));
    assert_eq!(refused, Refusal::StateRevision { present: Revision(1) });
    state.apply(&staged(3, UPLOAD, 1, vec![delete("x"), put("r0", "2")]));
    let twice = refusal(state.apply(&activated(4, 2, vec![])));
    assert_eq!(twice, Refusal::DuplicateOperation { index: 3, key: key("r0") });
    assert_eq!(state.len(), 1);
    state.apply(&Command { body: CommandBody::Discard(UPLOAD), ..change(5, vec![]) });
    assert_eq!(refusal(state.apply(&activated(6, 2, vec![]))), Refusal::Upload { chunks: None });
    assert_eq!(state.revision(), Revision(1));
}

#[test]
fn an_upload_that_nobody_goes_on_with_expires() {
    let mut state = State::default();
    state.apply(&staged(0, UPLOAD, 0, puts(0..1)));
    let minute = CLOCK_STEP_MAX.as_millis() as u64;
    let minutes = UPLOAD_RETENTION.as_millis() as u64 / minute;
    (1..=minutes).for_each(|n| drop(state.apply(&change(n * minute, vec![]))));
    assert_eq!(held(&state), 1);
    state.apply(&change((minutes + 1) * minute, vec![]));
    assert_eq!(held(&state), 0);
    assert_eq!(refusal(state.apply(&staged((minutes + 1) * minute, UPLOAD, 1, puts(1..2)))), Refusal::Upload { chunks: None });
}

#[test]
fn what_is_staged_is_bounded() {
    let mut state = State::default();
    let many = refusal(state.apply(&staged(0, UPLOAD, 0, puts(0..TRANSACTION_OPERATIONS_MAX + 1))));
    assert!(matches!(many, Refusal::TooLarge { count: 10_001, .. }), "{many:?}");
    let document = "x".repeat(DOCUMENT_BYTES_MAX + 1);
    let long = refusal(state.apply(&staged(0, UPLOAD, 0, vec![put("a", &document)])));
    assert!(matches!(long, Refusal::TooLarge { count: 1_048_577, .. }), "{long:?}");
    for n in 0..UPLOADS_MAX as u8 {
        assert_eq!(applied(&state.apply(&staged(0, UploadId([n; 16]), 0, puts(0..1)))), (0, false));
    }
    assert_eq!(refusal(state.apply(&staged(0, UploadId([99; 16]), 0, puts(0..1)))), Refusal::StagingFull);
    let mut sequence = 1;
    let last = loop {
        match state.apply(&staged(0, UploadId([1; 16]), sequence, puts(0..TRANSACTION_OPERATIONS_MAX))) {
            Outcome::Applied { .. } => sequence += 1,
            Outcome::Refused { refusal, .. } => break refusal,
        }
    };
    assert_eq!(last, Refusal::StagingFull);
    assert!(held(&state) > STAGED_OPERATIONS_MAX - TRANSACTION_OPERATIONS_MAX && held(&state) <= STAGED_OPERATIONS_MAX);
}

#[test]
fn history_counts_what_is_too_much_to_keep() {
    let mut state = State::default();
    state.apply(&change(0, vec![put("r1", "0"), put("r2", "1"), put("old", "1")]));
    let half = TRANSACTION_OPERATIONS_MAX;
    state.apply(&staged(1, UPLOAD, 0, puts(0..half)));
    state.apply(&staged(1, UPLOAD, 1, puts(half..half + 5)));
    state.apply(&staged(1, UPLOAD, 2, vec![delete("old")]));
    assert_eq!(applied(&state.apply(&activated(2, 3, vec![]))), (2, true));
    let entry = state.history_at(Revision(2)).expect("kept");
    let counts = ChangeCounts { created: half as u64 + 3, updated: 1, deleted: 1 };
    assert_eq!((entry.changes.len(), entry.omitted), (0, Some(counts)));
    state.apply(&change(3, vec![put("x", "1")]));
    assert_eq!(state.at(Revision(2)).map(|past| past.len()), Some(half + 5));
    assert!(state.at(Revision(1)).is_none());
    let again = rebuilt(&state);
    assert_eq!(again.state_digest(), state.state_digest());
    assert_eq!(again.history_at(Revision(2)), state.history_at(Revision(2)));
}

#[test]
fn an_activation_with_a_key_is_applied_once() {
    let mut state = State::default();
    let idempotency = Some(IdempotencyKey { scoped_key: "k".into(), request_sha256: [1; 32] });
    let activation = Activation { upload: UPLOAD, chunk_count: 1, preconditions: vec![], idempotency };
    let command = Command { body: CommandBody::Activate(activation), ..change(1, vec![]) };
    state.apply(&staged(0, UPLOAD, 0, puts(0..2)));
    let first = state.apply(&command);
    assert_eq!(applied(&first), (1, true));
    // Staged once more by a retry, it is gone as well.
    state.apply(&staged(2, UPLOAD, 0, puts(0..2)));
    assert_eq!(state.apply(&command), first);
    assert_eq!(held(&state), 0);
}
