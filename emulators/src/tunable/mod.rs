//! Tunables: files below /proc/sys whose values a container has for itself.
//!
//! Each is one row of the table of its directory (`src/proc/sys`), and the row is all there is of it: validation,
//! grafts, listings and documents come from it. Until a container writes one, it shows what the machine has.

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

/// One tunable.
#[derive(Debug)]
pub struct Tunable {
    facts: Facts,
    /// How the kernel reads and writes it.
    pub handler: Handler,
    /// What a container's value begins with, and what it does.
    pub policy: Policy,
    /// What the kernel's handler asks of who writes, beside being root.
    pub capability: Option<Capability>,
    /// The namespace for each of which the kernel keeps a value itself, and since when: that is for documents, what
    /// counts is what this kernel was seen to do for the container. There is no graft then.
    pub namespaced: Option<(Namespace, Release)>,
    /// Whether it counts only for a container with a network namespace of its own that lacks it, or shows the machine's
    /// and lets nobody set it.
    pub in_network: bool,
    /// The handler that older kernels have, before a version.
    older: Option<(Release, Handler)>,
    /// Whether nothing lower can be written once the value is the highest.
    pub highest_is_final: bool,
    /// A higher least value that depends on the machine.
    least: Option<Least>,
    /// Another most that depends on the machine.
    most: Option<Most>,
}

/// Computes a least value.
type Least = fn(&Context<'_>) -> Result<i32, Error>;

/// Computes the most.
type Most = fn(&Host) -> u64;

/// What a container's value begins with, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Begins with the machine's; has no effect on the machine.
    Private,
    /// The same, but begins with no more than the container's own limit on threads.
    LimitedByPids,
    /// As private; a value above the machine's could raise that.
    Raise(HostSysctl),
    /// Never changes, and is the same for all.
    Constant(&'static str),
}

/// A tunable of the host that the daemon can raise to what a container sets.
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
    /// A private one that is read by all and written by root. Ids are those of emulators.
    pub const fn new(id: u16, path: &'static str, handler: Handler) -> Tunable {
        Tunable {
            facts: Facts {
                id,
                path,
                mode: 0o644,
                pace: Pace::Static,
                source_v1: "the machine's, until the container writes its own",
                source_v2: "the machine's, until the container writes its own",
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
            least: None,
            most: None,
        }
    }

    /// One that says the same to everybody, and that nobody can write.
    pub const fn constant(id: u16, path: &'static str, text: &'static str) -> Tunable {
        let mut this = Tunable::new(id, path, Handler::ReadOnly);
        this.facts.mode = 0o444;
        this.policy = Policy::Constant(text);
        this
    }

    /// With another policy than private.
    #[must_use]
    pub const fn policy(mut self, policy: Policy) -> Tunable {
        self.policy = policy;
        if matches!(policy, Policy::LimitedByPids) {
            self.facts.needs = Needs::CGROUP;
        }
        self
    }

    /// With other permission bits, where those of the kernel's file are not known.
    #[must_use]
    pub const fn mode(mut self, mode: u16) -> Tunable {
        self.facts.mode = mode;
        self
    }

    /// Whose handler wants a capability of who writes.
    #[must_use]
    pub const fn capability(mut self, capability: Capability) -> Tunable {
        self.capability = Some(capability);
        self
    }

    /// That the kernel keeps for each namespace of a kind, from a version on.
    #[must_use]
    pub const fn namespaced_by_kernel(mut self, namespace: Namespace, since: Release) -> Tunable {
        self.namespaced = Some((namespace, since));
        self
    }

    /// That a network namespace lacks.
    #[must_use]
    pub const fn in_network(mut self) -> Tunable {
        self.in_network = true;
        self
    }

    /// With another handler before a version.
    #[must_use]
    pub const fn before(mut self, release: Release, handler: Handler) -> Tunable {
        self.older = Some((release, handler));
        self
    }

    /// Whose highest value is final.
    #[must_use]
    pub const fn highest_is_final(mut self) -> Tunable {
        self.highest_is_final = true;
        self
    }

    /// With a least value that depends on the machine.
    #[must_use]
    pub const fn at_least(mut self, least: Least) -> Tunable {
        self.least = Some(least);
        self
    }

    /// With a most that depends on the machine.
    #[must_use]
    pub const fn at_most(mut self, most: Most) -> Tunable {
        self.most = Some(most);
        self
    }

    /// Its number.
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

    /// Returns what a write is computed from: a value that was written once depends on nothing else any more.
    pub fn needs_of_write(&self, values: &Values) -> Needs {
        match values.get(self.facts.id) {
            Some(_) => Needs::NOTHING,
            None => self.facts.needs,
        }
    }

    /// Returns which tunable of the host a container can raise by it.
    pub fn raised(&self) -> Option<HostSysctl> {
        match self.policy {
            Policy::Raise(sysctl) => Some(sysctl),
            _ => None,
        }
    }

    /// The absolute path of the virtual file.
    pub fn path(&self) -> &'static str {
        self.facts.path
    }

    /// What it says before the container has written anything.
    fn first(&self, cx: &Context<'_>) -> Result<Vec<u8>, Error> {
        if let Policy::Constant(text) = self.policy {
            return Ok(format!("{text}\n").into());
        }
        if !self.is_readable() {
            return Ok(Vec::new());
        }
        let machine = cx.host.read(self.facts.path)?;
        if self.policy == Policy::LimitedByPids {
            let machine = crate::text::parse_u64(&machine)
                .ok_or_else(|| Error::malformed(self.facts.path, "not a number"))?;
            let own = pids::limit(cx.cgroup()?)?.at_most(machine);
            return Ok(format!("{own}\n").into());
        }
        Ok(machine.to_vec())
    }

    /// Whether anybody may read it.
    fn is_readable(&self) -> bool {
        self.facts.mode & 0o444 != 0
    }

    /// Writes what a container wrote at `offset`, as the kernel's handler does; who it was has been judged.
    ///
    /// The value that is the container's afterwards is handed to `save` before anybody else can write.
    ///
    /// # Errors
    /// When the machine's value, from which it begins, cannot be read.
    pub fn write(
        &self,
        cx: &Context<'_>,
        offset: u64,
        bytes: &[u8],
        save: impl FnOnce(&[u8]),
    ) -> Result<Written, Error> {
        // Once it has a value of its own, the machine's counts no more.
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
            if let Some(value) = &written.value {
                save(value);
            }
            (written.value.as_deref().map(Arc::from), written)
        });
        Ok(written)
    }

    /// Appends the container's value, or what it begins with.
    pub(crate) fn read(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        // What only can be written has nothing to say.
        if !self.is_readable() {
            return Ok(());
        }
        match cx.tunables().get(self.facts.id) {
            Some(own) => out.extend_from_slice(&own),
            None => out.extend_from_slice(&self.first(cx)?),
        }
        Ok(())
    }

    /// Returns whether a container is to be shown the emulated file: the kernel does not keep one for it itself.
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

/// Appends numbers as the kernel prints a vector: tabs between them, a newline at the end.
fn put_numbers<T: std::fmt::Display>(out: &mut Vec<u8>, numbers: &[T]) {
    for (index, number) in numbers.iter().enumerate() {
        let tab = if index > 0 { "\t" } else { "" };
        put(out, format_args!("{tab}{number}"));
    }
    out.push(b'\n');
}
