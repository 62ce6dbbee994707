//! Checks of what isolation needs: ids for containers, user namespaces, and a kernel that maps files.
//!
//! What is missing is wrong where `[isolation]` is enabled, and a note where it is not.

use std::path::Path;

use eci_fs_mountd::config::Isolation;
use eci_fs_mountd::container::procfs::Proc;
use eci_fs_mountd::isolation::ranges::{DEFAULT, Files, Ranges};
use eci_fs_mountd::isolation::{default_claims, make_user_namespace};
use eci_fs_mountd::runtime_dir::RuntimeDir;
use eci_fs_protocol::error::{Error, Kind, Result};

use super::kernel::version;
use super::{Findings, Status};
use crate::cli::count;

/// The kernels from which on something is there that isolation needs: the feature, and what is missing without it.
const KERNELS: [((u32, u32), &str, &str); 3] = [
    ((5, 12), "ID-mapped mounts", "no container can be isolated"),
    (
        (5, 19),
        "overlay of ID-mapped layers",
        "no container can be isolated whose root is an overlay",
    ),
    (
        (6, 3),
        "ID-mapped tmpfs",
        "files on a tmpfs that several containers have belong to nobody",
    ),
];

/// The overlaps that are named. Where there are more their number is.
const MOST_OVERLAPS: usize = 5;

/// Examines the host whose root directory is `root`, where the engines' configurations are.
pub(super) fn examine(findings: &mut Findings, root: &Path, settings: &Isolation) {
    let missing = match settings.enabled {
        true => Status::Wrong,
        false => Status::Note,
    };
    findings.ok(match settings.enabled {
        true => "eci-runc isolates every container",
        false => "containers are not isolated: enabled is false in [isolation]",
    });
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    kernels(findings, missing, &release);
    let found = Files::below(root).ranges(&settings.user);
    ranges(findings, missing, &settings.user, &found);
    sysctls(findings, missing, |name| {
        let text = std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        Some(text.trim().to_owned())
    });
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // With ids that a container would get, or others that none has.
    let first_ids = found.map(|ranges| ranges.first_ids).unwrap_or_default();
    let first_id = first_ids.last().copied().unwrap_or(DEFAULT.0);
    let made = Proc::open().and_then(|proc| make_user_namespace(&proc, first_id, false));
    match made {
        Ok(_) => findings.ok("a user namespace with ids of its own can be made"),
        Err(error) => findings.add(missing, error.what, error.remedy),
    }
    match RuntimeDir::open(&default_claims()) {
        Err(error) if error.kind != Kind::NotFound => {
            findings.add(missing, error.what, error.remedy)
        }
        _ => {}
    }
}

fn kernels(findings: &mut Findings, missing: Status, release: &str) {
    // The kernel part says it if the version is of unknown form.
    let Some(version) = version(release) else {
        return;
    };
    for (since, feature, without) in KERNELS {
        if version >= since {
            findings.ok(feature);
            continue;
        }
        // Without a tmpfs there is little that does not work.
        let state = if since == (6, 3) {
            Status::Note
        } else {
            missing
        };
        let remedy = format!("boot Linux {}.{} or newer", since.0, since.1);
        findings.add(
            state,
            format!("the kernel has no {feature}: {without}"),
            Some(remedy),
        );
    }
}

fn ranges(findings: &mut Findings, missing: Status, user: &str, found: &Result<Ranges>) {
    let ranges = match found {
        Ok(ranges) => ranges,
        Err(Error { what, remedy, .. }) => {
            return findings.add(missing, what.clone(), remedy.clone());
        }
    };
    let of = match ranges.is_default {
        true => format!(
            "{} to {}, because user {user} has no lines in /etc/subuid and /etc/subgid",
            DEFAULT.0,
            u64::from(DEFAULT.0) + u64::from(DEFAULT.1) - 1
        ),
        false => format!("the lines of user {user} in /etc/subuid and /etc/subgid"),
    };
    let number = count(ranges.first_ids.len(), "range");
    findings.ok(format!("{number} of 65536 ids for containers, of {of}"));
    let remedy =
        "no container gets a range with such an id; where that is too few, give the user other ids";
    let others = ranges.overlaps.iter();
    // Root and nobody are on every host.
    let others: Vec<&String> = others.filter(|words| !words.contains(" is ")).collect();
    for words in others.iter().take(MOST_OVERLAPS) {
        findings.note((*words).clone(), remedy);
    }
    if others.len() > MOST_OVERLAPS {
        let more = count(others.len() - MOST_OVERLAPS, "more user, group or line");
        findings.note(
            format!("{more} with ids among those for containers"),
            remedy,
        );
    }
}

/// Examines the sysctls that restrict user namespaces. `read` returns the value of one that there is.
fn sysctls(findings: &mut Findings, missing: Status, read: impl Fn(&str) -> Option<String>) {
    if read("user/max_user_namespaces").is_some_and(|most| most == "0") {
        findings.add(
            missing,
            "user.max_user_namespaces is 0: no container can be isolated".to_owned(),
            Some("sysctl -w user.max_user_namespaces=65536".to_owned()),
        );
    }
    // The daemon makes user namespaces as root, which these do not forbid.
    for (name, forbids) in [
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ] {
        if read(name).is_some_and(|value| value == forbids) {
            let name = name.replace('/', ".");
            findings.note(
                format!("{name} is {forbids}: programs in isolated containers can make no user namespaces of their own"),
                "containers are isolated all the same",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(work: impl FnOnce(&mut Findings)) -> String {
        let mut findings = Findings::default();
        findings.begin("isolation");
        work(&mut findings);
        findings.text()
    }

    #[test]
    fn a_kernel_that_is_too_old_is_wrong_only_where_containers_are_isolated() {
        let said = |state, release| text(|findings| kernels(findings, state, release));
        let old = said(Status::Wrong, "5.10.0-32");
        assert_eq!(old.matches("WRONG").count(), 2, "{old}");
        assert!(old.contains("-> boot Linux 5.19 or newer"), "{old}");
        assert!(!said(Status::Note, "5.10.0-32").contains("WRONG"));
        let between = said(Status::Wrong, "6.1.0");
        assert!(
            !between.contains("WRONG")
                && between.contains("note   the kernel has no ID-mapped tmpfs"),
            "{between}"
        );
        assert_eq!(said(Status::Wrong, "6.12.1").matches("  ok ").count(), 3);
    }

    #[test]
    fn overlaps_with_users_are_named_and_many_are_counted() {
        let overlaps: Vec<String> = (0..8)
            .map(|number| format!("user u{number} has the id {number}"))
            .collect();
        let found = Ok(Ranges {
            first_ids: vec![524_288],
            is_default: true,
            overlaps: [vec!["0 is the host's root".to_owned()], overlaps].concat(),
        });
        let said = text(|findings| ranges(findings, Status::Wrong, "eci-fs", &found));
        assert!(
            said.contains("1 range of 65536 ids for containers, of 524288 to 1879048191"),
            "{said}"
        );
        assert!(
            said.contains("user u4 has") && !said.contains("user u5"),
            "{said}"
        );
        assert!(
            said.contains("3 more") && !said.contains("host's root"),
            "{said}"
        );
        let error =
            Err(Error::refused("line 3 of /etc/subuid names no ids").remedy("write others"));
        let said = text(|findings| ranges(findings, Status::Wrong, "eci-fs", &error));
        assert!(
            said.contains("WRONG  line 3") && said.contains("-> write others"),
            "{said}"
        );
    }

    #[test]
    fn sysctls_that_restrict_user_namespaces_are_found() {
        let said = |name: &'static str, value: &'static str| {
            text(|findings| {
                sysctls(findings, Status::Wrong, |asked| {
                    (asked == name).then(|| value.to_owned())
                });
            })
        };
        assert!(
            said("user/max_user_namespaces", "0").contains("WRONG  user.max_user_namespaces is 0")
        );
        for (name, value, other) in [
            ("kernel/unprivileged_userns_clone", "0", "1"),
            ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ] {
            let words = said(name, value);
            assert!(
                words.contains("note") && words.contains(&name.replace('/', ".")),
                "{words}"
            );
            assert_eq!(said(name, other), "");
        }
        assert_eq!(said("user/max_user_namespaces", "31000"), "");
    }
}
