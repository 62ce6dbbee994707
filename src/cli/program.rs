//! The program that runs, and the ones that lie beside it.

use std::path::PathBuf;

use eci_fs_protocol::error::{Error, Result};

/// The program with all commands.
const ALL: &str = "eci-fs";

/// The program that engines call as a runtime.
pub const RUNTIME: &str = "eci-runc";

/// The program that runs, by the path at which another process finds it.
///
/// # Errors
/// When the kernel does not say.
pub fn path() -> Result<PathBuf> {
    let path = std::env::current_exe().map_err(|e| Error::io("find", "/proc/self/exe", e))?;
    // An upgrade puts the new one where the old one was; the kernel marks the old one.
    let text = path.as_os_str().to_string_lossy();
    Ok(match text.strip_suffix(" (deleted)") {
        Some(there) => there.into(),
        None => path,
    })
}

/// What to execute for a command of `eci-fs`: ourselves, or what lies beside us if we are `eci-runc`, which has no
/// other.
pub fn with_all_commands() -> PathBuf {
    match path() {
        Ok(path) if path.file_name() == Some(RUNTIME.as_ref()) => path.with_file_name(ALL),
        _ => "/proc/self/exe".into(),
    }
}
