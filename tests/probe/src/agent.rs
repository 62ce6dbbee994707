//! The commands of the probe, and the dialogue of the agent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};

use probe::capabilities::leave_bounding_set;
use probe::handles;
use serde_json::{Value, json};

use crate::answer::{self, Answer, text, wrong};
use crate::scan::{self, Texts};
use crate::{breach, facts, files, hang, reach, stress, sysinfo, timed, tune, ways, work};

/// The state that is kept between commands.
#[derive(Debug, Default)]
pub(crate) struct Agent {
    held: BTreeMap<String, File>,
    memory: Vec<Vec<u8>>,
    others: BTreeMap<String, Other>,
    scanned: Texts,
}

/// A process that `start` started. Lines can be sent to it.
#[derive(Debug)]
struct Other {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Agent {
    /// Answers commands until the input ends. With the option "measuring" the container can measure CPUs.
    pub(crate) fn serve(mut self, options: &[String]) -> ExitCode {
        if options != ["measuring"]
            && let Err(error) = leave_bounding_set()
        {
            println!("{}", answer::line(&Err(error)));
            return ExitCode::FAILURE;
        }
        // The parent waits for this line: the container is ready, and nothing has been read yet.
        println!(
            "{}",
            answer::line(&Ok(json!({ "pid": std::process::id() })))
        );
        for line in io::stdin().lines() {
            let Ok(line) = line else { break };
            let answer = match serde_json::from_str::<Vec<String>>(&line) {
                Ok(arguments) => self.answer(&arguments),
                Err(error) => Err(wrong(error.to_string())),
            };
            println!("{}", answer::line(&answer));
        }
        ExitCode::SUCCESS
    }

    /// Executes one command.
    pub(crate) fn answer(&mut self, arguments: &[String]) -> Answer {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match arguments.as_slice() {
            ["facts"] => facts::facts(),
            // {path: text}
            ["read", paths @ ..] => each(paths, |path| Ok(json!(text(&std::fs::read(path)?)))),
            // {path: every way of reading it}
            ["ways", paths @ ..] => each(paths, ways::ways),
            ["stat", paths @ ..] => each(paths, files::stat),
            ["list", paths @ ..] => each(paths, files::list),
            ["open-for-writing", paths @ ..] => each(paths, files::open_for_writing),
            // {path: whether it can be opened below the directory without crossing a mount or a link}
            ["open-beneath", dir, paths @ ..] => {
                let dir = File::open(dir)?;
                each(paths, |path| Ok(files::open_beneath(&dir, path)))
            }
            ["stress", path, threads, milliseconds] => {
                stress::stress(path, number(threads)?, number(milliseconds)?)
            }
            ["write", path, what] => tune::write(path, what),
            // The value in hexadecimal digits
            ["set-xattr", path, name, value] => files::set_xattr(path, name, value),
            // The node id, as two words, and the generation
            ["handle", path] => handles::handle(path).map(|words| json!(words)),
            ["open-handle", mount, high, low, generation] => {
                let words = [number(high)?, number(low)?, number(generation)?];
                handles::open(mount, words).map(|bytes| json!(text(&bytes)))
            }
            ["append", path, what] => tune::append(path, what),
            ["write-at", path, offset, what] => tune::write_at(path, number(offset)?, what),
            ["write-and-read", path, what] => tune::write_and_read(path, what),
            ["write-and-copy", path, all @ ..] => tune::write_and_copy(path, all),
            ["compete", first, times, paths @ ..] => {
                tune::compete(number(first)?, number(times)?, paths)
            }
            ["sysinfo"] => sysinfo::sysinfo(),
            ["sysinfo32"] => sysinfo::sysinfo32(),
            ["sysinfo-at", pointer] => sysinfo::at(number(pointer)?),
            // {answer: how often}
            ["sysinfo-storm", threads, stop] => sysinfo::storm(number(threads)?, stop),
            ["socket", family] => sysinfo::socket(number(family)?),
            ["socket32", family] => sysinfo::socket32(number(family)?),
            // From now on nobody gets an answer who looks into the root directory of this process.
            ["hang-root"] => hang::hang_root(),
            // The attempts on the mounts of this container, and one of them
            ["breaches"] => breach::names(),
            ["breach", name] => breach::breach(name),
            ["own-mounts"] => breach::own_mounts(),
            // What the kernel says to calls that would reach the host, or the container of this pid, cgroup and key
            ["reach", neighbour @ ..] => reach::reach(neighbour),
            ["reach-one", name, pid, cgroup, key] => {
                reach::reach_one(name, number(pid)?, cgroup, number(key)?)
            }
            ["add-key"] => reach::add_key(),
            ["stop-measuring"] => {
                leave_bounding_set()?;
                Ok(Value::Null)
            }
            // {what is done with files: nanoseconds}
            ["time-files"] => timed::time_files(),
            // {system call: nanoseconds}
            ["time-calls"] => sysinfo::time_calls(),
            ["burn", milliseconds] => work::burn(number(milliseconds)?),
            ["allocate", bytes] => {
                let bytes = number(bytes)?;
                self.memory.push(work::allocate(bytes)?);
                Ok(json!(bytes))
            }
            // Keep a descriptor open under a name ...
            ["hold", name, path] => {
                self.held.insert((*name).to_owned(), File::open(path)?);
                Ok(Value::Null)
            }
            // ... and read it again from its beginning.
            ["again", name] => {
                let file = self.held.get_mut(*name).ok_or_else(|| wrong("not held"))?;
                let mut bytes = Vec::new();
                file.rewind()?;
                file.read_to_end(&mut bytes)?;
                Ok(json!(text(&bytes)))
            }
            ["let-go", name] => Ok(json!(self.held.remove(*name).is_some())),
            // Read everything in /proc and /sys, and answer how many files and directories that are ...
            ["scan"] => {
                self.scanned = scan::scan()?;
                Ok(json!(self.scanned.len()))
            }
            // ... and what differs now: {path: [before, now]}.
            ["scan-again"] => scan::changed(&self.scanned),
            ["run", program, arguments @ ..] => run(program, arguments),
            ["start", name, program, arguments @ ..] => {
                let (other, hello) = Other::start(program, arguments)?;
                self.others.insert((*name).to_owned(), other);
                Ok(hello)
            }
            // Sends a line to a process that `start` started. The answer is the line that the process prints.
            ["tell", name, line] => {
                let other = self.others.get_mut(*name);
                other.ok_or_else(|| wrong("not started"))?.tell(line)
            }
            ["end", name] => {
                let mut other = self
                    .others
                    .remove(*name)
                    .ok_or_else(|| wrong("not started"))?;
                drop(other.child.stdin.take());
                Ok(json!(other.child.wait()?.code()))
            }
            _ => Err(wrong(format!("no such command: {arguments:?}"))),
        }
    }
}

impl Other {
    fn start(program: &str, arguments: &[&str]) -> io::Result<(Self, Value)> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or_else(|| wrong("no output"))?;
        let mut this = Self {
            child,
            output: BufReader::new(output),
        };
        let hello = this.line()?;
        match hello.get("ok") {
            Some(_) => Ok((this, hello)),
            None => Err(wrong(hello.to_string())),
        }
    }

    fn tell(&mut self, line: &str) -> Answer {
        let input = self.child.stdin.as_mut().ok_or_else(|| wrong("no input"))?;
        writeln!(input, "{line}")?;
        self.line()
    }

    fn line(&mut self) -> Answer {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|error| wrong(format!("{error}: {line:?}")))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Both calls fail only when the process has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the answers for several paths. An error for one path does not affect the others.
fn each(paths: &[&str], what: impl Fn(&str) -> Answer) -> Answer {
    let answers = paths.iter().map(|path| {
        let answer = match what(path) {
            Ok(value) => value,
            Err(error) => json!({ "error": answer::name(&error) }),
        };
        ((*path).to_owned(), answer)
    });
    Ok(Value::Object(answers.collect()))
}

fn run(program: &str, arguments: &[&str]) -> Answer {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    Ok(json!({
        "code": output.status.code(),
        "stdout": text(&output.stdout),
        "stderr": text(&output.stderr),
    }))
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse()
        .map_err(|_| wrong(format!("{text:?} is no number")))
}
