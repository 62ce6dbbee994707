//! The results of the bench. Times are in microseconds.

use serde::Serialize;

/// All results.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The version of `eci-fs`.
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
    /// The views that could not be measured, each with the reason.
    pub(super) skipped: Vec<(String, String)>,
}

/// The times of one view.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) path: String,
    pub(super) cached: bool,
    pub(super) ways: Vec<Compared>,
}

/// The times of one tunable that is read and written.
#[derive(Debug, Serialize)]
pub(super) struct Tunable {
    pub(super) path: String,
    pub(super) read: Compared,
    /// The kernel's time is that of [`Self::written`], in its own namespace.
    pub(super) write: Compared,
    pub(super) written: &'static str,
    /// The goal for both ratios: at most this multiple of the kernel's time.
    pub(super) goal: f64,
}

/// The times of the same work by all subjects, which take turns.
#[derive(Debug, Serialize)]
pub(super) struct Compared {
    /// The way to read: "open", "held", "quiet" or "write".
    pub(super) way: &'static str,
    pub(super) kernel: Times,
    pub(super) ours: Times,
    pub(super) lxcfs: Option<Times>,
    /// The time of eci-fs divided by the kernel's: the median over the rounds.
    pub(super) ours_to_kernel: f64,
    /// The time of lxcfs divided by that of eci-fs.
    pub(super) lxcfs_to_ours: Option<f64>,
}

/// The medians over the rounds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Times {
    pub(super) p50_usec: f64,
    pub(super) p99_usec: f64,
    pub(super) reads_per_sec: f64,
}

/// The times of a view that several threads read.
#[derive(Debug, Serialize)]
pub(super) struct Threads {
    pub(super) path: String,
    pub(super) threads: usize,
    pub(super) compared: Compared,
}

/// The costs of reads for the server.
#[derive(Debug, Serialize)]
pub(super) struct Cpu {
    pub(super) path: String,
    pub(super) cached: bool,
    pub(super) way: &'static str,
    pub(super) reads: u64,
    /// The CPU seconds of the server for a million reads.
    pub(super) sec_per_million: f64,
}

/// The memory of both programs when each view of each container has been read.
#[derive(Debug, Serialize)]
pub(super) struct AllRead {
    pub(super) containers: usize,
    /// The number of views of one container.
    pub(super) views: usize,
    pub(super) daemon_kib: u64,
    pub(super) server_kib: u64,
    pub(super) server_descriptors: u64,
}

/// The costs of a daemon with many containers.
#[derive(Debug, Serialize)]
pub(super) struct Scale {
    /// The memory of both programs when each view of each container has been read.
    pub(super) all_read: AllRead,
    pub(super) path: String,
    pub(super) steps: Vec<Step>,
    /// The wake-ups of both programs in a second without reads, with all containers attached.
    pub(super) idle_wake_ups_per_sec: f64,
    pub(super) idle_sec: f64,
}

/// The costs with one number of containers.
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
