//! The neighbour of an attacker: measures how long it takes to read some files, at a steady pace.
//!
//! `latencies FILE...` reads lines from standard input. `PASSES MILLISECONDS` has it use each file once every few
//! milliseconds until there were so many passes or the time is over. A file is `read:PATH` or `write:PATH=TEXT`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use serde_json::{Map, Value, json};

use crate::answer::{self, Answer, wrong};

/// The time between the beginnings of two passes.
const PACE: Duration = Duration::from_millis(4);

/// The most failures that are told.
const FAILURES: usize = 10;

/// Runs `latencies FILE...` until standard input ends.
pub(crate) fn latencies(files: &[String]) -> ExitCode {
    println!("{}", answer::line(&Ok(Value::Null)));
    for line in io::stdin().lines() {
        let Ok(line) = line else { break };
        println!("{}", answer::line(&measure(files, &line)));
    }
    ExitCode::SUCCESS
}

/// Returns {"passes", "failures", "times": {file: [nanoseconds]}}.
fn measure(files: &[String], line: &str) -> Answer {
    let numbers = line.split_once(' ').ok_or_else(|| wrong(line))?;
    let passes: usize = numbers.0.parse().map_err(io::Error::other)?;
    let limit = Duration::from_millis(numbers.1.parse().map_err(io::Error::other)?);
    let mut times = vec![Vec::new(); files.len()];
    let (mut failures, mut done) = (Vec::new(), 0);
    let began = Instant::now();
    while done < passes && began.elapsed() < limit {
        let pass = Instant::now();
        for (file, times) in files.iter().zip(&mut times) {
            let before = Instant::now();
            let result = use_file(file);
            times.push(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
            if let Err(error) = result
                && failures.len() < FAILURES
            {
                failures.push(format!("{file}: {}", answer::name(&error)));
            }
        }
        done += 1;
        pause(PACE.saturating_sub(pass.elapsed()));
    }
    let times: Map<String, Value> = files
        .iter()
        .cloned()
        .zip(times.into_iter().map(Value::from))
        .collect();
    Ok(json!({ "passes": done, "failures": failures, "times": times }))
}

fn use_file(file: &str) -> io::Result<()> {
    match file.split_once(':') {
        Some(("read", path)) => {
            let mut text = [0; 16 * 1024];
            match File::open(path)?.read(&mut text)? {
                0 => Err(wrong("empty")),
                _ => Ok(()),
            }
        }
        Some(("write", what)) => {
            let (path, text) = what.split_once('=').ok_or_else(|| wrong(what))?;
            let mut options = fs::File::options();
            options.write(true).open(path)?.write_all(text.as_bytes())
        }
        _ => Err(wrong(format!("neither read: nor write: {file}"))),
    }
}

/// Waits until it is time for the next pass.
fn pause(time: Duration) {
    let time = Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    // After a signal the next pass comes earlier.
    let _ = poll(&mut [], Some(&time));
}
