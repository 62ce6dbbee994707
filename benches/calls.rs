//! The time that system calls take in an isolated container, whose sysinfo(2) a supervisor answers: `cargo bench --bench calls
//! [-- ROUNDS]`.
//!
//! Four containers do the same: one without a filter of system calls, one with a profile that permits calls by name, as that of
//! Docker does, and both of them isolated. They take turns, so that other load on the host affects all alike. Afterwards sysinfo is
//! timed in one isolated container while eight threads of another call it. Needs root and runc.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark prints its figures, and ends when something fails"
)]

use std::collections::BTreeMap;
use std::path::Path;

use rustix::mount::{MountFlags, mount};
use serde_json::{Value, json};
use support::{Bundle, Container, Engine, Limits, Scene};

/// Calls that a profile permits by name. The kernel decides about most of them once for all.
const PERMITTED: &str = "accept accept4 access arch_prctl bind brk capget capset chdir chmod chown clock_gettime clone clone3 \
    close close_range connect dup dup2 dup3 epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 execve exit exit_group faccessat \
    faccessat2 fchdir fchmod fchown fcntl flock fork fstat fstatfs fsync ftruncate futex getcwd getdents64 getegid geteuid getgid \
    getgroups getpeername getpgid getpid getppid getrandom getresgid getresuid getrlimit getsockname getsockopt gettid gettimeofday \
    getuid ioctl kill lchown link linkat listen lseek lstat madvise membarrier mkdir mkdirat mmap mprotect mremap munmap nanosleep \
    newfstatat open openat openat2 pause pipe pipe2 poll ppoll prctl pread64 prlimit64 pselect6 pwrite64 read readlink readlinkat \
    readv recvfrom recvmsg rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask \
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_getaffinity sched_yield seccomp select sendmsg sendto \
    set_robust_list set_tid_address setgid setgroups setpgid setresgid setresuid setrlimit setsid setsockopt setuid shutdown \
    sigaltstack socket socketpair stat statfs statx symlink symlinkat sync sysinfo tgkill time truncate umask uname unlink unlinkat \
    utimensat vfork wait4 waitid write writev";

/// The containers, as they are printed.
const WAYS: [&str; 4] = ["no filter", "profile", "isolated", "isolated, profile"];

fn main() {
    // `cargo bench` passes --bench; a number is the count.
    let rounds: usize = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(41);
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    mount("tmpfs", scene.dir(), "tmpfs", MountFlags::empty(), None).unwrap();
    let daemon = scene.daemon(&[]);
    let flag = scene.dir().join("flag");
    std::fs::create_dir(&flag).unwrap();
    let container = |isolated: bool, profile: bool| {
        let mut bundle = Bundle::new(&scene, Engine::Runc, &Limits::default(), false);
        bundle.change(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({ "destination": "/flag", "type": "bind", "source": flag, "options": ["rbind"] }));
        });
        if profile {
            bundle.change(|config| config["linux"]["seccomp"] = permitting());
        }
        if isolated {
            let wrapper = env!("CARGO_BIN_EXE_eci-runc").as_ref();
            bundle.isolate(&scene, wrapper, "system-calls = true\n");
        }
        Container::of_bundle(bundle)
    };
    let mut containers = [(false, false), (false, true), (true, false), (true, true)]
        .map(|(isolated, profile)| container(isolated, profile));
    let listed = scene.list();
    let vetted = listed.iter().filter(|one| one["vetted"] == true).count();
    assert_eq!(vetted, 2, "system calls are not trapped: {listed:?}");

    // By the call: the nanoseconds of each round in each container.
    let mut times: BTreeMap<String, [Vec<f64>; 4]> = BTreeMap::new();
    for turn in 0..rounds * 4 {
        let which = (turn + turn / 4) % 4;
        let answer = containers[which].ask(&["time-calls"]);
        for (name, time) in answer.as_object().unwrap() {
            times.entry(name.clone()).or_default()[which].push(time.as_f64().unwrap());
        }
    }
    println!(
        "| {rounds} rounds in turn, ns: median | {} | isolated / no filter | isolated / profile, both with it |",
        WAYS.join(" | ")
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, times) in times {
        let medians = times.map(median);
        let all = medians.map(|time| format!("{time:.0}")).join(" | ");
        println!(
            "| {name} | {all} | {:.2} | {:.2} |",
            medians[2] / medians[0],
            medians[3] / medians[1]
        );
    }
    beside_a_storm(&mut containers, &flag.join("stop"), rounds);
    drop(containers);
    daemon.end();
}

/// Prints what sysinfo takes in the third container alone, and while eight threads of the fourth call it.
fn beside_a_storm(containers: &mut [Container; 4], stop: &Path, rounds: usize) {
    let [_, _, quiet, loud] = containers;
    let mut time = || {
        let each = (0..rounds).map(|_| quiet.ask(&["time-calls"])["sysinfo"].as_f64().unwrap());
        median(each.collect())
    };
    let alone = time();
    let program = loud.program("probe");
    let beside = std::thread::scope(|scope| {
        let storm = scope.spawn(|| loud.run(&[&program, "sysinfo-storm", "8", "/flag/stop"]));
        let beside = time();
        // It runs until that file is there.
        std::fs::write(stop, "").unwrap();
        storm.join().unwrap();
        beside
    });
    println!(
        "sysinfo beside a storm of another container: {beside:.0} ns, alone {alone:.0}: {:.2}",
        beside / alone
    );
}

/// Returns a profile that permits calls by name.
fn permitting() -> Value {
    let names: Vec<&str> = PERMITTED.split_whitespace().collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
    })
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}
