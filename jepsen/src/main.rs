//! Fault injection for raftgate, as a black box: it runs real nodes, speaks to their admin API and their proxies, breaks things, and
//! judges the history of what the clients saw. It shares no code with the gateway.

#![allow(dead_code)]

mod check;
mod edn;
mod history;
mod report;
mod test;

fn main() {}
