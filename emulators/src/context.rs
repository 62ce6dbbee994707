//! Everything that an emulator may look at.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Container, Host};

/// What a view is computed from. The caller gathers it once per view.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The machine.
    pub host: &'a Host,
    /// The container whose view it is.
    pub container: &'a Container,
    /// The configuration.
    pub settings: &'a Settings,
    /// CLOCK_BOOTTIME of the host at this moment.
    pub boottime: Duration,
    /// What the sampler knows of the container's load.
    pub load: Load,
}

impl Context<'_> {
    /// T of the semantics: how long the container runs. With a time namespace of its own it is the
    /// kernel's boot time in it, so that uptime, stat and the processes' start times agree.
    pub fn age(&self) -> Duration {
        match self.container.identity.boottime_offset {
            None => self.boottime.saturating_sub(self.container.identity.start),
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
