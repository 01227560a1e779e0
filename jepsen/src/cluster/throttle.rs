//! A slow disk: the block layer's limit on what a node's process may write a second (cgroup v1, controller `blkio`).
//!
//! The limit counts what the process itself submits, and that is what its syncs write.

use std::path::PathBuf;

use anyhow::Context as _;

use super::Node;

const CONTROLLER: &str = "/sys/fs/cgroup/blkio";

/// A limit in force. Dropping it lifts it.
#[derive(Debug)]
pub(crate) struct Throttle {
    group: PathBuf,
    device: String,
}

impl Throttle {
    /// Why this machine cannot do it, if it cannot.
    pub(crate) fn refusal() -> Option<String> {
        let file = format!("{CONTROLLER}/blkio.throttle.write_iops_device");
        (!std::path::Path::new(&file).exists()).then(|| format!("there is no {file}"))
    }

    /// Limits the writes of a node's process.
    pub(crate) async fn limit(node: &Node, writes_a_second: u32) -> anyhow::Result<Throttle> {
        let pid = node.pid().await.context("the node does not run")?;
        let device = node.disk.device().await?;
        let group = PathBuf::from(CONTROLLER).join(format!("raftgate-jepsen-{pid}-{}", node.id));
        std::fs::create_dir_all(&group).with_context(|| format!("make {}", group.display()))?;
        let throttle = Throttle { group, device };
        throttle.write("blkio.throttle.write_iops_device", &format!("{} {writes_a_second}", throttle.device))?;
        throttle.write("cgroup.procs", &pid.to_string())?;
        Ok(throttle)
    }

    /// Writes that went through the limit.
    pub(crate) fn served(&self) -> u64 {
        let text = std::fs::read_to_string(self.group.join("blkio.throttle.io_serviced")).unwrap_or_default();
        let line = |line: &str| line.strip_prefix(&format!("{} Write ", self.device))?.trim().parse::<u64>().ok();
        text.lines().find_map(line).unwrap_or(0)
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.group.join(file);
        std::fs::write(&path, text).with_context(|| format!("write {text:?} to {}", path.display()))
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // The process, if it still lives, goes back to where it came from; an empty group can be removed.
        let processes = std::fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines() {
            let _ = std::fs::write(format!("{CONTROLLER}/cgroup.procs"), pid);
        }
        let _ = std::fs::remove_dir(&self.group);
    }
}
