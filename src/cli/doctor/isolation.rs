//! Checks of what isolation needs: ids for containers, user namespaces, and a kernel that maps files.
//!
//! What is missing is wrong where `[isolation]` is enabled, and a note where it is not.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use eci_fs_mountd::config::Isolation;
use eci_fs_mountd::container::procfs::Proc;
use eci_fs_mountd::isolation::ranges::{DEFAULT, Files, Ranges};
use eci_fs_mountd::isolation::{default_claims, make_user_namespace};
use eci_fs_mountd::runtime_dir::RuntimeDir;
use eci_fs_protocol::error::{Error, Kind};
use rustix::io::Errno;

use super::{Findings, Status};
use crate::cli::count;
use crate::isolation::trials;

/// The engine, the directory in which it keeps images and containers if nothing else is configured, and the file and the
/// key that name another directory.
const DISKS: [(&str, &str, &str, &str); 3] = [
    (
        "docker",
        "/var/lib/docker",
        "etc/docker/daemon.json",
        "data-root",
    ),
    (
        "containerd",
        "/var/lib/containerd",
        "etc/containerd/config.toml",
        "root",
    ),
    (
        "podman",
        "/var/lib/containers",
        "etc/containers/storage.conf",
        "storage.graphroot",
    ),
];

/// The directory that is tried where no engine has one.
const OTHER_DISK: &str = "/var/lib";

/// The most overlaps that are named. Of further ones only the number is told.
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
        Ok(user_namespace) => {
            findings.ok("a user namespace with ids of its own can be made");
            let disks = disks(root);
            files(findings, missing, &disks, &Kernel(user_namespace.as_fd()));
        }
        Err(error) => findings.add(missing, error.what, error.remedy),
    }
    match RuntimeDir::open(&default_claims()) {
        Err(error) if error.kind != Kind::NotFound => {
            findings.add(missing, error.what, error.remedy)
        }
        _ => {}
    }
}

/// Returns the directories of the engines of this host that exist, each with the name of the engine.
fn disks(root: &Path) -> Vec<(&'static str, PathBuf)> {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let found = DISKS.into_iter().map(|(engine, usual, file, key)| {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        let other = configured(&text, key);
        (engine, below(other.as_deref().unwrap_or(usual)))
    });
    let mut found: Vec<_> = found.filter(|(_, path)| path.is_dir()).collect();
    if found.is_empty() {
        let other = below(OTHER_DISK);
        let other = if other.is_dir() {
            other
        } else {
            root.to_owned()
        };
        found.push(("engines", other));
    }
    found
}

/// Returns the path that a configuration has for a key: `{ "key": "path" }` in JSON, or `table.key` in TOML.
fn configured(text: &str, key: &str) -> Option<String> {
    if text.trim_start().starts_with('{') {
        let json: serde_json::Value = serde_json::from_str(text).ok()?;
        return Some(json.get(key)?.as_str()?.to_owned());
    }
    let document: toml_edit::DocumentMut = text.parse().ok()?;
    let mut item = document.as_item();
    for part in key.split('.') {
        item = item.get(part)?;
    }
    Some(item.as_str()?.to_owned())
}

/// The trials of the kernel.
trait Trials {
    fn directory(&self, path: &Path) -> Result<(), Errno>;
    fn overlay(&self, path: &Path) -> Result<(), Errno>;
    fn tmpfs(&self) -> Result<(), Errno>;
}

/// The kernel of this host, with a user namespace whose ids are mapped.
struct Kernel<'a>(BorrowedFd<'a>);

impl Trials for Kernel<'_> {
    fn directory(&self, path: &Path) -> Result<(), Errno> {
        trials::map_directory(path, self.0)
    }

    fn overlay(&self, path: &Path) -> Result<(), Errno> {
        trials::overlay_of_mapped(path, self.0)
    }

    fn tmpfs(&self) -> Result<(), Errno> {
        trials::map_tmpfs(self.0)
    }
}

/// Maps files on the disk of each engine, and on a tmpfs.
fn files(
    findings: &mut Findings,
    missing: Status,
    disks: &[(&'static str, PathBuf)],
    kernel: &impl Trials,
) {
    for (engine, path) in disks {
        let shown = path.display();
        let failed = match kernel.directory(path) {
            Ok(()) => kernel.overlay(path).err().map(|errno| {
                let what = format!(
                    "the kernel makes no overlay of ID-mapped layers ({errno}): no container of {engine} whose root is \
                     an overlay can be isolated"
                );
                (what, remedy(errno, "boot Linux 5.19 or newer"))
            }),
            Err(errno) => {
                let what = format!(
                    "the files in {shown} cannot be ID-mapped ({errno}): no container of {engine} can be isolated"
                );
                let disk = "put that directory on ext4, on xfs, or on btrfs with Linux 5.15 or newer";
                Some((what, remedy(errno, disk)))
            }
        };
        match failed {
            None => findings.ok(format!(
                "the files of {engine} in {shown} can be ID-mapped, with an overlay on them"
            )),
            Some((what, remedy)) => findings.add(missing, what, Some(remedy)),
        }
    }
    // Only volumes on a tmpfs need this.
    match kernel.tmpfs() {
        Ok(()) => findings.ok("the files of a tmpfs can be ID-mapped"),
        Err(errno) => findings.note(
            format!(
                "the files of a tmpfs cannot be ID-mapped ({errno}): those of a volume on one belong to nobody"
            ),
            &remedy(errno, "boot Linux 6.3 or newer"),
        ),
    }
}

/// Returns what helps against an error of the kernel; `otherwise` if the kernel cannot do it.
fn remedy(errno: Errno, otherwise: &str) -> String {
    match errno {
        Errno::NOSYS => "boot Linux 5.19 or newer; a seccomp filter may also forbid mount_setattr",
        Errno::PERM | Errno::ACCESS => {
            "a seccomp filter or a security module forbids it: run eci-fs and the engine outside of a container"
        }
        _ => otherwise,
    }
    .to_owned()
}

fn ranges(findings: &mut Findings, missing: Status, user: &str, found: &Result<Ranges, Error>) {
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

    /// A kernel that answers the three trials so: of a directory, of an overlay, of a tmpfs.
    struct Answers([Result<(), Errno>; 3]);

    impl Trials for Answers {
        fn directory(&self, _: &Path) -> Result<(), Errno> {
            self.0[0]
        }

        fn overlay(&self, _: &Path) -> Result<(), Errno> {
            self.0[1]
        }

        fn tmpfs(&self) -> Result<(), Errno> {
            self.0[2]
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_wrong_only_where_containers_are_isolated() {
        let disks = [("docker", PathBuf::from("/srv/docker"))];
        let said =
            |state, answers| text(|findings| files(findings, state, &disks, &Answers(answers)));
        let (no_call, invalid) = (Err(Errno::NOSYS), Err(Errno::INVAL));
        let old = said(Status::Wrong, [no_call; 3]);
        assert_eq!(old.matches("WRONG").count(), 1, "{old}");
        assert!(
            old.contains("the files in /srv/docker cannot be ID-mapped"),
            "{old}"
        );
        assert!(old.contains("-> boot Linux 5.19 or newer"), "{old}");
        assert!(!said(Status::Note, [no_call; 3]).contains("WRONG"));
        let no_overlay = said(Status::Wrong, [Ok(()), invalid, invalid]);
        assert!(
            no_overlay.contains("WRONG  the kernel makes no overlay of ID-mapped layers"),
            "{no_overlay}"
        );
        let no_tmpfs = said(Status::Wrong, [Ok(()), Ok(()), invalid]);
        assert!(
            !no_tmpfs.contains("WRONG") && no_tmpfs.contains("-> boot Linux 6.3 or newer"),
            "{no_tmpfs}"
        );
        let other_disk = said(Status::Wrong, [invalid, Ok(()), Ok(())]);
        assert!(
            other_disk.contains("-> put that directory on ext4"),
            "{other_disk}"
        );
        let forbidden = said(Status::Wrong, [Err(Errno::PERM), Ok(()), Ok(())]);
        assert!(forbidden.contains("-> a seccomp filter"), "{forbidden}");
        assert_eq!(said(Status::Wrong, [Ok(()); 3]).matches("  ok ").count(), 2);
    }

    #[test]
    fn the_directories_of_engines_are_those_of_their_configurations() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(disks(root), [("engines", root.to_owned())]);
        for path in [
            "srv/docker",
            "srv/podman",
            "var/lib/containerd",
            "etc/docker",
            "etc/containers",
        ] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        let docker = r#"{ "data-root": "/srv/docker" }"#;
        std::fs::write(root.join("etc/docker/daemon.json"), docker).unwrap();
        let podman = "[storage]\ngraphroot = \"/srv/podman\"\n";
        std::fs::write(root.join("etc/containers/storage.conf"), podman).unwrap();
        let wanted = [
            ("docker", "srv/docker"),
            ("containerd", "var/lib/containerd"),
            ("podman", "srv/podman"),
        ];
        assert_eq!(
            disks(root),
            wanted.map(|(engine, path)| (engine, root.join(path)))
        );
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
