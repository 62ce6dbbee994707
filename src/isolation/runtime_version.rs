//! The version of the runtime that makes a container. Each program is asked once.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use eci_fs_protocol::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The directory of the runtime directory that has what is known about runtimes.
pub(super) const KNOWN: &str = "runtimes";

/// The time that a runtime has to say its version.
const LIMIT: Duration = Duration::from_secs(2);

/// The most bytes that are read of what it says.
const MOST: usize = 4096;

/// Returns what a runtime says of its version; none if it says nothing of that kind.
pub(super) fn of(runtime: &Path, runtime_dir: &Path) -> Option<String> {
    let stat = fs::metadata(runtime).ok()?;
    let (seconds, nanoseconds) = (stat.ctime(), stat.ctime_nsec());
    // Whoever replaces the program changes one of these.
    let identity = format!(
        "{}-{}-{seconds}-{nanoseconds}-{}",
        stat.dev(),
        stat.ino(),
        stat.len()
    );
    let known = runtime_dir.join(KNOWN).join(identity);
    if let Ok(version) = fs::read_to_string(&known) {
        return Some(version);
    }
    let version = match version(runtime) {
        Ok(version) if number_of(&version).is_some() => version,
        said => {
            tracing::debug!(?said, "a runtime does not tell its version");
            return None;
        }
    };
    // A script may call another program tomorrow. Where nothing can be written the runtime is asked again, too.
    if !is_script(runtime) {
        let _ = fs::create_dir(runtime_dir.join(KNOWN));
        let new = known.with_extension(std::process::id().to_string());
        let _ = fs::write(&new, &version).and_then(|()| fs::rename(&new, &known));
    }
    Some(version)
}

fn is_script(program: &Path) -> bool {
    let mut first = [0; 2];
    fs::File::open(program).is_ok_and(|mut file| file.read_exact(&mut first).is_ok())
        && first == *b"#!"
}

/// Returns what a runtime says of its version.
fn version(runtime: &Path) -> Result<String> {
    let trouble = |e: std::io::Error| Error::io("ask the version of", runtime, e);
    let mut child = Command::new(runtime)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(trouble)?;
    let said = hear(&mut child).map_err(trouble);
    // It may have ended.
    let _ = child.kill();
    let _ = child.wait();
    said
}

fn hear(child: &mut Child) -> std::io::Result<String> {
    let Some(mut pipe) = child.stdout.take() else {
        return Ok(String::new());
    };
    let end = Instant::now() + LIMIT;
    let mut bytes = [0; MOST];
    let mut filled = 0;
    while filled < MOST {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(std::io::Error::other)?;
        let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
        if poll(&mut fds, Some(&left))? == 0 {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        match pipe.read(&mut bytes[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(String::from_utf8_lossy(&bytes[..filled]).into_owned())
}

/// Returns the name of a runtime and the parts of its version from a text such as "runc version 1.3.6".
fn number_of(text: &str) -> Option<(&str, Vec<u32>)> {
    let mut words = text.split_whitespace();
    let (name, "version", version) = (words.next()?, words.next()?, words.next()?) else {
        return None;
    };
    let number = |part: &str| {
        let digits = part.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u32>().ok()
    };
    let numbers: Option<Vec<u32>> = version.split('.').take(3).map(number).collect();
    Some((name, numbers?))
}

/// Returns whether a text names one of these runtimes, in this version or a newer one.
pub(super) fn is_at_least(text: &str, first: &[(&str, [u32; 3])]) -> bool {
    number_of(text).is_some_and(|(name, numbers)| {
        let first = first.iter().find(|(known, _)| *known == name);
        first.is_some_and(|(_, first)| numbers.as_slice() >= first.as_slice())
    })
}
