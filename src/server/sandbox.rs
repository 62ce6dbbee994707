//! The sandbox: the server gives up all that serving does not take before it serves the first request.
//!
//! The server parses what containers send, so it must be worth nothing to whoever takes it over: no capability, no way to
//! get one, no file to write to, and no system call but those that serving takes. `docs/security.md` has the
//! table of what is left and why.

mod filter;

use std::io;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr,
};

/// The directories in which the server may read: the kernel's figures. Cgroup directories lie below /sys wherever systemd or an
/// engine mounts them.
const READABLE: [&str; 2] = ["/proc", "/sys"];

/// Gives up everything that serving does not take. The process must have one thread only.
///
/// # Errors
/// When the kernel refuses; then the server must not start. A kernel without Landlock (before 5.13) is no error:
/// the filter of system calls forbids writing there too.
pub fn confine() -> io::Result<()> {
    drop_capabilities()?;
    rustix::thread::set_no_new_privs(true)?;
    restrict_files()?;
    filter::install()
}

fn drop_capabilities() -> io::Result<()> {
    use caps::CapSet;
    let trouble =
        |e: caps::errors::CapsError| io::Error::other(format!("cannot drop capabilities: {e}"));
    // The bounding set comes first, because leaving it takes CAP_SETPCAP.
    for cap in caps::all() {
        if caps::has_cap(None, CapSet::Bounding, cap).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, cap).map_err(trouble)?;
        }
    }
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set).map_err(trouble)?;
    }
    Ok(())
}

fn restrict_files() -> io::Result<()> {
    let abi = ABI::V1;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(Ruleset::create);
    let mut ruleset = ruleset.map_err(io::Error::other)?;
    for path in READABLE {
        let path = PathFd::new(path).map_err(io::Error::other)?;
        let rule = PathBeneath::new(path, AccessFs::ReadFile | AccessFs::ReadDir);
        ruleset = ruleset.add_rule(rule).map_err(io::Error::other)?;
    }
    let status = ruleset.restrict_self().map_err(io::Error::other)?;
    tracing::debug!(?status, "Landlock");
    Ok(())
}
