//! Effects: what a write does to the table, once, however often it was asked for.
//!
//! Attempts that share an idempotency key are one effect. Its revision is known from an acknowledgement that it changed something, or
//! from the own revision of a route that a read saw with its value, for no two writes of a test write the same value. An effect that
//! nobody acknowledged and nobody saw may have happened or not: it explains nothing and contradicts nothing.

use std::collections::HashMap;

use super::operation::Operation;
use crate::history::{Key, Kind, Op, Value};

/// One write of some routes.
#[derive(Debug, Clone)]
pub(crate) struct Effect<'a> {
    /// The first attempt, for what is said about it.
    pub(crate) first: Operation<'a>,
    pub(crate) writes: &'a [(Key, Value)],
    pub(crate) preconditions: &'a [(Key, u64)],
    pub(crate) idempotency_key: Option<&'a str>,
    pub(crate) attempts: u32,
    /// Where the first attempt began.
    pub(crate) begin: u64,
    /// By where it certainly had happened: the first acknowledgement, or the end of the first read that saw it.
    pub(crate) end: u64,
    pub(crate) acknowledged: bool,
    /// False where every attempt certainly did nothing.
    pub(crate) possible: bool,
    /// The revision that it made, where that is known.
    pub(crate) revision: Option<u64>,
    /// A revision at which it certainly had happened; the highest number where none is known.
    pub(crate) latest: u64,
    /// Revisions that acknowledgements and reads gave for it beside `revision`, and where: each is a second effect.
    pub(crate) again: Vec<(u64, String)>,
}

impl Effect<'_> {
    /// Whether it certainly happened.
    pub(crate) fn happened(&self) -> bool {
        self.acknowledged || self.revision.is_some() || self.latest != u64::MAX
    }

    /// Words for it: `the write of 3=12 (events 4-9, process 2 at node 1)`.
    pub(crate) fn name(&self) -> String {
        let writes = self.writes.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
        let revision = self.revision.map(|revision| format!(", revision {revision}")).unwrap_or_default();
        format!("the write of {writes} ({}{revision})", self.first.place())
    }

    fn learn(&mut self, revision: u64, end: u64, place: impl FnOnce() -> String) {
        self.end = self.end.min(end);
        match self.revision {
            None => self.revision = Some(revision),
            Some(known) if known == revision => {}
            Some(_) if self.again.iter().any(|(known, _)| *known == revision) => {}
            Some(_) => self.again.push((revision, place())),
        }
        self.latest = self.latest.min(revision);
    }
}

/// All effects of a history, and who wrote which value.
#[derive(Debug)]
pub(crate) struct Effects<'a> {
    pub(crate) all: Vec<Effect<'a>>,
    by_value: HashMap<(Key, Value), usize>,
    /// What breaks the rule that every write writes another value: nothing could be judged by it.
    pub(crate) wrong: Vec<String>,
}

impl<'a> Effects<'a> {
    /// Gathers the writes, and from the reads what revisions they had.
    pub(crate) fn gather(operations: &[Operation<'a>]) -> Effects<'a> {
        let mut effects = Effects { all: Vec::new(), by_value: HashMap::new(), wrong: Vec::new() };
        let mut by_idempotency: HashMap<&str, usize> = HashMap::new();
        for operation in operations {
            if let Op::Write { writes, preconditions, idempotency_key, .. } = &operation.invoke.op {
                let key = idempotency_key.as_deref();
                let known = key.and_then(|key| by_idempotency.get(key).copied());
                let at = known.unwrap_or_else(|| effects.add(*operation, writes, preconditions, key));
                if let Some(key) = key {
                    by_idempotency.insert(key, at);
                }
                effects.attempt(at, operation, writes);
            }
        }
        for operation in operations.iter().filter(|operation| operation.is_ok()) {
            effects.see(operation);
        }
        effects
    }

    /// The effect that wrote a value into a route.
    pub(crate) fn writer(&self, key: Key, value: Value) -> Option<usize> {
        self.by_value.get(&(key, value)).copied()
    }

    fn add(
        &mut self,
        first: Operation<'a>,
        writes: &'a [(Key, Value)],
        preconditions: &'a [(Key, u64)],
        key: Option<&'a str>,
    ) -> usize {
        let at = self.all.len();
        for write in writes {
            if let Some(before) = self.by_value.insert(*write, at) {
                let (key, value) = write;
                self.wrong.push(format!("{} was written before by {}: {key}={value}", first.place(), self.all[before].name()));
            }
        }
        self.all.push(Effect {
            first,
            writes,
            preconditions,
            idempotency_key: key,
            attempts: 0,
            begin: first.begin(),
            end: u64::MAX,
            acknowledged: false,
            possible: false,
            revision: None,
            latest: u64::MAX,
            again: Vec::new(),
        });
        at
    }

    fn attempt(&mut self, at: usize, operation: &Operation<'a>, writes: &[(Key, Value)]) {
        let effect = &mut self.all[at];
        if effect.writes != writes {
            self.wrong.push(format!(
                "{} has the idempotency key of {} and writes something else",
                operation.place(),
                effect.name()
            ));
            return;
        }
        effect.attempts += 1;
        effect.begin = effect.begin.min(operation.begin());
        effect.possible |= operation.outcome() != Kind::Fail;
        if let Op::Write { made: Some(made), .. } = operation.op()
            && operation.is_ok()
        {
            effect.acknowledged = true;
            effect.latest = effect.latest.min(made.revision);
            effect.end = effect.end.min(operation.finish());
            if made.changed {
                effect.learn(made.revision, operation.finish(), || operation.place());
            }
        }
    }

    fn see(&mut self, operation: &Operation<'a>) {
        match operation.op() {
            Op::Read { keys, seen: Some(seen) } => {
                for (key, item) in keys.iter().zip(&seen.items) {
                    if let Some((revision, value)) = item {
                        self.learn(*key, *value, *revision, operation);
                    }
                }
            }
            Op::ReadAll { seen: Some(seen) } => {
                for (key, revision, value) in &seen.items {
                    self.learn(*key, *value, *revision, operation);
                }
            }
            Op::Request { key, answer: Some(answer) } => {
                if let (Some(value), Some(revision)) = (answer.value, answer.revision)
                    && let Some(at) = self.writer(*key, value)
                {
                    self.all[at].latest = self.all[at].latest.min(revision);
                }
            }
            _ => {}
        }
    }

    fn learn(&mut self, key: Key, value: Value, revision: u64, operation: &Operation<'a>) {
        if let Some(at) = self.writer(key, value) {
            self.all[at].learn(revision, operation.finish(), || operation.place());
        }
    }
}
