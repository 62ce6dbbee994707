//! The control protocol: what a command asks of the daemon, and what it answers.
//!
//! Every packet carries [`VERSION`]; a daemon of another version answers with an error that names both,
//! so that a mixed installation says so instead of misbehaving.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::choices::Choices;
use crate::error::Error;

/// The version of this protocol. It grows when a packet changes its meaning, not when a field is added.
pub const VERSION: u32 = 1;

/// Containers in one [`Response::Containers`] packet, so that a packet never outgrows the channel.
pub const LIST_PAGE: usize = 100;

/// A packet from a command.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// What is asked.
    pub request: Request,
}

/// A packet from the daemon.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// What is answered.
    pub response: Response,
}

/// What a command can ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Graft all views into the container of a process. Carries its pidfd.
    Attach(Attach),
    /// Take all grafts out of a container again.
    Detach(Selector),
    /// Forget the container of this name if its process has ended, so that its name is free when this is answered.
    /// Nothing is done to one that lives.
    Forget {
        /// Its name.
        id: String,
    },
    /// Show what the container of a process sees under a directory. Carries its pidfd and the directory.
    Mount {
        /// The path of the directory, for lists and for `unmount`.
        dir: PathBuf,
        /// Whether the directory was made for this and goes with it.
        created: bool,
    },
    /// Take such a directory away again.
    Unmount {
        /// As [`Request::Mount`] named it.
        dir: PathBuf,
    },
    /// All containers after the one with slot `after`.
    List {
        /// The last slot of the page before; none at first.
        after: Option<u64>,
    },
    /// Put another version of a program in the place of the one that runs.
    Upgrade {
        /// Of which.
        part: Part,
        /// The new program; the one that lies now where the running one was started from, if it is not named.
        path: Option<PathBuf>,
    },
    /// One file of an attached container, opened. Answered with [`Response::Opened`] and its descriptor.
    Open {
        /// Whose.
        container: Selector,
        /// The path in the container: "/proc/meminfo".
        path: String,
    },
}

/// What [`Request::Attach`] says of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The name that the container shall have; a name is made when there is none.
    pub id: Option<String>,
    /// Which of the process's cgroups is the container's.
    pub cgroup: CgroupChoice,
    /// Where the root file system of the container lies, as the process sees it: before it enters it, a hook is
    /// called. None when it is the process's root directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// With [`Self::root`]: nothing of its /proc and /sys will be masked or made read-only before it begins. Without
    /// it that is seen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmasked: bool,
    /// What is set for this container alone.
    #[serde(default, skip_serializing_if = "Choices::is_empty")]
    pub choices: Choices,
}

/// One of the two programs that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// eci-mountd.
    Daemon,
    /// eci-fs serve.
    Server,
}

/// Which cgroup stands for the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupChoice {
    /// The root of its cgroup namespace, or its own if it shares the host's (`attach`).
    #[default]
    NamespaceRoot,
    /// The process's own at this moment (a hook: the engine has just put it there).
    Own,
}

/// How a person names a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// By its name.
    Id(String),
    /// By any process in it: its own pid, its init's, or one in the same mount namespace.
    Pid(i32),
}

/// What the daemon can answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Attach`].
    Attached(Attached),
    /// To [`Request::Detach`]: the container's name and how many grafts were removed.
    Detached {
        /// Its name.
        id: String,
        /// Grafts that were removed.
        grafts: usize,
    },
    /// To [`Request::Forget`].
    Forgotten {
        /// Whether there was one, and it had ended.
        ended: bool,
    },
    /// To [`Request::Mount`].
    Mounted {
        /// The container's name.
        id: String,
        /// Views below the directory.
        grafts: usize,
    },
    /// To [`Request::Unmount`].
    Unmounted,
    /// To [`Request::List`].
    Containers {
        /// At most [`LIST_PAGE`] of them, by slot.
        containers: Vec<Listed>,
        /// Whether there are more.
        more: bool,
    },
    /// To [`Request::Upgrade`].
    Upgraded(Upgraded),
    /// To [`Request::Open`], with the descriptor.
    Opened,
    /// To anything that failed.
    Failed(Error),
}

/// A container that has just been attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Its name.
    pub id: String,
    /// Grafts in place.
    pub grafts: usize,
    /// Microseconds from the receipt of the request to all grafts in place.
    pub took_usec: u64,
    /// Whether it had been attached before, and nothing was done now.
    pub already: bool,
}

/// A program that has taken the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// Its process.
    pub pid: i32,
    /// What it says of itself: "eci-fs 0.1.0".
    pub release: String,
}

/// A container in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub id: String,
    /// The slot: the number of its directory in both connections.
    pub slot: u64,
    /// The process whose life is the container's.
    pub pid: i32,
    /// Grafts in it; 0 when it is only shown under directories.
    pub grafts: usize,
    /// Directories under which it is shown.
    pub mounts: Vec<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of this version stays readable: what is written here must parse in every later one.
    #[test]
    fn packets_of_version_1_are_kept_readable() {
        let golden = r#"{"version":1,"request":{"attach":{"id":"web","cgroup":"namespace-root"}}}"#;
        let call: Call = serde_json::from_str(golden).unwrap();
        assert!(
            matches!(call.request, Request::Attach(Attach { id: Some(ref id), .. }) if id == "web")
        );
        assert_eq!(serde_json::to_string(&call).unwrap(), golden);
    }
}
