//! The limits that a user can set, and their units.

use clap::Args;
use eci_fs_protocol::error::{Error, Result};

/// The period of a CPU quota in microseconds (the kernel's default).
pub(super) const PERIOD_USEC: u64 = 100_000;

/// The processes that a container needs: two of this program, and the command.
const FEWEST_PIDS: u64 = 3;

/// The largest number of CPUs that can be asked for.
const MOST_CPUS: f64 = 65_536.0;

/// The shortest quota that the kernel takes, in microseconds (`min_cfs_quota_period`).
const MIN_QUOTA_USEC: u64 = 1_000;

/// Limits of the container.
#[derive(Debug, Clone, Default, Args)]
pub(in super::super) struct Limits {
    /// Memory: bytes, or with K, M, G, T as 1024s
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub(in super::super) memory: Option<u64>,
    /// Swap on top of the memory; 0 for none
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(in super::super) swap: Option<u64>,
    /// CPU time, in CPUs: 0.5 is half of one
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    pub(in super::super) cpus: Option<f64>,
    /// The CPUs to run on: 1 or 0-3,8
    #[arg(long, value_name = "LIST", value_parser = parse_cpuset)]
    pub(in super::super) cpuset: Option<String>,
    /// Processes and threads
    #[arg(long, value_name = "N", value_parser = parse_pids)]
    pub(in super::super) pids: Option<u64>,
}

impl Limits {
    /// Checks that the limits fit together.
    ///
    /// # Errors
    /// When swap is limited and memory is not: cgroup v1 limits only their sum.
    pub(super) fn check(&self) -> Result<()> {
        if self.swap.is_some() && self.memory.is_none() {
            return Err(Error::refused(
                "--swap without --memory: swap is limited on top of the memory",
            )
            .remedy("give both"));
        }
        Ok(())
    }

    /// Returns the CPU quota, in microseconds in each period.
    pub(super) fn quota_usec(&self) -> Option<u64> {
        self.cpus
            .map(|cpus| ((cpus * PERIOD_USEC as f64).round() as u64).max(MIN_QUOTA_USEC))
    }
}

/// Parses the limit of the memory. Returns bytes.
fn parse_memory(text: &str) -> std::result::Result<u64, String> {
    match parse_size(text)? {
        0 => Err(
            "0 is no limit that a program could run in; leave the option out for none".to_owned(),
        ),
        bytes => Ok(bytes),
    }
}

/// Parses a size: digits, or a decimal number with a suffix K, M, G or T (powers of 1024), with or without B, i or iB.
/// Returns bytes.
fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let wrong =
        || format!("{text:?} is no size; write bytes, or a number with K, M, G or T, as 256M");
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let suffix = suffix.to_ascii_lowercase();
    let shift = match suffix
        .strip_suffix("ib")
        .or_else(|| suffix.strip_suffix('b'))
        // Of "Mi", as Kubernetes writes it. Nothing is left of an "i" alone.
        .or_else(|| suffix.strip_suffix('i').filter(|unit| !unit.is_empty()))
        .unwrap_or(&suffix)
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(1 << shift)
            .ok_or_else(|| format!("{text} is more than any machine has"));
    }
    let fraction: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = fraction * (1u64 << shift) as f64;
    if !bytes.is_finite() || bytes < 0.0 || bytes >= u64::MAX as f64 {
        return Err(wrong());
    }
    Ok(bytes as u64)
}

/// Parses a number of CPUs, or of thousandths of one with the suffix m.
fn parse_cpus(text: &str) -> std::result::Result<f64, String> {
    let cpus = match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse::<f64>().map(|number| number / 1000.0),
        None => text.parse::<f64>(),
    };
    match cpus {
        Ok(cpus) if (0.01..=MOST_CPUS).contains(&cpus) => Ok(cpus),
        _ => Err(format!(
            "{text:?} is no number of CPUs; write 0.5 or 2, at least 0.01 and at most {MOST_CPUS}"
        )),
    }
}

fn parse_pids(text: &str) -> std::result::Result<u64, String> {
    match text.parse::<u64>() {
        Ok(pids) if pids >= FEWEST_PIDS => Ok(pids),
        Ok(_) => Err(format!(
            "{text} is too few; write at least {FEWEST_PIDS}, because two processes of eci-fs count too"
        )),
        Err(_) => Err(format!("{text:?} is no number of processes; write 100")),
    }
}

fn parse_cpuset(text: &str) -> std::result::Result<String, String> {
    let good = |part: &str| {
        let mut ends = part.splitn(2, '-').map(|end| end.parse::<u32>());
        match (ends.next(), ends.next()) {
            (Some(Ok(_)), None) => true,
            (Some(Ok(first)), Some(Ok(last))) => first <= last,
            _ => false,
        }
    };
    if text.split(',').all(good) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no list of CPUs; write 1 or 0-3,8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_1024s() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("256M", 256 << 20),
            ("1.5g", 3 << 29),
            ("2KiB", 2048),
            ("1tb", 1 << 40),
            ("256Mi", 256 << 20),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "M",
            "-1",
            "1X",
            "1MM",
            "1i",
            "99999999999T",
            "0x10",
            "1..5M",
            "nan",
            "inf",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_quota_is_never_below_what_the_kernel_takes() {
        let quota = |cpus| {
            Limits {
                cpus: Some(cpus),
                ..Limits::default()
            }
            .quota_usec()
        };
        assert_eq!(
            (quota(0.5), quota(0.01), quota(2.0)),
            (Some(50_000), Some(1_000), Some(200_000))
        );
        for text in ["0", "-1", "nan", "inf", "half", "0.001", "m", "1000000"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
        assert_eq!(parse_cpus("500m"), Ok(0.5));
    }

    #[test]
    fn limits_in_which_nothing_could_run_are_refused_with_the_least_that_can() {
        assert!(
            parse_memory("0")
                .unwrap_err()
                .contains("leave the option out")
        );
        assert_eq!(parse_memory("1"), Ok(1));
        for text in ["0", "1", "2"] {
            assert!(
                parse_pids(text).unwrap_err().contains("at least 3"),
                "{text}"
            );
        }
        assert_eq!(parse_pids("3"), Ok(3));
        assert!(parse_pids("x").is_err());
        assert!(parse_cpus("1000000").unwrap_err().contains("at most 65536"));
    }

    #[test]
    fn lists_of_cpus_are_checked_before_the_kernel_sees_them() {
        assert!(parse_cpuset("0-3,8").is_ok());
        for text in ["", "3-1", "a", "1,", "1-2-3", "-1"] {
            assert!(parse_cpuset(text).is_err(), "{text}");
        }
    }
}
