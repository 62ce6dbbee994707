//! Containers whose pid 1 is a `probe agent`: made of plain namespaces, or by an OCI runtime.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::cgroup::hybrid;
use crate::config::{HOST_ID, HOST_IDS};
use crate::process::{children_of, kill, open_pidfd, wait_for_end};
use crate::{Agent, Bundle, Cgroup, Limits, Scene, find_program, mounts_of};

/// The program that makes a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The probe. It uses namespaces alone, and keeps the root file system of the host.
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

/// A description of a container that can be started.
#[derive(Debug)]
pub struct Builder<'a> {
    scene: &'a Scene,
    engine: Engine,
    limits: Limits,
    user: bool,
    measuring: bool,
    options: Vec<&'static str>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(scene: &'a Scene) -> Self {
        Self {
            scene,
            engine: Engine::Plain,
            limits: Limits::default(),
            user: false,
            measuring: false,
            options: Vec::new(),
        }
    }

    /// Sets the program that makes the container.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets whether the container has a user namespace.
    #[must_use]
    pub fn user_namespace(mut self, user: bool) -> Self {
        self.user = user;
        self
    }

    /// Sets whether the container can measure CPUs, for a plain container: its bounding set has all capabilities then.
    /// Those of engines do not have the ones for that.
    #[must_use]
    pub fn measuring(mut self, measuring: bool) -> Self {
        self.measuring = measuring;
        self
    }

    /// Adds options of `probe contain`, for a plain container.
    #[must_use]
    pub fn options(mut self, options: &[&'static str]) -> Self {
        self.options.extend(options);
        self
    }

    /// Starts the container, and waits until its pid 1 answers.
    ///
    /// # Panics
    /// When it does not answer.
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
        command.args(self.measuring.then_some("measuring"));
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

/// A command that executes another one with SIGCHLD blocked.
const KEEPING_CHILD_SIGNALS: [&str; 2] = ["env", "--block-signal=CHLD"];

impl Engine {
    /// The OCI runtimes.
    pub const RUNTIMES: [Self; 3] = [Self::Runc, Self::Crun, Self::Youki];

    /// Returns the name of the program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Plain => "unshare",
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Youki => "youki",
            Self::Bubblewrap => "bwrap",
        }
    }

    /// Returns the words of a command that executes the runtime directly. `youki run` (0.7.0) waits for ever for a container
    /// that ends before youki listens to signals; with these words the signal stays pending. A shell between them and the
    /// runtime would unblock it.
    pub fn words(self) -> Vec<&'static str> {
        let first: &[_] = match self {
            Self::Youki => &KEEPING_CHILD_SIGNALS,
            _ => &[],
        };
        [first, &[self.program()]].concat()
    }

    /// Returns a program that has to execute the runtime on this host, if it does not work by itself. crun refuses a
    /// hybrid layout while v2 has a controller; the wrapper hides the controllers of v2.
    #[track_caller]
    pub(crate) fn enter(self) -> Option<Command> {
        if self == Self::Youki {
            let mut command = Command::new(find_program(KEEPING_CHILD_SIGNALS[0]));
            command.args(&KEEPING_CHILD_SIGNALS[1..]);
            return Some(command);
        }
        let v2 = hybrid().filter(|_| self == Self::Crun)?;
        let mut command = Command::new(find_program("unshare"));
        let script = r#"mount --bind /dev/null "$0" && exec "$@""#;
        // Mounts of a scene are private, but for those that a test shares.
        command.args(["--mount", "--propagation=unchanged"]);
        command.args(["sh", "-c", script]);
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

/// A running container. It is ended when this value is dropped. The commands of the agent can be called on it
/// directly.
#[derive(Debug)]
pub struct Container {
    agent: Agent,
    child: Child,
    pid: u32,
    bin: PathBuf,
    of: Of,
}

/// The resources that are removed with a container.
#[derive(Debug)]
enum Of {
    Cgroup(Cgroup),
    Bundle(Bundle),
}

impl Container {
    /// Starts the container of a bundle, and waits until its pid 1 answers.
    ///
    /// # Panics
    /// When it does not answer.
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

    /// Returns the host's pid of pid 1 of the container.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the pid of the parent on the host, which made the container.
    pub fn launcher(&self) -> u32 {
        self.child.id()
    }

    /// Returns the cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        match &self.of {
            Of::Cgroup(cgroup) => cgroup,
            Of::Bundle(bundle) => bundle.cgroup(),
        }
    }

    /// Returns the mounts of the container.
    ///
    /// # Panics
    /// When the container has ended.
    #[track_caller]
    pub fn mounts(&self) -> Vec<String> {
        mounts_of(self.pid)
    }

    /// Returns the grafted paths.
    ///
    /// # Panics
    /// When the container has ended.
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

    /// Returns the path in the container of a program in the probe's directory.
    pub fn program(&self, name: &str) -> String {
        self.bin.join(name).display().to_string()
    }

    /// Runs an applet of busybox in the container. Returns its output.
    ///
    /// # Panics
    /// When the applet fails.
    #[track_caller]
    pub fn busybox(&mut self, arguments: &[&str]) -> String {
        let program = self.program("busybox");
        self.agent.run(&[&[program.as_str()], arguments].concat())
    }

    /// Kills pid 1, and waits until the kernel has removed it.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn kill(&mut self) {
        let pidfd = open_pidfd(self.pid);
        kill(self.pid);
        wait_for_end(&pidfd);
        // The parent ends with its only child.
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
        // A bundle removes the rest when it is dropped.
        let _ = self.child.wait();
    }
}
