//! The control protocol between a command and the daemon.
//!
//! Every packet carries [`VERSION`]. A daemon of another version answers with an error that names both, so that a mixed
//! installation says so instead of misbehaving.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::choices::Choices;
use crate::error::Error;
use crate::link::Usage;
use crate::locks::Locks;

/// The version of this protocol. It grows when a packet changes its meaning, not when a field is added.
pub const VERSION: u32 = 1;

/// The number of containers in one [`Response::Containers`] packet, so that a packet never outgrows the channel.
pub const LIST_PAGE: usize = 100;

/// A packet from a command.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// The request.
    pub request: Request,
}

/// A packet from the daemon.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// The response.
    pub response: Response,
}

/// A request of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Grafts all views into the container of a process. The packet carries its pidfd.
    Attach(Attach),
    /// Takes all grafts out of a container again.
    Detach(Selector),
    /// Removes the container of this name from the list if its process has ended, so that its name is free when this is
    /// answered. One that lives stays as it is.
    Forget {
        /// The name of the container.
        id: String,
    },
    /// Shows what the container of a process sees under a directory. The packet carries its pidfd and the directory.
    Mount {
        /// The path of the directory, for lists and for `unmount`.
        dir: PathBuf,
        /// True if the directory was made for this, and is removed with it.
        created: bool,
    },
    /// Takes such a directory away again.
    Unmount {
        /// As [`Request::Mount`] named it.
        dir: PathBuf,
    },
    /// Asks for all containers after the one with slot `after`.
    List {
        /// The last slot of the page before; none at first.
        after: Option<u64>,
    },
    /// Puts another version of a program in the place of the one that runs.
    Upgrade {
        /// The program that is replaced.
        part: Part,
        /// The new program; the one that lies now where the running one was started from, if it is not named.
        path: Option<PathBuf>,
    },
    /// Opens one file of an attached container. The answer is [`Response::Opened`] with its descriptor.
    Open {
        /// The container.
        container: Selector,
        /// The path in the container: "/proc/meminfo".
        path: String,
    },
    /// Gives a container that is about to be made a range of ids. The packet carries the pidfd of the process that
    /// becomes its runtime. The answer is [`Response::Isolated`]. An older daemon does not understand it, and closes the connection.
    Isolate(Isolate),
    /// Makes the process that becomes the runtime of a new container a member of the range of another container, whose
    /// namespaces the new one joins. The packet carries the pidfd of that process, and then the pidfd of a process of the
    /// other container. The answer is [`Response::Isolated`], with the user namespace of the other container. An older
    /// daemon does not understand it.
    Join(Isolate),
    /// Lock the mounts of a container that a runtime makes, and graft its views. The packet carries what that of
    /// [`Request::Attach`] does. The answer is [`Response::Attached`], or [`Response::Locked`] where no views are
    /// wanted. An older daemon does not understand it, so it never takes it for an attach without locks.
    Lock(Lock),
    /// Keep the engine's overlay of an isolated container that has no views in step with the container's own. The packet
    /// carries the pidfd of its process, and the root directories of both overlays, open for reading: the engine's and the
    /// container's. The answer is [`Response::Watched`]. An older daemon does not understand it, and closes the connection.
    Watch(Watch),
}

/// The container that [`Request::Lock`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The path of its root file system, as its process sees it.
    pub root: PathBuf,
    /// The mounts that are locked.
    pub locks: Locks,
    /// The views that are grafted; none if it keeps the kernel's files. Its root is [`Self::root`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub views: Option<Attach>,
}

/// The container that [`Request::Watch`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The path of the overlay that the engine has mounted.
    pub engine_root: PathBuf,
}

/// The container that [`Request::Isolate`] or [`Request::Join`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolate {
    /// The runtime's root directory, "/", and the id of the container: what tells the containers of a host apart. At
    /// most [`MAX_KEY`] bytes.
    pub key: String,
}

/// The length of the longest [`Isolate::key`], in bytes.
pub const MAX_KEY: usize = 4096;

/// The container that [`Request::Attach`] is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The name that the container shall have; a name is made when there is none.
    pub id: Option<String>,
    /// The choice of the cgroup that is the container's.
    pub cgroup: CgroupChoice,
    /// The path of the root file system of the container, as the process sees it: a hook is called before the process
    /// enters it. None when it is the process's root directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// With [`Self::root`]: true if nothing of its /proc and /sys will be masked or made read-only before it begins.
    /// Without a root the daemon sees that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmasked: bool,
    /// The settings of this container alone.
    #[serde(default, skip_serializing_if = "Choices::is_empty")]
    pub choices: Choices,
    /// False if the programs of the container are not going to measure CPUs, whatever the bounding set of its process is
    /// now: a runtime still has all capabilities when it calls a hook. Otherwise the bounding set decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measures_cpus: Option<bool>,
    /// The path of the overlay that the engine has mounted, if the container has another one of the same layers. The packet
    /// carries the root directories of both then, after the pidfd: the engine's and the container's, open for reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_root: Option<PathBuf>,
}

/// A program that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// eci-mountd.
    Daemon,
    /// eci-fs serve.
    Server,
}

/// The choice of the cgroup that stands for a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupChoice {
    /// The root of its cgroup namespace, or its own if it shares the host's (`attach`).
    #[default]
    NamespaceRoot,
    /// The process's own at this moment (a hook: the engine has just put it there).
    Own,
}

/// The name that a person gives a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// By its name.
    Id(String),
    /// By any process in it: its own pid, its init's, or one in the same mount namespace.
    Pid(i32),
}

/// A response of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Attach`].
    Attached(Attached),
    /// To [`Request::Detach`]: the container's name and how many grafts were removed.
    Detached {
        /// The name of the container.
        id: String,
        /// Grafts that were removed.
        grafts: usize,
    },
    /// To [`Request::Forget`].
    Forgotten {
        /// True if there was such a container, and it had ended.
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
        /// True if there are more.
        more: bool,
        /// The things that are wrong with the daemon or a container, in words; on the first page only.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        trouble: Vec<String>,
    },
    /// To [`Request::Upgrade`].
    Upgraded(Upgraded),
    /// To [`Request::Open`], with the descriptor.
    Opened,
    /// To [`Request::Isolate`], with the descriptor of a user namespace. It maps the ids of the range, users and groups
    /// alike, to 0 and those after it.
    Isolated(Isolated),
    /// To [`Request::Lock`] without views.
    Locked,
    /// To [`Request::Watch`].
    Watched,
    /// To anything that failed.
    Failed(Error),
}

/// A container that has just been attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The name of the container.
    pub id: String,
    /// Grafts in place.
    pub grafts: usize,
    /// Microseconds from the receipt of the request to all grafts in place.
    pub took_usec: u64,
    /// True if it was attached before, and nothing was done now.
    pub already: bool,
    /// The ids of the host that it has; none if it is in the host's user namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<IdRange>,
}

/// Ids of the host that a container has in a user namespace of its own, users and groups alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The id of the host that is 0 in the container.
    pub first_id: u32,
    /// The number of ids.
    pub ids: u32,
}

/// The range of ids that a container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolated {
    /// The id of the host that is 0 in the container.
    pub first_id: u32,
    /// The number of ids.
    pub ids: u32,
    /// The path of the stage: the mount below which the container's files are put together. It is a directory of root's,
    /// private, in the mount namespace of the daemon, and has the empty directory `root`.
    pub stage: PathBuf,
}

/// A program that has taken the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The pid of the program.
    pub pid: i32,
    /// The release that the program says it is: "eci-fs 0.1.0".
    pub release: String,
}

/// A container in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The name of the container.
    pub id: String,
    /// The slot: the number of its directory in both connections.
    pub slot: u64,
    /// The process whose life is the container's.
    pub pid: i32,
    /// Grafts in it; 0 when it is only shown under directories.
    pub grafts: usize,
    /// Directories under which it is shown.
    pub mounts: Vec<PathBuf>,
    /// The figures of what the server has done for it; none where the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The ids of the host that it has; none if it is in the host's user namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<IdRange>,
    /// True if the kernel has locked its grafts: it cannot take them away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// True if a supervisor answers those of its system calls that would tell about the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vetted: bool,
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
