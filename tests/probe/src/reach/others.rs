//! Attempts on another container, whose pids, cgroups and keys are named by the host's numbers and paths.

use nix::libc;
use rustix::io::Errno;

use super::Other;
use super::calls::Argument::{Number, Struct, Text};
use super::calls::call;
use super::steps::{of, open_to_write};

/// `PTRACE_SEIZE`
const SEIZE: i64 = 0x4206;

/// Commands of keyctl(2).
const DESCRIBE: i64 = 6;
const READ: i64 = 11;

/// The session keyring (`KEY_SPEC_SESSION_KEYRING`).
const SESSION: i64 = -3;

pub(super) const OTHERS: &[Other] = &[
    // Signal 0 is sent to nobody: the permission is checked.
    ("kill", |other| {
        let arguments = [other.pid.into(), 0].map(Number);
        call(libc::SYS_kill, &arguments).map(drop)
    }),
    ("ptrace", |other| {
        let arguments = [SEIZE, other.pid.into(), 0, 0].map(Number);
        call(libc::SYS_ptrace, &arguments).map(drop)
    }),
    ("pidfd_open", |other| {
        let arguments = [other.pid.into(), 0].map(Number);
        call(libc::SYS_pidfd_open, &arguments).map(drop)
    }),
    ("open /proc/PID/root", |other| {
        let root = std::fs::read_dir(format!("/proc/{}/root", other.pid));
        root.map(drop).map_err(of)
    }),
    ("open cgroup.procs", |other| {
        open_to_write(&format!("{}/cgroup.procs", other.cgroup))
    }),
    ("open a limit of the cgroup", |other| {
        let files = ["memory.max", "memory.limit_in_bytes"];
        let files = files.map(|file| format!("{}/{file}", other.cgroup));
        let file = files
            .iter()
            .find(|file| std::fs::exists(file).is_ok_and(|is| is));
        open_to_write(file.ok_or(Errno::NOENT)?)
    }),
    ("mkdir in the cgroup", |other| {
        let path = format!("{}/reach", other.cgroup);
        std::fs::create_dir(&path).map_err(of)?;
        std::fs::remove_dir(&path).map_err(of)
    }),
    ("keyctl DESCRIBE", |other| {
        let arguments = [Number(DESCRIBE), Number(other.key), Struct(&[]), Number(64)];
        call(libc::SYS_keyctl, &arguments).map(drop)
    }),
    ("keyctl READ", |other| {
        let arguments = [Number(READ), Number(other.key), Struct(&[]), Number(64)];
        call(libc::SYS_keyctl, &arguments).map(drop)
    }),
];

/// Adds a key to the session keyring.
pub(super) fn add_key() -> Result<i64, Errno> {
    let names = [Text(c"user"), Text(c"eci-fs"), Text(c"secret")];
    let arguments = [&names[..], &[Number(6), Number(SESSION)]].concat();
    call(libc::SYS_add_key, &arguments).map(|(key, _)| key)
}
