//! The file system without a mount, on a recorded host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use archive::Archive;
use eci_fs_emulators::{EMULATORS, Host, Settings};
use eci_fs_protocol::facts::{Facts, HierarchyFacts};
use eci_fs_protocol::link::{Connection, Secrets};
use tempfile::TempDir;

use super::FileSystem;
use super::operations::Target;
use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::fs::snapshots::MAX_SNAPSHOTS;
use crate::server::fs::{Attr, Kind};
use crate::server::ids::{Handle, NodeId, Request};

const SLOT: u64 = 7;

/// A recorded file. The files are unpacked once in each test, which has a thread of its own, and go with that.
fn fixture(path: &str) -> PathBuf {
    thread_local! {
        static UNPACKED: TempDir = {
            let archive = concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/emulators/tests/fixtures/6.18-v1-limits.txt"
            );
            let archive = Archive::read(Path::new(archive)).unwrap();
            archive.unpack_temporary().unwrap()
        };
    }
    UNPACKED.with(|dir| dir.path().join(path))
}

fn dir(path: PathBuf) -> OwnedFd {
    File::open(&path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .into()
}

/// Returns a container with 256 MiB and half a CPU, recorded on Linux 6.18 with cgroup v1.
fn container() -> Attached {
    let recorded: serde_json::Value =
        serde_json::from_reader(File::open(fixture("container.json")).unwrap()).unwrap();
    let mut hierarchies = Vec::new();
    let mut dirs = Vec::new();
    for hierarchy in recorded["hierarchies"].as_array().unwrap() {
        let path = hierarchy["path"].as_str().unwrap();
        hierarchies.push(HierarchyFacts {
            version: u8::try_from(hierarchy["version"].as_u64().unwrap()).unwrap(),
            controllers: serde_json::from_value(hierarchy["controllers"].clone()).unwrap(),
            depth: u32::try_from(path.split('/').filter(|part| !part.is_empty()).count()).unwrap(),
        });
        let root = fixture("cgroup").join(hierarchy["dir"].as_str().unwrap());
        dirs.push(dir(root.join(path.trim_start_matches('/'))));
    }
    let facts = Facts {
        can_measure_cpus: false,
        id: "recorded".to_owned(),
        start_nsec: 1,
        boottime_offset_nsec: None,
        pid_level: 1,
        pid_max_is_own: true,
        network: None,
        disks: Vec::new(),
        uid: 100_000,
        gid: 100_001,
        hierarchies,
    };
    Attached::new(
        &facts,
        &Secrets {
            boot_id: [1; 16],
            host_secret: [2; 32],
            generation: 0,
        },
        dirs,
    )
    .unwrap()
}

fn file_system(freshness_ms: u64) -> Arc<FileSystem> {
    let host = Host::from_dirs(dir(fixture("host/proc")), dir(fixture("host/sys")));
    FileSystem::new(
        host,
        None,
        Settings::default(),
        Duration::from_millis(freshness_ms),
    )
}

/// Returns a request that is not sent again.
fn request() -> Request {
    Request {
        number: 0,
        again: false,
    }
}

/// Opens with a snapshot, on the live connection.
fn open(fs: &FileSystem, id: NodeId) -> Result<Handle, Errno> {
    match fs.target(id)? {
        Target::Directory => Err(Errno::ISDIR),
        Target::View(view) => fs.live.open(&view, request()),
        Target::Graft(place) => fs.grafts.open(id, &place, request()),
    }
}

/// Returns the attributes on the live connection, however long they may be believed.
fn live_attr(fs: &FileSystem, id: NodeId) -> Result<Attr, Errno> {
    fs.attr(Connection::Live, id, None).map(|(attr, _)| attr)
}

fn walk(fs: &FileSystem, connection: Connection, path: &str) -> Result<NodeId, Errno> {
    path.split('/')
        .try_fold(NodeId::ROOT, |at, name| fs.find(connection, at, name))
}

#[test]
fn every_view_of_the_catalogue_is_found_on_its_connection_and_on_no_other() {
    for freshness in [10, 0] {
        let fs = file_system(freshness);
        let rows = fs.add(SLOT, container());
        assert!(rows.iter().any(|row| row.path == "/proc/meminfo"));
        for row in rows.iter().filter(|row| !row.directory) {
            for connection in Connection::ALL {
                let found = walk(&fs, connection, &format!("{SLOT}{}", row.path));
                // On the live connection the same path may lie in a directory graft.
                let elsewhere = rows
                    .iter()
                    .any(|r| r.directory && row.path.starts_with(&r.path));
                if connection == row.connection {
                    assert!(found.is_ok(), "{row:?}");
                } else if !elsewhere {
                    assert!(found.is_err(), "{row:?} on {connection:?}");
                }
            }
            if freshness == 0 {
                assert_eq!(row.connection, Connection::Live, "{row:?}");
            }
        }
    }
}

#[test]
fn what_is_not_there_is_enoent_and_a_file_is_no_directory() {
    let fs = file_system(10);
    fs.add(SLOT, container());
    for path in [
        "8",
        "07",
        "+7",
        "x",
        "7/etc",
        "7/proc/nonsense",
        "7/proc/pressure/nonsense",
    ] {
        assert_eq!(
            walk(&fs, Connection::Cached, path),
            Err(Errno::NOENT),
            "{path}"
        );
    }
    assert_eq!(
        walk(&fs, Connection::Cached, "7/proc/meminfo/x"),
        Err(Errno::NOTDIR)
    );
}

#[test]
fn a_listing_and_the_lookups_agree() {
    let fs = file_system(10);
    fs.add(SLOT, container());
    let mut open = vec![walk(&fs, Connection::Cached, "7").unwrap()];
    let mut files = 0;
    while let Some(id) = open.pop() {
        for entry in fs.entries(Connection::Cached, id).unwrap().entries {
            assert_eq!(fs.find(Connection::Cached, id, &entry.name), Ok(entry.id));
            match entry.kind {
                Kind::Directory => open.push(entry.id),
                Kind::File => files += 1,
                Kind::Symlink => panic!("a link on the cached connection"),
            }
        }
    }
    assert!(files > 0 && files <= EMULATORS.len());
    // Nobody learns from the root who else is there.
    assert!(
        fs.entries(Connection::Cached, NodeId::ROOT)
            .unwrap()
            .entries
            .is_empty()
    );
}

/// Returns the inode number of every node of a container on one connection, by path. Listings and attributes must agree.
fn inodes(fs: &FileSystem, connection: Connection, slot: u64) -> BTreeMap<String, u32> {
    let top = walk(fs, connection, &slot.to_string()).unwrap();
    let mut open = vec![(String::new(), top, NodeId::ROOT.inode())];
    let mut all = BTreeMap::new();
    while let Some((path, id, above)) = open.pop() {
        let listing = fs.entries(connection, id).unwrap();
        let own = fs.attr(connection, id, None).unwrap().0.ino;
        assert_eq!((listing.own, listing.parent), (own, above), "{path}");
        all.insert(path.clone(), own);
        for entry in listing.entries {
            let path = format!("{path}/{}", entry.name);
            if entry.kind == Kind::Directory {
                open.push((path, entry.id, own));
                continue;
            }
            // Some tunables of the recorded host cannot be read. What is looked up has the same number.
            let attr = fs.attr(connection, entry.id, None);
            let attr = attr.or_else(|_| fs.entry(entry.id)).unwrap().0;
            assert_eq!(attr.ino, entry.ino, "{path}");
            all.insert(path, attr.ino);
        }
    }
    all
}

#[test]
fn all_files_of_a_container_have_different_inode_numbers_which_tell_nothing_of_others() {
    let fs = file_system(10);
    let other = 0xf0_0000;
    for slot in [SLOT, other] {
        fs.add(slot, container());
    }
    for connection in [Connection::Cached, Connection::Live] {
        let all = inodes(&fs, connection, SLOT);
        let distinct: BTreeSet<u32> = all.values().copied().collect();
        assert!(all.len() > 20 && !distinct.contains(&0));
        assert_eq!(distinct.len(), all.len(), "{all:?}");
        assert_eq!(inodes(&fs, connection, other), all);
    }
}

#[test]
fn a_read_serves_what_the_attributes_announced() {
    let fs = file_system(10);
    let rows = fs.add(SLOT, container());
    for row in rows
        .iter()
        .filter(|row| row.connection == Connection::Cached)
    {
        let id = walk(&fs, Connection::Cached, &format!("{SLOT}{}", row.path)).unwrap();
        let (attr, timeout) = fs
            .attr(Connection::Cached, id, None)
            .unwrap_or_else(|e| panic!("{row:?}: {e}"));
        let text = fs.read(Connection::Cached, id, Handle::NONE, 0).unwrap();
        assert_eq!(attr.size, text.len() as u64, "{row:?}");
        let looked_up = fs.entry(id).unwrap().0;
        assert_eq!(
            (looked_up.size, looked_up.mtime),
            (attr.size, attr.mtime),
            "{row:?}"
        );
        assert_eq!((attr.uid, attr.gid), (100_000, 100_001));
        assert!(timeout <= Duration::from_millis(10));
        // A reader that holds the file open keeps the version for much longer than one that opens it.
        assert_eq!(
            fs.attr(Connection::Cached, id, Some(Handle(1)))
                .unwrap()
                .0
                .mtime,
            attr.mtime
        );
    }
}

#[test]
fn a_live_open_serves_the_size_that_was_measured_before_it_and_a_rewind_the_present() {
    let fs = file_system(0);
    let rows = fs.add(SLOT, container());
    for row in rows.iter().filter(|row| !row.directory) {
        let id = walk(&fs, Connection::Live, &format!("{SLOT}{}", row.path)).unwrap();
        let size = live_attr(&fs, id).unwrap().size;
        let handle = open(&fs, id).unwrap();
        let first = fs.read(Connection::Live, id, handle, 0).unwrap();
        assert_eq!(first.len() as u64, size, "{row:?}");
        assert!(
            Arc::ptr_eq(&first, &fs.read(Connection::Live, id, handle, 1).unwrap()),
            "one open is one version"
        );
        assert!(
            !Arc::ptr_eq(&first, &fs.read(Connection::Live, id, handle, 0).unwrap()),
            "a rewind is a new one"
        );
        fs.release(id, handle);
        // A handle of a server that is dead is served all the same.
        assert_eq!(
            fs.read(Connection::Live, id, Handle(999), 0).unwrap().len() as u64,
            size
        );
    }
}

#[test]
fn a_container_that_is_removed_is_gone_from_everywhere() {
    let fs = file_system(0);
    fs.add(SLOT, container());
    let id = walk(&fs, Connection::Live, "7/proc/meminfo").unwrap();
    let handle = open(&fs, id).unwrap();
    fs.remove(SLOT);
    assert_eq!(walk(&fs, Connection::Live, "7"), Err(Errno::NOENT));
    assert_eq!(live_attr(&fs, id), Err(Errno::NOENT));
    assert_eq!(fs.read(Connection::Live, id, handle, 0), Err(Errno::NOENT));
    assert_eq!(
        fs.read(Connection::Cached, id, Handle::NONE, 0),
        Err(Errno::NOENT)
    );
}

#[test]
fn open_snapshots_are_bounded() {
    let fs = file_system(0);
    fs.add(SLOT, container());
    let id = walk(&fs, Connection::Live, "7/sys/devices/system/cpu/online").unwrap();
    let handles: Vec<_> = (0..MAX_SNAPSHOTS).map(|_| open(&fs, id).unwrap()).collect();
    assert_eq!(open(&fs, id), Err(Errno::NFILE));
    fs.release(id, handles[0]);
    assert!(open(&fs, id).is_ok());
}

/// The bytes of the texts that the open files of `id` show.
fn pinned(fs: &FileSystem, id: NodeId, handles: &[Handle]) -> usize {
    let size = |handle: &Handle| {
        let (attr, _) = fs.attr(Connection::Live, id, Some(*handle)).unwrap();
        usize::try_from(attr.size).unwrap()
    };
    handles.iter().map(size).sum()
}

/// Opens a file until that is refused.
fn open_all(fs: &FileSystem, id: NodeId) -> Vec<Handle> {
    let opened = std::iter::from_fn(|| match open(fs, id) {
        Ok(handle) => Some(handle),
        Err(errno) => {
            assert_eq!(errno, Errno::NFILE);
            None
        }
    });
    opened.collect()
}

/// The largest view takes 16 MiB at most, where 16,384 of its texts would be more.
#[test]
fn the_bytes_of_open_snapshots_are_bounded_for_each_container_and_for_all() {
    let fs = file_system(0);
    let file = |slot: u64| walk(&fs, Connection::Live, &format!("{slot}/proc/zoneinfo")).unwrap();
    let (mut all, mut held) = (0, Vec::new());
    for slot in SLOT..SLOT + 12 {
        fs.add(slot, container());
        let handles = open_all(&fs, file(slot));
        let bytes = pinned(&fs, file(slot), &handles);
        assert!(bytes <= 16 << 20, "{slot}: {bytes}");
        all += bytes;
        held.push(handles);
    }
    assert!(held[0].len() < usize::try_from(MAX_SNAPSHOTS).unwrap());
    assert!(all <= 128 << 20, "{all}");
    // One that comes after all of these has room for what it needs.
    let last = SLOT + 12;
    fs.add(last, container());
    assert!(open_all(&fs, file(last)).len() >= 100);
    // What one gives back, it can have again.
    for handle in held[0].drain(..) {
        fs.release(file(SLOT), handle);
    }
    assert!(open(&fs, file(SLOT)).is_ok());
}

#[test]
fn any_number_names_something_if_only_something_that_is_not_there() {
    let fs = file_system(10);
    fs.add(SLOT, container());
    for raw in [
        0,
        2,
        15,
        u64::MAX,
        7 << 40,
        (7 << 40) + 5,
        (7 << 40) + (1 << 16) + 9999,
    ] {
        let id = NodeId::from_raw(raw);
        assert!(
            fs.attr(Connection::Cached, id, None).is_err()
                || fs.entries(Connection::Cached, id).is_ok(),
            "{raw:#x}"
        );
        assert!(open(&fs, id).is_err(), "{raw:#x}");
        assert!(
            fs.read(Connection::Cached, id, Handle::NONE, 0).is_err(),
            "{raw:#x}"
        );
    }
}

/// Returns all nodes below a directory graft, by path.
fn below(fs: &FileSystem, top: &str) -> Vec<(String, Kind, NodeId)> {
    let mut all = Vec::new();
    let mut open = vec![(top.to_owned(), walk(fs, Connection::Live, top).unwrap())];
    while let Some((path, id)) = open.pop() {
        for entry in fs.entries(Connection::Live, id).unwrap().entries {
            let path = format!("{path}/{}", entry.name);
            assert_eq!(
                fs.find(Connection::Live, id, &entry.name),
                Ok(entry.id),
                "{path}"
            );
            if entry.kind == Kind::Directory {
                open.push((path.clone(), entry.id));
            }
            all.push((path, entry.kind, entry.id));
        }
    }
    all
}

#[test]
fn a_directory_graft_lists_what_can_be_looked_up_and_read() {
    let fs = file_system(10);
    let rows = fs.add(SLOT, container());
    let (mut files, mut links) = (0, 0);
    for row in rows.iter().filter(|row| row.directory) {
        let top = walk(&fs, Connection::Live, &format!("{SLOT}{}", row.path)).unwrap();
        let facts = eci_fs_emulators::DIRECTORIES
            .iter()
            .map(|directory| directory.facts())
            .find(|facts| facts.path == row.path)
            .unwrap();
        assert_eq!(
            live_attr(&fs, top).unwrap().mode,
            facts.mode,
            "{}",
            row.path
        );
        for (path, kind, id) in below(&fs, &format!("{SLOT}{}", row.path)) {
            let attr = live_attr(&fs, id).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!((attr.kind, attr.uid), (kind, 100_000), "{path}");
            match kind {
                Kind::File => {
                    let looked_up = fs.entry(id).unwrap().0;
                    assert_eq!(looked_up.size, attr.size, "{path}: a lookup would cut it");
                    let handle = open(&fs, id).unwrap_or_else(|e| panic!("{path}: {e}"));
                    let text = fs.read(Connection::Live, id, handle, 0).unwrap();
                    assert!(
                        text.len() as u64 <= attr.size,
                        "{path}: sendfile would cut it"
                    );
                    fs.release(id, handle);
                    files += 1;
                }
                Kind::Symlink => {
                    assert!(!fs.read_link(id).unwrap().is_empty(), "{path}");
                    links += 1;
                }
                Kind::Directory => {
                    assert_eq!(open(&fs, id).err(), Some(Errno::ISDIR), "{path}")
                }
            }
        }
    }
    assert!(files > 20 && links > 0, "{files} files, {links} links");
}

#[test]
fn a_server_that_takes_over_knows_the_nodes_of_the_one_before() {
    let before = file_system(10);
    before.add(SLOT, container());
    let after = file_system(10);
    after.add(SLOT, container());
    // The second has looked nothing up; the kernel asks it by number.
    for (path, kind, id) in below(&before, &format!("{SLOT}/sys/devices/system/cpu")) {
        let attr = live_attr(&after, id).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(attr.kind, kind, "{path}");
    }
}

#[test]
fn what_a_directory_graft_hides_is_not_there() {
    let fs = file_system(10);
    fs.add(SLOT, container());
    for path in [
        "7/sys/devices/system/cpu/cpu99",
        "7/sys/devices/system/cpu/../cpu",
        "7/sys/kernel/debug/x",
    ] {
        assert!(walk(&fs, Connection::Live, path).is_err(), "{path}");
    }
}
