//! Members that join a range: the runtime of a container that joins the user namespace of another one, and the init of each
//! container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::ranges::IDS;
use super::record::{self, Member, Record};
use super::state::State;
use super::{Isolation, check_key, stage};
use crate::container::procfs::Proc;
use crate::container::{Subject, has_ended};
use eci_fs_protocol::control::{IdRange, Isolated};
use eci_fs_protocol::error::{Error, Result};

impl Isolation {
    /// Makes the runtime of the container `key`, which is the process behind `pidfd`, a member of the range of another
    /// container. `other` is the pidfd of a process in the user namespace of that one. Returns the ids, and the namespace.
    /// If this daemon has not given the range, the runtime holds the stage alone.
    ///
    /// # Errors
    /// When one of the two processes has ended, the namespace is the host's, maps its ids in parts, or has an id of a user
    /// of the host or a part of a range, or the member cannot be written down.
    pub fn join_container(
        self: &Arc<Self>,
        key: &str,
        pidfd: OwnedFd,
        other: BorrowedFd<'_>,
    ) -> Result<(Isolated, OwnedFd)> {
        check_key(key)?;
        let member = self.member(pidfd.as_fd())?;
        let pid = self.proc.pid_of(other)?;
        let namespace = self
            .proc
            .open_at(&format!("{pid}/ns/user"), OFlags::RDONLY)?;
        let [uids, gids] = ["uid_map", "gid_map"].map(|file| self.proc.id_map(pid, file));
        let (uids, gids) = (uids?, gids?);
        // Only now it is sure that all this was of that process.
        if has_ended(other)? {
            return Err(Error::process_ended());
        }
        let [(0, first_id, ids)] = uids[..] else {
            return Err(maps_in_parts(pid));
        };
        if uids != gids {
            return Err(maps_in_parts(pid));
        }
        if first_id == 0 {
            return Err(Error::refused(format!(
                "process {pid} is in the user namespace of the host, or its root is the host's"
            )));
        }
        let mut state = self.state.lock();
        let range = range_to_join(&state, first_id, ids)?;
        if range.is_none() {
            state.place_to_hold()?.files.check_foreign(first_id, ids)?;
        }
        let stage = stage::ensure(&state.place_to_hold()?.runtime)?;
        self.start_thread(&mut state)?;
        match range {
            Some(range) => self.add_member(&mut state, range, member, pidfd)?,
            None => {
                let live = self.watch(&mut state, member, pidfd)?;
                state.joined.push(live);
            }
        }
        tracing::info!(key, first_id, pid = member.pid, "range joined");
        let isolated = Isolated {
            first_id,
            ids,
            stage,
        };
        Ok((isolated, namespace))
    }

    /// Makes the process of a container a member of the range that its user namespace has, if that is one of ours. Returns
    /// the ids that it has, if they are not the host's.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn join(&self, subject: &Subject) -> Result<Option<IdRange>> {
        let Some(range) = range_of(&self.proc, subject.pid)? else {
            return Ok(None);
        };
        let mut state = self.state.lock();
        let Some(first_id) = state.range_with(range.first_id) else {
            return Ok(Some(range));
        };
        let member = Member {
            pid: subject.pid,
            start_ticks: subject.start_ticks,
        };
        let pidfd = subject.duplicate()?.pidfd;
        self.add_member(&mut state, first_id, member, pidfd)?;
        Ok(Some(range))
    }

    pub(super) fn add_member(
        &self,
        state: &mut State,
        first_id: u32,
        member: Member,
        pidfd: OwnedFd,
    ) -> Result<()> {
        let Some(held) = state.held.get(&first_id) else {
            return Ok(());
        };
        if held.members.iter().any(|one| one.member == member) {
            return Ok(());
        }
        let mut record = Record::of(first_id, held);
        record.members.push(member);
        write(state, &record)?;
        let live = self.watch(state, member, pidfd)?;
        if let Some(held) = state.held.get_mut(&first_id) {
            held.members.push(live);
        }
        Ok(())
    }
}

/// Writes down a range that is given.
pub(super) fn write(state: &State, record: &Record) -> Result<()> {
    let (name, text) = (record::name_of(&record.key), record.encode()?);
    state.place()?.records()?.write(&name, &text)
}

/// Returns the range of which a user namespace with these ids is, by its first id; none if it has no id of ours.
///
/// # Errors
/// When it has a part of our ranges: then it is one that a process of a container has made in that.
fn range_to_join(state: &State, first_id: u32, ids: u32) -> Result<Option<u32>> {
    let last = first_id.saturating_add(ids.saturating_sub(1));
    if ids == IDS && state.held.contains_key(&first_id) {
        return Ok(Some(first_id));
    }
    let is_ours =
        state.range_with(first_id).is_some() || state.held.range(first_id..=last).next().is_some();
    if !is_ours {
        return Ok(None);
    }
    Err(Error::refused(format!(
        "the user namespace has the ids {first_id} to {last}, which are not those of one container"
    )))
}

fn maps_in_parts(pid: i32) -> Error {
    Error::refused(format!(
        "the user namespace of process {pid} maps its ids in parts, and a container that joins it cannot be isolated"
    ))
}

/// Returns the ids of the host that a process has in its user namespace, from its 0 on; none if it is in the host's user
/// namespace, or 0 is nobody there.
///
/// # Errors
/// When the process has ended.
pub fn range_of(proc: &Proc, pid: i32) -> Result<Option<IdRange>> {
    let rows = proc.id_map(pid, "uid_map")?;
    let root = rows
        .into_iter()
        .find(|(inside, _, ids)| *inside == 0 && *ids > 0);
    let own = root.filter(|(_, first_id, ids)| (*first_id, *ids) != (0, u32::MAX));
    Ok(own.map(|(_, first_id, ids)| IdRange { first_id, ids }))
}

#[cfg(test)]
mod tests {
    use super::super::state::Held;
    use super::*;

    #[test]
    fn a_user_namespace_has_a_whole_range_of_ours_or_no_id_of_one() {
        let mut state = State::default();
        let held = Held {
            key: "a".to_owned(),
            members: Vec::new(),
        };
        state.held.insert(2 * IDS, held);
        let range = |first_id, ids| range_to_join(&state, first_id, ids).ok();
        assert_eq!(range(2 * IDS, IDS), Some(Some(2 * IDS)));
        assert_eq!(range(IDS, IDS), Some(None));
        assert_eq!(range(3 * IDS, IDS), Some(None));
        // A user namespace in a container, and one around it.
        for (first_id, ids) in [
            (2 * IDS, IDS - 1),
            (2 * IDS, 1),
            (2 * IDS, IDS + 1),
            (2 * IDS + 1, 1),
            (IDS, 2 * IDS),
        ] {
            assert_eq!(range(first_id, ids), None, "{first_id} {ids}");
        }
    }
}
