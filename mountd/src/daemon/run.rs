//! The event loop: who knocks, who has died, and when to end.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use parking_lot::Mutex;

use super::backoff::Backoff;
use super::inherit::{self, Inheritance};
use super::listen::{Reserve, accept, listen};
use super::operations::{Daemon, State};
use super::options::Options;
use super::standard_streams::{announce, serve_standard_input, write_to_log};
use super::successor::{Handles, Predecessor};
use super::timer::Timer;
use super::watch::{ASK, FIRST_SLOT, LISTENER, REQUEST, SERVER, SIGNALS, START, WAKE, Watch};
use super::watchdog::{self, Answering};
use crate::broker::Broker;
use crate::config::Config;
use crate::connections::Connections;
use crate::container::procfs::Proc;
use crate::registry::{self, Registry, Saved};
use crate::runtime_dir::RuntimeDir;
use crate::service_manager;
use crate::supervisor::Program;
use eci_fs_protocol::error::{Error, Kind, Result};

/// How soon the start of a server is tried again after it was refused.
const RETRY: Duration = Duration::from_millis(100);

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
    // Before any child could inherit them.
    let stored = service_manager::take();
    let predecessor = options.successor.then(Predecessor::hear).transpose()?;
    let config = read_config(options, predecessor.as_ref())?;
    let (runtime, own) = if options.private {
        (None, None)
    } else if predecessor.is_some() {
        (Some(RuntimeDir::open(&options.runtime_dir)?), None)
    } else {
        let runtime = RuntimeDir::create(&options.runtime_dir)?;
        let lock = keep_locked(runtime.lock()?)?;
        if options.background {
            write_to_log(&runtime)?;
        }
        let listener = listen(&runtime.socket())?;
        (Some(runtime), Some(Handles { lock, listener }))
    };
    let proc = Arc::new(Proc::open()?);
    let boot_id = proc.read("sys/kernel/random/boot_id")?.trim().to_owned();
    let saved = match &runtime {
        Some(runtime) => Saved::read(runtime)?,
        None => None,
    };
    let program = Program {
        path: options.server()?,
        settings: options.settings(),
    };
    let broker = Broker::default();
    let (inheritance, handles) = match predecessor {
        Some(predecessor) => {
            let (inheritance, handles) = predecessor.take_over(&proc, &broker)?;
            if let Some(runtime) = &runtime {
                runtime.inherit_lock(&handles.lock)?;
            }
            (inheritance, Some(handles))
        }
        None => {
            let from = inherit::Found {
                proc: &proc,
                runtime: runtime.as_ref(),
                program: &program,
                broker: &broker,
                boot_id: &boot_id,
            };
            (from.begin(stored)?, own)
        }
    };
    let Inheritance {
        connections,
        grafter,
        belongings,
        server,
        connected,
    } = inheritance;
    // Not before the daemon whose place we take has ended.
    if runtime.is_some() {
        let runtime = RuntimeDir::open(&options.runtime_dir)?;
        broker.raiser.open(runtime, &boot_id, config.raise);
    }
    let watch = Watch::new()?;
    watch.add(signals.as_fd(), SIGNALS)?;
    if let Some(handles) = &handles {
        watch.add(handles.listener.as_fd(), LISTENER)?;
    }
    service_manager::store(&connections, &belongings);
    let requests = duplicates(&connections)?;
    let state = State {
        registry: Registry::new(boot_id, saved.as_ref())?,
        connections,
        belongings,
        server: None,
        ending: false,
    };
    let prober = grafter.run(|place| place.prober())?;
    let daemon = Arc::new(Daemon {
        proc,
        grafter,
        runtime,
        program: Mutex::new(program),
        handles,
        broker,
        prober,
        ready: super::ready::Next::default(),
        requests,
        turn: Mutex::new(()),
        state: Mutex::new(state),
        watch,
        answering: Answering::default(),
        over: AtomicBool::new(false),
        handed_over: AtomicBool::new(false),
    });
    daemon.install(&mut daemon.state.lock(), server)?;
    daemon.restore(saved.as_ref(), &connected)?;
    daemon.broker.set_complete();

    if options.private {
        serve_standard_input(&daemon)?;
    }
    let result = turn(&daemon, &signals, options);
    if daemon.handed_over.load(Ordering::SeqCst) {
        // Nothing is undone, and no lock is let go of: all of it is another daemon's.
        std::process::exit(0);
    }
    if let Some(runtime) = &daemon.runtime {
        // First, so that nobody knocks at a daemon that ends.
        let _ = std::fs::remove_file(runtime.socket());
    }
    daemon.end();
    if let Some(runtime) = &daemon.runtime {
        let _ = std::fs::remove_file(runtime.rendezvous());
        runtime.forget_server();
        for dir in [runtime.mounts(), runtime.path().join(registry::DIR)] {
            // Whatever is still in it stays.
            let _ = std::fs::remove_dir(dir);
        }
    }
    result
}

fn turn(daemon: &Arc<Daemon>, signals: &SignalFd, options: &Options) -> Result<()> {
    let connections = Arc::new(AtomicUsize::new(0));
    let mut backoff = Backoff::default();
    let (ask_timer, start_timer) = (Timer::new()?, Timer::new()?);
    daemon.watch.add(ask_timer.as_fd(), ASK)?;
    daemon.watch.add(start_timer.as_fd(), START)?;
    let ask = watchdog::start(daemon)?;
    let ended = start_mourner(daemon)?;
    daemon.listen_for_requests(true);
    if options.background && !options.successor {
        announce()?;
    }
    service_manager::ready();
    tracing::info!(pid = std::process::id(), "ready");
    let mut reserve = Reserve::default();
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = match daemon.watch.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other.map_err(|e| Error::io("wait on", "the epoll set", e))?,
        };
        for event in &events[..count] {
            match event.data() {
                LISTENER => {
                    // Whoever knocks after another daemon has taken our place is let in by that one.
                    if let Some(handles) = &daemon.handles {
                        if daemon.handed_over.load(Ordering::SeqCst) {
                            daemon.watch.forget(handles.listener.as_fd());
                            continue;
                        }
                        accept(daemon, &handles.listener, &connections, &mut reserve);
                    }
                }
                SIGNALS => {
                    if let Ok(Some(signal)) = signals.read_signal() {
                        tracing::info!(signal = signal.ssi_signo, "ending");
                        return Ok(());
                    }
                }
                SERVER => {
                    if !daemon.server_has_died() {
                        continue;
                    }
                    tracing::error!("the server died; starting another one");
                    daemon.let_go_of_server();
                    start_server(daemon, &mut backoff, &start_timer);
                }
                START => {
                    start_timer.clear();
                    start_server_now(daemon, &mut backoff, &start_timer);
                }
                token if (REQUEST..ASK).contains(&token) => ask_timer.set(watchdog::AFTER),
                ASK => {
                    ask_timer.clear();
                    // The thread ends with the daemon only.
                    let _ = ask.send(());
                }
                WAKE => {
                    let _ = daemon.watch.wake.read();
                    if daemon.over.load(Ordering::Relaxed)
                        || (options.background && daemon.is_idle(true))
                    {
                        return Ok(());
                    }
                }
                token => {
                    // The thread ends with the daemon only.
                    let _ = ended.send(token.saturating_sub(FIRST_SLOT));
                }
            }
        }
    }
}

/// Start the thread that lets go of containers that have ended. The loop may not: it would wait for the grafter,
/// which may wait for a server, which the loop starts.
fn start_mourner(daemon: &Arc<Daemon>) -> Result<Sender<u64>> {
    let (ended, slots) = std::sync::mpsc::channel();
    let daemon = Arc::clone(daemon);
    std::thread::Builder::new()
        .name("ended".to_owned())
        .spawn(move || {
            for slot in slots {
                daemon.container_ended(slot);
                daemon.watch.wake();
            }
        })
        .map_err(|e| Error::io("start", "a thread", e))?;
    Ok(ended)
}

/// Start a server at once, or later if it dies in a loop.
fn start_server(daemon: &Daemon, backoff: &mut Backoff, timer: &Timer) {
    let delay = backoff.delay(Instant::now());
    if delay.is_zero() {
        start_server_now(daemon, backoff, timer);
    } else {
        tracing::error!(
            ?delay,
            "the server keeps dying: waiting before the next one"
        );
        timer.set(delay);
    }
}

fn start_server_now(daemon: &Daemon, backoff: &mut Backoff, timer: &Timer) {
    if let Err(error) = daemon.start_server(true) {
        let delay = backoff.delay(Instant::now()).max(RETRY);
        tracing::error!(%error, ?delay, "no server can be started; trying again");
        timer.set(delay);
    }
}

fn duplicates(connections: &Connections) -> Result<[OwnedFd; 2]> {
    let copy = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned()
            .map_err(|e| Error::io("duplicate", "/dev/fuse", e))
    };
    let [cached, live] = connections.descriptors();
    Ok([copy(cached)?, copy(live)?])
}

/// Hold the lock until this process ends: not by a value that lets go of it when it is dropped, because it may be
/// handed to another daemon.
fn keep_locked(lock: nix::fcntl::Flock<std::fs::File>) -> Result<OwnedFd> {
    let kept = lock
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| Error::io("duplicate", "the lock", e))?;
    std::mem::forget(lock);
    Ok(kept)
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

/// A daemon of a single command has none: nothing of it outlives it, so it changes nothing of the machine.
fn read_config(options: &Options, predecessor: Option<&Predecessor>) -> Result<Config> {
    if options.private {
        return Ok(Config::default());
    }
    Config::read(&options.config).inspect_err(|error| {
        if let Some(predecessor) = predecessor {
            predecessor.refuse(error);
        }
    })
}
