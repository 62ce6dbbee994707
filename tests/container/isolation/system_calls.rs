//! System calls of isolated containers that a supervisor answers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Bundle, Container, Engine, Ran, children_of, let_time_pass, signal};
use xtask::vm::newer_runtimes;

use super::rig::{Rig, Style, shell};
use crate::scene;

/// The runtimes that can hand over a filter.
const ENGINES: [Engine; 2] = [Engine::Runc, Engine::Crun];

/// The time in which something happens.
const PATIENCE: Duration = Duration::from_secs(30);

/// The figures that sysinfo(2) gives.
type Figures = BTreeMap<String, u64>;

#[track_caller]
fn figures(container: &mut Container, command: &str) -> Figures {
    serde_json::from_value(container.ask(&[command])).unwrap()
}

/// The size in a row of meminfo, in bytes.
#[track_caller]
fn row(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
    let number = line.unwrap().trim().strip_suffix(" kB").unwrap();
    number.trim().parse::<u64>().unwrap() << 10
}

/// Checks that the figures are those of the views. What changes between two reads is compared with some room.
#[track_caller]
fn check(container: &mut Container, command: &str) {
    let meminfo = container.read("/proc/meminfo");
    let before: f64 = first(&container.read("/proc/uptime")).parse().unwrap();
    let loads = container.read("/proc/loadavg");
    let said = figures(container, command);
    let after: f64 = first(&container.read("/proc/uptime")).parse().unwrap();
    let unit = said["unit"];
    let size = |name: &str| said[name] * unit;
    assert_eq!(size("total"), row(&meminfo, "MemTotal:"), "{said:?}");
    assert_eq!(size("total"), MEMORY, "{said:?}");
    assert_eq!(size("swap"), row(&meminfo, "SwapTotal:"), "{said:?}");
    assert!(
        size("free").abs_diff(row(&meminfo, "MemFree:")) < 64 << 20,
        "{said:?}\n{meminfo}"
    );
    assert!(
        size("shared").abs_diff(row(&meminfo, "Shmem:")) < 16 << 20,
        "{said:?}\n{meminfo}"
    );
    assert_eq!(size("buffers"), row(&meminfo, "Buffers:"), "{said:?}");
    let uptime = said["uptime"] as f64;
    assert!(
        before <= uptime && uptime < after + 1.1,
        "{before} {uptime} {after}"
    );
    let load = said["load15"] as f64 / 65_536.0;
    let shown: f64 = loads.split(' ').nth(2).unwrap().parse().unwrap();
    assert!((load - shown).abs() < 0.1, "{load} {loads}");
    assert!((1..100).contains(&said["tasks"]), "{said:?}");
}

fn first(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// The supervisor of a daemon.
fn supervisor_of(daemon: u32) -> Option<u32> {
    children_of(daemon)
        .into_iter()
        .find(|pid| is_supervisor(*pid))
}

fn is_supervisor(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.ends_with(b"\0vet\0"))
}

#[track_caller]
fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

/// The number of listeners that a process has.
fn listeners_of(pid: u32) -> usize {
    let fds = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    links
        .filter(|link| link == Path::new("anon_inode:seccomp notify"))
        .count()
}

/// The bytes of memory of each container here. The host has more.
const MEMORY: u64 = 256 << 20;

/// Gives a container its limit of memory.
fn limit(bundle: &Bundle) {
    bundle.change(|config| config["linux"]["resources"]["memory"] = json!({ "limit": MEMORY }));
}

#[track_caller]
fn bundle(rig: &Rig<'_>, engine: Engine, name: &str) -> Bundle {
    let disk = rig.overlay(Style::Docker, &format!("{engine:?}{name}"));
    let bundle = rig.bundle(engine, &disk.root);
    limit(&bundle);
    bundle
}

#[track_caller]
fn start(rig: &Rig<'_>, engine: Engine, name: &str) -> Container {
    Container::of_bundle(bundle(rig, engine, name))
}

/// A bundle for the runtimes of the newest release.
#[track_caller]
fn newest(rig: &Rig<'_>, engine: Engine, usr: &Path) -> Bundle {
    let disk = rig.overlay(Style::Docker, &format!("{engine:?}newest"));
    let bundle = rig.bundle_of_release(engine, usr, &disk.root);
    limit(&bundle);
    bundle
}

#[test]
fn privileged_sysinfo_says_what_the_views_say_in_both_layouts() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let usr = newer_runtimes().unwrap();
    let usr = usr.join("usr");
    for engine in ENGINES {
        for mut container in [
            start(&rig, engine, "own"),
            Container::of_bundle(newest(&rig, engine, &usr)),
        ] {
            check(&mut container, "sysinfo");
            check(&mut container, "sysinfo32");
            assert_eq!(scene.list()[0]["vetted"], true);
            let free = container.busybox(&["free", "-k"]);
            let total: u64 = free
                .lines()
                .nth(1)
                .unwrap()
                .split_whitespace()
                .nth(1)
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(
                total << 10,
                row(&container.read("/proc/meminfo"), "MemTotal:"),
                "{free}"
            );
            let uptime = container.busybox(&["uptime"]);
            assert!(uptime.contains("up 0 min"), "{uptime}");
            for pointer in ["0", "4096", "18446744073709547520"] {
                let error = container.try_ask(&["sysinfo-at", pointer]).unwrap_err();
                assert_eq!(error, "EFAULT", "{pointer}");
            }
            // The family of sockets that leads to the host of a virtual machine. The kernel takes 32 bits of it.
            for family in ["40", "4294967336", "18446744069414584360"] {
                let refused = container.try_ask(&["socket", family]).unwrap_err();
                assert_eq!(refused, "EAFNOSUPPORT", "{family}");
            }
            // 32-bit programs make all their sockets by another call.
            container.ask(&["socket32", "2"]);
            for family in ["1", "2"] {
                container.ask(&["socket", family]);
            }
        }
    }
    daemon.end();
}

#[test]
fn privileged_a_profile_that_refuses_sysinfo_or_has_its_own_listener_stays_in_force() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let refusing = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{ "names": ["sysinfo", "swapon"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
    });
    for engine in ENGINES {
        let bundle = bundle(&rig, engine, "refusing");
        bundle.change(|config| config["linux"]["seccomp"] = refusing.clone());
        let mut container = Container::of_bundle(bundle);
        let error = container.try_ask(&["sysinfo"]).unwrap_err();
        assert_eq!(error, "ENOSYS", "{engine:?}");
        let log = fs::read_to_string(scene.runtime_dir().join("hook.log")).unwrap();
        assert!(log.contains("refuses sysinfo(2)"), "{log}");
    }
    daemon.end();
}

/// A container, and the file of the host that is `/flag/stop` in it when it is made.
#[track_caller]
fn start_with_flag(rig: &Rig<'_>, engine: Engine, name: &str) -> (Container, PathBuf) {
    let (bundle, stop) = bundle_with_flag(rig, engine, name);
    (Container::of_bundle(bundle), stop)
}

#[track_caller]
fn bundle_with_flag(rig: &Rig<'_>, engine: Engine, name: &str) -> (Bundle, PathBuf) {
    let flag = rig.scene.dir().join(format!("flag-{name}"));
    fs::create_dir(&flag).unwrap();
    let bundle = bundle(rig, engine, name);
    bundle.change(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        let mount =
            json!({ "destination": "/flag", "type": "bind", "source": flag, "options": ["rbind"] });
        mounts.push(mount);
    });
    (bundle, flag.join("stop"))
}

/// Does `meanwhile` while 8 threads of a container call sysinfo(2). Returns how often each answer was given.
#[track_caller]
fn storm(
    container: &mut Container,
    stop: &Path,
    meanwhile: impl FnOnce(),
) -> BTreeMap<String, u64> {
    let program = container.program("probe");
    let said = std::thread::scope(|scope| {
        let said = scope.spawn(|| container.run(&[&program, "sysinfo-storm", "8", "/flag/stop"]));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        fs::write(stop, "").unwrap();
        let said = said.join().unwrap();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        said
    });
    answer(&said)
}

/// The number for the short form of a test, and the one where `ECI_FS_SUPERVISOR` is "all".
fn times(short: usize, all: usize) -> usize {
    match std::env::var("ECI_FS_SUPERVISOR").as_deref() {
        Ok("all") => all,
        _ => short,
    }
}

#[test]
fn privileged_no_call_is_lost_or_wrong_while_the_supervisor_is_killed_again_and_again() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let (mut container, stop) = start_with_flag(&rig, Engine::Runc, "storm");
    check(&mut container, "sysinfo");
    let mut last = wait("there is no supervisor", || supervisor_of(daemon.pid()));
    let kills = times(30, 200) as u64;
    let answers = storm(&mut container, &stop, || {
        for number in 0..kills {
            // At another moment of its work each time.
            let_time_pass(Duration::from_millis(number % 32));
            signal(last, Signal::KILL);
            last = wait("there is no other supervisor", || {
                supervisor_of(daemon.pid()).filter(|pid| *pid != last)
            });
            // It has begun when it has the listeners.
            wait("the supervisor does not begin", || {
                (listeners_of(last) > 0).then_some(())
            });
        }
    });
    assert_eq!(
        answers.keys().collect::<Vec<_>>(),
        [&MEMORY.to_string()],
        "{answers:?}"
    );
    assert!(answers[&MEMORY.to_string()] > kills, "{answers:?}");
    check(&mut container, "sysinfo");
    drop(container);
    daemon.end();
}

#[test]
fn privileged_the_calls_of_one_container_are_answered_beside_a_storm_of_those_of_another() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let (mut loud, stop) = start_with_flag(&rig, Engine::Runc, "loud");
    let mut quiet = start(&rig, Engine::Crun, "quiet");
    let answers = storm(&mut loud, &stop, || {
        for _ in 0..200 {
            assert_eq!(figures(&mut quiet, "sysinfo")["total"], MEMORY);
        }
        check(&mut quiet, "sysinfo");
    });
    assert_eq!(
        answers.keys().collect::<Vec<_>>(),
        [&MEMORY.to_string()],
        "{answers:?}"
    );
    drop((loud, quiet));
    daemon.end();
}

#[test]
fn privileged_hundreds_of_listeners_are_answered_at_once_and_by_few_threads() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let number = times(40, 200);
    let (bundle, stop) = bundle_with_flag(&rig, Engine::Crun, "many");
    let mut executions: Vec<_> = (0..number)
        .map(|_| {
            bundle.runtime(&[
                "exec",
                bundle.name(),
                "/bin/probe",
                "sysinfo-storm",
                "1",
                "/flag/stop",
            ])
        })
        .collect();
    let mut container = Container::of_bundle(bundle);
    check(&mut container, "sysinfo");
    let answers: Vec<BTreeMap<String, u64>> = std::thread::scope(|scope| {
        let all: Vec<_> = executions
            .drain(..)
            .map(|mut exec| scope.spawn(move || Ran::run(&mut exec).ok()))
            .collect();
        let enough = std::panic::catch_unwind(|| {
            wait("the executions do not begin", || {
                (listeners_of(daemon.pid()) > number).then_some(())
            });
            let supervisor = wait("there is no supervisor", || supervisor_of(daemon.pid()));
            // The main thread, the bound of one container, those that wait, and one that reads figures. A thread that is
            // ending is still listed.
            wait("too many threads", || {
                let threads = fs::read_dir(format!("/proc/{supervisor}/task")).unwrap();
                (threads.count() <= 1 + 8 + 3 + 1).then_some(())
            });
        });
        fs::write(&stop, "").unwrap();
        let said = all.into_iter().map(|one| answer(&one.join().unwrap()));
        let said = said.collect();
        enough.unwrap();
        said
    });
    for one in answers {
        assert_eq!(one.keys().collect::<Vec<_>>(), [&MEMORY.to_string()]);
    }
    drop(container);
    wait("listeners are kept", || {
        (listeners_of(daemon.pid()) == 0).then_some(())
    });
    daemon.end();
}

/// The answer of a probe that was called alone.
#[track_caller]
fn answer(line: &str) -> BTreeMap<String, u64> {
    let line: Value = serde_json::from_str(line).unwrap();
    serde_json::from_value(line["ok"].clone()).unwrap()
}

#[test]
fn privileged_calls_are_answered_while_there_is_no_daemon_and_by_the_next_one() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let mut container = start(&rig, Engine::Crun, "daemonless");
    check(&mut container, "sysinfo");
    let supervisor = wait("there is no supervisor", || supervisor_of(daemon.pid()));
    daemon.die();
    check(&mut container, "sysinfo");
    let next = scene.daemon(&[]);
    check(&mut container, "sysinfo");
    let own = wait("the next daemon has no supervisor", || {
        supervisor_of(next.pid())
    });
    assert_ne!(own, supervisor);
    assert!(!Path::new(&format!("/proc/{supervisor}")).exists() || !is_supervisor(supervisor));
    check(&mut container, "sysinfo");
    drop(container);
    next.end();
}

#[test]
fn privileged_each_execution_has_a_listener_and_all_are_let_go_of() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    for engine in ENGINES {
        let bundle = bundle(&rig, engine, "exec");
        let mut executions: Vec<_> = (0..20)
            .map(|_| bundle.runtime(&["exec", bundle.name(), "/bin/probe", "sysinfo"]))
            .collect();
        let container = Container::of_bundle(bundle);
        for mut exec in executions.drain(..) {
            let said = Ran::run(&mut exec).ok();
            let said: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(said["ok"]["total"], MEMORY, "{said}");
        }
        drop(container);
        wait("listeners are kept", || {
            (listeners_of(daemon.pid()) == 0).then_some(())
        });
    }
    let supervisor = wait("there is no supervisor", || supervisor_of(daemon.pid()));
    wait("the supervisor keeps listeners", || {
        (listeners_of(supervisor) == 0).then_some(())
    });
    daemon.end();
}

#[test]
fn privileged_a_container_does_not_start_where_nobody_takes_its_filter() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    fs::remove_file(scene.runtime_dir().join("system-calls.sock")).unwrap();
    let disk = rig.overlay(Style::Docker, "nobody");
    let bundle = rig.bundle(Engine::Runc, &disk.root);
    bundle
        .run()
        .refused(&["eci-runc: isolation: ", "system-calls.sock", "restart"]);
    daemon.end();
}

#[test]
fn privileged_a_runtime_without_filters_of_system_calls_is_refused() {
    let scene = scene();
    let rig = Rig::new(&scene, "system-calls = true\n");
    let daemon = scene.daemon(&[]);
    bundle(&rig, Engine::Youki, "refused").run().refused(&[
        "youki (of another kind)",
        "cannot hand over a filter",
        "system-calls = false",
    ]);
    daemon.end();
}

#[test]
fn privileged_traps_are_left_out_only_where_that_is_allowed() {
    let scene = scene();
    let rig = Rig::new(&scene, "system-calls = false\n");
    let daemon = scene.daemon(&[]);
    let mut container = start(&rig, Engine::Runc, "untrapped");
    let host: u64 = row(&fs::read_to_string("/proc/meminfo").unwrap(), "MemTotal:");
    assert_eq!(figures(&mut container, "sysinfo")["total"], host);
    assert_eq!(scene.list()[0]["vetted"], Value::Null);
    assert_eq!(supervisor_of(daemon.pid()), None);
    assert!(!shell(&mut container, "b cat /proc/self/status").contains("Seccomp:\t2"));
    drop(container);
    daemon.end();
}
