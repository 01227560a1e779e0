//! The nemesis: what breaks, when, and how it is mended.
//!
//! A [`plan::Plan`] is made of the seed alone. Each planned fault is played by one function of the modules here, from its beginning to its
//! healing: its states are the call stack. [`act::Act`] records what happens, and a fault is `ok` in the history only after it was
//! seen to have taken effect.

mod act;
mod backends;
mod clock;
mod crash;
mod disk_error;
mod disks;
mod files;
mod huge;
mod kind;
mod leadership;
mod peers;
mod plan;
mod processes;
#[cfg(test)]
mod rehearsal;
mod splits;
mod stage;
mod storm;

use std::time::Duration;

use tokio::task::JoinSet;

use crate::cluster::Settings;
use crate::cluster::isolation::Isolation;
use crate::test::Workload;

pub(crate) use act::Trouble;
pub(crate) use kind::{Fault, MIX, NONE};
pub(crate) use plan::Plan;
pub(crate) use stage::Stage;

use act::Act;
use plan::Planned;

/// Why a fault cannot be injected into this program on this machine, and what it takes: known before anything is started.
pub(crate) fn refusal(fault: Fault, settings: &Settings, workload: Workload) -> Option<String> {
    let namespaces = settings.isolation == Isolation::Namespaces;
    let images = || {
        (!namespaces).then(|| "nodes have no disk images of their own here: run as root, with --isolation namespaces".to_owned())
    };
    match fault {
        Fault::PowerCutOne
        | Fault::PowerCutMajority
        | Fault::PowerCutAll
        | Fault::DiskFull
        | Fault::StuckDisk
        | Fault::DiskError => images(),
        Fault::SlowDisk => images().or_else(crate::cluster::Throttle::refusal),
        Fault::ClockJump => {
            settings.faketime.is_none().then(|| "libfaketime is not installed (Debian: apt-get install faketime)".to_owned())
        }
        Fault::CrashPoint => crash::refusal(&settings.binary),
        fault if fault.is_of_connections() => namespaces
            .then(|| "this is done to TCP connections, not to packets: run it alone, or with --isolation loopback".to_owned()),
        Fault::WrongPeer => (!namespaces)
            .then(|| "addresses can be swapped only in namespaces: run as root, with --isolation namespaces".to_owned()),
        Fault::RollingUpgrade => settings.other_binary.is_none().then(|| "needs another build: --other-binary PATH".to_owned()),
        Fault::SwapStorm => {
            (workload == Workload::Set).then(|| "the workload set makes each route once: give another --workload".to_owned())
        }
        _ => None,
    }
}

/// Plays the plan until the test ends. Everything it broke is mended when it returns.
pub(crate) async fn play(stage: &Stage, plan: Plan) -> anyhow::Result<()> {
    let mut lanes = JoinSet::new();
    for lane in plan.lanes {
        let stage = stage.clone();
        lanes.spawn(async move {
            for planned in lane {
                stage.wait_until(planned.at).await;
                if stage.is_over() {
                    break;
                }
                play_one(&stage, planned).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    Ok(())
}

async fn play_one(stage: &Stage, planned: Planned) -> anyhow::Result<()> {
    let mut act = Act::new(stage, planned);
    let act = &mut act;
    let played = match planned.fault {
        Fault::KillFollower | Fault::KillLeader | Fault::KillMajority | Fault::KillAll => processes::kill(act).await,
        Fault::CrashPoint => crash::crash(act).await,
        Fault::RestartLeader => processes::restart_leader(act).await,
        Fault::PauseFollower | Fault::PauseLeader | Fault::PauseMajority => processes::pause(act).await,
        Fault::RollingRestart => processes::rolling_restart(act).await,
        Fault::RollingUpgrade => processes::rolling_upgrade(act).await,
        Fault::PartitionLeaderMinority
        | Fault::PartitionLeaderMajority
        | Fault::PartitionOneWay
        | Fault::PartitionBridge
        | Fault::PartitionRing
        | Fault::Loss
        | Fault::Delay
        | Fault::SlowLink
        | Fault::CutMidFrame
        | Fault::HalfOpen => splits::split(act).await,
        Fault::PartitionFlapping => splits::flap(act).await,
        Fault::PowerCutOne | Fault::PowerCutMajority | Fault::PowerCutAll => disks::power_cut(act).await,
        Fault::DiskFull => disks::fill(act).await,
        Fault::StuckDisk => disks::freeze(act).await,
        Fault::SlowDisk => disks::slow(act).await,
        Fault::ClockJump => clock::jump(act).await,
        Fault::TornFile => files::tear(act).await,
        Fault::WipedDisk => files::wipe(act).await,
        Fault::LeaderTransfer => leadership::transfer(act).await,
        Fault::SnapshotBehind => splits::fall_behind(act).await,
        Fault::SwapStorm => storm::swap(act).await,
        Fault::FlappingBackends => backends::flap(act).await,
        Fault::HugeChange => huge::change(act).await,
        Fault::DiskError => disk_error::fail(act).await,
        Fault::WrongPeer => peers::swap(act).await,
    };
    match played {
        Ok(()) => Ok(()),
        Err(Trouble::Harness(error)) => {
            if let Some(trouble) = act.ended().await {
                give_up(act, &trouble);
                return Ok(());
            }
            act.gave_up(&format!("{error:#}"));
            Err(error.context(format!("nemesis {}", planned.fault.name())))
        }
        Err(trouble) => {
            give_up(act, &trouble);
            Ok(())
        }
    }
}

/// Ends a fault in the middle. Nodes that the gateway has lost meet no further fault.
fn give_up(act: &mut Act<'_>, trouble: &Trouble) {
    if matches!(trouble, Trouble::Product(_) | Trouble::Ended(_)) {
        act.lose();
    }
    act.gave_up(&trouble.to_string());
    act.stage.note(act.planned.fault, trouble);
}

/// How long a node may take from its start to its first answer.
const START_PATIENCE: Duration = Duration::from_secs(40);
