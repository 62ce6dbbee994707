//! A namespace that an engine made before the container, and keeps as a mount.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eci_fs_protocol::error::{Error, Result};
use rustix::event::Timespec;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, fstatfs, open, openat2};

use super::namespace_id;
use crate::isolation::owned_namespace::{self, Kind};

/// The type of file system of a namespace that is mounted (NSFS_MAGIC).
const NAMESPACES: rustix::fs::FsWord = 0x6e73_6673;

/// The most threads of the host that are looked at.
const MAX_THREADS: usize = 1 << 20;

/// The time for which a process of the host may be in a namespace without having it.
const PASSING: Duration = Duration::from_secs(1);

/// The pause between two looks.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// A namespace, and the path at which it is mounted.
#[derive(Debug)]
pub(in crate::isolation) struct EngineNamespace {
    kind: Kind,
    /// The path without symbolic links.
    path: PathBuf,
    namespace: OwnedFd,
}

/// The use of a namespace.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// Nobody uses it, so the container can get one of its own in its place.
    Unused,
    /// Processes of another container are in it. This is the directory in /proc of one that is in the user namespace to
    /// which the namespace belongs.
    Container(PathBuf),
    /// It is the host's, or a process of the host is in it, or only processes that are not in its user namespace are.
    Host,
}

impl EngineNamespace {
    /// Opens the namespace of this kind that is mounted at `path`. There is none if the path goes through a link that the
    /// kernel follows by itself, as `/proc/PID/root` is: such a path means another file at another moment.
    pub(super) fn open(path: &Path, kind: Kind) -> Option<Self> {
        let find = |path: &Path, resolve| {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            openat2(CWD, path, flags, Mode::empty(), resolve).ok()
        };
        let written = find(path, ResolveFlags::NO_MAGICLINKS)?;
        let path = fs::canonicalize(path).ok()?;
        let found = find(&path, ResolveFlags::NO_SYMLINKS)?;
        let is_namespace = fstatfs(&found).is_ok_and(|stat| stat.f_type == NAMESPACES);
        if !is_namespace || !is_same(&written, &found) {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = open(path_of(&found), flags, Mode::empty()).ok()?;
        Some(Self {
            kind,
            path,
            namespace,
        })
    }

    /// Returns the kind of the namespace.
    pub(in crate::isolation) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the path without symbolic links.
    pub(in crate::isolation) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the namespace.
    pub(in crate::isolation) fn namespace(&self) -> &OwnedFd {
        &self.namespace
    }

    /// Checks that this namespace is still the one at its path.
    ///
    /// # Errors
    /// When another one is, or none.
    pub(in crate::isolation) fn check(&self) -> Result<()> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS;
        let now = openat2(CWD, &self.path, flags, Mode::empty(), resolve);
        if now.is_ok_and(|now| is_same(&now, &self.namespace)) {
            return Ok(());
        }
        Err(changed(
            &self.path,
            "was replaced while the container started",
        ))
    }

    /// Returns the name in /proc/PID/ns of its kind.
    fn file(&self) -> &'static str {
        match self.kind {
            Kind::Network => "net",
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
            Kind::Time => "time",
        }
    }

    /// Returns true if the namespace belongs to `user_namespace`.
    pub(super) fn belongs_to(&self, user_namespace: impl AsFd) -> bool {
        owned_namespace::owner(&self.namespace).is_ok_and(|owner| is_same(owner, user_namespace))
    }

    /// Returns the use of the namespace. `own` is the host's user namespace.
    pub(super) fn usage(&self, proc: &Path, own: Option<&Path>) -> Usage {
        // The link to a descriptor of a mount has the path of the mount.
        let stat = fstat(&self.namespace).ok();
        let id = stat.map(|stat| PathBuf::from(format!("{}:[{}]", self.file(), stat.st_ino)));
        let host = namespace_id(&proc.join("self/ns").join(self.file()));
        let owner = owned_namespace::owner(&self.namespace);
        let owner = owner.ok().and_then(|owner| namespace_id(&path_of(&owner)));
        let (Some(id), Some(host), Some(owner)) = (id, host, owner) else {
            return Usage::Host;
        };
        if id == host {
            return Usage::Host;
        }
        // A program of the host may look into a namespace for a moment, as those that set it up do.
        let end = Instant::now() + PASSING;
        loop {
            let usage = users(proc, self.file(), &id, &owner, own);
            if usage != Usage::Host || Instant::now() >= end {
                return usage;
            }
            // Nobody tells when it leaves. Nothing is wrong with a pause that a signal ends.
            let _ = rustix::event::poll(&mut [], Some(&PAUSE));
        }
    }
}

/// Returns the error for a namespace that is not as it was when the container was decided about.
pub(super) fn changed(path: &Path, what: &str) -> Error {
    Error::refused(format!("the namespace at {} {what}", path.display()))
        .remedy("start the container again")
}

fn is_same(one: impl AsFd, other: impl AsFd) -> bool {
    let [one, other] = [one.as_fd(), other.as_fd()].map(|file| fstat(file).ok());
    let number = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    one.is_some() && one.map(number) == other.map(number)
}

/// Returns the path by which this process finds its descriptor.
fn path_of(descriptor: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

/// Returns the use of the namespace `id`, which belongs to the user namespace `owner`. `file` is the name in /proc/PID/ns of
/// its kind. A thread can be in another one than its process, and outlives the first thread of that, so all threads are
/// looked at.
pub(super) fn users(proc: &Path, file: &str, id: &Path, owner: &Path, own: Option<&Path>) -> Usage {
    let Ok(processes) = numbered(proc) else {
        return Usage::Host;
    };
    let (mut found, mut is_used) = (None, false);
    let mut seen = 0;
    for process in processes {
        // Without tasks it has ended.
        let tasks = numbered(&process.join("task")).into_iter().flatten();
        for thread in std::iter::once(process.clone()).chain(tasks) {
            seen += 1;
            if seen > MAX_THREADS {
                return Usage::Host;
            }
            let user = || namespace_id(&thread.join("ns/user"));
            let user = match fs::read_link(thread.join("ns").join(file)) {
                Ok(other) if other == id => user(),
                // It has ended.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                // It may be in this one. Of one that has ended, the user namespace cannot be read either.
                Err(_) => user().filter(|user| user == owner),
                Ok(_) => continue,
            };
            match user {
                Some(user) if Some(user.as_path()) == own => return Usage::Host,
                Some(user) if user == owner => found = found.or_else(|| Some(process.clone())),
                // A user namespace inside of the container's, which any process can make.
                Some(_) => is_used = true,
                None => {}
            }
        }
    }
    match found {
        Some(process) => Usage::Container(process),
        None if is_used => Usage::Host,
        None => Usage::Unused,
    }
}

/// Returns the entries of a directory whose names are numbers.
fn numbered(dir: &Path) -> std::io::Result<impl Iterator<Item = PathBuf> + use<>> {
    let entries = fs::read_dir(dir)?.flatten();
    let is_number = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
    };
    Ok(entries.filter(is_number).map(|entry| entry.path()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const ID: &str = "net:[7]";
    const OWNER: &str = "user:[2]";
    const HOST: &str = "user:[1]";

    /// Returns the use of the network by threads with these directories, networks and user namespaces.
    fn usage(threads: &[(&str, &str, &str)]) -> Usage {
        let dir = tempfile::tempdir().unwrap();
        for (thread, network, user) in threads {
            let namespaces = dir.path().join(thread).join("ns");
            fs::create_dir_all(&namespaces).unwrap();
            symlink(user, namespaces.join("user")).unwrap();
            match *network {
                "" => {}
                // EINVAL.
                "unreadable" => fs::write(namespaces.join("net"), "").unwrap(),
                network => symlink(network, namespaces.join("net")).unwrap(),
            }
        }
        let [id, owner, own] = [ID, OWNER, HOST].map(Path::new);
        match users(dir.path(), "net", id, owner, Some(own)) {
            Usage::Container(process) => {
                Usage::Container(process.strip_prefix(dir.path()).unwrap().to_owned())
            }
            other => other,
        }
    }

    #[test]
    fn a_network_is_used_by_each_thread_in_it() {
        let other = ("8", "net:[1]", OWNER);
        assert_eq!(usage(&[other, ("9", "net:[1]", HOST)]), Usage::Unused);
        let container = || Usage::Container("8".into());
        assert_eq!(usage(&[("8", ID, OWNER)]), container());
        assert_eq!(usage(&[other, ("8/task/9", ID, OWNER)]), container());
        // The first thread has ended.
        assert_eq!(
            usage(&[("8", "", OWNER), ("8/task/9", ID, OWNER)]),
            container()
        );
        assert_eq!(usage(&[("8", "", OWNER)]), Usage::Unused);
        assert_eq!(usage(&[other, ("8/task/9", ID, HOST)]), Usage::Host);
        assert_eq!(
            usage(&[("8", ID, OWNER), ("9", ID, HOST)]),
            Usage::Host,
            "a process of the host is in it"
        );
    }

    #[test]
    fn a_thread_of_the_owner_whose_network_is_unknown_may_be_in_it() {
        assert!(usage(&[("8", "unreadable", OWNER)]) != Usage::Unused);
        assert_eq!(usage(&[("8", "unreadable", HOST)]), Usage::Unused);
    }

    #[test]
    fn a_container_is_joined_by_the_owner_of_the_network_and_never_by_a_nested_user_namespace() {
        let nested = ["1", "9"].map(|pid| (pid, ID, "user:[3]"));
        let [before, after] = nested;
        assert_eq!(
            usage(&[before, ("8", ID, OWNER), after]),
            Usage::Container("8".into())
        );
        assert_eq!(usage(&nested), Usage::Host);
    }

    #[test]
    fn a_path_by_way_of_a_link_of_the_kernel_is_no_mount_of_a_network() {
        for path in ["/proc/self/ns/net", "/proc/self/root/proc/self/ns/net", "/"] {
            assert!(
                EngineNamespace::open(Path::new(path), Kind::Network).is_none(),
                "{path}"
            );
        }
    }
}
