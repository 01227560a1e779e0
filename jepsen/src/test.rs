//! What a test was, and what came of it.

/// A test, as it was asked for. Enough to run it again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Test {
    pub(crate) workload: Workload,
    /// Names of the faults, empty for none.
    pub(crate) nemeses: Vec<String>,
    pub(crate) nodes: u32,
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
    /// How the nodes were kept apart, in words: namespaces or loopback.
    pub(crate) isolation: String,
    /// The command that runs it again.
    pub(crate) command: String,
}

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    Register,
    Txn,
    Set,
    Watch,
    Traffic,
    Membership,
}

/// What the checkers say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Results {
    /// One a checked invariant, and those of the run itself (coverage, enough operations).
    pub(crate) verdicts: Vec<Verdict>,
    /// Numbers by name: operations, acknowledged, lost, faults, recovery time, failed requests ...
    pub(crate) numbers: Vec<(String, f64)>,
}

/// One checker's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// `I1` ... `I10` of the design, or `coverage`, `operations`.
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    /// What was seen; for a failure the first events that show it.
    pub(crate) detail: String,
}

/// A run passes where all are `Pass` or `NotTested`, and at least one is `Pass`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Pass,
    Fail,
    /// Could not be decided in time: not a pass.
    Unknown,
    /// This workload says nothing about it.
    NotTested,
}
