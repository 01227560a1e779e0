//! `recover`: asking before it happens. It is the one command that works on a data directory; `server` does the work, and no node is asked.

use std::io::{BufRead as _, stdin};

use super::print::{WARN, note, out, styled};

/// Shows `report` and asks whether to go on; `yes` answers for the person.
///
/// # Errors
///
/// The standard input cannot be read.
pub fn confirm(report: &str, yes: bool) -> anyhow::Result<bool> {
    out(report);
    if yes {
        return Ok(true);
    }
    note(styled(WARN, "Type \"yes\" to go on:"));
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// Says what became of it.
pub fn say(text: &str) {
    out(text);
}
