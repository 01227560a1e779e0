//! Slow clients, by slowhttptest.

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crate::Attack;

/// Connections of one attack, opened this fast.
const CONNECTIONS: u64 = 2_000;
const CONNECTIONS_A_SECOND: u64 = 500;

/// One way of being slow.
pub(super) struct Slow {
    pub(super) name: &'static str,
    path: &'static str,
    arguments: &'static [&'static str],
}

/// All of them.
pub(super) const SLOW: [Slow; 4] = [
    Slow { name: "slow-head", path: "/", arguments: &["-H", "-i", "5"] },
    Slow { name: "slow-body", path: "/", arguments: &["-B", "-i", "5", "-s", "65536"] },
    Slow { name: "ranges", path: "/large", arguments: &["-R"] },
    Slow { name: "slow-reading", path: "/large", arguments: &["-X", "-w", "16", "-y", "64", "-n", "5", "-z", "5", "-k", "3"] },
];

impl Slow {
    pub(super) fn start(&self, attack: &Attack) -> JoinHandle<()> {
        let mut command = Command::new("slowhttptest");
        command.args(self.arguments).args(["-c", &CONNECTIONS.to_string(), "-r", &CONNECTIONS_A_SECOND.to_string()]);
        command.args(["-l", &attack.length.as_secs().to_string(), "-p", "3", "-v", "0"]);
        command.arg("-u").arg(format!("http://{}{}", attack.address, self.path));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("slowhttptest is installed (Debian package slowhttptest)");
        attack.connections.store(CONNECTIONS, Ordering::Relaxed);
        std::thread::spawn(move || {
            child.wait().unwrap();
        })
    }
}
