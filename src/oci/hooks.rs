//! The hooks in a bundle's config.json.
//!
//! Only the hooks are parsed. All other text is kept byte for byte, so that the order of fields, the digits of numbers
//! and later extensions of the specification stay.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use eci_fs_mountd::regular_file::{MAX_BUNDLE_CONFIG, read_to_string};
use eci_fs_protocol::error::{Error, Result};
use rustix::fs::{AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::raw_object::RawObject;

/// The first argument of the hooks of eci-fs. It identifies them in a list of hooks.
pub const HOOK_NAME: &str = "eci-fs";

/// The seconds after which the kernel has written a change to the disk: twice the default.
const WRITTEN_WITHIN: u64 = 60;

/// A hook of config.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// The absolute path of the program.
    pub path: PathBuf,
    /// The arguments; the first two are [`HOOK_NAME`] and "hook".
    pub args: Vec<String>,
    /// The environment.
    pub env: Vec<String>,
    /// The seconds after which the runtime gives up the hook.
    pub timeout: u64,
}

/// The part of a hook that identifies it.
#[derive(Deserialize)]
struct HookArguments {
    #[serde(default)]
    args: Vec<String>,
}

/// Adds `hooks`, each with the name of its stage, after the other hooks of the configuration `text`. Older hooks of
/// eci-fs are replaced. Returns none when nothing has to be changed.
///
/// # Errors
/// When `text` is no JSON object, or its hooks have another form.
pub fn with_hooks(text: &str, hooks: &[(&str, Hook)]) -> Result<Option<String>> {
    let invalid = |error: serde_json::Error| {
        Error::refused(format!("not the configuration of a container: {error}"))
    };
    let mut config: RawObject = serde_json::from_str(text).map_err(invalid)?;
    let mut stages: RawObject = config.read("hooks").map_err(invalid)?.unwrap_or_default();
    let mut changed = false;
    for (stage, hook) in hooks {
        let wanted = serde_json::value::to_raw_value(hook).map_err(invalid)?;
        let mut list: Vec<Box<RawValue>> = stages.read(stage).map_err(invalid)?.unwrap_or_default();
        let ours = list.iter().filter(|entry| is_ours(entry));
        if ours.map(|entry| entry.get()).eq([wanted.get()]) {
            continue;
        }
        list.retain(|entry| !is_ours(entry));
        list.push(wanted);
        stages.write(stage, &list).map_err(invalid)?;
        changed = true;
    }
    if !changed {
        return Ok(None);
    }
    config.write("hooks", &stages).map_err(invalid)?;
    serde_json::to_string(&config).map(Some).map_err(invalid)
}

fn is_ours(entry: &RawValue) -> bool {
    serde_json::from_str::<HookArguments>(entry.get()).is_ok_and(|hook| {
        hook.args
            .starts_with(&[HOOK_NAME.to_owned(), "hook".to_owned()])
    })
}

/// Adds `hooks` to the configuration at `path` atomically: a reader sees the old one or the new one.
///
/// # Errors
/// When the file cannot be read or written. It is unchanged then.
pub fn add_hooks(path: &Path, hooks: &[(&str, Hook)]) -> Result<()> {
    let text = read_to_string(path, MAX_BUNDLE_CONFIG).map_err(|e| Error::io("read", path, e))?;
    let about = |error: Error| error.context(path.display());
    match with_hooks(&text, hooks).map_err(about)? {
        Some(text) => replace(path, &text),
        None => Ok(()),
    }
}

fn replace(path: &Path, text: &str) -> Result<()> {
    // A symbolic link stays, and its target is replaced.
    let path = std::fs::canonicalize(path).map_err(|e| Error::io("find", path, e))?;
    let trouble = |e: std::io::Error| Error::io("replace", &path, e);
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::refused(format!("{} is no file", path.display())));
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty()).map_err(|e| trouble(e.into()))?;
    let mut new = name.to_owned();
    new.push(format!(".eci-fs-{}", std::process::id()));
    let written = write_beside(&dir, name, &new, text);
    if written.is_err() {
        // The file may not exist.
        let _ = rustix::fs::unlinkat(&dir, &new, AtFlags::empty());
    }
    written.map_err(trouble)
}

fn write_beside(dir: &OwnedFd, name: &OsStr, new: &OsStr, text: &str) -> std::io::Result<()> {
    let stat = rustix::fs::statat(dir, name, AtFlags::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, new, flags, Mode::from(0o600))?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes())?;
    std::os::unix::fs::fchown(&file, Some(stat.st_uid), Some(stat.st_gid))?;
    // The mode is set after the owner, because a change of owner clears bits.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    // An older file is on the disk already, so its replacement must be, too. An engine writes the file just before the
    // call, and does not wait for the disk.
    if !is_fresh(stat.st_mtime) {
        file.sync_all()?;
    }
    rustix::fs::renameat(dir, new, dir, name)?;
    Ok(())
}

/// Returns whether a change at `time`, in seconds since 1970, may not be on the disk yet.
fn is_fresh(time: i64) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    u64::try_from(time).is_ok_and(|time| now.saturating_sub(time) < WRITTEN_WITHIN)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn hook(stage: &str) -> Hook {
        Hook {
            path: "/usr/bin/eci-fs".into(),
            args: [HOOK_NAME, "hook", stage].map(str::to_owned).to_vec(),
            env: Vec::new(),
            timeout: 15,
        }
    }

    fn hooks() -> [(&'static str, Hook); 2] {
        ["createRuntime", "poststop"].map(|stage| (stage, hook(stage)))
    }

    #[test]
    fn what_is_not_a_hook_stays_as_the_text_that_it_is() {
        let odd = r#""z":1.0,"a":123456789012345678901234567890,"b":1e400,"u":"\u00e9\/","nested":{"y":[ 1 , 2.50 ],"x":null},"a2":-0.0"#;
        let edited = with_hooks(&format!("{{{odd}}}"), &hooks())
            .unwrap()
            .unwrap();
        assert!(
            edited.starts_with(&format!("{{{odd},\"hooks\":")),
            "{edited}"
        );
    }

    #[test]
    fn hooks_of_others_stay_before_ours_and_unknown_fields_stay_in_them() {
        let text = r#"{"hooks":{"prestart":[{"path":"/n"}],"createRuntime":[{"path":"/o","x":1.0}],"new":7},"linux":{}}"#;
        let edited = with_hooks(text, &hooks()).unwrap().unwrap();
        let start = r#"{"hooks":{"prestart":[{"path":"/n"}],"createRuntime":[{"path":"/o","x":1.0},{"path":"/usr/bin/eci-fs","args":["eci-fs","hook","createRuntime"]"#;
        assert!(edited.starts_with(start), "{edited}");
        assert!(edited.contains(r#""new":7,"poststop":[{"#), "{edited}");
        assert!(edited.ends_with(r#","linux":{}}"#), "{edited}");
    }

    #[test]
    fn a_second_time_changes_nothing_and_another_program_replaces_ours() {
        let once = with_hooks("{}", &hooks()).unwrap().unwrap();
        assert_eq!(with_hooks(&once, &hooks()).unwrap(), None);
        let moved = hooks().map(|(stage, hook)| {
            let path = "/opt/eci-fs".into();
            (stage, Hook { path, ..hook })
        });
        let twice = with_hooks(&once, &moved).unwrap().unwrap();
        assert_eq!(twice.matches("/opt/eci-fs").count(), 2);
        assert!(!twice.contains("/usr/bin/eci-fs"), "{twice}");
    }

    #[test]
    fn the_documented_hooks_are_known_for_ours() {
        let document = include_str!("../../docs/engines.md");
        let mut blocks = document.split("```json\n").skip(1);
        let block = blocks.find(|block| block.starts_with("\"hooks\"")).unwrap();
        let text = format!("{{{}}}", block.split("```").next().unwrap());
        let edited = with_hooks(&text, &hooks()).unwrap().unwrap();
        assert_eq!(edited, with_hooks("{}", &hooks()).unwrap().unwrap());
    }

    #[test]
    fn null_is_no_hooks_and_what_is_no_object_is_refused() {
        for text in [r#"{"hooks":null}"#, r#"{"hooks":{"createRuntime":null}}"#] {
            let edited = with_hooks(text, &hooks()).unwrap().unwrap();
            assert!(edited.contains("createRuntime\":[{"), "{edited}");
        }
        for text in [
            "",
            "[]",
            "{",
            r#"{"hooks":[]}"#,
            r#"{"hooks":{"poststop":{}}}"#,
        ] {
            assert!(with_hooks(text, &hooks()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_keeps_its_mode_and_owner_and_nothing_lies_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, "{}").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&path, None, Some(rustix::process::getgid().as_raw())).unwrap();
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink("config.json", &link).unwrap();
        add_hooks(&link, &hooks()).unwrap();
        let before = std::fs::metadata(&path).unwrap();
        assert_eq!(before.mode() & 0o7777, 0o640);
        add_hooks(&path, &hooks()).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().ino(),
            before.ino(),
            "not written again"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
