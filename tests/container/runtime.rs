//! `eci-fs runtime`: an engine gets the same results as from the real runtime, and its containers get their views.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::{Bundle, Container, Engine, Ran, Scene, Signal, find_program};

use crate::{limits, scene, sees, sees_the_host};

/// The runtime, with a configuration for the test.
pub(crate) struct Wrapper {
    program: PathBuf,
    config: PathBuf,
    /// The configuration for a runtime that was built without filters of system calls.
    without_filters: PathBuf,
}

impl Wrapper {
    #[track_caller]
    pub(crate) fn new(scene: &Scene, more: &str) -> Self {
        Self::called(scene, env!("CARGO_BIN_EXE_eci-runc").as_ref(), more)
    }

    /// The same of another program, by its name.
    #[track_caller]
    fn called(scene: &Scene, of: &Path, more: &str) -> Self {
        let program = scene.dir().join("eci-runc");
        std::os::unix::fs::symlink(of, &program).unwrap();
        let config = scene.dir().join("config.toml");
        let run = scene.runtime_dir();
        let text = format!("[hook]\nruntime-dir = {run:?}\n{more}");
        let without_filters = scene.dir().join("config-without-filters.toml");
        for (path, traps) in [(&config, true), (&without_filters, false)] {
            let isolation = format!("[isolation]\nsystem-calls = {traps}\n");
            let text = match text.contains("system-calls") {
                true => text.clone(),
                false => text.replacen("[isolation]\n", &isolation, 1),
            };
            std::fs::write(path, text).unwrap();
        }
        Self {
            program,
            config,
            without_filters,
        }
    }

    /// A bundle of 192 MiB and half a CPU that it makes a container of.
    #[track_caller]
    fn bundle(&self, scene: &Scene, engine: Engine, user: bool) -> Bundle {
        let mut bundle = Bundle::new(scene, engine, &limits(192, 0.5), user);
        self.wrap(&mut bundle, engine);
        bundle
    }

    fn wrap(&self, bundle: &mut Bundle, engine: Engine) {
        let words = self.words(engine);
        bundle.wrap(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// The words that call it, with the runtime that it executes.
    pub(crate) fn words(&self, engine: Engine) -> Vec<String> {
        let real = find_program(engine.program());
        let config = match engine {
            Engine::Youki => &self.without_filters,
            _ => &self.config,
        };
        let [program, real, config] =
            [&self.program, &real, config].map(|path| path.display().to_string());
        let options = [
            "--eci-runtime-path".to_owned(),
            real,
            "--eci-config".to_owned(),
            config,
        ];
        [program].into_iter().chain(options).collect()
    }
}

#[test]
fn privileged_containers_made_through_it_see_their_limits() {
    let scene = scene();
    let wrapper = Wrapper::new(&scene, "");
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        for user in [false, true] {
            let bundle = wrapper.bundle(&scene, engine, user);
            let name = bundle.name().to_owned();
            let mut container = Container::of_bundle(bundle);
            sees(&mut container, 192, 1);
            assert_eq!(scene.list()[0]["id"], name.as_str());
            drop(container);
            assert_eq!(scene.list().len(), 0);
        }
    }
    daemon.end();
}

#[test]
fn privileged_a_link_to_the_whole_program_is_the_same() {
    let scene = scene();
    let wrapper = Wrapper::called(&scene, scene.program(), "");
    let daemon = scene.daemon(&[]);
    let mut container = Container::of_bundle(wrapper.bundle(&scene, Engine::Runc, false));
    sees(&mut container, 192, 1);
    drop(container);
    assert_eq!(scene.list().len(), 0);
    daemon.end();
}

#[test]
fn privileged_its_hook_starts_a_daemon_where_that_is_configured() {
    let scene = scene();
    let wrapper = Wrapper::new(&scene, "start = true\n");
    let mut container = Container::of_bundle(wrapper.bundle(&scene, Engine::Crun, false));
    sees(&mut container, 192, 1);
    drop(container);
    scene.note_background();
}

#[test]
fn privileged_it_is_also_a_subcommand() {
    let scene = scene();
    let wrapper = Wrapper::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let mut bundle = Bundle::new(&scene, Engine::Runc, &limits(192, 0.5), false);
    let real = find_program("runc").display().to_string();
    let program = scene.program().to_str().unwrap();
    let config = wrapper.config.to_str().unwrap();
    for dashes in [&["--"][..], &[]] {
        let options = ["--eci-runtime-path", &real, "--eci-config", config];
        bundle.wrap(&[&[program, "runtime"], dashes, &options].concat());
        bundle.program(&["/bin/busybox", "grep", "MemTotal", "/proc/meminfo"]);
        let text = bundle.run().ok();
        assert_eq!(support::number_after(&text, "MemTotal:"), 192 << 10);
    }
    drop(bundle);
    daemon.end();
}

#[test]
fn privileged_a_bundle_keeps_everything_else_and_gets_one_hook_a_stage() {
    let scene = scene();
    let wrapper = Wrapper::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let bundle = wrapper.bundle(&scene, Engine::Runc, false);
    bundle.program(&["/bin/busybox", "true"]);
    bundle.change(|config| {
        config["hooks"] = json!({ "poststart": [], "createRuntime": [{ "path": "/bin/true" }] });
        config["someday"] = json!({ "a": 1.5 });
    });
    let before = bundle.config();
    for _ in 0..2 {
        bundle.run().ok();
        let mut after = bundle.config();
        assert_eq!(after["hooks"]["createRuntime"].as_array().unwrap().len(), 2);
        let hook = after["hooks"]["createRuntime"][1].take();
        assert_eq!(hook["path"], env!("CARGO_BIN_EXE_eci-runc"));
        after["hooks"] = before["hooks"].clone();
        assert_eq!(after, before);
    }
    let left = std::fs::read_dir(bundle.dir()).unwrap();
    let left = left.filter(|entry| entry.as_ref().unwrap().file_name() != "state");
    assert_eq!(left.count(), 1, "nothing but config.json");
    drop(bundle);
    daemon.end();
}

#[test]
fn privileged_a_container_without_views_keeps_its_bundle_as_it_is() {
    let scene = scene();
    let wrapper = Wrapper::new(&scene, "");
    let bundle = wrapper.bundle(&scene, Engine::Crun, false);
    bundle.change(|config| config["annotations"] = json!({ "eci-fs.enabled": "false" }));
    let path = bundle.dir().join("config.json");
    let before = std::fs::read(&path).unwrap();
    let mut container = Container::of_bundle(bundle);
    sees_the_host(&mut container);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// The same of all runtimes: `look` gets a bundle whose container is made through us, and one that is not.
#[track_caller]
fn same_of_all<T: PartialEq + std::fmt::Debug>(look: impl Fn(&Bundle) -> T) {
    same_of(&Engine::RUNTIMES, look);
}

/// The same, with these runtimes.
#[track_caller]
fn same_of<T: PartialEq + std::fmt::Debug>(engines: &[Engine], look: impl Fn(&Bundle) -> T) {
    let scene = scene();
    let wrapper = Wrapper::new(&scene, "");
    let daemon = scene.daemon(&[]);
    for &engine in engines {
        let ours = wrapper.bundle(&scene, engine, false);
        let theirs = Bundle::new(&scene, engine, &limits(192, 0.5), false);
        assert_eq!(look(&ours), look(&theirs), "{engine:?}");
    }
    daemon.end();
}

/// What a command line comes to, without what differs from container to container.
#[track_caller]
fn outcome(bundle: &Bundle, mut command: Command) -> (Option<i32>, String, String) {
    let ran = Ran::run(&mut command);
    let plain = |text: &str| {
        let text = text.replace(bundle.name(), "NAME");
        // runc begins a line with the time.
        let lines = text.lines().map(|line| match line.split_once(" level=") {
            Some((_time, rest)) => rest.to_owned(),
            None => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    (ran.code, plain(&ran.stdout), plain(&ran.stderr))
}

#[test]
fn privileged_exit_codes_and_outputs_are_those_of_the_container() {
    same_of_all(|bundle| {
        let scripts = [
            "exit 0",
            "exit 7",
            "kill -9 $$; exit 3",
            "echo out; echo err >&2; exit 1",
        ];
        scripts.map(|script| {
            bundle.program(&["/bin/busybox", "sh", "-c", script]);
            outcome(bundle, bundle.run_command())
        })
    });
}

#[test]
fn privileged_what_the_runtime_refuses_is_refused_in_its_words() {
    same_of_all(|bundle| {
        bundle.program(&["/bin/nothing"]);
        let refused = outcome(bundle, bundle.run_command());
        let lines = [
            &["state", "nobody"][..],
            &["run", "--bundle", "/nonexistent", "x"],
            &["create"],
            &["--no-such-option"],
            &["no-such-command"],
            &["delete", "nobody"],
        ];
        let others = lines.map(|line| outcome(bundle, bundle.runtime(line)));
        (refused, others)
    });
}

#[test]
fn privileged_what_is_asked_without_a_container_is_answered_by_the_runtime() {
    same_of_all(|bundle| {
        let lines = [&["--version"][..], &["--help"], &["list"]];
        // youki counts up its features in another order each time.
        let (code, features, errors) = outcome(bundle, bundle.runtime(&["features"]));
        let mut features: Vec<_> = features
            .lines()
            .map(|line| line.trim_end_matches(',').to_owned())
            .collect();
        features.sort();
        let others = lines.map(|line| outcome(bundle, bundle.runtime(line)));
        (code, features, errors, others)
    });
}

#[test]
fn privileged_input_and_output_are_the_containers_own() {
    same_of_all(|bundle| {
        bundle.program(&["/bin/busybox", "tr", "a-z", "A-Z"]);
        let mut command = bundle.run_command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"over and out\n").unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    });
}

#[test]
fn privileged_a_signal_to_the_runtime_reaches_the_container() {
    // crun listens to signals a moment after its container has begun, and a signal before that ends it.
    same_of(&[Engine::Runc], |bundle| {
        let script = "trap 'exit 9' TERM; echo ready; while :; do read -r line; done";
        bundle.program(&["/bin/busybox", "sh", "-c", script]);
        let mut command = bundle.run_command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        support::signal(child.id(), Signal::TERM);
        (line, child.wait().unwrap().code())
    });
}

#[test]
fn the_runtime_finds_the_signals_blocked_that_its_engine_has_blocked() {
    let status = |words: &[&str]| {
        let mut command = Command::new(find_program("env"));
        command.arg("--block-signal=CHLD,USR2").args(words);
        Ran::run(command.args(["^Sig", "/proc/self/status"])).ok()
    };
    let program = env!("CARGO_BIN_EXE_eci-runc");
    let through = status(&[program, "--eci-runtime-path", "grep"]);
    assert_eq!(through, status(&["grep"]));
    assert!(through.contains("SigBlk:\t0000000000010800"), "{through}");
}

#[test]
fn privileged_a_life_in_steps_is_that_of_the_runtime() {
    same_of_all(|bundle| {
        let name = bundle.name().to_owned();
        bundle.program(&["/bin/busybox", "sleep", "1000"]);
        let dir = bundle.dir().to_str().unwrap().to_owned();
        let status = || {
            let text = Ran::run(&mut bundle.runtime(&["state", &name])).ok();
            let state: Value = serde_json::from_str(&text).unwrap();
            (state["status"].clone(), state["annotations"].clone())
        };
        let mut steps = Vec::new();
        let mut states = Vec::new();
        let mut step = |line: &[&str]| steps.push(outcome(bundle, bundle.runtime(line)));
        step(&["create", "--bundle", &dir, &name]);
        states.push(status());
        step(&["start", &name]);
        states.push(status());
        step(&["exec", &name, "/bin/busybox", "sh", "-c", "echo in; exit 5"]);
        step(&["exec", &name, "/bin/nothing"]);
        step(&["delete", &name]);
        step(&["pause", &name]);
        step(&["resume", &name]);
        let pid = bundle.cgroup().processes()[0];
        step(&["kill", &name, "KILL"]);
        // A runtime that has ended leaves its containers to the reaper, which is the test.
        support::reap(pid);
        step(&["delete", "--force", &name]);
        step(&["state", &name]);
        (steps, states)
    });
}

#[test]
fn privileged_without_a_daemon_the_engine_reads_why_in_the_log_of_the_runtime() {
    let scene = scene();
    let wrapper = Wrapper::new(&scene, "");
    for engine in Engine::RUNTIMES {
        for (format, json) in [("json", true), ("text", false)] {
            let bundle = wrapper.bundle(&scene, engine, false);
            let log = bundle.dir().join("log");
            let (log_text, dir) = (log.to_str().unwrap(), bundle.dir().to_str().unwrap());
            let line = [
                "--log",
                log_text,
                "--log-format",
                format,
                "run",
                "--bundle",
                dir,
            ];
            let ran = Ran::run(&mut bundle.runtime(&[&line[..], &[bundle.name()]].concat()));
            ran.refused(&["eci-runc: ", "no eci-mountd is listening", "on-error"]);
            let text = std::fs::read_to_string(&log).unwrap();
            if json {
                let line: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(line["level"], "error");
                assert!(
                    line["msg"].as_str().unwrap().contains("no eci-mountd"),
                    "{line}"
                );
            } else {
                assert!(text.contains("level=error msg=\"no eci-mountd"), "{text}");
            }
            assert_eq!(bundle.config()["hooks"], Value::Null);
        }
    }
}

#[test]
fn privileged_without_a_daemon_a_container_that_may_go_without_views_starts_through_it() {
    let scene = scene();
    let wrapper = Wrapper::new(&scene, "on-error = 'ignore'\n");
    for engine in Engine::RUNTIMES {
        let mut container = Container::of_bundle(wrapper.bundle(&scene, engine, false));
        sees_the_host(&mut container);
    }
    // Nor does a bundle keep a container from starting that cannot be edited.
    let mut broken = wrapper.bundle(&scene, Engine::Runc, false);
    broken.change(|config| config["annotations"] = json!({ "eci-fs.views": "" }));
    sees_the_host(&mut Container::of_bundle(std::mem::replace(
        &mut broken,
        wrapper.bundle(&scene, Engine::Runc, false),
    )));
}

#[test]
fn privileged_a_wrong_annotation_or_configuration_is_refused_with_its_name() {
    let scene = scene();
    let wrapper = Wrapper::new(&scene, "allow = ['views']\n");
    let refused = |annotation: Value, words: &[&str]| {
        let bundle = wrapper.bundle(&scene, Engine::Crun, false);
        bundle.change(|config| config["annotations"] = annotation);
        bundle.run().refused(words);
    };
    refused(
        json!({ "eci-fs.views": "/proc/none" }),
        &["eci-fs.views", "/proc/none"],
    );
    refused(
        json!({ "eci-fs.enabled": "false" }),
        &["eci-fs.enabled", "allow"],
    );
    let bundle = wrapper.bundle(&scene, Engine::Crun, false);
    std::fs::write(&wrapper.config, "[hook]\nonerror = 'fail'\n").unwrap();
    let path = wrapper.config.to_str().unwrap();
    bundle.run().refused(&[path, "line 2", "onerror"]);
    // Or the bundle could not be deleted.
    std::fs::write(&wrapper.config, "").unwrap();
}

#[test]
fn privileged_a_runtime_that_is_missing_or_is_itself_is_refused_with_a_remedy() {
    let scene = scene();
    let wrapper = Wrapper::new(&scene, "");
    for (path, word) in [
        ("/nonexistent/runc", "/nonexistent/runc"),
        ("no-such-runtime", "PATH"),
        (wrapper.program.to_str().unwrap(), "itself"),
    ] {
        let mut command = Command::new(&wrapper.program);
        command.args(["--eci-runtime-path", path, "state", "x"]);
        Ran::run(&mut command).refused(&["eci-runc: ", word, "[runtime] path"]);
    }
}
