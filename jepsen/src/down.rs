//! The time for which one node was restarted, as the detail of a rolling fault tells it: the nemesis writes it, checkers read it.

use std::fmt;

/// From SIGTERM until the node said that it was ready, in milliseconds since the test began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Down {
    pub(crate) node: u32,
    pub(crate) begin: u64,
    pub(crate) end: u64,
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Down { node, begin, end } = self;
        write!(f, "node {node}: down from {begin} to {end} ms")
    }
}

impl Down {
    /// All that a detail tells of, between semicolons, whatever else it says.
    pub(crate) fn all_in(detail: &str) -> Vec<Down> {
        detail.split(';').filter_map(Down::read).collect()
    }

    fn read(text: &str) -> Option<Down> {
        let (node, rest) = text.trim_start().strip_prefix("node ")?.split_once(": down from ")?;
        let (begin, rest) = rest.split_once(" to ")?;
        let (end, _) = rest.split_once(" ms")?;
        Some(Down { node: node.parse().ok()?, begin: begin.parse().ok()?, end: end.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let downs = [Down { node: 1, begin: 10, end: 250 }, Down { node: 3, begin: 300, end: 4_000 }];
        let detail = format!("{}, stopped after 40 ms; {}; another word", downs[0], downs[1]);
        assert_eq!(Down::all_in(&detail), downs);
        for other in ["", "node 1: ready", "node x: down from 1 to 2 ms", "node 1: down from 1 to", "SIGTERM; one by one"] {
            assert_eq!(Down::all_in(other), [], "{other}");
        }
    }
}
