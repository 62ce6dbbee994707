//! Everything that an emulator may look at.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::{Cgroup, Error, History, Host, Identity, Values};

/// What a view is computed from. The caller gathers it once per view.
///
/// What costs something to have at hand is there only where it was supplied: see [`Needs`].
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The machine.
    pub host: &'a Host,
    /// The configuration.
    pub settings: &'a Settings,
    /// CLOCK_BOOTTIME of the host at this moment.
    pub boottime: Duration,
    container: &'a Container,
    cgroup: bool,
    load: Option<Load>,
}

/// What a view is computed from beside the host and the identity of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// The container's cgroup: its limits, which whoever supplies them has to know to be current, and its figures.
    pub cgroup: bool,
    /// The container's load averages and threads, which somebody has to count.
    pub load: bool,
}

impl Needs {
    /// Neither the cgroup nor the load.
    pub const NOTHING: Needs = Needs {
        cgroup: false,
        load: false,
    };
    /// The cgroup.
    pub const CGROUP: Needs = Needs {
        cgroup: true,
        load: false,
    };
    /// The load.
    pub const LOAD: Needs = Needs {
        cgroup: false,
        load: true,
    };
    /// The cgroup and the load.
    pub const CGROUP_AND_LOAD: Needs = Needs {
        cgroup: true,
        load: true,
    };
}

impl<'a> Context<'a> {
    /// Returns a context for views of `container` at the time `boottime`, without its cgroup and its load.
    pub fn new(
        host: &'a Host,
        container: &'a Container,
        settings: &'a Settings,
        boottime: Duration,
    ) -> Context<'a> {
        Context {
            host,
            settings,
            boottime,
            container,
            cgroup: false,
            load: None,
        }
    }

    /// Supplies the container's cgroup.
    #[must_use]
    pub fn with_cgroup(self) -> Context<'a> {
        Context {
            cgroup: true,
            ..self
        }
    }

    /// Supplies the container's load.
    #[must_use]
    pub fn with_load(self, load: Load) -> Context<'a> {
        Context {
            load: Some(load),
            ..self
        }
    }

    /// Returns the context without what `needs` does not name.
    #[must_use]
    pub fn only(self, needs: Needs) -> Context<'a> {
        Context {
            cgroup: self.cgroup && needs.cgroup,
            load: self.load.filter(|_| needs.load),
            ..self
        }
    }

    /// Returns what tells the container from others.
    pub fn identity(&self) -> &'a Identity {
        &self.container.identity
    }

    /// Returns the counters that the container was shown last.
    pub fn history(&self) -> &'a History {
        &self.container.history
    }

    /// Returns what the container has written.
    pub fn tunables(&self) -> &'a Values {
        &self.container.tunables
    }

    /// Returns the container's cgroup.
    ///
    /// # Errors
    /// [`Error::Undeclared`] when the row of the view does not name [`Needs::cgroup`].
    pub fn cgroup(&self) -> Result<&'a Cgroup, Error> {
        match self.cgroup {
            true => Ok(&self.container.cgroup),
            false => Err(Error::Undeclared { what: "the cgroup" }),
        }
    }

    /// Returns the container's load averages and threads.
    ///
    /// # Errors
    /// [`Error::Undeclared`] when the row of the view does not name [`Needs::load`].
    pub fn load(&self) -> Result<&Load, Error> {
        self.load
            .as_ref()
            .ok_or(Error::Undeclared { what: "the load" })
    }

    /// T of the semantics: how long the container runs. With a time namespace of its own it is the
    /// kernel's boot time in it, so that uptime, stat and the processes' start times agree.
    pub fn age(&self) -> Duration {
        match self.identity().boottime_offset {
            None => self.boottime.saturating_sub(self.identity().start),
            Some(offset) => {
                let now = i128::try_from(self.boottime.as_nanos()).unwrap_or(i128::MAX);
                let shifted = now.saturating_add(offset).max(0);
                Duration::from_nanos(u64::try_from(shifted).unwrap_or(u64::MAX))
            }
        }
    }
}

/// The configuration, as far as it changes what views say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How the container's CPUs are numbered.
    pub cpu_ids: CpuIds,
    /// Whether MemFree and MemAvailable are never more than the machine has left.
    pub host_clamp: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            cpu_ids: CpuIds::Physical,
            host_clamp: true,
        }
    }
}

/// How CPUs are numbered, in every view alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CpuIds {
    /// As the kernel numbers them, which sched_getaffinity(2) and getcpu(2) confirm.
    #[default]
    Physical,
    /// From 0 without holes, for programs that insist on it.
    Dense,
}

/// The load of the container: its averages and its threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Load averages over 1, 5 and 15 minutes, as fixed-point numbers with 11 fractional bits
    /// (FSHIFT of include/linux/sched/loadavg.h).
    pub avenrun: [u64; 3],
    /// Its threads when they were last counted.
    pub threads: Threads,
}

/// The threads of a container at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threads {
    /// Threads in state R.
    pub running: u32,
    /// Threads in state D.
    pub uninterruptible: u32,
    /// All threads.
    pub total: u32,
    /// The highest pid among them, as their own pid namespace numbers them.
    pub last_pid: u32,
}

impl Threads {
    /// What the load averages count: runnable and uninterruptible threads.
    pub fn active(&self) -> u64 {
        u64::from(self.running).saturating_add(u64::from(self.uninterruptible))
    }
}
