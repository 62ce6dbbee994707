//! The content of `/proc/<pid>/mountinfo`: the file system of each mount, and its peers.
//!
//! A container chooses the paths in this file, so only the fields that the kernel chooses are trusted:
//! numbers, the type of the file system, and the propagation tags.

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
}

/// Parses a whole mountinfo file. A line that is not in the kernel's format is left out: it cannot be of a mount that
/// is asked for, and one odd line must not hide the others.
pub fn parse_mountinfo(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ');
    let id = head.next()?.parse().ok()?;
    let parent = head.next()?.parse().ok()?;
    let dev = head.next()?.to_owned();
    let root = unescape(head.next()?);
    let point = unescape(head.next()?);
    let _options = head.next()?;
    let shared = head.find_map(|tag| tag.strip_prefix("shared:")?.parse().ok());
    let mut tail = tail.split(' ');
    Some(Mount {
        id,
        parent,
        dev,
        root,
        point,
        shared,
        fstype: tail.next()?.to_owned(),
        source: unescape(tail.next()?),
        super_options: tail.next()?.to_owned(),
    })
}

/// Undoes the kernel's `mangle_path`: space, tab, newline and backslash as `\ooo`.
fn unescape(text: &str) -> String {
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
    fn odd_escapes_are_kept_as_they_are() {
        assert_eq!(unescape("a\\0"), "a\\0");
        assert_eq!(unescape("a\\999b"), "a\\999b");
        assert_eq!(unescape("\\134\\012"), "\\\n");
    }
}
