//! The time to attach a container: `cargo bench --bench attach [-- CONTAINERS]`.
//!
//! Two times are printed: from the daemon's receipt of the request to all grafts in place, as the daemon measures it,
//! and the whole call of the command over the control socket. First the containers are attached without a pause, so that
//! the daemon has mostly prepared nothing; then as many with pauses, in which it prepares the next attach. Each container
//! is a process in its own mount namespace. Needs root.
#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints its figures"
)]

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use eci_fs::cli::client::Client;
use eci_fs_mountd::container::open_pidfd;
use eci_fs_protocol::control::{Attach, Request, Response, Selector};
use rustix::event::Timespec;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The pause before an attach in which the daemon prepares it.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 250_000_000,
};

/// A child that is killed when this value is dropped.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<()> {
    // `cargo bench` passes --bench; a number is the count.
    let count: usize = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(50);
    let dir = tempfile::tempdir()?;
    let runtime_dir = dir.path().join("run");
    let daemon = Command::new(env!("CARGO_BIN_EXE_eci-fs"))
        .args(["mountd", "--runtime-dir"])
        .arg(&runtime_dir)
        .env("ECI_FS_LOG", "eci_fs_mountd=info")
        .stderr(Stdio::piped())
        .spawn()?;
    let mut daemon = KillOnDrop(daemon);
    let log = daemon.0.stderr.take().ok_or("no standard error")?;
    let mut log = BufReader::new(log);
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        if log.read_line(&mut line)? == 0 {
            return Err("eci-mountd ended before it was ready".into());
        }
    }
    // A thread reads the rest of the log, so that the daemon does not block on a full pipe.
    std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
    let limit = std::time::Duration::from_secs(30);
    let client = Client::connect(&runtime_dir, limit)?.ok_or("eci-mountd does not listen")?;

    let containers = (0..count * 2)
        .map(|_| container())
        .collect::<Result<Vec<_>>>()?;
    let (together, apart) = containers.split_at(count);
    for (how, containers, pause) in [
        ("without a pause", together, None),
        ("with pauses", apart, Some(PAUSE)),
    ] {
        let (mut inside, mut outside, mut grafts) = (Vec::new(), Vec::new(), 0);
        for (_container, pid) in containers {
            if let Some(pause) = pause {
                rustix::event::poll(&mut [], Some(&pause))?;
            }
            let pidfd = open_pidfd(*pid)?;
            let request = Request::Attach(Attach::default());
            let start = Instant::now();
            match client.call(request, &[pidfd.as_fd()])?.0 {
                Response::Attached(attached) => {
                    outside.push(start.elapsed());
                    inside.push(Duration::from_micros(attached.took_usec));
                    grafts = attached.grafts;
                }
                other => return Err(format!("{other:?}").into()),
            }
        }
        println!("attach, {count} containers {how}, {grafts} grafts each");
        print("request received to all grafts in place", &mut inside);
        print("request sent to answer received", &mut outside);
    }
    let start = Instant::now();
    for (_container, pid) in &containers {
        client.call(Request::Detach(Selector::Pid(*pid)), &[])?;
    }
    let each = start.elapsed() / u32::try_from(containers.len().max(1))?;
    println!(
        "{:42} {:>8.2} ms on average",
        "detach",
        each.as_secs_f64() * 1000.0
    );
    drop(containers);
    // SIGTERM lets the daemon remove its mounts.
    let pid = rustix::process::Pid::from_child(&daemon.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    daemon.0.wait()?;
    Ok(())
}

/// Starts a process in its own mount namespace, which waits on its standard input.
fn container() -> Result<(KillOnDrop, i32)> {
    let mut child = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            "echo ready; exec cat",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no standard output")?).read_line(&mut line)?;
    let pid = i32::try_from(child.id())?;
    Ok((KillOnDrop(child), pid))
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: f64| {
        let index = ((times.len() as f64 - 1.0) * share).round() as usize;
        times
            .get(index)
            .map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    println!(
        "{what:42} {:>8.2} ms p50 {:>8.2} ms p99 {:>8.2} ms max",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
