//! The standard streams of the daemon: who started it may speak to it there, or wait for it to be ready.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::operations::Daemon;
use super::serve_control;
use crate::runtime_dir::RuntimeDir;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::error::{Error, Result};

/// Serve the command that started us, and wake the loop when it is gone.
pub(super) fn serve_standard_input(daemon: &Arc<Daemon>) -> Result<()> {
    let socket = rustix::stdio::stdin()
        .try_clone_to_owned()
        .map_err(|e| Error::io("duplicate", "standard input", e))?;
    let daemon = Arc::clone(daemon);
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            serve_control::serve(&daemon, &Channel::new(socket), || {});
            daemon.over.store(true, Ordering::Relaxed);
            daemon.watch.wake();
        })
        .map(drop)
        .map_err(|e| Error::io("start", "a thread", e))
}

/// Tell the command that started us that we listen, and let go of its output.
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

/// From here on what is logged goes to the runtime directory. Before the server is started, which inherits this:
/// whoever waits for the end of the command's output would wait for the end of the server.
pub(super) fn write_to_log(runtime: &RuntimeDir) -> Result<()> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(runtime.log());
    let log = log.map_err(|e| Error::io("open", runtime.log(), e))?;
    rustix::stdio::dup2_stderr(&log)
        .map_err(|e| Error::io("let go of", "the standard error output", e))
}

/// Read nothing more from standard input, and let no child do so.
pub(super) fn let_go_of_input() -> Result<()> {
    let null = std::fs::File::open("/dev/null").map_err(|e| Error::io("open", "/dev/null", e))?;
    rustix::stdio::dup2_stdin(&null).map_err(|e| Error::io("let go of", "standard input", e))
}
