//! Tunables: files below /proc/sys and /sys that a container can set for itself.
//!
//! A tunable is one row of the table of its directory, for example in `src/proc/sys/vm.rs`. Validation, grafts,
//! listings and documents come from the row. Until a container writes to it, a tunable shows the host's value.

mod buckets;
mod handler;
mod number;
mod string;

use std::sync::Arc;

use crate::cgroup::pids;
use crate::text::put;
use crate::{Context, Error, Facts, Host, Identity, Needs, Pace, Values};

pub use crate::host::Release;
pub use handler::{Handler, Written};

/// The row of one tunable.
#[derive(Debug)]
pub struct Tunable {
    facts: Facts,
    /// The kernel's handler, which parses writes.
    pub handler: Handler,
    /// The first value of a container, and the effect of a write.
    pub policy: Policy,
    /// The capability that the kernel's handler requires of a writer, beside being root.
    pub capability: Option<Capability>,
    /// The kind of namespaces for each of which the kernel has a value of its own, and since which version. Then
    /// there is no graft. The version is for documents: the daemon finds out what this kernel does.
    pub namespaced: Option<(Namespace, Release)>,
    /// True if only those containers have the tunable whose own network namespace lacks the file, or shows the host's
    /// value and lets nobody set it.
    pub in_network: bool,
    /// The version before which kernels have another handler, and that handler.
    older: Option<(Release, Handler)>,
    /// True if the highest value is final: nothing lower can be written then.
    pub highest_is_final: bool,
    /// The id of the tunable that says the same in another unit. A write of one makes the other 0.
    pub clears: Option<u16>,
    /// Computes a higher least value, which depends on the host.
    least: Option<Least>,
    /// Computes another most, which depends on the host.
    most: Option<Most>,
}

/// The value that a tunable gets when the other of a pair is written.
const ZERO: &[u8] = b"0\n";

/// A function that computes the least value.
type Least = fn(&Context<'_>) -> Result<i32, Error>;

/// A function that computes the most.
type Most = fn(&Host) -> u64;

/// The first value of a container, and the effect of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The value begins with the host's. A write has no effect on the host.
    Private,
    /// The same as private, but the value begins with no more than the container's own limit of threads.
    LimitedByPids,
    /// The same as private, but a value above the host's can raise the host's.
    Raise(HostSysctl),
    /// The value never changes, and is the same for all containers.
    Constant(&'static str),
}

/// A sysctl of the host that the daemon can raise to the value that a container sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostSysctl {
    /// /proc/sys/fs/file-max.
    FileMax,
    /// /proc/sys/fs/nr_open.
    NrOpen,
    /// /proc/sys/net/netfilter/nf_conntrack_max.
    ConntrackMax,
    /// /sys/module/nf_conntrack/parameters/hashsize.
    ConntrackHashsize,
}

/// A capability in the container's user namespace, by its number in include/uapi/linux/capability.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum Capability {
    NetAdmin = 12,
    SysRawio = 17,
    SysPtrace = 19,
    SysAdmin = 21,
}

impl std::fmt::Display for Capability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::SysRawio => "CAP_SYS_RAWIO",
            Capability::SysPtrace => "CAP_SYS_PTRACE",
            Capability::SysAdmin => "CAP_SYS_ADMIN",
        })
    }
}

/// A kind of namespace that can be a container's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// pid_namespaces(7).
    Pid,
}

impl Tunable {
    /// Returns the row of a private tunable, which everybody may read and root may write. `id` is a free id. With the
    /// id 0 the test of the registry fails and names the next free one.
    pub const fn new(id: u16, path: &'static str, handler: Handler) -> Tunable {
        Tunable {
            facts: Facts {
                id,
                path,
                mode: 0o644,
                pace: Pace::Static,
                source_v1: "the host's, until the container writes its own",
                source_v2: "the host's, until the container writes its own",
                invented: "",
                needs: Needs::NOTHING,
                pressure: None,
            },
            handler,
            policy: Policy::Private,
            capability: None,
            namespaced: None,
            in_network: false,
            older: None,
            highest_is_final: false,
            clears: None,
            least: None,
            most: None,
        }
    }

    /// Returns the row of a tunable that has the same text for all containers, and that nobody can write.
    pub const fn constant(id: u16, path: &'static str, text: &'static str) -> Tunable {
        let mut this = Tunable::new(id, path, Handler::ReadOnly);
        this.facts.mode = 0o444;
        this.policy = Policy::Constant(text);
        this
    }

    /// Sets another policy than private.
    #[must_use]
    pub const fn policy(mut self, policy: Policy) -> Tunable {
        self.policy = policy;
        if matches!(policy, Policy::LimitedByPids) {
            self.facts.needs = Needs::CGROUP;
        }
        self
    }

    /// Sets other permission bits, for hosts where those of the kernel's file are not known.
    #[must_use]
    pub const fn mode(mut self, mode: u16) -> Tunable {
        self.facts.mode = mode;
        self
    }

    /// Declares that the kernel's handler requires a capability of a writer.
    #[must_use]
    pub const fn capability(mut self, capability: Capability) -> Tunable {
        self.capability = Some(capability);
        self
    }

    /// Declares that the kernel has a value of its own for each namespace of a kind, from a version on.
    #[must_use]
    pub const fn namespaced_by_kernel(mut self, namespace: Namespace, since: Release) -> Tunable {
        self.namespaced = Some((namespace, since));
        self
    }

    /// Declares that a network namespace lacks the file. See [`Tunable::in_network`].
    #[must_use]
    pub const fn in_network(mut self) -> Tunable {
        self.in_network = true;
        self
    }

    /// Sets the handler of kernels before a version.
    #[must_use]
    pub const fn before(mut self, release: Release, handler: Handler) -> Tunable {
        self.older = Some((release, handler));
        self
    }

    /// Declares that the highest value is final.
    #[must_use]
    pub const fn highest_is_final(mut self) -> Tunable {
        self.highest_is_final = true;
        self
    }

    /// Declares that a write makes the tunable with the id `other` 0.
    #[must_use]
    pub const fn clears(mut self, other: u16) -> Tunable {
        self.clears = Some(other);
        self
    }

    /// Sets a least value that depends on the host.
    #[must_use]
    pub const fn at_least(mut self, least: Least) -> Tunable {
        self.least = Some(least);
        self
    }

    /// Sets a most that depends on the host.
    #[must_use]
    pub const fn at_most(mut self, most: Most) -> Tunable {
        self.most = Some(most);
        self
    }

    /// Returns the id of the file.
    pub const fn id(&self) -> u16 {
        self.facts.id
    }

    /// Returns what is known about the file without looking at a container.
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Returns whether its value changes with the limits of the container.
    pub fn follows_limits(&self) -> bool {
        self.facts.needs.cgroup
    }

    /// Returns what a write needs. Once a value was written, it does not depend on anything else.
    pub fn needs_of_write(&self, values: &Values) -> Needs {
        match values.get(self.facts.id) {
            Some(_) => Needs::NOTHING,
            None => self.facts.needs,
        }
    }

    /// Returns the sysctl of the host that a container can raise with this tunable.
    pub fn raised(&self) -> Option<HostSysctl> {
        match self.policy {
            Policy::Raise(sysctl) => Some(sysctl),
            _ => None,
        }
    }

    /// Returns the absolute path of the virtual file.
    pub fn path(&self) -> &'static str {
        self.facts.path
    }

    /// Returns the value before the container has written any.
    fn first(&self, cx: &Context<'_>) -> Result<Vec<u8>, Error> {
        if let Policy::Constant(text) = self.policy {
            return Ok(format!("{text}\n").into());
        }
        if !self.is_readable() {
            return Ok(Vec::new());
        }
        let text = cx.host.read(self.facts.path)?;
        if self.policy == Policy::LimitedByPids {
            let value = crate::text::parse_u64(&text)
                .ok_or_else(|| Error::malformed(self.facts.path, "not a number"))?;
            let own = pids::limit(cx.cgroup()?)?.at_most(value);
            return Ok(format!("{own}\n").into());
        }
        Ok(text.to_vec())
    }

    /// Returns whether anybody may read the file.
    fn is_readable(&self) -> bool {
        self.facts.mode & 0o444 != 0
    }

    /// Writes `bytes` at `offset`, as the kernel's handler does. The caller has checked the permissions of the
    /// writer.
    ///
    /// `save` gets each new value, with the id of its tunable, before any other thread can write.
    ///
    /// # Errors
    /// Fails when the host's value, with which the tunable begins, cannot be read.
    pub fn write(
        &self,
        cx: &Context<'_>,
        offset: u64,
        bytes: &[u8],
        mut save: impl FnMut(u16, &[u8]),
    ) -> Result<Written, Error> {
        // A container with a value of its own does not depend on the host's.
        let first = match cx.tunables().get(self.facts.id) {
            Some(_) => Vec::new(),
            None => self.first(cx)?,
        };
        let release = cx.host.release()?;
        let handler = match self.older {
            Some((until, older)) if release < until => older,
            _ => self.handler,
        };
        let handler = match self.least {
            Some(least) => handler.at_least(least(cx)?),
            None => handler,
        };
        let handler = match self.most {
            Some(most) => handler.at_most(most(cx.host)),
            None => handler,
        };
        let written = cx.tunables().update(self.facts.id, |own| {
            let present = own.unwrap_or(&first);
            let handler = match self.highest_is_final && handler.is_highest(present) {
                true => handler.only_highest(),
                false => handler,
            };
            let written = handler.write(release, present, offset, bytes);
            let own = written
                .value
                .as_deref()
                .map(|value| (self.facts.id, Arc::from(value)));
            let cleared = self.cleared_by(&written).map(|id| (id, Arc::from(ZERO)));
            let values: [Option<(u16, Arc<[u8]>)>; 2] = [own, cleared];
            for (id, value) in values.iter().flatten() {
                save(*id, value);
            }
            (values, written)
        });
        Ok(written)
    }

    /// Returns the id of the tunable that a write has made 0.
    pub fn cleared_by(&self, written: &Written) -> Option<u16> {
        let is_set = written.value.is_some() && written.answer.is_ok();
        self.clears.filter(|_| is_set)
    }

    /// Returns the number that the container's value is, if it is one.
    ///
    /// # Errors
    /// Fails when the host's value, with which the tunable begins, cannot be read.
    pub(crate) fn number(&self, cx: &Context<'_>) -> Result<Option<u64>, Error> {
        Ok(match cx.tunables().get(self.facts.id) {
            Some(own) => crate::text::parse_u64(&own),
            None => cx
                .host
                .read_optional(self.facts.path)?
                .as_deref()
                .and_then(crate::text::parse_u64),
        })
    }

    /// Appends the container's value, or the first value.
    pub(crate) fn read(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        // A file that can only be written has no text.
        if !self.is_readable() {
            return Ok(());
        }
        match cx.tunables().get(self.facts.id) {
            Some(own) => out.extend_from_slice(&own),
            None => out.extend_from_slice(&self.first(cx)?),
        }
        Ok(())
    }

    /// Returns whether the container has the emulated file. It does not if the kernel has a value for it.
    pub(crate) fn is_emulated(&self, identity: &Identity) -> bool {
        let is_kept = self
            .namespaced
            .is_some_and(|(namespace, _)| match namespace {
                Namespace::Pid => identity.pid_max_is_own,
            });
        let lacked = || match &identity.network {
            Some(network) => !network.own_tunables.contains(&self.facts.id),
            None => false,
        };
        !is_kept && (!self.in_network || lacked())
    }

    /// Returns the permission bits of the kernel's file.
    pub(crate) fn mode_on(&self, host: &Host) -> u16 {
        match self.policy {
            Policy::Constant(_) => self.facts.mode,
            _ => host.mode(self.facts.path).unwrap_or(self.facts.mode),
        }
    }
}

/// Appends numbers as the kernel prints a vector, with tabs between them and a newline at the end.
fn put_numbers<T: std::fmt::Display>(out: &mut Vec<u8>, numbers: &[T]) {
    for (index, number) in numbers.iter().enumerate() {
        let tab = if index > 0 { "\t" } else { "" };
        put(out, format_args!("{tab}{number}"));
    }
    out.push(b'\n');
}
