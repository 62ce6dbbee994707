//! The texts of all files in /proc and /sys that can be read, and how they differ later.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::fcntl::OFlag;
use serde_json::{Value, json};

use crate::answer::{Answer, text, wrong};

/// The directories that are read.
const ROOTS: [&str; 2] = ["/proc", "/sys"];

/// Files and directories that are not read, and the reason. A name with a slash in front of it is a path, one without is
/// that of an entry in any directory.
const LEFT_OUT: [(&str, &str); 12] = [
    ("/sys/class/zram-control/hot_add", "a read makes a device"),
    ("/proc/kmsg", "a read takes messages from others, and waits"),
    (
        "/proc/kcore",
        "it is the memory of the host, without an end",
    ),
    ("/sys/power/wakeup_count", "a read waits for wakeups to end"),
    ("trace_pipe", "a read takes messages from others, and waits"),
    ("vpd", "some devices take seconds"),
    ("rom", "some devices stop working"),
    ("eeprom", "some devices take seconds"),
    ("/sys/fs/cgroup", "it is a file system of its own"),
    ("/sys/kernel/debug", "it is a file system of its own"),
    ("/sys/kernel/tracing", "it is a file system of its own"),
    (
        "/proc/sys/fs/binfmt_misc",
        "it is mounted when somebody looks",
    ),
];

/// The bytes that are read of a file.
const MOST: u64 = 1 << 16;

/// The time that one file may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The bytes that are shown around a difference.
const SHOWN: usize = 48;

/// The texts by path. A directory has a slash at its end, and the names in it as its text.
pub(crate) type Texts = BTreeMap<String, Vec<u8>>;

/// Something that the reading thread does.
enum Step {
    /// It begins to read this path.
    Begin(String),
    /// It has read it.
    Done(Vec<u8>),
}

/// Reads all files that can be read.
///
/// # Errors
/// When one of them does not answer. The words name it.
pub(crate) fn scan() -> io::Result<Texts> {
    let (steps, done) = channel();
    std::thread::spawn(move || {
        for root in ROOTS {
            walk(Path::new(root), &steps);
        }
    });
    collect(&done)
}

fn collect(steps: &Receiver<Step>) -> io::Result<Texts> {
    use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
    let mut texts = Texts::new();
    let mut at = String::new();
    loop {
        match steps.recv_timeout(LIMIT) {
            Ok(Step::Begin(path)) => at = path,
            Ok(Step::Done(text)) => {
                texts.insert(std::mem::take(&mut at), text);
            }
            Err(Disconnected) => return Ok(texts),
            Err(Timeout) => return Err(wrong(format!("{at} does not answer"))),
        }
    }
}

/// Returns what differs in the texts of now: `{path: [before, now]}`, each cut to where it begins to differ. What is new or
/// gone shows in the text of its directory.
pub(crate) fn changed(before: &Texts) -> Answer {
    let now = scan()?;
    let both = now
        .iter()
        .filter_map(|(path, now)| Some((path, before.get(path)?, now)));
    let differ = both.filter(|(_, before, now)| before != now);
    let shown = differ.map(|(path, before, now)| {
        let same = before.iter().zip(now).take_while(|(a, b)| a == b).count();
        let from = same.saturating_sub(SHOWN / 2);
        let cut = |text_: &[u8]| text(&text_[from..text_.len().min(same + SHOWN)]);
        (path.clone(), json!([cut(before), cut(now)]))
    });
    Ok(Value::Object(shown.collect()))
}

/// Reads a directory and all below it. Nobody hears of what cannot be read.
fn walk(dir: &Path, steps: &Sender<Step>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    let names = entries.iter().map(|entry| entry.file_name());
    let names: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    let names = names.iter().filter(|name| !is_process(dir, name));
    let listing: String = names.map(|name| format!("{name}\n")).collect();
    say(steps, format!("{}/", dir.display()), listing.into());
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if is_process(dir, &name) || is_left_out(&path, &name) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, steps),
            Ok(kind) if kind.is_file() => read(&path, steps),
            // /proc/net leads to the process. What it shows is of the namespace.
            Ok(kind) if kind.is_symlink() && path == Path::new("/proc/net") => walk(&path, steps),
            _ => {}
        }
    }
}

/// Returns whether this is the directory of a process. What it says is the container's own.
fn is_process(dir: &Path, name: &str) -> bool {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    dir == Path::new("/proc") && is_number
}

fn is_left_out(path: &Path, name: &str) -> bool {
    LEFT_OUT
        .iter()
        .any(|(left, _)| match left.starts_with('/') {
            true => path == Path::new(left),
            false => name == *left,
        })
}

fn read(path: &Path, steps: &Sender<Step>) {
    // Closed before it is told, so that the receiver sees a thread that hangs in any of the calls.
    let _ = steps.send(Step::Begin(path.display().to_string()));
    let opened = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    let mut bytes = Vec::new();
    let read = opened.and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    if read.is_ok() {
        let _ = steps.send(Step::Done(bytes));
    }
}

fn say(steps: &Sender<Step>, path: String, text: Vec<u8>) {
    let _ = steps.send(Step::Begin(path));
    let _ = steps.send(Step::Done(text));
}
