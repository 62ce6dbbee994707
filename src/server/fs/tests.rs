//! The tree without a mount, on a recorded machine.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eci_fs_emulators::{EMULATORS, Host, Settings};
use eci_fs_protocol::facts::{Facts, HierarchyFacts};
use eci_fs_protocol::link::{Connection, Secrets};

use super::Tree;
use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::ids::{Handle, NodeId, Request};

const SLOT: u64 = 7;

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/emulators/tests/fixtures/6.18-v1-limits"
    ))
    .join(path)
}

fn dir(path: PathBuf) -> OwnedFd {
    File::open(&path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .into()
}

/// A container with 256 MiB and half a CPU, recorded on Linux 6.18 with cgroup v1.
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
        id: "recorded".to_owned(),
        start_nsec: 1,
        boottime_offset_nsec: None,
        pid_level: 1,
        pid_max_is_own: true,
        network: None,
        uid: 100_000,
        gid: 100_001,
        hierarchies,
    };
    Attached::new(
        &facts,
        &Secrets {
            boot_id: [1; 16],
            host_secret: [2; 32],
        },
        dirs,
    )
    .unwrap()
}

fn tree(freshness_ms: u64) -> Arc<Tree> {
    let host = Host::from_dirs(dir(fixture("host/proc")), dir(fixture("host/sys")));
    Tree::new(
        host,
        None,
        Settings::default(),
        true,
        Duration::from_millis(freshness_ms),
    )
}

/// A request that is not sent again.
fn request() -> Request {
    Request {
        number: 0,
        again: false,
    }
}

fn walk(tree: &Tree, connection: Connection, path: &str) -> Result<NodeId, Errno> {
    path.split('/')
        .try_fold(NodeId::ROOT, |at, name| tree.lookup(connection, at, name))
}

#[test]
fn every_view_of_the_catalogue_is_found_on_its_connection_and_on_no_other() {
    for freshness in [10, 0] {
        let tree = tree(freshness);
        let rows = tree.add(SLOT, container());
        assert!(rows.iter().any(|row| row.path == "/proc/meminfo"));
        for row in rows.iter().filter(|row| !row.directory) {
            for connection in Connection::ALL {
                let found = walk(&tree, connection, &format!("{SLOT}{}", row.path));
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
    let tree = tree(10);
    tree.add(SLOT, container());
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
            walk(&tree, Connection::Cached, path),
            Err(Errno::NOENT),
            "{path}"
        );
    }
    assert_eq!(
        walk(&tree, Connection::Cached, "7/proc/meminfo/x"),
        Err(Errno::NOTDIR)
    );
}

#[test]
fn a_listing_and_the_lookups_agree() {
    let tree = tree(10);
    tree.add(SLOT, container());
    let mut open = vec![walk(&tree, Connection::Cached, "7").unwrap()];
    let mut files = 0;
    while let Some(id) = open.pop() {
        for entry in tree.entries(Connection::Cached, id).unwrap() {
            assert_eq!(
                tree.lookup(Connection::Cached, id, &entry.name),
                Ok(entry.id)
            );
            match entry.kind {
                super::Kind::Directory => open.push(entry.id),
                super::Kind::File => files += 1,
                super::Kind::Symlink => panic!("a link on the cached connection"),
            }
        }
    }
    assert!(files > 0 && files <= EMULATORS.len());
    // Nobody learns from the root who else is there.
    assert!(
        tree.entries(Connection::Cached, NodeId::ROOT)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_read_serves_what_the_attributes_announced() {
    let tree = tree(10);
    let rows = tree.add(SLOT, container());
    for row in rows
        .iter()
        .filter(|row| row.connection == Connection::Cached)
    {
        let id = walk(&tree, Connection::Cached, &format!("{SLOT}{}", row.path)).unwrap();
        let (attr, timeout) = tree
            .cached_attr(id, false)
            .unwrap_or_else(|e| panic!("{row:?}: {e}"));
        let text = tree.cached_read(id).unwrap();
        assert_eq!(attr.size, text.len() as u64, "{row:?}");
        let looked_up = tree.looked_up(id).unwrap().0;
        assert_eq!(
            (looked_up.size, looked_up.mtime),
            (attr.size, attr.mtime),
            "{row:?}"
        );
        assert_eq!((attr.uid, attr.gid), (100_000, 100_001));
        assert!(timeout <= Duration::from_millis(10));
        // A reader that holds the file open keeps the version for much longer than one that opens it.
        assert_eq!(tree.cached_attr(id, true).unwrap().0.mtime, attr.mtime);
    }
}

#[test]
fn a_live_open_serves_the_size_that_was_measured_before_it_and_a_rewind_the_present() {
    let tree = tree(0);
    let rows = tree.add(SLOT, container());
    for row in rows.iter().filter(|row| !row.directory) {
        let id = walk(&tree, Connection::Live, &format!("{SLOT}{}", row.path)).unwrap();
        let size = tree.live_attr(id, None).unwrap().size;
        let handle = tree.live_open(id, request()).unwrap();
        let first = tree.live_read(id, handle, 0).unwrap();
        assert_eq!(first.len() as u64, size, "{row:?}");
        assert!(
            Arc::ptr_eq(&first, &tree.live_read(id, handle, 1).unwrap()),
            "one open is one version"
        );
        assert!(
            !Arc::ptr_eq(&first, &tree.live_read(id, handle, 0).unwrap()),
            "a rewind is a new one"
        );
        tree.live_release(id, handle);
        // A handle of a server that is dead is served all the same.
        assert_eq!(
            tree.live_read(id, Handle(999), 0).unwrap().len() as u64,
            size
        );
    }
}

#[test]
fn a_container_that_is_removed_is_gone_from_everywhere() {
    let tree = tree(0);
    tree.add(SLOT, container());
    let id = walk(&tree, Connection::Live, "7/proc/meminfo").unwrap();
    let handle = tree.live_open(id, request()).unwrap();
    tree.remove(SLOT);
    assert_eq!(walk(&tree, Connection::Live, "7"), Err(Errno::NOENT));
    assert_eq!(tree.live_attr(id, None), Err(Errno::NOENT));
    assert_eq!(tree.live_read(id, handle, 0), Err(Errno::NOENT));
    assert_eq!(tree.cached_read(id), Err(Errno::NOENT));
}

#[test]
fn open_snapshots_are_bounded() {
    let tree = tree(0);
    tree.add(SLOT, container());
    let id = walk(&tree, Connection::Live, "7/sys/devices/system/cpu/online").unwrap();
    let handles: Vec<_> = (0..super::MAX_HANDLES)
        .map(|_| tree.live_open(id, request()).unwrap())
        .collect();
    assert_eq!(tree.live_open(id, request()), Err(Errno::NFILE));
    tree.live_release(id, handles[0]);
    assert!(tree.live_open(id, request()).is_ok());
}

#[test]
fn any_number_names_something_if_only_something_that_is_not_there() {
    let tree = tree(10);
    tree.add(SLOT, container());
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
            tree.cached_attr(id, false).is_err() || tree.entries(Connection::Cached, id).is_ok(),
            "{raw:#x}"
        );
        assert!(tree.live_open(id, request()).is_err(), "{raw:#x}");
        assert!(tree.cached_read(id).is_err(), "{raw:#x}");
    }
}

/// All nodes below a directory graft, by path.
fn below(tree: &Tree, top: &str) -> Vec<(String, super::Kind, NodeId)> {
    let mut all = Vec::new();
    let mut open = vec![(top.to_owned(), walk(tree, Connection::Live, top).unwrap())];
    while let Some((path, id)) = open.pop() {
        for entry in tree.entries(Connection::Live, id).unwrap() {
            let path = format!("{path}/{}", entry.name);
            assert_eq!(
                tree.lookup(Connection::Live, id, &entry.name),
                Ok(entry.id),
                "{path}"
            );
            if entry.kind == super::Kind::Directory {
                open.push((path.clone(), entry.id));
            }
            all.push((path, entry.kind, entry.id));
        }
    }
    all
}

#[test]
fn a_directory_graft_lists_what_can_be_looked_up_and_read() {
    let tree = tree(10);
    let rows = tree.add(SLOT, container());
    let (mut files, mut links) = (0, 0);
    for row in rows.iter().filter(|row| row.directory) {
        let top = walk(&tree, Connection::Live, &format!("{SLOT}{}", row.path)).unwrap();
        let facts = eci_fs_emulators::DIRECTORIES
            .iter()
            .map(|directory| directory.facts())
            .find(|facts| facts.path == row.path)
            .unwrap();
        assert_eq!(
            tree.live_attr(top, None).unwrap().mode,
            facts.mode,
            "{}",
            row.path
        );
        for (path, kind, id) in below(&tree, &format!("{SLOT}{}", row.path)) {
            let attr = tree
                .live_attr(id, None)
                .unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!((attr.kind, attr.uid), (kind, 100_000), "{path}");
            match kind {
                super::Kind::File => {
                    let looked_up = tree.looked_up(id).unwrap().0;
                    assert_eq!(looked_up.size, attr.size, "{path}: a lookup would cut it");
                    let handle = tree
                        .live_open(id, request())
                        .unwrap_or_else(|e| panic!("{path}: {e}"));
                    let text = tree.live_read(id, handle, 0).unwrap();
                    assert!(
                        text.len() as u64 <= attr.size,
                        "{path}: sendfile would cut it"
                    );
                    tree.live_release(id, handle);
                    files += 1;
                }
                super::Kind::Symlink => {
                    assert!(!tree.read_link(id).unwrap().is_empty(), "{path}");
                    links += 1;
                }
                super::Kind::Directory => {
                    assert_eq!(
                        tree.live_open(id, request()).err(),
                        Some(Errno::ISDIR),
                        "{path}"
                    )
                }
            }
        }
    }
    assert!(files > 20 && links > 0, "{files} files, {links} links");
}

#[test]
fn a_server_that_takes_over_knows_the_nodes_of_the_one_before() {
    let before = tree(10);
    before.add(SLOT, container());
    let after = tree(10);
    after.add(SLOT, container());
    // The second has looked nothing up; the kernel asks it by number.
    for (path, kind, id) in below(&before, &format!("{SLOT}/sys/devices/system/cpu")) {
        let attr = after
            .live_attr(id, None)
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(attr.kind, kind, "{path}");
    }
}

#[test]
fn what_a_directory_graft_hides_is_not_there() {
    let tree = tree(10);
    tree.add(SLOT, container());
    for path in [
        "7/sys/devices/system/cpu/cpu99",
        "7/sys/devices/system/cpu/../cpu",
        "7/sys/kernel/debug/x",
    ] {
        assert!(walk(&tree, Connection::Live, path).is_err(), "{path}");
    }
}
