//! The log of a runtime. Engines read it to find out why a container did not start.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use eci_fs_protocol::error::Error;
use serde::Serialize;

#[derive(Serialize)]
struct Line<'a> {
    level: &'static str,
    msg: &'a str,
    time: String,
}

/// Appends `error` to the log at `path`, in the format of runc and crun. A failure to write is ignored, because the
/// error is also printed on standard error.
pub fn write(path: &Path, json: bool, error: &Error) {
    let line = line(json, &error.to_string(), SystemTime::now());
    let file = File::options().append(true).create(true).open(path);
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}

fn line(json: bool, msg: &str, time: SystemTime) -> String {
    let time = rfc3339(time);
    if json {
        let level = "error";
        let line = Line { level, msg, time };
        return serde_json::to_string(&line).unwrap_or_default() + "\n";
    }
    format!("time=\"{time}\" level=error msg={msg:?}\n")
}

/// Formats a time in UTC, in whole seconds.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Returns the year, the month and the day of a number of days after 1970-01-01. It counts eras of 400 years, and
/// years that begin in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // `date -u -d @N`
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_799, "2024-02-28T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(rfc3339(time), text);
        }
    }

    #[test]
    fn lines_are_those_of_runc() {
        let time = SystemTime::UNIX_EPOCH;
        assert_eq!(
            line(true, "a \"b\"", time),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\",\"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
        assert_eq!(
            line(false, "a \"b\"", time),
            "time=\"1970-01-01T00:00:00Z\" level=error msg=\"a \\\"b\\\"\"\n"
        );
    }
}
