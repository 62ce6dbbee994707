//! The state that runc, crun and youki keep of a container that lives, as far as `start` and `exec` need it.

use std::path::{Path, PathBuf};

use eci_fs_mountd::regular_file::{MAX_BUNDLE_CONFIG, read};
use serde::Deserialize;

use super::bundle::CONFIG;

/// The file of each runtime in its directory of a container: runc and youki, crun.
const FILES: [&str; 2] = ["state.json", "status"];

/// The file that youki alone keeps beside the state.
const OF_YOUKI: &str = "youki_config.json";

/// What a label of runc's state begins with that names the bundle.
const BUNDLE_LABEL: &str = "bundle=";

/// A container that a runtime has created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedState {
    /// The pid of its first process.
    pub pid: i32,
    /// The directory of its bundle.
    pub bundle: PathBuf,
    /// The root file system with which it was created.
    pub root: Option<PathBuf>,
    /// True if youki keeps it.
    pub is_of_youki: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Fields {
    /// crun and youki.
    pid: Option<i32>,
    bundle: Option<PathBuf>,
    /// runc.
    init_process_pid: Option<i32>,
    config: Option<ConfigFields>,
    /// crun.
    rootfs: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
struct ConfigFields {
    labels: Option<Vec<String>>,
    rootfs: Option<PathBuf>,
}

/// The copy of config.json that youki keeps.
#[derive(Debug, Deserialize)]
struct SpecificationFields {
    root: Option<RootFields>,
}

#[derive(Debug, Deserialize)]
struct RootFields {
    path: PathBuf,
}

impl SavedState {
    /// Reads the state of the container `id` below the root directory of a runtime. Returns none when there is none in a
    /// form that is known: then the runtime itself says what is wrong.
    pub fn read(root: &Path, id: &str) -> Option<Self> {
        if id.is_empty() || id.contains('/') || id == "." || id == ".." {
            return None;
        }
        let dir = root.join(id);
        let file = |name: &str| read(&dir.join(name), MAX_BUNDLE_CONFIG).ok();
        let mut this = FILES.iter().find_map(|name| Self::parse(&file(name)?))?;
        this.root = this.root.or_else(|| {
            let copy: SpecificationFields = serde_json::from_slice(&file(CONFIG)?).ok()?;
            Some(copy.root?.path)
        });
        this.is_of_youki = dir.join(OF_YOUKI).exists();
        Some(this)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let fields: Fields = serde_json::from_slice(text).ok()?;
        let config = fields.config.unwrap_or_default();
        let labels = config.labels.unwrap_or_default();
        let label = labels
            .iter()
            .find_map(|label| label.strip_prefix(BUNDLE_LABEL));
        Some(Self {
            pid: fields
                .pid
                .or(fields.init_process_pid)
                .filter(|pid| *pid > 0)?,
            bundle: fields.bundle.or_else(|| label.map(PathBuf::from))?,
            root: fields.rootfs.or(config.rootfs),
            is_of_youki: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_each_runtime_is_read() {
        for (file, text) in [
            (
                "state.json",
                r#"{"id":"web","init_process_pid":42,"config":{"rootfs":"/x","labels":["a=b","bundle=/b"]}}"#,
            ),
            ("status", r#"{"pid":42,"bundle":"/b","rootfs":"/x"}"#),
            (
                "state.json",
                r#"{"id":"web","status":"created","pid":42,"bundle":"/b"}"#,
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("web")).unwrap();
            let copy = r#"{"root":{"path":"/x"}}"#;
            std::fs::write(dir.path().join("web/config.json"), copy).unwrap();
            std::fs::write(dir.path().join("web").join(file), text).unwrap();
            let state = SavedState::read(dir.path(), "web").unwrap();
            assert_eq!((state.pid, state.bundle), (42, "/b".into()), "{text}");
            assert_eq!(state.root, Some("/x".into()), "{text}");
            assert!(!state.is_of_youki, "{text}");
            std::fs::write(dir.path().join("web/youki_config.json"), "{}").unwrap();
            assert!(SavedState::read(dir.path(), "web").unwrap().is_of_youki);
            for other in ["", ".", "..", "web/../web", "other"] {
                assert_eq!(SavedState::read(dir.path(), other), None, "{other}");
            }
        }
    }

    #[test]
    fn what_names_no_process_or_no_bundle_is_no_state() {
        for text in ["", "[]", "{}", r#"{"pid":0,"bundle":"/b"}"#, r#"{"pid":7}"#] {
            assert_eq!(SavedState::parse(text.as_bytes()), None, "{text}");
        }
    }
}
