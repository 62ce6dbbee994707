//! Virtual machines with other kernels, for what the kernel of this machine cannot show: pure
//! cgroup v2, older releases, swap. They run under emulation, so no hardware support is needed; a
//! boot takes about five seconds.
//!
//! ```no_run
//! use xtask::vm::{Kernel, Vm};
//! # fn main() -> anyhow::Result<()> {
//! let outcome = Vm::new(Kernel::V6_1).file("/usr/bin/true", "/bin/probe").run("probe && uname -r")?;
//! assert_eq!(outcome.status, 0);
//! assert!(outcome.stdout.starts_with("6.1."));
//! # Ok(())
//! # }
//! ```

mod apt;
mod image;
mod kernel;
mod newer;
mod qemu;
mod stream;
mod system;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

pub use apt::packages;
pub use kernel::{Kernel, KernelFiles};
pub(crate) use newer::said_versions;
pub use newer::{newer_runtimes, program};
pub use system::{root_archive, system};

use crate::paths::target_dir;

/// A virtual machine that runs one script.
///
/// The guest has busybox, /proc, /sys, cgroup2 alone with every controller handed down, FUSE and
/// overlayfs, a root file system that can be pivoted away from, two processors and no network.
#[derive(Debug, Clone)]
pub struct Vm {
    kernel: Kernel,
    files: Vec<(PathBuf, PathBuf)>,
    modules: Vec<String>,
    kernel_args: Vec<String>,
    qemu_args: Vec<OsString>,
    memory_mib: u32,
    swap_mib: u32,
    system: Option<PathBuf>,
    cpus: u32,
    timeout: Duration,
    echo: bool,
}

impl Vm {
    /// Returns a machine with this kernel, 512 MiB of memory, no swap, two processors.
    pub fn new(kernel: Kernel) -> Self {
        // Debian builds pressure accounting in and leaves it off; the memory controller of 5.10
        // accounts swap only when asked.
        // On a busy host the ticks of an emulated timer may come too late for the kernel's check of it, and it panics.
        let mut kernel_args = vec!["psi=1".to_owned(), "no_timer_check".to_owned()];
        if kernel == Kernel::V5_10 {
            kernel_args.push("swapaccount=1".to_owned());
        }
        Self {
            kernel,
            files: Vec::new(),
            modules: Vec::new(),
            kernel_args,
            qemu_args: Vec::new(),
            memory_mib: 512,
            swap_mib: 0,
            system: None,
            cpus: 2,
            timeout: Duration::from_secs(180),
            echo: false,
        }
    }

    /// Puts a file or folder of the host into the guest. Programs have to be static.
    pub fn file(mut self, source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Self {
        self.files.push((source.into(), destination.into()));
        self
    }

    /// Loads one more module of the kernel, and those that it needs.
    pub fn module(mut self, name: impl Into<String>) -> Self {
        self.modules.push(name.into());
        self
    }

    /// Adds a word to the command line of the kernel.
    pub fn kernel_arg(mut self, word: impl Into<String>) -> Self {
        self.kernel_args.push(word.into());
        self
    }

    /// Adds an argument of QEMU, for hardware that this builder does not know.
    pub fn qemu_arg(mut self, argument: impl Into<OsString>) -> Self {
        self.qemu_args.push(argument.into());
        self
    }

    /// Sets the memory of the guest, which its files are in too.
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Gives the guest a swap device of this size.
    pub fn swap_mib(mut self, mib: u32) -> Self {
        self.swap_mib = mib;
        self
    }

    /// Boots the system on this disk (see [`system()`]) instead of busybox, with all modules of the kernel. The guest
    /// writes to a copy, which ends with it.
    pub fn system(mut self, disk: impl Into<PathBuf>) -> Self {
        self.system = Some(disk.into());
        self
    }

    /// Sets the number of processors.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Sets the time limit from start to power-off.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Passes the output of the script on to this process as it comes, besides keeping it.
    pub fn echo(mut self, echo: bool) -> Self {
        self.echo = echo;
        self
    }

    /// Boots, runs `script` with the guest's shell as root, powers off.
    ///
    /// A script that fails is no error here: its exit status is in the outcome. An error is a
    /// machine that did not boot, did not end in time, or crashed; it names the file with what the
    /// guest's console said.
    ///
    /// A machine whose kernel dies of an exception is started again, twice at most: the threads of the emulator
    /// now and then run code that the guest is just patching (static keys), which a processor does not.
    pub fn run(&self, script: &str) -> Result<Outcome> {
        let mut left = 2;
        loop {
            match self.run_once(script) {
                Err(error) if left > 0 && error.to_string().contains(FATAL_EXCEPTION) => {
                    eprintln!("vm: {error}; starting it again");
                    left -= 1;
                }
                ended => return ended,
            }
        }
    }

    fn run_once(&self, script: &str) -> Result<Outcome> {
        let kernel = KernelFiles::fetch(self.kernel)?;
        let base = target_dir().join("vm/run");
        fs::create_dir_all(&base).with_context(|| format!("cannot make {}", base.display()))?;
        // The directory is in the target directory, because disks may be too large for a /tmp in memory.
        let dir = TempDir::with_prefix_in(format!("{}-", self.kernel), &base)
            .with_context(|| format!("cannot make a folder in {}", base.display()))?;
        let mut modules = self.modules.clone();
        let mut files = self.files.clone();
        if self.system.is_some() {
            modules.push("ext4".to_owned());
            let all = Path::new("lib/modules").join(&kernel.release);
            files.push((kernel.root.join(&all), Path::new("/usr").join(all)));
        }
        image::initramfs(
            &kernel,
            &modules,
            dir.path(),
            &dir.path().join("initramfs.cpio"),
        )
        .context("cannot make the initramfs")?;
        image::files_disk(
            script,
            &files,
            self.system.is_some(),
            dir.path(),
            &dir.path().join("files.tar"),
        )
        .context("cannot make the disk with the files of the guest")?;
        let ended = qemu::run(self, &kernel, dir.path())?;
        let out = dir.path().join("out");
        qemu::unpack_out(&dir.path().join("out.tar"), dir.path())?;
        Ok(Outcome {
            status: ended.status,
            stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
            serial: ended.serial,
            booted_after: ended.booted_after,
            ended_after: ended.ended_after,
            out,
            _dir: dir,
        })
    }
}

/// The message of a kernel that died of an exception of the processor.
const FATAL_EXCEPTION: &str = "Kernel panic - not syncing: Fatal exception";

/// The outcome of a script in a guest.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status of the script.
    pub status: i32,
    /// Standard output of the script.
    pub stdout: String,
    /// Standard error of the script.
    pub stderr: String,
    /// The output on the guest's console, mostly messages of the kernel.
    pub serial: String,
    /// The time from power-on to the start of the script.
    pub booted_after: Duration,
    /// The time from power-on to power-off.
    pub ended_after: Duration,
    out: PathBuf,
    _dir: TempDir,
}

impl Outcome {
    /// Returns the folder with the files that the script left in /out. It lasts as long as this value.
    pub fn out(&self) -> &Path {
        &self.out
    }
}
