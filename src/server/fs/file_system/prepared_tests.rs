//! Prepared slots, on this host.

use std::sync::Arc;
use std::time::Duration;

use eci_fs_emulators::{Host, Settings};
use eci_fs_protocol::link::Connection;

use super::FileSystem;
use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::fs::Kind;
use crate::server::ids::NodeId;

fn of_this_host() -> Arc<FileSystem> {
    let (settings, freshness) = (Settings::default(), Duration::from_millis(10));
    FileSystem::new(Host::open().unwrap(), None, settings, freshness)
}

/// Walk to a path of a slot.
fn walk_and_look(fs: &FileSystem, connection: Connection, path: &str) -> Result<NodeId, Errno> {
    let mut names = path.split('/');
    names.try_fold(NodeId::ROOT, |at, name| {
        let id = fs.find(connection, at, name)?;
        fs.entry(id).map(|_| id)
    })
}

#[test]
fn what_is_expected_is_walked_to_by_the_nodes_that_it_has_later_and_not_read() {
    let fs = of_this_host();
    let cached = |path| walk_and_look(&fs, Connection::Cached, path);
    let live = |path| walk_and_look(&fs, Connection::Live, path);
    assert_eq!(cached("7/proc/meminfo"), Err(Errno::NOENT));
    fs.prepare(7);
    let (view, tunable) = (cached("7/proc/meminfo"), live("7/proc/sys/kernel/panic"));
    let directory = live("7/sys/devices/system/cpu");
    let beside = cached("7/sys/devices/system/cpu/online");
    for id in [view, tunable, directory, beside] {
        let (attr, timeout) = fs.entry(id.unwrap()).unwrap();
        assert_eq!((attr.size, timeout), (0, Duration::ZERO));
        assert_eq!(attr.kind == Kind::Directory, id == directory);
    }
    assert_eq!(
        fs.attr(Connection::Cached, view.unwrap(), None).err(),
        Some(Errno::NOENT)
    );
    assert_eq!(
        fs.attr(Connection::Live, tunable.unwrap(), None).err(),
        Some(Errno::NOENT)
    );
    assert_eq!(live("7/proc/none"), Err(Errno::NOENT));
    assert_eq!(live("8/proc/meminfo"), Err(Errno::NOENT));

    fs.add(7, Attached::unlimited());
    assert_eq!(cached("7/proc/meminfo"), view);
    assert_eq!(live("7/proc/sys/kernel/panic"), tunable);
    assert_eq!(live("7/sys/devices/system/cpu"), directory);
    // The view is on one connection now.
    assert_eq!(live("7/proc/meminfo"), Err(Errno::NOENT));
    fs.remove(7);
    assert_eq!(cached("7/proc/meminfo"), Err(Errno::NOENT));
}
