//! The parts of config.json that isolation reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use eci_fs_protocol::error::{Error, Result};
use serde::Deserialize;

use super::invalid;
use crate::oci::keys;

/// The most entries of one list of a bundle: mounts, devices, namespaces. Engines write some tens of mounts, and for a
/// privileged container an entry for each device of the host.
pub(super) const MAX_ENTRIES: usize = 8192;

/// The parts of a container that isolation reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    /// The path of the root file system, as it is written: relative to the bundle unless it is absolute.
    pub root: PathBuf,
    /// True if the root file system is read-only.
    pub root_read_only: bool,
    /// The working directory of the process.
    pub cwd: PathBuf,
    /// All ids of the process's user: its uid, its gid and the additional groups.
    pub ids: Vec<u32>,
    /// The namespaces.
    pub namespaces: Vec<Namespace>,
    /// True if the engine maps an id of the container to the host's root, or none at all: crun maps its own root then.
    pub maps_host_root: bool,
    /// True if the engine sets the clocks of a time namespace.
    pub has_time_offsets: bool,
    /// The mounts, in their order.
    pub mounts: Vec<Mount>,
    /// The device nodes, in their order.
    pub devices: Vec<Device>,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
    /// The paths that are masked.
    pub masked_paths: Vec<PathBuf>,
    /// The paths that are read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// The sysctls, by name.
    pub sysctl: BTreeMap<String, String>,
}

/// A namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Namespace {
    /// "pid", "network", "mount", "ipc", "uts", "user", "cgroup" or "time".
    #[serde(rename = "type")]
    pub kind: String,
    /// The namespace to join; a new one is made when there is none.
    #[serde(default)]
    pub path: Option<PathBuf>,
}

impl Namespace {
    /// Returns the path of the namespace that the container joins, if it joins one. Runtimes take an empty path for none.
    pub fn joined_path(&self) -> Option<&Path> {
        let path = self.path.as_deref();
        path.filter(|path| !path.as_os_str().is_empty())
    }
}

/// A mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// The path in the container.
    pub destination: PathBuf,
    /// The file or directory of the host, if it is a bind mount. It is relative to the bundle unless it is absolute.
    pub source: Option<PathBuf>,
    /// True if the engine maps the ids of it by itself.
    pub is_mapped: bool,
    /// The options of the file system and of the mount, if it is an overlay that the runtime mounts.
    pub overlay: Option<Vec<String>>,
    /// True if the mounts below the source are bound, too.
    pub recursive: bool,
    /// The part of it that cannot be written to.
    pub read_only: ReadOnly,
    /// True for a tmpfs or another file system that is the container's alone.
    pub is_own: bool,
    /// The permission bits of its root, if it is a tmpfs.
    pub tmpfs_mode: Option<u32>,
}

/// The permission bits of the root of a tmpfs, if its options have none.
const TMPFS_MODE: u32 = 0o1777;

/// The part of a mount that cannot be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadOnly {
    /// No part.
    #[default]
    None,
    /// The mount itself, without those below it.
    Top,
    /// The mount with those below it.
    All,
}

/// File systems that are a container's own, where it mounts one: nobody else sees what is in it.
const OWN: [&str; 4] = ["tmpfs", "devpts", "mqueue", "ramfs"];

/// A device node of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The path in the container.
    pub path: PathBuf,
    /// True for a block device, false for a character device.
    pub block: bool,
    /// The numbers of the device.
    pub major: u32,
    /// See [`Self::major`].
    pub minor: u32,
    /// The permission bits.
    pub mode: u32,
    /// The owner, as the container sees it.
    pub uid: u32,
    /// The group, as the container sees it.
    pub gid: u32,
    /// True if the rules of the cgroup allow this one device by its numbers. A privileged container has an entry for each
    /// device of the host and one rule for all of them.
    pub allowed_by_number: bool,
}

#[derive(Debug, Deserialize)]
struct ConfigFields {
    root: Option<RootFields>,
    process: Option<ProcessFields>,
    mounts: Option<Vec<MountFields>>,
    annotations: Option<BTreeMap<String, String>>,
    linux: Option<LinuxFields>,
}

#[derive(Debug, Deserialize)]
struct RootFields {
    path: PathBuf,
    readonly: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct ProcessFields {
    cwd: Option<PathBuf>,
    user: Option<UserFields>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserFields {
    uid: Option<u32>,
    gid: Option<u32>,
    additional_gids: Option<Vec<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MountFields {
    destination: PathBuf,
    #[serde(rename = "type")]
    kind: Option<String>,
    source: Option<PathBuf>,
    options: Option<Vec<String>>,
    uid_mappings: Option<Vec<MappingFields>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinuxFields {
    namespaces: Option<Vec<Namespace>>,
    time_offsets: Option<serde::de::IgnoredAny>,
    uid_mappings: Option<Vec<MappingFields>>,
    gid_mappings: Option<Vec<MappingFields>>,
    devices: Option<Vec<DeviceFields>>,
    resources: Option<ResourcesFields>,
    masked_paths: Option<Vec<PathBuf>>,
    readonly_paths: Option<Vec<PathBuf>>,
    sysctl: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceFields {
    pub(super) path: PathBuf,
    #[serde(rename = "type")]
    pub(super) kind: String,
    major: Option<u32>,
    minor: Option<u32>,
    file_mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct MappingFields {
    #[serde(rename = "hostID")]
    host_id: u32,
    size: u32,
}

#[derive(Debug, Default, Deserialize)]
struct ResourcesFields {
    devices: Option<Vec<RuleFields>>,
}

#[derive(Debug, Deserialize)]
struct RuleFields {
    allow: bool,
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<i64>,
    minor: Option<i64>,
}

impl Container {
    /// Reads what isolation needs of the configuration `text`.
    ///
    /// # Errors
    /// When it has another form, keys that runtimes read in different ways, no root file system, or an absurd number of
    /// entries.
    pub fn parse(text: &str) -> Result<Self> {
        keys::check(text.as_bytes())?;
        let config: ConfigFields = serde_json::from_str(text).map_err(invalid)?;
        let root = config
            .root
            .ok_or_else(|| Error::refused("the configuration names no root file system"))?;
        let linux = config.linux.unwrap_or_default();
        let mounts = config.mounts.unwrap_or_default();
        let namespaces = linux.namespaces.unwrap_or_default();
        let devices = linux.devices.unwrap_or_default();
        let rules = linux.resources.unwrap_or_default().devices;
        let rules = rules.unwrap_or_default();
        let masked_paths = linux.masked_paths.unwrap_or_default();
        let readonly_paths = linux.readonly_paths.unwrap_or_default();
        let most = [
            mounts.len(),
            namespaces.len(),
            devices.len(),
            rules.len(),
            masked_paths.len(),
            readonly_paths.len(),
        ];
        if most.into_iter().any(|entries| entries > MAX_ENTRIES) {
            return Err(Error::refused(format!(
                "the configuration has a list of more than {MAX_ENTRIES} mounts, namespaces or devices"
            )));
        }
        let (cwd, user) = match config.process {
            Some(process) => (process.cwd, process.user),
            None => (None, None),
        };
        let ids = user.map_or_else(Vec::new, |user| {
            let groups = user.additional_gids.unwrap_or_default();
            [user.uid, user.gid]
                .into_iter()
                .flatten()
                .chain(groups)
                .collect()
        });
        for (place, namespace) in namespaces.iter().enumerate() {
            if namespaces[..place]
                .iter()
                .any(|other| other.kind == namespace.kind)
            {
                return Err(Error::refused(format!(
                    "the configuration has two namespaces of the kind {:?}; some runtimes take the first, and some the last",
                    namespace.kind
                )));
            }
        }
        let mapped = [linux.uid_mappings, linux.gid_mappings].map(Option::unwrap_or_default);
        let makes_user =
            |namespace: &Namespace| namespace.kind == "user" && namespace.joined_path().is_none();
        let is_unmapped = namespaces.iter().any(makes_user) && mapped.iter().any(Vec::is_empty);
        let mut rows = mapped.iter().flatten();
        Ok(Self {
            root: root.path,
            root_read_only: root.readonly == Some(true),
            cwd: cwd.unwrap_or_else(|| "/".into()),
            ids,
            has_time_offsets: linux.time_offsets.is_some(),
            maps_host_root: is_unmapped || rows.any(|row| row.host_id == 0 && row.size > 0),
            namespaces,
            mounts: mounts.into_iter().map(MountFields::read).collect(),
            devices: devices
                .into_iter()
                .filter_map(|device| device.read(&rules).transpose())
                .collect::<Result<_>>()?,
            annotations: config.annotations.unwrap_or_default(),
            masked_paths,
            readonly_paths,
            sysctl: linux.sysctl.unwrap_or_default(),
        })
    }

    /// Returns the namespace of a kind, if the container does not share the runtime's.
    pub fn namespace(&self, kind: &str) -> Option<&Namespace> {
        self.namespaces
            .iter()
            .find(|namespace| namespace.kind == kind)
    }
}

impl MountFields {
    fn read(self) -> Mount {
        let options = self.options.unwrap_or_default();
        let has = |names: &[&str]| {
            options
                .iter()
                .any(|option| names.contains(&option.as_str()))
        };
        let is_bind = has(&["bind", "rbind"]) || self.kind.as_deref() == Some("bind");
        let is_mapped =
            self.uid_mappings.is_some_and(|list| !list.is_empty()) || has(&["idmap", "ridmap"]);
        // The last one of two that contradict each other counts.
        let last = options
            .iter()
            .rev()
            .find_map(|option| match option.as_str() {
                "ro" => Some(ReadOnly::Top),
                "rro" => Some(ReadOnly::All),
                "rw" | "rrw" => Some(ReadOnly::None),
                _ => None,
            });
        let is_overlay = !is_bind && self.kind.as_deref() == Some("overlay");
        let mode = || {
            let given = options
                .iter()
                .rev()
                .find_map(|option| option.strip_prefix("mode="));
            given.map_or(Ok(TMPFS_MODE), |mode| u32::from_str_radix(mode, 8))
        };
        Mount {
            tmpfs_mode: match self.kind.as_deref() {
                Some("tmpfs") if !is_bind => mode().ok(),
                _ => None,
            },
            is_own: !is_bind && OWN.iter().any(|own| self.kind.as_deref() == Some(own)),
            read_only: last.unwrap_or_default(),
            destination: self.destination,
            source: self.source.filter(|_| is_bind),
            is_mapped,
            recursive: !has(&["bind"]) || has(&["rbind"]),
            overlay: is_overlay.then_some(options),
        }
    }
}

impl DeviceFields {
    /// Returns the device; none for a FIFO, which a runtime makes with the right owner by itself.
    fn read(self, rules: &[RuleFields]) -> Result<Option<Device>> {
        let block = match self.kind.as_str() {
            "b" => true,
            "c" | "u" => false,
            "p" => return Ok(None),
            other => {
                return Err(Error::refused(format!(
                    "the device {} has the type {other:?}, which is none",
                    self.path.display()
                )));
            }
        };
        let (major, minor) = (self.major.unwrap_or(0), self.minor.unwrap_or(0));
        let names = |rule: &RuleFields| {
            let kind = rule.kind.as_deref();
            let kind = kind == Some("a") || kind == Some(if block { "b" } else { "c" });
            rule.allow
                && kind
                && rule.major == Some(major.into())
                && rule.minor == Some(minor.into())
        };
        let allowed_by_number = rules.iter().any(names);
        // Where no mode is given, crun takes the one for everybody. A device of the host may have any.
        let usual = if allowed_by_number { 0o666 } else { 0o600 };
        Ok(Some(Device {
            allowed_by_number,
            path: self.path,
            block,
            major,
            minor,
            mode: self.file_mode.unwrap_or(usual) & 0o7777,
            uid: self.uid.unwrap_or(0),
            gid: self.gid.unwrap_or(0),
        }))
    }
}
