//! State under scripts and under random transactions.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::limits::*;
use super::*;

mod staging;

const START: u64 = 1_700_000_000_000;

fn key(name: &str) -> ResourceKey {
    ResourceKey::new(Kind::Route, Name::new(name).expect("a good name"))
}

fn put(name: &str, spec: &str) -> Operation {
    Operation::Put { key: key(name), spec: Bytes::copy_from_slice(spec.as_bytes()) }
}

fn delete(name: &str) -> Operation {
    Operation::Delete { key: key(name) }
}

fn command(millis: u64, transaction: Transaction) -> Command {
    Command { proposed_at: Timestamp(START + millis), actor: "test".into(), body: CommandBody::Transaction(transaction) }
}

fn change(millis: u64, operations: Vec<Operation>) -> Command {
    command(millis, Transaction { operations, ..Transaction::default() })
}

fn guarded(preconditions: Vec<Precondition>, operations: Vec<Operation>) -> Command {
    command(0, Transaction { preconditions, operations, idempotency: None })
}

fn keyed(millis: u64, idempotency_key: &str, request: u8, operations: Vec<Operation>) -> Command {
    let idempotency = Some(IdempotencyKey { scoped_key: idempotency_key.into(), request_sha256: [request; 32] });
    command(millis, Transaction { operations, idempotency, ..Transaction::default() })
}

fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused { refusal, .. } => refusal,
        applied @ Outcome::Applied { .. } => panic!("expected a refusal, found {applied:?}"),
    }
}

fn applied(outcome: &Outcome) -> (u64, bool) {
    match outcome {
        Outcome::Applied { revision, changed, .. } => (revision.0, *changed),
        Outcome::Refused { .. } => panic!("expected it to be applied, found {outcome:?}"),
    }
}

fn rebuilt(state: &State) -> State {
    let mut builder = StateBuilder::new();
    state.records().for_each(|record| builder.add(record).expect("records in order"));
    builder.finish().expect("records that add up")
}

#[test]
fn revisions_count_what_changed() {
    let mut state = State::default();
    assert_eq!(applied(&state.apply(&change(0, vec![put("a", "1"), put("b", "1")]))), (1, true));
    assert_eq!(applied(&state.apply(&change(1, vec![put("a", "1"), put("b", "1")]))), (1, false));
    assert_eq!(applied(&state.apply(&change(2, vec![]))), (1, false));
    let outcome = state.apply(&change(3, vec![put("a", "1"), put("b", "2"), put("c", "1")]));
    let Outcome::Applied { results, .. } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(
        results.iter().map(|item| (item.revision.0, item.created)).collect::<Vec<_>>(),
        [(1, false), (2, false), (2, true)]
    );
    let entry = state.history_at(Revision(2)).expect("kept");
    assert_eq!(entry.changes.iter().map(|change| change.key.name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(entry.digest, state.digest());
    assert_eq!(applied(&state.apply(&change(4, vec![delete("a")]))), (3, true));
    assert_eq!(applied(&state.apply(&change(5, vec![put("a", "1")]))), (4, true));
    let made_again = state.get(&key("a")).expect("present");
    assert_eq!((made_again.created_revision, made_again.revision), (Revision(4), Revision(4)));
    assert_eq!(state.get(&key("b")).map(|b| (b.created_revision, b.revision)), Some((Revision(1), Revision(2))));
}

#[test]
fn refused_transactions_change_nothing() {
    let mut state = State::default();
    state.apply(&change(0, vec![put("a", "1")]));
    let too_many = (0..=TRANSACTION_OPERATIONS_MAX).map(|n| put(&n.to_string(), "1")).collect();
    let document = "x".repeat(DOCUMENT_BYTES_MAX);
    let table = [
        (vec![put("b", "1"), delete("c")], Refusal::NotFound { index: 1, key: key("c") }),
        (vec![put("b", "1"), put("b", "2")], Refusal::DuplicateOperation { index: 1, key: key("b") }),
        (vec![delete("a"), put("a", "2")], Refusal::DuplicateOperation { index: 1, key: key("a") }),
        (too_many, Refusal::TooLarge { what: "operations in the transaction".into(), count: 10_001, limit: 10_000 }),
        (
            vec![put("b", &(document.clone() + "x"))],
            Refusal::TooLarge { what: "bytes of one document".into(), count: 1_048_577, limit: 1_048_576 },
        ),
        (
            ["b", "c", "d", "e"].map(|name| put(name, &document)).to_vec(),
            Refusal::TooLarge { what: "bytes of the transaction".into(), count: 4_194_308, limit: 4_194_304 },
        ),
    ];
    let before = state.state_digest();
    for (operations, expected) in table {
        assert_eq!(refusal(state.apply(&change(0, operations))), expected);
        assert_eq!(state.state_digest(), before);
    }
    assert_eq!(applied(&state.apply(&change(0, vec![put("b", &document)]))), (2, true));
}

#[test]
fn preconditions_are_read_before_the_first_operation() {
    let mut state = State::default();
    let none = || Precondition::Revision { key: key("a"), revision: Revision::ZERO };
    assert_eq!(applied(&state.apply(&guarded(vec![none()], vec![put("a", "1")]))), (1, true));
    let broken = Refusal::Precondition { index: 0, key: key("a"), present: Some(Revision(1)) };
    assert_eq!(refusal(state.apply(&guarded(vec![none()], vec![put("a", "1")]))), broken);
    let at = |revision| Precondition::Revision { key: key("a"), revision: Revision(revision) };
    let exists = |name| Precondition::Exists { key: key(name) };
    assert_eq!(applied(&state.apply(&guarded(vec![at(1), exists("a")], vec![delete("a")]))), (2, true));
    let missing = Refusal::Precondition { index: 1, key: key("a"), present: None };
    let whole = |revision| Precondition::State { revision: Revision(revision) };
    assert_eq!(refusal(state.apply(&guarded(vec![whole(2), exists("a")], vec![put("a", "1")]))), missing);
    let moved = Refusal::StateRevision { present: Revision(2) };
    assert_eq!(refusal(state.apply(&guarded(vec![whole(1)], vec![put("a", "1")]))), moved);
    assert_eq!(refusal(state.apply(&guarded(vec![whole(1)], vec![]))), moved);
    assert_eq!(applied(&state.apply(&guarded(vec![whole(2), none()], vec![put("a", "1")]))), (3, true));
}

#[test]
fn a_key_answers_its_request_once() {
    let mut state = State::default();
    let first = state.apply(&keyed(0, "k", 1, vec![put("a", "1")]));
    state.apply(&change(1, vec![put("a", "2")]));
    assert_eq!(state.apply(&keyed(2, "k", 1, vec![put("a", "1")])), first);
    assert_eq!(state.get(&key("a")).map(|a| a.spec.clone()), Some(Bytes::from_static(b"2")));
    assert_eq!(refusal(state.apply(&keyed(3, "k", 2, vec![put("a", "3")]))), Refusal::IdempotencyKeyReused);
    let refused = state.apply(&keyed(4, "r", 1, vec![delete("z")]));
    state.apply(&change(5, vec![put("z", "1")]));
    assert_eq!(state.apply(&keyed(6, "r", 1, vec![delete("z")])), refused, "a refusal is remembered too");
    let long = "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX + 1);
    assert!(matches!(refusal(state.apply(&keyed(7, &long, 1, vec![]))), Refusal::TooLarge { .. }));
}

#[test]
fn keys_are_kept_for_the_retention_by_a_clock_that_does_not_jump() {
    let mut state = State::default();
    state.apply(&keyed(0, "k", 1, vec![put("a", "1")]));
    let year = 365 * 24 * 3_600_000;
    state.apply(&change(year, vec![put("a", "2")]));
    assert_eq!(applied(&state.apply(&keyed(1, "k", 1, vec![put("a", "1")]))), (1, true), "one jump expires nothing");
    let mut steps = 0;
    while refusal_of_other(&mut state) {
        state.apply(&change(year, vec![]));
        steps += 1;
    }
    // One step was made above. The retention is over once the clock is past it, not at it.
    let retention = IDEMPOTENCY_RETENTION.as_secs() / CLOCK_STEP_MAX.as_secs();
    assert_eq!(steps, retention);
    assert_eq!(applied(&state.apply(&keyed(0, "k", 2, vec![put("a", "3")]))), (3, true));
}

/// Whether the key `k` is still remembered for another request; the clock does not move.
fn refusal_of_other(state: &mut State) -> bool {
    let (outcome, _) = state.preview(&keyed(0, "k", 9, vec![]));
    matches!(outcome, Outcome::Refused { refusal: Refusal::IdempotencyKeyReused, .. })
}

#[test]
fn a_full_memory_refuses_instead_of_forgetting() {
    let mut state = State::default();
    for n in 0..IDEMPOTENCY_KEYS_MAX {
        let outcome = state.apply(&keyed(0, &n.to_string(), 1, vec![]));
        assert_eq!(applied(&outcome), (0, false));
    }
    assert_eq!(refusal(state.apply(&keyed(0, "more", 1, vec![put("a", "1")]))), Refusal::IdempotencyMemoryFull);
    assert_eq!(applied(&state.apply(&keyed(0, "0", 1, vec![]))), (0, false), "a known key still answers");
    assert_eq!(applied(&state.apply(&change(0, vec![put("a", "1")]))), (1, true), "writes without a key go on");
    for minute in 1..=11 {
        state.apply(&change(minute * 60_000, vec![]));
    }
    assert_eq!(applied(&state.apply(&keyed(660_000, "more", 1, vec![put("b", "1")]))), (2, true));
}

#[test]
fn history_is_bounded_by_count_and_bytes() {
    let mut state = State::default();
    let revisions = HISTORY_REVISIONS_MAX as u64 + 5;
    for n in 0..revisions {
        state.apply(&change(n, vec![put("a", &n.to_string())]));
    }
    assert_eq!(state.history().count(), HISTORY_REVISIONS_MAX);
    assert!(state.history_at(Revision(5)).is_none() && state.history_at(Revision(6)).is_some());
    assert!(state.at(Revision(4)).is_none() && state.at(Revision(5)).is_some());
    let large = "x".repeat(DOCUMENT_BYTES_MAX - 8);
    for n in 0..40 {
        state.apply(&change(n, vec![put("a", &format!("{large}{n}"))]));
    }
    let bytes: usize = state.history().map(HistoryEntry::byte_count).sum();
    assert!(bytes <= HISTORY_BYTES_MAX && bytes > HISTORY_BYTES_MAX / 2, "{bytes}");
    assert_eq!(state.history().next_back().map(|entry| entry.revision), Some(state.revision()));
    assert_eq!(rebuilt(&state).state_digest(), state.state_digest());
}

#[test]
fn resources_are_listed_by_kind_after_a_name() {
    let mut state = State::default();
    let service = ResourceKey::new(Kind::Service, Name::new("0").expect("a good name"));
    let unknown = ResourceKey::new(Kind::Unknown(9), Name::new("0").expect("a good name"));
    let other = [service, unknown].map(|key| Operation::Put { key, spec: Bytes::from_static(b"1") });
    state.apply(&change(0, [vec![put("a", "1"), put("0", "1"), put("b.c", "1")], other.to_vec()].concat()));
    let names = |kind, after: Option<&str>| -> Vec<String> {
        let after = after.map(|name| Name::new(name).expect("a good name"));
        state.resources_after(kind, after.as_ref()).map(|resource| resource.key.name.to_string()).collect()
    };
    assert_eq!(names(Kind::Route, None), ["0", "a", "b.c"]);
    assert_eq!(names(Kind::Route, Some("a")), ["b.c"]);
    assert_eq!(names(Kind::Service, None), ["0"]);
    assert_eq!(names(Kind::Service, Some("0")), Vec::<String>::new());
    assert_eq!(names(Kind::Unknown(9), None), ["0"]);
}

/// A node that knows no `GRPCRoute` holds the same State as one that does, and both have it at the same place.
#[test]
fn a_kind_that_a_node_does_not_know_keeps_the_digest() {
    let state_with = |kind: Kind| {
        let mut state = State::default();
        let put_of = |kind: Kind, name: &str| Operation::Put {
            key: ResourceKey::new(kind, Name::new(name).expect("a good name")),
            spec: Bytes::from_static(b"{}"),
        };
        let others = [Kind::Route, Kind::Service, Kind::Unknown(9)].map(|other| put_of(other, "a"));
        state.apply(&change(0, others.into_iter().chain([put_of(kind, "b"), put_of(kind, "c")]).collect()));
        let deleted = Operation::Delete { key: ResourceKey::new(kind, Name::new("c").expect("a good name")) };
        state.apply(&change(1, vec![deleted]));
        state
    };
    for (kind, code) in [(Kind::GrpcRoute, 3), (Kind::Certificate, 4)] {
        let (new, old) = (state_with(kind), state_with(Kind::Unknown(code)));
        assert_eq!((new.digest(), new.state_digest(), new.len()), (old.digest(), old.state_digest(), 4));
        let codes = |state: &State| state.resources().map(|resource| u16::from(resource.key.kind)).collect::<Vec<_>>();
        assert_eq!(codes(&new), codes(&old));
        assert_eq!(Kind::from(code), kind);
    }
}

#[test]
fn what_an_older_version_does_not_serve_needs_a_level() {
    let body = |kinds: &[Kind]| {
        let key = |kind: &Kind| ResourceKey::new(*kind, Name::new("a").expect("a good name"));
        let operations = kinds.iter().map(|kind| Operation::Put { key: key(kind), spec: Bytes::from_static(b"{}") });
        CommandBody::Transaction(Transaction { operations: operations.collect(), ..Transaction::default() })
    };
    assert_eq!(body(&[Kind::Route, Kind::Service]).refused_at(0), None);
    let reason = body(&[Kind::Route, Kind::GrpcRoute]).refused_at(0).expect("a refusal");
    assert!(reason.contains("needs feature level 1") && reason.contains("raise-feature-level 1"), "{reason}");
    assert_eq!(body(&[Kind::GrpcRoute]).refused_at(1), None);
    assert!(body(&[Kind::Certificate]).refused_at(1).is_some_and(|reason| reason.contains("raise-feature-level 2")));
    assert_eq!(body(&[Kind::Certificate]).refused_at(2), None);

    // A field can need it as well as a kind.
    let key = ResourceKey::new(Kind::Service, Name::new("a").expect("a good name"));
    let operations = vec![Operation::Put { key: key.clone(), spec: Bytes::from_static(br#"{"protocol":"h2"}"#) }];
    let body = |operations| CommandBody::Transaction(Transaction { operations, ..Transaction::default() });
    let reason = body(operations.clone()).refused_at(1).expect("a refusal");
    assert!(reason.contains("needs feature level 2"), "{reason}");
    assert_eq!(body(operations).refused_at(2), None);
    assert_eq!(body(vec![Operation::Delete { key }]).refused_at(0), None);
}

#[test]
fn the_feature_level_only_rises() {
    let mut state = State::default();
    for (level, expected) in [(2, 2), (1, 2), (3, 3)] {
        let body = CommandBody::RaiseFeatureLevel(level);
        state.apply(&Command { proposed_at: Timestamp(START), actor: "test".into(), body });
        assert_eq!((state.feature_level(), state.revision()), (expected, Revision::ZERO));
    }
}

#[test]
fn records_out_of_order_or_altered_are_refused() {
    let mut state = State::default();
    state.apply(&keyed(0, "k", 1, vec![put("a", "1"), put("b", "1")]));
    let records: Vec<StateRecord> = state.records().collect();
    let build = |records: &[StateRecord]| -> Result<State, RecordError> {
        let mut builder = StateBuilder::new();
        records.iter().try_for_each(|record| builder.add(record.clone()))?;
        builder.finish()
    };
    assert!(build(&records).is_ok());
    assert_eq!(build(&records[1..]).err(), Some(RecordError::Header));
    assert_eq!(build(&records[..records.len() - 1]).err(), Some(RecordError::Footer));
    assert_eq!(build(&[records.clone(), records.clone()].concat()).err(), Some(RecordError::Footer));
    for missing in 1..records.len() - 1 {
        let mut fewer = records.clone();
        fewer.remove(missing);
        assert!(matches!(build(&fewer), Err(RecordError::Digest { .. })), "without {:?}", records[missing]);
    }
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let name = prop::sample::select(vec!["a", "b", "c", "d"]);
    prop_oneof![
        3 => (name.clone(), 0u8..3).prop_map(|(name, spec)| put(name, &spec.to_string())),
        1 => name.prop_map(delete),
    ]
}

fn any_precondition() -> impl Strategy<Value = Precondition> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        (name.clone(), 0u64..4).prop_map(|(name, n)| Precondition::Revision { key: key(name), revision: Revision(n) }),
        name.prop_map(|name| Precondition::Exists { key: key(name) }),
        (0u64..4).prop_map(|n| Precondition::State { revision: Revision(n) }),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let preconditions = prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(any_precondition(), 1..3)];
    let idempotency = prop::option::weighted(0.4, (0u8..4, 0u8..2)).prop_map(|chosen| {
        chosen.map(|(key, request)| IdempotencyKey { scoped_key: key.to_string(), request_sha256: [request; 32] })
    });
    (0u64..3_000_000, preconditions, prop::collection::vec(any_operation(), 0..4), idempotency).prop_map(
        |(millis, preconditions, operations, idempotency)| {
            command(millis, Transaction { preconditions, operations, idempotency })
        },
    )
}

/// The contents, by name.
fn contents(state: &State) -> BTreeMap<String, Resource> {
    state.resources().map(|resource| (resource.key.name.to_string(), resource.as_ref().clone())).collect()
}

proptest! {
    #[test]
    fn any_log_keeps_the_invariants(commands in prop::collection::vec(any_command(), 0..40)) {
        let mut state = State::default();
        let mut revisions = vec![State::default()];
        for command in &commands {
            let old = state.clone();
            let outcome = state.apply(command);
            let moved = state.revision() != old.revision();
            prop_assert_eq!(state.digest() != old.digest(), moved);
            prop_assert_eq!(contents(&state) != contents(&old), moved);
            if moved {
                prop_assert_eq!(state.revision(), old.revision().next());
                let entry = state.history_at(state.revision()).expect("the newest revision is kept");
                prop_assert_eq!(entry.digest, state.digest());
                prop_assert_eq!(entry.changes.len(), state.changes_since(&old).count());
                prop_assert_eq!(&outcome.revision(), &state.revision());
                revisions.push(state.clone());
            }
            let undone: BTreeMap<String, Resource> = undo(&state, &old);
            prop_assert_eq!(undone, contents(&old));
        }
        for old in &revisions {
            let past = state.at(old.revision()).expect("history holds them all");
            prop_assert_eq!(contents(&past), contents(old));
            prop_assert_eq!((past.revision(), past.digest()), (old.revision(), old.digest()));
        }
        prop_assert!(state.at(state.revision().next()).is_none());
        let back = rebuilt(&state);
        prop_assert_eq!(back.digest(), state.digest());
        prop_assert_eq!(back.state_digest(), state.state_digest());
        prop_assert_eq!(back.records().collect::<Vec<_>>(), state.records().collect::<Vec<_>>());
    }

    #[test]
    fn a_replay_from_any_snapshot_ends_in_the_same_state(
        commands in prop::collection::vec(any_command(), 1..40),
        at in any::<prop::sample::Index>(),
    ) {
        let at = at.index(commands.len());
        let mut whole = State::default();
        let outcomes: Vec<Outcome> = commands.iter().map(|command| whole.apply(command)).collect();
        let mut first = State::default();
        commands[..at].iter().for_each(|command| { first.apply(command); });
        let mut second = rebuilt(&first);
        for (command, expected) in commands[at..].iter().zip(&outcomes[at..]) {
            prop_assert_eq!(&second.apply(command), expected);
        }
        prop_assert_eq!(second.state_digest(), whole.state_digest());
    }
}

/// `new` with its differences from `old` taken back: `old` again, if they are told in full.
fn undo(new: &State, old: &State) -> BTreeMap<String, Resource> {
    let mut resources = contents(new);
    for (before, after) in new.changes_since(old) {
        if let Some(after) = after {
            resources.remove(after.key.name.as_str());
        }
        if let Some(before) = before {
            resources.insert(before.key.name.to_string(), before.as_ref().clone());
        }
    }
    resources
}
