//! The paths of this program and of the programs beside it.

use std::path::PathBuf;

use eci_fs_protocol::error::{Error, Result};

/// The program with all commands.
const ALL: &str = "eci-fs";

/// The program that engines call as a runtime.
pub const RUNTIME: &str = "eci-runc";

/// The directories in which programs are searched besides PATH. The PATH of a user or of an engine may lack those of root.
pub const USUAL_DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Returns the path of the running program, as another process finds it.
///
/// # Errors
/// When /proc/self/exe cannot be read.
pub fn path() -> Result<PathBuf> {
    let path = std::env::current_exe().map_err(|e| Error::io("find", "/proc/self/exe", e))?;
    // An upgrade replaces the file, and the kernel then marks the path of the old one.
    let text = path.as_os_str().to_string_lossy();
    Ok(match text.strip_suffix(" (deleted)") {
        Some(there) => there.into(),
        None => path,
    })
}

/// Returns the program that has all commands: this program, or the `eci-fs` beside it if this is `eci-runc`, which has
/// no other command.
pub fn with_all_commands() -> PathBuf {
    match path() {
        Ok(path) if path.file_name() == Some(RUNTIME.as_ref()) => path.with_file_name(ALL),
        _ => "/proc/self/exe".into(),
    }
}
