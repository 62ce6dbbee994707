//! The event loop: who knocks, who has died, and when to end.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::leftovers;
use super::operations::{Daemon, State};
use super::options::Options;
use super::serve_control;
use super::watch::{FIRST_SLOT, LISTENER, SERVER, SIGNALS, WAKE, Watch};
use crate::connections::Connections;
use crate::container::procfs::Proc;
use crate::error::{Error, Kind, Result};
use crate::protocol::channel::Channel;
use crate::registry::{self, Registry};
use crate::runtime_dir::RuntimeDir;
use crate::supervisor::asks::PressureDirs;
use crate::supervisor::{Program, Server};

/// Control connections served at once; more are turned away, so that nobody can use up the threads.
const MAX_CONNECTIONS: usize = 128;

/// Servers that may die within [`RESTART_WINDOW`] before the daemon gives up.
const MAX_RESTARTS: usize = 10;

/// See [`MAX_RESTARTS`].
const RESTART_WINDOW: Duration = Duration::from_secs(10);

/// The daemon's whole life; prints what went wrong.
#[allow(
    clippy::print_stderr,
    reason = "this is the program's last word to its user"
)]
pub fn main(options: &Options) -> ExitCode {
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if options.background {
                // The command that started us reads our standard output and prints what it says.
                let line = serde_json::to_string(&error).unwrap_or_default();
                let _ = rustix::io::write(rustix::stdio::stdout(), format!("{line}\n").as_bytes());
            } else {
                eprintln!("eci-mountd: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// A container costs the daemon and its server several descriptors; what a service manager gives at first (1024)
/// would be used up by a hundred containers. Where the limit cannot be raised there is room for fewer.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of descriptors cannot be raised, ignoring");
    }
}

/// Set up, serve until told to end, and undo everything.
///
/// # Errors
/// Whatever keeps it from starting, and the loss of the server for good.
pub fn run(options: &Options) -> Result<()> {
    raise_descriptor_limit();
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(
            Kind::Denied,
            "eci-mountd needs root: it mounts into other mount namespaces",
        )
        .remedy("run it as root"));
    }
    // Before any thread is started, so that every thread has them blocked and the loop alone reads them.
    let signals = block_signals()?;
    if options.background || options.private {
        // The terminal's signals are for the command that started us. We may be a leader already: no matter.
        let _ = nix::unistd::setsid();
    }
    let (runtime, _lock, listener) = if options.private {
        (None, None, None)
    } else {
        let runtime = RuntimeDir::create(&options.runtime_dir)?;
        let lock = runtime.lock()?;
        if options.background {
            write_to_log(&runtime)?;
        }
        let listener = listen(&runtime.socket())?;
        (Some(runtime), Some(lock), Some(listener))
    };
    let proc = Arc::new(Proc::open()?);
    let boot_id = proc.read("sys/kernel/random/boot_id")?.trim().to_owned();
    let saved = match &runtime {
        Some(runtime) => read_saved(runtime)?,
        None => None,
    };
    let (mut connections, grafter) = Connections::open(Arc::clone(&proc))?;
    if let Some(saved) = &saved {
        leftovers::remove(&proc, &grafter, saved, &boot_id);
    }
    let program = Program {
        path: options.server()?,
        settings: options.settings(),
    };
    let pressure = PressureDirs::default();
    let mut server = Server::start(&program, &mut connections, &pressure)?;
    server.serve(false)?;
    let watch = Watch::new()?;
    watch.add(signals.as_fd(), SIGNALS)?;
    watch.add(server.pidfd(), SERVER)?;
    if let Some(listener) = &listener {
        watch.add(listener.as_fd(), LISTENER)?;
    }
    let registry = Registry::new(boot_id, saved.as_ref())?;
    let state = Mutex::new(State {
        registry,
        connections,
        server,
        ending: false,
    });
    let daemon = Arc::new(Daemon {
        proc,
        grafter,
        runtime,
        program,
        pressure,
        state,
        watch,
    });

    if options.private {
        serve_standard_input(&daemon)?;
    }
    if options.background {
        announce()?;
    }
    tracing::info!(pid = std::process::id(), "ready");
    let result = turn(&daemon, listener.as_ref(), &signals, options);
    daemon.end();
    if let Some(runtime) = &daemon.runtime {
        let _ = std::fs::remove_file(runtime.socket());
        let _ = std::fs::remove_dir(runtime.mounts());
    }
    result
}

fn turn(
    daemon: &Arc<Daemon>,
    listener: Option<&OwnedFd>,
    signals: &SignalFd,
    options: &Options,
) -> Result<()> {
    let connections = Arc::new(AtomicUsize::new(0));
    let mut restarts: Vec<Instant> = Vec::new();
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = match daemon.watch.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other.map_err(|e| Error::io("wait on", "the epoll set", e))?,
        };
        for event in &events[..count] {
            match event.data() {
                LISTENER => {
                    if let Some(listener) = listener {
                        accept(daemon, listener, &connections);
                    }
                }
                SIGNALS => {
                    if let Ok(Some(signal)) = signals.read_signal() {
                        tracing::info!(signal = signal.ssi_signo, "ending");
                        return Ok(());
                    }
                }
                SERVER => {
                    restarts.retain(|at| at.elapsed() < RESTART_WINDOW);
                    if restarts.len() >= MAX_RESTARTS {
                        return Err(Error::new(
                            Kind::System,
                            format!(
                                "the server died {MAX_RESTARTS} times within {RESTART_WINDOW:?}"
                            ),
                        )
                        .remedy("see its log, and report it"));
                    }
                    restarts.push(Instant::now());
                    tracing::error!("the server died; starting another one");
                    daemon.restart_server()?;
                    let state = daemon.state.lock();
                    daemon.watch.add(state.server.pidfd(), SERVER)?;
                }
                WAKE => {
                    let _ = daemon.watch.wake.read();
                    if options.private || (options.background && daemon.is_idle(true)) {
                        return Ok(());
                    }
                }
                token => {
                    daemon.container_ended(token.saturating_sub(FIRST_SLOT));
                    if options.background && daemon.is_idle(true) {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn accept(daemon: &Arc<Daemon>, listener: &OwnedFd, connections: &Arc<AtomicUsize>) {
    let socket = match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(%error, "a connection could not be accepted, ignoring"),
    };
    if connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
        connections.fetch_sub(1, Ordering::Relaxed);
        return tracing::warn!(
            MAX_CONNECTIONS,
            "too many control connections: one is turned away"
        );
    }
    let (daemon, held) = (Arc::clone(daemon), Arc::clone(connections));
    let spawned = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            serve_control::serve(&daemon, &Channel::new(socket), || daemon.watch.wake());
            held.fetch_sub(1, Ordering::Relaxed);
        });
    if let Err(error) = spawned {
        connections.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!(%error, "a thread could not be started: a connection is turned away");
    }
}

/// Serve the command that started us, and wake the loop when it is gone.
fn serve_standard_input(daemon: &Arc<Daemon>) -> Result<()> {
    let socket = rustix::stdio::stdin()
        .try_clone_to_owned()
        .map_err(|e| Error::io("duplicate", "standard input", e))?;
    let daemon = Arc::clone(daemon);
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            serve_control::serve(&daemon, &Channel::new(socket), || {});
            daemon.watch.wake();
        })
        .map(drop)
        .map_err(|e| Error::io("start", "a thread", e))
}

/// Tell the command that started us that we listen, and let go of its output.
fn announce() -> Result<()> {
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
fn write_to_log(runtime: &RuntimeDir) -> Result<()> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(runtime.log());
    let log = log.map_err(|e| Error::io("open", runtime.log(), e))?;
    rustix::stdio::dup2_stderr(&log)
        .map_err(|e| Error::io("let go of", "the standard error output", e))
}

fn block_signals() -> Result<SignalFd> {
    let trouble = |e| Error::io("block", "signals", e);
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block().map_err(trouble)?;
    let flags =
        nix::sys::signalfd::SfdFlags::SFD_CLOEXEC | nix::sys::signalfd::SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(&set, flags).map_err(trouble)
}

/// Listen on `path`. The lock is held, so a socket that is there belongs to nobody any more.
fn listen(path: &Path) -> Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Ok(()) => tracing::info!(path = %path.display(), "removed the socket of a dead daemon"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("remove the stale socket", path, e)),
    }
    let trouble = |e| Error::io("listen on", path, e);
    let address = SocketAddrUnix::new(path).map_err(trouble)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(trouble)?;
    rustix::net::bind(&socket, &address).map_err(trouble)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| Error::io("set the mode of", path, e))?;
    rustix::net::listen(&socket, 64).map_err(trouble)?;
    Ok(socket)
}

fn read_saved(runtime: &RuntimeDir) -> Result<Option<registry::Saved>> {
    let Some(text) = runtime.read(registry::FILE)? else {
        return Ok(None);
    };
    match serde_json::from_str(&text) {
        Ok(saved) => Ok(Some(saved)),
        Err(error) => {
            // Losing the list must not keep the daemon from starting; the file is kept for whoever asks why.
            let path = runtime.path().join(registry::FILE);
            tracing::warn!(path = %path.display(), %error, "the list of containers cannot be read; starting without it");
            let _ = std::fs::rename(&path, path.with_extension("json.unreadable"));
            Ok(None)
        }
    }
}
