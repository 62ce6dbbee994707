//! Many threads on one file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::answer::{self, Answer, text};
use crate::ways::WAYS;

/// The texts and lengths that were read, each with its number.
type Tally = BTreeMap<String, u64>;

/// Reads `path` on this number of threads for this time. Returns how often each form and each length was read,
/// and how often there were zero bytes behind a text.
///
/// The form of a text is the text with every run of digits, dots and blanks replaced by one mark. All versions of a
/// view have the same form; a torn or cut text has another one.
pub(crate) fn stress(path: &str, threads: usize, milliseconds: u64) -> Answer {
    let end = Instant::now() + Duration::from_millis(milliseconds);
    let tallies: Vec<io::Result<(Tally, Tally, u64)>> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || read_until(path, thread, end)))
            .collect();
        all.into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("panicked")))
            })
            .collect()
    });
    let (mut forms, mut lengths, mut zeros) = (Tally::new(), Tally::new(), 0);
    for tally in tallies {
        let (more_forms, more_lengths, more_zeros) = tally?;
        zeros += more_zeros;
        for (form, count) in more_forms {
            *forms.entry(form).or_default() += count;
        }
        for (length, count) in more_lengths {
            *lengths.entry(length).or_default() += count;
        }
    }
    let reads: u64 = lengths.values().sum();
    Ok(json!({ "reads": reads, "forms": forms, "lengths": lengths, "zeros": zeros }))
}

fn read_until(path: &str, thread: usize, end: Instant) -> io::Result<(Tally, Tally, u64)> {
    // Each thread reads in its own way, and in large pieces, because a pass in small pieces may see two versions.
    let whole = ["whole", "readv", "sendfile to a file", "splice"];
    let name = whole[thread % whole.len()];
    let (_, way) = WAYS
        .iter()
        .find(|(other, _)| *other == name)
        .ok_or_else(|| answer::wrong(name))?;
    let (mut forms, mut lengths, mut zeros) = (Tally::new(), Tally::new(), 0);
    while Instant::now() < end {
        let bytes = way(&File::open(path)?)?;
        // While the size of a view changes, it may end with an empty line, and in one moment with zero bytes behind the whole
        // text (docs/architecture.md, "How the size of a cached view changes").
        let read = text(&bytes);
        let whole = match read.trim_end_matches('\0') {
            before if before.ends_with('\n') => before,
            _ => &read,
        };
        zeros += u64::from(whole.len() < read.len());
        *forms.entry(form(whole.trim_end_matches('\n'))).or_default() += 1;
        *lengths.entry(bytes.len().to_string()).or_default() += 1;
    }
    Ok((forms, lengths, zeros))
}

fn form(text: &str) -> String {
    let mut form = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_digit() || c == '.' || c == ' ' {
            if !form.ends_with('#') {
                form.push('#');
            }
        } else {
            form.push(c);
        }
    }
    form
}
