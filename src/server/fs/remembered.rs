//! What a server leaves to the next: told to the state before it is told to a container, and taken back from it when
//! this server begins to serve.

use std::io;
use std::time::Duration;

use super::Tree;
use crate::server::clock;
use crate::server::container::Attached;
use crate::server::ids::NodeId;
use crate::server::state::{Begin, NO_SLOT, Record, Remembered};

/// An open file is read from its beginning within this time: one that was opened before may have been read already,
/// and be rewound now.
pub(super) const READ_WITHIN: Duration = Duration::from_secs(1);

impl Tree {
    /// Take over from the server before this one; false while another one serves. Before that nothing may be read.
    ///
    /// # Errors
    /// When it cannot be known who serves.
    pub fn begin(&self) -> io::Result<bool> {
        // Without a table that would have to be kept, no number is given to two files: a server gives them out more
        // slowly than one in a nanosecond.
        self.handles.begin_at(clock::since_boot_nsec());
        let Some(services) = &self.services else {
            return Ok(true);
        };
        let is_served = |slot| slot == NO_SLOT || self.containers.contains_key(&slot);
        match services.state.begin(is_served)? {
            Begin::Another => return Ok(false),
            Begin::Already => {}
            Begin::Read(remembered) => {
                // After another server than this one, that has opened and closed.
                self.close_all();
                services.triggers.disarm_all();
                remembered.into_iter().for_each(|one| self.restore(one));
            }
        }
        self.tell_all();
        Ok(true)
    }

    fn restore(&self, Remembered { record, text }: Remembered) {
        if let Record::Path {
            number,
            directory,
            path,
        } = &record
        {
            // A release before this one had longer numbers. What they stood for is found under its present one.
            if let Ok(number) = u32::try_from(*number) {
                self.paths.restore(number, *directory, path);
            }
            return;
        }
        let Ok(container) = self.container(record.slot()) else {
            return;
        };
        match record {
            Record::History { shown, .. } => container.history().restore(shown),
            Record::Load {
                load, counted_nsec, ..
            } => {
                // Of another boot, perhaps.
                if let Some(counted) = clock::from_nsec(counted_nsec) {
                    self.sampler.restore(&container, load, counted);
                }
            }
            Record::OwnPath {
                number,
                directory,
                path,
                ..
            } => container.paths.restore(number, directory, &path),
            Record::Path { .. } => {}
            Record::Snapshot(snapshot) => self.restore_snapshot(&container, snapshot, text.into()),
            Record::Tunable {
                emulator, value, ..
            } => container.tunables().restore(emulator, &value),
            Record::Trigger(trigger) => {
                if let Some(services) = &self.services {
                    services.triggers.restore(trigger);
                }
            }
        }
    }

    /// Remember the counters that a view has just been computed with.
    pub(super) fn remember_history(&self, container: &Attached) {
        if let Some(services) = &self.services {
            services
                .state
                .put_history(container.slot(), container.history());
        }
    }

    /// Remember a record; it is made only where there is a state.
    pub(super) fn remember(&self, record: impl FnOnce() -> Record, text: &[u8]) {
        if let Some(services) = &self.services {
            services.state.put(&record(), text);
        }
    }

    /// The same of the snapshot of an open file. One that `is_read` is as if it had been opened [`READ_WITHIN`] before:
    /// the next read at its beginning is a rewind, at whichever server.
    pub(super) fn remember_snapshot(
        &self,
        handle: u64,
        id: NodeId,
        request: u64,
        text: &[u8],
        is_read: bool,
    ) {
        let record = || {
            let before = if is_read { READ_WITHIN } else { Duration::ZERO };
            let now = clock::to_nsec(std::time::Instant::now());
            Record::Snapshot(crate::server::state::Snapshot {
                handle,
                node: id.raw(),
                request,
                taken_nsec: now.saturating_sub(u64::try_from(before.as_nanos()).unwrap_or(0)),
            })
        };
        self.remember(record, text);
    }
}
