//! The options of an overlay, as mountinfo has them.

use std::path::{Component, Path, PathBuf};

use eci_fs_mountd::container::mountinfo::unescape;
use eci_fs_protocol::error::{Error, Result};
use rustix::mount::MountFlags;

use crate::oci::isolation::OF_MOUNTS;

/// Options of a superblock that are no options of an overlay, and those that are left out: an index makes the kernel
/// refuse a second overlay on one upper directory.
const LEFT_OUT: [&str; 12] = [
    "rw",
    "ro",
    "index=on",
    "index=off",
    "nfs_export=on",
    "nfs_export=off",
    "seclabel",
    "sync",
    "dirsync",
    "lazytime",
    "mand",
    "nouserxattr",
];

/// The options of an overlay in mountinfo.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Options {
    /// The lower directories, the topmost first. They may be relative.
    pub(super) lower: Vec<PathBuf>,
    /// The upper directory.
    pub(super) upper: Option<PathBuf>,
    /// The work directory.
    pub(super) work: Option<PathBuf>,
    /// All options that the new overlay gets too.
    pub(super) others: Vec<String>,
}

impl Options {
    /// Parses the options of a superblock.
    ///
    /// # Errors
    /// When there is no lower directory, or layers of data only.
    pub(super) fn parse(text: &str) -> Result<Self> {
        // The kernel writes a comma in a path as \054.
        Self::of(text.split(',').map(unescape))
    }

    /// Reads the options of an overlay in config.json, without those of the mount.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub(super) fn of_configuration(options: &[String]) -> Result<Self> {
        let of_overlay = |option: &&String| !OF_MOUNTS.contains(&option.as_str());
        Self::of(options.iter().filter(of_overlay).cloned())
    }

    fn of(options: impl Iterator<Item = String>) -> Result<Self> {
        let mut this = Self::default();
        for option in options {
            if let Some(list) = option.strip_prefix("lowerdir=") {
                this.lower.extend(split_layers(list)?);
            } else if let Some(layer) = option.strip_prefix("lowerdir+=") {
                this.lower.push(layer.into());
            } else if option.starts_with("datadir+=") {
                return Err(data_only());
            } else if let Some(path) = option.strip_prefix("upperdir=") {
                this.upper = Some(without_backslashes(path).into());
            } else if let Some(path) = option.strip_prefix("workdir=") {
                this.work = Some(without_backslashes(path).into());
            } else if !LEFT_OUT.contains(&option.as_str()) {
                this.others.push(option);
            }
        }
        if this.lower.is_empty() {
            return Err(Error::refused("the kernel names no lower directory of it"));
        }
        Ok(this)
    }
}

fn data_only() -> Error {
    Error::refused("it has layers of data only, which isolation does not support")
}

/// Splits a list of lower directories at its colons, but for those after a backslash.
fn split_layers(list: &str) -> Result<Vec<PathBuf>> {
    let mut layers = vec![String::new()];
    let mut letters = list.chars();
    while let Some(letter) = letters.next() {
        match (letter, layers.last_mut()) {
            (':', _) => layers.push(String::new()),
            ('\\', Some(layer)) => layer.extend(letters.next()),
            (letter, Some(layer)) => layer.push(letter),
            (_, None) => {}
        }
    }
    if layers.iter().any(String::is_empty) {
        // Two colons stand before layers that only have data.
        return Err(data_only());
    }
    Ok(layers.into_iter().map(PathBuf::from).collect())
}

fn without_backslashes(path: &str) -> String {
    let mut letters = path.chars();
    let mut out = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.extend(letters.next()),
            letter => out.push(letter),
        }
    }
    out
}

/// Returns the directory to which relative layers belong. The kernel does not name the directory in which the engine was
/// when it mounted: it is the nearest one above the upper directory or the mount at which all layers are.
pub(super) fn base_of(options: &Options, point: &Path) -> Result<PathBuf> {
    let all = options
        .lower
        .iter()
        .chain(&options.upper)
        .chain(&options.work);
    let relative: Vec<&PathBuf> = all.filter(|path| path.is_relative()).collect();
    if relative.is_empty() {
        return Ok("/".into());
    }
    let climbs = |path: &&PathBuf| path.components().any(|part| part == Component::ParentDir);
    if relative.iter().any(climbs) {
        return Err(Error::refused("a path of a layer leads upwards"));
    }
    let upper = options.upper.as_deref().filter(|upper| upper.is_absolute());
    let known = upper.into_iter().chain([point]);
    let mut above = known.flat_map(|path| path.ancestors().skip(1));
    above
        .find(|base| relative.iter().all(|path| base.join(path).exists()))
        .map(Path::to_owned)
        .ok_or_else(|| {
            Error::not_found(format!(
                "its layer {} is in no directory above it",
                relative[0].display()
            ))
        })
}

/// Returns the flags of a mount from its options in mountinfo.
pub(super) fn flags_of(options: &str) -> MountFlags {
    let flag = |option| match option {
        "ro" => MountFlags::RDONLY,
        "nosuid" => MountFlags::NOSUID,
        "nodev" => MountFlags::NODEV,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        "nosymfollow" => MountFlags::NOSYMFOLLOW,
        _ => MountFlags::empty(),
    };
    options.split(',').map(flag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        Options::parse(text).unwrap()
    }

    #[test]
    fn layers_of_docker_containerd_and_podman_are_read() {
        let docker = parse(
            "rw,lowerdir=l/AA:l/BB,upperdir=/d/overlay2/x/diff,workdir=/d/overlay2/x/work,index=off",
        );
        assert_eq!(docker.lower, [Path::new("l/AA"), Path::new("l/BB")]);
        assert_eq!(docker.upper, Some("/d/overlay2/x/diff".into()));
        assert_eq!(docker.others, Vec::<String>::new());
        let podman = parse(
            "rw,lowerdir=l/A,upperdir=u/diff,workdir=u/work,redirect_dir=on,metacopy=on,volatile,userxattr,uuid=null,nfs_export=on,index=on",
        );
        assert_eq!(
            podman.others,
            [
                "redirect_dir=on",
                "metacopy=on",
                "volatile",
                "userxattr",
                "uuid=null"
            ]
        );
        let containerd = parse("ro,lowerdir=/s/2/fs:/s/1/fs");
        assert_eq!((containerd.lower.len(), containerd.upper), (2, None));
        let new = parse("rw,lowerdir+=/a,lowerdir+=/b");
        assert_eq!(new.lower, [Path::new("/a"), Path::new("/b")]);
    }

    #[test]
    fn odd_letters_in_paths_are_read_as_the_kernel_writes_them() {
        // As `mount -o 'lowerdir=/a\:b:/c d'` shows, and a comma in the upper directory.
        let odd = parse(r"rw,lowerdir=/a\134:b:/c\040d,upperdir=/u\054x,workdir=/w");
        assert_eq!(odd.lower, [Path::new("/a:b"), Path::new("/c d")]);
        assert_eq!(odd.upper, Some("/u,x".into()));
    }

    #[test]
    fn what_cannot_be_made_anew_is_refused() {
        for text in ["rw", "rw,lowerdir=/a::/b", "rw,lowerdir+=/a,datadir+=/b"] {
            assert!(Options::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn relative_layers_belong_to_the_nearest_directory_that_has_all() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        for path in ["o/l/A", "o/l/B", "o/x/diff", "o/x/merged", "o/x/l/A"] {
            std::fs::create_dir_all(top.join(path)).unwrap();
        }
        let point = top.join("o/x/merged");
        let base = |text: &str| base_of(&parse(text), &point);
        assert_eq!(base("lowerdir=l/A:l/B").unwrap(), top.join("o"));
        assert_eq!(base("lowerdir=/a:/b").unwrap(), Path::new("/"));
        assert!(base("lowerdir=l/none").is_err());
        assert!(base("lowerdir=../l/A").is_err());
    }

    #[test]
    fn flags_of_the_mount_are_kept() {
        assert_eq!(
            flags_of("ro,nosuid,relatime"),
            MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::RELATIME
        );
        assert_eq!(flags_of("rw"), MountFlags::empty());
    }
}
