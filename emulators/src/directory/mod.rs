//! What a directory emulator is: a directory of the kernel whose listing depends on the container.
//!
//! It decides about every path below it, and renders those that are views. What it passes through
//! is named by its place on the machine, for the server to open there, read-only.

mod empty;
mod namespaced;

pub use empty::Empty;
pub use namespaced::Namespaced;

use crate::{Context, Error, Needs, Pace};

/// What directories are computed from: their listings change with limits.
pub const NEEDS: Needs = Needs::CGROUP;

/// Decides what a container sees below one directory.
///
/// Relative paths have no leading slash; "" is the directory itself.
pub trait Directory: Send + Sync {
    /// What is known about the directory without looking at a container.
    fn facts(&self) -> &DirectoryFacts;

    /// What is at a relative path.
    fn entry(&self, cx: &Context<'_>, rel: &str) -> Result<Decision, Error>;

    /// The names in the directory at a relative path, sorted; without "." and "..".
    fn names(&self, cx: &Context<'_>, rel: &str) -> Result<Vec<String>, Error>;

    /// Appends the text of a path that is a [`Decision::View`].
    fn render(&self, cx: &Context<'_>, rel: &str, out: &mut Vec<u8>) -> Result<(), Error>;

    /// Whether what is not computed in it is that of the container's network namespace, which may be written to.
    fn is_namespaced(&self) -> bool {
        false
    }

    /// Whether the directory exists for this container on this machine: the kernel has it.
    fn exists(&self, cx: &Context<'_>) -> bool {
        cx.host.exists(self.facts().path)
    }
}

impl std::fmt::Debug for dyn Directory + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Directory({})", self.facts().path)
    }
}

/// What is true of a directory for every container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryFacts {
    /// From the same numbers as the ids of [`crate::Facts`].
    pub id: u16,
    /// The absolute path.
    pub path: &'static str,
    /// Permission bits.
    pub mode: u16,
    /// The views in it, with N and * for families. Everything else is hidden or the kernel's.
    pub views: &'static [&'static str],
}

/// What a container sees at a path below a directory emulator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: ENOENT.
    Hidden,
    /// The kernel's own file, directory or symbolic link at this absolute path of the machine,
    /// which need not exist. A directory is listed with [`Directory::names`] all the same.
    Passthrough(String),
    /// A file whose text [`Directory::render`] computes. A ticking one has no bound.
    View {
        /// Permission bits.
        mode: u16,
        /// How often it changes.
        pace: Pace,
    },
    /// A symbolic link with this target, in place of the kernel's.
    Link(String),
    /// The kernel's own, as the container's network namespace has it at this absolute path: perhaps nothing. What lies
    /// in a directory is that and [`Directory::names`].
    Namespaced(String),
    /// The tunable with this id.
    Tunable(u16),
    /// A directory that the kernel does not have here; it is listed with [`Directory::names`].
    Made,
}

/// A static view with the usual mode, if the machine has the file.
pub(crate) fn static_view(cx: &Context<'_>, path: &str) -> Decision {
    if cx.host.exists(path) {
        Decision::View {
            mode: 0o444,
            pace: Pace::Static,
        }
    } else {
        Decision::Hidden
    }
}

/// The error for a path that is no view.
pub(crate) fn hidden(rel: &str) -> Error {
    Error::Hidden {
        path: rel.to_owned(),
    }
}

/// The number in names like "cpu12": `stem` and digits without leading zeros.
pub(crate) fn family(name: &str, stem: &str) -> Option<u32> {
    let digits = name.strip_prefix(stem)?;
    if digits.len() > 1 && digits.starts_with('0') || digits.starts_with('+') {
        return None;
    }
    digits.parse().ok()
}

/// The first component of a relative path, and the rest.
pub(crate) fn split_first(rel: &str) -> (&str, &str) {
    rel.split_once('/').unwrap_or((rel, ""))
}

/// A path below another; both may be empty.
pub(crate) fn join(dir: &str, name: &str) -> String {
    match (dir.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => dir.to_owned(),
        _ => format!("{dir}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_a_stem_and_a_number() {
        assert_eq!(family("cpu0", "cpu"), Some(0));
        assert_eq!(family("cpu12", "cpu"), Some(12));
        for name in [
            "cpu",
            "cpu01",
            "cpu+1",
            "cpufreq",
            "cpu-1",
            "cpu99999999999",
            "node1",
        ] {
            assert_eq!(family(name, "cpu"), None, "{name}");
        }
    }

    #[test]
    fn paths_are_taken_apart_and_put_together() {
        assert_eq!(
            split_first("cpu0/topology/core_id"),
            ("cpu0", "topology/core_id")
        );
        assert_eq!(split_first("online"), ("online", ""));
        assert_eq!(join("", "a"), "a");
        assert_eq!(join("a", ""), "a");
        assert_eq!(join("a", "b"), "a/b");
    }
}
