//! Files and devices of the host that containers may not have: as a volume, as a root file system, below one of them, or by
//! another name. docs/isolation.md has the rules.

mod builtin;
mod names;
mod pattern;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use eci_fs_mountd::config::Isolation;
use eci_fs_mountd::container::mountinfo::Mount;
use eci_fs_protocol::error::{Error, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::overlay_options::{Options, base_of};
use crate::oci::isolation::{Container, Device, Mount as ContainerMount, ReadOnly};
use names::{Location, Names};
use pattern::Pattern;
use rules::{Access, Allowed, Refusal, Restricted, Rules, Verdict};

/// The setting that allows a path.
const REMEDY: &str = "allowed-mounts in [isolation] can allow it";

/// The end of the path of a file that has been deleted.
const DELETED: &[u8] = b" (deleted)";

/// The type of an overlay in mountinfo.
const OVERLAY: &str = "overlay";

/// The purpose for which a container gets a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A volume.
    Volume,
    /// A root file system.
    Root,
    /// A layer of an overlay. One that is written to is of a volume.
    Layer,
    /// The upper directory of a root file system.
    RootUpper,
}

/// A path that a container is to get.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The path as the container's configuration has it.
    pub(super) written: &'a Path,
    /// The purpose.
    pub(super) purpose: Use,
    /// The part of it that it cannot write to.
    pub(super) read_only: ReadOnly,
    /// True if it gets the mounts below, too.
    pub(super) recursive: bool,
}

/// The rules of the host.
#[derive(Debug)]
pub(super) struct HostRules<'a> {
    names: Names<'a>,
    /// The rules of the administrator, restricted and allowed, for every use. These come first.
    own: (Vec<Restricted<'a>>, Vec<Allowed>),
    /// What is restricted by the built-in rules, for every use.
    restricted: Vec<Restricted<'a>>,
    /// What they allow, by the use: volumes, root file systems, layers, upper directories of root file systems.
    allowed: [Vec<Allowed>; 4],
    /// The device numbers that the administrator allows.
    devices: Vec<(u32, u32)>,
}

impl<'a> HostRules<'a> {
    /// Reads the rules for a container with these annotations. `mounts` are the mounts of this process.
    pub(super) fn new(
        settings: &Isolation,
        annotations: &BTreeMap<String, String>,
        mounts: &'a [Mount],
    ) -> Self {
        let names = Names::new(mounts);
        let builtin = builtin::restricted()
            .map(|(path, access)| Restricted::new(Path::new(path), access, &names))
            .collect();
        let allowed = |(path, access): (&str, Access)| Allowed {
            pattern: Pattern::new(Path::new(path)),
            access,
        };
        let by_use = [
            builtin::allowed().map(allowed).collect(),
            builtin::roots().map(allowed).collect(),
            builtin::layers().map(allowed).collect(),
            builtin::root_uppers().map(allowed).collect(),
        ];
        let own = (
            (settings.restricted_mounts.iter())
                .map(|path| Restricted::new(path, Access::None, &names))
                .collect(),
            (settings.allowed_mounts.iter())
                .chain(allowed_for_image(settings, annotations))
                .map(|path| Allowed {
                    pattern: Pattern::new(path),
                    access: Access::ReadWrite,
                })
                .collect(),
        );
        let numbers = |path: &PathBuf| {
            let stat = rustix::fs::stat(path).ok()?;
            Some((
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            ))
        };
        Self {
            names,
            own,
            restricted: builtin,
            allowed: by_use,
            devices: settings
                .allowed_devices
                .iter()
                .filter_map(numbers)
                .collect(),
        }
    }

    /// Checks everything that a container gets of the host, by paths. The host may change them afterwards.
    ///
    /// # Errors
    /// As [`Self::check`]. A path that is not there is the runtime's to report.
    pub(super) fn check_container(&self, dir: &Path, container: &Container) -> Result<()> {
        let root = dir.join(&container.root);
        if let Some(file) = open(&root)? {
            self.check_root(&file, &root)?;
        }
        for mount in &container.mounts {
            self.check_layers_of(dir, mount)?;
            if let Some(source) = &mount.source {
                let wanted = Wanted {
                    written: source,
                    purpose: Use::Volume,
                    read_only: mount.read_only,
                    recursive: mount.recursive,
                };
                self.check_path(&dir.join(source), wanted)?;
            }
        }
        let mut devices = container.devices.iter();
        devices.try_for_each(|device| self.check_device(device))
    }

    /// Checks that a container may have the root file system that is open as `file`.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(super) fn check_root(&self, file: impl AsFd, path: &Path) -> Result<()> {
        let wanted = Wanted {
            written: path,
            purpose: Use::Root,
            read_only: ReadOnly::None,
            recursive: true,
        };
        self.check(file, wanted)
    }

    /// Checks that a container may have a layer of an overlay that is open as `file`.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(super) fn check_layer(
        &self,
        file: impl AsFd,
        path: &Path,
        purpose: Use,
        read_only: ReadOnly,
    ) -> Result<()> {
        let wanted = Wanted {
            written: path,
            purpose,
            read_only,
            recursive: false,
        };
        self.check(file, wanted)
    }

    /// Checks the layers of a mount of a container that is an overlay.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(super) fn check_layers_of(&self, dir: &Path, mount: &ContainerMount) -> Result<()> {
        let Some(options) = &mount.overlay else {
            return Ok(());
        };
        let options = Options::of_configuration(options)?;
        let read = options.lower.iter().map(|layer| (layer, ReadOnly::All));
        let written = options.upper.iter().chain(&options.work);
        let written = written.map(|layer| (layer, mount.read_only));
        for (layer, read_only) in read.chain(written) {
            let wanted = Wanted {
                written: layer,
                purpose: Use::Layer,
                read_only,
                recursive: false,
            };
            self.check_path(&dir.join(layer), wanted)?;
        }
        Ok(())
    }

    fn check_path(&self, path: &Path, wanted: Wanted<'_>) -> Result<()> {
        match open(path)? {
            Some(file) => self.check(&file, wanted),
            None => Ok(()),
        }
    }

    /// Checks that a container may have `file`, a descriptor that was opened in this mount namespace. It stands for the
    /// same file whatever happens to paths afterwards.
    ///
    /// # Errors
    /// When it may not, and when its path cannot be found.
    pub(super) fn check(&self, file: impl AsFd, wanted: Wanted<'_>) -> Result<()> {
        let trouble = |e| Error::io("find", wanted.written, e);
        let own = format!("/proc/self/fd/{}", raw(&file));
        let path = rustix::fs::readlinkat(CWD, own, Vec::new()).map_err(trouble)?;
        let path = PathBuf::from(path.to_string_lossy().into_owned());
        let flags = StatxFlags::MNT_ID | StatxFlags::NLINK;
        let stat = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, flags).map_err(trouble)?;
        let mount = self.names.mount(stat.stx_mnt_id);
        let location = mount.and_then(|mount| Some((mount, Location::of(mount, &path)?)));
        // Only the kernel's word for it: FUSE file systems have files without links, and a name may end so.
        let is_deleted =
            stat.stx_nlink == 0 && path.as_os_str().as_encoded_bytes().ends_with(DELETED);
        let location = location.filter(|_| !is_deleted);
        let Some((mount, location)) = location else {
            return Err(Error::refused(format!(
                "{} is in no mount of the host, or was mounted or deleted just now",
                wanted.written.display()
            )));
        };
        self.check_place(&path, &location, wanted)?;
        if wanted.recursive {
            let wanted = Wanted {
                // The mounts below one that is read-only by itself can be written to.
                read_only: match wanted.read_only {
                    ReadOnly::All => ReadOnly::All,
                    ReadOnly::Top | ReadOnly::None => ReadOnly::None,
                },
                ..wanted
            };
            for below in self.names.below(&path) {
                if let Some(location) = Location::of(below, Path::new(&below.point)) {
                    self.check_place(Path::new(&below.point), &location, wanted)?;
                }
            }
        }
        // The root of a host may be an overlay of directories that nobody can name.
        if mount.fstype == OVERLAY && mount.point != "/" {
            self.check_layers(mount, wanted)?;
        }
        Ok(())
    }

    /// Checks the layers of an overlay that an engine has mounted.
    fn check_layers(&self, mount: &Mount, wanted: Wanted<'_>) -> Result<()> {
        let options = Options::parse(&mount.super_options)?;
        // The kernel looked relative ones up where the engine was.
        let base = base_of(&options, Path::new(&mount.point))?;
        let lower = (options.lower.iter()).map(|layer| (layer, Use::Layer, ReadOnly::All));
        let of_upper = match wanted.purpose {
            Use::Root => Use::RootUpper,
            _ => Use::Layer,
        };
        let upper = (options.upper.iter()).map(|layer| (layer, of_upper, wanted.read_only));
        for (layer, purpose, read_only) in lower.chain(upper) {
            let Ok(real) = std::fs::canonicalize(base.join(layer)) else {
                continue;
            };
            if let Some(location) = self.names.location(&real) {
                let wanted = Wanted {
                    purpose,
                    read_only,
                    ..wanted
                };
                self.check_place(&real, &location, wanted)?;
            }
        }
        Ok(())
    }

    fn check_place(&self, path: &Path, location: &Location<'_>, wanted: Wanted<'_>) -> Result<()> {
        let mut names = self.names.of(location);
        if !names.iter().any(|name| name == path) {
            names.push(path.to_owned());
        }
        let own = Rules {
            restricted: &self.own.0,
            allowed: &self.own.1,
        };
        let [volumes, roots, layers, root_uppers] = &self.allowed;
        let builtin = Rules {
            restricted: &self.restricted,
            allowed: match wanted.purpose {
                Use::Volume => volumes,
                Use::Root => roots,
                Use::Layer => layers,
                Use::RootUpper => root_uppers,
            },
        };
        for name in &names {
            for rules in [own, builtin] {
                match rules.judge(name, location, wanted.read_only != ReadOnly::None) {
                    Verdict::Unknown => {}
                    Verdict::Allowed => break,
                    Verdict::Refused(refusal) => return Err(refused(&refusal, name, wanted)),
                }
            }
        }
        Ok(())
    }

    /// Checks that a container may have a device node that can be used.
    ///
    /// # Errors
    /// When it may not.
    pub(super) fn check_device(&self, device: &Device) -> Result<()> {
        let (major, minor) = (device.major, device.minor);
        if !device.allowed_by_number || self.devices.contains(&(major, minor)) {
            return Ok(());
        }
        let Some(what) = builtin::restricted_device(device.block, major, minor) else {
            return Ok(());
        };
        Err(Error::refused(format!(
            "the device {} ({major}:{minor}) is {what}, which containers may not have",
            device.path.display()
        ))
        .remedy("allowed-devices in [isolation] can allow it"))
    }
}

/// Returns the paths that the image of a container may have as well. The engine names it as "NAME@DIGEST" or by the
/// digest alone.
fn allowed_for_image<'s>(
    settings: &'s Isolation,
    annotations: &BTreeMap<String, String>,
) -> &'s [PathBuf] {
    let name = Some(&settings.image_annotation).filter(|name| !name.is_empty());
    let image = name.and_then(|name| annotations.get(name));
    let digest = image.and_then(|image| image.rsplit('@').next());
    let paths = digest.and_then(|digest| settings.allowed_images.get(digest));
    paths.map_or(&[], Vec::as_slice)
}

/// Opens a file that is judged; none if there is no such file.
fn open(path: &Path) -> Result<Option<OwnedFd>> {
    match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(Error::io("find", path, e)),
    }
}

fn raw(file: impl AsFd) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(&file.as_fd())
}

fn refused(refusal: &Refusal<'_, '_>, name: &Path, wanted: Wanted<'_>) -> Error {
    let rule = refusal.rule;
    let what = match wanted.purpose {
        Use::Volume => "volume",
        Use::Root => "root file system",
        Use::Layer | Use::RootUpper => "layer",
    };
    let written = wanted.written.display();
    let also = if name == wanted.written {
        String::new()
    } else {
        format!(" (which is {})", name.display())
    };
    let verb = match refusal.contains {
        true => "contains",
        false if rule.path == name => "is",
        false => "is below",
    };
    let may = match rule.access {
        Access::ReadOnly => "may only have read-only",
        _ => "may not have",
    };
    Error::refused(format!(
        "the {what} {written}{also} {verb} {}, which containers {may}",
        rule.written.display()
    ))
    .remedy(REMEDY)
}
