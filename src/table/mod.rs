//! State compiled for matching, and the handle through which requests see it.
//!
//! A [`Snapshot`] is one revision as it is served: the rules, indexed so that the one that answers a request is found without looking
//! at the others, and the services that they name. It is immutable and built of persistent (structurally shared) maps: the next one is
//! made from it by what changed ([`Snapshot::updated`]) and costs the same at a thousand routes and at a million. Nothing here does IO;
//! only [`Live`], which publishes snapshots, reads a clock, to say when.
//!
//! How a request finds its rule:
//!
//! 1. *Host level*: the exact host, then wildcards by longest suffix, then routes without hostnames. A level that holds nothing that
//!    matches falls through to the next.
//! 2. *Path kind*, within a level: Exact, then PathTemplate, then RegularExpression, then PathPrefix. Exact paths and prefixes stand in
//!    tries keyed by a 64-bit hash of (host pattern, path); both are compared on a hit, so a collision costs time, never a wrong answer.
//!    Prefixes are probed from the longest whole-element prefix of the path down, hashed incrementally, and only at depths (numbers of
//!    elements) that the host has. Templates stand in *shards* by their literal prefix, found the same way; in a shard one alone is
//!    compared, and several form a trie of elements that is walked depth first, literal before parameter before rest, which is their
//!    order. Regular expressions stand by the whole elements that they begin with, and those found at all depths are asked together,
//!    the longer before the shorter.
//! 3. *Candidates* of one pattern stand in order of precedence (`Candidate`): method match, most headers, most query parameters,
//!    oldest route, name, rule, match. The first whose listener, method, headers and query hold answers.
//!
//! A `GRPCRoute` stands in the same index, by the paths of its services and methods, and answers gRPC requests alone. Where it and a
//! `Route` are in each other's way, [`contest`] says which of them serves on which listener; one that serves on none is not in the index.
//!
//! Certificates stand in maps of their own, by the server names that clients ask for ([`certificates`]); their keys are opened here with the
//! node's [`Keyring`](crate::secrets::Keyring), once a change.
//!
//! [`Snapshot::find`] and [`Snapshot::explain`] walk the same enumerator: what one does, the other tells.
//!
//! At a million routes the cost of a look-up is that of its cache misses, one after the other. So what it reads lies together: a leaf of a
//! [`trie`] with its candidates in place, the rule with its match in place, and the path's text. Host patterns are compared by number.
//!
//! Absent on purpose: a hash map that is mutable (a change would have to copy it).

mod bucket;
mod certificate;
mod certificates;
mod check;
mod closest;
mod compile;
mod conditions;
mod contest;
mod depths;
mod explain;
mod forecast;
mod hosts;
mod index;
mod key;
mod live;
mod request;
mod routes;
mod rule;
mod shard;
mod snapshot;
mod trie;
mod users;
mod walk;

#[cfg(test)]
mod tests;

pub use certificate::{Certificate, CertificateError, Chain};
pub use explain::{CANDIDATES_MAX, CLOSEST_MAX, CandidateReport, Condition, Explanation, PassedOver};
pub use forecast::{Others, RouteOutline};
pub use live::{Live, PUBLICATIONS_MAX, Publication};
pub use request::{Captures, Matched, RequestView, is_grpc};
pub use rule::{CompiledRule, Service, ServiceId};
pub use snapshot::{Counts, Snapshot};
pub use users::Users;
