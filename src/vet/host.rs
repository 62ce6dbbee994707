//! The supervisor's access to processes and views, by descriptors of the host's /proc, and its channel to the daemon.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::vet::{Container, FromVet};
use parking_lot::RwLock;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::figures::Figures;

/// The most bytes of one view. The longest of the three is meminfo, with some 1500.
const MOST: usize = 8192;

/// The host, as the supervisor sees it.
#[derive(Debug)]
pub(super) struct Host {
    proc: OwnedFd,
    /// None while there is no daemon.
    channel: RwLock<Option<Channel>>,
}

impl Host {
    /// Opens /proc.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn open() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            proc: rustix::fs::open("/proc", flags, Mode::empty())?,
            channel: RwLock::new(None),
        })
    }

    /// Has everything said to the daemon at the other end of `channel` from now on.
    pub(super) fn set_channel(&self, channel: Option<Channel>) {
        *self.channel.write() = channel;
    }

    /// Tells the daemon something; without a daemon nobody hears it. Returns none when that is so.
    pub(super) fn tell(&self, packet: &FromVet) -> Option<()> {
        let channel = self.channel.read();
        // A daemon that reads nothing must not hold anybody up.
        channel.as_ref()?.try_send(packet, &[]).ok()
    }

    pub(super) fn has_daemon(&self) -> bool {
        self.channel.read().is_some()
    }

    /// Asks the daemon for the views of a container. Returns none when it cannot be asked.
    pub(super) fn ask_for_views(&self, container: &Container) -> Option<()> {
        self.tell(&FromVet::FindViews(container.clone()))
    }

    /// Reads the views meminfo, uptime and loadavg; none if one of them cannot be read, or lacks a figure.
    pub(super) fn read(&self, views: &[OwnedFd; 3]) -> Option<Figures> {
        let texts: Vec<String> = views
            .iter()
            .map(|view| self.read_view(view))
            .collect::<Result<_, _>>()
            .inspect_err(|error| tracing::debug!(%error, "a view cannot be read"))
            .ok()?;
        Figures::parse(&texts[0], &texts[1], &texts[2])
    }

    /// Reads a view as a program that has just opened it.
    fn read_view(&self, view: &OwnedFd) -> io::Result<String> {
        let path = format!("self/fd/{}", view.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.proc, path.as_str(), flags, Mode::empty())?;
        let mut bytes = vec![0; MOST];
        let count = rustix::io::read(&file, bytes.as_mut_slice())?;
        bytes.truncate(count);
        String::from_utf8(bytes).map_err(io::Error::other)
    }

    /// Opens the memory of a thread. It stays that of this thread, whatever its id means later.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn open_memory(&self, thread: u32) -> Result<OwnedFd, Errno> {
        let path = format!("{thread}/mem");
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        openat(&self.proc, path.as_str(), flags, Mode::empty())
    }
}
