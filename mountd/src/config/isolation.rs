//! The table `[isolation]`.

use std::collections::BTreeMap;
use std::path::{Component, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The longest name of a user, in bytes. It is that of `useradd`.
const MAX_NAME: usize = 32;

/// The greatest depth that can be set. Programs of the host remove cgroups by paths, which may have 4095 bytes, and a name may
/// have 255.
const MAX_DEPTH: u32 = 14;

/// The table `[isolation]`: which containers `eci-fs runtime` gives a user namespace of their own, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Isolation {
    /// True if every container is isolated that `eci-fs runtime` makes.
    pub enabled: bool,
    /// The user whose lines in /etc/subuid and /etc/subgid are the ids for containers. Where it has no lines, a built-in
    /// range is taken.
    #[serde(deserialize_with = "user")]
    pub user: String,
    /// The reaction to a container that shares a namespace with the host.
    pub host_namespaces: HostNamespaces,
    /// The reaction to a volume whose file system cannot be ID-mapped.
    pub unmapped_volumes: UnmappedVolumes,
    /// True if an annotation may have a container not isolated.
    pub opt_out: bool,
    /// Files and directories of the host that no container gets, besides the built-in ones.
    #[serde(deserialize_with = "paths")]
    pub restricted_mounts: Vec<PathBuf>,
    /// Files and directories of the host that containers may get, whatever the built-in rules say. A `*` stands for any
    /// letters of one name.
    #[serde(deserialize_with = "paths")]
    pub allowed_mounts: Vec<PathBuf>,
    /// The device nodes of the host that containers may get, whatever the built-in rules say.
    #[serde(deserialize_with = "paths")]
    pub allowed_devices: Vec<PathBuf>,
    /// The annotation in which the engine names the image of a container, with its digest. If this is empty, no
    /// annotation is believed.
    pub image_annotation: String,
    /// The paths that containers of one image may get as well, as in `allowed_mounts`, by the digest of the image
    /// ("sha256:...").
    #[serde(deserialize_with = "images")]
    pub allowed_images: BTreeMap<String, Vec<PathBuf>>,
    /// True if a container whose cgroup is mounted writable may make cgroups below it in hierarchies of version 1, too.
    /// Nothing bounds their number there.
    pub delegate_cgroup_v1: bool,
    /// True if a supervisor answers those system calls that would tell about the host.
    pub system_calls: bool,
    /// True if the kernel locks the grafts, masks and read-only mounts of isolated containers. They can mount no new procfs
    /// and sysfs then.
    pub locked_mounts: bool,
    /// The greatest number of cgroups that a container may make below its own, on version 2. It is set where the cgroup
    /// has no bound yet.
    pub max_descendants: u32,
    /// The greatest depth of such cgroups.
    #[serde(deserialize_with = "depth")]
    pub max_depth: u32,
}

/// The reaction to a container that shares its pid, network, ipc, uts or user namespace with the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostNamespaces {
    /// It is not made.
    Refuse,
    /// It is not isolated, and a line in the log says so.
    LeaveAlone,
}

/// The reaction to a volume whose file system cannot be ID-mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnmappedVolumes {
    /// The container gets it as it is: all its files belong to nobody there.
    Pass,
    /// The container is not made.
    Refuse,
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            enabled: false,
            user: "eci-fs".to_owned(),
            host_namespaces: HostNamespaces::Refuse,
            unmapped_volumes: UnmappedVolumes::Pass,
            opt_out: false,
            restricted_mounts: Vec::new(),
            allowed_mounts: Vec::new(),
            allowed_devices: Vec::new(),
            image_annotation: String::new(),
            allowed_images: BTreeMap::new(),
            delegate_cgroup_v1: false,
            system_calls: false,
            locked_mounts: false,
            max_descendants: 512,
            max_depth: 12,
        }
    }
}

/// Reads the greatest depth of cgroups.
fn depth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let depth = u32::deserialize(deserializer)?;
    if depth > MAX_DEPTH {
        return Err(D::Error::custom(format!(
            "in [isolation], max-depth is {depth}, and must be at most {MAX_DEPTH}"
        )));
    }
    Ok(depth)
}

/// Reads the name of a user. A number would be read as a name here and as an id in /etc/subuid, and root's lines are
/// ids that root's own rootless containers have.
fn user<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let is_character = |c: char| c.is_ascii_alphanumeric() || "_-.$".contains(c);
    let is_number = name.chars().all(|c| c.is_ascii_digit());
    if is_number || name == "root" || name.len() > MAX_NAME || !name.chars().all(is_character) {
        return Err(D::Error::custom(format!(
            "in [isolation], user is '{name}', and must be the name of a user that is not root, at most {MAX_NAME} \
             letters, digits, and \"_-.$\""
        )));
    }
    Ok(name)
}

/// Reads absolute paths. One with ".." would not be what it seems to be.
fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = Vec::<PathBuf>::deserialize(deserializer)?;
    check_paths(&paths).map_err(D::Error::custom)?;
    Ok(paths)
}

/// Reads paths by the digests of images.
fn images<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<PathBuf>>, D::Error> {
    let images = BTreeMap::<String, Vec<PathBuf>>::deserialize(deserializer)?;
    for (digest, paths) in &images {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        // A shorter one would fit several images.
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(D::Error::custom(format!(
                "'{digest}' in [isolation.allowed-images] must be the digest of an image: sha256: and 64 hexadecimal digits"
            )));
        }
        check_paths(paths).map_err(D::Error::custom)?;
    }
    Ok(images)
}

fn check_paths(paths: &[PathBuf]) -> Result<(), String> {
    for path in paths {
        let is_plain =
            |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || !path.components().all(is_plain) {
            return Err(format!(
                "'{}' in [isolation] must be an absolute path without \"..\"",
                path.display()
            ));
        }
    }
    Ok(())
}
