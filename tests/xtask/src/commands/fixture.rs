//! `cargo xtask fixture`: records what kernels say about a machine and a container, and unpacks and
//! packs what was recorded.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use archive::Archive;
use clap::{Args, Subcommand, ValueEnum};

use crate::fixture::case::Case;
use crate::fixture::{guest, record, workload};
use crate::paths::workspace_root;
use crate::vm::Kernel;

/// The action on fixtures.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Record on this host; needs root.
    Record {
        /// The cases and where they go.
        #[command(flatten)]
        what: What,
        /// A file to read into the page cache, instead of a temporary one.
        #[arg(long, value_name = "FILE")]
        read: Option<PathBuf>,
    },
    /// Record in a virtual machine.
    Vm {
        /// The kernel: 5.10, 6.1 or 6.12. All of them if none is given.
        #[arg(long)]
        kernel: Vec<Kernel>,
        /// The cases and where they go.
        #[command(flatten)]
        what: What,
    },
    /// Make the files of an archive, to look at them or to change them.
    Unpack {
        /// The archive.
        archive: PathBuf,
        /// The folder that gets the files; made if missing.
        dir: PathBuf,
    },
    /// Write an archive of the files in a folder.
    Pack {
        /// The folder.
        dir: PathBuf,
        /// The archive.
        archive: PathBuf,
    },
    /// The workload of a cgroup while it is recorded.
    #[command(hide = true)]
    Work(workload::Arguments),
}

/// The cases to record.
#[derive(Debug, Args)]
pub struct What {
    /// The case; all of them if none is given.
    #[arg(long)]
    case: Vec<Case>,
    /// The folder that gets one archive for each case.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl What {
    /// Returns the cases that were asked for.
    fn cases(&self) -> &[Case] {
        if self.case.is_empty() {
            Case::value_variants()
        } else {
            &self.case
        }
    }

    /// Returns the folder of the fixtures, made if missing.
    fn out(&self) -> Result<PathBuf> {
        let out = self.out.clone();
        let out = out.unwrap_or_else(|| workspace_root().join("emulators/tests/fixtures"));
        fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        Ok(out)
    }
}

/// Records, unpacks or packs.
pub(super) fn run(action: &Action) -> Result<ExitCode> {
    match action {
        Action::Record { what, read } => {
            let out = what.out()?;
            for case in what.cases() {
                let path = record::record(*case, &out, read.as_deref())?;
                println!("recorded {}", path.display());
            }
        }
        Action::Vm { kernel, what } => {
            let kernels = if kernel.is_empty() {
                &Kernel::OF_RELEASES[..]
            } else {
                kernel
            };
            let out = what.out()?;
            for kernel in kernels {
                guest::record(*kernel, what.cases(), &out)?;
            }
        }
        Action::Unpack { archive, dir } => Archive::read(archive)?.unpack(dir)?,
        Action::Pack { dir, archive } => Archive::pack(dir)?.write(archive)?,
        Action::Work(arguments) => workload::work(arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
