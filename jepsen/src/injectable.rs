//! What can be injected here, decided before a test begins: one whose fault cannot be would run to its end and say nothing.

use crate::cluster::Settings;
use crate::nemesis::{self, Fault};
use crate::report;
use crate::request::Request;
use crate::test::{Outcome, Verdict, Workload};

/// The faults asked for by name that cannot be injected here, and what would make them so.
pub(crate) fn refused(request: &Request, settings: &Settings, workload: Workload) -> Vec<(Fault, String)> {
    let named = request.nemesis.iter().filter_map(|name| Fault::by_name(name));
    named.filter_map(|fault| nemesis::refusal(fault, settings, workload).map(|reason| (fault, reason))).collect()
}

/// The verdict of a test that was not run: no pass, and no fault of the gateway's either.
pub(crate) fn not_run(refused: &[(Fault, String)]) -> Verdict {
    let reasons = refused.iter().map(|(fault, reason)| format!("{}: {reason}", fault.name())).collect::<Vec<_>>();
    let detail = format!("not run, for it is not injectable: {}", reasons.join("; "));
    Verdict { name: report::INJECTABLE.to_owned(), outcome: Outcome::NotTested, detail }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::check;
    use crate::cluster::isolation::Isolation;
    use crate::test::Results;

    #[test]
    fn what_cannot_be_injected_is_known_before_the_test_and_no_pass() {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("raftgate");
        std::fs::write(&binary, [vec![0; 100_000], b"this program was built with crash points, for".to_vec()].concat()).unwrap();
        let settings = |isolation| Settings {
            binary: "/bin/true".into(),
            other_binary: None,
            isolation,
            nodes: 3,
            spares: 0,
            scratch: PathBuf::new(),
            logs: PathBuf::new(),
            environment: Vec::new(),
            faketime: None,
        };
        let refused = |names: &str, settings: &Settings, workload| {
            let nemesis = names.split(',').map(str::to_owned).collect();
            let request = Request { workload: "register".to_owned(), nemesis, nodes: 3, time: 9, seed: 1 };
            super::refused(&request, settings, workload)
        };
        let (namespaces, loopback) = (settings(Isolation::Namespaces), settings(Isolation::Loopback));
        for (names, settings, words) in [
            ("kill-leader,delay", &namespaces, "--isolation loopback"),
            ("power-cut-all", &loopback, "run as root"),
            ("wrong-peer", &loopback, "run as root"),
            ("crash-point", &loopback, "--features crash-points"),
            ("clock-jump", &namespaces, "faketime"),
            ("rolling-upgrade", &namespaces, "--other-binary"),
        ] {
            let refused = refused(names, settings, Workload::Register);
            let verdict = not_run(&refused);
            assert!(refused.len() == 1 && verdict.detail.contains(words), "{names}: {}", verdict.detail);
            let results = Results { verdicts: vec![verdict], numbers: Vec::new() };
            assert_ne!(check::overall(&results), Outcome::Pass);
        }
        assert_eq!(refused("swap-storm", &namespaces, Workload::Set).len(), 1);
        for (names, settings) in [
            ("kill-leader,loss,mix", &loopback),
            ("delay", &loopback),
            ("none", &namespaces),
            ("crash-point", &Settings { binary, ..loopback.clone() }),
        ] {
            assert_eq!(refused(names, settings, Workload::Register), [], "{names}");
        }
    }
}
