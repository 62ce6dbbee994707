//! The decision whether a container is isolated, and in which user namespace.

mod engine_namespace;
mod starts;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::owned_namespace;
use crate::oci::annotations::{self, ISOLATE};
use crate::oci::isolation::{Container, Namespace};
use eci_fs_mountd::config::{HostNamespaces, Isolation};
use eci_fs_mountd::container::procfs::parse_id_map;
use eci_fs_protocol::error::{Error, Kind, Result};
pub(super) use engine_namespace::EngineNamespace;
use engine_namespace::{Usage, changed};
pub(super) use starts::Starts;

/// The number of ids in the user namespace of a container.
pub const IDS: u32 = 65_536;

/// The trouble with a namespace that another start has taken.
const GIVEN: &str = "is given to another container right now";

/// The namespaces that a container may not share with the host.
const KINDS: [&str; 4] = ["pid", "network", "ipc", "uts"];

/// The kinds of namespaces that an engine may have made before the container, in the order in which they are replaced. What a
/// network has may keep it from being replaced.
const PINNED: [(&str, owned_namespace::Kind); 3] = [
    ("ipc", owned_namespace::Kind::Ipc),
    ("uts", owned_namespace::Kind::Uts),
    ("network", owned_namespace::Kind::Network),
];

/// The remedy for a namespace that an engine made.
pub(super) const ENGINE_MADE: &str =
    "let the engine make the user namespace too (podman --userns=auto, hostUsers: false in a pod)";

/// The decision about a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is made as its engine wants it. The text says why, if the administrator may not expect that.
    LeaveAlone(Option<String>),
    /// It gets a user namespace of its own.
    Own,
    /// It joins the user namespace of another container, because it shares another namespace with that.
    Join(Joined),
}

/// The user namespace of another container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// A process of that container.
    pub pid: i32,
    /// The number of its ids.
    pub ids: u32,
}

/// The namespaces that a container does not have for itself.
#[derive(Debug, Default)]
struct Shared {
    /// Kinds that it shares with the host, or with a container that has no user namespace.
    host: Vec<String>,
    /// The processes in /proc whose namespaces it joins, and which are in another user namespace than the host.
    containers: Vec<PathBuf>,
}

/// Decides about a container by its configuration and the host's settings. `proc` is where procfs is mounted.
///
/// # Errors
/// When the host does not allow what the container asks for, or it cannot be isolated.
pub fn decide(container: &Container, settings: &Isolation, proc: &Path) -> Result<Decision> {
    if !is_wanted(container, settings)? {
        return Ok(Decision::LeaveAlone(None));
    }
    let user = container.namespace("user");
    let own = namespace_id(&proc.join("self/ns/user"));
    let host_user = container.maps_host_root
        || user
            .and_then(Namespace::joined_path)
            .is_some_and(|path| has_host_root(path, proc));
    // Runtimes ignore a mapping without a user namespace.
    if user.is_some() && !host_user {
        // The engine maps the ids by itself.
        return Ok(Decision::LeaveAlone(None));
    }
    let mut shared = shared(container, proc, own);
    if host_user {
        shared.host.push("user".to_owned());
    }
    if !shared.host.is_empty() {
        let what = format!(
            "the container shares namespaces with the host, or has such that were made for it outside of its user \
             namespace: {}",
            shared.host.join(", ")
        );
        return match settings.host_namespaces {
            HostNamespaces::LeaveAlone => Ok(Decision::LeaveAlone(Some(what))),
            HostNamespaces::Refuse => Err(Error::refused(format!("{what}; it cannot be isolated")).remedy(format!(
                "give it namespaces of its own, {ENGINE_MADE}, or set host-namespaces to \"leave-alone\" in [isolation]"
            ))),
        };
    }
    if container.namespace("mount").is_none() {
        return Err(Error::refused(
            "the container has no mount namespace, and cannot be isolated without one",
        ));
    }
    let decision = match shared.containers.split_first() {
        None => Decision::Own,
        Some((first, others)) => Decision::Join(join(first, others)?),
    };
    let ids = match &decision {
        Decision::Join(joined) => joined.ids,
        _ => IDS,
    };
    for id in &container.ids {
        check_id(*id, ids).map_err(|error| error.context("the user of the process"))?;
    }
    Ok(decision)
}

/// Checks that a container with `ids` ids has `id`.
///
/// # Errors
/// When it has not.
pub(super) fn check_id(id: u32, ids: u32) -> Result<()> {
    if id < ids {
        return Ok(());
    }
    Err(Error::refused(format!(
        "there is no id {id} in an isolated container, which has those from 0 to {}",
        ids - 1
    )))
}

/// Returns whether the user namespace at `path` is the host's own, or is known to have the host's root.
fn has_host_root(path: &Path, proc: &Path) -> bool {
    let maps_root = |process: PathBuf| {
        let map = fs::read_to_string(process.join("uid_map")).unwrap_or_default();
        parse_id_map(&map)
            .iter()
            .any(|(_, first, ids)| *first == 0 && *ids > 0)
    };
    is_namespace(path, &proc.join("self/ns/user")) || process_of(path, proc).is_some_and(maps_root)
}

/// Returns whether the host or the container wants it isolated.
///
/// # Errors
/// For an annotation that is none, or that the container may not have.
pub fn is_wanted(container: &Container, settings: &Isolation) -> Result<bool> {
    match annotations::isolate(&container.annotations)? {
        None => Ok(settings.enabled),
        Some(true) => Ok(true),
        Some(false) if !settings.enabled || settings.opt_out => Ok(false),
        Some(false) => Err(Error::new(
            Kind::Denied,
            format!(
                "the annotation {ISOLATE}=false is not one that containers may have on this host"
            ),
        )
        .remedy("remove it, or set opt-out in [isolation]")),
    }
}

fn shared(container: &Container, proc: &Path, own: Option<PathBuf>) -> Shared {
    let mut shared = Shared::default();
    for kind in KINDS {
        let Some(namespace) = container.namespace(kind) else {
            shared.host.push(kind.to_owned());
            continue;
        };
        let Some(path) = namespace.joined_path() else {
            continue;
        };
        let process = process_of(path, proc);
        let pinned = PINNED.iter().find(|(name, _)| *name == kind);
        if let (Some((_, pinned)), None) = (pinned, &process) {
            let namespace = EngineNamespace::open(path, *pinned);
            match namespace.map(|namespace| namespace.usage(proc, own.as_deref())) {
                Some(Usage::Unused) => {}
                Some(Usage::Container(process)) => shared.containers.push(process),
                Some(Usage::Host) | None => {
                    shared.host.push(format!("{kind} ({})", path.display()));
                }
            }
            continue;
        }
        let user = process
            .as_deref()
            .and_then(|process| namespace_id(&process.join("ns/user")));
        match process {
            Some(process)
                if user.is_some()
                    && user != own
                    && !is_namespace(path, &proc.join("self/ns").join(file_of(kind))) =>
            {
                shared.containers.push(process);
            }
            _ => shared.host.push(format!("{kind} ({})", path.display())),
        }
    }
    shared
}

/// The namespaces that an engine made for a container, and that have to be replaced. They are locked, so no other start
/// replaces them meanwhile.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) namespaces: Vec<EngineNamespace>,
    /// Those that replace them are added to this.
    pub(super) starts: Starts,
    _locks: Vec<OwnedFd>,
}

/// Returns the namespaces that the engine made for an isolated container whose user namespace is `user_namespace`, and that
/// have to be replaced. Files about that are in `runtime_dir`.
///
/// # Errors
/// When one is not as it was when [`decide`] looked at it.
pub(super) fn pinned(
    container: &Container,
    user_namespace: impl AsFd,
    runtime_dir: &Path,
    proc: &Path,
) -> Result<Option<Pinned>> {
    let paths = PINNED.iter().filter_map(|(name, kind)| {
        let path = container.namespace(name)?.joined_path()?;
        process_of(path, proc).is_none().then_some((*kind, path))
    });
    let paths: Vec<_> = paths.collect();
    if paths.is_empty() {
        return Ok(None);
    }
    let starts = Starts::open(runtime_dir)?;
    let (mut namespaces, mut locks) = (Vec::new(), Vec::new());
    let own = namespace_id(&proc.join("self/ns/user"));
    for (kind, path) in paths {
        let namespace = EngineNamespace::open(path, kind)
            .ok_or_else(|| changed(path, "is no mount of a namespace any more"))?;
        // A start that joins needs no lock.
        let locked = starts::lock(runtime_dir, &namespace);
        namespace.check()?;
        // Before the use: when its start is over, a process is in it.
        let is_given = starts.have(namespace.namespace())?;
        match namespace.usage(proc, own.as_deref()) {
            Usage::Container(_) if namespace.belongs_to(&user_namespace) => {}
            Usage::Unused if is_given => return Err(changed(path, GIVEN)),
            Usage::Unused => {
                locks.push(locked?);
                namespaces.push(namespace);
            }
            _ => {
                return Err(changed(
                    path,
                    "has a process of the host or of another container, which came while the container started",
                ));
            }
        }
    }
    Ok(Some(Pinned {
        namespaces,
        starts,
        _locks: locks,
    }))
}

/// Returns the directory in `proc` of the process whose namespace is at `path`, if that is the path of one.
pub(super) fn process_of(path: &Path, proc: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix("/proc").ok()?;
    let mut parts = below.iter();
    let pid: i32 = parts.next()?.to_str()?.parse().ok()?;
    let is_namespace = parts.next()? == "ns" && parts.count() == 1;
    (is_namespace && pid > 0).then(|| proc.join(pid.to_string()))
}

/// Returns the text of the link to a namespace, which tells it from others: "user:[4026531837]".
pub(super) fn namespace_id(path: &Path) -> Option<PathBuf> {
    fs::read_link(path).ok()
}

/// Returns the name in /proc/PID/ns of a kind of namespace.
fn file_of(kind: &str) -> &str {
    match kind {
        "network" => "net",
        "mount" => "mnt",
        other => other,
    }
}

/// Returns whether the namespace at `path` is the one at `other`. A path may also be a mount of a namespace, or a link to one.
fn is_namespace(path: &Path, other: &Path) -> bool {
    let links = [path, other].map(namespace_id);
    let files = [path, other].map(|path| {
        let stat = fs::metadata(path).ok();
        stat.map(|stat| (stat.dev(), stat.ino()))
    });
    links[0].is_some() && links[0] == links[1] || files[0].is_some() && files[0] == files[1]
}

fn join(first: &Path, others: &[PathBuf]) -> Result<Joined> {
    let path = first.join("ns/user");
    let id = namespace_id(&path);
    if others
        .iter()
        .any(|other| namespace_id(&other.join("ns/user")) != id)
    {
        return Err(Error::refused(
            "the container joins namespaces of containers in different user namespaces",
        )
        .remedy("let it join those of one container"));
    }
    let maps = ["uid_map", "gid_map"].map(|file| {
        let path = first.join(file);
        fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))
    });
    let [uids, gids] = maps;
    let (uids, gids) = (uids?, gids?);
    let pid = first
        .file_name()
        .and_then(|name| name.to_str()?.parse().ok());
    match (pid, parse_map(&uids).filter(|_| uids == gids)) {
        (Some(pid), Some((_, ids))) => Ok(Joined { pid, ids }),
        _ => Err(Error::refused(format!(
            "the user namespace at {} maps its ids in parts, and a container that joins it cannot be isolated",
            path.display()
        ))),
    }
}

/// Returns the host's first id and the number of ids of a map that has one line and begins at 0.
pub fn parse_map(text: &str) -> Option<(u32, u32)> {
    match parse_id_map(text)[..] {
        [(0, first, ids)] => Some((first, ids)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
