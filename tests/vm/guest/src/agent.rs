//! The process in a container that does what it is told: a line of words between tabs comes in, and
//! `ok LENGTH` with so many bytes, or `error TEXT`, goes out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use probe::capabilities::leave_bounding_set;
use probe::handles;

use crate::watch::Watch;
use crate::work::{self, Spinners};

/// What lasts from one command to the next.
#[derive(Default)]
struct State {
    held: Vec<Vec<u8>>,
    trigger: Option<File>,
    watch: Option<Watch>,
    spinners: Option<Spinners>,
}

/// Serves until its input ends.
pub(crate) fn serve() -> ExitCode {
    let mut state = State::default();
    let mut out = io::stdout().lock();
    if let Err(error) = leave_bounding_set() {
        // Whoever waits for the first answer gets this one.
        let _ = writeln!(out, "error {}", describe(&error));
        return ExitCode::FAILURE;
    }
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let words: Vec<&str> = line.split('\t').collect();
        let written = match answer(&mut state, &words) {
            Ok(bytes) => {
                let header = writeln!(out, "ok {}", bytes.len());
                header.and_then(|()| out.write_all(&bytes))
            }
            Err(error) => writeln!(out, "error {}", describe(&error)),
        };
        if written.and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// EIO and the like by name: a check can ask for them.
fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
        None => error.to_string().replace('\n', " "),
    }
}

fn answer(state: &mut State, words: &[&str]) -> io::Result<Vec<u8>> {
    match words {
        ["read", path] => fs::read(path),
        ["bytewise", path] => bytewise(path),
        ["pread-past-end", path] => past_end(path),
        ["sendfile", path] => sendfile(path),
        ["stat", path] => {
            let m = fs::symlink_metadata(path)?;
            let mode = m.mode() & 0o7777;
            text(format!("{mode:o} {} {} {}", m.uid(), m.gid(), m.size()))
        }
        ["inode", path] => text(fs::symlink_metadata(path)?.ino().to_string()),
        // The node id, as two words, and the generation.
        ["handle", path] => text(
            handles::handle(path)?
                .map(|word| word.to_string())
                .join(" "),
        ),
        ["open-handle", mount, words @ ..] => match words
            .iter()
            .map(|w| parse(w))
            .collect::<io::Result<Vec<_>>>()?
            .as_slice()
        {
            [high, low, generation] => {
                handles::open(mount, [*high as u32, *low as u32, *generation as u32])
            }
            _ => Err(io::Error::other("a handle has three words")),
        },
        ["list", path] => {
            let names = fs::read_dir(path)?.map(|entry| {
                let name = entry?.file_name();
                Ok(name.to_string_lossy().into_owned())
            });
            let mut names: Vec<String> = names.collect::<io::Result<_>>()?;
            names.sort();
            text(names.join("\n"))
        }
        ["write", path, value] => {
            let mut file = OpenOptions::new().write(true).open(path)?;
            file.write_all(value.as_bytes())?;
            text(String::new())
        }
        ["hold", bytes] => {
            state.held.push(work::anonymous(parse(bytes)?));
            text(String::new())
        }
        ["drop"] => {
            state.held.clear();
            text(String::new())
        }
        ["fill", path, bytes] => {
            fs::write(path, work::anonymous(parse(bytes)?))?;
            text(String::new())
        }
        ["read-device", path, bytes] => {
            let mut device = File::open(path)?.take(parse(bytes)? as u64);
            text(io::copy(&mut device, &mut io::sink())?.to_string())
        }
        ["user", microseconds] => text(work::burn(work::Kind::User, parse(microseconds)? as u64)),
        ["system", microseconds] => {
            text(work::burn(work::Kind::System, parse(microseconds)? as u64))
        }
        ["nice", microseconds] => text(work::burn_nice(parse(microseconds)? as u64)),
        ["spin", threads] => {
            state.spinners = Some(Spinners::start(parse(threads)?));
            text(String::new())
        }
        ["rest"] => {
            state.spinners = None;
            text(String::new())
        }
        ["clock"] => {
            let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?;
            text(format!(
                "{}",
                now.tv_sec() * 100 + now.tv_nsec() / 10_000_000
            ))
        }
        ["affinity"] => {
            let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
            let cpus = (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true));
            text(cpus.map(|cpu| format!("{cpu} ")).collect())
        }
        ["trigger", path, what] => {
            let mut file = OpenOptions::new().read(true).write(true).open(path)?;
            // As the kernel's documentation does it: with the zero at the end.
            file.write_all(format!("{what}\0").as_bytes())?;
            state.trigger = Some(file);
            text(String::new())
        }
        ["await-trigger", milliseconds] => await_trigger(state, parse(milliseconds)?),
        ["watch", paths @ ..] => {
            state.watch = Some(Watch::start(paths));
            text(String::new())
        }
        ["watched"] => text(state.watch.take().map(Watch::end).unwrap_or_default()),
        _ => Err(io::Error::other(format!("{words:?} is no command"))),
    }
}

fn text(text: String) -> io::Result<Vec<u8>> {
    Ok(text.into_bytes())
}

fn parse(number: &str) -> io::Result<usize> {
    number
        .parse()
        .map_err(|e| io::Error::other(format!("{number}: {e}")))
}

fn bytewise(path: &str) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut all = Vec::new();
    let mut byte = [0];
    while file.read(&mut byte)? == 1 {
        all.push(byte[0]);
    }
    Ok(all)
}

/// How many bytes there are after the end, and before it from an odd offset.
fn past_end(path: &str) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let whole = file.read_at(&mut buffer, 0)? as u64;
    let rest = file.read_at(&mut buffer, whole.min(3))?;
    let past = file.read_at(&mut buffer, whole + 4096)?;
    text(format!("{whole} {rest} {past}"))
}

/// The file as `cat` of busybox and Alpine copies it.
fn sendfile(path: &str) -> io::Result<Vec<u8>> {
    let from = File::open(path)?;
    let (mut reader, writer) = io::pipe()?;
    // Whatever is larger than a pipe needs somebody who empties it.
    let copy = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map(|_| all)
    });
    while rustix::fs::sendfile(&writer, &from, None, 1 << 20)? > 0 {}
    drop(writer);
    copy.join()
        .map_err(|_| io::Error::other("the reader of the pipe panicked"))?
}

fn await_trigger(state: &State, milliseconds: usize) -> io::Result<Vec<u8>> {
    let Some(file) = &state.trigger else {
        return Err(io::Error::other("no trigger is set"));
    };
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
    let timeout = PollTimeout::try_from(milliseconds as u64).unwrap_or(PollTimeout::MAX);
    poll(&mut fds, timeout)?;
    let seen = fds.first().and_then(PollFd::revents);
    text(format!("{:?}", seen.unwrap_or(PollFlags::empty())))
}
