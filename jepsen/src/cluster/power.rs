//! The power cut: the ioctl with which ext4 stops, as at a loss of power.
//!
//! `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH` aborts the journal without writing it out. What was not synced is gone when
//! the image is mounted again; every access until then is an error.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::Context as _;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// `_IOR('X', 125, __u32)`, although the kernel reads the number.
const SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);
/// Without flushing the journal.
const NO_LOG_FLUSH: u32 = 2;

/// A file system whose power can be cut without delay: the descriptor is open already.
#[derive(Debug)]
pub(crate) struct Switch(File);

impl Switch {
    /// Opens the root of a mounted file system.
    pub(crate) fn open(mount: &Path) -> anyhow::Result<Switch> {
        Ok(Switch(File::open(mount).with_context(|| format!("open {}", mount.display()))?))
    }

    /// Cuts.
    #[expect(unsafe_code, reason = "no safe wrapper of this ioctl exists")]
    pub(crate) fn cut(&self) -> anyhow::Result<()> {
        // SAFETY: the opcode is ext4's own and the kernel reads one u32 behind the pointer, which `Setter` gives it; other file systems
        // answer ENOTTY.
        unsafe { ioctl(self.0.as_fd(), Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }.context("EXT4_IOC_SHUTDOWN")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_opcode_is_the_kernels() {
        assert_eq!(SHUTDOWN, 0x8004_587D);
    }

    #[test]
    fn a_file_system_that_is_no_ext4_refuses() {
        let switch = Switch::open(Path::new("/proc")).unwrap();
        assert!(switch.cut().is_err());
    }
}
