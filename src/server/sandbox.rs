//! The sandbox: the server gives up all that serving does not take before it serves the first request.
//!
//! The server parses what containers send, so it must be worth nothing to whoever takes it over: a user of its own that has no
//! file, no capability, no way to get one, no file to write to, and no system call but those that serving takes.
//! `docs/security.md` has the table of what is left and why.

mod filter;
mod host;
mod user;

use std::io;
use std::os::fd::OwnedFd;

use caps::CapsHashSet;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use rustix::process::DumpableBehavior;

use crate::confinement::capabilities;
pub use host::HostFiles;
pub use user::User;

/// The newest version of Landlock that is asked for. A kernel that has an older one restricts what that can.
const LANDLOCK: ABI = ABI::V8;

/// Becomes `user`, without a capability and with no way to get one. The process must have one thread only.
///
/// # Errors
/// When the kernel refuses; then the server must not start.
pub fn become_user(user: User) -> io::Result<()> {
    let none = CapsHashSet::new();
    capabilities::bound(&none).map_err(trouble)?;
    user::become_user(user)?;
    capabilities::keep(&none).map_err(trouble)?;
    rustix::thread::set_no_new_privs(true)?;
    // No process of the same user may look into this one, and the memory of this one comes into no file.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Gives up everything else that serving does not take: files but those of `host`, and system calls. [`become_user`] comes
/// before. The process must have one thread only.
///
/// # Errors
/// When the kernel refuses; then the server must not start. A kernel without Landlock (before 5.13) is no error:
/// the user of the server can read no more there than any other user, and the filter forbids writing there too.
pub fn confine(host: &HostFiles) -> io::Result<()> {
    restrict_files(host.readable())?;
    filter::install()
}

fn trouble(error: caps::errors::CapsError) -> io::Error {
    io::Error::other(format!("cannot drop capabilities: {error}"))
}

fn restrict_files<'a>(readable: impl Iterator<Item = &'a OwnedFd>) -> io::Result<()> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(LANDLOCK)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(LANDLOCK)))
        .and_then(Ruleset::create);
    let mut ruleset = ruleset.map_err(io::Error::other)?;
    for path in readable {
        // A rule for a file takes no rights of directories.
        let is_directory = rustix::fs::fstat(path)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let access = match is_directory {
            true => AccessFs::ReadFile | AccessFs::ReadDir,
            false => AccessFs::ReadFile.into(),
        };
        let rule = PathBeneath::new(path, access);
        ruleset = ruleset.add_rule(rule).map_err(io::Error::other)?;
    }
    let status = ruleset.restrict_self().map_err(io::Error::other)?;
    tracing::debug!(?status, "Landlock");
    Ok(())
}
