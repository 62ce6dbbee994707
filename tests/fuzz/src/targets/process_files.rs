//! The files of a process that the daemon reads, and its configuration. A container chooses names and paths in them.

use eci_fs_mountd::config::Config;
use eci_fs_mountd::container::mountinfo::parse_mountinfo;
use eci_fs_mountd::container::procfs::{parse_boottime_offset, parse_id_map, parse_process};
use eci_fs_mountd::container::{namespace_root, parse_memberships};
use eci_fs_protocol::capabilities::bounding_set_can_measure;

/// Takes the bytes for each of the files in turn.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // The kernel writes one line a mount.
    let mounts = parse_mountinfo(&text);
    assert!(mounts.len() <= text.lines().count());
    for mount in &mounts {
        let _ = mount.is_deleted();
    }
    let _ = parse_boottime_offset(&text);
    let _ = parse_id_map(&text);
    let _ = bounding_set_can_measure(&text);
    let (stat, status) = text.split_once('\n').unwrap_or((&text, ""));
    if let Some(process) = parse_process(7, stat, status) {
        let _ = process.is_init();
    }
    for membership in parse_memberships(&text) {
        for other in parse_memberships(&text) {
            if let Some(root) = namespace_root(&membership.path, &other.path) {
                assert!(root == "/" || membership.path.starts_with(root));
            }
        }
    }
    let _ = Config::parse(&text);
}
