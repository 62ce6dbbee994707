//! Checks of the kernel. Each tries the feature itself where possible, instead of comparing versions.

use std::fs;
use std::path::Path;

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::mount::OpenTreeFlags;
use rustix::process::PidfdFlags;

use super::Findings;

/// The first kernel version that resends the requests that a dead server had read (FUSE_NOTIFY_RESEND).
const RESEND: (u32, u32) = (6, 9);

/// The controllers that views read.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "cpuset"];

pub(super) fn examine(findings: &mut Findings) {
    if rustix::process::geteuid().is_root() {
        findings.ok("run by root");
    } else {
        findings.wrong(
            "not run by root: most of this cannot be found out",
            "run it with sudo",
        );
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match version(release) {
        Some(version) if version >= RESEND => findings.ok(format!("Linux {release}")),
        Some(_) => findings.note(
            format!("Linux {release}: reads that are on their way when the server dies fail"),
            "from Linux 6.9 on they are sent again",
        ),
        None => findings.note(
            format!("Linux {release}, a version of unknown form"),
            "see below",
        ),
    }
    match fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => findings.ok("/dev/fuse can be opened"),
        Err(error) => findings.wrong(
            format!("/dev/fuse cannot be opened: {error}"),
            "modprobe fuse; in a container, pass the device in",
        ),
    }
    let own = rustix::process::getpid();
    needs(
        findings,
        "pidfd_open(2)",
        "5.3",
        rustix::process::pidfd_open(own, PidfdFlags::empty()).is_ok(),
    );
    let tree = rustix::mount::open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC);
    needs(
        findings,
        "open_tree(2) and move_mount(2)",
        "5.2",
        tree.is_ok(),
    );
    let mount = rustix::fs::statx(CWD, "/proc", AtFlags::empty(), StatxFlags::MNT_ID);
    let known = mount.is_ok_and(|found| found.stx_mask & StatxFlags::MNT_ID.bits() != 0);
    needs(findings, "the mount id of statx(2)", "5.8", known);
    if has_landlock() {
        findings.ok("Landlock");
    } else {
        findings.note(
            "no Landlock: the server is confined by its filter of system calls alone",
            "boot with landlock in the list lsm=",
        );
    }
    if Path::new("/proc/pressure/memory").exists() {
        findings.ok("pressure stall information");
    } else {
        findings.note(
            "no pressure stall information, so no views of it",
            "boot with psi=1",
        );
    }
}

fn needs(findings: &mut Findings, what: &str, since: &str, has: bool) {
    if has {
        findings.ok(what);
    } else {
        findings.wrong(
            format!("the kernel has no {what}"),
            &format!("boot Linux {since} or newer"),
        );
    }
}

/// Returns whether a Landlock rule set can be created. Creating one restricts nothing.
fn has_landlock() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// Returns the major and the minor version: (6, 12) of "6.12.3-cloud".
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn examine_cgroups(findings: &mut Findings) {
    let mounts = match fs::read_to_string("/proc/self/mountinfo") {
        Ok(text) => text,
        Err(error) => {
            return findings.wrong(
                format!("/proc/self/mountinfo cannot be read: {error}"),
                "mount /proc",
            );
        }
    };
    let layout = Layout::of(&mounts, |top| {
        fs::read_to_string(Path::new(top).join("cgroup.controllers")).unwrap_or_default()
    });
    match (layout.v1, layout.v2) {
        (false, true) => findings.ok("cgroup v2"),
        (true, false) => findings.ok("cgroup v1"),
        (true, true) => findings.ok("cgroup v1, and v2 beside it"),
        (false, false) => findings.wrong("no cgroups are mounted", "mount them"),
    }
    if layout.split {
        findings.note(
            "both versions have controllers: crun starts no container then",
            "use runc, or boot with systemd.unified_cgroup_hierarchy=1",
        );
    }
    for controller in CONTROLLERS {
        if layout.controllers.iter().any(|name| name == controller) {
            findings.ok(format!("the controller {controller}"));
        } else {
            findings.wrong(
                format!("no cgroup has the controller {controller}, so its limits cannot be set"),
                &format!(
                    "boot with cgroup_enable={controller}, or without cgroup_disable={controller}"
                ),
            );
        }
    }
}

/// The mounted cgroup hierarchies.
#[derive(Debug, Default, PartialEq, Eq)]
struct Layout {
    v1: bool,
    v2: bool,
    /// True if both versions have controllers.
    split: bool,
    controllers: Vec<String>,
}

impl Layout {
    /// Parses a mountinfo. `controllers` returns the controllers of the v2 hierarchy that is mounted at a path.
    fn of(mountinfo: &str, controllers: impl Fn(&str) -> String) -> Self {
        let mut this = Self::default();
        for (left, right) in mountinfo.lines().filter_map(|line| line.split_once(" - ")) {
            let top = left.split(' ').nth(4).unwrap_or_default();
            let mut words = right.split(' ');
            match words.next() {
                Some("cgroup") => {
                    this.v1 = true;
                    let options = words.nth(1).unwrap_or_default();
                    this.controllers
                        .extend(options.split(',').map(str::to_owned));
                }
                Some("cgroup2") => {
                    this.v2 = true;
                    let names = controllers(top);
                    let names: Vec<_> = names.split_whitespace().map(str::to_owned).collect();
                    this.split |= !names.is_empty();
                    this.controllers.extend(names);
                }
                _ => {}
            }
        }
        this.split &= this.v1;
        this
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_and_compared_as_such() {
        assert_eq!(version("6.12.3-cloud-amd64"), Some((6, 12)));
        assert_eq!(version("5.4-rc1"), Some((5, 4)));
        assert!(version("6.10").unwrap() > RESEND);
        assert!(version("6.8.0").unwrap() < RESEND);
        assert_eq!(version("next"), None);
    }

    #[test]
    fn the_layout_of_cgroups_is_read_from_mounts() {
        let v1 = "30 28 0:29 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                  31 28 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let v2 = "40 28 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let layout = Layout::of(v1, |_| unreachable!());
        assert!(layout.v1 && !layout.v2 && !layout.split);
        assert!(layout.controllers.contains(&"cpu".to_owned()));
        assert!(!Layout::of(&format!("{v1}{v2}"), |_| String::new()).split);
        let layout = Layout::of(&format!("{v1}{v2}"), |top| {
            assert_eq!(top, "/sys/fs/cgroup/unified");
            "hugetlb\n".to_owned()
        });
        assert!(layout.split);
        let layout = Layout::of(v2, |_| "cpuset cpu io memory\n".to_owned());
        assert!(layout.v2 && !layout.v1 && !layout.split);
        assert_eq!(layout.controllers, ["cpuset", "cpu", "io", "memory"]);
        assert_eq!(Layout::of("", |_| String::new()), Layout::default());
    }
}
