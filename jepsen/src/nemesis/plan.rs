//! The plan: which fault begins when and lasts how long, made of the seed alone.

use std::time::Duration;

use fastrand::Rng;

use super::kind::{Fault, MIX, NONE};

/// The least and the most time between the end of a fault and the next in its lane.
const QUIET: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_millis(3500));
/// No fault begins so near to the end that it could hardly be seen.
const TAIL: Duration = Duration::from_secs(3);

/// One fault of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    /// Since the beginning of the test; later where the fault before it in its lane took longer.
    pub(crate) at: Duration,
    pub(crate) length: Duration,
    /// Of the choices that are made when it begins: which node, which file.
    pub(crate) seed: u64,
}

/// Lanes of faults: those of one lane come one after the other, the lanes overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) lanes: Vec<Vec<Planned>>,
}

impl Plan {
    /// The plan for these names. An error names the one that does not exist.
    pub(crate) fn new(nemeses: &[String], seed: u64, length: Duration, usable: impl Fn(Fault) -> bool) -> anyhow::Result<Plan> {
        let mut rng = Rng::with_seed(seed ^ 0x6E65_6D65_7369_7300);
        let mut named = Vec::new();
        let mut lanes = Vec::new();
        for name in nemeses {
            match name.as_str() {
                NONE => {}
                MIX => {
                    let mixable: Vec<Fault> = Fault::MIXABLE.iter().copied().filter(|&fault| usable(fault)).collect();
                    let count = rng.usize(2..=4);
                    lanes.extend((0..count).map(|_| lane(&mut rng, &mixable, length, false)));
                }
                name => match Fault::by_name(name) {
                    Some(fault) => named.push(fault),
                    None => anyhow::bail!("there is no nemesis {name:?}"),
                },
            }
        }
        named.retain(|&fault| usable(fault));
        if !named.is_empty() {
            lanes.push(lane(&mut rng, &named, length, true));
        }
        Ok(Plan { lanes })
    }
}

/// One fault after the other: with `each_first` each of them once, then by chance.
fn lane(rng: &mut Rng, faults: &[Fault], length: Duration, each_first: bool) -> Vec<Planned> {
    let quiet = |rng: &mut Rng| QUIET.0 + (QUIET.1 - QUIET.0).mul_f64(rng.f64());
    let mut lane = Vec::new();
    let mut at = quiet(rng);
    loop {
        let first = faults.get(lane.len()).copied().filter(|_| each_first);
        let Some(fault) = first.or_else(|| rng.choice(faults.iter().copied())) else { return lane };
        let planned = Planned { fault, at, length: fault.length(rng.f64()), seed: rng.u64(..) };
        if at + TAIL > length {
            return lane;
        }
        at += planned.length + quiet(rng);
        lane.push(planned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(names: &[&str], seed: u64) -> Plan {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Plan::new(&names, seed, Duration::from_secs(60), |_| true).unwrap()
    }

    #[test]
    fn a_seed_makes_a_plan_and_another_seed_another() {
        for names in [&["mix"][..], &["kill-leader", "pause-leader"], &["mix", "loss"]] {
            assert_eq!(plan(names, 42), plan(names, 42));
            assert_ne!(plan(names, 42), plan(names, 43));
        }
    }

    #[test]
    fn every_named_fault_comes_once_before_any_comes_again() {
        let plan = plan(&["kill-leader", "loss", "pause-leader"], 1);
        let faults: Vec<Fault> = plan.lanes[0].iter().map(|planned| planned.fault).take(3).collect();
        assert_eq!(faults, [Fault::KillLeader, Fault::Loss, Fault::PauseLeader]);
        assert!(plan.lanes[0].windows(2).all(|pair| pair[0].at + pair[0].length < pair[1].at));
        assert!(plan.lanes[0].iter().all(|planned| planned.at < Duration::from_secs(57)));
    }

    #[test]
    fn a_mix_has_two_to_four_lanes() {
        for seed in 0..20 {
            assert!((2..=4).contains(&plan(&["mix"], seed).lanes.len()));
        }
        assert!(plan(&["none"], 1).lanes.is_empty());
    }

    #[test]
    fn an_unknown_name_is_an_error_and_what_cannot_be_used_is_left_out() {
        assert!(Plan::new(&["kill-nobody".to_owned()], 1, Duration::from_secs(9), |_| true).is_err());
        let none = Plan::new(&["loss".to_owned()], 1, Duration::from_secs(60), |_| false).unwrap();
        assert!(none.lanes.is_empty());
    }
}
