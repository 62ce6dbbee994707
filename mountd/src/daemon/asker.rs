//! The command that asks for something.

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::error::{Error, Result};

/// The command at the other end of a control connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    channel: &'a Channel,
    /// Its process.
    pub(super) pid: i32,
}

impl<'a> Asker<'a> {
    pub(super) fn new(channel: &'a Channel, pid: i32) -> Self {
        Self { channel, pid }
    }

    /// Checks that the command still waits for its answer. One that has given up has told its user that nothing was done.
    /// A daemon that was stopped, or busy for long, finds such requests when it goes on.
    ///
    /// # Errors
    /// [`Error::command_gone`].
    pub(super) fn check(self) -> Result<()> {
        match self.channel.is_closed() {
            Ok(false) => Ok(()),
            Ok(true) => Err(Error::command_gone()),
            Err(error) => Err(Error::io("look at", "a control connection", error)),
        }
    }
}
