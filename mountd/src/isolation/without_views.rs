//! The overlays of containers that are isolated and have no views. The list of attached containers has the others.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::Isolation;
use super::joining::{range_of, write};
use super::overlays::Overlays;
use super::record::{EngineOverlay, Record};
use super::state::LiveMember;
use eci_fs_protocol::error::{Error, Result};

/// The bit that tells the numbers of members in [`Overlays`] from slots.
const OF_MEMBERS: u64 = 1 << 63;

/// The overlays of a member, which are watched until this is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    overlays: Arc<Overlays>,
    number: u64,
    /// The path of the one that the engine has mounted.
    pub(super) engine_root: PathBuf,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.overlays.forget(self.number);
    }
}

impl Isolation {
    /// Makes the process of a container a member of its range, and keeps its overlays in step until it has ended: that of the
    /// engine at `engine_root`, and its own. Their roots are open for reading.
    ///
    /// # Errors
    /// When the process has no range of this daemon or has ended, an overlay cannot be watched, and when that cannot be
    /// written down.
    pub(crate) fn watch_overlays(
        self: &Arc<Self>,
        pidfd: OwnedFd,
        engine_root: PathBuf,
        [engine, container]: [OwnedFd; 2],
    ) -> Result<()> {
        let member = self.member(pidfd.as_fd())?;
        let range = range_of(&self.proc, member.pid)?;
        let mut state = self.state.lock();
        let range = range.and_then(|range| state.range_with(range.first_id));
        let Some(first_id) = range else {
            return Err(Error::refused(format!(
                "process {} has no ids that this daemon gave",
                member.pid
            )));
        };
        self.add_member(&mut state, first_id, member, pidfd)?;
        let held = state.held.get_mut(&first_id);
        let mut members = held.into_iter().flat_map(|held| &mut held.members);
        if let Some(live) = members.find(|one| one.member == member) {
            let number = OF_MEMBERS | live.token;
            self.overlays.watch(number, engine, container)?;
            live.watched = Some(self.watched(number, engine_root));
        }
        match state.held.get(&first_id) {
            Some(held) => write(&state, &Record::of(first_id, held)),
            None => Ok(()),
        }
    }

    fn watched(&self, number: u64, engine_root: PathBuf) -> Watched {
        Watched {
            overlays: Arc::clone(&self.overlays),
            number,
            engine_root,
        }
    }

    /// Watches again what the daemon before has watched.
    pub(super) fn watch_again(&self, members: &mut [LiveMember], all: &[EngineOverlay]) {
        for member in members {
            let pid = member.member.pid;
            let Some(EngineOverlay { path, .. }) = all.iter().find(|one| one.pid == pid) else {
                continue;
            };
            let number = OF_MEMBERS | member.token;
            match self.overlays.watch_again(number, &self.proc, pid, path) {
                Ok(()) => member.watched = Some(self.watched(number, path.clone())),
                Err(error) => {
                    tracing::warn!(pid, %error, "an engine may see old names in the files of its container");
                }
            }
        }
    }
}
