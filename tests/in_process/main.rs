//! What needs the library's insides: three nodes in one process, and the shape of the source tree.

#![expect(clippy::unwrap_used, reason = "in a test an unexpected answer is a failure")]

mod agreement;
mod framing;
mod fuzz;
