//! The choice of the range that a container gets.

use super::Isolation;
use super::claims::Claims;
use super::in_use::InUse;
use super::ranges::IDS;
use super::record::{self, Member, Record};
use super::state::State;
use crate::faults;
use eci_fs_protocol::error::{Error, Kind, Reason, Result};

impl Isolation {
    /// Takes the next free range for a container, and writes that down.
    pub(super) fn take(&self, state: &mut State, key: &str, member: Member) -> Result<u32> {
        state.read_allowed()?;
        // Others may have begun to use ids since the last range was given.
        state.watch.look(&self.proc)?;
        let place = state.place()?;
        let records = place.records()?;
        let locked = Claims::lock(&place.claims)?;
        let claimed = locked.all()?;
        let all = state
            .allowed
            .as_ref()
            .map_or(&[][..], |(_, ranges)| &ranges.first_ids);
        let last = locked.last().unwrap_or(0);
        let after = all.partition_point(|first_id| *first_id <= last);
        let mut now = None;
        for &first_id in all[after..].iter().chain(&all[..after]) {
            if state.overlaps(first_id) {
                continue;
            }
            let near = first_id.saturating_sub(IDS - 1)..=first_id.saturating_add(IDS - 1);
            let near: Vec<u32> = claimed.range(near).copied().collect();
            let is_held = |near: &u32| {
                let claim = locked.of(*near);
                claim.is_some_and(|claim| claim.is_held(&self.proc, *near))
            };
            if near.iter().any(is_held) {
                continue;
            }
            if state.watch.has(first_id) || !near.is_empty() {
                let now = match &mut now {
                    Some(now) => &*now,
                    none => &*none.insert(InUse::read(&self.proc)?),
                };
                let mut doubtful = near.iter().chain([&first_id]);
                if doubtful.any(|first_id| now.user_of(*first_id).is_some()) {
                    continue;
                }
            }
            for left in near {
                locked.remove(left)?;
            }
            let name = record::name_of(key);
            let path = records.path().join(&name);
            locked.put(first_id, member, &path)?;
            faults::kill_at("isolate-claimed");
            let record = Record::new(key.to_owned(), first_id, vec![member]);
            let written = record
                .encode()
                .and_then(|text| records.write(&name, &text))
                .and_then(|()| locked.set_last(first_id));
            if let Err(error) = written {
                let _ = records.remove(&name);
                let _ = locked.remove(first_id);
                return Err(error);
            }
            return Ok(first_id);
        }
        Err(Error::new(
            Kind::Busy,
            format!("all {} ranges of ids for containers are in use", all.len()),
        )
        .remedy(format!(
            "remove a container, or give user {} more ids in /etc/subuid and /etc/subgid",
            place.user
        ))
        .because(Reason::NoRange))
    }
}
