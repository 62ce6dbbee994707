//! Pressure triggers. The server may open nothing for writing, so the daemon does, after it has checked the trigger as
//! if the container had asked.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::containers::BrokerContainer;
use crate::container::procfs::Proc;
use eci_fs_protocol::capabilities::bounding_set_has_sys_resource;
use eci_fs_protocol::error::Result as Outcome;
use eci_fs_protocol::link::Resource;

/// Opens the pressure file of a container, and sets a trigger on it.
///
/// On cgroup v1 there is none: EOPNOTSUPP, which the kernel says where pressure is not accounted for.
pub(super) fn open_trigger(
    container: Option<&BrokerContainer>,
    resource: Resource,
    trigger: &[u8],
) -> Result<OwnedFd, Errno> {
    if !is_trigger(trigger) {
        return Err(Errno::INVAL);
    }
    let entry = container.ok_or(Errno::OPNOTSUPP)?;
    let dir = entry.pressure.as_ref().ok_or(Errno::OPNOTSUPP)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let open = || match rustix::fs::openat(dir, resource.file(), flags, Mode::empty()) {
        Err(Errno::NOENT) => Err(Errno::OPNOTSUPP),
        other => other,
    };
    let file = match entry.has_sys_resource {
        true => open()?,
        false => without_sys_resource(open)?,
    };
    rustix::io::write(&file, trigger)?;
    Ok(file)
}

/// Returns whether the processes of a container can have CAP_SYS_RESOURCE on the host: its first process is in the user
/// namespace of the host, and has the capability in its bounding set.
///
/// # Errors
/// When the process has ended.
pub(super) fn has_sys_resource(proc: &Proc, pid: i32) -> Outcome<bool> {
    if !proc.namespace(pid, "user")?.is_initial_user() {
        return Ok(false);
    }
    let status = proc.read(&format!("{pid}/status"))?;
    Ok(bounding_set_has_sys_resource(&status).unwrap_or(false))
}

/// Opens a file as a thread without CAP_SYS_RESOURCE. The kernel looks at the opener of a pressure file (psi_trigger_create,
/// cgroup_pressure_open): one with the capability gets any window and a real-time thread of the kernel (psimon), others
/// windows of whole two seconds and no thread, or no triggers at all before Linux 6.5.
fn without_sys_resource<T>(open: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let before = capabilities(None)?;
    if !before.effective.contains(CapabilitySet::SYS_RESOURCE) {
        return open();
    }
    let without = CapabilitySets {
        effective: before.effective - CapabilitySet::SYS_RESOURCE,
        ..before
    };
    set_capabilities(None, without)?;
    let opened = open();
    set_capabilities(None, before)?;
    opened
}

/// Returns true if bytes are a trigger as psi_write scans it: "some" or "full", a threshold, a window, both in
/// microseconds. The kernel takes the last byte for a terminator, so one may follow.
fn is_trigger(bytes: &[u8]) -> bool {
    let text = match bytes.split_last() {
        Some((b'\n' | 0, rest)) => rest,
        _ => bytes,
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let mut words = text.split(' ');
    let number = |word: Option<&str>| {
        word.is_some_and(|w| (1..=10).contains(&w.len()) && w.bytes().all(|b| b.is_ascii_digit()))
    };
    matches!(words.next(), Some("some" | "full"))
        && number(words.next())
        && number(words.next())
        && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_scans_reaches_the_kernel() {
        for good in ["some 150000 2000000", "full 1 2\n", "some 150000 1000000\0"] {
            assert!(is_trigger(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "some",
            "some 1",
            "some 1 2 3",
            "none 1 2",
            "some -1 2",
            "some 1 2\n\n",
            "some 1 99999999999",
        ] {
            assert!(!is_trigger(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn privileged_a_file_is_opened_without_the_capability_and_the_thread_keeps_it() {
        let before = capabilities(None).unwrap();
        let effective = || Ok(capabilities(None).unwrap().effective);
        let during = without_sys_resource(effective).unwrap();
        assert!(!during.contains(CapabilitySet::SYS_RESOURCE));
        assert_eq!(during, before.effective - CapabilitySet::SYS_RESOURCE);
        assert_eq!(capabilities(None).unwrap(), before);
    }

    #[test]
    fn a_container_without_a_v2_cgroup_has_no_triggers() {
        let none = BrokerContainer::default();
        let got = open_trigger(Some(&none), Resource::Cpu, b"some 150000 2000000");
        assert_eq!(got.unwrap_err(), Errno::OPNOTSUPP);
        let empty = tempfile::tempdir().unwrap();
        let entry = BrokerContainer {
            pressure: Some(std::fs::File::open(empty.path()).unwrap().into()),
            ..BrokerContainer::default()
        };
        let got = open_trigger(Some(&entry), Resource::Cpu, b"some 150000 2000000");
        assert_eq!(got.unwrap_err(), Errno::OPNOTSUPP);
    }
}
