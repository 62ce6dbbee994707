//! /proc/pressure: the files of the container's v2 cgroup, where it has one that is not the root, and triggers.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::source::{equal, file, join, steady};
use crate::{LIMITS, Live};

pub(crate) const VIEWS: &[&str] = &[
    "/proc/pressure/cpu",
    "/proc/pressure/memory",
    "/proc/pressure/io",
    "/proc/pressure/irq",
];

/// Any stall of 1 ms in 2 s, the shortest window for whoever may not have others.
const TRIGGER: &str = "some 1000 2000000\0";

/// Those that this kernel has.
fn here() -> impl Iterator<Item = &'static &'static str> + Clone {
    VIEWS.iter().filter(|path| Path::new(path).exists())
}

/// A container that is in a cgroup of v2 as well.
fn hybrid() -> Option<(Live, std::path::PathBuf)> {
    hybrid_of(Live::start(&LIMITS)?)
}

pub(crate) fn hybrid_of(live: Live) -> Option<(Live, std::path::PathBuf)> {
    let dir = join(&live.cgroup, "unified", live.container.pid());
    // It was described before it had this cgroup.
    live.scene.detach(&live.container);
    live.scene.attach(&live.container);
    Some((live, dir))
}

/// Write a trigger to a file of the container, as a process in it would.
fn trigger(live: &Live, path: &str, text: &str) -> std::io::Result<File> {
    let path = format!("/proc/{}/root{path}", live.container.pid());
    let mut file = File::options().read(true).write(true).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

#[test]
fn privileged_pressure_without_a_v2_cgroup_is_zero_and_takes_no_trigger() {
    let Some(live) = Live::start(&LIMITS) else {
        return;
    };
    for path in here() {
        let line = "avg10=0.00 avg60=0.00 avg300=0.00 total=0";
        let kernel = file(path);
        let expected: Vec<String> = kernel
            .lines()
            .map(|row| format!("{} {line}", row.split(' ').next().unwrap()))
            .collect();
        let view = live.seen(path);
        assert_eq!(
            view.trim_end().lines().collect::<Vec<_>>(),
            expected,
            "{path}"
        );
        let error = trigger(&live, path, TRIGGER).unwrap_err();
        let expected = rustix::io::Errno::OPNOTSUPP.raw_os_error();
        assert_eq!(error.raw_os_error(), Some(expected), "{path}: {error}");
    }
}

#[test]
fn privileged_pressure_of_a_hybrid_container_is_that_of_its_v2_cgroup() {
    let Some((mut live, dir)) = hybrid() else {
        return;
    };
    live.container.ask(&["burn", "150"]);
    for path in here() {
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        let source = dir.join(format!("{name}.pressure"));
        let judge = |kernel: &String, view: &str| equal(path, view.trim_end(), kernel.trim_end());
        steady(|| file(&source), || live.seen(path), judge);
    }
}

#[test]
fn privileged_a_trigger_is_answered_as_the_kernel_answers_one_on_the_cgroup() {
    let Some((mut live, dir)) = hybrid() else {
        return;
    };
    for text in ["some 1", "nonsense 1 2", "some 3000000 2000000", ""] {
        let path = dir.join("cpu.pressure");
        let kernel = File::options().read(true).write(true).open(path);
        let kernel = kernel.and_then(|mut file| file.write(text.as_bytes()).map(drop));
        let view = trigger(&live, "/proc/pressure/cpu", text);
        let errno =
            |result: Result<(), std::io::Error>| result.err().and_then(|e| e.raw_os_error());
        // An empty write does not reach a file system.
        assert_eq!(errno(view.map(drop)), errno(kernel), "{text:?}");
    }
    let own = fs::write(dir.join("cpu.pressure"), TRIGGER);
    let file = trigger(&live, "/proc/pressure/cpu", TRIGGER);
    assert_eq!(own.is_ok(), file.is_ok(), "{own:?} {file:?}");
    let Ok(file) = file else { return };
    press(&mut live);
    assert_fires(&file);
}

/// Have more run than there are CPUs.
fn press(live: &mut Live) {
    let busybox = live.container.program("busybox");
    let spin = format!("{busybox} sh -c 'while :; do :; done' >/dev/null 2>&1 &");
    live.container
        .busybox(&["sh", "-c", &[&*spin, &*spin, &*spin].join(" ")]);
}

fn assert_fires(file: &File) {
    let mut fds = [PollFd::new(file, PollFlags::PRI)];
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let ready = poll(&mut fds, Some(&limit)).unwrap();
    assert_eq!(ready, 1, "no event in 20 s");
    assert_eq!(fds[0].revents(), PollFlags::PRI);
}

#[test]
fn privileged_a_trigger_fires_although_the_server_was_killed_and_then_the_daemon() {
    let Some(live) = Live::start_with(&[], &LIMITS) else {
        return;
    };
    let Some((mut live, _)) = hybrid_of(live) else {
        return;
    };
    let file = trigger(&live, "/proc/pressure/cpu", TRIGGER).unwrap();
    let file = std::thread::spawn(move || {
        assert_fires(&file);
        file
    });
    let mut daemon = live._daemon.take().unwrap();
    daemon.kill_server();
    daemon.wait_for("the server died");
    live.scene.list();
    daemon.die();
    let mut daemon = live.scene.daemon(&[]);
    daemon.kill_server();
    daemon.wait_for("the server died");
    live._daemon = Some(daemon);
    press(&mut live);
    file.join().unwrap();
}

#[test]
fn privileged_a_descriptor_has_one_trigger_and_a_container_32() {
    let Some((live, _)) = hybrid() else { return };
    let errno = |error: std::io::Error| error.raw_os_error();
    let mut held = Vec::new();
    for path in here().cycle().take(32) {
        held.push(trigger(&live, path, TRIGGER).unwrap());
    }
    let more = trigger(&live, "/proc/pressure/cpu", TRIGGER).unwrap_err();
    assert_eq!(errno(more), Some(rustix::io::Errno::MFILE.raw_os_error()));
    let second = held[0].write(TRIGGER.as_bytes()).unwrap_err();
    assert_eq!(errno(second), Some(rustix::io::Errno::BUSY.raw_os_error()));
    // What is closed makes room. The close of a descriptor comes to the server on its own time.
    held.clear();
    let end = Instant::now() + support::PATIENCE;
    while let Err(error) = trigger(&live, "/proc/pressure/cpu", TRIGGER) {
        assert!(Instant::now() < end, "{error}");
    }
}
