//! The bundle of one container, and the runtime that makes it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::config::config;
use crate::{Cgroup, Engine, Limits, Ran, Scene, find_program};

/// The capabilities that engines give to a container, but for those of audit and raw sockets.
const CAPABILITIES: [&str; 12] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_SETFCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_MKNOD",
    "CAP_SYS_CHROOT",
];

/// Gives the process of a configuration the capabilities that engines give, also by programs that it executes.
pub fn give_engines_capabilities(config: &mut Value) {
    let names = json!(CAPABILITIES);
    config["process"]["capabilities"] =
        json!({ "bounding": names, "effective": names, "permitted": names });
    config["process"]["noNewPrivileges"] = json!(false);
}

/// A bundle whose container runs `probe agent` as pid 1, unless its configuration is changed. The container is deleted
/// when this value is dropped.
#[derive(Debug)]
pub struct Bundle {
    dir: PathBuf,
    name: String,
    engine: Engine,
    /// The path of the runtime. It is found at first, because deleting the container needs the runtime, too.
    program: PathBuf,
    wrapper: Vec<String>,
    cgroup: Cgroup,
}

impl Bundle {
    /// Makes a bundle.
    ///
    /// # Panics
    /// When it cannot be written, or the runtime is not installed.
    #[track_caller]
    pub fn new(scene: &Scene, engine: Engine, limits: &Limits, user: bool) -> Self {
        // The cgroup does not exist yet. This value removes what the runtime makes.
        let cgroup = Cgroup::named(Cgroup::fresh_path());
        let name = cgroup.path().trim_start_matches('/').to_owned();
        let this = Self {
            dir: scene.dir().join(&name),
            name,
            engine,
            program: find_program(engine.program()),
            wrapper: Vec::new(),
            cgroup,
        };
        if let Err(error) = std::fs::create_dir(&this.dir) {
            panic!("the bundle {} cannot be made: {error}", this.dir.display());
        }
        this.write(&config(scene.root(), this.cgroup.path(), limits, user));
        this
    }

    /// Sets a wrapper that calls the runtime: a program and its first arguments.
    pub fn wrap(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
    }

    /// Returns the directory of the bundle.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the name of the container.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the cgroup of the container.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Returns the configuration.
    ///
    /// # Panics
    /// When it cannot be read.
    #[track_caller]
    pub fn config(&self) -> Value {
        let text = std::fs::read_to_string(self.dir.join("config.json"));
        match text.map(|text| serde_json::from_str(&text)) {
            Ok(Ok(config)) => config,
            other => panic!("the configuration cannot be read: {other:?}"),
        }
    }

    /// Changes the configuration.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    pub fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut config = self.config();
        change(&mut config);
        self.write(&config);
    }

    #[track_caller]
    fn write(&self, config: &Value) {
        if let Err(error) = std::fs::write(self.dir.join("config.json"), config.to_string()) {
            panic!("the configuration cannot be written: {error}");
        }
    }

    /// Adds hooks that call `eci-fs hook` with options when the container is created and when it has ended.
    ///
    /// # Panics
    /// As [`Self::change`].
    #[track_caller]
    pub fn hook(&self, scene: &Scene, options: &[&str]) {
        let run = scene.runtime_dir();
        let hook = |stage: &str| {
            let mut args = vec!["eci-fs".into(), "hook".into()];
            args.push("--runtime-dir".into());
            args.push(run.display().to_string());
            args.extend(options.iter().map(|&option| option.to_owned()));
            args.push(stage.to_owned());
            json!([{ "path": scene.program(), "args": args }])
        };
        self.change(|config| {
            config["hooks"] = json!({
                "createRuntime": hook("createRuntime"), "poststop": hook("poststop")
            });
        });
    }

    /// Returns a command of the runtime, with the state in the bundle.
    pub fn runtime(&self, arguments: &[&str]) -> Command {
        let mut command = match (self.engine.enter(), self.wrapper.split_first()) {
            (Some(mut enter), _) => {
                enter.args(&self.wrapper);
                enter
            }
            (None, Some((first, rest))) => {
                let mut command = Command::new(first);
                command.args(rest);
                command
            }
            (None, None) => Command::new(&self.program),
        };
        if self.engine.enter().is_some() && self.wrapper.is_empty() {
            command.arg(&self.program);
        }
        command.arg("--root").arg(self.dir.join("state"));
        command.args(arguments);
        command
    }

    /// Has the container go through `eci-runc` to runc, with isolation. `settings` are rows of the table `[isolation]`.
    ///
    /// # Panics
    /// When the files of that cannot be made in the directory of the scene.
    #[track_caller]
    pub fn isolate(&mut self, scene: &Scene, eci_runc: &Path, settings: &str) {
        let (config, program) = (self.dir.join("eci-fs.toml"), self.dir.join("eci-runc"));
        let run = scene.runtime_dir();
        let text =
            format!("[hook]\nruntime-dir = {run:?}\n[isolation]\nenabled = true\n{settings}");
        let made = std::fs::write(&config, text)
            .and_then(|()| std::os::unix::fs::symlink(eci_runc, &program));
        if let Err(error) = made {
            panic!("{} cannot be made: {error}", config.display());
        }
        let words =
            [&program, &find_program("runc"), &config].map(|path| path.display().to_string());
        let [program, runc, config] = words.each_ref().map(String::as_str);
        self.wrap(&[program, "--eci-runtime-path", runc, "--eci-config", config]);
    }

    /// Returns the command that creates and starts the container.
    #[track_caller]
    pub fn run_command(&self) -> Command {
        let mut command = self.runtime(&["run", "--bundle"]);
        command.arg(&self.dir).arg(&self.name);
        command
    }

    /// Runs the container to its end. Its standard input is empty.
    ///
    /// # Panics
    /// When the runtime cannot be started.
    #[track_caller]
    pub fn run(&self) -> Ran {
        // No device of the host: crun up to 1.21 gives what it finds there to the container's root.
        let empty = match tempfile::tempfile() {
            Ok(empty) => empty,
            Err(error) => panic!("an empty file cannot be made: {error}"),
        };
        Ran::run_reading(&mut self.run_command(), empty.into())
    }

    /// Sets the command of the container.
    ///
    /// # Panics
    /// As [`Self::change`].
    #[track_caller]
    pub fn program(&self, arguments: &[&str]) {
        self.change(|config| config["process"]["args"] = json!(arguments));
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // With --force, the runtime succeeds when nothing is left.
        let ran = Ran::run(&mut self.runtime(&["delete", "--force", &self.name]));
        if !std::thread::panicking() {
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
    }
}
