//! A container that serves as a virtual machine: it has a user namespace, all capabilities in it, its own cgroups, and
//! the programs of a Debian.

use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use support::{
    Bundle, Engine, Limits, PATIENCE, Ran, Scene, Signal, open_pidfd, reap, signal, wait_for_end,
};

/// Whether it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// The kernel's own.
    Kernels,
    /// With grafts.
    Grafted,
}

/// How much memory it may use.
pub(crate) const MEMORY: u64 = 1 << 30;

/// What its root file system has besides /usr.
const DIRECTORIES: &[&str] = &[
    "dev",
    "etc",
    "etc/alternatives",
    "etc/sysctl.d",
    "home",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "tmp",
    "usr",
    "var",
];

/// Accounts that services of Debian have.
const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nmessagebus:x:101:101::/:/usr/sbin/nologin\n\
         nobody:x:65534:65534::/:/usr/sbin/nologin\n",
    ),
    (
        "etc/group",
        "root:x:0:\ntty:x:5:\nmessagebus:x:101:\nnogroup:x:65534:\n",
    ),
    ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
];

/// A running one. It is ended with the value.
#[derive(Debug)]
pub(crate) struct Machine {
    bundle: Bundle,
    first_config: Value,
    pid: u32,
}

impl Machine {
    /// Start one whose pid 1 is `init`, with the /usr of a Debian and files of its own.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub(crate) fn start(
        scene: &Scene,
        files: Files,
        usr: &Path,
        init: &[&str],
        own: &[(&str, &str)],
    ) -> Self {
        let bundle = Bundle::new(scene, Engine::Runc, &Limits::default(), true);
        let first_config = bundle.config();
        let user = user(&first_config);
        let root = bundle.dir().join("root");
        make_root(&root, own, user);
        bundle.change(|config| machine(config, &root, usr, init));
        let run = |arguments: &[&str]| {
            let mut command = bundle.runtime(arguments);
            // Its pid 1 keeps what it was given.
            command.stdin(Stdio::null()).stdout(Stdio::null());
            let status = command.status().unwrap();
            assert!(status.success(), "{command:?}");
        };
        let dir = bundle.dir().display().to_string();
        run(&["create", "--bundle", &dir, bundle.name()]);
        let state = Ran::run(&mut bundle.runtime(&["state", bundle.name()])).ok();
        let state: Value = serde_json::from_str(&state).unwrap();
        let pid = u32::try_from(state["pid"].as_u64().unwrap()).unwrap();
        let this = Self {
            bundle,
            first_config,
            pid,
        };
        // As an engine that delegates them does.
        for dir in this.bundle.cgroup().dirs() {
            own_files(&dir, user);
        }
        if files == Files::Grafted {
            scene.eci_fs(&["attach", &pid.to_string()]).ok();
        }
        run_to_success(&mut this.bundle.runtime(&["start", this.bundle.name()]));
        this
    }

    /// The configuration of a container that is no machine.
    pub(crate) fn first_config(&self) -> &Value {
        &self.first_config
    }

    /// A command in it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let exec = [&["exec", self.bundle.name()], arguments].concat();
        self.bundle.runtime(&exec)
    }

    /// Run a command in it.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::run(&mut self.command(arguments))
    }

    /// Run a command again and again until what it prints is what is waited for.
    ///
    /// # Panics
    /// When it never is.
    #[track_caller]
    pub(crate) fn wait_until(&self, arguments: &[&str], is_it: impl Fn(&Ran) -> bool) -> Ran {
        let end = Instant::now() + PATIENCE;
        loop {
            let ran = self.run(arguments);
            if is_it(&ran) {
                return ran;
            }
            assert!(Instant::now() < end, "{ran:?}");
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It is a child of the test, which reaps orphans: until it is waited for, runc takes it to be running.
        let pidfd = open_pidfd(self.pid);
        signal(self.pid, Signal::KILL);
        wait_for_end(&pidfd);
        reap(self.pid);
    }
}

#[track_caller]
fn run_to_success(command: &mut Command) {
    Ran::run(command).ok();
}

/// Root of the user namespace, as the host has it.
fn user(config: &Value) -> u32 {
    let first = config["linux"]["uidMappings"][0]["hostID"].as_u64();
    u32::try_from(first.unwrap()).unwrap()
}

#[track_caller]
fn make_root(root: &Path, own: &[(&str, &str)], user: u32) {
    for dir in [""].iter().chain(DIRECTORIES) {
        let dir = root.join(dir);
        fs::create_dir(&dir).unwrap();
        lchown(&dir, Some(user), Some(user)).unwrap();
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), root.join(link)).unwrap();
    }
    for (path, text) in FILES.iter().chain(own) {
        let path = root.join(path);
        fs::write(&path, text).unwrap();
        lchown(&path, Some(user), Some(user)).unwrap();
    }
}

/// Give a directory of cgroups and the files in it to somebody.
#[track_caller]
fn own_files(dir: &Path, user: u32) {
    let files = fs::read_dir(dir).unwrap().flatten();
    for path in files
        .map(|entry| entry.path())
        .chain([dir.to_path_buf()])
        .filter(|path| path == dir || path.is_file())
    {
        lchown(path, Some(user), Some(user)).unwrap();
    }
}

/// What engines make of a container for which nothing is hidden, and that may do all in its namespaces.
fn machine(config: &mut Value, root: &Path, usr: &Path, init: &[&str]) {
    let mut all: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    all.sort();
    config["root"] = json!({ "path": root });
    config["hostname"] = json!("machine");
    let process = &mut config["process"];
    process["args"] = json!(init);
    process["env"] = json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=oci"]);
    process["noNewPrivileges"] = json!(false);
    process["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all });
    let linux = &mut config["linux"];
    linux["maskedPaths"] = json!([]);
    linux["readonlyPaths"] = json!([]);
    linux["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
    linux["resources"]["memory"] = json!({ "limit": MEMORY });
    let sealed = ["nosuid", "noexec", "nodev"];
    let mount = |kind: &str, destination: &str| json!({ "destination": destination, "type": kind, "source": kind, "options": sealed });
    let memory = |destination: &str, mode: &str| json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", mode] });
    let bind = |source: &Path, destination: &str| json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind", "ro"] });
    config["mounts"] = json!([
        mount("proc", "/proc"),
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
        mount("mqueue", "/dev/mqueue"),
        memory("/dev/shm", "mode=1777"),
        mount("sysfs", "/sys"),
        mount("cgroup", "/sys/fs/cgroup"),
        memory("/run", "mode=755"),
        memory("/tmp", "mode=1777"),
        memory("/var", "mode=755"),
        bind(usr, "/usr"),
        bind(Path::new("/etc/alternatives"), "/etc/alternatives"),
    ]);
}
