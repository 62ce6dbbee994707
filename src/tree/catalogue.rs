//! What can be grafted into a container.

use eci_fs_emulators::{DIRECTORIES, EMULATORS, directory};
use eci_fs_mountd::protocol::link::{Connection, Row};

use super::Tree;
use crate::container::Attached;

impl Tree {
    /// One row for each view and directory graft that exists for this container; directories first, because views
    /// are grafted over what lies in them.
    pub(super) fn catalogue(&self, container: &Attached) -> Vec<Row> {
        let _batch = self.host.batch_stats();
        let mut rows = Vec::new();
        let cx = self.context(container, directory::NEEDS);
        let mut directories = Vec::new();
        for directory in DIRECTORIES.iter().filter(|directory| directory.exists(&cx)) {
            directories.push(directory.facts().id);
            rows.push(Row {
                path: directory.facts().path.to_owned(),
                connection: Connection::Live,
                writable: directory.is_namespaced(),
                directory: true,
            });
        }
        container.set_directories(directories);
        for (index, emulator) in EMULATORS.iter().enumerate() {
            if !emulator.exists(&cx) {
                continue;
            }
            let mode = emulator.mode(&cx);
            let writable = mode & 0o222 != 0;
            let all_live = self.freshness_of(container).bound.is_zero();
            let cached = !writable && !all_live && self.cacheable[index];
            let connection = if cached {
                Connection::Cached
            } else {
                Connection::Live
            };
            container.set_served(index, connection, mode);
            rows.push(Row {
                path: emulator.facts().path.to_owned(),
                connection,
                writable,
                directory: false,
            });
        }
        rows
    }
}
