//! The edit of config.json that puts a container into its user namespace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use eci_fs_protocol::error::Result;
use serde_json::value::RawValue;

use super::container::{DeviceFields, Namespace};
use super::invalid;
use super::seccomp::{self, SystemCalls, Trapped};
use super::taken_over::{taken_path, taken_sysctl};
use crate::oci::hooks::{Hook, with_hooks};
use crate::oci::raw_object::RawObject;

/// The sysctl that holds groups, which runtimes write from inside of the user namespace.
pub(super) const PING_GROUPS: &str = "net.ipv4.ping_group_range";

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
    /// The new sources of mounts, by their place in [`super::Container::mounts`].
    pub sources: BTreeMap<usize, Source>,
    /// The nodes that take the place of entries of [`super::Container::devices`], by their place in it.
    pub devices: BTreeMap<usize, PathBuf>,
    /// True if the runtime takes the mapping from the user namespace, and wants no other.
    pub without_mapping: bool,
    /// The path of the time namespace, if it gets one.
    pub time_namespace: Option<PathBuf>,
    /// The system calls that a supervisor answers, if one does.
    pub system_calls: Option<SystemCalls>,
    /// The hook that does what is taken over from the runtime ([`super::TakenOver`]), with the name of its stage; none if
    /// nothing is.
    pub hook: Option<(&'static str, Hook)>,
}

/// The new source of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// Its path.
    pub path: PathBuf,
    /// The options that its mount has, of [`KEPT`]. A runtime that changes an option has to keep them: the kernel refuses
    /// to take one away in a user namespace.
    pub options: Vec<&'static str>,
    /// The paths below it of mounts that get entries of their own, after its own: the runtime would leave them out.
    pub below: Vec<PathBuf>,
    /// True if it takes the place of an overlay that the runtime would have mounted.
    pub is_overlay: bool,
}

/// The options that cannot be taken away in a user namespace, each with its opposite.
pub const KEPT: [(&str, &str); 4] = [
    ("ro", "rw"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("noexec", "exec"),
];

/// The options of a mount that are not those of its file system.
pub const OF_MOUNTS: [&str; 24] = [
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "atime",
    "nodiratime",
    "diratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nosymfollow",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
];

/// Returns the configuration `text` with these changes, and what became of [`Edits::system_calls`]. A cgroup namespace is added
/// if there is none.
///
/// # Errors
/// When `text` has another form.
pub fn edit(text: &str, edits: &Edits) -> Result<(String, Option<Trapped>)> {
    let (edited, trapped) = edit_json(text, edits).map_err(invalid)?;
    let hooks = edits.hook.as_slice();
    Ok((with_hooks(&edited, hooks)?.unwrap_or(edited), trapped))
}

fn edit_json(text: &str, edits: &Edits) -> serde_json::Result<(String, Option<Trapped>)> {
    let mut config: RawObject = serde_json::from_str(text)?;
    let mut root: RawObject = config.read("root")?.unwrap_or_default();
    root.write("path", &edits.root)?;
    config.write("root", &root)?;
    let mut linux: RawObject = config.read("linux")?.unwrap_or_default();
    edit_linux(&mut linux, edits)?;
    let mut trapped = None;
    if let Some(calls) = &edits.system_calls {
        let (section, done) = seccomp::trap(linux.read("seccomp")?, calls)?;
        linux.write("seccomp", &section)?;
        trapped = Some(done);
    }
    let devices: Vec<Box<RawValue>> = linux.read("devices")?.unwrap_or_default();
    let all: Vec<RawObject> = config.read("mounts")?.unwrap_or_default();
    let mut mounts = Vec::with_capacity(all.len());
    for (place, mut mount) in all.into_iter().enumerate() {
        let mut below = Vec::new();
        if let Some(source) = edits.sources.get(&place) {
            mount.write("source", &source.path)?;
            let mut options: Vec<String> = mount.read("options")?.unwrap_or_default();
            if source.is_overlay {
                mount.write("type", &"bind")?;
                options.retain(|option| OF_MOUNTS.contains(&option.as_str()));
                options.push("bind".to_owned());
            }
            for (option, opposite) in KEPT {
                if source.options.contains(&option) {
                    options.retain(|one| one != option && one != opposite);
                    options.push(option.to_owned());
                }
            }
            mount.write("options", &options)?;
            below = mounts_below(&mount, source)?;
        }
        mounts.push(mount);
        mounts.append(&mut below);
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
    Ok((serde_json::to_string(&config)?, trapped))
}

/// Returns the entries for the mounts below a volume. Each keeps the options that it has.
fn mounts_below(volume: &RawObject, source: &Source) -> serde_json::Result<Vec<RawObject>> {
    let destination: PathBuf = volume.read("destination")?.unwrap_or_default();
    let entries = source.below.iter().map(|below| {
        let mut mount = RawObject::default();
        mount.write("destination", &destination.join(below))?;
        mount.write("type", &"bind")?;
        mount.write("source", &source.path.join(below))?;
        mount.write("options", &["bind"])?;
        Ok(mount)
    });
    entries.collect()
}

fn edit_linux(linux: &mut RawObject, edits: &Edits) -> serde_json::Result<()> {
    let namespaces: Vec<Box<RawValue>> = linux.read("namespaces")?.unwrap_or_default();
    let mut has_cgroup = false;
    let mut kept = Vec::new();
    for entry in namespaces {
        let namespace: Namespace = serde_json::from_str(entry.get())?;
        has_cgroup |= namespace.kind == "cgroup";
        // Another one takes its place.
        if namespace.kind != "time" || edits.time_namespace.is_none() {
            kept.push(entry);
        }
    }
    let mut namespaces = kept;
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
    if let Some(path) = &edits.time_namespace {
        add("time", Some(path))?;
    }
    linux.write("namespaces", &namespaces)?;
    let mapping = serde_json::json!([
        { "containerID": 0, "hostID": edits.first_id, "size": edits.ids }
    ]);
    for key in ["uidMappings", "gidMappings"] {
        match edits.without_mapping {
            true => linux.remove(key),
            false => linux.write(key, &mapping)?,
        }
    }
    if edits.hook.is_some() {
        take_over(linux)?;
    }
    if let Some(mut sysctl) = linux.read::<RawObject>("sysctl")?
        && let Some(groups) = sysctl.read::<String>(PING_GROUPS)?
    {
        sysctl.write(PING_GROUPS, &clamp_groups(&groups, edits.ids))?;
        linux.write("sysctl", &sysctl)?;
    }
    Ok(())
}

/// Takes out what the hook does. The rest stays as it is written.
fn take_over(linux: &mut RawObject) -> serde_json::Result<()> {
    for list in ["maskedPaths", "readonlyPaths"] {
        if let Some(mut paths) = linux.read::<Vec<PathBuf>>(list)? {
            paths.retain(|path| taken_path(path).is_none());
            linux.write(list, &paths)?;
        }
    }
    if let Some(mut sysctl) = linux.read::<BTreeMap<String, String>>("sysctl")? {
        sysctl.retain(|name, _| taken_sysctl(name).is_none());
        linux.write("sysctl", &sysctl)?;
    }
    Ok(())
}

/// Returns a range of groups without those that have no number in the container. An empty range is "1 0", as in the
/// kernel; a text that is no range is the kernel's to refuse.
pub(super) fn clamp_groups(text: &str, ids: u32) -> String {
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
