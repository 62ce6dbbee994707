//! Why a view could not be computed. Every variant about a file names it.

use nix::errno::Errno;

/// A failure to compute a view. It is logged once and becomes one errno; the host's file is never
/// shown instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused to open or read a file.
    #[error("{path}: {errno}")]
    Io {
        /// The file, absolute for the machine's, relative to the cgroup for a cgroup's.
        path: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// A file does not hold what the kernel writes there.
    #[error("{path}: {what}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The cgroup is gone: its container has ended.
    #[error("{path}: the cgroup was removed")]
    Removed {
        /// The file that was looked for.
        path: String,
    },
    /// A path below a directory emulator does not exist in the view.
    #[error("{path}: not in the view")]
    Hidden {
        /// The path, relative to the directory.
        path: String,
    },
    /// A view is computed from what its row does not name, so it was not supplied.
    #[error("the row of the view does not say that it needs {what}")]
    Undeclared {
        /// What is missing.
        what: &'static str,
    },
}

impl Error {
    /// The errno that a reader of the view gets: EIO, or ENOENT for what the view does not have.
    pub fn errno(&self) -> i32 {
        match self {
            Error::Hidden { .. } => Errno::ENOENT as i32,
            _ => Errno::EIO as i32,
        }
    }

    /// A failed system call on `path`.
    pub(crate) fn io(path: &str, errno: Errno) -> Error {
        Error::Io {
            path: path.to_owned(),
            errno,
        }
    }

    /// Unexpected content of `path`.
    pub(crate) fn malformed(path: &str, what: &'static str) -> Error {
        Error::Malformed {
            path: path.to_owned(),
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_path() {
        let error = Error::malformed("memory.limit_in_bytes", "not a number");
        assert_eq!(error.to_string(), "memory.limit_in_bytes: not a number");
        assert_eq!(error.errno(), Errno::EIO as i32);
    }
}
