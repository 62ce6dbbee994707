//! The life of a daemon: it sets everything up, runs the event loop, and undoes everything.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use parking_lot::Mutex;

use super::accept::serve_standard_input;
use super::allocator::bound_arenas;
use super::containers::Containers;
use super::daemon::{ControlEndpoint, Daemon, End};
use super::event_set::{EventSet, LISTENER, SIGNALS};
use super::inherit::{self, Inheritance};
use super::journal::Journal;
use super::list_copy::ListCopy;
use super::listen::listen;
use super::options::Options;
use super::predecessor::Predecessor;
use super::prepare_signal::PrepareSignal;
use super::server_slot::ServerSlot;
use super::standard_streams::write_to_log;
use super::state::{DaemonState, Shared};
use super::supervision::Supervision;
use super::watchdog::Watchdog;
use super::{event_loop, restore, shutdown, views_of};
use crate::broker::Broker;
use crate::config::Config;
use crate::container::procfs::Proc;
use crate::isolation::overlays::Overlays;
use crate::isolation::{self, Isolation};
use crate::output::print_error;
use crate::registry::{Registry, Saved};
use crate::runtime_dir::RuntimeDir;
use crate::service_manager;
use crate::supervisor::Program;
use crate::vet;
use eci_fs_protocol::error::{Error, Kind, Result};

/// Runs the daemon for its whole life, and prints what went wrong.
pub fn main(options: &Options) -> ExitCode {
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if options.background || options.private {
                // The command that started us reads our standard output and prints what it says.
                let line = serde_json::to_string(&error).unwrap_or_default();
                let _ = rustix::io::write(rustix::stdio::stdout(), format!("{line}\n").as_bytes());
            } else {
                print_error("eci-mountd", error);
            }
            ExitCode::FAILURE
        }
    }
}

/// Raises the limit of descriptors. A container costs the daemon and its server several, and what a service manager
/// gives at first (1024) would be used up by a hundred containers. Where the limit cannot be raised there is room for
/// fewer.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of descriptors cannot be raised, ignoring");
    }
}

/// Sets everything up, serves until it is told to end, and undoes everything.
///
/// # Errors
/// The error that keeps it from starting, or that ends the event loop.
pub fn run(options: &Options) -> Result<()> {
    bound_arenas();
    raise_descriptor_limit();
    if !rustix::process::geteuid().is_root() {
        return Err(Error::new(
            Kind::Denied,
            "eci-mountd needs root: it mounts into other mount namespaces",
        )
        .remedy("run it as root"));
    }
    // Before any thread is started, so that every thread has them blocked and the loop alone reads them.
    let signals = block_signals()?;
    if options.background || options.private {
        // The terminal's signals are for the command that started us. If we are a leader already, this fails, which
        // does not matter.
        let _ = rustix::process::setsid();
    }
    // Before any child could inherit them.
    let (stored, stored_calls) = service_manager::take();
    let predecessor = options.successor.then(Predecessor::hear).transpose()?;
    let config = read_config(options, predecessor.as_ref())?;
    let (runtime, own) = if options.private {
        (None, None)
    } else if predecessor.is_some() {
        (Some(RuntimeDir::open(&options.runtime_dir)?), None)
    } else {
        let runtime = RuntimeDir::create(&options.runtime_dir)?;
        let lock = OwnedFd::from(runtime.lock()?);
        if options.background {
            write_to_log(&runtime)?;
        }
        let listener = listen(&runtime.socket())?;
        (Some(runtime), Some(ControlEndpoint { lock, listener }))
    };
    let proc = Arc::new(Proc::open()?);
    let boot_id = proc.read("sys/kernel/random/boot_id")?.trim().to_owned();
    let saved = match &runtime {
        Some(runtime) => Saved::read(runtime)?,
        None => None,
    };
    let program = Program {
        path: options.server()?,
        settings: options.settings(&config),
    };
    let vet_program = vet::Program {
        path: options.server()?,
        settings: options.settings(&config),
    };
    let broker = Broker::default();
    let (inheritance, endpoint) = match predecessor {
        Some(predecessor) => {
            let (inheritance, endpoint) = predecessor.take_over(&proc, &broker)?;
            if let Some(runtime) = &runtime {
                runtime.inherit_lock(&endpoint.lock)?;
            }
            (inheritance, Some(endpoint))
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
        descriptors,
        server,
        connected,
    } = inheritance;
    // Not before the daemon whose place we take has ended.
    if runtime.is_some() {
        let runtime = RuntimeDir::open(&options.runtime_dir)?;
        broker.host_sysctls.open(runtime, &boot_id, config.raise);
    }
    let events = Arc::new(EventSet::new()?);
    let woken = Arc::clone(&events);
    let overlays = Overlays::new()?;
    let isolation = Isolation::new(Arc::clone(&proc), Arc::clone(&overlays), move || {
        woken.wake()
    });
    let isolation = Arc::new(isolation?);
    if runtime.is_some() {
        let runtime = RuntimeDir::open(&options.runtime_dir)?;
        let (claims, user) = (isolation::default_claims(), config.isolation.user.clone());
        isolation.open(runtime, claims, user);
    }
    events.add(signals.as_fd(), SIGNALS)?;
    if let Some(endpoint) = &endpoint {
        events.add(endpoint.listener.as_fd(), LISTENER)?;
    }
    service_manager::store(&connections, &descriptors);
    let requests = connections.duplicates()?;
    let state = DaemonState {
        registry: Registry::new(boot_id, saved.as_ref())?,
        slot: ServerSlot::new(connections, descriptors),
        ending: false,
    };
    let probe = grafter.liveness_probe()?;
    let journal = Arc::new(Journal::new(Arc::clone(&proc), runtime));
    let shared = Arc::new(Shared::new(state));
    let watchdog = Watchdog::new(
        Arc::clone(&shared),
        Arc::clone(&proc),
        probe,
        requests,
        Arc::clone(&events),
    );
    let daemon = Arc::new(Daemon {
        supervision: Supervision {
            shared: Arc::clone(&shared),
            proc: Arc::clone(&proc),
            program: Mutex::new(program),
            broker: broker.clone(),
            events: Arc::clone(&events),
            watchdog: Arc::new(watchdog),
            journal: Arc::clone(&journal),
        },
        containers: Arc::new(Containers {
            shared: Arc::clone(&shared),
            proc,
            grafter,
            broker,
            events,
            journal,
            overlays,
            calls: Arc::default(),
            isolation,
            prepared: Mutex::default(),
            list_copy: ListCopy::default(),
            prepare_signal: PrepareSignal::default(),
        }),
        shared,
        endpoint,
        vet: OnceLock::new(),
        end: End::default(),
    });
    daemon
        .supervision
        .install(&mut daemon.shared.state(), server)?;
    restore::restore(&daemon, saved.as_ref(), &connected)?;
    daemon.containers.broker.set_complete();
    if config.isolation.enabled {
        daemon.containers.isolation.prepare();
    }
    daemon.containers.isolation.start()?;
    if !options.private {
        let runtime = RuntimeDir::open(&options.runtime_dir)?;
        let containers = Arc::clone(&daemon.containers);
        let find_views = Box::new(move |wanted: &_| views_of::find(&containers, wanted));
        let known = Arc::clone(&daemon.containers.calls);
        let sockets = vet::start(&runtime, stored_calls, vet_program, find_views, known)?;
        // It is the first.
        let _ = daemon.vet.set(sockets);
    }

    if options.private {
        serve_standard_input(&daemon)?;
    }
    let result = event_loop::run(&daemon, &signals, options);
    if daemon.end.is_handed_over() {
        // Nothing is undone, and no lock is let go of: all of it is another daemon's.
        std::process::exit(0);
    }
    shutdown::shut_down(&daemon);
    result
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

/// Reads the configuration.
fn read_config(options: &Options, predecessor: Option<&Predecessor>) -> Result<Config> {
    Config::read(&options.location()).inspect_err(|error| {
        if let Some(predecessor) = predecessor {
            predecessor.refuse(error);
        }
    })
}
