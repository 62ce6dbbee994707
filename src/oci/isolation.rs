//! The parts of config.json that isolation reads, and the edit that puts a container into its user namespace.
//!
//! [`Container::parse`] and [`edit`] touch no file: they turn text into values and text. All text that isolation does not
//! change is kept byte for byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use eci_fs_protocol::error::{Error, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::raw_object::RawObject;

/// The sysctl that holds groups, which runtimes write from inside of the user namespace.
const PING_GROUPS: &str = "net.ipv4.ping_group_range";

/// The most entries of one list of a bundle: mounts, devices, namespaces. Engines write some tens of mounts, and for a
/// privileged container an entry for each device of the host.
const MAX_ENTRIES: usize = 8192;

/// The parts of a container that isolation reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    /// The path of the root file system, as it is written: relative to the bundle unless it is absolute.
    pub root: PathBuf,
    /// The working directory of the process.
    pub cwd: PathBuf,
    /// All ids of the process's user: its uid, its gid and the additional groups.
    pub ids: Vec<u32>,
    /// The namespaces.
    pub namespaces: Vec<Namespace>,
    /// True if the engine gave the container an id mapping.
    pub has_mapping: bool,
    /// The mounts, in their order.
    pub mounts: Vec<Mount>,
    /// The device nodes, in their order.
    pub devices: Vec<Device>,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
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

/// A mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// The path in the container.
    pub destination: PathBuf,
    /// The file or directory of the host, if it is a bind mount that the engine has not mapped by itself. It is relative
    /// to the bundle unless it is absolute.
    pub source: Option<PathBuf>,
    /// True if the mounts below the source are bound, too.
    pub recursive: bool,
}

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

/// The changes of [`edit`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edits {
    /// The path of the user namespace.
    pub user_namespace: PathBuf,
    /// The host's id of the container's root.
    pub first_id: u32,
    /// The number of ids.
    pub ids: u32,
    /// The new path of the root file system.
    pub root: PathBuf,
    /// The new sources of mounts, by their place in [`Container::mounts`].
    pub sources: BTreeMap<usize, PathBuf>,
    /// The nodes that take the place of entries of [`Container::devices`], by their place in it.
    pub devices: BTreeMap<usize, PathBuf>,
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
    uid_mappings: Option<Vec<Box<RawValue>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinuxFields {
    namespaces: Option<Vec<Namespace>>,
    uid_mappings: Option<Vec<Box<RawValue>>>,
    gid_mappings: Option<Vec<Box<RawValue>>>,
    devices: Option<Vec<DeviceFields>>,
    resources: Option<ResourcesFields>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceFields {
    path: PathBuf,
    #[serde(rename = "type")]
    kind: String,
    major: Option<u32>,
    minor: Option<u32>,
    file_mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
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

fn invalid(error: serde_json::Error) -> Error {
    Error::refused(format!("not the configuration of a container: {error}"))
}

impl Container {
    /// Reads what isolation needs of the configuration `text`.
    ///
    /// # Errors
    /// When it has another form, names no root file system, or has an absurd number of entries.
    pub fn parse(text: &str) -> Result<Self> {
        let object: RawObject = serde_json::from_str(text).map_err(invalid)?;
        object.check_case(&["root", "process", "mounts", "linux"])?;
        let linux: RawObject = object.read("linux").map_err(invalid)?.unwrap_or_default();
        linux.check_case(&[
            "namespaces",
            "uidMappings",
            "gidMappings",
            "devices",
            "sysctl",
        ])?;
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
        let most = [mounts.len(), namespaces.len(), devices.len(), rules.len()];
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
        let mapped = [linux.uid_mappings, linux.gid_mappings];
        Ok(Self {
            root: root.path,
            cwd: cwd.unwrap_or_else(|| "/".into()),
            ids,
            has_mapping: mapped.into_iter().flatten().any(|list| !list.is_empty()),
            namespaces,
            mounts: mounts.into_iter().map(MountFields::read).collect(),
            devices: devices
                .into_iter()
                .filter_map(|device| device.read(&rules).transpose())
                .collect::<Result<_>>()?,
            annotations: config.annotations.unwrap_or_default(),
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
        Mount {
            destination: self.destination,
            source: self.source.filter(|_| is_bind && !is_mapped),
            recursive: !has(&["bind"]) || has(&["rbind"]),
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
        Ok(Some(Device {
            allowed_by_number: rules.iter().any(names),
            path: self.path,
            block,
            major,
            minor,
            mode: self.file_mode.unwrap_or(0o666) & 0o7777,
            uid: self.uid.unwrap_or(0),
            gid: self.gid.unwrap_or(0),
        }))
    }
}

/// Returns the configuration `text` with these changes. A cgroup namespace is added if there is none.
///
/// # Errors
/// When `text` has another form.
pub fn edit(text: &str, edits: &Edits) -> Result<String> {
    edit_json(text, edits).map_err(invalid)
}

fn edit_json(text: &str, edits: &Edits) -> serde_json::Result<String> {
    let mut config: RawObject = serde_json::from_str(text)?;
    let mut root: RawObject = config.read("root")?.unwrap_or_default();
    root.write("path", &edits.root)?;
    config.write("root", &root)?;
    let mut linux: RawObject = config.read("linux")?.unwrap_or_default();
    edit_linux(&mut linux, edits)?;
    let devices: Vec<Box<RawValue>> = linux.read("devices")?.unwrap_or_default();
    let mut mounts: Vec<RawObject> = config.read("mounts")?.unwrap_or_default();
    for (place, source) in &edits.sources {
        if let Some(mount) = mounts.get_mut(*place) {
            mount.write("source", source)?;
        }
    }
    let mut kept = Vec::new();
    // A FIFO has no place in `Container::devices`.
    let mut place = 0;
    for device in devices {
        let fields: DeviceFields = serde_json::from_str(device.get())?;
        let node = (fields.kind != "p").then(|| {
            place += 1;
            edits.devices.get(&(place - 1))
        });
        let Some(source) = node.flatten() else {
            kept.push(device);
            continue;
        };
        let mut mount = RawObject::default();
        mount.write("destination", &fields.path)?;
        mount.write("type", &"bind")?;
        mount.write("source", source)?;
        mount.write("options", &["bind"])?;
        mounts.push(mount);
    }
    if !edits.devices.is_empty() {
        linux.write("devices", &kept)?;
    }
    if !edits.devices.is_empty() || !edits.sources.is_empty() {
        config.write("mounts", &mounts)?;
    }
    config.write("linux", &linux)?;
    serde_json::to_string(&config)
}

fn edit_linux(linux: &mut RawObject, edits: &Edits) -> serde_json::Result<()> {
    let mut namespaces: Vec<Box<RawValue>> = linux.read("namespaces")?.unwrap_or_default();
    let mut has_cgroup = false;
    for namespace in &namespaces {
        let namespace: Namespace = serde_json::from_str(namespace.get())?;
        has_cgroup |= namespace.kind == "cgroup";
    }
    let mut add = |kind: &str, path: Option<&Path>| {
        let mut entry = RawObject::default();
        entry.write("type", &kind)?;
        if let Some(path) = path {
            entry.write("path", &path)?;
        }
        namespaces.push(serde_json::value::to_raw_value(&entry)?);
        Ok(())
    };
    add("user", Some(&edits.user_namespace))?;
    if !has_cgroup {
        add("cgroup", None)?;
    }
    linux.write("namespaces", &namespaces)?;
    let mapping = serde_json::json!([
        { "containerID": 0, "hostID": edits.first_id, "size": edits.ids }
    ]);
    linux.write("uidMappings", &mapping)?;
    linux.write("gidMappings", &mapping)?;
    if let Some(mut sysctl) = linux.read::<RawObject>("sysctl")?
        && let Some(groups) = sysctl.read::<String>(PING_GROUPS)?
    {
        sysctl.write(PING_GROUPS, &clamp_groups(&groups, edits.ids))?;
        linux.write("sysctl", &sysctl)?;
    }
    Ok(())
}

/// Returns a range of groups without those that have no number in the container. An empty range is "1 0", as in the
/// kernel; a text that is no range is the kernel's to refuse.
fn clamp_groups(text: &str, ids: u32) -> String {
    let words: Vec<Option<u64>> = text
        .split_ascii_whitespace()
        .map(|word| word.parse().ok())
        .collect();
    match words[..] {
        [Some(first), Some(last)] if last >= u64::from(ids) && first < u64::from(ids) => {
            format!("{first} {}", ids - 1)
        }
        [Some(first), Some(last)] if last >= first && first >= u64::from(ids) => "1 0".to_owned(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn edits() -> Edits {
        Edits {
            user_namespace: "/stage/user".into(),
            first_id: 524_288,
            ids: 65_536,
            root: "/stage/root".into(),
            ..Edits::default()
        }
    }

    fn edited(config: &Value, edits: &Edits) -> Value {
        serde_json::from_str(&edit(&config.to_string(), edits).unwrap()).unwrap()
    }

    #[test]
    fn what_isolation_does_not_change_stays_as_the_text_that_it_is() {
        let odd = r#""z":1.0,"a":123456789012345678901234567890,"b":1e400,"u":"\u00e9\/","nested":{"y":[ 1 , 2.50 ]}"#;
        let text = format!(
            r#"{{{odd},"root":{{"path":"r","readonly":true,"x":1.50}},"mounts":[ {{"destination":"/p","x":[1.0]}} ],"linux":{{"q":1.0}}}}"#
        );
        let edited = edit(&text, &edits()).unwrap();
        assert!(edited.starts_with(&format!("{{{odd},\"root\":{{\"path\":\"/stage/root\",\"readonly\":true,\"x\":1.50}},\"mounts\":[ {{\"destination\":\"/p\",\"x\":[1.0]}} ],\"linux\":{{\"q\":1.0,\"namespaces\":[")), "{edited}");
    }

    #[test]
    fn a_container_gets_its_namespaces_and_its_mapping() {
        let config = json!({"root": {"path": "r"}, "linux": {"namespaces": [{"type": "pid"}]}});
        let after = edited(&config, &edits());
        assert_eq!(
            after["linux"]["namespaces"],
            json!([{"type": "pid"}, {"type": "user", "path": "/stage/user"}, {"type": "cgroup"}])
        );
        let mapping = json!([{"containerID": 0, "hostID": 524_288, "size": 65_536}]);
        assert_eq!(after["linux"]["uidMappings"], mapping);
        assert_eq!(after["linux"]["gidMappings"], mapping);
        let config = json!({"root": {"path": "r"}, "linux": {"namespaces": [{"type": "cgroup"}]}});
        let after = edited(&config, &edits());
        assert_eq!(after["linux"]["namespaces"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn sources_and_devices_lead_to_the_stage_and_rules_of_the_cgroup_stay() {
        let config = json!({
            "root": {"path": "r"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/v", "source": "vol", "options": ["rbind", "ro"]},
                {"destination": "/w", "type": "bind", "source": "/w", "options": ["bind"]},
                {"destination": "/m", "source": "/m", "options": ["rbind", "idmap"]},
            ],
            "linux": {
                "devices": [
                    {"path": "/dev/p", "type": "p"},
                    {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o20_666, "uid": 1, "gid": 2},
                    {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0},
                ],
                "resources": {"devices": [
                    {"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
                ]},
            },
        });
        let container = Container::parse(&config.to_string()).unwrap();
        let sources: Vec<_> = container
            .mounts
            .iter()
            .map(|m| (m.source.clone(), m.recursive))
            .collect();
        assert_eq!(sources[0].0, None);
        assert_eq!(sources[1], (Some("vol".into()), true));
        assert_eq!(sources[2], (Some("/w".into()), false));
        assert_eq!(sources[3].0, None, "the engine maps it");
        assert_eq!(container.devices.len(), 2);
        let fuse = &container.devices[0];
        assert!(fuse.allowed_by_number && !fuse.block);
        assert_eq!((fuse.mode, fuse.uid, fuse.gid), (0o666, 1, 2));
        assert!(!container.devices[1].allowed_by_number);
        let mut edits = edits();
        edits.sources.insert(1, "/stage/m1".into());
        edits.devices.insert(0, "/stage/d0".into());
        let after = edited(&config, &edits);
        assert_eq!(after["mounts"][1]["source"], "/stage/m1");
        assert_eq!(after["mounts"][2], config["mounts"][2]);
        assert_eq!(
            after["mounts"][4],
            json!({"destination": "/dev/fuse", "type": "bind", "source": "/stage/d0", "options": ["bind"]})
        );
        let kept = &config["linux"]["devices"];
        assert_eq!(after["linux"]["devices"], json!([kept[0], kept[2]]));
        assert_eq!(after["linux"]["resources"], config["linux"]["resources"]);
    }

    #[test]
    fn groups_that_the_container_does_not_have_may_not_ping() {
        for (text, wanted) in [
            ("0 2147483647", "0 65535"),
            ("0\t1000", "0\t1000"),
            ("1 0", "1 0"),
            ("70000 80000", "1 0"),
            ("65535 65536", "65535 65535"),
            ("many", "many"),
        ] {
            assert_eq!(clamp_groups(text, 65_536), wanted, "{text}");
        }
        let config = json!({"root": {"path": "r"}, "linux": {"sysctl": {"a": "1", PING_GROUPS: "0 2147483647"}}});
        let after = edited(&config, &edits());
        assert_eq!(
            after["linux"]["sysctl"],
            json!({"a": "1", PING_GROUPS: "0 65535"})
        );
    }

    #[test]
    fn the_user_and_the_working_directory_are_read() {
        let config = json!({
            "root": {"path": "r"},
            "process": {"cwd": "/w", "user": {"uid": 1000, "gid": 42, "additionalGids": [7]}},
        });
        let container = Container::parse(&config.to_string()).unwrap();
        assert_eq!(
            (container.ids, container.cwd),
            (vec![1000, 42, 7], "/w".into())
        );
        let bare =
            Container::parse(r#"{"root":{"path":"r"},"process":null,"linux":null}"#).unwrap();
        assert_eq!(
            (bare.ids, bare.cwd, bare.has_mapping),
            (vec![], "/".into(), false)
        );
    }

    #[test]
    fn hostile_configurations_are_refused() {
        let many: Vec<Value> = vec![json!({"destination": "/x"}); MAX_ENTRIES + 1];
        for text in [
            String::new(),
            "[]".into(),
            "{}".into(),
            // Some runtimes take a field whatever its case.
            r#"{"root":{"path":"r"},"Linux":{"namespaces":[]}}"#.into(),
            r#"{"root":{"path":"r"},"linux":{"Namespaces":[]}}"#.into(),
            r#"{"root":{"path":"r"},"root":{"path":"s"}}"#.into(),
            r#"{"root":{"path":"r"},"linux":{"devices":[{"path":"/d","type":"x"}]}}"#.into(),
            json!({"root": {"path": "r"}, "mounts": many}).to_string(),
        ] {
            assert!(Container::parse(&text).is_err(), "{text:.100}");
        }
    }
}
