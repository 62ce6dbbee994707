//! A container by `eci-fs run`, and a shell in it that runs commands of the test.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};

use support::{Daemon, PATIENCE, Pending, Scene, end_within, open_pidfd};

/// A running container. It ends with the value.
#[derive(Debug)]
pub(crate) struct Shell {
    // In this order they are dropped: the container, the daemon that serves it, and then the look at what is left.
    run: Run,
    _daemon: Daemon,
    scene: Scene,
}

#[derive(Debug)]
struct Run {
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pending: Pending,
}

impl Shell {
    /// Start one with options of `eci-fs run`.
    #[track_caller]
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::within(Scene::new(env!("CARGO_BIN_EXE_eci-fs")), options)
    }

    /// Start one in surroundings that have been prepared: what is mounted in them, the container has too.
    #[track_caller]
    pub(crate) fn within(scene: Scene, options: &[&str]) -> Self {
        // With a daemon at hand the container can be detached while it runs.
        let daemon = scene.daemon(&[]);
        let mut pending = scene.start(&[&["run"], options, &["--", "bash"]].concat());
        let child = pending.child();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        let mut this = Self {
            run: Run {
                input,
                output: BufReader::new(output),
                pending,
            },
            _daemon: daemon,
            scene,
        };
        this.run("true");
        this
    }

    /// Run a script; what it prints, errors included.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub(crate) fn run(&mut self, script: &str) -> String {
        // In a file, for then nothing in it needs quoting, and it cannot read what the shell is told next.
        let file = self.scene.dir().join("script");
        std::fs::write(&file, script).unwrap();
        let line = format!(
            "bash {} </dev/null 2>&1; echo; echo \"$? END\"\n",
            file.display()
        );
        // The exit code must be asked before the empty line is printed.
        let line = line.replace(
            "; echo; echo \"$? END\"",
            "; code=$?; echo; echo \"$code END\"",
        );
        let input = self.run.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).unwrap();
        let mut text = String::new();
        loop {
            let mut line = String::new();
            let length = self.run.output.read_line(&mut line).unwrap();
            assert!(length > 0, "the container has ended: {text}");
            if let Some(code) = line.strip_suffix(" END\n") {
                assert_eq!(code, "0", "{script}: {text}");
                text.pop();
                return text;
            }
            text.push_str(&line);
        }
    }

    /// Take the views away: the files of the kernel again.
    #[track_caller]
    pub(crate) fn detach(&mut self) {
        let pid = self.pid().to_string();
        self.scene.eci_fs(&["detach", &pid]).ok();
    }

    /// Its pid 1, as the host has it.
    #[track_caller]
    fn pid(&self) -> u64 {
        let list = self.scene.list();
        assert_eq!(list.len(), 1, "{list:?}");
        list[0]["pid"].as_u64().unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // The shell ends at the end of its input, and `run` cleans up; killed, it could not.
        drop(self.input.take());
        end_within(&open_pidfd(self.pending.child().id()), PATIENCE);
    }
}
