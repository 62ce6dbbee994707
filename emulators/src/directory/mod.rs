//! Directory emulators: directories of the kernel whose listing depends on the container.
//!
//! A directory emulator decides about every path below its directory, and renders the paths that are views. For a
//! path that it passes through it returns the path on the host, which the server opens read-only.

mod counters;
mod empty;
mod namespaced;

pub use counters::{Counters, Kind, Number};
pub use empty::Empty;
pub use namespaced::Namespaced;

use rustix::io::Errno;

use crate::{Context, Error, Needs, Pace};

/// The needs of all directories. Their listings change with limits.
pub const NEEDS: Needs = Needs::CGROUP;

/// One directory whose listing depends on the container.
///
/// Relative paths have no leading slash; "" is the directory itself.
pub trait Directory: Send + Sync {
    /// Returns what is known about the directory without looking at a container.
    fn facts(&self) -> &DirectoryFacts;

    /// Returns what the container sees at a relative path.
    fn entry(&self, cx: &Context<'_>, rel: &str) -> Result<Decision, Error>;

    /// Returns the names in the directory at a relative path, sorted, without "." and "..".
    fn names(&self, cx: &Context<'_>, rel: &str) -> Result<Vec<String>, Error>;

    /// Appends the text of a path that is a [`Decision::View`].
    fn render(&self, cx: &Context<'_>, rel: &str, out: &mut Vec<u8>) -> Result<(), Error>;

    /// Returns whether the files that are not computed are those of the container's network namespace. They may be
    /// written to.
    fn is_namespaced(&self) -> bool {
        false
    }

    /// Returns whether the directory itself is left to the kernel, and the files of [`Directory::single_files`] are
    /// grafted one by one.
    fn is_by_file(&self) -> bool {
        false
    }

    /// Returns the relative paths of the files that are grafted one by one, where [`Directory::is_by_file`].
    ///
    /// # Errors
    /// Fails when a directory of the host cannot be listed.
    fn single_files(&self, _cx: &Context<'_>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Converts the text of the kernel for a file that is [`Decision::Namespaced`] to what the container sees.
    fn to_container(&self, _cx: &Context<'_>, text: Vec<u8>) -> Vec<u8> {
        text
    }

    /// Converts what a container writes at `offset` to a file that is [`Decision::Namespaced`] to what the kernel gets,
    /// where that is not the same. `present` is what the container sees in the file.
    ///
    /// # Errors
    /// Those of the kernel's handler.
    fn to_kernel(
        &self,
        _cx: &Context<'_>,
        _present: &[u8],
        _offset: u64,
        bytes: &[u8],
    ) -> Result<Converted, Errno> {
        Ok(Converted {
            taken: bytes.len(),
            bytes: Some(bytes.to_vec()),
        })
    }

    /// Returns whether every container has the directory where the host has it. Otherwise a container that can measure CPUs
    /// has the kernel's own.
    fn is_for_all(&self) -> bool {
        true
    }

    /// Returns the names that are left in a directory that is empty otherwise, for documents.
    fn kept(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns whether the container has the directory. It has a directory that the kernel of this host has.
    fn exists(&self, cx: &Context<'_>) -> bool {
        cx.host.exists(self.facts().path)
    }
}

impl std::fmt::Debug for dyn Directory + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Directory({})", self.facts().path)
    }
}

/// A write, converted for the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The number of bytes that the container's write is answered with.
    pub taken: usize,
    /// The bytes that the kernel gets at offset 0; `None` if the write changes nothing.
    pub bytes: Option<Vec<u8>>,
}

/// The facts about a directory that are the same for all containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryFacts {
    /// The id. Files and directories share one space of ids.
    pub id: u16,
    /// The absolute path.
    pub path: &'static str,
    /// Permission bits.
    pub mode: u16,
    /// The views in it, with N and * for families, for documents. Everything else is hidden or the kernel's.
    pub views: &'static [&'static str],
}

/// The answer of a directory emulator about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The path does not exist for the container.
    Hidden,
    /// The container sees the kernel's file, directory or symbolic link at this absolute path of the host, which need
    /// not exist. A directory is listed with [`Directory::names`] all the same.
    Passthrough(String),
    /// The container sees a file whose text [`Directory::render`] computes. If it ticks, it has no bound.
    View {
        /// Permission bits.
        mode: u16,
        /// The events that change it.
        pace: Pace,
    },
    /// The container sees a symbolic link with this target, in place of the kernel's.
    Link(String),
    /// The container sees what its network namespace has at this absolute path, which need not exist. A directory has
    /// the entries of the namespace, and those of [`Directory::names`].
    Namespaced(String),
    /// The container sees the tunable with this id.
    Tunable(u16),
    /// The container sees a directory that the kernel does not have. It is listed with [`Directory::names`].
    Made,
}

/// Returns a static view with the usual mode if the host has the file, else hidden.
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

/// Returns the error for a path that is no view.
pub(crate) fn hidden(rel: &str) -> Error {
    Error::Hidden {
        path: rel.to_owned(),
    }
}

/// Returns the number in a name like "cpu12", which consists of `stem` and digits without leading zeros.
pub(crate) fn family(name: &str, stem: &str) -> Option<u32> {
    let digits = name.strip_prefix(stem)?;
    if digits.len() > 1 && digits.starts_with('0') || digits.starts_with('+') {
        return None;
    }
    digits.parse().ok()
}

/// Returns the first component of a relative path, and the rest.
pub(crate) fn split_first(rel: &str) -> (&str, &str) {
    rel.split_once('/').unwrap_or((rel, ""))
}

/// Joins two paths. Both may be empty.
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
