//! Places at which a test ends the process as a crash would, for the fault-injection suite alone.
//!
//! In a program built with the feature `crash-points`, the variable `FAILPOINTS` arms them as the crate `fail` reads it:
//! `FAILPOINTS='append-synced=7*off->return'` ends the process at the eighth passing. Every other program has none of this.

/// All of them.
pub const CRASH_POINTS: [&str; 23] = [
    "vote-begun",
    "vote-once",
    "vote-synced",
    "append-queued",
    "append-applied",
    "append-synced",
    "append-marked",
    "committed-queued",
    "apply-begun",
    "apply-published",
    "table-built",
    "table-published",
    "snapshot-written",
    "snapshot-renamed",
    "install-begun",
    "install-kept",
    "purge-noted",
    "purge-half",
    "truncate-marked",
    "truncate-half",
    "forward-begun",
    "forward-answered",
    "members-joint",
];

/// Reads `FAILPOINTS`, for the whole life of the process.
#[cfg(feature = "crash-points")]
pub fn arm_crash_points() {
    tracing::warn!("this program was built with crash points, for tests alone");
    std::mem::forget(fail::FailScenario::setup());
}

/// There are none.
#[cfg(not(feature = "crash-points"))]
pub const fn arm_crash_points() {}

/// Ends the process where this point is armed.
#[cfg(feature = "crash-points")]
pub fn crash_point(name: &'static str) {
    fail::fail_point!(name, |_| end(name));
}

#[cfg(feature = "crash-points")]
fn end(name: &str) {
    tracing::error!("crash point {name}");
    std::process::abort();
}

/// Nothing in this program.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub const fn crash_point(_name: &'static str) {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::CRASH_POINTS;

    fn collect(directory: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("crash_points.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let calls = text.split("crash_point(\"").skip(1);
                found.extend(calls.filter_map(|rest| rest.split_once('"').map(|(name, _)| name.to_owned())));
            }
        }
    }

    #[test]
    fn every_point_is_passed_somewhere_and_once() {
        let mut found = Vec::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let names: BTreeSet<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(names, BTreeSet::from(CRASH_POINTS));
        assert_eq!(found.len(), names.len(), "{found:?}");
    }
}
