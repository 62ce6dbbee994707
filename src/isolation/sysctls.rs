//! The settings in /proc/sys that each network or ipc namespace has for itself. Those of an interface do not move with it.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use eci_fs_protocol::error::{Error, Result};

/// The settings of a network namespace. What is in the directory depends on the namespace of the thread that looks.
pub(super) const OF_NETWORKS: [&str; 1] = ["/proc/sys/net"];

/// The settings of an ipc namespace (ipc_namespaces(7)): files, and a directory.
pub(super) const OF_IPC: [&str; 9] = [
    "/proc/sys/fs/mqueue",
    "/proc/sys/kernel/msgmax",
    "/proc/sys/kernel/msgmnb",
    "/proc/sys/kernel/msgmni",
    "/proc/sys/kernel/sem",
    "/proc/sys/kernel/shmall",
    "/proc/sys/kernel/shmmax",
    "/proc/sys/kernel/shmmni",
    "/proc/sys/kernel/shm_rmid_forced",
];

/// The most settings. Some hundred interfaces have as many.
const MAX_SETTINGS: usize = 65_536;

/// The number of passes over all settings. Some settings change others (ip_forward does).
const PASSES: usize = 3;

/// The settings of a namespace, by their paths.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sysctls(BTreeMap<PathBuf, Vec<u8>>);

impl Sysctls {
    /// Reads those of the namespace of this thread, at these paths.
    ///
    /// # Errors
    /// When a directory cannot be read, or has more than [`MAX_SETTINGS`] files.
    pub(super) fn read(paths: &[&str]) -> Result<Self> {
        let mut this = Self::default();
        for path in paths.iter().map(Path::new) {
            match path.is_dir() {
                true => this.add(path)?,
                false => this.add_file(path.to_owned()),
            }
        }
        Ok(this)
    }

    /// A file that cannot be read has no value: it is not there, or writing to it starts an action.
    fn add_file(&mut self, path: PathBuf) {
        if let Ok(value) = fs::read(&path) {
            self.0.insert(path, value);
        }
    }

    fn add(&mut self, dir: &Path) -> Result<()> {
        let trouble = |e| Error::io("list", dir, e);
        for entry in fs::read_dir(dir).map_err(trouble)? {
            let entry = entry.map_err(trouble)?;
            let path = entry.path();
            if entry.file_type().map_err(trouble)?.is_dir() {
                self.add(&path)?;
            } else {
                self.add_file(path);
            }
            if self.0.len() > MAX_SETTINGS {
                return Err(Error::refused(format!(
                    "the namespace has more than {MAX_SETTINGS} settings"
                )));
            }
        }
        Ok(())
    }

    /// Writes these values to the settings of the namespace of this thread, as far as it has them and they can be written.
    ///
    /// # Errors
    /// When one cannot be written.
    pub(super) fn write(&self) -> Result<()> {
        let mut last = None;
        for _ in 0..PASSES {
            last = None;
            for (path, value) in &self.0 {
                match fs::read(path) {
                    Ok(now) if now == *value => continue,
                    // The kernel shows some only in namespaces of the host (neigh/*, ipv6/route/*).
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    _ => {}
                }
                if !is_writable(path) {
                    continue;
                }
                last = Some((path, fs::write(path, value)));
            }
            if last.is_none() {
                break;
            }
        }
        match last {
            Some((path, Err(error))) => Err(Error::io("write", path, error)),
            _ => Ok(()),
        }
    }
}

/// Returns whether somebody may write to a file. Root may open each, and the write fails then.
fn is_writable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|stat| stat.permissions().mode() & 0o222 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_nobody_may_write_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let [fixed, free] = [("fixed", 0o444), ("free", 0o644)].map(|(name, mode)| {
            let path = dir.path().join(name);
            fs::write(&path, "1\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        });
        let values = [&fixed, &free].map(|path| (path.clone(), b"2\n".to_vec()));
        Sysctls(values.into()).write().unwrap();
        assert_eq!(fs::read(fixed).unwrap(), b"1\n");
        assert_eq!(fs::read(free).unwrap(), b"2\n");
    }
}
