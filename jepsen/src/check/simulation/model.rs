//! The model: one table with revisions, three nodes that serve it late, and clients whose operations take effect somewhere between their
//! beginning and their end, or after an unknown end, or never.

use std::collections::{BTreeMap, HashMap};

use crate::check::story::{asked, end_of};
use crate::history::{Answered, Event, Key, Kind, Op, Polled, Process, Read, ReadAll, Value, Written, backend_of};

const NODES: u32 = 3;
const CLIENTS: usize = 6;
/// Routes 0 and 1 are written alone, 2 and 3 always together.
const KEYS: u32 = 4;

type Table = BTreeMap<Key, (u64, Value)>;

struct Client {
    process: u32,
    node: u32,
    now: Option<(Op, State)>,
    /// A write that ended without an outcome, to be asked again.
    retry: Option<Op>,
    /// The last revision seen of each route: what a conditional write asks for.
    known: BTreeMap<Key, u64>,
}

enum State {
    Begun,
    Done(Kind, Op),
}

struct Node {
    served: usize,
    life: u32,
    up: bool,
}

struct Model<'a> {
    tape: std::slice::Iter<'a, u32>,
    events: Vec<Event>,
    /// The table at each revision.
    tables: Vec<Table>,
    remembered: HashMap<String, u64>,
    /// Writes that may still take effect.
    ghosts: Vec<Op>,
    clients: Vec<Client>,
    nodes: Vec<Node>,
    processes: u32,
    values: u64,
}

/// Runs the model until the tape ends, and then reads everything once at each node.
pub(super) fn run(tape: &[u32]) -> Vec<Event> {
    let clients = (0..CLIENTS).map(|_| Client { process: 0, node: 1, now: None, retry: None, known: BTreeMap::new() }).collect();
    let nodes = (0..NODES).map(|_| Node { served: 0, life: 1, up: true }).collect();
    let mut model = Model {
        tape: tape.iter(),
        events: Vec::new(),
        tables: vec![Table::new()],
        remembered: HashMap::new(),
        ghosts: Vec::new(),
        clients,
        nodes,
        processes: 0,
        values: 0,
    };
    for at in 0..CLIENTS {
        model.clients[at].process = model.new_process();
    }
    while model.tape.len() > 0 {
        model.step();
    }
    model.finish();
    model.events
}

impl Model<'_> {
    fn choose(&mut self, of: u32) -> u32 {
        self.tape.next().copied().unwrap_or(0) % of
    }

    fn new_process(&mut self) -> u32 {
        self.processes += 1;
        self.processes - 1
    }

    fn step(&mut self) {
        match self.choose(40) {
            0 if !self.ghosts.is_empty() => {
                let late = self.ghosts.remove(0);
                self.write(&late);
            }
            1..=3 => {
                let node = self.choose(NODES) as usize;
                self.nodes[node].served = (self.nodes[node].served + 1).min(self.tables.len() - 1);
            }
            4 if self.events.len() > 100 && self.choose(4) == 0 => self.fault(),
            _ => {
                let at = self.choose(CLIENTS as u32) as usize;
                self.act(at);
            }
        }
    }

    /// Kills a node that is up, and starts one that is down.
    fn fault(&mut self) {
        let node = self.choose(NODES);
        let heals = !self.nodes[node as usize].up;
        let op = Op::Fault { name: "kill".to_owned(), nodes: vec![node + 1], heals, detail: String::new() };
        self.add(Process::Nemesis, Kind::Invoke, None, op.clone());
        let node = &mut self.nodes[node as usize];
        node.up = heals;
        node.life += u32::from(heals);
        self.add(Process::Nemesis, Kind::Ok, None, op);
    }

    fn act(&mut self, at: usize) {
        let (process, node) = (Process::Client(self.clients[at].process), Some(self.clients[at].node));
        match self.clients[at].now.take() {
            None => {
                self.clients[at].node = self.choose(NODES) + 1;
                let op = self.ask(at);
                self.add(process, Kind::Invoke, Some(self.clients[at].node), op.clone());
                self.clients[at].now = Some((op, State::Begun));
            }
            // Nobody hears of it: it has happened, it will, or it never does.
            Some((op, State::Begun)) if matches!(op, Op::Write { .. }) && self.choose(12) == 0 => {
                match self.choose(3) {
                    0 => {
                        self.write(&op);
                    }
                    1 => self.ghosts.push(op.clone()),
                    _ => {}
                }
                self.add(process, Kind::Info, node, op.clone());
                self.clients[at].process = self.new_process();
                self.clients[at].retry = Some(op).filter(|op| matches!(op, Op::Write { idempotency_key: Some(_), .. }));
            }
            Some((op, State::Begun)) => {
                let (kind, done) = self.apply(at, &op);
                self.clients[at].now = Some((op, State::Done(kind, done)));
            }
            Some((_, State::Done(kind, done))) => {
                self.learn(at, &done);
                self.add(process, kind, node, done);
            }
        }
    }

    fn ask(&mut self, at: usize) -> Op {
        if let Some(op) = self.clients[at].retry.take() {
            return op;
        }
        let key = self.choose(2);
        match self.choose(8) {
            0 | 1 => Op::Read { keys: vec![key], seen: None },
            2 => Op::Read { keys: vec![2, 3], seen: None },
            3 => Op::ReadAll { seen: None },
            4 => Op::Poll { seen: None },
            5 => Op::Request { key: self.choose(KEYS), answer: None },
            6 => self.ask_write(at, &[key]),
            _ => self.ask_write(at, &[2, 3]),
        }
    }

    fn ask_write(&mut self, at: usize, keys: &[Key]) -> Op {
        let writes = keys.iter().map(|key| {
            self.values += 1;
            (*key, self.values)
        });
        let writes: Vec<_> = writes.collect();
        let known = &self.clients[at].known;
        let preconditions = keys.iter().map(|key| (*key, known.get(key).copied().unwrap_or(0)));
        let preconditions: Vec<_> = preconditions.collect();
        let conditional = self.choose(2) == 0;
        let idempotency_key = (self.choose(3) > 0).then(|| format!("key {}", self.values));
        Op::Write { writes, preconditions: if conditional { preconditions } else { Vec::new() }, idempotency_key, made: None }
    }

    /// An operation takes effect, now.
    fn apply(&mut self, at: usize, op: &Op) -> (Kind, Op) {
        let revision = self.tables.len() as u64 - 1;
        let table = &self.tables[self.tables.len() - 1];
        let node = &self.nodes[self.clients[at].node as usize - 1];
        match op {
            Op::Write { .. } => self.write(op),
            _ if !node.up => (Kind::Fail, op.clone()),
            Op::Read { keys, .. } => {
                let items = keys.iter().map(|key| table.get(key).copied()).collect();
                (Kind::Ok, Op::Read { keys: keys.clone(), seen: Some(Read { revision, items }) })
            }
            Op::ReadAll { .. } => {
                let items = table.iter().map(|(key, (own, value))| (*key, *own, *value)).collect();
                (Kind::Ok, Op::ReadAll { seen: Some(ReadAll { revision, items }) })
            }
            Op::Poll { .. } => {
                let revision = node.served as u64;
                (Kind::Ok, Op::Poll { seen: Some(Polled { revision, digest: format!("digest {revision}"), life: node.life }) })
            }
            Op::Request { key, .. } => {
                let value = self.tables[node.served].get(key).map(|(_, value)| *value);
                let (status, backend) = (if value.is_some() { 200 } else { 404 }, value.map(backend_of));
                let revision = Some(node.served as u64);
                let answer = Answered { status, revision, value, backend, proxy_status: None, life: node.life };
                (Kind::Ok, Op::Request { key: *key, answer: Some(answer) })
            }
            Op::Membership { .. } | Op::Fault { .. } | Op::End { .. } => unreachable!("no client of the model asks for it"),
        }
    }

    fn write(&mut self, op: &Op) -> (Kind, Op) {
        let Op::Write { writes, preconditions, idempotency_key, .. } = op else { unreachable!("a write") };
        let done = |revision| {
            let mut done = op.clone();
            if let Op::Write { made, .. } = &mut done {
                *made = Some(Written { revision, changed: true });
            }
            (Kind::Ok, done)
        };
        if let Some(revision) = idempotency_key.as_ref().and_then(|key| self.remembered.get(key)) {
            return done(*revision);
        }
        let mut table = self.tables[self.tables.len() - 1].clone();
        if preconditions.iter().any(|(key, asked)| table.get(key).map_or(0, |(own, _)| *own) != *asked) {
            return (Kind::Fail, op.clone());
        }
        let revision = self.tables.len() as u64;
        for (key, value) in writes {
            table.insert(*key, (revision, *value));
        }
        self.tables.push(table);
        if let Some(key) = idempotency_key {
            self.remembered.insert(key.clone(), revision);
        }
        done(revision)
    }

    fn learn(&mut self, at: usize, done: &Op) {
        let known = &mut self.clients[at].known;
        match done {
            Op::Read { keys, seen: Some(seen) } => {
                known.extend(keys.iter().zip(&seen.items).map(|(key, item)| (*key, item.map_or(0, |(own, _)| own))));
            }
            Op::Write { writes, made: Some(made), .. } => known.extend(writes.iter().map(|(key, _)| (*key, made.revision))),
            _ => {}
        }
    }

    /// Ends what is under way, heals all, and has a write and a read of everything at each node.
    fn finish(&mut self) {
        for at in 0..CLIENTS {
            while self.clients[at].now.is_some() {
                self.act(at);
            }
        }
        for node in 0..NODES {
            if !self.nodes[node as usize].up {
                let op = Op::Fault { name: "kill".to_owned(), nodes: vec![node + 1], heals: true, detail: String::new() };
                self.add(Process::Nemesis, Kind::Invoke, None, op.clone());
                self.nodes[node as usize].up = true;
                self.nodes[node as usize].life += 1;
                self.add(Process::Nemesis, Kind::Ok, None, op);
            }
        }
        let write = self.ask_write(0, &[0]);
        let write = match write {
            Op::Write { writes, .. } => Op::Write { writes, preconditions: Vec::new(), idempotency_key: None, made: None },
            other => other,
        };
        for _ in 0..4 {
            for node in 1..=NODES {
                self.whole(node, Op::ReadAll { seen: None });
                self.whole(node, Op::Request { key: 0, answer: None });
            }
        }
        self.whole(1, write);
        for node in 1..=NODES {
            self.whole(node, Op::ReadAll { seen: None });
            self.whole(node, Op::Read { keys: vec![0], seen: None });
        }
        let end = end_of(&self.events, Vec::new(), Vec::new());
        self.add(Process::Nemesis, Kind::Ok, None, end);
    }

    fn whole(&mut self, node: u32, op: Op) {
        self.clients[0].node = node;
        let process = Process::Client(self.clients[0].process);
        self.add(process, Kind::Invoke, Some(node), op.clone());
        let (kind, done) = self.apply(0, &op);
        self.add(process, kind, Some(node), done);
    }

    /// Each event is ten milliseconds after the one before it.
    fn add(&mut self, process: Process, kind: Kind, node: Option<u32>, op: Op) {
        let index = self.events.len() as u64;
        let op = if kind == Kind::Ok { op } else { asked(&op) };
        self.events.push(Event { index, time: index * 10_000_000, process, kind, node, op, error: None });
    }
}
