//! The end of a range: its last member has ended, and no other process has an id of it.

use super::Isolation;
use super::claims::Claims;
use super::in_use::InUse;
use super::record::{self, Member};
use super::state::State;
use crate::container::open_pidfd;
use crate::faults;
use eci_fs_protocol::error::Result;

/// The times that a range is looked at whose last process ends just then.
const ATTEMPTS: usize = 10;

impl Isolation {
    /// Frees the ranges that have no members, if no process has an id of them. Returns true if one became free.
    pub(super) fn free_those_without_members(&self) -> bool {
        let mut freed = false;
        for _ in 0..ATTEMPTS {
            let without = self.state.lock().without_members();
            if without.is_empty() {
                break;
            }
            // Without the lock: this takes long where there are many processes.
            let in_use = match InUse::read(&self.proc) {
                Ok(in_use) => in_use,
                Err(error) => {
                    tracing::error!(%error, "ranges stay in use");
                    break;
                }
            };
            for first_id in without {
                let mut state = self.state.lock();
                if state.without_members().contains(&first_id) {
                    freed |= self.settle(&mut state, first_id, &in_use);
                }
            }
        }
        freed
    }

    /// Frees a range that has no members; if a process has an id of it, that becomes its member. Returns true if it is
    /// free.
    pub(super) fn settle(&self, state: &mut State, first_id: u32, in_use: &InUse) -> bool {
        let Some(held) = state
            .held
            .get(&first_id)
            .filter(|held| held.members.is_empty())
        else {
            return false;
        };
        let (key, name) = (held.key.clone(), record::name_of(&held.key));
        let settled = (|| {
            let place = state.place()?;
            let records = place.records()?;
            let path = records.path().join(&name);
            let locked = Claims::lock(&place.claims)?;
            let is_ours = locked.of(first_id).is_none_or(|claim| claim.record == path);
            if is_ours && let Some(pid) = in_use.user_of(first_id) {
                drop(locked);
                return self.keep_for(state, first_id, pid).map(|()| false);
            }
            records.remove(&name)?;
            faults::kill_at("release-record");
            if is_ours {
                locked.remove(first_id)?;
            }
            Ok(true)
        })();
        match settled {
            Ok(false) => false,
            Ok(true) => {
                tracing::info!(key, first_id, "range free");
                state.held.remove(&first_id);
                true
            }
            Err(error) => {
                // What is left is found before the range is given again.
                tracing::warn!(%error, key, first_id, "the range is free, but that is not noted");
                state.held.remove(&first_id);
                true
            }
        }
    }

    /// Makes a process a member that has an id of the range. If it has just ended, the range is looked at again.
    pub(super) fn keep_for(&self, state: &mut State, first_id: u32, pid: i32) -> Result<()> {
        let opened = open_pidfd(pid).and_then(|pidfd| Ok((pidfd, self.proc.process(pid)?)));
        let Ok((pidfd, process)) = opened else {
            return Ok(());
        };
        let member = Member {
            pid,
            start_ticks: process.start_ticks,
        };
        self.add_member(state, first_id, member, pidfd)?;
        tracing::info!(first_id, pid, "a process still has an id of the range");
        Ok(())
    }
}
