//! The input of emulators.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::{Cgroup, Error, History, Host, Identity, Values};

/// The input from which one view is computed. The caller collects it once per view.
///
/// The cgroup and the load cost something, so they are present only if the caller supplies them. See [`Needs`].
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The host.
    pub host: &'a Host,
    /// The configuration.
    pub settings: &'a Settings,
    /// CLOCK_BOOTTIME of the host at this moment.
    pub boottime: Duration,
    container: &'a Container,
    cgroup: bool,
    load: Option<Load>,
}

/// The parts of a [`Context`] that a view needs beside the host and the identity of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// The container's cgroup: limits and usage. The caller makes sure that cached limits are current.
    pub cgroup: bool,
    /// The container's load averages and threads. The caller has to count them.
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

    /// Returns the identity of the container.
    pub fn identity(&self) -> &'a Identity {
        &self.container.identity
    }

    /// Returns whether the container's programs can measure what runs on any CPU of the host, with perf and eBPF.
    pub fn can_measure_cpus(&self) -> bool {
        self.container.can_measure_cpus.load(Ordering::Relaxed)
    }

    /// Returns the effect of a CPU quota on the container.
    pub fn cpu_quota(&self) -> CpuQuota {
        match self.settings.cpu_quota {
            Some(chosen) => chosen,
            None if self.can_measure_cpus() => CpuQuota::Ignore,
            None => CpuQuota::Online,
        }
    }

    /// Returns the counters that the container was shown last.
    pub fn history(&self) -> &'a History {
        &self.container.history
    }

    /// Returns the values that the container has written to tunables.
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

    /// Returns the age of the container, which docs/semantics.md calls T. In a time namespace of its own the age is
    /// the kernel's boot time there, so uptime, stat and the start times of processes agree.
    pub fn age(&self) -> Duration {
        self.identity().age(self.boottime)
    }
}

/// The part of the configuration that changes the text of views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The numbering of the container's CPUs.
    pub cpu_ids: CpuIds,
    /// The effect of a CPU quota. Without one, a container that can measure CPUs has [`CpuQuota::Ignore`], and all
    /// others have [`CpuQuota::Online`].
    pub cpu_quota: Option<CpuQuota>,
    /// True if MemFree and MemAvailable are limited to what the host has left.
    pub host_clamp: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            cpu_ids: CpuIds::Physical,
            cpu_quota: None,
            host_clamp: true,
        }
    }
}

/// The numbering of CPUs. It is the same in all views.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CpuIds {
    /// The kernel's numbers, which sched_getaffinity(2) and getcpu(2) return too.
    #[default]
    Physical,
    /// Numbers from 0 without holes, for programs that need that.
    Dense,
}

/// The effect of a CPU quota on the CPUs that are online for a container. It is the same in all views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuQuota {
    /// As many CPUs are online as the quota amounts to.
    Online,
    /// All CPUs that the container may run on are online.
    Ignore,
}

/// The load of the container: its averages and its threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Load averages over 1, 5 and 15 minutes, as fixed-point numbers with 11 fractional bits
    /// (FSHIFT of include/linux/sched/loadavg.h).
    pub avenrun: [u64; 3],
    /// The threads of the container at the last count.
    pub threads: Threads,
}

/// The threads of a container at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threads {
    /// Threads in state R, without the one that reads.
    pub running: u32,
    /// Threads in state D.
    pub uninterruptible: u32,
    /// All threads.
    pub total: u32,
    /// The highest pid among them, in their own pid namespace.
    pub last_pid: u32,
}

impl Threads {
    /// Returns the number of threads that the load averages count: those that are runnable or uninterruptible.
    pub fn active(&self) -> u64 {
        u64::from(self.running).saturating_add(u64::from(self.uninterruptible))
    }

    /// Returns the threads as a reader sees them. The reader itself runs, as it does when it reads the kernel's file;
    /// it was asleep while they were counted, because it waited for the answer. There is always a thread, and a pid 1.
    pub(crate) fn with_reader(self) -> Threads {
        let total = self.total.max(1);
        Threads {
            running: self.running.saturating_add(1).min(total),
            total,
            last_pid: self.last_pid.max(1),
            ..self
        }
    }
}
