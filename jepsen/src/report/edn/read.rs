//! From EDN back to events and tests. All of it comes from a file that anybody may have edited: what is wrong is an error.

use crate::edn::Edn;
use crate::history::{Answered, Event, Key, Kind, Op, Polled, Process, Read, ReadAll, Seal, Stall, Value, Written};
use crate::test::{Outcome, Test, Verdict, Workload};

use super::write::workload_name;

/// Why a map is not an event or not a test.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error(":{0} is missing")]
    Missing(&'static str),
    #[error(":{0}: {1}")]
    Wrong(&'static str, &'static str),
}

/// Reads one line of `history.edn`.
pub(crate) fn event(line: &Edn) -> Result<Event, Error> {
    let index = number(line, "index")?;
    let time = number(line, "time")?;
    let (process, kind) = match required(line, "process")? {
        Edn::Keyword(name) if name == "nemesis" => (Process::Nemesis, "phase"),
        Edn::Int(number) => (Process::Client(to_number("process", *number)?), "type"),
        _ => return Err(Error::Wrong("process", "neither a number nor :nemesis")),
    };
    let kind = match keyword(line, kind)? {
        "invoke" => Kind::Invoke,
        "ok" => Kind::Ok,
        "fail" => Kind::Fail,
        "info" => Kind::Info,
        _ => return Err(Error::Wrong(kind, "not known")),
    };
    Ok(Event { index, time, process, kind, node: optional(line, "node")?, op: op(line)?, error: text(line, "error")? })
}

fn op(line: &Edn) -> Result<Op, Error> {
    match keyword(line, "f")? {
        "read" => {
            let (key, value) = key_and_value(line)?;
            read(line, vec![(key, value)])
        }
        "write" => {
            let (key, value) = key_and_value(line)?;
            write(line, vec![(key, value.ok_or(Error::Wrong("value", "a write of nothing"))?)])
        }
        "txn" => transaction(line),
        "read-all" => {
            let Some(items) = line.get("value") else { return Ok(Op::ReadAll { seen: None }) };
            let items = vector("value", items)?.iter().map(|item| match vector("value", item)? {
                [key, revision, value] => Ok((to_int("value", key)?, to_int("value", revision)?, to_int("value", value)?)),
                _ => Err(Error::Wrong("value", "an item is not of key, revision and value")),
            });
            Ok(Op::ReadAll {
                seen: Some(ReadAll { revision: number(line, "revision")?, items: items.collect::<Result<_, _>>()? }),
            })
        }
        "poll" => {
            let seen = line.get("value").map(|seen| {
                let digest = text(seen, "digest")?.ok_or(Error::Missing("digest"))?;
                Ok(Polled { revision: number(seen, "revision")?, digest, life: number(seen, "life")? })
            });
            Ok(Op::Poll { seen: seen.transpose()? })
        }
        "request" => {
            let (key, value) = key_and_value(line)?;
            let Some(status) = optional(line, "status")? else { return Ok(Op::Request { key, answer: None }) };
            let (revision, backend) = (optional(line, "revision")?, text(line, "backend")?);
            let (proxy_status, life) = (text(line, "proxy-status")?, number(line, "life")?);
            Ok(Op::Request { key, answer: Some(Answered { status, revision, value, backend, proxy_status, life }) })
        }
        "membership" => {
            let change = text(line, "value")?.ok_or(Error::Missing("value"))?;
            Ok(Op::Membership { change, leaves: optional(line, "leaves")? })
        }
        f @ ("fault" | "heal") => {
            let fault = required(line, "value")?;
            let nodes =
                vector("nodes", required(fault, "nodes")?)?.iter().map(|node| to_int("nodes", node)).collect::<Result<_, _>>()?;
            let name = text(fault, "name")?.ok_or(Error::Missing("name"))?;
            Ok(Op::Fault { name, nodes, heals: f == "heal", detail: text(fault, "detail")?.ok_or(Error::Missing("detail"))? })
        }
        "end" => end(line),
        _ => Err(Error::Wrong("f", "not known")),
    }
}

fn transaction(line: &Edn) -> Result<Op, Error> {
    let mut reads = Vec::new();
    let mut writes = Vec::new();
    for step in vector("value", required(line, "value")?)? {
        match vector("value", step)? {
            [Edn::Keyword(what), key, value] if what == "r" => {
                let value = if *value == Edn::Nil { None } else { Some(to_int("value", value)?) };
                reads.push((to_int("value", key)?, value));
            }
            [Edn::Keyword(what), key, value] if what == "w" => writes.push((to_int("value", key)?, to_int("value", value)?)),
            _ => return Err(Error::Wrong("value", "a step is neither [:r key value] nor [:w key value]")),
        }
    }
    match (reads.is_empty(), writes.is_empty()) {
        (false, true) => read(line, reads),
        (true, false) => write(line, writes),
        (true, true) => Err(Error::Wrong("value", "a transaction of nothing")),
        (false, false) => Err(Error::Wrong("value", "reads and writes in one transaction")),
    }
}

fn read(line: &Edn, items: Vec<(Key, Option<Value>)>) -> Result<Op, Error> {
    let keys = items.iter().map(|(key, _)| *key).collect();
    let Some(revision) = optional(line, "revision")? else { return Ok(Op::Read { keys, seen: None }) };
    let revisions = vector("revisions", required(line, "revisions")?)?;
    if revisions.len() != items.len() {
        return Err(Error::Wrong("revisions", "not one a key"));
    }
    let items = items.iter().zip(revisions).map(|((_, value), revision)| match (value, revision) {
        (None, Edn::Nil) => Ok(None),
        (Some(value), revision) => Ok(Some((to_int("revisions", revision)?, *value))),
        (None, _) => Err(Error::Wrong("revisions", "a revision without a value")),
    });
    let items = items.collect::<Result<_, _>>()?;
    Ok(Op::Read { keys, seen: Some(Read { revision, items }) })
}

fn write(line: &Edn, writes: Vec<(Key, Value)>) -> Result<Op, Error> {
    let preconditions = match line.get("preconditions") {
        None => &[],
        Some(preconditions) => vector("preconditions", preconditions)?,
    };
    let preconditions = preconditions.iter().map(|precondition| match vector("preconditions", precondition)? {
        [key, revision] => Ok((to_int("preconditions", key)?, to_int("preconditions", revision)?)),
        _ => Err(Error::Wrong("preconditions", "not pairs of key and revision")),
    });
    let preconditions = preconditions.collect::<Result<_, _>>()?;
    let made = match optional(line, "revision")? {
        None => None,
        Some(revision) => match required(line, "changed")? {
            Edn::Bool(changed) => Some(Written { revision, changed: *changed }),
            _ => return Err(Error::Wrong("changed", "neither true nor false")),
        },
    };
    Ok(Op::Write { writes, preconditions, idempotency_key: text(line, "idempotency-key")?, made })
}

/// Reads `test.edn`.
pub(crate) fn test(map: &Edn) -> Result<Test, Error> {
    let nemeses = vector("nemeses", required(map, "nemeses")?)?.iter().map(|name| match name {
        Edn::Text(name) => Ok(name.clone()),
        _ => Err(Error::Wrong("nemeses", "not texts")),
    });
    let workloads =
        [Workload::Register, Workload::Txn, Workload::Set, Workload::Watch, Workload::Traffic, Workload::Membership].into_iter();
    let asked = keyword(map, "workload")?;
    Ok(Test {
        workload: workloads
            .into_iter()
            .find(|workload| workload_name(*workload) == asked)
            .ok_or(Error::Wrong("workload", "not known"))?,
        nemeses: nemeses.collect::<Result<_, _>>()?,
        nodes: number(map, "nodes")?,
        seconds: number(map, "seconds")?,
        seed: number(map, "seed")?,
        isolation: text(map, "isolation")?.ok_or(Error::Missing("isolation"))?,
        command: text(map, "command")?.ok_or(Error::Missing("command"))?,
    })
}

fn end(line: &Edn) -> Result<Op, Error> {
    let value = required(line, "value")?;
    let Edn::Map(verdicts) = required(value, "verdicts")? else { return Err(Error::Wrong("verdicts", "not a map")) };
    let verdicts = verdicts.iter().map(|(name, map)| {
        let Edn::Keyword(name) = name else { return Err(Error::Wrong("verdicts", "a name is not a keyword")) };
        let outcome = match required(map, "valid?")? {
            Edn::Bool(true) => Outcome::Pass,
            Edn::Bool(false) => Outcome::Fail,
            Edn::Keyword(word) if word == "unknown" => Outcome::Unknown,
            Edn::Keyword(word) if word == "not-tested" => Outcome::NotTested,
            _ => return Err(Error::Wrong("valid?", "not true, false, :unknown or :not-tested")),
        };
        Ok(Verdict { name: name.clone(), outcome, detail: text(map, "detail")?.unwrap_or_default() })
    });
    let stalls = vector("stalls", required(value, "stalls")?)?.iter().map(|stall| match vector("stalls", stall)? {
        [begin, length] => Ok(Stall { begin: to_int("stalls", begin)?, length: to_int("stalls", length)? }),
        _ => Err(Error::Wrong("stalls", "not pairs of begin and length")),
    });
    let seal = match (optional(value, "events")?, optional(value, "crc32c")?) {
        (Some(events), Some(crc32c)) => Some(Seal { events, crc32c }),
        (None, None) => None,
        (Some(_), None) => return Err(Error::Missing("crc32c")),
        (None, Some(_)) => return Err(Error::Missing("events")),
    };
    Ok(Op::End { verdicts: verdicts.collect::<Result<_, _>>()?, stalls: stalls.collect::<Result<_, _>>()?, seal })
}

fn required<'a>(map: &'a Edn, name: &'static str) -> Result<&'a Edn, Error> {
    map.get(name).ok_or(Error::Missing(name))
}

fn keyword<'a>(map: &'a Edn, name: &'static str) -> Result<&'a str, Error> {
    match required(map, name)? {
        Edn::Keyword(word) => Ok(word),
        _ => Err(Error::Wrong(name, "not a keyword")),
    }
}

fn text(map: &Edn, name: &'static str) -> Result<Option<String>, Error> {
    match map.get(name) {
        None => Ok(None),
        Some(Edn::Text(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Error::Wrong(name, "not a text")),
    }
}

fn number<T: TryFrom<i128>>(map: &Edn, name: &'static str) -> Result<T, Error> {
    to_int(name, required(map, name)?)
}

fn optional<T: TryFrom<i128>>(map: &Edn, name: &'static str) -> Result<Option<T>, Error> {
    map.get(name).map(|value| to_int(name, value)).transpose()
}

fn to_int<T: TryFrom<i128>>(name: &'static str, value: &Edn) -> Result<T, Error> {
    match value {
        Edn::Int(number) => to_number(name, *number),
        _ => Err(Error::Wrong(name, "not a number")),
    }
}

fn to_number<T: TryFrom<i128>>(name: &'static str, number: i128) -> Result<T, Error> {
    T::try_from(number).map_err(|_| Error::Wrong(name, "not a number of its range"))
}

fn vector<'a>(name: &'static str, value: &'a Edn) -> Result<&'a [Edn], Error> {
    match value {
        Edn::Vector(items) => Ok(items),
        _ => Err(Error::Wrong(name, "not a vector")),
    }
}

fn key_and_value(line: &Edn) -> Result<(Key, Option<Value>), Error> {
    match vector("value", required(line, "value")?)? {
        [key, Edn::Nil] => Ok((to_int("value", key)?, None)),
        [key, value] => Ok((to_int("value", key)?, Some(to_int("value", value)?))),
        _ => Err(Error::Wrong("value", "not a pair of key and value")),
    }
}
