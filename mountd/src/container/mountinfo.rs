//! The content of `/proc/<pid>/mountinfo`: the file system of each mount, and its peers.
//!
//! A container chooses the paths in this file, so only the fields that the kernel chooses are trusted:
//! numbers, the type of the file system, and the propagation tags.

use std::collections::HashMap;

use rustix::mount::MountFlags;

/// The bytes of a container's mountinfo that are read at most. A container chooses how many mounts it has and how long
/// their paths are; engines make some tens of kilobytes.
pub const LIMIT: u64 = 16 << 20;

/// One line of mountinfo (Documentation/filesystems/proc.rst, 3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `mount ID`: unique in the kernel while the mount lives.
    pub id: u64,
    /// `parent ID`: the mount on which it is mounted.
    pub parent: u64,
    /// `st_dev` of what is mounted, as "major:minor".
    pub dev: String,
    /// `root`: the part of the file system that is mounted.
    pub root: String,
    /// `mount point`, relative to the root of the process that was asked.
    pub point: String,
    /// The options of the mount itself: "rw,nosuid,relatime".
    pub options: String,
    /// True if nothing can be written through it: the mount or its file system is read-only.
    pub read_only: bool,
    /// `shared:N`: the peer group that gets what is mounted here.
    pub shared: Option<u64>,
    /// The type of the file system: "proc", "fuse".
    pub fstype: String,
    /// The mount's source: "eci-fs" for ours.
    pub source: String,
    /// Options of the file system itself: the controllers of a cgroup v1 hierarchy are among them.
    pub super_options: String,
}

impl Mount {
    /// Returns true if the file that is mounted has been deleted since: then nothing can be mounted on it. No path has
    /// two slashes by itself.
    pub fn is_deleted(&self) -> bool {
        self.root.ends_with("//deleted")
    }

    /// Returns the options that a change of the mount's options takes away unless it repeats them. The kernel keeps the
    /// others.
    pub fn kept_flags(&self) -> MountFlags {
        let flags = [
            ("ro", MountFlags::RDONLY),
            ("nosuid", MountFlags::NOSUID),
            ("nodev", MountFlags::NODEV),
            ("noexec", MountFlags::NOEXEC),
            ("nosymfollow", MountFlags::NOSYMFOLLOW),
        ];
        let has = |name: &str| self.options.split(',').any(|option| option == name);
        let set = flags.into_iter().filter(|(name, _)| has(name));
        set.fold(MountFlags::empty(), |all, (_, flag)| all | flag)
    }
}

/// Parses a whole mountinfo file. A line that is not in the kernel's format is left out: it cannot be of a mount that
/// is asked for, and one odd line must not hide the others.
pub fn parse_mountinfo(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

/// Returns the mount in which a process finds the absolute `path`, if its root directory is in one of `mounts`. Of mounts
/// that lie on one another it is the topmost.
pub fn mount_at<'a>(mounts: &'a [Mount], path: &str) -> Option<&'a Mount> {
    let is_above = |point: &str| {
        let below = path.strip_prefix(point);
        point == "/" || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let above = || mounts.iter().filter(|mount| is_above(&mount.point));
    let ids: HashMap<u64, ()> = above().map(|mount| (mount.id, ())).collect();
    let is_first = |mount: &&Mount| mount.parent == mount.id || !ids.contains_key(&mount.parent);
    let mut found = above()
        .filter(is_first)
        .min_by_key(|mount| mount.point.len())?;
    // A mount on the root directory of a process is not seen from there.
    let mut next: HashMap<u64, &Mount> = HashMap::new();
    for mount in above().filter(|mount| mount.point != "/" && mount.id != mount.parent) {
        let known = next.entry(mount.parent).or_insert(mount);
        if mount.point.len() < known.point.len() {
            *known = mount;
        }
    }
    // Each is taken once, so this ends whatever the list says.
    while let Some(mount) = next.remove(&found.id) {
        found = mount;
    }
    Some(found)
}

/// Parses one line. Returns none if it is not in the kernel's format.
pub fn parse_line(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ');
    let id = head.next()?.parse().ok()?;
    let parent = head.next()?.parse().ok()?;
    let dev = head.next()?.to_owned();
    let root = unescape(head.next()?);
    let point = unescape(head.next()?);
    let options = head.next()?;
    let shared = head.find_map(|tag| tag.strip_prefix("shared:")?.parse().ok());
    let mut tail = tail.split(' ');
    let is_read_only = |options: &str| options.split(',').next() == Some("ro");
    let (fstype, source, super_options) = (tail.next()?, tail.next()?, tail.next()?);
    Some(Mount {
        id,
        parent,
        dev,
        root,
        point,
        options: options.to_owned(),
        read_only: is_read_only(options) || is_read_only(super_options),
        shared,
        fstype: fstype.to_owned(),
        source: unescape(source),
        super_options: super_options.to_owned(),
    })
}

/// Undoes the kernel's `mangle_path`: space, tab, newline and backslash as `\ooo`.
pub fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let octal = (byte == b'\\')
            .then(|| bytes.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(value) => {
                out.push(value);
                at += 4;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_tags_are_found_wherever_the_optional_fields_end() {
        let text = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n\
                    30 23 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                    nonsense\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(
            (
                mounts[0].id,
                mounts[0].parent,
                mounts[0].shared,
                mounts[0].point.as_str()
            ),
            (36, 35, Some(7), "/mnt 2")
        );
        assert_eq!(
            (mounts[1].shared, mounts[1].super_options.as_str()),
            (None, "rw,cpu,cpuacct")
        );
    }

    #[test]
    fn a_path_is_in_the_topmost_mount_that_a_process_reaches() {
        let text = "1 1 0:1 / / rw - overlay o rw\n\
                    9 1 0:9 / / rw - tmpfs over-root rw\n\
                    2 1 0:2 / /proc rw - proc p rw\n\
                    3 2 0:2 /sys /proc/sys ro - proc p rw\n\
                    4 3 0:3 / /proc/sys/net/core rw - fuse eci-fs ro\n\
                    5 1 0:5 / /process rw - tmpfs t rw\n";
        let mounts = parse_mountinfo(text);
        let id = |mounts: &[Mount], path| mount_at(mounts, path).map(|mount| mount.id);
        for (path, wanted) in [
            ("/", 1),
            ("/etc", 1),
            ("/proc", 2),
            ("/proc/1", 2),
            ("/proc/sys", 3),
            ("/proc/sys/net", 3),
            ("/proc/sys/net/core", 4),
            ("/process", 5),
        ] {
            assert_eq!(id(&mounts, path), Some(wanted), "{path}");
        }
        assert_eq!(
            mounts.iter().map(|m| m.read_only).collect::<Vec<_>>(),
            [false, false, false, true, true, false]
        );
        // Another /proc covers it with all that lies on it.
        let covered = format!("{text}6 2 0:6 / /proc rw - proc p rw\n");
        assert_eq!(id(&parse_mountinfo(&covered), "/proc/sys/net"), Some(6));
        // The root directory is a directory of a mount that is not listed.
        let inside = "2 1 0:2 / /proc rw - proc p rw\n3 2 0:2 /sys /proc/sys ro - proc p rw\n";
        let inside = parse_mountinfo(inside);
        assert_eq!(id(&inside, "/proc/sys/net"), Some(3));
        assert_eq!(id(&inside, "/etc"), None);
    }

    #[test]
    fn odd_escapes_are_kept_as_they_are() {
        assert_eq!(unescape("a\\0"), "a\\0");
        assert_eq!(unescape("a\\999b"), "a\\999b");
        assert_eq!(unescape("\\134\\012"), "\\\n");
    }
}
