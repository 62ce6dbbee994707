//! The stage: unshares the namespaces, starts the init in them, and waits for it.

use std::process::{Command, ExitCode};

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::error::{Error, Kind, Result};
use nix::sched::{CloneFlags, unshare};

use super::{FAILED, FromInside, Inside, inherited, report, signals, wait_for_go};

/// `CLONE_NEWTIME` (Linux 5.6), which nix does not name.
const CLONE_NEWTIME: libc::c_int = 0x80;

/// The whole process.
#[allow(
    clippy::print_stderr,
    reason = "without a channel there is no other way to say it"
)]
pub(in super::super) fn stage(inside: Inside) -> ExitCode {
    let channel = match inherited::take(inside.channel) {
        Ok(fd) => Channel::new(fd),
        Err(error) => {
            eprintln!("eci-fs: {error}");
            return ExitCode::from(FAILED);
        }
    };
    match contain(&inside, channel) {
        Ok(code) => ExitCode::from(code),
        Err((channel, error)) => report(&channel, error),
    }
}

fn contain(inside: &Inside, channel: Channel) -> std::result::Result<u8, (Channel, Error)> {
    match prepare(inside, &channel) {
        Ok(()) => {}
        Err(error) => return Err((channel, error)),
    }
    let mut child = match start_init(inside, &channel) {
        Ok(child) => child,
        Err(error) => return Err((channel, error)),
    };
    let pid = i32::try_from(child.id()).unwrap_or(0);
    let told = channel.send(&FromInside::Started(pid), &[]);
    // The init alone speaks from here on.
    drop(channel);
    if told.is_err() {
        let _ = child.kill();
    }
    Ok(child.wait().map_or(FAILED, signals::exit_code))
}

fn prepare(inside: &Inside, channel: &Channel) -> Result<()> {
    // They are for the init, which passes them on; the stage only waits.
    signals::Signals::block()?;
    wait_for_go(channel)?;
    let say = |what: FromInside| {
        channel
            .send(&what, &[])
            .map_err(|e| Error::io("speak to", "the parent", e))
    };
    if inside.userns {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| {
            Error::io("make", "a user namespace", e)
                .remedy("see /proc/sys/user/max_user_namespaces")
        })?;
        say(FromInside::HasUserNamespace)?;
        wait_for_go(channel)?;
        become_root()?;
    }
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).map_err(|e| Error::io("make", "namespaces", e))?;
    match unshare(CloneFlags::from_bits_retain(CLONE_NEWTIME)) {
        // A kernel that has none: the views count from the start of the container all the same.
        Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
        Err(e) => return Err(Error::io("make", "a time namespace", e)),
    }
    // The parent may be killed without a word; then the container shall not live on without its views.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|e| Error::io("set", "the death signal", e))?;
    say(FromInside::HasNamespaces)?;
    wait_for_go(channel)
}

/// Become root of the new user namespace, now that it is mapped.
fn become_root() -> Result<()> {
    let trouble = |e| Error::io("become", "root of the user namespace", e);
    nix::unistd::setgroups(&[]).map_err(trouble)?;
    nix::unistd::setresgid(0.into(), 0.into(), 0.into()).map_err(trouble)?;
    nix::unistd::setresuid(0.into(), 0.into(), 0.into()).map_err(trouble)?;
    // The change of user made /proc/self root's alone, where the parent of the namespace is root.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
        .map_err(|e| Error::io("become", "root of the user namespace", e))
}

fn start_init(inside: &Inside, channel: &Channel) -> Result<std::process::Child> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/proc/self/exe");
    command.arg("run-init");
    if inside.userns {
        command.arg("--userns");
    }
    let fd = rustix::io::fcntl_dupfd_cloexec(channel, 3)
        .map_err(|e| Error::io("duplicate", "the channel", e))?;
    inherited::pass(&mut command, &fd)?;
    command.arg("--").args(&inside.command);
    // With a user set, the library forks instead of vforking: before Linux 6.0 a child enters the new time
    // namespace only when it does not share its parent's memory (copy_namespaces).
    command.uid(0);
    command.spawn().map_err(|e| {
        Error::new(
            Kind::System,
            format!("cannot start the init of the container: {e}"),
        )
    })
}
