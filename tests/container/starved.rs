//! Exhausted descriptors, processes, memory, or space. Existing containers are still served, and new ones are refused.
//! Once there is enough again, everything works as before.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use support::{Cgroup, Container, Limits, Scene, number_after, status_field};

use crate::{limits, scene, sees, sees_the_host};

/// Descriptors more than there are, at each of which an attach is tried: each at first, and then fewer, up to what it
/// takes at most.
const MORE: [u64; 18] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 19, 28, 45, 78, 143, 272,
];

/// Let a process have no descriptor from `most` on; the limit that it had.
#[track_caller]
fn limit_descriptors(pid: u32, most: u64) -> u64 {
    let ids = |key| {
        let ids = status_field(pid, key).unwrap();
        ids.split('\t').next().unwrap().parse().unwrap()
    };
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let before = number_after(&limits, "Max open files");
    // The hard limit stays: it could not be raised again.
    let limit = Rlimit {
        current: Some(most),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let process = Pid::from_raw(i32::try_from(pid).unwrap());
    if prlimit(process, Resource::Nofile, limit).is_ok() {
        return before;
    }
    // Only a process of the same user may do so without CAP_SYS_RESOURCE.
    let ran = Command::new("prlimit")
        .args([format!("--pid={pid}"), format!("--nofile={most}:")])
        .uid(ids("Uid:"))
        .gid(ids("Gid:"))
        .status();
    assert!(ran.unwrap().success());
    before
}

/// The first number that a new descriptor of a process would not have while it has as many as now, and the one
/// after its greatest.
#[track_caller]
fn descriptors(pid: u32) -> (u64, u64) {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let numbers: BTreeSet<u64> = names.map(|name| name.parse().unwrap()).collect();
    let free = (0..).find(|number| !numbers.contains(number)).unwrap();
    (free, numbers.last().unwrap() + 1)
}

/// Attach `new` under each limit of descriptors of `pid`, whatever comes of it, and see that `old` is served on. When the
/// process has none left, it can close `closable` of its own. How often it was refused.
#[track_caller]
fn attach_with_few_descriptors(
    scene: &Scene,
    pid: u32,
    closable: u64,
    old: &mut Container,
    new: &mut Container,
) -> usize {
    let mounts = new.mounts();
    let (first, last) = descriptors(pid);
    let mut refused = 0;
    let before = limit_descriptors(pid, first);
    // Up to the greatest only numbers that were closed are free.
    for most in (first - closable..last).chain(MORE.map(|more| last + more)) {
        limit_descriptors(pid, most);
        let ran = scene.eci_fs(&["attach", &new.pid().to_string()]);
        sees(old, 128, 1);
        limit_descriptors(pid, before);
        if ran.code == Some(0) {
            sees(new, 96, 1);
            scene.detach(new);
        } else {
            ran.refused(&["Too many open files"]);
            refused += 1;
        }
        assert_eq!(new.mounts(), mounts, "with {most}: {ran:?}");
        assert_eq!(scene.list().len(), 1, "with {most}: {ran:?}");
    }
    refused
}

#[test]
fn privileged_a_daemon_without_descriptors_refuses_what_is_new_and_keeps_what_it_has() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let mut old = scene.container().limits(limits(128, 1.0)).start();
    let mut new = scene.container().limits(limits(96, 1.0)).start();
    scene.attach(&old);
    sees(&mut old, 128, 1);
    let pid = daemon.pid();
    let refused = attach_with_few_descriptors(&scene, pid, 0, &mut old, &mut new);
    assert!(refused > 5, "{refused}");
    // A server that dies meanwhile is started when there are enough again.
    let before = limit_descriptors(pid, descriptors(pid).0);
    daemon.kill_server();
    daemon.wait_for("the server died");
    daemon.wait_for("Too many open files");
    limit_descriptors(pid, before);
    scene.wait_for_server();
    sees(&mut old, 128, 1);
    scene.attach(&new);
    sees(&mut new, 96, 1);
    drop((old, new));
    daemon.end();
}

#[test]
fn privileged_a_server_without_descriptors_refuses_what_is_new_and_serves_what_it_has() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut old = scene.container().limits(limits(128, 1.0)).start();
    let mut new = scene.container().limits(limits(96, 1.0)).start();
    scene.attach(&old);
    sees(&mut old, 128, 1);
    // What is prepared for the next container has the server open files.
    daemon.wait_for_rest();
    let server = daemon.server();
    let refused = attach_with_few_descriptors(&scene, server, 20, &mut old, &mut new);
    assert!(refused > 5, "{refused}");
    assert_eq!(daemon.server(), server, "it is the same");
    scene.attach(&new);
    sees(&mut new, 96, 1);
    drop((old, new));
    daemon.end();
}

/// The cgroup in which the number of processes is limited.
#[track_caller]
fn pids_of(cgroup: &Cgroup) -> PathBuf {
    let dir = cgroup
        .dirs()
        .into_iter()
        .find(|dir| dir.join("pids.max").exists());
    dir.expect("a pids controller")
}

#[test]
fn privileged_a_server_that_cannot_be_started_is_started_when_there_may_be_processes_again() {
    let scene = scene();
    let cgroup = Cgroup::new(&Limits::default());
    let mut daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let new = scene.container().start();
    let mounts = new.mounts();
    scene.attach(&container);
    daemon.wait_for_rest();
    cgroup.add(daemon.pid());
    let pids = pids_of(&cgroup);
    let now = fs::read_to_string(pids.join("pids.current")).unwrap();
    fs::write(pids.join("pids.max"), now).unwrap();
    sees(&mut container, 128, 1);
    // A thread for it is one too many.
    let ran = scene.eci_fs(&["attach", &new.pid().to_string()]);
    ran.refused(&["Resource temporarily unavailable", "limit"]);
    assert_eq!(new.mounts(), mounts);
    daemon.kill_server();
    daemon.wait_for("the server died");
    daemon.wait_for("Resource temporarily unavailable");
    fs::write(pids.join("pids.max"), "max").unwrap();
    // What the kernel believes it reads without one.
    scene.wait_for_server();
    sees(&mut container, 128, 1);
    scene.attach(&new);
    assert_eq!(scene.list().len(), 2);
    drop((container, new));
    daemon.end();
}

#[test]
fn privileged_a_server_that_the_kernel_kills_for_its_memory_is_not_missed() {
    /// Open files, each of which takes some memory of the server's.
    const FILES: usize = 800;
    let scene = scene();
    let cgroup = Cgroup::new(&Limits {
        memory: Some(1 << 20),
        ..Limits::default()
    });
    // All views are snapshots then.
    let mut daemon = scene.daemon(&["--freshness", "0"]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    // What it uses now is not the cgroup's.
    cgroup.add(daemon.server());
    let path = format!("/proc/{}/root/proc/cpuinfo", container.pid());
    let whole = fs::read(&path).unwrap();
    let half = whole.len() / 2;
    let mut files: Vec<File> = Vec::new();
    for _ in 0..FILES {
        let file = File::open(&path).unwrap();
        let mut first = vec![0; half];
        file.read_exact_at(&mut first, 0).unwrap();
        assert_eq!(first, whole[..half]);
        files.push(file);
    }
    daemon.wait_for("the server died");
    for file in &files {
        let mut rest = vec![0; whole.len() - half];
        file.read_exact_at(&mut rest, half as u64).unwrap();
        assert_eq!(rest, whole[half..]);
    }
    sees(&mut container, 128, 1);
    assert!(cgroup.processes().is_empty(), "the next is not in it");
    drop(container);
    daemon.end();
}

#[test]
fn privileged_with_a_full_runtime_directory_what_is_served_is_served_on() {
    let scene = scene();
    let dir = scene.runtime_dir();
    fs::create_dir(&dir).unwrap();
    let options = c"size=64k,mode=0700";
    mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), options).unwrap();
    let mut daemon = scene.daemon(&[]);
    let mut first = scene.container().limits(limits(128, 1.0)).start();
    let mut second = scene.container().limits(limits(96, 1.0)).start();
    let mut third = scene.container().limits(limits(64, 1.0)).start();
    let mounts = second.mounts();
    scene.attach(&first);
    scene.attach(&second);
    scene.attach(&third);
    let ballast = dir.join("ballast");
    assert!(fs::write(&ballast, vec![1; 128 << 10]).is_err());
    daemon.kill_server();
    sees(&mut first, 128, 1);
    daemon.wait_for("the server died");
    // Nobody new is let in. What is taken away is taken away, and from the list too: that takes no space.
    let refused = scene.container().start();
    scene
        .eci_fs(&["attach", &refused.pid().to_string()])
        .refused(&["free space there"]);
    drop(refused);
    scene.detach(&second);
    assert_eq!(second.mounts(), mounts);
    assert_eq!(scene.list().len(), 2);
    third.kill();
    daemon.wait_for("the container has ended");
    assert_eq!(scene.list().len(), 1);
    // What is on the list of the daemon that takes over is no more than what there is.
    daemon.die();
    fs::remove_file(&ballast).unwrap();
    let daemon = scene.daemon(&[]);
    sees(&mut first, 128, 1);
    sees_the_host(&mut second);
    assert_eq!(second.mounts(), mounts);
    let ids: Vec<_> = scene.list().iter().map(|one| one["pid"].clone()).collect();
    assert_eq!(ids, [first.pid()]);
    scene.attach(&second);
    sees(&mut second, 96, 1);
    drop((first, second));
    daemon.end();
    unmount(&dir, UnmountFlags::empty()).unwrap();
}

/// The open files of a view in a container, opened until the server refuses.
#[track_caller]
fn open_all(container: &Container, path: &str) -> Vec<File> {
    let path = format!("/proc/{}/root{path}", container.pid());
    let opened = std::iter::from_fn(|| match File::open(&path) {
        Ok(file) => Some(file),
        Err(error) => {
            let errno = rustix::io::Errno::NFILE.raw_os_error();
            assert_eq!(error.raw_os_error(), Some(errno), "{error}");
            None
        }
    });
    opened.collect()
}

#[test]
fn privileged_a_container_that_holds_all_files_that_it_can_leaves_room_for_others() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    rustix::process::setrlimit(Resource::Nofile, all).unwrap();
    let scene = scene();
    // Thousands of texts are some seconds of work, and more than that for a share of a CPU.
    let daemon = scene.daemon(&["--cpu-share", "0"]);
    let hostile = scene.container().limits(limits(128, 1.0)).start();
    let mut other = scene.container().limits(limits(96, 1.0)).start();
    scene.attach(&hostile);
    scene.attach(&other);
    let path = "/proc/zoneinfo";
    let size = other.read(path).len();
    let held = open_all(&hostile, path);
    // 16 MiB of texts. Their number alone would allow 16,384.
    assert!(held.len() * size <= 16 << 20, "{} of {size}", held.len());
    assert!(held.len() > 1000, "{}", held.len());
    // The other one has its share all the same, and is served.
    let theirs = open_all(&other, path);
    assert!(theirs.len() * 4 > held.len() * 3, "{}", theirs.len());
    drop(theirs);
    sees(&mut other, 96, 1);
    drop(held);
    drop((hostile, other));
    daemon.end();
}
