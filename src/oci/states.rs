//! The directory in which a runtime keeps the states of its containers.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use eci_fs_protocol::error::{Error, Kind, Result};

use super::command_line::CommandLine;

/// The runtimes whose directory is known without an option, by a part of the name of their program. The directory has the
/// name of the runtime, whatever its program is called.
const RUNTIMES: [&str; 3] = ["runc", "crun", "youki"];

/// The environment variable by which crun finds its directory, as root too.
pub const CRUN_VARIABLE: &str = "XDG_RUNTIME_DIR";

/// The directories in which the states of a runtime may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct States {
    /// The directories in which they may be, the likeliest first.
    directories: Vec<PathBuf>,
    /// True if they are in the first one for sure.
    is_known: bool,
}

impl States {
    /// Returns the directories for the states of the program `runtime`. `variable` is the value of [`CRUN_VARIABLE`].
    ///
    /// # Errors
    /// When the directory is relative, and there is no current directory.
    pub fn of(line: &CommandLine, runtime: &Path, variable: Option<&OsStr>) -> Result<Self> {
        if let Some(root) = &line.root {
            return Ok(Self {
                directories: vec![real(root)?],
                is_known: true,
            });
        }
        // The program may be a link to the runtime, of another name.
        let target = std::fs::canonicalize(runtime).ok();
        let name = [Some(runtime), target.as_deref()]
            .into_iter()
            .flatten()
            .find_map(kind_of);
        let variable = variable.filter(|value| !value.is_empty()).map(Path::new);
        let of = |name: &str| match variable.filter(|_| name == "crun") {
            Some(variable) => variable.join(name),
            None => Path::new("/run").join(name),
        };
        let directories = match name {
            Some(name) => vec![real(&of(name))?],
            None => {
                let own = Path::new("/run").join(runtime.file_name().unwrap_or_default());
                let all = [own].into_iter().chain(RUNTIMES.map(of));
                all.map(|path| real(&path)).collect::<Result<_>>()?
            }
        };
        Ok(Self {
            directories,
            is_known: name.is_some(),
        })
    }

    /// Returns the directories in which the states may be, the likeliest first.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.directories.iter().map(PathBuf::as_path)
    }

    /// Returns the key of the container `id`, which no other container of the host has: the directory of the states and the
    /// id. Where that directory is not known, the directory of the bundle takes its place.
    ///
    /// # Errors
    /// When the key is no UTF-8, or the bundle is relative and there is no current directory.
    pub fn key(&self, id: &str, bundle: &Path) -> Result<String> {
        let key = match self.directories.first().filter(|_| self.is_known) {
            Some(directory) => directory.join(id),
            None => real(bundle)?.join(id),
        };
        key.into_os_string()
            .into_string()
            .map_err(|key| Error::new(Kind::Refused, format!("{} is no UTF-8", key.display())))
    }
}

/// Returns the name of the runtime whose program is at `path`.
fn kind_of(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_string_lossy();
    RUNTIMES.into_iter().find(|kind| name.contains(kind))
}

/// Returns the absolute path, without symbolic links if it exists: one directory has one path.
fn real(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .map_err(|e| Error::io("find", path, e))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn line(words: &[&str]) -> CommandLine {
        CommandLine::parse(words.iter().map(OsString::from))
    }

    fn states(words: &[&str], runtime: &str, variable: Option<&str>) -> States {
        States::of(&line(words), Path::new(runtime), variable.map(OsStr::new)).unwrap()
    }

    #[test]
    fn each_runtime_has_a_directory_of_its_own_name_and_an_option_counts_more() {
        let create = ["create", "web"];
        for (runtime, variable, wanted) in [
            ("/usr/bin/runc", None, "/run/runc"),
            ("/usr/bin/runc", Some("/nonexistent/0"), "/run/runc"),
            ("/opt/runc-1.3.0.amd64", None, "/run/runc"),
            ("/usr/bin/youki", Some("/nonexistent/0"), "/run/youki"),
            ("/usr/bin/crun", None, "/run/crun"),
            ("/usr/bin/crun", Some(""), "/run/crun"),
            (
                "/usr/bin/crun",
                Some("/nonexistent/0"),
                "/nonexistent/0/crun",
            ),
        ] {
            let states = states(&create, runtime, variable);
            let all: Vec<_> = states.directories().collect();
            assert_eq!(
                all,
                [real(Path::new(wanted)).unwrap()],
                "{runtime} {variable:?}"
            );
            assert!(states.is_known);
        }
        for words in [
            &["--root", "/r", "create", "web"][..],
            &["--root=/r", "create", "web"],
        ] {
            let states = states(words, "/usr/bin/crun", Some("/nonexistent/0"));
            assert_eq!(states.key("web", Path::new("/b")).unwrap(), "/r/web");
        }
    }

    #[test]
    fn one_directory_has_one_key_whatever_links_lead_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        std::fs::create_dir(top.join("states")).unwrap();
        std::os::unix::fs::symlink("states", top.join("link")).unwrap();
        std::fs::write(top.join("crun"), "").unwrap();
        std::os::unix::fs::symlink("crun", top.join("oci")).unwrap();
        let key = |name: &str| {
            let root = top.join(name).display().to_string();
            let states = states(&["--root", &root, "create", "web"], "/usr/bin/runc", None);
            states.key("web", Path::new("/b")).unwrap()
        };
        assert_eq!(key("link"), key("states"));
        // So has a program.
        let link = top.join("oci").display().to_string();
        let states = states(&["create", "web"], &link, Some("/nonexistent/0"));
        assert_eq!(
            states.key("web", Path::new("/b")).unwrap(),
            "/nonexistent/0/crun/web"
        );
    }

    #[test]
    fn containers_of_a_runtime_that_is_not_known_are_told_apart_by_their_bundles() {
        let states = states(&["create", "web"], "/opt/other", None);
        let keys =
            ["/nonexistent/1", "/nonexistent/2"].map(|b| states.key("web", Path::new(b)).unwrap());
        assert_eq!(keys, ["/nonexistent/1/web", "/nonexistent/2/web"]);
        let all: Vec<_> = states
            .directories()
            .map(|path| path.file_name().unwrap())
            .collect();
        assert_eq!(all, ["other", "runc", "crun", "youki"]);
    }
}
