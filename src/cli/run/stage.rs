//! The stage: unshares the namespaces, starts the init in them, and waits for it.

use std::process::{Command, ExitCode};

use eci_fs_mountd::output::print_error;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::error::{Error, Result};
use nix::sched::{CloneFlags, setns, unshare};

use super::super::PROGRAM;
use super::{ChildMessage, ChildOptions, FAILED, inherited, report, signals, wait_for_parent};

/// `CLONE_NEWTIME` (Linux 5.6), which nix does not name.
const CLONE_NEWTIME: libc::c_int = 0x80;

/// Runs the stage process.
pub(in super::super) fn stage(options: ChildOptions) -> ExitCode {
    let channel = match inherited::take(options.channel) {
        Ok(fd) => Channel::new(fd),
        Err(error) => {
            print_error(PROGRAM, error);
            return ExitCode::from(FAILED);
        }
    };
    match contain(&options, channel) {
        Ok(code) => ExitCode::from(code),
        Err((channel, error)) => report(&channel, error),
    }
}

fn contain(options: &ChildOptions, channel: Channel) -> std::result::Result<u8, (Channel, Error)> {
    match prepare(options, &channel) {
        Ok(()) => {}
        Err(error) => return Err((channel, error)),
    }
    let mut child = match start_init(options, &channel) {
        Ok(child) => child,
        Err(error) => return Err((channel, error)),
    };
    let pid = i32::try_from(child.id()).unwrap_or(0);
    let sent = channel.send(&ChildMessage::Started(pid), &[]);
    // Only the init sends messages from here on.
    drop(channel);
    if sent.is_err() {
        let _ = child.kill();
    }
    Ok(child.wait().map_or(FAILED, signals::exit_code))
}

fn prepare(options: &ChildOptions, channel: &Channel) -> Result<()> {
    // The init passes these signals on; the stage only waits.
    signals::Signals::block()?;
    let namespace = wait_for_parent(channel)?;
    let report_step = |message: ChildMessage| {
        channel
            .send(&message, &[])
            .map_err(|e| Error::io("speak to", "the parent", e))
    };
    if options.userns {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| {
            Error::io("make", "a user namespace", e)
                .remedy("see /proc/sys/user/max_user_namespaces")
        })?;
        report_step(ChildMessage::HasUserNamespace)?;
        wait_for_parent(channel)?;
        become_root()?;
    }
    if options.isolate {
        let namespace = namespace.ok_or_else(|| Error::refused("there is no user namespace"))?;
        setns(namespace, CloneFlags::CLONE_NEWUSER)
            .map_err(|e| Error::io("enter", "a user namespace", e))?;
        become_root()?;
    }
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).map_err(|e| Error::io("make", "namespaces", e))?;
    match unshare(CloneFlags::from_bits_retain(CLONE_NEWTIME)) {
        // On a kernel without time namespaces the views still count from the start of the container.
        Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
        Err(e) => return Err(Error::io("make", "a time namespace", e)),
    }
    // The parent may be killed. The container shall then end too, because it has lost its views.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|e| Error::io("set", "the death signal", e))?;
    report_step(ChildMessage::HasNamespaces)?;
    wait_for_parent(channel).map(drop)
}

/// Becomes root of the new user namespace, now that it is mapped.
fn become_root() -> Result<()> {
    let trouble = |e| Error::io("become", "root of the user namespace", e);
    nix::unistd::setgroups(&[]).map_err(trouble)?;
    nix::unistd::setresgid(0.into(), 0.into(), 0.into()).map_err(trouble)?;
    nix::unistd::setresuid(0.into(), 0.into(), 0.into()).map_err(trouble)?;
    // After the change of user only root owns /proc/self, which here is root of the parent user namespace.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
        .map_err(|e| Error::io("become", "root of the user namespace", e))
}

fn start_init(options: &ChildOptions, channel: &Channel) -> Result<std::process::Child> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/proc/self/exe");
    command.arg("run-init");
    if options.userns {
        command.arg("--userns");
    }
    let fd = rustix::io::fcntl_dupfd_cloexec(channel, 3)
        .map_err(|e| Error::io("duplicate", "the channel", e))?;
    inherited::pass(&mut command, &fd)?;
    command.arg("--").args(&options.command);
    // With a user set, the library uses fork instead of vfork. Before Linux 6.0 a child enters the new time namespace
    // only when it does not share its parent's memory (copy_namespaces).
    command.uid(0);
    command
        .spawn()
        .map_err(|e| Error::io("start", "the init of the container", e))
}
