//! Checks that an engine behaves with eci-fs as without: the same script gives the same transcript on both.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use support::Ran;
use support::engines::CommandLine;

use crate::host::Host;
use crate::scene;

/// A container that ends when it is asked to, with its own exit code; it says so.
const OBEYS: &str = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 1 & wait $!; done";

/// One that does not.
const REFUSES: &str = "trap '' TERM; echo ready; while :; do sleep 1; done";

/// The steps of a script, and what became of each.
struct Script<'a, E> {
    engine: &'a E,
    /// Options of `run` and `create`.
    options: &'a [&'a str],
    transcript: Vec<String>,
}

impl<E: CommandLine> Script<'_, E> {
    /// Note how a command ended and what it said, without what is new each time.
    fn note(&mut self, what: &str, ran: &Ran) {
        let text = |text: &str| {
            text.split_inclusive(' ')
                .map(without_ids)
                .collect::<String>()
        };
        self.transcript.push(format!(
            "{what}\ncode {:?}\nstdout {}\nstderr {}",
            ran.code,
            text(&ran.stdout),
            text(&ran.stderr)
        ));
    }

    fn call(&mut self, arguments: &[&str]) {
        let ran = self.engine.call(arguments);
        self.note(&arguments.join(" "), &ran);
    }

    fn run(&mut self, options: &[&str], command: &[&str]) {
        let ran = self.engine.run(&[self.options, options].concat(), command);
        self.note(&format!("run {options:?} {command:?}"), &ran);
    }

    /// The same, with something to read.
    fn run_with_input(&mut self, options: &[&str], command: &[&str], input: &str) {
        let mut run = self
            .engine
            .run_command(&[self.options, options].concat(), command);
        let mut child = run
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let what = format!("run {options:?} {command:?}");
        self.note(&what, &Ran::from_output(what.clone(), &output));
    }

    /// Until a container has said that it is ready: `logs --follow` ends with it, so it is read by the line.
    fn ready(&mut self, name: &str) {
        let mut logs = self.engine.command(&["logs", "--follow", name]);
        let mut child = logs.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        assert_eq!(line, "ready\n");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn start(&mut self, name: &str, script: &str) {
        self.run(&["--detach", "--name", name], &["sh", "-c", script]);
        self.ready(name);
    }

    fn all(mut self) -> Vec<String> {
        self.endings();
        self.streams();
        self.network();
        self.life();
        self.refusals();
        self.transcript
    }

    /// Exit codes.
    fn endings(&mut self) {
        self.run(&["--rm"], &["true"]);
        self.run(&["--rm"], &["sh", "-c", "exit 42"]);
        self.run(&["--rm"], &["sh", "-c", "kill -9 $$"]);
        self.run(&["--rm"], &["no-such-program"]);
        self.run(&["--rm"], &["/etc/passwd"]);
        self.run(&["--rm", "--workdir=/etc/passwd"], &["true"]);
    }

    /// Standard streams, and terminals.
    fn streams(&mut self) {
        self.run(&["--rm"], &["sh", "-c", "echo out; echo err >&2"]);
        self.run(
            &["--rm", "--tty"],
            &["sh", "-c", "tty; echo out; echo err >&2"],
        );
        self.run_with_input(
            &["--rm", "--interactive"],
            &["sh", "-c", "cat; echo end"],
            "one\ntwo\n",
        );
        let count = "cat | wc -c; head -c 300000 /dev/zero | tr '\\0' x | wc -c";
        self.run_with_input(
            &["--rm", "--interactive"],
            &["sh", "-c", count],
            &"y".repeat(200_000),
        );
        self.run(&["--rm", "--user=65534:65534"], &["id"]);
        self.run(&["--rm", "--read-only"], &["sh", "-c", "echo >/file"]);
        // Not a tunable that is grafted: those can be written, and are the container's own.
        let sealed = ": >/proc/sysrq-trigger; : >/proc/sys/kernel/printk; cat /proc/kcore | wc -c; ls /proc/acpi";
        self.run(&["--rm"], &["sh", "-c", sealed]);
        let caps = "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status; ulimit -n; cat /proc/self/oom_score_adj";
        self.run(&["--rm"], &["sh", "-c", caps]);
        self.run(
            &["--rm"],
            &[
                "sh",
                "-c",
                "ls -l /proc/self/fd | wc -l; env | sort | grep -v HOSTNAME",
            ],
        );
    }

    /// What is set of the container's network namespace: by the engine before it starts, and by the container, for which
    /// /proc/sys is mounted read-only.
    fn network(&mut self) {
        let path = "/proc/sys/net/core/somaxconn";
        let sysctls = [
            "--rm",
            "--sysctl=net.core.somaxconn=4242",
            "--sysctl=net.ipv4.ip_unprivileged_port_start=80",
        ];
        let script = format!("cat {path}; echo 77 >{path}; cat {path}; ls /proc/sys/net/ipv4");
        self.run(&sysctls, &["sh", "-c", &script]);
        let neighbour =
            "echo 5 >/proc/sys/net/ipv4/neigh/lo/mcast_solicit; cat /proc/sys/net/ipv4/neigh/lo/*";
        self.run(&["--rm"], &["sh", "-c", neighbour]);
        self.run(&["--rm", "--privileged"], &["sh", "-c", neighbour]);
        self.run(&["--rm", "--sysctl=net.core.nothing=1"], &["true"]);
    }

    /// What is done to a container that runs.
    fn life(&mut self) {
        self.start("one", OBEYS);
        self.call(&["exec", "one", "sh", "-c", "echo in; echo on >&2; exit 3"]);
        self.call(&["exec", "one", "no-such-program"]);
        self.call(&[
            "exec",
            "--user=1:1",
            "--workdir=/tmp",
            "one",
            "sh",
            "-c",
            "id; pwd",
        ]);
        self.call(&["pause", "one"]);
        self.call(&["inspect", "--format={{.State.Status}}", "one"]);
        self.call(&["unpause", "one"]);
        self.call(&["stop", "--time=20", "one"]);
        let ending = "--format={{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}";
        self.call(&["inspect", ending, "one"]);
        self.call(&["logs", "one"]);
        self.call(&["start", "one"]);
        self.call(&["kill", "--signal=TERM", "one"]);
        self.call(&["wait", "one"]);
        self.call(&["logs", "one"]);
        self.call(&["rm", "one"]);
        self.start("two", REFUSES);
        self.call(&["stop", "--time=1", "two"]);
        self.call(&["inspect", ending, "two"]);
        self.call(&["rm", "two"]);
        self.run(&["--name=three"], &["sh", "-c", "echo said; exit 5"]);
        self.call(&["start", "--attach", "three"]);
        self.call(&["rm", "three"]);
        self.call(&["exec", "three", "true"]);
    }

    /// What cannot be started.
    fn refusals(&mut self) {
        self.run(&["--rm", "--memory=1k"], &["true"]);
        self.run(
            &[
                "--rm",
                "--mount=type=bind,source=/nonexistent/source,target=/proc/version",
            ],
            &["true"],
        );
        self.run(&["--rm", "--entrypoint=/nonexistent"], &[]);
    }
}

/// A word without what differs between two containers: ids, and times of the log.
pub(crate) fn without_ids(word: &str) -> String {
    if word.starts_with("time=") {
        return "time ".to_owned();
    }
    let mut text = String::new();
    let mut run = String::new();
    let end = |run: &mut String, text: &mut String| {
        let id = run.len() >= 12 && run.bytes().all(|byte| byte.is_ascii_hexdigit());
        text.push_str(if id { "ID" } else { run });
        run.clear();
    };
    for c in word.chars() {
        if c.is_ascii_alphanumeric() {
            run.push(c);
        } else {
            end(&mut run, &mut text);
            text.push(c);
        }
    }
    end(&mut run, &mut text);
    text
}

/// Assert that two transcripts are the same, and say where they are not.
#[track_caller]
fn same(without: &[String], with: &[String]) {
    for (without, with) in without.iter().zip(with) {
        assert_eq!(without, with, "without eci-fs, and with it");
    }
    assert_eq!(without.len(), with.len());
}

fn script<E: CommandLine>(engine: &E, options: &[&str]) -> Vec<String> {
    let transcript = Vec::new();
    let script = Script {
        engine,
        options,
        transcript,
    };
    script.all()
}

#[test]
fn privileged_docker_behaves_as_without_eci_fs() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = host.docker(&[]);
    let without = script(&docker, &["--runtime=runc"]);
    let with = script(&docker, &["--runtime=eci"]);
    same(&without, &with);
}

#[test]
fn privileged_podman_behaves_as_without_eci_fs() {
    // The host's: a runtime gives its standard input to the user of `exec --user`.
    let null = File::open("/dev/null").unwrap();
    let owner = || {
        let metadata = null.metadata().unwrap();
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        (metadata.uid(), metadata.gid(), changed)
    };
    let before = owner();
    let scene = scene();
    let host = Host::new(&scene);
    let mut podman = host.podman();
    let hooks = podman.hooks(None);
    let without = script(&podman, &[]);
    podman.hooks(hooks.as_deref());
    let with = script(&podman, &[]);
    same(&without, &with);
    assert_eq!(owner(), before, "/dev/null of the host");
}
