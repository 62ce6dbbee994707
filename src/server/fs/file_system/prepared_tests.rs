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
        // The kernel asks for the attributes of a directory before it looks a name up in it.
        if at != NodeId::ROOT {
            fs.attr(connection, at, None)?;
        }
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
    fs.prepare(7, 0);
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

#[test]
fn a_file_that_is_grafted_alone_has_its_node_before_its_container_comes_and_its_size_later() {
    let fs = of_this_host();
    let live = |path: &str| walk_and_look(&fs, Connection::Live, path);
    fs.prepare(7, 0);
    let disks = std::fs::read_dir("/sys/class/block").unwrap();
    let has_size = |dir: &std::path::PathBuf| {
        std::fs::read_to_string(dir.join("size")).is_ok_and(|size| size.trim() != "0")
    };
    let dir = disks
        .map(|disk| disk.unwrap().path().canonicalize().unwrap())
        .find(has_size);
    let dir = dir.expect("a host with a disk");
    let path = format!("7{}", dir.join("stat").display());
    let stat = live(&path).unwrap();
    let (attr, timeout) = fs.entry(stat).unwrap();
    let looked_at = (attr.kind, attr.size, timeout);
    assert_eq!(looked_at, (Kind::File, 0, Duration::ZERO));
    assert_eq!(
        fs.attr(Connection::Live, stat, None).err(),
        Some(Errno::NOENT)
    );
    for missing in ["dev", "none"] {
        let path = format!("7{}", dir.join(missing).display());
        assert_eq!(live(&path), Err(Errno::NOENT), "{missing}");
    }
    let rows = fs.add(7, Attached::unlimited());
    assert!(rows.iter().any(|row| path[1..] == row.path));
    assert_eq!(live(&path), Ok(stat));
    let (attr, _) = fs.attr(Connection::Live, stat, None).unwrap();
    assert!(attr.size > 100 && attr.mode == 0o444, "{attr:?}");
}
