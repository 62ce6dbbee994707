//! A minimal container of plain namespaces: the host's files, and its own /proc.
//!
//! 1. `contain` waits for a line, which says that it is in its cgroups.
//! 2. With `--user` it makes a user namespace and waits for a line, which says that the ids are mapped.
//! 3. It makes the other namespaces and starts `inside`, which is pid 1 in them.
//! 4. `inside` makes the requested mounts on /proc, and executes the command.

use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::answer;
use crate::ways::flush;

/// Runs `contain [OPTION...] -- CMD [ARGUMENT...]`.
///
/// The options are `--at-once`, `--user`, `--shared`, `--host-cgroup`, `--host-pids`, `--network` and `--proc KIND`.
/// With `--at-once` it does not wait, and stays in its present cgroups. With `--shared` the mounts have peers in the
/// mount namespace of `contain` itself, which is not the container's.
pub(crate) fn contain(arguments: &[String]) -> ExitCode {
    finish(start(arguments))
}

/// Runs `inside KIND CMD [ARGUMENT...]`.
pub(crate) fn inside(arguments: &[String]) -> ExitCode {
    finish(become_command(arguments))
}

fn finish(result: io::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        println!("{}", answer::line(&Err(error)));
        ExitCode::FAILURE
    })
}

fn start(arguments: &[String]) -> io::Result<ExitCode> {
    let at = arguments.iter().position(|argument| argument == "--");
    let (options, command) = arguments.split_at(at.unwrap_or(arguments.len()));
    let has = |name: &str| options.iter().any(|option| option == name);
    let proc = options
        .iter()
        .position(|option| option == "--proc")
        .and_then(|at| options.get(at + 1))
        .map_or("kernel", String::as_str);

    if !has("--at-once") {
        wait_for_a_line()?;
    }
    if has("--user") {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        println!("{}", answer::line(&Ok(json!("wants its maps"))));
        wait_for_a_line()?;
        nix::unistd::setgroups(&[])?;
        nix::unistd::setresgid(0.into(), 0.into(), 0.into())?;
        nix::unistd::setresuid(0.into(), 0.into(), 0.into())?;
        // After the change of user only root owns /proc/self, which here is root of the parent user namespace.
        nix::sys::prctl::set_dumpable(true)?;
    }
    if has("--shared") {
        unshare(CloneFlags::CLONE_NEWNS)?;
        propagate(MsFlags::MS_PRIVATE)?;
        propagate(MsFlags::MS_SHARED)?;
    }
    let mut namespaces =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if !has("--host-cgroup") {
        namespaces |= CloneFlags::CLONE_NEWCGROUP;
    }
    if has("--network") {
        namespaces |= CloneFlags::CLONE_NEWNET;
    }
    if !has("--host-pids") {
        namespaces |= CloneFlags::CLONE_NEWPID;
    }
    let mut child = if has("--shared") {
        // `contain` stays in the namespace whose mounts are shared with the container's.
        unshare(namespaces & !CloneFlags::CLONE_NEWNS)?;
        inner(&["--unshare-mounts", proc], command).spawn()?
    } else {
        unshare(namespaces)?;
        propagate(MsFlags::MS_PRIVATE)?;
        inner(&[proc], command).spawn()?
    };
    // The container ends when the test is killed.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let status = child.wait()?;
    Ok(ExitCode::from(
        u8::try_from(status.code().unwrap_or(255)).unwrap_or(255),
    ))
}

fn inner(options: &[&str], command: &[String]) -> Command {
    let program = std::env::args().next().unwrap_or_default();
    let mut inner = Command::new(program);
    inner
        .arg("inside")
        .args(options)
        .args(&command[command.len().min(1)..]);
    inner
}

fn become_command(arguments: &[String]) -> io::Result<ExitCode> {
    // Pid 1, and with it the container, ends when `contain` is killed.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let arguments = match arguments.split_first() {
        Some((first, rest)) if first == "--unshare-mounts" => {
            unshare(CloneFlags::CLONE_NEWNS)?;
            rest
        }
        _ => arguments,
    };
    let [proc, program, arguments @ ..] = arguments else {
        return Err(answer::wrong("inside: name what to mount and what to run"));
    };
    mount_proc(proc)?;
    flush();
    Err(Command::new(program).args(arguments).exec())
}

fn mount_proc(kind: &str) -> io::Result<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let on_proc = |fstype: &str| mount(Some(fstype), "/proc", Some(fstype), plain, None::<&str>);
    match kind {
        "kernel" => on_proc("proc")?,
        "inherited" => {}
        // The mounts that an engine in a container makes.
        "kernel-and-sys" => {
            on_proc("proc")?;
            let none = None::<&str>;
            // The kernel does not mount a file system on itself.
            umount2("/sys", MntFlags::MNT_DETACH)?;
            mount(Some("sysfs"), "/sys", Some("sysfs"), plain, none)?;
        }
        // A container that redirects the paths of grafts by symbolic links.
        "links" => {
            on_proc("tmpfs")?;
            for name in ["meminfo", "uptime", "stat", "cpuinfo"] {
                symlink(format!("/etc/{name}"), format!("/proc/{name}"))?;
            }
        }
        // The kernel's /proc, with a part of it laid over the whole.
        "part" => {
            on_proc("proc")?;
            mount(
                Some("/proc/sys"),
                "/proc",
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )?;
        }
        _ => return Err(answer::wrong(format!("cannot mount {kind:?} on /proc"))),
    }
    Ok(())
}

fn propagate(how: MsFlags) -> io::Result<()> {
    let none = None::<&str>;
    Ok(mount(none, "/", none, MsFlags::MS_REC | how, none)?)
}

fn wait_for_a_line() -> io::Result<()> {
    let mut line = Vec::new();
    // The line is read byte by byte, because all bytes after it are for the command.
    let mut byte = [0];
    while nix::unistd::read(io::stdin(), &mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    match line.as_slice() {
        b"go" => Ok(()),
        _ => Err(answer::wrong("nobody said go")),
    }
}
