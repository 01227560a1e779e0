//! raftgate: an HTTP gateway whose nodes agree among themselves, through Raft, on one versioned route table.
//!
//! Each node is a proxy and a Raft member; there is no outside store. A change is sent to any node, takes effect on all as a whole, and
//! traffic goes on through crashes and partitions.
//!
//! # Two flows that meet at one value
//!
//! ```text
//! CONTROL  admin call -> validate -> propose -> log + sync -> quorum -> apply -> State --+
//!          admin                     raft       store         raft      model           | watch<State>
//!                                                                                       v
//!                                              publisher: what changed? -> table -> one atomic store (Live)
//!                                                                                       |
//! DATA     socket -> listener -> load the table once <-- Snapshot {revision, table, services}
//!                                   |
//!                                   +-> match -> filters -> balance -> forward -> answer -> access log, traces
//! ```
//!
//! [`model::State`] is a fold over [`model::Command`]s: pure, ordered, with persistent maps, so that a copy costs O(1). Every
//! transaction that changes something makes one [`model::Revision`], without gaps. The publisher turns a State into a
//! [`table::Snapshot`] by what changed; a request loads one snapshot and uses nothing newer. The proxy has no arrow to Raft: without a
//! quorum it goes on with the last table.
//!
//! A configuration of any size takes the same way: `PUT /v1/config` reads it as it comes, and what is more than one transaction waits in
//! State ([`model::Chunk`]) until one command makes all of it live ([`model::Activation`]), in one revision.
//!
//! # Floors: who may import whom
//!
//! Imports point down, and never between modules of one floor (`model` is the vocabulary that all may use). A test holds this.
//!
//! | floor | modules |
//! |---|---|
//! | 5 | `main`: arguments to `serve`, `demo`, `recover`, `secrets` or a client command |
//! | 4 | [`server`] wires a node; [`ctl`] speaks only the admin API |
//! | 3 | [`admin`]: REST; [`proxy`]: the life of a request, publisher, listeners |
//! | 2 | [`raft`]: propose, linearizable read, peers; [`upstream`]: endpoints, balancing, pools |
//! | 1 | [`store`]: what survives a crash; [`table`]: State compiled for matching |
//! | 0 | [`model`]: resources, commands, State; `documents`: resources out of JSON and YAML; [`secrets`]: sealing under a node's key; [`config`], [`observe`], [`pb`]; [`tls`]: who the nodes are |
//!
//! # Where to look
//!
//! - One admin write, from top to bottom: [`admin`] (its module page names the steps), [`raft::Node::propose`], [`store`],
//!   [`model::State::apply`], [`proxy::Publisher`].
//! - One request: [`proxy`] (its module page names the phases), [`table::Snapshot::find`], [`upstream`].
//! - How a node starts and stops: [`server`]. What is configured: [`config`].
//! - What stands on the disk: [`store`]. Which metrics there are: [`observe::Metrics`].
//! - How it is tested: beside each module; `tests/processes` with real processes; `tests/simulation` with a simulated network, clock and
//!   disk, for which [`raft::Transport`], [`store::LogFile`] and [`store::Blocking`] are the seams; `jepsen/` with faults.

pub mod admin;
pub mod config;
pub mod ctl;
mod documents;
#[cfg(test)]
mod floors;
pub mod model;
pub mod observe;
pub mod pb;
pub mod proxy;
pub mod raft;
pub mod secrets;
pub mod server;
pub mod store;
pub mod table;
pub mod tls;
pub mod upstream;
