//! The log of hooks that failed: `hook.log` in the runtime directory.

use std::fmt::Display;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use eci_fs_mountd::output::print_error;
use eci_fs_mountd::runtime_dir::RuntimeDir;
use eci_fs_protocol::error::Error;

use crate::cli::PROGRAM;

/// The name of the log in the runtime directory.
const LOG: &str = "hook.log";

/// The size in bytes at which the log is rotated.
const MAX_LOG: u64 = 1 << 20;

/// Logs and prints why a container starts without its views.
pub(in crate::cli) fn continue_without_views(runtime_dir: &Path, error: &Error) {
    write_log(runtime_dir, error);
    print_reason(error);
}

/// Prints why a container starts without its views.
pub(super) fn print_reason(error: &Error) {
    print_error(PROGRAM, format_args!("going on without views: {error}"));
}

/// Appends a line to the log. crun discards the output of hooks, and engines discard the output of a hook that
/// succeeds.
pub(in crate::cli) fn write_log(runtime_dir: &Path, line: impl Display) {
    let Ok(runtime) = RuntimeDir::create(runtime_dir) else {
        return;
    };
    let path = runtime.path().join(LOG);
    if std::fs::metadata(&path).is_ok_and(|file| file.len() > MAX_LOG) {
        // One older log is kept.
        let _ = std::fs::rename(&path, path.with_extension("log.old"));
    }
    let file = std::fs::File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path);
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    // An error is also printed or returned, so a log that cannot be written is ignored.
    let _ = file.and_then(|mut file| file.write_all(format!("{time} {line}\n").as_bytes()));
}
