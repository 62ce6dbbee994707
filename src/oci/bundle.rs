//! The bundle of a container: the parts of its config.json that affect the views.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use eci_fs_mountd::regular_file::{MAX_BUNDLE_CONFIG, read};
use eci_fs_protocol::capabilities::can_measure;
use eci_fs_protocol::error::{Error, Result};
use serde::Deserialize;

use super::keys;

/// The name of the configuration in a bundle.
pub const CONFIG: &str = "config.json";

/// The parts of a bundle that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The absolute path of the root file system.
    pub root: PathBuf,
    /// The annotations of the container.
    pub annotations: BTreeMap<String, String>,
    /// True if nothing of /proc and /sys is masked or read-only.
    pub unmasked: bool,
    /// True if its process may have programs that measure CPUs, by its bounding set. The runtime drops the other
    /// capabilities after the hooks, so /proc does not tell yet. Without a bounding set it drops all of them.
    pub measures_cpus: bool,
    /// True if a cgroup is mounted so that it can be written to.
    pub writable_cgroup: bool,
}

/// The fields of config.json that are read. All others are for the runtime.
#[derive(Debug, Deserialize)]
struct Config {
    root: Option<Root>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    linux: Option<Linux>,
    #[serde(default)]
    process: Option<Process>,
    #[serde(default)]
    mounts: Option<Vec<Mount>>,
}

#[derive(Debug, Deserialize)]
struct Mount {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    source: Option<PathBuf>,
    #[serde(default)]
    options: Option<Vec<String>>,
}

/// The directory in which hosts mount their cgroups.
const CGROUPS: &str = "/sys/fs/cgroup";

impl Mount {
    fn is_writable_cgroup(&self) -> bool {
        let is_cgroup = matches!(self.kind.as_deref(), Some("cgroup" | "cgroup2"))
            || (self.source.as_ref()).is_some_and(|source| source.starts_with(CGROUPS));
        let mut options = self.options.iter().flatten();
        is_cgroup && !options.any(|option| option == "ro" || option == "rro")
    }
}

#[derive(Debug, Default, Deserialize)]
struct Process {
    #[serde(default)]
    capabilities: Option<Capabilities>,
}

#[derive(Debug, Default, Deserialize)]
struct Capabilities {
    #[serde(default)]
    bounding: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    masked_paths: Option<Vec<String>>,
    #[serde(default)]
    readonly_paths: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Root {
    path: PathBuf,
}

impl Bundle {
    /// Reads the configuration `file` of the bundle `dir`.
    ///
    /// # Errors
    /// When it cannot be read, has keys that runtimes read in different ways, or names no root file system.
    pub fn read(dir: &Path, file: &Path) -> Result<Self> {
        let path = dir.join(file);
        let text = read(&path, MAX_BUNDLE_CONFIG).map_err(|e| Error::io("read", &path, e))?;
        Self::parse(dir, &text).map_err(|error| error.context(path.display()))
    }

    fn parse(dir: &Path, text: &[u8]) -> Result<Self> {
        keys::check(text)?;
        let config: Config = serde_json::from_slice(text).map_err(|error| {
            Error::refused(format!("not the configuration of a container: {error}"))
        })?;
        let root = config
            .root
            .ok_or_else(|| Error::refused("the configuration names no root file system"))?;
        let linux = config.linux.unwrap_or_default();
        let lists = [linux.masked_paths, linux.readonly_paths];
        let capabilities = config.process.unwrap_or_default().capabilities;
        let bounding = capabilities.unwrap_or_default().bounding;
        Ok(Self {
            root: dir.join(root.path),
            annotations: config.annotations.unwrap_or_default(),
            unmasked: lists.into_iter().flatten().all(|list| list.is_empty()),
            writable_cgroup: config
                .mounts
                .iter()
                .flatten()
                .any(Mount::is_writable_cgroup),
            measures_cpus: can_measure(bounding.iter().flatten().map(String::as_str)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_masked_or_made_read_only_is_seen() {
        let unmasked = |linux: &str| {
            let text = format!(r#"{{"root":{{"path":"x"}}{linux}}}"#);
            Bundle::parse(Path::new("/b"), text.as_bytes()).map(|bundle| bundle.unmasked)
        };
        for (linux, wanted) in [
            ("", true),
            (r#","linux":null"#, true),
            (r#","linux":{"maskedPaths":[],"readonlyPaths":null}"#, true),
            (r#","linux":{"maskedPaths":["/proc/kcore"]}"#, false),
            (r#","linux":{"readonlyPaths":["/proc/sys"]}"#, false),
        ] {
            assert_eq!(unmasked(linux).unwrap(), wanted, "{linux}");
        }
        assert!(unmasked(r#","linux":{"maskedPaths":7}"#).is_err());
    }

    #[test]
    fn a_cgroup_that_can_be_written_to_is_seen() {
        for (mounts, wanted) in [
            ("null", false),
            (r#"[{"destination":"/sys","type":"sysfs"}]"#, false),
            (
                r#"[{"destination":"/c","type":"cgroup","options":["nosuid","ro"]}]"#,
                false,
            ),
            (r#"[{"destination":"/c","type":"cgroup"}]"#, true),
            (
                r#"[{"destination":"/c","type":"cgroup2","options":["nosuid","rw"]}]"#,
                true,
            ),
            (
                r#"[{"destination":"/c","source":"/sys/fs/cgroup","options":["rbind"]}]"#,
                true,
            ),
            (
                r#"[{"destination":"/c","source":"/sys/fs/cgroup","options":["rbind","ro"]}]"#,
                false,
            ),
            (
                r#"[{"destination":"/c","source":"/srv","options":["rbind"]}]"#,
                false,
            ),
        ] {
            let text = format!(r#"{{"root":{{"path":"x"}},"mounts":{mounts}}}"#);
            let bundle = Bundle::parse(Path::new("/b"), text.as_bytes()).unwrap();
            assert_eq!(bundle.writable_cgroup, wanted, "{mounts}");
        }
    }

    #[test]
    fn the_bounding_set_says_who_can_measure_cpus() {
        let measures = |process: &str| {
            let text = format!(r#"{{"root":{{"path":"x"}}{process}}}"#);
            Bundle::parse(Path::new("/b"), text.as_bytes()).map(|bundle| bundle.measures_cpus)
        };
        for (process, wanted) in [
            ("", false),
            (r#","process":null"#, false),
            (r#","process":{"args":["sh"]}"#, false),
            (r#","process":{"capabilities":null}"#, false),
            (
                r#","process":{"capabilities":{"bounding":null,"effective":["CAP_BPF"]}}"#,
                false,
            ),
            (
                r#","process":{"capabilities":{"bounding":["CAP_KILL"]}}"#,
                false,
            ),
            (
                r#","process":{"capabilities":{"bounding":["CAP_KILL","CAP_BPF"]}}"#,
                true,
            ),
            (
                r#","process":{"capabilities":{"bounding":["CAP_SYS_ADMIN"]}}"#,
                true,
            ),
        ] {
            assert_eq!(measures(process).unwrap(), wanted, "{process}");
        }
    }

    #[test]
    fn keys_that_runtimes_read_in_different_ways_are_refused() {
        for text in [
            r#"{"root":{"path":"x"},"Annotations":{"eci-fs.isolate":"true"}}"#,
            r#"{"root":{"path":"x","Path":"y"}}"#,
            r#"{"root":{"path":"x"},"annotations":{},"annotations":{}}"#,
        ] {
            assert!(
                Bundle::parse(Path::new("/b"), text.as_bytes()).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_root_is_relative_to_the_bundle_unless_it_is_absolute() {
        let parse = |text: &str| Bundle::parse(Path::new("/b"), text.as_bytes());
        let root = |text| parse(text).map(|bundle| bundle.root);
        assert_eq!(
            root(r#"{"root":{"path":"rootfs"}}"#).unwrap(),
            Path::new("/b/rootfs")
        );
        assert_eq!(
            root(r#"{"root":{"path":"/x","readonly":true},"annotations":null}"#).unwrap(),
            Path::new("/x")
        );
        assert!(root("{}").is_err());
        assert!(root("[]").is_err());
    }
}
