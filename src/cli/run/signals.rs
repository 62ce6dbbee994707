//! Passing signals on to the container, except those that the terminal sent to its processes already.

use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;

use eci_fs_mountd::container::open_pidfd;
use eci_fs_protocol::error::{Error, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use rustix::event::{PollFd, PollFlags};

/// The signals that are passed on.
const PASSED_ON: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
];

/// The signals that are passed on: blocked, and readable from a descriptor.
#[derive(Debug)]
pub(in super::super) struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks these signals and those in `also`, for this thread and for threads that it starts later.
    pub(in super::super) fn block_with(also: &[Signal]) -> Result<Self> {
        let trouble = |e| Error::io("block", "signals", e);
        let mut set = SigSet::empty();
        for signal in PASSED_ON.iter().chain(also) {
            set.add(*signal);
        }
        set.thread_block().map_err(trouble)?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(trouble)?;
        Ok(Self { fd })
    }

    /// Blocks the signals that are passed on.
    pub(super) fn block() -> Result<Self> {
        Self::block_with(&[])
    }

    /// Returns the next pending signal.
    pub(in super::super) fn next(&self) -> Option<siginfo> {
        self.fd.read_signal().ok().flatten()
    }

    /// Returns a descriptor that is readable when a signal is pending.
    pub(super) fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns the signal if a process sent it. The terminal sends its signals (SI_KERNEL) to the whole foreground process
/// group, so the command has those already.
pub(super) fn sent_by_a_process(info: &siginfo) -> Option<Signal> {
    let signal = i32::try_from(info.ssi_signo)
        .ok()
        .and_then(|number| Signal::try_from(number).ok())?;
    (info.ssi_code <= 0 && PASSED_ON.contains(&signal)).then_some(signal)
}

/// Passes signals on to the init until the stage has ended. Returns the exit code.
pub(super) fn pass_on_until_end(
    signals: &Signals,
    init: &OwnedFd,
    stage: &mut Child,
) -> Result<u8> {
    let ended = open_pidfd(i32::try_from(stage.id()).unwrap_or(0))?;
    loop {
        let signal_fd = signals.as_fd();
        let mut wait = [
            PollFd::new(&signal_fd, PollFlags::IN),
            PollFd::new(&ended, PollFlags::IN),
        ];
        match rustix::event::poll(&mut wait, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(|e| Error::io("wait for", "the container", e))?,
        };
        let stage_ended = !wait[1].revents().is_empty();
        while let Some(info) = signals.next() {
            if let Some(signal) = sent_by_a_process(&info)
                && let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32)
            {
                // This fails only when the container has just ended.
                let _ = rustix::process::pidfd_send_signal(init, signal);
            }
        }
        if stage_ended {
            let status = stage
                .wait()
                .map_err(|e| Error::io("wait for", "the container", e))?;
            return Ok(exit_code(status));
        }
    }
}

/// Returns the exit code as shells do: the code, or 128 and the number of the signal.
pub(super) fn exit_code(status: std::process::ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(255);
    u8::try_from(code).unwrap_or(255)
}
