//! An lxcfs beside the views, and both read in the same container.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, mount};
use serde_json::Value;
use support::{PATIENCE, Scene, mounts_of, number_after, open_pidfd, wait_for_end};

use crate::Shell;
use crate::case::need;

/// An lxcfs that only the test's mount namespace has. It is ended with the value.
#[derive(Debug)]
pub(crate) struct Lxcfs {
    child: Child,
    /// Where it is mounted.
    pub(crate) top: PathBuf,
}

impl Lxcfs {
    /// Start one and wait until it is mounted.
    #[track_caller]
    pub(crate) fn start(scene: &Scene) -> Self {
        need("lxcfs", "lxcfs");
        // It makes directories in /run and leaves them there.
        mount("none", "/run", "tmpfs", MountFlags::empty(), None).unwrap();
        let top = scene.dir().join("lxcfs");
        std::fs::create_dir(&top).unwrap();
        let mut command = Command::new("lxcfs");
        command.args(["--enable-loadavg", "--enable-cfs", "--pidfile"]);
        command.arg(scene.dir().join("lxcfs.pid")).arg(&top);
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = quiet.spawn().unwrap();
        let this = Self { child, top };
        let mounts = std::fs::File::open("/proc/thread-self/mountinfo").unwrap();
        let point = format!(" {} ", this.top.display());
        while !mounts_of("thread-self")
            .iter()
            .any(|line| line.contains(&point))
        {
            // The kernel says when mounts change.
            let mut fds = [PollFd::new(&mounts, PollFlags::PRI)];
            let patience = PATIENCE.try_into().unwrap();
            assert!(
                poll(&mut fds, Some(&patience)).unwrap() > 0,
                "lxcfs is not mounted: {this:?}"
            );
        }
        this
    }
}

impl Lxcfs {
    /// Its version, as 5.0.3.
    #[track_caller]
    pub(crate) fn version() -> String {
        // It says so on standard error, and in quotes.
        let ran = support::Ran::run(Command::new("lxcfs").arg("--version"));
        let said = format!("{}{}", ran.stdout, ran.stderr);
        said.trim().trim_matches('"').to_owned()
    }
}

impl Drop for Lxcfs {
    fn drop(&mut self) {
        let pidfd = open_pidfd(self.child.id());
        let pid = rustix::process::Pid::from_child(&self.child);
        // It fails only when lxcfs has ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        wait_for_end(&pidfd);
        let _ = self.child.wait();
    }
}

/// Reads all files of both, one directly after the other, with shared memory and huge pages in use.
const READER: &str = r#"/usr/bin/python3 - TOP <<'END'
import errno, json, mmap, os, sys
top = sys.argv[1]
shared = os.memfd_create("shared")
os.write(shared, b"x" * (16 << 20))
huge = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
huge.madvise(mmap.MADV_HUGEPAGE)
for page in range(0, len(huge), 4096): huge[page] = 1
def read(path):
    with open(path) as file: return file.read()
def attempt(what):
    try: return what()
    except OSError as error: return errno.errorcode[error.errno]
def pread(path, offset):
    fd = os.open(path, os.O_RDONLY)
    try: return os.pread(fd, 30, offset).decode()
    finally: os.close(fd)
def of(top):
    files = ["meminfo", "stat", "loadavg", "swaps", "cpuinfo", "diskstats", "slabinfo"]
    said = {name: read(f"{top}/proc/{name}") for name in files}
    cpu = f"{top}/sys/devices/system/cpu"
    said.update({name: read(f"{cpu}/{name}") for name in ["online", "possible", "present"]})
    said["mode"] = os.stat(f"{top}/proc/slabinfo").st_mode & 0o777
    said["inside"] = attempt(lambda: pread(f"{top}/proc/meminfo", 100))
    said["beyond"] = attempt(lambda: pread(f"{top}/proc/meminfo", 50000))
    said["write"] = attempt(lambda: os.close(os.open(f"{top}/proc/meminfo", os.O_RDWR)))
    return said
print(json.dumps({"lxcfs": of(top), "ours": of("")}))
END"#;

/// What both say of one container.
#[derive(Debug)]
pub(crate) struct Beside {
    /// What lxcfs says: the texts of files, and what else was tried.
    pub(crate) lxcfs: Value,
    /// What the views say.
    pub(crate) ours: Value,
}

impl Beside {
    /// Read both in a container that has the mount of lxcfs.
    #[track_caller]
    pub(crate) fn read(shell: &mut Shell, lxcfs: &Lxcfs) -> Self {
        let text = shell.run(&READER.replace("TOP", &lxcfs.top.display().to_string()));
        let mut value: Value = serde_json::from_str(&text).unwrap();
        Self {
            lxcfs: value["lxcfs"].take(),
            ours: value["ours"].take(),
        }
    }

    /// Both texts of a file.
    #[track_caller]
    pub(crate) fn texts(&self, file: &str) -> (&str, &str) {
        (
            self.lxcfs[file].as_str().unwrap(),
            self.ours[file].as_str().unwrap(),
        )
    }

    /// The number of a line, in both.
    #[track_caller]
    pub(crate) fn numbers(&self, file: &str, key: &str) -> (u64, u64) {
        let (lxcfs, ours) = self.texts(file);
        (number_after(lxcfs, key), number_after(ours, key))
    }
}
