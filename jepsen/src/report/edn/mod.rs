//! The history in Jepsen's form: one map a line, without loss.
//!
//! What the tools of others look at has the shape that they expect; all else stands under keys of its own, which they pass over.
//!
//! | operation | `:f` | `:value` | reader |
//! |---|---|---|---|
//! | read of one route | `:read` | `[key value]`, an independent tuple; `[key nil]` where it does not exist, and when asked | Knossos `register` |
//! | write of one route | `:write` | `[key value]` | Knossos `register` |
//! | read of several | `:txn` | `[[:r key value] ...]` | Elle `rw-register` |
//! | write of several | `:txn` | `[[:w key value] ...]` | Elle `rw-register` |
//! | read of all | `:read-all` | `[[key revision value] ...]` | |
//! | poll | `:poll` | `{:revision :digest :life}` | |
//! | proxied request | `:request` | `[key value]` | |
//! | membership | `:membership` | what, in words | |
//! | fault begins, heals | `:fault`, `:heal` | `{:name :nodes :detail}` | |
//! | the end, the last line | `:end` | `{:verdicts :stalls}` of the run itself, `{:events :crc32c}` of the lines before it | |
//!
//! `:events` is the number of lines before the end, and `:crc32c` the CRC-32C of them all, each with its line feed, as they were written:
//! a history that lacks some, or has others, is told from the whole one however its lines are numbered.
//!
//! A precondition is a revision, which no register of Knossos knows: to it a conditional write is a write. The nemesis is `:info` to
//! Jepsen's tools whatever it does; where in its life the operation is stands in `:phase`.

mod read;
mod write;

pub(crate) use read::{event, test};
pub(crate) use write::{of_event, of_results, of_test, workload_name};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::edn;
    use crate::history::{Answered, Event, Kind, Op, Polled, Process, Read, ReadAll, Seal, Stall, Written};
    use crate::test::{Outcome, Verdict};

    fn item() -> impl Strategy<Value = Option<(u64, u64)>> {
        proptest::option::of((any::<u64>(), any::<u64>()))
    }

    fn read() -> impl Strategy<Value = Op> {
        let asked = (proptest::collection::vec((any::<u32>(), item()), 1..4), proptest::option::of(any::<u64>()));
        asked.prop_map(|(pairs, revision)| {
            let (keys, items): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            Op::Read { keys, seen: revision.map(|revision| Read { revision, items }) }
        })
    }

    fn op() -> impl Strategy<Value = Op> {
        let write = (
            proptest::collection::vec(any::<(u32, u64)>(), 1..4),
            proptest::collection::vec(any::<(u32, u64)>(), 0..3),
            proptest::option::of(".*"),
            proptest::option::of(any::<(u64, bool)>()),
        )
            .prop_map(|(writes, preconditions, idempotency_key, made)| Op::Write {
                writes,
                preconditions,
                idempotency_key,
                made: made.map(|(revision, changed)| Written { revision, changed }),
            });
        let all = proptest::option::of((any::<u64>(), proptest::collection::vec(any::<(u32, u64, u64)>(), 0..4)))
            .prop_map(|seen| Op::ReadAll { seen: seen.map(|(revision, items)| ReadAll { revision, items }) });
        let poll = proptest::option::of((any::<u64>(), ".*", any::<u32>()))
            .prop_map(|seen| Op::Poll { seen: seen.map(|(revision, digest, life)| Polled { revision, digest, life }) });
        let texts = (proptest::option::of(".*"), proptest::option::of(".*"));
        let answer = (any::<u16>(), any::<Option<u64>>(), any::<Option<u64>>(), texts, any::<u32>()).prop_map(
            |(status, revision, value, (backend, proxy_status), life)| Answered {
                status,
                revision,
                value,
                backend,
                proxy_status,
                life,
            },
        );
        let request = (any::<u32>(), proptest::option::of(answer)).prop_map(|(key, answer)| Op::Request { key, answer });
        let membership = (".*", any::<Option<u32>>()).prop_map(|(change, leaves)| Op::Membership { change, leaves });
        let fault = (".*", any::<Vec<u32>>(), any::<bool>(), ".*").prop_map(|(name, nodes, heals, detail)| Op::Fault {
            name,
            nodes,
            heals,
            detail,
        });
        let verdicts = proptest::collection::vec(("[a-z]{1,9}", 0..4usize, ".*"), 0..4).prop_map(|verdicts| {
            let outcomes = [Outcome::Pass, Outcome::Fail, Outcome::Unknown, Outcome::NotTested];
            let of = |(name, outcome, detail): (String, usize, String)| Verdict { name, outcome: outcomes[outcome], detail };
            verdicts.into_iter().map(of).collect()
        });
        let stalls = any::<Vec<(u64, u64)>>()
            .prop_map(|stalls| stalls.into_iter().map(|(begin, length)| Stall { begin, length }).collect());
        let seal = any::<Option<(u64, u32)>>().prop_map(|seal| seal.map(|(events, crc32c)| Seal { events, crc32c }));
        let end = (verdicts, stalls, seal).prop_map(|(verdicts, stalls, seal)| Op::End { verdicts, stalls, seal });
        prop_oneof![read(), write, all, poll, request, membership, fault, end]
    }

    prop_compose! {
        fn any_event()(
            index in any::<u64>(), time in any::<u64>(), client in any::<Option<u32>>(), kind in 0..4usize, node in any::<Option<u32>>(),
            op in op(), error in proptest::option::of(".*"),
        ) -> Event {
            let process = client.map_or(Process::Nemesis, Process::Client);
            let kind = [Kind::Invoke, Kind::Ok, Kind::Fail, Kind::Info][kind];
            Event { index, time, process, kind, node, op, error }
        }
    }

    proptest! {
        #[test]
        fn an_event_comes_back_as_it_went(written in any_event()) {
            let line = of_event(&written).to_string();
            prop_assert!(!line.contains(['\n', '\r']));
            prop_assert_eq!(event(&edn::parse(&line)?)?, written);
        }
    }

    #[test]
    fn a_register_is_what_knossos_reads() {
        let mut line = Event {
            index: 3,
            time: 70,
            process: Process::Client(4),
            kind: Kind::Ok,
            node: Some(2),
            op: Op::Read { keys: vec![1], seen: Some(Read { revision: 9, items: vec![Some((7, 12))] }) },
            error: None,
        };
        assert_eq!(
            of_event(&line).to_string(),
            "{:index 3, :time 70, :process 4, :type :ok, :f :read, :value [1 12], :node 2, :revision 9, :revisions [7]}"
        );
        line.op = Op::Write { writes: vec![(1, 5), (2, 6)], preconditions: vec![(1, 7)], idempotency_key: None, made: None };
        line.kind = Kind::Invoke;
        assert_eq!(
            of_event(&line).to_string(),
            "{:index 3, :time 70, :process 4, :type :invoke, :f :txn, :value [[:w 1 5] [:w 2 6]], :node 2, :preconditions [[1 7]]}"
        );
        line.process = Process::Nemesis;
        line.node = None;
        line.kind = Kind::Ok;
        line.op = Op::Fault { name: "kill-leader".to_owned(), nodes: vec![3], heals: false, detail: String::new() };
        assert_eq!(
            of_event(&line).to_string(),
            "{:index 3, :time 70, :process :nemesis, :type :info, :phase :ok, :f :fault, :value {:name \"kill-leader\", :nodes [3], :detail \"\"}}"
        );
    }

    #[test]
    fn what_is_not_an_event_is_refused_with_its_reason() {
        for (line, problem) in [
            ("{:index 1}", ":time is missing"),
            ("[1 2]", ":index is missing"),
            ("{:index -1, :time 0, :process 0, :type :ok, :f :poll, :value nil}", ":index: not a number of its range"),
            ("{:index 1, :time 0, :process :me, :type :ok, :f :poll, :value nil}", ":process: neither a number nor :nemesis"),
            ("{:index 1, :time 0, :process 0, :type :done, :f :poll, :value nil}", ":type: not known"),
            ("{:index 1, :time 0, :process 0, :type :ok, :f :dance, :value nil}", ":f: not known"),
            ("{:index 1, :time 0, :process 0, :type :ok, :f :read, :value 3}", ":value: not a vector"),
            (
                "{:index 1, :time 0, :process :nemesis, :phase :ok, :f :end, :value {:verdicts {}, :stalls [], :events 1}}",
                ":crc32c is missing",
            ),
            (
                "{:index 1, :time 0, :process 0, :type :ok, :f :txn, :value [[:r 1 nil] [:w 1 2]]}",
                ":value: reads and writes in one transaction",
            ),
        ] {
            let refused = event(&edn::parse(line).unwrap()).unwrap_err();
            assert_eq!(refused.to_string(), problem, "{line}");
        }
    }
}
