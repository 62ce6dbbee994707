//! Containers that come and go leave nothing in the programs that served them.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Instant;

use eci_fs::cli::client::Client;
use eci_fs_protocol::control::{Attach, Request, Response, Selector};
use support::{Container, Daemon, Limits, PATIENCE, Scene, open_pidfd};

use crate::crowd;
use crate::footprint::{Footprint, anonymous_kib};
use crate::scale::Scale;

/// Attached and detached in turns.
const CONTAINERS: usize = 4;

/// Memory that may be added for other reasons than a leak: arenas of the allocator, tables that grow by doubling.
const SLACK_KIB: u64 = 512;

/// Addresses that the daemon may reserve, on a host with any number of CPUs. An arena of the allocator takes 64 MiB of them.
const MOST_ADDRESSES_KIB: u64 = 256 << 10;

/// Bytes by which a cycle may let memory grow: less than anything that one could forget to free.
const PER_CYCLE: u64 = 16;

/// Both programs, to be compared with how they were.
struct Programs {
    pids: [(&'static str, u32); 2],
    footprints: [Footprint; 2],
    memory: [u64; 2],
}

impl Programs {
    /// How they are now. The daemon had `threads` before anybody spoke with it: what speaks with a command ends
    /// with it, in a moment.
    #[track_caller]
    fn measure(daemon: &Daemon, threads: usize) -> Self {
        let end = Instant::now() + PATIENCE;
        while self::threads(daemon) != threads {
            assert!(Instant::now() < end, "the daemon has more than {threads}");
        }
        let pids = [
            ("eci-mountd", daemon.pid()),
            ("the server", daemon.server()),
        ];
        Self {
            pids,
            footprints: pids.map(|(_, pid)| Footprint::of(pid).unwrap()),
            memory: pids.map(|(_, pid)| anonymous_kib(pid)),
        }
    }

    /// That they are as they were, but for memory of `cycles` cycles. Threads that end, and descriptors that they
    /// close, take a moment for that.
    #[track_caller]
    fn compare(&self, cycles: u64) {
        let end = Instant::now() + PATIENCE;
        for ((name, pid), before) in self.pids.iter().zip(&self.footprints) {
            while Footprint::of(*pid).as_ref() != Some(before) {
                let now = Footprint::of(*pid);
                assert!(Instant::now() < end, "{name} had {before:#?}, has {now:#?}");
            }
        }
        for ((name, pid), before) in self.pids.iter().zip(self.memory) {
            let now = anonymous_kib(*pid);
            println!("{name}: {before} KiB before, {now} KiB after {cycles} cycles");
            let most = before + SLACK_KIB + cycles * PER_CYCLE / 1024;
            assert!(now <= most, "{name} had {before} KiB, has {now} KiB");
        }
    }
}

#[track_caller]
fn threads(daemon: &Daemon) -> usize {
    let threads = support::status_field(daemon.pid(), "Threads:").unwrap();
    threads.parse().unwrap()
}

/// Read a cached view, a live one and one in a directory graft of a container, and set a trigger.
#[track_caller]
fn use_views(container: &Container) {
    let root = format!("/proc/{}/root", container.pid());
    for path in [
        "/proc/stat",
        "/proc/pressure/cpu",
        "/sys/devices/system/cpu/cpu0/topology/core_cpus_list",
    ] {
        fs::read(format!("{root}{path}")).unwrap();
    }
    let pressure = fs::File::options()
        .read(true)
        .write(true)
        .open(format!("{root}/proc/pressure/memory"));
    // Refused where the container has no cgroup of v2.
    let _ = pressure.unwrap().write_all(b"some 1000 2000000\0");
}

#[track_caller]
fn call(scene: &Scene, request: Request, container: &Container) -> Response {
    let client = Client::connect(&scene.runtime_dir(), PATIENCE)
        .unwrap()
        .unwrap();
    let pidfd = open_pidfd(container.pid());
    client.call(request, &[pidfd.as_fd()]).unwrap().0
}

#[track_caller]
fn attach(scene: &Scene, container: &Container) {
    let response = call(scene, Request::Attach(Attach::default()), container);
    assert!(matches!(response, Response::Attached(_)), "{response:?}");
}

#[track_caller]
fn detach(scene: &Scene, container: &Container) {
    let pid = i32::try_from(container.pid()).unwrap();
    let client = Client::connect(&scene.runtime_dir(), PATIENCE)
        .unwrap()
        .unwrap();
    let response = client.call(Request::Detach(Selector::Pid(pid)), &[]);
    let response = response.unwrap().0;
    assert!(
        matches!(response, Response::Detached { .. }),
        "{response:?}"
    );
}

#[test]
fn privileged_attaching_and_detaching_leaves_nothing_in_the_programs() {
    let scale = Scale::read(false);
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let daemon = scene.daemon(&[]);
    let containers: Vec<Container> = (0..CONTAINERS)
        .map(|number| {
            let builder = scene.container().limits(limits());
            if number > 0 {
                return builder.start();
            }
            // One with triggers.
            let container = builder.options(&["--host-cgroup"]).start();
            crowd::join_unified(&container);
            container
        })
        .collect();
    let mounts: Vec<_> = containers.iter().map(Container::mounts).collect();
    let cycle = |number: u64| {
        let container = &containers[number as usize % CONTAINERS];
        attach(&scene, container);
        use_views(container);
        detach(&scene, container);
    };
    let cycles = u64::from(scale.times(10_000, 200));
    let threads = threads(&daemon);
    // Until everything has been made once that is made once.
    let first = cycles / 10;
    (0..first).for_each(cycle);
    let before = Programs::measure(&daemon, threads);
    let began = Instant::now();
    (first..cycles).for_each(cycle);
    println!("{} cycles in {:?}", cycles - first, began.elapsed());
    before.compare(cycles - first);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let addresses = support::number_after(&status, "VmSize:");
    println!("eci-mountd: {addresses} KiB of addresses");
    assert!(
        addresses <= MOST_ADDRESSES_KIB,
        "eci-mountd has {addresses} KiB"
    );
    let after: Vec<_> = containers.iter().map(Container::mounts).collect();
    assert_eq!(after, mounts);
    assert!(scene.list().is_empty());
    drop(containers);
    daemon.end();
}

#[test]
fn privileged_containers_that_die_without_a_word_leave_nothing_in_the_programs() {
    let scale = Scale::read(false);
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let mut daemon = scene.daemon(&[]);
    let one_dies = |daemon: &mut Daemon| {
        let mut container = scene.container().limits(limits()).start();
        attach(&scene, &container);
        use_views(&container);
        container.kill();
        let line = daemon.wait_for("the container has ended");
        assert!(line.contains(&format!("pid-{}", container.pid())), "{line}");
    };
    let deaths = u64::from(scale.times(1000, 40));
    let first = deaths / 4;
    let threads = threads(&daemon);
    (0..first).for_each(|_| one_dies(&mut daemon));
    let before = Programs::measure(&daemon, threads);
    (first..deaths).for_each(|_| one_dies(&mut daemon));
    assert!(scene.list().is_empty());
    before.compare(deaths - first);
    daemon.end();
}

fn limits() -> Limits {
    Limits {
        memory: Some(128 << 20),
        swap: None,
        cpus: Some(1.0),
        cpuset: None,
    }
}
