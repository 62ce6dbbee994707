//! Pressure triggers. The server may open nothing for writing, so the daemon does, after it has checked the trigger as
//! if the container had asked.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::containers::BrokerContainer;
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
    let dir = container.and_then(|entry| entry.pressure.as_ref());
    let dir = dir.ok_or(Errno::OPNOTSUPP)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match rustix::fs::openat(dir, resource.file(), flags, Mode::empty()) {
        Err(Errno::NOENT) => return Err(Errno::OPNOTSUPP),
        other => other?,
    };
    rustix::io::write(&file, trigger)?;
    Ok(file)
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
    fn a_container_without_a_v2_cgroup_has_no_triggers() {
        let none = BrokerContainer::default();
        let got = open_trigger(Some(&none), Resource::Cpu, b"some 150000 2000000");
        assert_eq!(got.unwrap_err(), Errno::OPNOTSUPP);
        let empty = tempfile::tempdir().unwrap();
        let entry = BrokerContainer {
            pressure: Some(std::fs::File::open(empty.path()).unwrap().into()),
            network: None,
        };
        let got = open_trigger(Some(&entry), Resource::Cpu, b"some 150000 2000000");
        assert_eq!(got.unwrap_err(), Errno::OPNOTSUPP);
    }
}
