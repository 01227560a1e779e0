//! Real processes: three nodes of the built program on loopback, killed, paused and restarted, judged from outside over HTTP.

#![expect(clippy::unwrap_used, reason = "in a test an unexpected answer is a failure")]
#![expect(clippy::print_stderr, reason = "a crash test says what it measured")]

mod atomicity;
mod certificates;
mod crashes;
mod disk;
mod floods;
#[expect(dead_code, reason = "the tests of the proxy use more of it")]
#[path = "../../src/proxy/tests/frames.rs"]
mod frames;
mod harness;
mod https;
mod listeners;
mod liveness;
mod members;
mod namespaces;
mod recovery;
mod secrets;
mod secured;
mod snapshots;
mod start;
mod uploads;
mod versions;
mod writer;
