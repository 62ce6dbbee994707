//! The ipc and uts namespaces that an engine made before the container and keeps as mounts, as CRI-O does.
//!
//! They belong to the host's user namespace. So new ones are made that belong to the container's, and are mounted where
//! the engine keeps its own. They get the host name and the settings of the engine's.

use std::os::fd::AsFd;

use eci_fs_mountd::container::mountinfo::Mount;
use eci_fs_mountd::faults;
use eci_fs_protocol::error::{Error, Kind as ErrorKind, Result};
use rustix::process::Uid;
use rustix::system::{setdomainname, sethostname, uname};
use rustix::thread::set_thread_res_uid;

use super::owned_namespace::{self, Kind};
use super::policy::{EngineNamespace, Starts};
use super::sysctls::{OF_IPC, Sysctls};
use super::{Range, namespace, place};

/// The content of a namespace that the next one gets.
enum Contents {
    Ipc(Sysctls),
    Uts { host: Vec<u8>, domain: Vec<u8> },
}

impl Contents {
    /// Reads the content of the namespace of this thread.
    fn read(kind: Kind) -> Result<Self> {
        if kind == Kind::Ipc {
            return Sysctls::read(&OF_IPC).map(Self::Ipc);
        }
        let names = uname();
        Ok(Self::Uts {
            host: names.nodename().to_bytes().to_vec(),
            domain: names.domainname().to_bytes().to_vec(),
        })
    }

    /// Writes it to the namespace of this thread, which belongs to the user namespace whose root is `owner`.
    fn write(&self, owner: u32) -> Result<()> {
        match self {
            Self::Ipc(sysctls) => match sysctls.write() {
                // Since Linux 6.8 the settings belong to that root. The thread ends after this.
                Err(error) if error.kind == ErrorKind::Denied => {
                    set_thread_res_uid(None, Uid::from_raw(owner), None)
                        .map_err(|e| Error::io("become", "the owner of a namespace", e))?;
                    sysctls.write()
                }
                written => written,
            },
            Self::Uts { host, domain } => sethostname(host)
                .and_then(|()| setdomainname(domain))
                .map_err(|e| Error::io("set", "the host name", e)),
        }
    }
}

/// Puts a namespace that belongs to the user namespace of `range` in the place of the one that an engine made. `mounts` are
/// those of this process. The new one is added to `starts`.
///
/// # Errors
/// The kernel's. The engine's namespace stays as it was.
pub(super) fn own(
    pinned: &EngineNamespace,
    starts: &Starts,
    range: &Range,
    mounts: &[Mount],
) -> Result<()> {
    place::check(pinned.path(), mounts)?;
    let kind = pinned.kind();
    let contents = namespace::inside(pinned.namespace(), kind, || Contents::read(kind))?;
    let ours = owned_namespace::make(range.user_namespace.as_fd(), kind, |_| Ok(()))?;
    namespace::inside(&ours, kind, || contents.write(range.first_id))?;
    faults::kill_at("namespace-made");
    pinned.check()?;
    starts.add(&ours)?;
    place::replace(pinned.path(), &ours)
}
