//! Interim answers of a backend (RFC 9110 15.2): counted, and bounded.

use http::StatusCode;

/// Interim answers before one answer at most.
const COUNT_MAX: u32 = 100;

/// The interim answers that came before an answer, for whoever counts them: an extension of the answer, where there were any but 100, or a
/// part of the error. They are not passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interim {
    /// 102 (RFC 2518 10.1).
    pub processing: u32,
    /// 103 (RFC 8297).
    pub early_hints: u32,
    /// Any other but 100.
    pub other: u32,
    /// All of them.
    all: u32,
}

impl Interim {
    /// Counts one. Error: what is wrong, where there were too many.
    pub(super) fn count(&mut self, status: StatusCode) -> Result<(), &'static str> {
        match status.as_u16() {
            100 => {}
            102 => self.processing += 1,
            103 => self.early_hints += 1,
            _ => self.other += 1,
        }
        self.all += 1;
        if self.all > COUNT_MAX { Err("over 100 interim answers came before one") } else { Ok(()) }
    }

    /// What was counted since the last answer, where there was any but 100.
    pub(super) fn take(&mut self) -> Option<Interim> {
        let found = std::mem::take(self);
        let is_told = found.processing + found.early_hints + found.other > 0;
        is_told.then_some(found)
    }
}
