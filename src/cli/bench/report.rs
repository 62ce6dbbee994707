//! What the bench has found. Times are in microseconds.

use serde::Serialize;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Of `eci-fs`.
    pub(super) version: &'static str,
    pub(super) quick: bool,
    pub(super) kernel: String,
    pub(super) cpus: usize,
    pub(super) memory_mib: u64,
    pub(super) views: Vec<View>,
    pub(super) tunables: Vec<Tunable>,
    pub(super) threads: Vec<Threads>,
    pub(super) cpu: Vec<Cpu>,
    pub(super) scale: Option<Scale>,
    /// Views that could not be measured, and why.
    pub(super) skipped: Vec<(String, String)>,
}

/// One way to read one view.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) path: String,
    pub(super) cached: bool,
    pub(super) ways: Vec<Compared>,
}

/// A tunable, read and written.
#[derive(Debug, Serialize)]
pub(super) struct Tunable {
    pub(super) path: String,
    pub(super) read: Compared,
    /// The kernel's is [`Self::written`], in a namespace of its own.
    pub(super) write: Compared,
    pub(super) written: &'static str,
    /// What both shall be of the kernel's at most.
    pub(super) goal: f64,
}

/// The same work done by all subjects in turns.
#[derive(Debug, Serialize)]
pub(super) struct Compared {
    /// "open", "held", "quiet" or "write".
    pub(super) way: &'static str,
    pub(super) kernel: Times,
    pub(super) ours: Times,
    pub(super) lxcfs: Option<Times>,
    /// Ours / the kernel's: the median over the rounds.
    pub(super) ours_to_kernel: f64,
    /// lxcfs / ours.
    pub(super) lxcfs_to_ours: Option<f64>,
}

/// Medians over the rounds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Times {
    pub(super) p50_usec: f64,
    pub(super) p99_usec: f64,
    pub(super) reads_per_sec: f64,
}

/// A view read by several threads.
#[derive(Debug, Serialize)]
pub(super) struct Threads {
    pub(super) path: String,
    pub(super) threads: usize,
    pub(super) compared: Compared,
}

/// What reads cost the server.
#[derive(Debug, Serialize)]
pub(super) struct Cpu {
    pub(super) path: String,
    pub(super) cached: bool,
    pub(super) way: &'static str,
    pub(super) reads: u64,
    /// CPU seconds of the server per million reads.
    pub(super) sec_per_million: f64,
}

/// What both programs take when each view of each container has been read.
#[derive(Debug, Serialize)]
pub(super) struct AllRead {
    pub(super) containers: usize,
    /// Of one container.
    pub(super) views: usize,
    pub(super) daemon_kib: u64,
    pub(super) server_kib: u64,
    pub(super) server_descriptors: u64,
}

/// A daemon with many containers.
#[derive(Debug, Serialize)]
pub(super) struct Scale {
    /// Both programs after each view of each container was read.
    pub(super) all_read: AllRead,
    pub(super) path: String,
    pub(super) steps: Vec<Step>,
    /// Wake-ups of both programs in a second in which nobody reads, with all containers attached.
    pub(super) idle_wake_ups_per_sec: f64,
    pub(super) idle_sec: f64,
}

/// With one number of containers.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) containers: usize,
    pub(super) grafts: usize,
    pub(super) attach_p50_usec: f64,
    pub(super) attach_p99_usec: f64,
    pub(super) daemon_kib: u64,
    pub(super) server_kib: u64,
    pub(super) server_descriptors: u64,
    pub(super) open: Compared,
    pub(super) quiet: Compared,
}

impl Report {
    pub(super) fn begin(quick: bool) -> Self {
        let kernel = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let info = rustix::system::sysinfo();
        let memory_mib = (info.totalram * u64::from(info.mem_unit)) >> 20;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            quick,
            kernel,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib,
            views: Vec::new(),
            tunables: Vec::new(),
            threads: Vec::new(),
            cpu: Vec::new(),
            scale: None,
            skipped: Vec::new(),
        }
    }
}
