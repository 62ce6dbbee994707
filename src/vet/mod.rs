//! The supervisor of system calls (`eci-vet`), a process of its own. It answers the calls of isolated containers that would
//! tell about the host, and that no file system can answer: sysinfo(2).
//!
//! The kernel reports a trapped call at a listener. The daemon keeps all listeners, starts the supervisor with them, and
//! starts another one when it dies. docs/architecture.md ("The supervisor of system calls") describes both.
//!
//! | file | what it does |
//! |---|---|
//! | this | follows the daemon, and waits for the next one |
//! | `pool` | hears of calls, and answers them |
//! | `container` | the figures of a container, and the share of it |
//! | `figures` | `struct sysinfo` |
//! | `host` | reads views, opens the memory of threads, speaks to the daemon |
//! | `journal` | takes requests, so that none is lost with this process |
//! | `turns` | the listeners that wait for a later moment |
//! | `sandbox` | gives up everything else |

mod container;
mod figures;
mod host;
mod journal;
mod pool;
mod sandbox;
mod turns;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::vet::{FromVet, Listener, PAGE, ToVet, VERSION};
use rustix::event::epoll::{self, CreateFlags};
use rustix::net::SocketFlags;
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use container::Settings;
use host::Host;
use journal::Journal;
use pool::Pool;

/// The supervisor, as the daemon speaks to it.
struct Vet {
    host: Arc<Host>,
    pool: Arc<Pool>,
    journal: OwnedFd,
    rendezvous: OwnedFd,
}

/// Answers calls, for the daemon at the other end of `channel` and for those after it, until the last listener has ended and
/// there is no daemon.
///
/// # Errors
/// When the first packet is not what it must be, or privileges cannot be given up.
pub fn serve(channel: OwnedFd) -> io::Result<()> {
    end_with_the_first_panic();
    let channel = Channel::new(channel);
    let Some((first, fds)) = channel.recv::<ToVet>()? else {
        return Ok(());
    };
    let vet = match start(&first, fds) {
        Ok(vet) => vet,
        Err(error) => {
            let why = error.to_string();
            channel.send(&FromVet::Failed { why }, &[])?;
            return Err(error);
        }
    };
    channel.send(&FromVet::Started, &[])?;
    vet.follow(channel)?;
    loop {
        if vet.pool.is_empty() {
            return Ok(());
        }
        let next = rustix::net::accept_with(&vet.rendezvous, SocketFlags::CLOEXEC)?;
        vet.hand_over(&Channel::new(next))?;
    }
}

/// Has a panic of any thread end the process. A process that has lost a thread may leave calls without an answer; the next one
/// answers them all.
fn end_with_the_first_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::abort();
    }));
}

fn start(first: &ToVet, fds: Vec<OwnedFd>) -> io::Result<Vet> {
    let ToVet::Start {
        version,
        freshness_ms,
        cpu_share,
    } = *first
    else {
        return Err(io::Error::other("the daemon did not say how to start"));
    };
    check(version)?;
    let fds = <[OwnedFd; 2]>::try_from(fds);
    let [journal, rendezvous] =
        fds.map_err(|_| io::Error::other("the daemon did not hand over the journal"))?;
    let host = Arc::new(Host::open()?);
    let memory = Journal::of(&journal)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let timer = timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )?;
    sandbox::confine()?;
    let settings = Settings {
        freshness: Duration::from_millis(freshness_ms),
        share: cpu_share,
    };
    Ok(Vet {
        pool: Pool::start(Arc::clone(&host), memory, settings, epoll, timer)?,
        host,
        journal,
        rendezvous,
    })
}

fn check(version: u32) -> io::Result<()> {
    if version == VERSION {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "eci-mountd speaks version {version} to the supervisor, which speaks version {VERSION}"
    )))
}

impl Vet {
    /// Does what the daemon says, until it is gone.
    fn follow(&self, channel: Channel) -> io::Result<()> {
        let heard = Channel::new(channel.as_fd().try_clone_to_owned()?);
        self.host.set_channel(Some(channel));
        loop {
            match heard.recv::<ToVet>() {
                Ok(Some((packet, fds))) => self.take(packet, fds),
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(%error, "a packet of the daemon is no packet, ignoring");
                }
                Err(error) => {
                    tracing::warn!(%error, "the daemon cannot be heard");
                    break;
                }
            }
        }
        self.host.set_channel(None);
        Ok(())
    }

    fn take(&self, packet: ToVet, fds: Vec<OwnedFd>) {
        match packet {
            ToVet::Listen(name) => {
                let Ok([fd]) = <[OwnedFd; 1]>::try_from(fds) else {
                    return tracing::warn!(?name, "a listener came without its descriptor");
                };
                if let Err(error) = self.pool.add(name, fd) {
                    pool::give_up("calls of a container cannot be waited for", &error);
                }
            }
            ToVet::Views(name) => {
                let views = <[OwnedFd; 3]>::try_from(fds).ok();
                self.pool.name_views(&name, views);
            }
            ToVet::End => std::process::exit(0),
            ToVet::Start { .. } | ToVet::HandOver { .. } => {
                tracing::warn!("the supervisor has a daemon already");
            }
        }
    }

    /// Hands everything to the next daemon. It starts a supervisor of its own when this process has ended. Answers go on until
    /// then.
    fn hand_over(&self, next: &Channel) -> io::Result<()> {
        match next.recv::<ToVet>() {
            Ok(Some((ToVet::HandOver { version }, _))) if check(version).is_ok() => {}
            other => {
                tracing::warn!(
                    ?other,
                    "what came to the rendezvous is no daemon of this release"
                );
                return Ok(());
            }
        }
        let held = self.pool.held()?;
        let pages = held.len().div_ceil(PAGE).max(1);
        for page in 0..pages {
            let part = &held[page * PAGE..held.len().min((page + 1) * PAGE)];
            let listeners: Vec<Listener> = part.iter().map(|(name, _)| name.clone()).collect();
            let journal = (page == 0).then(|| self.journal.as_fd());
            let fds: Vec<_> = journal
                .into_iter()
                .chain(part.iter().map(|(_, fd)| fd.as_fd()))
                .collect();
            let last = page + 1 == pages;
            if let Err(error) = next.send(&FromVet::Held { listeners, last }, &fds) {
                tracing::warn!(%error, "the next daemon is gone");
                return Ok(());
            }
        }
        // It ends us when it has them all. If it dies before, there will be another one.
        if let Ok(Some((ToVet::End, _))) = next.recv::<ToVet>() {
            std::process::exit(0);
        }
        Ok(())
    }
}
