//! Fault injection for raftgate, as a black box: it runs real nodes, speaks to their admin API and their proxies, breaks things, and
//! judges the history of what the clients saw. It shares no code with the gateway.
//!
//! [`runner`] runs one test: a [`cluster`] of processes, the clients of a [`workload`], and the faults of a [`nemesis`], all recorded by
//! one [`record::Recorder`] and kept on disk by a [`journal::Journal`]. [`check`] judges the history, [`report`] writes it down.
//! [`command`] is the command line, [`matrix`] all tests in a row, [`bugs`] the test of the suite itself.

mod backend;
mod bugs;
mod canary;
mod check;
mod client;
mod cluster;
mod command;
mod down;
mod edn;
mod history;
mod http;
mod injectable;
mod journal;
mod matrix;
mod nemesis;
mod phases;
mod record;
mod report;
mod request;
mod routes;
mod runner;
mod terminal;
mod test;
mod verdict;
mod workload;

fn main() -> std::process::ExitCode {
    command::main()
}
