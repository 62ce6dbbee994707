//! The ends of members, of which a thread hears by their pidfds.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::Isolation;
use super::record::Member;
use super::state::{LiveMember, State};
use crate::container::has_ended;
use crate::{faults, threads};
use eci_fs_protocol::error::{Error, Result};

impl Isolation {
    /// Starts the thread that hears of the ends of members, if something was taken over. Otherwise the first range does.
    ///
    /// # Errors
    /// When there are no more threads.
    pub fn start(self: &Arc<Self>) -> Result<()> {
        let mut state = self.state.lock();
        match state.is_idle() {
            true => Ok(()),
            false => self.start_thread(&mut state),
        }
    }

    pub(super) fn start_thread(self: &Arc<Self>, state: &mut State) -> Result<()> {
        if state.has_thread {
            return Ok(());
        }
        let this = Arc::clone(self);
        threads::start("ranges", threads::Mend::Again, move || {
            loop {
                this.hear_of_ends();
            }
        })?;
        state.has_thread = true;
        Ok(())
    }

    /// Frees what nobody holds, and waits for the end of a member.
    fn hear_of_ends(&self) {
        if self.free_those_without_members() {
            (self.wake)();
        }
        let mut events = Vec::with_capacity(64);
        if let Err(error) = epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
            tracing::debug!(%error, "ignoring");
        }
        faults::at("ranges");
        let mut state = self.state.lock();
        let joined = state.joined.len();
        for event in &events {
            let token = event.data.u64();
            for held in state.held.values_mut() {
                held.members.retain(|member| member.token != token);
            }
            state.joined.retain(|one| one.token != token);
        }
        let has_lost_joined = state.joined.len() < joined;
        drop(state);
        if has_lost_joined {
            (self.wake)();
        }
    }

    /// Has the thread hear of the end of a member.
    pub(super) fn watch(
        &self,
        state: &mut State,
        member: Member,
        pidfd: OwnedFd,
    ) -> Result<LiveMember> {
        let token = state.next_token;
        state.next_token += 1;
        epoll::add(
            &self.epoll,
            &pidfd,
            EventData::new_u64(token),
            EventFlags::IN,
        )
        .map_err(|e| Error::io("watch", "a process", e))?;
        Ok(LiveMember {
            member,
            pidfd,
            token,
            watched: None,
        })
    }

    /// Frees the ranges whose members have all ended, also where the thread has not heard of that.
    pub(super) fn free_those_that_have_ended(&self) {
        let ended = |one: &LiveMember| has_ended(one.pidfd.as_fd()).unwrap_or(false);
        let mut state = self.state.lock();
        for held in state.held.values_mut() {
            held.members.retain(|one| !ended(one));
        }
        state.joined.retain(|one| !ended(one));
        drop(state);
        self.free_those_without_members();
    }
}
