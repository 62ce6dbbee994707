//! The values of the host.

use std::io::Write;
use std::path::{Path, PathBuf};

use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::host_sysctl::HostSysctl;

/// The values in /proc and /sys.
#[derive(Debug)]
pub(super) struct HostValues {
    root: PathBuf,
}

impl HostValues {
    /// Returns the values of the host whose /proc and /sys are in `root`. A test has others than `/`.
    pub(super) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    fn path(&self, tunable: HostSysctl) -> PathBuf {
        self.root.join(tunable.path().trim_start_matches('/'))
    }

    /// Returns the present value.
    ///
    /// # Errors
    /// When the kernel has none, or it is no number.
    pub(super) fn read(&self, tunable: HostSysctl) -> Result<u64> {
        let path = self.path(tunable);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        text.trim()
            .parse()
            .map_err(|_| Error::refused(format!("{} says {:?}", path.display(), text.trim())))
    }

    /// Sets the value.
    ///
    /// # Errors
    /// When the kernel refuses, as where /proc/sys is mounted read-only.
    pub(super) fn write(&self, tunable: HostSysctl, value: u64) -> Result<()> {
        let path = self.path(tunable);
        std::fs::File::options()
            .write(true)
            .truncate(true)
            .open(&path)
            // One write(2): each is a value for the kernel.
            .and_then(|mut file| file.write_all(format!("{value}\n").as_bytes()))
            .map_err(|e| {
                Error::io("write", &path, e)
                    .remedy("the daemon must be allowed to; or take it out of [raise]")
            })
    }
}
