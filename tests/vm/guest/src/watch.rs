//! A thread that reads files over and over, and reports every text that no reader may ever see.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The thread, and how to end it.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<String>,
}

impl Watch {
    /// Reads these files in turn until told otherwise.
    pub(crate) fn start(paths: &[&str]) -> Self {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || watch(&paths, &told));
        Self { stop, thread }
    }

    /// The number of reads, and what was wrong, a line each.
    pub(crate) fn end(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|_| "0\nthe watching thread panicked".to_owned())
    }
}

fn watch(paths: &[String], stop: &AtomicBool) -> String {
    let mut reads = 0u64;
    let mut wrong = Vec::new();
    let mut last: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) && wrong.len() < 10 {
        for path in paths {
            reads += 1;
            match fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => {
                    compare(path, &text, &mut last, &mut wrong);
                }
                Ok(text) => wrong.push(format!("{path} was cut: {text:?}")),
                Err(error) => wrong.push(format!("{path}: {error}")),
            }
        }
    }
    format!("{reads}\n{}", wrong.join("\n"))
}

/// Rows that count must never fall: the CPU rows of stat, and both figures of uptime.
fn compare(path: &str, text: &str, last: &mut BTreeMap<String, Vec<u64>>, wrong: &mut Vec<String>) {
    let rows: Vec<(String, Vec<u64>)> = match path {
        "/proc/uptime" => vec![(path.to_owned(), numbers(text))],
        "/proc/stat" => text
            .lines()
            .filter(|line| line.starts_with("cpu") || line.starts_with("processes"))
            .filter_map(|line| {
                let (name, rest) = line.split_once(' ')?;
                Some((name.to_owned(), numbers(rest)))
            })
            .collect(),
        _ => return,
    };
    for (name, row) in rows {
        if let Some(before) = last.get(&name)
            && before.iter().zip(&row).any(|(before, now)| now < before)
        {
            wrong.push(format!("{name} fell from {before:?} to {row:?}"));
        }
        last.insert(name, row);
    }
}

/// All numbers, hundredths without their point.
fn numbers(text: &str) -> Vec<u64> {
    text.split_ascii_whitespace()
        .filter_map(|word| word.replace('.', "").parse().ok())
        .collect()
}
