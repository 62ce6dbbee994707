//! The test's end of a container: makes it, speaks with the agent in it, ends it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Result;
use crate::cgroup::Cgroup;
use crate::expect::host;

/// A container that runs.
pub(crate) struct Container {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The cgroup whose figures it is to be shown.
    pub(crate) cgroup: Cgroup,
    /// A process of it, by the machine's pid.
    pub(crate) pid: i32,
    /// Whether it has a time namespace whose clock began with it.
    pub(crate) own_clock: bool,
}

impl Container {
    /// `eci-fs run` with these options.
    pub(crate) fn run(options: &[&str]) -> Result<Self> {
        let mut command = Command::new("/bin/eci-fs");
        command
            .arg("run")
            .args(options)
            .args(["--", "/bin/vm-guest", "agent"]);
        let mut this = Self::spawn(command, Cgroup::existing("eci-fs"))?;
        this.cgroup = Cgroup::existing(&format!("eci-fs/run-{}", this.child.id()));
        this.own_clock = Path::new("/proc/self/timens_offsets").exists();
        // It answers when it runs, and then its cgroup has its processes.
        this.ask(&["clock"])?;
        this.pid = *this
            .cgroup
            .threads()?
            .last()
            .ok_or("nobody is in the cgroup of the container")?;
        Ok(this)
    }

    /// A container of plain namespaces in this cgroup, and `eci-fs attach`.
    pub(crate) fn attach(cgroup: &Cgroup, user: bool) -> Result<Self> {
        let this = Self::plain(cgroup, user)?;
        let mut command = Command::new("/bin/eci-fs");
        output(command.arg("attach").arg(this.pid.to_string()))?;
        Ok(this)
    }

    /// A container of plain namespaces in this cgroup.
    pub(crate) fn plain(cgroup: &Cgroup, user: bool) -> Result<Self> {
        let mut command = Command::new("/bin/vm-guest");
        command.arg("contain").args(user.then_some("user"));
        let mut this = Self::spawn(command, cgroup.clone())?;
        let outer = i32::try_from(this.child.id()).map_err(|e| e.to_string())?;
        cgroup.join(outer)?;
        this.say("go")?;
        if user {
            let heard = this.hear()?;
            if heard != "maps" {
                return Err(format!("a container said {heard}"));
            }
            for map in ["uid_map", "gid_map"] {
                let path = format!("/proc/{outer}/{map}");
                fs::write(&path, "0 100000 65536\n").map_err(|e| format!("{path}: {e}"))?;
            }
            this.say("go")?;
        }
        let heard = this.hear()?;
        this.pid = heard
            .parse()
            .map_err(|_| format!("a container said {heard}"))?;
        // It answers when it has mounted /proc.
        this.ask(&["clock"])?;
        Ok(this)
    }

    fn spawn(mut command: Command, cgroup: Cgroup) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("a container without output")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
            cgroup,
            pid: 0,
            own_clock: false,
        })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().ok_or("the container has ended")?;
        writeln!(input, "{line}").map_err(|e| format!("the container does not listen: {e}"))
    }

    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err("the container has ended".to_owned()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(format!("the container does not speak: {error}")),
        }
    }

    /// Has the agent do something; what came of it, or the name of the error.
    pub(crate) fn ask(&mut self, words: &[&str]) -> Result<Vec<u8>> {
        self.say(&words.join("\t"))?;
        let heard = self.hear()?;
        let Some(length) = heard.strip_prefix("ok ") else {
            let error = heard.strip_prefix("error ").unwrap_or(&heard);
            return Err(error.to_owned());
        };
        let length = length.parse().map_err(|_| heard.clone())?;
        let mut bytes = vec![0; length];
        self.output
            .read_exact(&mut bytes)
            .map_err(|e| format!("the container does not speak: {e}"))?;
        Ok(bytes)
    }

    /// The same where it is text.
    pub(crate) fn tell(&mut self, words: &[&str]) -> Result<String> {
        let bytes = self
            .ask(words)
            .map_err(|error| format!("{}: {error}", words.join(" ")))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The text of a file, as the container reads it.
    pub(crate) fn read(&mut self, path: &str) -> Result<String> {
        self.tell(&["read", path])
    }

    /// The names in a directory, as the container lists it.
    pub(crate) fn list(&mut self, path: &str) -> Result<Vec<String>> {
        Ok(self
            .tell(&["list", path])?
            .lines()
            .map(str::to_owned)
            .collect())
    }

    /// The paths of its grafts, by the kernel's own list of mounts.
    pub(crate) fn grafts(&mut self) -> Result<BTreeSet<String>> {
        let mounts = self.read("/proc/self/mountinfo")?;
        let grafts = mounts.lines().filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let point = mount.split(' ').nth(4)?;
            kind.starts_with("fuse").then(|| point.to_owned())
        });
        Ok(grafts.collect())
    }

    /// Its pid 1, by the machine's pid.
    pub(crate) fn first(&self) -> Result<i32> {
        let is_first = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let pids = status.lines().find(|line| line.starts_with("NSpid:"));
            pids.is_some_and(|pids| pids.split_whitespace().last() == Some("1"))
        };
        let found = self.cgroup.threads()?.into_iter().find(is_first);
        found.ok_or_else(|| "no pid 1 in the cgroup of the container".to_owned())
    }

    /// Ticks since it started, by its own clock or by the start of its pid 1.
    pub(crate) fn age_ticks(&mut self) -> Result<u64> {
        if self.own_clock {
            let clock = self.tell(&["clock"])?;
            return clock.parse().map_err(|_| clock);
        }
        let stat = host(&format!("/proc/{}/stat", self.first()?))?;
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let started = after_name.split_whitespace().nth(19);
        let started = started.and_then(|ticks| ticks.parse::<u64>().ok());
        let uptime = host("/proc/uptime")?;
        let now = uptime.split_whitespace().next().unwrap_or_default();
        match (started, now.replace('.', "").parse::<u64>()) {
            (Some(started), Ok(now)) => Ok(now.saturating_sub(started)),
            _ => Err(format!("no start in {stat} or no time in {uptime}")),
        }
    }

    /// The pid of the whole: of `eci-fs run`, or of what made the container.
    pub(crate) fn outer(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Ends it, and waits until it is gone.
    pub(crate) fn end(mut self) -> Result<()> {
        self.input = None;
        let status = self.child.wait().map_err(|e| e.to_string())?;
        if status.success() {
            return Ok(());
        }
        Err(format!("the container ended with {status}"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The agent ends with its input.
        self.input = None;
        let _ = self.child.wait();
    }
}

/// Runs a program that must end well.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let ran = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{command:?}: {e}"))?;
    if !ran.status.success() {
        let errors = String::from_utf8_lossy(&ran.stderr);
        return Err(format!("{command:?}: {}: {}", ran.status, errors.trim()));
    }
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}
