//! Running QEMU: its command line, the output of the guest, and the time limit.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::Vm;
use super::kernel::KernelFiles;
use super::stream::{Stream, wait};
use crate::paths::target_dir;
use crate::process::{command, output};

/// The prefix of the lines that the guest's scripts print for this module.
const MARK: &str = "@eci-vm ";

/// A guest that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: i32,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) serial: String,
    pub(super) booted_after: Duration,
    pub(super) ended_after: Duration,
}

/// Ends QEMU when the caller returns early.
#[derive(Debug)]
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both calls fail only when QEMU has ended and has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots the guest whose images are in `dir` and waits for its end.
pub(super) fn run(vm: &Vm, kernel: &KernelFiles, dir: &Path) -> Result<Ended> {
    if vm.swap_mib > 0 {
        let swap = File::create(dir.join("swap")).context("cannot make the swap disk")?;
        swap.set_len(u64::from(vm.swap_mib) << 20)
            .context("cannot size the swap disk")?;
    }
    let mut stdout = fifo(&dir.join("stdout"))?;
    let mut stderr = fifo(&dir.join("stderr"))?;

    let started = Instant::now();
    let mut qemu = qemu_command(vm, kernel, dir);
    let child = qemu.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut machine = Machine(child.context("cannot start setpriv and QEMU")?);
    let mut serial = Stream::new(machine.0.stdout.take().context("QEMU has no stdout")?)?;
    let mut errors = Stream::new(machine.0.stderr.take().context("QEMU has no stderr")?)?;

    let mut booted_after = None;
    let until = started + vm.timeout;
    while !(serial.ended() && errors.ended()) {
        // The FIFOs never end, and QEMU may die before it opens them.
        let in_time = wait(&[&serial, &errors, &stdout, &stderr], until)?;
        serial.take()?;
        errors.take()?;
        let (out, err) = (stdout.take()?, stderr.take()?);
        if vm.echo {
            std::io::stdout()
                .write_all(out)
                .context("cannot write to stdout")?;
            std::io::stderr()
                .write_all(err)
                .context("cannot write to stderr")?;
        }
        if booted_after.is_none() && marked(&text(&serial.bytes), "start").is_some() {
            booted_after = Some(started.elapsed());
        }
        if !in_time {
            let state = if booted_after.is_some() {
                "end its command"
            } else {
                "boot"
            };
            let limit = vm.timeout.as_secs();
            let words = last_line(&stdout).unwrap_or_else(|| "nothing".to_owned());
            return Err(failed(
                vm,
                dir,
                &serial,
                &errors,
                &format!("did not {state} in {limit} s, and the command said last `{words}`"),
            ));
        }
    }
    machine.0.wait().context("cannot wait for QEMU")?;

    let console = text(&serial.bytes);
    if let Some(message) = marked(&console, "error:") {
        return Err(failed(vm, dir, &serial, &errors, &message));
    }
    let status = marked(&console, "exit").and_then(|status| status.parse().ok());
    let (Some(status), Some(booted_after)) = (status, booted_after) else {
        let reason = match booted_after {
            Some(_) => "ended without an exit status",
            None => "ended before it had booted (a panic, or too little memory)",
        };
        return Err(failed(vm, dir, &serial, &errors, reason));
    };
    Ok(Ended {
        status,
        stdout: stdout.bytes,
        stderr: stderr.bytes,
        serial: console,
        booted_after,
        ended_after: started.elapsed(),
    })
}

/// Returns the command line of QEMU. setpriv ends it when this thread ends, however that comes.
fn qemu_command(vm: &Vm, kernel: &KernelFiles, dir: &Path) -> Command {
    let mut qemu = command("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
    qemu.args([
        "-display",
        "none",
        "-nodefaults",
        "-no-reboot",
        "-serial",
        "stdio",
    ]);
    qemu.args([
        "-smp",
        &vm.cpus.to_string(),
        "-m",
        &vm.memory_mib.to_string(),
    ]);
    qemu.arg("-kernel")
        .arg(&kernel.vmlinuz)
        .arg("-initrd")
        .arg(dir.join("initramfs.cpio"));
    // panic=-1 with -no-reboot: a guest that panics ends, and does not hang until the limit.
    let mut words = vm.kernel_args.join(" ");
    if vm.system.is_some() {
        // The console is for the lines that this module looks for, and for what goes wrong.
        words.push_str(
            " eci-vm-system systemd.show_status=error systemd.mask=serial-getty@ttyS0.service",
        );
        words.push_str(" systemd.wants=eci-vm.service");
    }
    qemu.arg("-append")
        .arg(format!("console=ttyS0 quiet panic=-1 {words}"));

    let mut disk = |name: &Path, options: &str| {
        let file = dir.join(name);
        qemu.arg("-drive").arg(format!(
            "if=virtio,format=raw,cache=unsafe,{options}file={}",
            // QEMU reads a doubled comma as part of the name.
            file.display().to_string().replace(',', ",,")
        ));
    };
    disk("files.tar".as_ref(), "readonly=on,");
    if let Some(system) = &vm.system {
        disk(system, "snapshot=on,");
    }
    if vm.swap_mib > 0 {
        disk("swap".as_ref(), "");
    }
    qemu.args(["-device", "virtio-serial-pci"]);
    for (port, file) in [
        ("stdout", "stdout"),
        ("stderr", "stderr"),
        ("files", "out.tar"),
    ] {
        let file = dir.join(file).display().to_string().replace(',', ",,");
        qemu.arg("-chardev")
            .arg(format!("file,id={port},path={file}"));
        qemu.arg("-device")
            .arg(format!("virtserialport,chardev={port},name={port}"));
    }
    qemu.args(&vm.qemu_args);
    qemu
}

/// Returns a FIFO that is open before QEMU opens it. It is open for writing too: a FIFO without a writer reads as
/// ended, and QEMU may write before it opens this one.
fn fifo(path: &Path) -> Result<Stream> {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)
        .with_context(|| format!("cannot make the FIFO {}", path.display()))?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(O_NONBLOCK)
        .open(path);
    Stream::new(file.with_context(|| format!("cannot open {}", path.display()))?)
}

/// Unpacks the files that the guest left in /out. A guest with an empty /out leaves no archive.
pub(super) fn unpack_out(archive: &Path, dir: &Path) -> Result<()> {
    let out = dir.join("out");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let size = fs::metadata(archive).map_or(0, |metadata| metadata.len());
    if size > 0 {
        let mut tar = command("tar");
        tar.args(["--extract", "--no-same-owner", "--file"])
            .arg(archive);
        output(tar.arg("--directory").arg(dir)).context("cannot unpack /out of the guest")?;
    }
    Ok(())
}

/// Returns the console as text, without the carriage returns of a terminal.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}

/// Returns the text after the last mark of this kind.
fn marked(console: &str, kind: &str) -> Option<String> {
    let lines = console.lines().rev();
    let mut found = lines.filter_map(|line| line.strip_prefix(MARK)?.strip_prefix(kind));
    found.next().map(|rest| rest.trim().to_owned())
}

/// Returns the last line that a stream has.
fn last_line(stream: &Stream) -> Option<String> {
    let all = text(&stream.bytes);
    let line = all.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}

/// Returns an error with the reason, the last words of the guest, and the path of its whole log.
fn failed(vm: &Vm, dir: &Path, serial: &Stream, errors: &Stream, reason: &str) -> anyhow::Error {
    let mut log = text(&serial.bytes);
    log.push_str(&text(&errors.bytes));
    let lines = log.lines().rev().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with(MARK));
    // After a panic come many lines that say less than the panic itself.
    let panic = log.lines().find(|line| line.contains("Kernel panic"));
    let last = panic
        .or_else(|| lines.next())
        .unwrap_or("nothing")
        .to_owned();
    let said = match keep(dir, &log) {
        Ok(path) => format!("all it said is in {}", path.display()),
        Err(error) => format!("{error:#}"),
    };
    let kernel = vm.kernel;
    anyhow::anyhow!(
        "the machine with kernel {kernel} {reason}; its last words were `{last}`; {said}"
    )
}

/// Keeps the log of a virtual machine that failed, because the folder of the machine is removed.
fn keep(dir: &Path, log: &str) -> Result<PathBuf> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("failed-{name}.log");
    let path = target_dir().join("vm").join(name);
    if let Err(error) = fs::write(&path, log) {
        bail!("its log cannot be written to {}: {error}", path.display());
    }
    Ok(path)
}
