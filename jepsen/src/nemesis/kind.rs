//! The faults by name.

use std::time::Duration;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $least:literal ..= $most:literal;)+) => {
        /// A fault that can be asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Fault {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Fault {
            /// All of them.
            pub(crate) const ALL: &[Fault] = &[$(Fault::$variant),+];

            /// Its name on the command line and in the history.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Fault::$variant => $name,)+ }
            }

            /// How long it lasts at least and at most, in milliseconds.
            pub(crate) fn length_ms(self) -> (u64, u64) {
                match self { $(Fault::$variant => ($least, $most),)+ }
            }
        }
    };
}

faults! {
    /// kill -9 of one that does not lead.
    KillFollower = "kill-follower", 500..=3000;
    /// kill -9 of the leader.
    KillLeader = "kill-leader", 500..=3000;
    /// A node ends by itself at a place in its program that a test has armed: between a write and its sync, between two files.
    CrashPoint = "crash-point", 100..=800;
    /// kill -9 of more than half at once.
    KillMajority = "kill-majority", 500..=3000;
    /// kill -9 of all at once.
    KillAll = "kill-all", 200..=1500;
    /// kill -9 of the leader, which is started again at once: before its lease has passed.
    RestartLeader = "restart-leader", 300..=1200;
    /// SIGSTOP of one that does not lead.
    PauseFollower = "pause-follower", 1000..=6000;
    /// SIGSTOP of the leader.
    PauseLeader = "pause-leader", 1000..=6000;
    /// SIGSTOP of more than half.
    PauseMajority = "pause-majority", 1000..=4000;
    /// The leader and less than half of the nodes on one side.
    PartitionLeaderMinority = "partition-leader-minority", 2000..=5000;
    /// One that does not lead is alone.
    PartitionLeaderMajority = "partition-leader-majority", 2000..=5000;
    /// What the leader sends, or what is sent to it, does not arrive at one or more nodes.
    PartitionOneWay = "partition-one-way", 2000..=5000;
    /// Two halves with one node between them that reaches all.
    PartitionBridge = "partition-bridge", 2000..=5000;
    /// Each node reaches its two neighbours only; of three nodes, two do not reach each other.
    PartitionRing = "partition-ring", 2000..=5000;
    /// A split that comes and goes several times a second, each time another.
    PartitionFlapping = "partition-flapping", 3000..=6000;
    /// Part of all packets is lost; on loopback, connections break.
    Loss = "loss", 2000..=6000;
    /// Everything arrives later.
    Delay = "delay", 2000..=6000;
    /// Connections take fewer bytes a second than the nodes want to send.
    SlowLink = "slow-link", 2000..=5000;
    /// Connections end in the middle of what was sent: part of it arrives.
    CutMidFrame = "cut-mid-frame", 2000..=6000;
    /// One side of each connection hears nothing more, not even its end, until it is reset; new connections are sound.
    HalfOpen = "half-open", 2000..=5000;
    /// One node loses its power.
    PowerCutOne = "power-cut-one", 300..=2000;
    /// More than half lose their power at once.
    PowerCutMajority = "power-cut-majority", 300..=2000;
    /// All lose their power at once.
    PowerCutAll = "power-cut-all", 200..=1000;
    /// A disk has no room.
    DiskFull = "disk-full", 2000..=4000;
    /// A disk takes no write and gives no error.
    StuckDisk = "stuck-disk", 1500..=5000;
    /// A disk takes few writes a second.
    SlowDisk = "slow-disk", 3000..=6000;
    /// The clock of the day jumps by up to an hour, and back.
    ClockJump = "clock-jump", 2000..=5000;
    /// A file is cut or changed between kill and start.
    TornFile = "torn-file", 200..=1000;
    /// A node comes back under its id without its data.
    WipedDisk = "wiped-disk", 500..=1000;
    /// Leadership is handed over.
    LeaderTransfer = "leader-transfer", 500..=1500;
    /// SIGTERM and start, one node after the other.
    RollingRestart = "rolling-restart", 500..=1000;
    /// The same with another program, and back.
    RollingUpgrade = "rolling-upgrade", 500..=1000;
    /// A node is cut off until the log that it lacks is purged.
    SnapshotBehind = "snapshot-behind", 1000..=2000;
    /// Hundreds of changes a second.
    SwapStorm = "swap-storm", 3000..=6000;
    /// Backends that are gone, reset connections, answer slowly, half-close, in turn.
    FlappingBackends = "flapping-backends", 4000..=7000;
    /// 10,000 routes in one transaction, and their removal in another.
    HugeChange = "huge-change", 1000..=2000;
    /// Every write and sync fails, and the process goes on.
    DiskError = "disk-error", 2000..=4000;
    /// The peer addresses of two nodes are swapped, as the leader sees it.
    WrongPeer = "wrong-peer", 2000..=4000;
}

/// Two to four lanes of faults at once.
pub(crate) const MIX: &str = "mix";
/// Nothing breaks.
pub(crate) const NONE: &str = "none";

impl Fault {
    /// By its name.
    pub(crate) fn by_name(name: &str) -> Option<Fault> {
        Fault::ALL.iter().copied().find(|fault| fault.name() == name)
    }

    /// Those that `mix` chooses from: quick to begin and to heal, and together a test of everything.
    pub(crate) const MIXABLE: &[Fault] = &[
        Fault::KillFollower,
        Fault::KillLeader,
        Fault::KillMajority,
        Fault::PauseFollower,
        Fault::PauseLeader,
        Fault::PartitionLeaderMinority,
        Fault::PartitionLeaderMajority,
        Fault::PartitionOneWay,
        Fault::PartitionRing,
        Fault::PartitionFlapping,
        Fault::Loss,
        Fault::PowerCutOne,
        Fault::PowerCutMajority,
        Fault::StuckDisk,
        Fault::SwapStorm,
    ];

    /// Whether it is done to connections, by proxies, and not to packets: then nodes have loopback addresses.
    pub(crate) fn is_of_connections(self) -> bool {
        matches!(self, Fault::Delay | Fault::SlowLink | Fault::CutMidFrame | Fault::HalfOpen)
    }

    /// How long it lasts, by a draw between 0 and 1.
    pub(crate) fn length(self, draw: f64) -> Duration {
        let (least, most) = self.length_ms();
        let least = Duration::from_millis(least);
        least + (Duration::from_millis(most) - least).mul_f64(draw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for &fault in Fault::ALL {
            assert_eq!(Fault::by_name(fault.name()), Some(fault));
            let (least, most) = fault.length_ms();
            assert!(least < most, "{}", fault.name());
        }
        assert_eq!(Fault::by_name("kill-nobody"), None);
    }
}
