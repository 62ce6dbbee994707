//! The cgroups of a process, and their directories.
//!
//! v1 and v2 are read alike. Each line of `/proc/<pid>/cgroup` names a hierarchy and a path in it, and the daemon's own
//! mountinfo says where that hierarchy is mounted. A hierarchy that is mounted nowhere is left out; a view that needs
//! it finds it missing.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use super::mountinfo::Mount;
use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::facts::HierarchyFacts;

/// A line of `/proc/<pid>/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The controllers; empty for v2.
    pub controllers: Vec<String>,
    /// The path in the hierarchy, as our cgroup namespace sees it.
    pub path: String,
}

impl Membership {
    /// Returns the version of the hierarchy, 1 or 2.
    fn version(&self) -> u8 {
        if self.controllers.is_empty() { 2 } else { 1 }
    }
}

/// Parses `/proc/<pid>/cgroup` (cgroups(7)).
pub fn parse_all_memberships(text: &str) -> Vec<Membership> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let controllers = controllers.split(',').filter(|c| !c.is_empty());
            Some(Membership {
                controllers: controllers.map(str::to_owned).collect(),
                path: path.to_owned(),
            })
        })
        .collect()
}

/// Parses `/proc/<pid>/cgroup`. Named v1 hierarchies ("name=systemd") have no controller that a view could ask, and are left
/// out.
pub fn parse_memberships(text: &str) -> Vec<Membership> {
    let mut all = parse_all_memberships(text);
    all.retain(|membership| {
        let mut controllers = membership.controllers.iter();
        !controllers.any(|c| c.starts_with("name="))
    });
    all
}

/// Returns the path of the cgroup that is the root of a cgroup namespace, from the path that the host sees and the path
/// that the namespace sees of the same process.
///
/// None when the process has been moved out of its namespace's root ("/../x"): then it has no part in it.
pub fn namespace_root<'a>(host: &'a str, inside: &str) -> Option<&'a str> {
    if inside == "/.." || inside.starts_with("/../") {
        return None;
    }
    if inside == "/" {
        return Some(host);
    }
    let root = host.strip_suffix(inside)?;
    Some(if root.is_empty() { "/" } else { root })
}

/// The directory of a cgroup.
#[derive(Debug)]
pub struct Directory<'a> {
    /// The directory, open for reading.
    pub dir: OwnedFd,
    /// The mount point of the hierarchy.
    pub top: &'a str,
    /// The path below the mount point.
    pub rest: &'a str,
}

/// Opens the directory of `membership` in its hierarchy.
///
/// `Ok(None)` when the hierarchy is not mounted where we can see it.
///
/// # Errors
/// When the path leads out of what is mounted, or the cgroup has been removed.
pub fn open_directory<'a>(
    mounts: &'a [Mount],
    membership: &'a Membership,
) -> Result<Option<Directory<'a>>> {
    let path = &membership.path;
    // A hierarchy may be mounted several times and in parts: the first mount that holds the path is used.
    let found = mounts.iter().find_map(|mount| {
        let ours = match membership.version() {
            2 => mount.fstype == "cgroup2",
            _ => {
                mount.fstype == "cgroup"
                    && membership
                        .controllers
                        .iter()
                        .all(|c| mount.super_options.split(',').any(|option| option == c))
            }
        };
        ours.then(|| below(path, &mount.root))
            .flatten()
            .map(|rest| (mount, rest))
    });
    let Some((mount, rest)) = found else {
        return Ok(None);
    };
    let shown = format!("{}/{rest}", mount.point);
    let top = rustix::fs::open(
        mount.point.as_str(),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| Error::io("open", &mount.point, e))?;
    let dir = rustix::fs::openat2(
        &top,
        if rest.is_empty() { "." } else { rest },
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
    .map_err(|e| {
        let error = Error::io("open", &shown, e);
        match error.kind {
            Kind::NotFound => error.remedy("the cgroup was removed; is the container gone?"),
            _ => error,
        }
    })?;
    Ok(Some(Directory {
        dir,
        top: &mount.point,
        rest,
    }))
}

/// Opens the directory of `membership` for views.
///
/// `Ok(None)` when the hierarchy is not mounted where we can see it.
///
/// # Errors
/// As [`open_directory`].
pub(super) fn open_hierarchy(
    mounts: &[Mount],
    membership: &Membership,
) -> Result<Option<(HierarchyFacts, OwnedFd)>> {
    let version = membership.version();
    let Some(Directory { dir, top, rest }) = open_directory(mounts, membership)? else {
        return Ok(None);
    };
    let controllers = match version {
        1 => membership.controllers.clone(),
        // What is bound to v2 at all; whether it is enabled for this cgroup, its files tell.
        _ => read_controllers(top)?,
    };
    let depth = rest.split('/').filter(|part| !part.is_empty()).count();
    if !is_open_to_all(&dir, depth)? {
        tracing::warn!(
            cgroup = format!("{top}/{rest}"),
            "only its owner may search this cgroup or one above, so views that are computed from it fail: \
             make it again with a umask of 022, or add the permission with chmod o+rx"
        );
    }
    Ok(Some((
        HierarchyFacts {
            version,
            controllers,
            depth: u32::try_from(depth).unwrap_or(u32::MAX),
        },
        dir,
    )))
}

/// Returns true if everybody may read and search a directory and as many above it as `depth` says. The server is a user to
/// whom none of them belongs.
fn is_open_to_all(dir: &OwnedFd, depth: usize) -> Result<bool> {
    let trouble = |e| Error::io("look at", "a cgroup", e);
    let is_open = |dir: &OwnedFd| {
        let mode = rustix::fs::fstat(dir).map_err(trouble)?.st_mode;
        Ok::<bool, Error>(mode & 0o005 == 0o005)
    };
    let mut open = is_open(dir)?;
    let mut above = dir
        .try_clone()
        .map_err(|e| Error::io("duplicate", "a cgroup", e))?;
    for _ in 1..depth {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        above = rustix::fs::openat(&above, "..", flags, Mode::empty()).map_err(trouble)?;
        open &= is_open(&above)?;
    }
    Ok(open)
}

/// Returns `path` relative to `root`, which is the part of the hierarchy that is mounted.
fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    let rest = if root == "/" {
        path
    } else {
        path.strip_prefix(root)?
    };
    if rest.is_empty() {
        Some("")
    } else {
        rest.strip_prefix('/')
    }
}

fn read_controllers(top: &str) -> Result<Vec<String>> {
    let path = format!("{top}/cgroup.controllers");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    Ok(text.split_ascii_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_only_its_owner_may_search_is_noticed_at_any_depth() {
        use std::fs::{File, Permissions, create_dir_all, set_permissions};
        use std::os::unix::fs::PermissionsExt;
        let top = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "a/b"].map(|path| top.path().join(path));
        create_dir_all(&b).unwrap();
        let set = |mode| {
            let modes = [(&a, mode), (&b, 0o755)];
            for (path, mode) in modes {
                set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
        };
        let dir = OwnedFd::from(File::open(&b).unwrap());
        set(0o755);
        assert!(is_open_to_all(&dir, 2).unwrap());
        set(0o751);
        assert!(!is_open_to_all(&dir, 2).unwrap());
        set(0o754);
        assert!(!is_open_to_all(&dir, 2).unwrap());
        assert!(
            is_open_to_all(&dir, 1).unwrap(),
            "what lies above the hierarchy's mount"
        );
    }

    #[test]
    fn v1_v2_and_named_hierarchies_are_told_apart() {
        let got = parse_memberships("9:name=systemd:/a\n2:cpu,cpuacct:/b:c\n0::/d\n");
        assert_eq!(got.len(), 2);
        assert_eq!(
            (got[0].controllers.len(), got[0].path.as_str()),
            (2, "/b:c")
        );
        assert_eq!((got[1].controllers.len(), got[1].path.as_str()), (0, "/d"));
    }

    #[test]
    fn the_root_of_a_cgroup_namespace_is_what_both_paths_leave() {
        assert_eq!(namespace_root("/docker/x", "/"), Some("/docker/x"));
        assert_eq!(
            namespace_root("/docker/x/sub/deep", "/sub/deep"),
            Some("/docker/x")
        );
        assert_eq!(namespace_root("/sub", "/sub"), Some("/"));
        assert_eq!(namespace_root("/a", "/../a"), None);
    }

    #[test]
    fn a_path_is_found_in_partial_mounts_by_whole_components() {
        assert_eq!(below("/a/b", "/"), Some("a/b"));
        assert_eq!(below("/a/b", "/a"), Some("b"));
        assert_eq!(below("/ab", "/a"), None);
        assert_eq!(below("/", "/"), Some(""));
    }
}
