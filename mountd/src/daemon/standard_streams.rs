//! The standard streams of the daemon, by which the command that started it hears that it is ready.

use crate::runtime_dir::RuntimeDir;
use eci_fs_protocol::error::{Error, Result};

/// Tells the command that started us that we listen, and closes our end of its pipe.
pub(super) fn announce() -> Result<()> {
    let trouble = |e| Error::io("let go of", "standard output", e);
    rustix::io::write(rustix::stdio::stdout(), b"ready\n").map_err(trouble)?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null");
    let null = null.map_err(|e| Error::io("open", "/dev/null", e))?;
    rustix::stdio::dup2_stdout(&null).map_err(trouble)?;
    rustix::stdio::dup2_stdin(&null).map_err(trouble)
}

/// Sends the log to the runtime directory from here on. This comes before the server is started, which inherits the
/// stream: whoever waits for the end of the command's output would wait for the end of the server.
pub(super) fn write_to_log(runtime: &RuntimeDir) -> Result<()> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(runtime.log());
    let log = log.map_err(|e| Error::io("open", runtime.log(), e))?;
    rustix::stdio::dup2_stderr(&log)
        .map_err(|e| Error::io("let go of", "the standard error output", e))
}

/// Replaces standard input by `/dev/null`, for this process and its children.
pub(super) fn let_go_of_input() -> Result<()> {
    let null = std::fs::File::open("/dev/null").map_err(|e| Error::io("open", "/dev/null", e))?;
    rustix::stdio::dup2_stdin(&null).map_err(|e| Error::io("let go of", "standard input", e))
}
