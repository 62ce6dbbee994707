//! lxcfs beside eci-fs in one container: hands back what both say of every file that lxcfs serves,
//! and what the machine and the container's cgroup say, in /out.
//!
//! `lxcfs/`, `ours/` and `machine/` hold texts by path, `before/` and `after/` what the cgroup had used when
//! that path was read, `cgroup/` the files of the cgroup; `tries` has a line for each other thing that
//! was tried with both.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Result;
use crate::cgroup::Cgroup;
use crate::checks::memory::judge_meminfo;
use crate::container::{Container, output};
use crate::expect::{Memory, host, steady};

/// Where lxcfs is mounted. The container sees it there, for it has the same root.
const TOP: &str = "/lxcfs";

/// Where what was found goes.
const OUT: &str = "/out";

/// What the container is limited by.
const LIMITS: &[(&str, &str)] = &[
    ("memory.max", "268435456"),
    ("memory.swap.max", "33554432"),
    ("cpu.max", "50000 100000"),
    ("cpuset.cpus", "1"),
];

/// A disk that can be written to.
const LOOP: &str = "/dev/loop0";

/// `beside`
pub(crate) fn beside() -> ExitCode {
    match find() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("beside: {error}");
            ExitCode::FAILURE
        }
    }
}

fn find() -> Result<()> {
    let _lxcfs = Lxcfs::start()?;
    let mut paths = Vec::new();
    files(Path::new(TOP), &mut paths)?;
    let cgroup = Cgroup::new("beside")?;
    for (file, value) in LIMITS {
        cgroup.set(file, value)?;
    }
    let disks = Disks::open()?;
    let mut container = Container::attach(&cgroup, false)?;
    let mapped = Mapped::start()?;
    container.tell(&["hold", "41943040"])?;
    container.tell(&["fill", "/dev/shm/shared", "8388608"])?;
    container.tell(&["read-device", "/dev/vda", "12582912"])?;
    // Some goes to swap. The kernel may say that it found less than that.
    let _ = cgroup.set("memory.reclaim", "16777216 swappiness=200");
    container.tell(&["fill", LOOP, "4194304"])?;
    container.tell(&["user", "300000"])?;
    container.tell(&["system", "100000"])?;

    read_memory(&cgroup, &mut container)?;
    read_others(&cgroup, &mut container, &paths)?;
    try_all(&mut container)?;
    drop(disks);
    mapped.end()?;
    container.end()
}

/// Reads meminfo of both while the memory of the cgroup stands still. What ours may be is as old as the freshness, so
/// both are read until it is of that time.
fn read_memory(cgroup: &Cgroup, container: &mut Container) -> Result<()> {
    let (mut texts, mut lxcfs, mut ours) = (Vec::new(), String::new(), String::new());
    steady(
        || {
            texts = memory(cgroup)?;
            Memory::read(cgroup)
        },
        || {
            lxcfs = container.read("/lxcfs/proc/meminfo")?;
            ours = container.read(MEMINFO)?;
            Ok(ours.clone())
        },
        judge_meminfo,
    )?;
    for (name, text) in MEMORY.iter().zip(texts) {
        put("cgroup", name, &text)?;
    }
    put("lxcfs", MEMINFO, &lxcfs)?;
    put("ours", MEMINFO, &ours)?;
    put("machine", MEMINFO, &host(MEMINFO)?)
}

/// Reads all the rest, with what the cgroup had used before and after where that matters.
fn read_others(cgroup: &Cgroup, container: &mut Container, paths: &[String]) -> Result<()> {
    let (proc, sys): (Vec<&String>, Vec<_>) =
        paths.iter().partition(|path| path.starts_with("/proc/"));
    for path in proc.into_iter().filter(|path| *path != MEMINFO) {
        put("before", path, &used(cgroup)?)?;
        read_both(container, path)?;
        put("after", path, &used(cgroup)?)?;
    }
    put("cgroup", "threads", &cgroup.threads()?.len().to_string())?;
    // Of one CPU any quota leaves one, and these are some hundred files.
    cgroup.set("cpu.max", "max")?;
    // Of the CPU that the container has not, one folder stands for all.
    let read = |path: &&&String| !path.contains("/cpu0/") || path.contains("/topology/");
    sys.iter()
        .filter(read)
        .try_for_each(|path| read_both(container, path))
}

fn read_both(container: &mut Container, path: &str) -> Result<()> {
    put("lxcfs", path, &said(container, &format!("{TOP}{path}")))?;
    put("ours", path, &said(container, path))?;
    put("machine", path, &host(path).unwrap_or_default())
}

/// CPU time, and what was read from disks and written.
fn used(cgroup: &Cgroup) -> Result<String> {
    Ok(cgroup.read("cpu.stat")? + &cgroup.read("io.stat")?)
}

const MEMINFO: &str = "/proc/meminfo";

/// The files that meminfo is about.
const MEMORY: [&str; 4] = [
    "memory.max",
    "memory.current",
    "memory.swap.current",
    "memory.stat",
];

fn memory(cgroup: &Cgroup) -> Result<Vec<String>> {
    MEMORY.iter().map(|file| cgroup.read(file)).collect()
}

/// What else can be done with a file.
fn try_all(container: &mut Container) -> Result<()> {
    let tries: [&[&str]; 4] = [
        &["pread-past-end", "/proc/meminfo"],
        &["stat", "/proc/meminfo"],
        &["stat", "/proc/slabinfo"],
        &["write", "/proc/meminfo", "1"],
    ];
    let mut lines = String::new();
    for (who, top) in [("lxcfs", TOP), ("ours", "")] {
        for words in tries {
            let [command, path, rest @ ..] = words else {
                continue;
            };
            let path = format!("{top}{path}");
            let found = container.ask(&[&[command, path.as_str()], rest].concat());
            let found = found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let found = found.unwrap_or_else(|error| error);
            lines.push_str(&format!("{who} {} = {found}\n", words.join(" ")));
        }
    }
    put("", "tries", &lines)
}

/// The text, or the error.
fn said(container: &mut Container, path: &str) -> String {
    match container.ask(&["read", path]) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => error,
    }
}

fn put(who: &str, path: &str, text: &str) -> Result<()> {
    let path = PathBuf::from(format!("{OUT}/{who}/{path}"));
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(&path, text))
        .map_err(|e| format!("{}: {e}", path.display()))
}

/// The paths of all files below, as they are on the machine.
fn files(dir: &Path, paths: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    for entry in entries {
        let path = entry.map_err(|e| e.to_string())?.path();
        let kind = fs::symlink_metadata(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        if kind.is_dir() {
            files(&path, paths)?;
        } else if kind.is_file()
            && let Some(path) = path.to_string_lossy().strip_prefix(TOP)
        {
            paths.push(path.to_owned());
        }
    }
    Ok(())
}

/// Disks whose pages stay in the page cache: somebody has them open.
struct Disks {
    _open: [File; 2],
}

impl Disks {
    /// Nothing of them is in the cache yet, so that who reads or writes them is charged.
    fn open() -> Result<Self> {
        let image = "/dev/shm/image";
        let open = |path: &str| File::open(path).map_err(|e| format!("{path}: {e}"));
        let made = File::create(image).and_then(|file| file.set_len(8 << 20));
        made.map_err(|e| format!("{image}: {e}"))?;
        output(Command::new("losetup").args([LOOP, image]))?;
        let disks = [open("/dev/vda")?, open(LOOP)?];
        fs::write("/proc/sys/vm/drop_caches", "3\n").map_err(|e| format!("drop_caches: {e}"))?;
        Ok(Self { _open: disks })
    }
}

/// A program in the cgroup whose file is charged to it: it maps pages of the cache.
struct Mapped(Child);

impl Mapped {
    fn start() -> Result<Self> {
        let script = "echo $$ > /sys/fs/cgroup/beside/cgroup.procs && \
            cp /bin/busybox /dev/shm/busybox && exec /dev/shm/busybox cat";
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
        // It answers when it runs.
        let (input, output) = (child.stdin.as_mut(), child.stdout.as_mut());
        let (Some(input), Some(output)) = (input, output) else {
            return Err("a program without input or output".to_owned());
        };
        let heard = input
            .write_all(b"x")
            .and_then(|()| output.read_exact(&mut [0]));
        heard.map_err(|e| format!("{command:?}: {e}"))?;
        Ok(Self(child))
    }

    fn end(mut self) -> Result<()> {
        self.0.stdin = None;
        self.0.wait().map(drop).map_err(|e| e.to_string())
    }
}

/// lxcfs. It is ended with the value.
struct Lxcfs(Child);

impl Lxcfs {
    /// Starts it and waits until it is mounted.
    fn start() -> Result<Self> {
        fs::create_dir(TOP).map_err(|e| format!("{TOP}: {e}"))?;
        let mounts = "/proc/self/mountinfo";
        let events = File::open(mounts).map_err(|e| format!("{mounts}: {e}"))?;
        let mut command = Command::new("/usr/bin/lxcfs");
        command.args([
            "--enable-loadavg",
            "--enable-cfs",
            "--pidfile",
            "/lxcfs.pid",
            TOP,
        ]);
        let said = File::create("/lxcfs.log").map_err(|e| e.to_string())?;
        let same = said.try_clone().map_err(|e| e.to_string())?;
        command.stdin(Stdio::null()).stdout(said).stderr(same);
        let this = Self(command.spawn().map_err(|e| format!("lxcfs: {e}"))?);
        while !host(mounts)?.contains(&format!(" {TOP} ")) {
            // The kernel says when mounts change.
            let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            if poll(&mut fds, PollTimeout::from(10_000u16)).map_err(|e| e.to_string())? == 0 {
                return Err(format!("lxcfs is not mounted: {}", host("/lxcfs.log")?));
            }
        }
        Ok(this)
    }
}

impl Drop for Lxcfs {
    fn drop(&mut self) {
        // Both fail only when it has ended and has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
