//! The ranges that are given, as a daemon knows them, and the places where it writes that down.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::in_use::Watch;
use super::ranges::{Files, IDS, Ranges};
use super::record::{self, Member};
use super::without_views::Watched;
use crate::runtime_dir::RuntimeDir;
use eci_fs_protocol::error::{Error, Result};

#[derive(Debug, Default)]
pub(super) struct State {
    /// None for a daemon of a single command.
    pub(super) place: Option<Place>,
    /// Set once, when the daemon ends: nobody is given a range or the stage any more.
    pub(super) ending: bool,
    /// The ranges that are given, by their first ids.
    pub(super) held: BTreeMap<u32, Held>,
    /// The runtimes of containers that join a user namespace whose range this daemon has not given. They use the stage.
    pub(super) joined: Vec<LiveMember>,
    pub(super) next_token: u64,
    /// True if the thread that waits for the ends of members has been started.
    pub(super) has_thread: bool,
    /// The ids that processes had at the last look.
    pub(super) watch: Watch,
    /// The ranges that may be given, and the stamp of the files that say so.
    pub(super) allowed: Option<(String, Ranges)>,
    /// The first id of the range that is probably given next, and true if its user namespace is to be root's.
    pub(super) expected: Option<(u32, bool)>,
}

/// The places of what a daemon writes down, and of what it reads.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) runtime: RuntimeDir,
    pub(super) claims: PathBuf,
    pub(super) files: Files,
    pub(super) user: String,
}

/// A range that is given.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) key: String,
    pub(super) members: Vec<LiveMember>,
}

#[derive(Debug)]
pub(super) struct LiveMember {
    pub(super) member: Member,
    pub(super) pidfd: OwnedFd,
    pub(super) token: u64,
    /// Its overlays, if it has no views.
    pub(super) watched: Option<Watched>,
}

impl State {
    /// Returns the places.
    ///
    /// # Errors
    /// For a daemon of a single command.
    pub(super) fn place(&self) -> Result<&Place> {
        self.place.as_ref().ok_or_else(|| {
            Error::refused("a daemon of a single command cannot isolate containers")
                .remedy("start the service eci-mountd")
        })
    }

    /// Returns the places for a container that is to hold something from now on.
    ///
    /// # Errors
    /// As [`Self::place`], and [`Error::ending`] when the daemon ends.
    pub(super) fn place_to_hold(&self) -> Result<&Place> {
        if self.ending {
            return Err(Error::ending());
        }
        self.place()
    }

    /// Reads which ranges may be given, if that has changed.
    pub(super) fn read_allowed(&mut self) -> Result<()> {
        let place = self.place()?;
        let stamp = place.files.stamp();
        if self
            .allowed
            .as_ref()
            .is_some_and(|(known, _)| *known == stamp)
        {
            return Ok(());
        }
        let ranges = place.files.ranges(&place.user)?;
        for overlap in &ranges.overlaps {
            tracing::info!("no container gets the ids around: {overlap}");
        }
        self.allowed = Some((stamp, ranges));
        Ok(())
    }

    /// Returns true if a range that is given has ids of this one.
    pub(super) fn overlaps(&self, first_id: u32) -> bool {
        let near = first_id.saturating_sub(IDS - 1)..=first_id.saturating_add(IDS - 1);
        self.held.range(near).next().is_some()
    }

    /// Returns the range that is given and has the id `id`, by its first id.
    pub(super) fn range_with(&self, id: u32) -> Option<u32> {
        let (first_id, _) = self.held.range(..=id).next_back()?;
        (id - first_id < IDS).then_some(*first_id)
    }

    /// Returns true if no range is given, and nobody uses the stage.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.joined.is_empty()
    }

    /// Returns the first id of the range that comes after this one and is not given.
    pub(super) fn next_after(&self, first_id: u32) -> Option<u32> {
        let all = &self.allowed.as_ref()?.1.first_ids;
        let after = all.partition_point(|other| *other <= first_id);
        let mut turn = all[after..].iter().chain(&all[..after]);
        turn.find(|first_id| !self.overlaps(**first_id)).copied()
    }

    /// Returns the ranges that nobody holds.
    pub(super) fn without_members(&self) -> Vec<u32> {
        let all = self.held.iter();
        let without = all.filter(|(_, held)| held.members.is_empty());
        without.map(|(first_id, _)| *first_id).collect()
    }
}

impl Place {
    pub(super) fn records(&self) -> Result<RuntimeDir> {
        self.runtime.subdirectory(record::DIR)
    }
}
