//! Computing a view: with what, and where its text goes.

use eci_fs_emulators::{Context, EMULATORS, Needs};

use super::Tree;
use crate::server::container::{Attached, Version};
use crate::server::error::Errno;
use crate::server::faults::{self, Point};

/// Room to compute a view in that is kept for the next.
const LONGEST_ROOM: usize = 1 << 16;

impl Tree {
    /// Returns what a view of a container with these needs is computed from at this moment.
    pub(super) fn context<'a>(&'a self, container: &'a Attached, needs: Needs) -> Context<'a> {
        // Where nothing depends on limits, nobody need look whether one has changed.
        let services = self.services.as_ref().filter(|_| needs.cgroup);
        if services.is_some_and(|services| services.watcher.is_behind()) {
            container.forget_limits();
        }
        let settings = container.settings.as_ref().unwrap_or(&self.settings);
        let sampler = needs.load.then_some(&self.sampler);
        container.context(&self.host, settings, sampler).only(needs)
    }

    /// Compute a view now, and make something of its text.
    pub(super) fn render<T>(
        &self,
        container: &Attached,
        index: usize,
        make: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Errno> {
        let mut room = self.rooms.lock().pop().unwrap_or_default();
        let cx = self.context(container, EMULATORS[index].facts().needs);
        let result = container.render(index, &cx, self.padding, &mut room);
        let made = result.map(|()| {
            self.remember_history(container);
            faults::at(Point::Render);
            make(&room)
        });
        if room.capacity() <= LONGEST_ROOM {
            room.clear();
            self.rooms.lock().push(room);
        }
        made
    }

    /// Compute a view now, and make it the version that is served.
    pub(super) fn renew(&self, container: &Attached, index: usize) -> Result<Version, Errno> {
        let started = std::time::Instant::now();
        self.render(container, index, |text| {
            container.replace(index, text, started)
        })
    }
}
