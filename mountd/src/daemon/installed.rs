//! The programs as they are installed now: what an upgrade starts.

use std::path::{Path, PathBuf};

use eci_fs_protocol::error::{Error, Result};

/// Returns the program that lies now where `running` was started from.
///
/// # Errors
/// When that cannot be told, or there is none.
pub(super) fn as_installed(running: &Path) -> Result<PathBuf> {
    if running != Path::new("/proc/self/exe") {
        return Ok(running.to_owned());
    }
    let path = std::fs::read_link(running).map_err(|e| Error::io("read", running, e))?;
    let text = path.to_string_lossy();
    // The kernel says so of a file that was replaced by another one.
    let path = PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(&text));
    if path.exists() {
        Ok(path)
    } else {
        Err(Error::not_found(format!("there is no {}", path.display()))
            .remedy("install the new version there, or name it"))
    }
}

/// Returns what the program at `path` says of itself: "eci-fs 0.1.0".
///
/// # Errors
/// When it cannot be started, or is no program of eci-fs.
pub(super) fn release_of(path: &Path) -> Result<String> {
    let mut command = std::process::Command::new(path);
    command.arg("--version").stdin(std::process::Stdio::null());
    crate::service_manager::hide_from(&mut command);
    let output = command
        .output()
        .map_err(|e| Error::io("start", path, e).remedy("name a program of eci-fs"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let release = said.lines().next().unwrap_or_default().trim().to_owned();
    if output.status.success() && release.starts_with("eci-") && release.len() < 80 {
        Ok(release)
    } else {
        Err(
            Error::refused(format!("{} is no program of eci-fs", path.display()))
                .remedy("name one that says its version when it is called with --version"),
        )
    }
}
