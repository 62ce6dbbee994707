//! Tunables: files below /proc/sys whose values a container has for itself.
//!
//! Each is one row of the table of its directory (`src/proc/sys`), and the row is all there is of it: validation,
//! grafts, listings and documents come from it. Until a container writes one, it shows what the machine has.

mod buckets;
mod handler;
mod number;
mod release;
mod string;
mod values;

use crate::cgroup::pids;
use crate::text::put;
use crate::{Context, Emulator, Error, Facts, Host, Pace};

pub use handler::{Handler, Written};
pub use release::Release;
pub use values::Values;

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
    pub kept: Option<(Namespace, Release)>,
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
    Raise,
    /// Never changes, and is the same for all.
    Constant(&'static str),
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
            },
            handler,
            policy: Policy::Private,
            capability: None,
            kept: None,
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
    pub const fn kept_by_kernel(mut self, namespace: Namespace, since: Release) -> Tunable {
        self.kept = Some((namespace, since));
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
    pub fn id(&self) -> u16 {
        self.facts.id
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
            let own = pids::limit(&cx.container.cgroup)?.at_most(machine);
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
        let first = match cx.container.tunables.get(self.facts.id) {
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
        let written = cx.container.tunables.update(self.facts.id, |own| {
            let present = own.unwrap_or(&first);
            let handler = match self.highest_is_final && handler.is_highest(present) {
                true => handler.only_highest(),
                false => handler,
            };
            let written = handler.write(release, present, offset, bytes);
            if let Some(value) = &written.value {
                save(value);
            }
            written
        });
        Ok(written)
    }
}

impl Emulator for Tunable {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        // What only can be written has nothing to say.
        if !self.is_readable() {
            return Ok(());
        }
        match cx.container.tunables.get(self.facts.id) {
            Some(own) => out.extend_from_slice(&own),
            None => out.extend_from_slice(&self.first(cx)?),
        }
        Ok(())
    }

    /// It is not padded: what is written here is on the live connection.
    fn bound(&self, _cx: &Context<'_>) -> Result<Option<usize>, Error> {
        Ok(None)
    }

    /// The kernel has it, and does not keep one for this container itself.
    fn exists(&self, cx: &Context<'_>) -> bool {
        let kept = self.kept.is_some_and(|(namespace, _)| match namespace {
            Namespace::Pid => cx.container.identity.pid_max_is_own,
        });
        let lacked = || match &cx.container.identity.network {
            Some(network) => !network.kept.contains(&self.facts.id),
            None => false,
        };
        !kept && (!self.in_network || lacked()) && cx.host.exists(self.facts.path)
    }

    /// The kernel's, which differ from version to version.
    fn mode(&self, cx: &Context<'_>) -> u16 {
        match self.policy {
            Policy::Constant(_) => self.facts.mode,
            _ => cx.host.mode(self.facts.path).unwrap_or(self.facts.mode),
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
