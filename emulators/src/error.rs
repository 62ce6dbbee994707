//! The errors of the crate. A variant about a file names it.

use rustix::io::Errno;

/// The reason why a view cannot be computed. The server logs it once and returns an errno. It never shows the host's
/// file instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused to open or read a file.
    #[error("{path}: {errno}")]
    Io {
        /// The path of the file: absolute for a file of the host, relative to the cgroup for a file of a cgroup.
        path: String,
        /// The error of the system call.
        errno: Errno,
    },
    /// A file does not have the kernel's format.
    #[error("{path}: {what}")]
    Malformed {
        /// The file.
        path: String,
        /// The fault.
        what: &'static str,
    },
    /// The cgroup was removed, because its container has ended.
    #[error("{path}: the cgroup was removed")]
    Removed {
        /// The file that was to be read.
        path: String,
    },
    /// A path below a directory emulator does not exist in the view.
    #[error("{path}: not in the view")]
    Hidden {
        /// The path, relative to the directory.
        path: String,
    },
    /// A view reads a part of the context that its row does not name.
    #[error("the row of the view does not say that it needs {what}")]
    Undeclared {
        /// The part that was not supplied.
        what: &'static str,
    },
}

impl Error {
    /// Returns the errno for readers of the view: ENOENT for a path that the view does not have, else EIO.
    pub fn errno(&self) -> i32 {
        match self {
            Error::Hidden { .. } => Errno::NOENT.raw_os_error(),
            _ => Errno::IO.raw_os_error(),
        }
    }

    /// Returns the error of a system call on `path`.
    pub(crate) fn io(path: &str, errno: Errno) -> Error {
        Error::Io {
            path: path.to_owned(),
            errno,
        }
    }

    /// Returns the error for a file with unexpected content.
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
        assert_eq!(error.errno(), Errno::IO.raw_os_error());
    }
}
