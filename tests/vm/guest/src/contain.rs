//! A container of plain namespaces, which knows nothing of eci-fs:
//!
//! 1. `contain` waits for a line: it is in its cgroup then.
//! 2. With `user` it takes a user namespace, says `maps`, and waits until that is mapped.
//! 3. It takes the other namespaces, starts `inside`, and says which pid that has.
//! 4. `inside` mounts /proc and becomes the agent.

use std::io::{self, Write};
use std::process::{Command, ExitCode};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

/// `contain [user]`
pub(crate) fn contain(options: &[&str]) -> ExitCode {
    match start(options.contains(&"user")) {
        Ok(code) => code,
        Err(error) => {
            println!("contain: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `inside`
pub(crate) fn inside() -> ExitCode {
    match prepare() {
        Ok(()) => crate::agent::serve(),
        Err(error) => {
            println!("inside: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(user: bool) -> io::Result<ExitCode> {
    wait_for_a_line()?;
    if user {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        say("maps")?;
        wait_for_a_line()?;
        nix::unistd::setgroups(&[])?;
        nix::unistd::setresgid(0.into(), 0.into(), 0.into())?;
        nix::unistd::setresuid(0.into(), 0.into(), 0.into())?;
        // The change of user made /proc/self root's, and the parent namespace's root it is not.
        nix::sys::prctl::set_dumpable(true)?;
    }
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWCGROUP,
    )?;
    let mut child = Command::new("/bin/vm-guest").arg("inside").spawn()?;
    say(&child.id().to_string())?;
    let status = child.wait()?;
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|code| code.try_into().ok())
            .unwrap_or(255),
    ))
}

fn prepare() -> io::Result<()> {
    // When `contain` is killed, so is pid 1, and with it the container.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none)?;
    Ok(())
}

fn say(what: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{what}")?;
    out.flush()
}

/// Byte by byte: what follows is for the agent.
fn wait_for_a_line() -> io::Result<()> {
    let mut byte = [0];
    loop {
        // Not through the buffer of the standard input.
        let read = nix::unistd::read(io::stdin(), &mut byte)?;
        if read == 0 || byte == *b"\n" {
            return Ok(());
        }
    }
}
