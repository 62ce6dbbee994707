//! Isolation, in the process of `eci-runc`: it gives a container a user namespace, and files whose ids are mapped.
//! docs/isolation.md describes it.
//!
//! [`enter`] makes a mount namespace for the runtime that this process becomes. Everything is put together there, below the
//! *stage*, and ends with the container: nothing is mounted on the host, and nothing has to be taken away.

mod cgroups;
mod clones;
mod devices;
mod file_owner;
mod mount_setattr;
mod namespace;
mod network;
mod overlay;
mod overlay_options;
mod owned_namespace;
mod pinned;
mod place;
pub mod policy;
mod read_only_root;
mod restricted;
mod root;
mod runtime_version;
mod streams;
mod sysctls;
pub mod sysctls_inside;
mod system_calls;
mod time_namespace;
pub mod trials;

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use eci_fs_mountd::config::Isolation;
use eci_fs_mountd::container::mountinfo::{self, Mount};
use eci_fs_mountd::isolation::overlays::forget_names;
use eci_fs_mountd::isolation::stage::ROOT;
use eci_fs_protocol::error::{Error, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::oci::bundle::CONFIG;
use crate::oci::hooks::Hook;
use crate::oci::isolation::{Container, Edits, KEPT, Source, TakenOver, edit};
pub use cgroups::delegate as delegate_cgroups;
use clones::{Clones, Placed};
use owned_namespace::Kind;
use policy::Pinned;
use restricted::{HostRules, Use, Wanted};
pub use root::Overlays;
use runtime_version::Version;
pub use streams::{give as give_streams, replace_devices};
use system_calls::Choice;
pub use time_namespace::offsets_to_zero;

/// The options of the file system at the stage. The edited configuration is its only content of any size.
const STAGE_OPTIONS: &std::ffi::CStr = c"mode=0711,size=32m";

/// The file below the stage that tells the hook what is taken over from the runtime: a [`TakenOver`] as JSON.
pub const TAKEN_OVER: &str = "taken-over.json";

/// The runtime that complains of a mapping beside the path of a user namespace, and the first version of it that surely needs
/// none. runc 1.1.5 does.
const TAKES_PATH_ALONE: [(&str, [u32; 3]); 1] = [("runc", [1, 2, 0])];

/// The runtime that leaves out the mounts below a volume of a container with a user namespace, and the first version of it
/// that surely passes them. crun 1.8.1 leaves them out, and 1.28 (which is less than 1.28.0) does not.
const PASSES_MOUNTS_BELOW: [(&str, [u32; 3]); 1] = [("crun", [1, 27, 1])];

/// The most bind mounts and devices of a container that are mapped.
const MAX_PLACES: usize = 4096;

/// The ids of a container, and where its files are put together.
#[derive(Debug)]
pub struct Range {
    /// The host's id of the container's root.
    pub first_id: u32,
    /// The number of ids.
    pub ids: u32,
    /// The user namespace.
    pub user_namespace: OwnedFd,
    /// The stage: a directory that exists on the host, with the empty directory `root`.
    pub stage: PathBuf,
}

/// The bundle of a container.
#[derive(Debug)]
pub struct Bundle<'a> {
    /// Its directory.
    pub dir: &'a Path,
    /// The file with its configuration.
    pub config: &'a Path,
    /// The text of that file.
    pub text: &'a str,
    /// What the text says.
    pub container: &'a Container,
    /// The runtime that makes the container.
    pub runtime: &'a Path,
    /// The runtime directory of the daemon.
    pub runtime_dir: &'a Path,
    /// The name by which the daemon knows the container.
    pub key: &'a str,
    /// A process of the container whose user namespace it joins.
    pub joined: Option<i32>,
    /// The hook that locks its mounts, with the name of its stage; none if they are not locked.
    pub locks: Option<(&'static str, Hook)>,
}

/// Moves this process into a mount namespace of its own, in which the runtime finds the container's files mapped, and an
/// edited configuration in the place of the bundle's. Returns notes for the administrator's log.
///
/// # Errors
/// When the container's root or a device cannot be mapped, a volume is refused, and the kernel's. This process must not
/// become the runtime then.
pub fn enter(bundle: &Bundle<'_>, range: &Range, settings: &Isolation) -> Result<Vec<String>> {
    let real = |path: &Path| std::fs::canonicalize(path).map_err(|e| Error::io("find", path, e));
    let root = real(&bundle.dir.join(&bundle.container.root))?;
    let (dir, config) = (real(bundle.dir)?, real(bundle.config)?);
    let user_namespace = &range.user_namespace;
    let proc = Path::new("/proc");
    let version = Version::of(bundle.runtime, bundle.runtime_dir);
    let time = time_namespace::of(bundle, version.as_ref(), proc)?;
    let calls = system_calls::of(bundle, version.as_ref(), settings)?;
    if let Choice::Trap(calls) = &calls {
        system_calls::check_listener(&calls.listener)?;
    }
    let pinned = policy::pinned(bundle.container, user_namespace, bundle.runtime_dir, proc)?;
    if let Some(pinned) = pinned {
        // The engine has to find them, so this comes before the mounts of its own.
        replace(&pinned, range)?;
        pinned.starts.keep();
    }
    let time = time.map(|time| time.get(user_namespace.as_fd()));
    give_streams(range.first_id)?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| Error::io("make", "a mount namespace", e))?;
    // What is mounted here does not appear on the host, and what the host mounts still appears here.
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave)
        .map_err(|e| Error::io("separate", "the mounts of the container", e))?;
    // A descriptor from before would belong to the old mount namespace.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let here = rustix::fs::open(".", flags, Mode::empty())
        .map_err(|e| Error::io("open", "the working directory", e))?;
    let mounts = read_mounts()?;
    let stage = open_stage(&range.stage)?;
    rustix::process::fchdir(&stage).map_err(|e| Error::io("enter", &range.stage, e))?;
    let mut clones = Clones {
        user_namespace: range.user_namespace.as_fd(),
        unmapped: settings.unmapped_volumes,
        mounts: &mounts,
        rules: &HostRules::new(settings, &bundle.container.annotations, &mounts),
        notes: Vec::new(),
    };
    if root::attach(&root, &mut clones, &range.stage, range.first_id)? {
        root::copy_up(bundle.container)?;
    }
    let apart = (version.as_ref())
        .is_some_and(|version| version.is_older_than_its_entry_in(&PASSES_MOUNTS_BELOW));
    let mut edits = edits(&dir, bundle.container, range, &stage, &mut clones, apart)?;
    edits.without_mapping = version.is_some_and(|version| version.is_one_of(&TAKES_PATH_ALONE));
    if let Some(Err(error)) = &time {
        let note = format!("its clocks do not begin with it: {error}");
        clones.notes.push(note);
    }
    if let Some(Ok(time)) = time {
        edits.time_namespace = Some(mount_namespace(&time, &range.stage.join("time"))?);
    }
    if let Choice::Trap(calls) = calls {
        edits.system_calls = Some(calls);
    }
    if bundle.locks.is_some() {
        let taken = TakenOver::of(bundle.container, range.ids);
        let place = range.stage.join(TAKEN_OVER);
        let taken = serde_json::to_vec(&taken)
            .map_err(|e| Error::io("encode", &place, std::io::Error::from(e)))?;
        std::fs::write(&place, taken).map_err(|e| Error::io("write", &place, e))?;
        if bundle.container.root_read_only {
            let place = range.stage.join(ROOT);
            read_only_root::make(&place, bundle.container, &dir, range.first_id)?;
        }
        edits.hook.clone_from(&bundle.locks);
    }
    let (text, trapped) = edit(bundle.text, &edits)?;
    let note = trapped.and_then(system_calls::note);
    clones.notes.extend(note.map(str::to_owned));
    let place = range.stage.join(CONFIG);
    std::fs::write(&place, text).map_err(|e| Error::io("write", &place, e))?;
    rustix::mount::mount_bind(&place, &config).map_err(|e| Error::io("mount over", &config, e))?;
    forget_names(&root)?;
    rustix::process::fchdir(&here).map_err(|e| Error::io("enter", "the working directory", e))?;
    Ok(clones.notes)
}

/// Checks that a container that stays in the user namespace of its engine, or in the host's, gets no restricted file or device
/// of the host. `dir` is its bundle.
///
/// # Errors
/// When it would get one, and the kernel's.
pub fn check_host_files(dir: &Path, container: &Container, settings: &Isolation) -> Result<()> {
    HostRules::new(settings, &container.annotations, &read_mounts()?)
        .check_container(dir, container)
}

/// Puts namespaces that belong to the user namespace of `range` in the place of those that an engine made.
fn replace(pinned: &Pinned, range: &Range) -> Result<()> {
    for namespace in &pinned.namespaces {
        let (starts, mounts) = (&pinned.starts, read_mounts()?);
        let replaced = match namespace.kind() {
            Kind::Network => network::own(namespace, starts, &range.user_namespace, &mounts),
            _ => pinned::own(namespace, starts, range, &mounts),
        };
        replaced.map_err(|error| {
            let path = namespace.path().display();
            error
                .context(format!("the namespace at {path}"))
                .remedy(policy::ENGINE_MADE)
        })?;
    }
    Ok(())
}

/// Makes a file system of this process's own at the stage.
fn open_stage(stage: &Path) -> Result<OwnedFd> {
    let mounted = rustix::mount::mount(
        "eci-stage",
        stage,
        "tmpfs",
        MountFlags::empty(),
        STAGE_OPTIONS,
    );
    mounted.map_err(|e| {
        Error::io("mount a file system at", stage, e)
            .remedy("eci-mountd makes this directory; is it the one of [hook] runtime-dir?")
    })?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, stage, flags, Mode::empty()).map_err(|e| Error::io("open", stage, e))
}

fn read_mounts() -> Result<Vec<Mount>> {
    let path = "/proc/self/mountinfo";
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::io("read", path, e))?;
    let read = file.take(mountinfo::LIMIT + 1).read_to_end(&mut text);
    let length = read.map_err(|e| Error::io("read", path, e))?;
    if length as u64 > mountinfo::LIMIT {
        return Err(Error::refused(format!(
            "the host has too many mounts: {path} has more than {} bytes",
            mountinfo::LIMIT
        )));
    }
    Ok(mountinfo::parse_mountinfo(&String::from_utf8_lossy(&text)))
}

/// Mounts a namespace at `path`, where the runtime finds it. Returns the path.
fn mount_namespace(namespace: &OwnedFd, path: &Path) -> Result<PathBuf> {
    let own = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    std::fs::write(path, "").map_err(|e| Error::io("create", path, e))?;
    rustix::mount::mount_bind(own, path).map_err(|e| Error::io("mount a namespace at", path, e))?;
    Ok(path.to_owned())
}

/// Attaches the user namespace, the volumes and the devices below the stage. Returns the changes of the configuration. With
/// `apart`, each mount below a volume is an entry of its own there.
fn edits(
    dir: &Path,
    container: &Container,
    range: &Range,
    stage: &OwnedFd,
    clones: &mut Clones<'_>,
    apart: bool,
) -> Result<Edits> {
    let mut edits = Edits {
        user_namespace: mount_namespace(&range.user_namespace, &range.stage.join("user"))?,
        first_id: range.first_id,
        ids: range.ids,
        root: range.stage.join(ROOT),
        ..Edits::default()
    };
    let sources = container.mounts.iter().enumerate();
    for (place, mount) in sources {
        clones.rules.check_layers_of(dir, mount)?;
        let at = range.stage.join(format!("volume{place}"));
        if let Some(options) = &mount.overlay {
            let engine = overlay::Engines::in_configuration(options, dir)?;
            let source = overlay_volume(&engine, &at, range.first_id, stage, clones)
                .map_err(|error| error.context(mount.destination.display()))?;
            edits.sources.insert(place, source);
        }
        let Some(source) = &mount.source else {
            continue;
        };
        let wanted = Wanted {
            written: source,
            purpose: Use::Volume,
            read_only: mount.read_only,
            recursive: mount.recursive,
        };
        let is_mapped = mount.is_mapped;
        let source = match clones.volume(&dir.join(source), &at, wanted, is_mapped)? {
            Placed::Cloned(below) => Source {
                options: options_of(&at)?,
                below: if apart { below } else { Vec::new() },
                path: at,
                is_overlay: false,
            },
            // With the path that was judged, whatever happens to links on the way.
            Placed::AsItIs(path) => Source {
                path,
                ..Source::default()
            },
        };
        edits.sources.insert(place, source);
        check_number(edits.sources.len())?;
    }
    let devices = container.devices.iter().enumerate();
    for (place, device) in devices.filter(|(_, device)| !devices::is_the_runtimes(device)) {
        clones.rules.check_device(device)?;
        let at = range.stage.join(format!("device{place}"));
        devices::make(device, &at, range.first_id, range.ids)?;
        edits.devices.insert(place, at);
        check_number(edits.devices.len())?;
    }
    Ok(edits)
}

/// Mounts an overlay that is no root file system below `at`. The runtime could not: the user namespace has no ids for its
/// layers.
fn overlay_volume(
    engine: &overlay::Engines,
    at: &Path,
    first_id: u32,
    stage: &OwnedFd,
    clones: &mut Clones<'_>,
) -> Result<Source> {
    let root = at.join(ROOT);
    std::fs::create_dir_all(&root).map_err(|e| Error::io("create", &root, e))?;
    // Its layers have names in a directory of their own.
    rustix::process::chdir(at).map_err(|e| Error::io("enter", at, e))?;
    overlay::mount_anew(engine, clones, at, ROOT, first_id)?;
    rustix::process::fchdir(stage).map_err(|e| Error::io("enter", "the stage", e))?;
    Ok(Source {
        options: options_of(&root)?,
        path: root,
        is_overlay: true,
        ..Source::default()
    })
}

/// Returns the options of the mount at `path` that a runtime has to keep.
fn options_of(path: &Path) -> Result<Vec<&'static str>> {
    let stat = rustix::fs::statvfs(path).map_err(|e| Error::io("stat", path, e))?;
    let has = |option: &str| {
        let flag = match option {
            "ro" => StatVfsMountFlags::RDONLY,
            "nosuid" => StatVfsMountFlags::NOSUID,
            "nodev" => StatVfsMountFlags::NODEV,
            _ => StatVfsMountFlags::NOEXEC,
        };
        stat.f_flag.contains(flag)
    };
    let kept = KEPT.iter().map(|(option, _)| *option);
    Ok(kept.filter(|option| has(option)).collect())
}

fn check_number(places: usize) -> Result<()> {
    if places <= MAX_PLACES {
        return Ok(());
    }
    Err(Error::refused(format!(
        "the container has more than {MAX_PLACES} volumes or devices of the host"
    )))
}
