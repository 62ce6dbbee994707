//! What hooks could not do: `hook.log` in the runtime directory.

use std::io::Write;
use std::path::Path;

use eci_fs_mountd::runtime_dir::RuntimeDir;
use eci_fs_protocol::error::Error;

/// The log of what hooks could not do, in the runtime directory.
const LOG: &str = "hook.log";

/// Bytes that the log may have before it is begun anew.
const MAX_LOG: u64 = 1 << 20;

/// Let a container go without its views.
pub(super) fn go_on(runtime_dir: &Path, error: &Error) {
    write_log(runtime_dir, error);
    say(error);
}

/// Say why a container goes without its views.
#[allow(clippy::print_stderr, reason = "a hook's word to whoever keeps it")]
pub(super) fn say(error: &Error) {
    eprintln!("eci-fs: going on without views: {error}");
}

/// Write an error down: crun throws away what hooks say, and engines what a hook says that ended well.
pub(super) fn write_log(runtime_dir: &Path, error: &Error) {
    let Ok(runtime) = RuntimeDir::create(runtime_dir) else {
        return;
    };
    let path = runtime.path().join(LOG);
    if std::fs::metadata(&path).is_ok_and(|file| file.len() > MAX_LOG) {
        // The last but one is enough to look back.
        let _ = std::fs::rename(&path, path.with_extension("log.old"));
    }
    let file = std::fs::File::options()
        .append(true)
        .create(true)
        .open(path);
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    // It has been said once already; where it cannot be written nothing more can be done.
    let _ = file.and_then(|mut file| file.write_all(format!("{time} {error}\n").as_bytes()));
}
