//! A snapshot that is large enough for two threads.

use super::*;
use crate::model::{Kind, Name, Operation, ResourceKey, Transaction};

/// Some megabytes of documents, with history.
fn state() -> State {
    let mut state = State::default();
    for number in 0..12 {
        let key = ResourceKey::new(Kind::Route, Name::new(&format!("r{}", number % 8)).unwrap());
        let spec = Bytes::from(format!("{{\"n\":\"{number}{}\"}}", "x".repeat(500_000)));
        let transaction = Transaction { operations: vec![Operation::Put { key, spec }], ..Transaction::default() };
        let body = CommandBody::Transaction(transaction);
        state.apply(&Command { proposed_at: Timestamp(number), actor: "test".to_owned(), body });
    }
    state
}

#[test]
fn it_gives_the_state_that_it_was_made_of_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = SnapshotDirectory::open(dir.path()).unwrap().ok().unwrap().directory;
    let state = state();
    let file = snapshots.write(&SnapshotMeta { last_log_id: Some(log_id(1, 10)), ..SnapshotMeta::default() }, &state).unwrap();
    assert!(file.byte_count() > 4 << 20);
    let loaded = file.load().unwrap();
    assert_eq!((loaded.state_digest(), loaded.len()), (state.state_digest(), state.len()));
    for tenth in 1..10 {
        let place = file.byte_count() * tenth / 10;
        flip_bit(file.path(), place);
        assert!(file.load().is_err(), "a bit at {place}");
        flip_bit(file.path(), place);
    }
    assert!(file.load().is_ok());
    fs::File::options().write(true).open(file.path()).unwrap().set_len(file.byte_count() / 2).unwrap();
    assert!(file.load().is_err(), "half of it");
}
