//! The terminal: progress goes to standard error, so that it is seen at once and does not mix with results.

/// A line of progress.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        // Nobody may be listening; the test goes on.
        let _ = writeln!(std::io::stderr().lock(), $($words)*);
    }};
}

pub(crate) use say;
