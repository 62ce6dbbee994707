//! `cargo xtask vm`: runs a command in a virtual machine with another kernel.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::process::{command, output};
use crate::vm::{Kernel, Vm, system};

/// The command, and the virtual machine that runs it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The kernel: 5.10, 6.1, 6.12, or sid for the newest of Debian.
    #[arg(long)]
    kernel: Kernel,
    /// A file or folder to put into the guest; programs have to be static.
    #[arg(long = "file", value_name = "SRC:DEST", value_parser = parse_file)]
    files: Vec<(PathBuf, PathBuf)>,
    /// One more module of the kernel to load.
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
    /// One more word for the command line of the kernel.
    #[arg(long = "kernel-arg", value_name = "WORD")]
    kernel_args: Vec<String>,
    /// Boot a whole Debian 12 with systemd and these packages.
    #[arg(long, value_name = "PACKAGES", value_delimiter = ',')]
    system: Vec<String>,
    /// The memory of the guest.
    #[arg(long, value_name = "MiB", default_value_t = 512)]
    memory: u32,
    /// The size of the guest's swap device; 0 for none.
    #[arg(long, value_name = "MiB", default_value_t = 0)]
    swap: u32,
    /// The number of processors.
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// The time limit of the machine.
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    timeout: u64,
    /// A folder, to be made, for what the command left in /out of the guest.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print what the console of the guest said, and the times.
    #[arg(long)]
    verbose: bool,
    /// The command: its words are joined and given to the guest's shell.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Splits `SRC:DEST` at the last colon.
fn parse_file(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let (source, destination) = text.rsplit_once(':').ok_or("expected SRC:DEST")?;
    Ok((source.into(), destination.into()))
}

/// Runs the command and ends with its exit status.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut vm = Vm::new(arguments.kernel)
        .memory_mib(arguments.memory)
        .swap_mib(arguments.swap)
        .cpus(arguments.cpus)
        .timeout(Duration::from_secs(arguments.timeout))
        .echo(true);
    for (source, destination) in &arguments.files {
        vm = vm.file(source, destination);
    }
    vm = arguments.modules.iter().fold(vm, Vm::module);
    vm = arguments.kernel_args.iter().fold(vm, Vm::kernel_arg);
    if !arguments.system.is_empty() {
        let packages: Vec<&str> = arguments.system.iter().map(String::as_str).collect();
        vm = vm.system(system(&packages)?);
    }
    let outcome = vm.run(&arguments.command.join(" "))?;
    if arguments.verbose {
        eprint!("{}", outcome.serial);
        let (booted, ended) = (outcome.booted_after, outcome.ended_after);
        eprintln!("vm: booted after {:.1} s", booted.as_secs_f64());
        eprintln!("vm: ended after {:.1} s", ended.as_secs_f64());
    }
    if let Some(out) = &arguments.out {
        fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
        output(
            command("cp")
                .arg("--recursive")
                .arg(outcome.out().join("."))
                .arg(out),
        )?;
    }
    Ok(ExitCode::from(
        u8::try_from(outcome.status).unwrap_or(u8::MAX),
    ))
}
