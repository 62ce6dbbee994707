//! Containers whose pid 1 is a `probe agent`: of plain namespaces, or made by an OCI runtime.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::cgroup::hybrid;
use crate::config::{HOST_ID, HOST_IDS};
use crate::process::{children_of, kill, open_pidfd, wait_for_end};
use crate::{Agent, Bundle, Cgroup, Limits, Scene, find_program, mounts_of};

/// What makes a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The probe, of namespaces alone; it keeps the root file system of the host.
    Plain,
    /// runc.
    Runc,
    /// crun.
    Crun,
    /// youki.
    Youki,
    /// bubblewrap, which has no hooks and makes no cgroup.
    Bubblewrap,
}

/// A container that is not there yet.
#[derive(Debug)]
pub struct Builder<'a> {
    scene: &'a Scene,
    engine: Engine,
    limits: Limits,
    user: bool,
    options: Vec<&'static str>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(scene: &'a Scene) -> Self {
        Self {
            scene,
            engine: Engine::Plain,
            limits: Limits::default(),
            user: false,
            options: Vec::new(),
        }
    }

    /// Made by `engine`.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// With limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// With a user namespace or without one.
    #[must_use]
    pub fn user_namespace(mut self, user: bool) -> Self {
        self.user = user;
        self
    }

    /// With options of `probe contain`, for a plain container.
    #[must_use]
    pub fn options(mut self, options: &[&'static str]) -> Self {
        self.options.extend(options);
        self
    }

    /// Start it, and wait until its pid 1 speaks.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn start(self) -> Container {
        match self.engine {
            Engine::Plain => self.start_plain(),
            Engine::Bubblewrap => self.start_bubblewrap(),
            Engine::Runc | Engine::Crun | Engine::Youki => self.start_with_runtime(),
        }
    }

    #[track_caller]
    fn start_plain(mut self) -> Container {
        let cgroup = Cgroup::new(&self.limits);
        let bin = self.scene.root().join("bin");
        if self.user {
            self.options.push("--user");
        }
        let mut command = Command::new(bin.join("probe"));
        command.arg("contain").args(&self.options).arg("--");
        command.arg(bin.join("probe")).arg("agent");
        let (child, mut agent) = spawn(&mut command);
        cgroup.add(child.id());
        agent.say("go");
        if self.user {
            let wish = agent.hear();
            assert_eq!(wish, Ok("wants its maps".into()));
            for file in ["uid_map", "gid_map"] {
                let path = format!("/proc/{}/{file}", child.id());
                if let Err(error) = std::fs::write(&path, format!("0 {HOST_ID} {HOST_IDS}\n")) {
                    panic!("{path} cannot be written: {error}");
                }
            }
            agent.say("go");
        }
        hello(&mut agent);
        let pids = children_of(child.id());
        assert_eq!(pids.len(), 1, "`probe contain` has one child");
        Container {
            agent,
            child,
            pid: pids[0],
            bin,
            of: Of::Cgroup(cgroup),
        }
    }

    #[track_caller]
    fn start_bubblewrap(self) -> Container {
        assert!(self.options.is_empty(), "options are for plain containers");
        let cgroup = Cgroup::new(&self.limits);
        let mut command = Command::new(find_program("sh"));
        command.args(["-c", "read go && exec \"$@\"", "sh"]);
        command.arg(find_program(self.engine.program()));
        command.args(["--unshare-ipc", "--unshare-pid", "--unshare-net"]);
        command.args(["--unshare-uts", "--unshare-cgroup", "--as-pid-1"]);
        if self.user {
            command.arg("--unshare-user");
        }
        command.arg("--ro-bind").arg(self.scene.root()).arg("/");
        command.args(["--proc", "/proc", "--dev", "/dev"]);
        command.args(["--ro-bind", "/sys", "/sys", "--", "/bin/probe", "agent"]);
        let (child, mut agent) = spawn(&mut command);
        cgroup.add(child.id());
        agent.say("go");
        hello(&mut agent);
        let pids = children_of(child.id());
        assert_eq!(pids.len(), 1, "bwrap has one child");
        Container {
            agent,
            child,
            pid: pids[0],
            bin: "/bin".into(),
            of: Of::Cgroup(cgroup),
        }
    }

    #[track_caller]
    fn start_with_runtime(self) -> Container {
        assert!(self.options.is_empty(), "options are for plain containers");
        Container::of_bundle(Bundle::new(
            self.scene,
            self.engine,
            &self.limits,
            self.user,
        ))
    }
}

impl Engine {
    /// The runtimes.
    pub const RUNTIMES: [Self; 3] = [Self::Runc, Self::Crun, Self::Youki];

    /// The name of its program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Plain => "unshare",
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Youki => "youki",
            Self::Bubblewrap => "bwrap",
        }
    }

    /// What has to execute it on this machine, if it does not work as it is: crun refuses a hybrid layout while v2
    /// has a controller; where it looks, it has none then. `youki run` waits for ever for a container that has ended
    /// before it listens to signals (0.7.0), unless the signal that says so waits for it.
    #[track_caller]
    pub(crate) fn enter(self) -> Option<Command> {
        if self == Self::Youki {
            let mut command = Command::new(find_program("env"));
            command.arg("--block-signal=CHLD");
            return Some(command);
        }
        let v2 = hybrid().filter(|_| self == Self::Crun)?;
        let mut command = Command::new(find_program("unshare"));
        let script = r#"mount --bind /dev/null "$0" && exec "$@""#;
        command.args(["--mount", "sh", "-c", script]);
        command.arg(v2.join("cgroup.controllers"));
        Some(command)
    }
}

#[track_caller]
fn spawn(command: &mut Command) -> (Child, Agent) {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => panic!("{command:?} cannot be started: {error}"),
    };
    match (child.stdin.take(), child.stdout.take()) {
        (Some(input), Some(output)) => (child, Agent::new(input, output)),
        _ => panic!("{command:?} has no pipes"),
    }
}

#[track_caller]
fn hello(agent: &mut Agent) {
    if let Err(error) = agent.hear() {
        panic!("the container does not start: {error}");
    }
}

/// A running container. It is ended with the value. The agent's commands can be asked of it directly.
#[derive(Debug)]
pub struct Container {
    agent: Agent,
    child: Child,
    pid: u32,
    bin: PathBuf,
    of: Of,
}

/// What is taken away with a container.
#[derive(Debug)]
enum Of {
    Cgroup(Cgroup),
    Bundle(Bundle),
}

impl Container {
    /// Start the container of a bundle, and wait until its pid 1 speaks.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn of_bundle(bundle: Bundle) -> Self {
        let (child, mut agent) = spawn(&mut bundle.run_command());
        hello(&mut agent);
        let pids = bundle.cgroup().processes();
        assert_eq!(pids.len(), 1, "{bundle:?} has one process");
        Self {
            agent,
            child,
            pid: pids[0],
            bin: "/bin".into(),
            of: Of::Bundle(bundle),
        }
    }

    /// Its pid 1, as the host has it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What made it: its parent on the host.
    pub fn launcher(&self) -> u32 {
        self.child.id()
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        match &self.of {
            Of::Cgroup(cgroup) => cgroup,
            Of::Bundle(bundle) => bundle.cgroup(),
        }
    }

    /// Its mounts.
    ///
    /// # Panics
    /// When it has ended.
    #[track_caller]
    pub fn mounts(&self) -> Vec<String> {
        mounts_of(self.pid)
    }

    /// The paths that are grafted in it.
    ///
    /// # Panics
    /// When it has ended.
    #[track_caller]
    pub fn grafts(&self) -> Vec<String> {
        let is_graft = |line: &&String| line.contains(" - fuse eci-fs ");
        let mounts = self.mounts();
        let paths = mounts
            .iter()
            .filter(is_graft)
            .filter_map(|line| line.split(' ').nth(4));
        paths.map(str::to_owned).collect()
    }

    /// The path of a program of the probe's directory in the container.
    pub fn program(&self, name: &str) -> String {
        self.bin.join(name).display().to_string()
    }

    /// Run an applet of busybox in it; what it prints.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn busybox(&mut self, arguments: &[&str]) -> String {
        let program = self.program("busybox");
        self.agent.run(&[&[program.as_str()], arguments].concat())
    }

    /// Kill its pid 1, and wait until the kernel has taken it down.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn kill(&mut self) {
        let pidfd = open_pidfd(self.pid);
        kill(self.pid);
        wait_for_end(&pidfd);
        // Its parent has nothing left to wait for.
        let _ = self.child.wait();
    }
}

impl Deref for Container {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        &self.agent
    }
}

impl DerefMut for Container {
    fn deref_mut(&mut self) -> &mut Agent {
        &mut self.agent
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        kill(self.pid);
        // A bundle deletes what is left when it is dropped.
        let _ = self.child.wait();
    }
}
