//! The table `[isolation]`.

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
    /// True if a container whose cgroup is mounted writable may make cgroups below it in hierarchies of version 1, too.
    /// Nothing bounds their number there.
    pub delegate_cgroup_v1: bool,
    /// The most cgroups below one of version 2 that a container has, and may make cgroups in. It is set where the cgroup has
    /// no bound yet.
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
            delegate_cgroup_v1: false,
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
