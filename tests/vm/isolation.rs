//! Isolated containers on cgroup v2 alone, with each kernel and the runtimes of two releases. `ECI_FS_VM_ISOLATION=all`
//! tries each runtime with each kernel. Docker and podman with each kernel are tests of their own, of the long form.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use support::engines::Image;
use support::{Bundle, Engine, Limits, Ran, Scene, find_program, give_engines_capabilities};
use xtask::vm::{Kernel, Vm, newer_runtimes, program};

use crate::engines::{FOLDERS, PROGRAMS, with_programs};

/// The beginning of all guests' scripts, and the function that tries a runtime.
const SCRIPT: &str = concat!(include_str!("prelude.sh"), include_str!("isolation.sh"));

/// The first process of each container.
const JOB: &str = include_str!("isolation_job.sh");

/// The docker and podman of the host.
const ENGINES: &str = include_str!("isolation_engines.sh");

/// The runtimes: the label, and the path in the guest. The first two are of the host's release, the next two of a newer
/// one, and youki is of no release.
pub(crate) const RUNTIMES: [(&str, &str); 5] = [
    ("runc", "/usr/bin/runc"),
    ("crun", "/usr/bin/crun"),
    ("new-runc", "/new/runc"),
    ("new-crun", "/new/crun"),
    ("youki", "/usr/bin/youki"),
];

#[test]
fn privileged_a_container_that_cannot_be_isolated_is_refused_with_linux_5_10() {
    let script = r#"
        disk refused
        runtime="eci-runc --eci-runtime-path /usr/bin/runc"
        odd=; begin refused; exec 4> /tmp/refused.in 5< /tmp/refused.out
        code=0; wait $started || code=$?
        echo "code: $code"
        echo "upper: $(ls -A /disk/docker/refused/diff | wc -l)"
        umount /disk/docker/refused/merged
        echo "mounted: $(grep -c /disk/docker /proc/self/mountinfo)"
        eci-fs doctor | sed -n '/^isolation/,/^[^ i]/p'
    "#;
    let (lines, said) = run(Kernel::V5_10, script, &Given::programs(&["runc"]));
    assert!(said.contains("cannot be ID-mapped"), "{said}");
    for wanted in ["code: 1", "upper: 0", "mounted: 0"] {
        assert!(lines.iter().any(|line| line == wanted), "{wanted}: {said}");
    }
    assert!(said.contains("isolation needs Linux 5.19"), "{said}");
}

#[test]
fn privileged_containers_are_isolated_with_linux_6_1() {
    isolated(Kernel::V6_1, &[0, 1]);
}

#[test]
fn privileged_containers_are_isolated_with_linux_6_12() {
    isolated(Kernel::V6_12, &[0]);
}

// The packages of sid change from day to day, so only the long form tests with them.
#[test]
#[ignore = "cargo xtask full"]
fn privileged_containers_are_isolated_with_the_newest_kernel() {
    isolated(Kernel::Sid, &[2, 3]);
}

#[test]
#[ignore = "cargo xtask full"]
fn privileged_containers_of_docker_and_podman_are_isolated_with_linux_6_1() {
    engines(Kernel::V6_1);
}

#[test]
#[ignore = "cargo xtask full"]
fn privileged_containers_of_docker_and_podman_are_isolated_with_linux_6_12() {
    engines(Kernel::V6_12);
}

#[test]
#[ignore = "cargo xtask full"]
fn privileged_containers_of_docker_and_podman_are_isolated_with_the_newest_kernel() {
    engines(Kernel::Sid);
}

/// Runs containers of docker and podman, each with some of the runtimes. `VM_ENGINES` names some of the pairs, as in
/// "docker+crun podman+crun", for whoever works on one.
#[track_caller]
fn engines(kernel: Kernel) {
    let only = env::var("VM_ENGINES").unwrap_or_default();
    let mut pairs = vec![
        ("docker", RUNTIMES[0]),
        ("docker", RUNTIMES[1]),
        ("podman", RUNTIMES[1]),
        ("podman", RUNTIMES[2]),
        ("docker", RUNTIMES[3]),
    ];
    pairs.retain(|(engine, (label, _))| {
        let pair = format!("{engine}+{label}");
        only.is_empty() || only.split_whitespace().any(|named| named == pair)
    });
    let mut script = ENGINES.to_owned();
    for (engine, (label, path)) in &pairs {
        script.push_str(&format!("engine_with {engine} {label} {path}\n"));
    }
    script.push_str("end_engines\n");
    let given = Given {
        engines: true,
        ..Given::programs(&PROGRAMS)
    };
    let (lines, said) = run(kernel, &script, &given);
    let mut wanted = vec!["engines left: none".to_owned()];
    for (engine, (label, _)) in pairs {
        if engine == "docker" {
            wanted.push(format!("docker with {label} copied in: 0:0"));
        }
        for line in [
            "ranges: exclusive",
            "volume: 1000:1000",
            "memory: 131072 kB",
            "exec as w: 1234",
            "copied out: 1",
            "again: 42:43",
            "again: other ids",
            "privileged ids: 65536",
            "privileged refused",
        ] {
            wanted.push(format!("{engine} with {label} {line}"));
        }
    }
    let missing: Vec<&String> = wanted.iter().filter(|line| !lines.contains(line)).collect();
    assert!(missing.is_empty(), "{missing:#?}: {said}");
}

/// Tries the runtimes with these numbers; all of them in the long form.
#[track_caller]
fn isolated(kernel: Kernel, short: &[usize]) {
    let all = env::var("ECI_FS_VM_ISOLATION").is_ok_and(|form| form == "all");
    let tried: Vec<(&str, &str)> = match all {
        true => RUNTIMES.to_vec(),
        false => short.iter().map(|number| RUNTIMES[*number]).collect(),
    };
    let mut script: String = tried
        .iter()
        .map(|(label, path)| format!("isolated {label} {path}\n"))
        .collect();
    // Where the doctor looks for the files of Docker.
    script.push_str(
        "mkdir -p /etc/docker; echo '{\"data-root\":\"/disk/docker\"}' > /etc/docker/daemon.json\n",
    );
    script.push_str("eci-fs doctor | sed -n '/^isolation/,/^[^ i]/p'\n[ ! -e /run/eci-fs/hook.log ] || cat /run/eci-fs/hook.log\n");
    let mut programs = vec!["runc", "crun"];
    if tried.iter().any(|(label, _)| *label == "youki") {
        programs.push("youki");
    }
    let (lines, said) = run(kernel, &script, &Given::programs(&programs));
    // Linux 6.1 cannot map a tmpfs.
    let maps_tmpfs = kernel != Kernel::V6_1;
    let owner = |mapped: &str| match maps_tmpfs {
        true => mapped.to_owned(),
        false => "65534:65534".to_owned(),
    };
    let mut wanted = Vec::new();
    for (label, _) in tried {
        let tmpfs = format!("tmpfs: {}", owner("1000:1000"));
        for line in [
            "owners: 0:0:755 1000:1000:600 65535:65535:644",
            "volume: 1000:1000",
            &tmpfs,
            "cgroup: 0::/",
            "memory: 131072 kB",
            "cpus: 1",
            "suid: 2000 1000 1000 1000",
            "capable: 0000000000000400",
            "stdout: opened",
            "mknod: refused",
            "ranges: exclusive",
            "on the host Uid: first first first first",
            "on the host Gid: first first first first",
            "listed: 1",
            "on the disk: made 42:43:640",
            "again: 42:43:640 1000:1000:600 max",
            "again: other ids",
            "left: none",
        ] {
            wanted.push(format!("{label} {line}"));
        }
        let executed: &[&str] = match label {
            "youki" => &["refused: 1"],
            _ => &[
                "exec: again",
                "exec: 0 first 65536",
                "exec as u: f",
                "exec as u: 1000",
            ],
        };
        for line in executed {
            wanted.push(format!("{label} {line}"));
        }
        for name in ["a", "b"] {
            wanted.push(format!(
                "{label} on the disk: /disk/volume/of-{label}-{name} 44:45"
            ));
        }
    }
    wanted.push(
        "ok the files of docker in /disk/docker can be ID-mapped, with an overlay on them"
            .to_owned(),
    );
    if maps_tmpfs {
        wanted.push("ok the files of a tmpfs can be ID-mapped".to_owned());
    }
    let missing: Vec<&String> = wanted.iter().filter(|line| !lines.contains(line)).collect();
    assert!(missing.is_empty(), "{missing:#?}: {said}");
    let noted = lines.iter().any(|line| line.contains("belong to nobody"));
    assert_eq!(noted, !maps_tmpfs, "{said}");
}

/// What a guest has besides our own programs.
pub(crate) struct Given<'a> {
    /// Programs of the host.
    pub(crate) programs: &'a [&'a str],
    /// Files in the root directory, each with its text.
    pub(crate) files: &'a [(&'a str, String)],
    /// Whether it has what engines need.
    pub(crate) engines: bool,
}

impl<'a> Given<'a> {
    fn programs(programs: &'a [&'a str]) -> Self {
        Self {
            programs,
            files: &[],
            engines: false,
        }
    }
}

/// Runs a script after [`SCRIPT`] with all that is given and, if the script names them, the newer runtimes. Returns the lines
/// of its output, with single spaces, and all that it said.
#[track_caller]
pub(crate) fn run(kernel: Kernel, script: &str, given: &Given<'_>) -> (Vec<String>, String) {
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let (config, job) = (scene.dir().join("config.json"), scene.dir().join("job"));
    must(std::fs::write(&config, configuration(&scene).to_string()));
    must(std::fs::write(&job, JOB));
    let disk = disk(&scene);
    let mut drive = OsString::from("if=virtio,format=raw,cache=unsafe,file=");
    drive.push(&disk);
    let mut vm = Vm::new(kernel)
        .memory_mib(if given.engines { 2048 } else { 1024 })
        // The second disk of a guest, /dev/vdb, is swapped to. The one with the file system is the third.
        .swap_mib(64)
        .module("ext4")
        .timeout(Duration::from_secs(860))
        .echo(true)
        .qemu_arg("-drive")
        .qemu_arg(drive)
        .file(crate::static_programs().join("eci-fs"), "/bin/eci-fs")
        .file(scene.root().join("bin/probe"), "/rootfs/bin/probe")
        .file(find_program("busybox"), "/rootfs/bin/busybox")
        .file(config, "/config.json")
        .file(job, "/job");
    for (name, text) in given.files {
        let file = scene.dir().join(name);
        must(std::fs::write(&file, text));
        vm = vm.file(file, Path::new("/").join(name));
    }
    if given.engines {
        let image = Image::build(&scene).archive;
        vm = FOLDERS.iter().fold(vm, |vm, dir| vm.file(dir, dir));
        vm = vm.file(image, "/image.tar");
    }
    vm = with_programs(vm, given.programs);
    if script.contains("/new/") {
        vm = with_new_runtimes(vm);
    }
    let outcome = match vm.run(&format!("{SCRIPT}\n{script}")) {
        Ok(outcome) => outcome,
        Err(error) => panic!("{error:#}"),
    };
    println!("booted after {:.1} s", outcome.booted_after.as_secs_f64());
    println!("ended after {:.1} s", outcome.ended_after.as_secs_f64());
    let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.status, 0, "{said}");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    (outcome.stdout.lines().map(words).collect(), said)
}

/// The configuration of each container: 128 MiB, half a CPU, a volume on a disk and one on a tmpfs. The script puts a name
/// for `@NAME@`.
#[track_caller]
pub(crate) fn configuration(scene: &Scene) -> Value {
    let limits = Limits {
        memory: Some(128 << 20),
        swap: Some(0),
        cpus: Some(0.5),
        ..Limits::default()
    };
    let mut config = Bundle::new(scene, Engine::Runc, &limits, false).config();
    config["root"] = json!({ "path": "/disk/docker/@NAME@/merged" });
    config["hostname"] = json!("@NAME@");
    config["linux"]["cgroupsPath"] = json!("/@NAME@");
    config["process"]["args"] = json!(["/bin/sh", "-eu", "/job"]);
    give_engines_capabilities(&mut config);
    // With the first id as owner of the user namespace a runtime needs CAP_SYS_RESOURCE for this.
    config["process"]["rlimits"] =
        json!([{ "type": "RLIMIT_NOFILE", "soft": 1_000_000, "hard": 1_000_000 }]);
    config["process"]["oomScoreAdj"] = json!(-500);
    if let Some(mounts) = config["mounts"].as_array_mut() {
        for (destination, source) in [("/volume", "/disk/volume"), ("/tmpfs", "/tmp/volume")] {
            mounts.push(json!({
                "destination": destination, "type": "bind", "source": source, "options": ["rbind"]
            }));
        }
    }
    config
}

/// An empty disk with a file system whose owners can be mapped.
#[track_caller]
fn disk(scene: &Scene) -> PathBuf {
    let path = scene.dir().join("disk");
    must(File::create(&path).and_then(|file| file.set_len(1 << 30)));
    let mut format = Command::new("mke2fs");
    format.args(["-q", "-t", "ext4", "-m", "0", "-O", "^has_journal"]);
    Ran::run(format.arg(&path)).ok();
    path
}

/// The newer runtimes, and their libraries in place of the host's, which are older.
#[track_caller]
fn with_new_runtimes(vm: Vm) -> Vm {
    let root = taken(newer_runtimes());
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let loader = root.join("usr/lib64/ld-linux-x86-64.so.2");
    let mut vm = vm.file(&loader, "/lib64/ld-linux-x86-64.so.2");
    for name in ["runc", "crun"] {
        let path = taken(program(&root, name));
        let mut list = Command::new(&loader);
        list.arg("--library-path").arg(&libraries).arg("--list");
        let listed = Ran::run(list.arg(&path)).ok();
        let paths = listed.split_whitespace().map(Path::new);
        for path in paths.filter(|path| path.starts_with(&libraries)) {
            let file = path.file_name().unwrap_or_default();
            vm = vm.file(path, Path::new("/lib/x86_64-linux-gnu").join(file));
        }
        vm = vm.file(path, Path::new("/new").join(name));
    }
    vm
}

#[track_caller]
fn taken<E: std::fmt::Debug>(found: Result<PathBuf, E>) -> PathBuf {
    match found {
        Ok(path) => path,
        Err(error) => panic!("{error:?}"),
    }
}

#[track_caller]
fn must<T>(result: std::io::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
