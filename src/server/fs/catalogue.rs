//! The catalogue of a container: everything that can be grafted into it.

use std::sync::Arc;

use eci_fs_emulators::{DIRECTORIES, EMULATORS, directory};
use eci_fs_protocol::link::{Connection, Row};

use super::render::Renderer;
use crate::server::container::Attached;

/// Makes catalogues.
#[derive(Debug)]
pub(super) struct Catalogue {
    renderer: Arc<Renderer>,
    /// For each of [`EMULATORS`], whether it can be cached on this host.
    cacheable: Vec<bool>,
}

impl Catalogue {
    /// Finds out which views can be cached; with `padding`, those that are padded too.
    pub(super) fn new(renderer: Arc<Renderer>, padding: bool) -> Self {
        let unlimited = Attached::unlimited();
        let cx = unlimited.context(renderer.host(), renderer.settings(), None);
        let cacheable = (0..EMULATORS.len())
            .map(|index| Attached::can_cache(index, &cx, padding))
            .collect();
        Self {
            renderer,
            cacheable,
        }
    }

    /// Returns one row for each view and directory graft that exists for a container; directories first, because views
    /// are grafted over what lies in them. The container is told what it has.
    pub(super) fn of(&self, container: &Attached) -> Vec<Row> {
        let _together = self.renderer.host().batch_stats();
        let mut rows = Vec::new();
        let cx = self.renderer.context(container, directory::NEEDS);
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
            let all_live = self.renderer.freshness(container).bound.is_zero();
            let cached = !writable && !all_live && self.cacheable[index];
            let connection = if cached {
                Connection::Cached
            } else {
                Connection::Live
            };
            container.set_served(index, connection, mode);
            if !emulator.is_offered(&cx) {
                continue;
            }
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
