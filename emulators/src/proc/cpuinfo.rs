//! /proc/cpuinfo: the processors of the container.
//!
//! Format: show_cpuinfo of the architecture (arch/x86/kernel/cpu/proc.c and others).
//! Virtual: the blocks of visible CPUs only; `siblings` and `cpu cores` count them; with dense ids
//! their numbers.
//! Passed through: everything else of a block, constants of the host.
//! Invented: `cpu MHz` is the nominal frequency, since the present one tells what others do.

use crate::model::cpus::{self, Cpus};
use crate::model::frequency::{field, nominal_khz, read_base_khz};
use crate::text::{fields, lines, parse_u64, put};
use crate::{Bound, Context, Error, Facts, Needs, View};

/// /proc/cpuinfo.
pub const VIEW: View = View::new(18, "/proc/cpuinfo", render_view)
    .steady()
    .sources(
        "cpuset.effective_cpus, cpu.cfs_quota_us, cpu.cfs_period_us",
        "cpuset.cpus.effective, cpu.max",
    )
    .invented("cpu MHz is the nominal frequency")
    .needs(Needs::CGROUP);

fn render_view(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let cpus = cpus::read(cx)?;
    let host = cx.host.read(facts.path)?;
    render(&host, &cpus, |cpu| read_base_khz(cx, cpu), out);
    Ok(Bound::Exact)
}

/// The lines between two empty lines, and the processor that they describe.
struct Block<'a> {
    lines: Vec<&'a [u8]>,
    cpu: Option<u32>,
    closed: bool,
}

impl<'a> Block<'a> {
    /// Returns the value of a line `key : value`.
    fn value(&self, key: &str) -> Option<&'a str> {
        self.lines
            .iter()
            .find_map(|line| field(line).filter(|(name, _)| *name == key))
            .map(|(_, value)| value)
    }
}

/// Parses blocks. A block of a CPU begins with "processor : N", on s390 with "cpu number : N". Others (the header of
/// s390, the "Hardware" of 32-bit ARM, the "timebase" of POWER) belong to no CPU.
fn parse_blocks(text: &[u8]) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut block = Block {
        lines: Vec::new(),
        cpu: None,
        closed: false,
    };
    for line in lines(text) {
        if line.is_empty() {
            block.closed = true;
            blocks.push(block);
            block = Block {
                lines: Vec::new(),
                cpu: None,
                closed: false,
            };
            continue;
        }
        if block.lines.is_empty()
            && let Some(("processor" | "cpu number", value)) = field(line)
        {
            block.cpu = parse_u64(value.as_bytes()).and_then(|cpu| u32::try_from(cpu).ok());
        }
        block.lines.push(line);
    }
    if !block.lines.is_empty() {
        blocks.push(block);
    }
    blocks
}

fn render(host: &[u8], cpus: &Cpus, base_khz: impl Fn(u32) -> Option<u64>, out: &mut Vec<u8>) {
    let blocks = parse_blocks(host);
    let visible = |block: &Block<'_>| block.cpu.is_none_or(|cpu| cpus.visible.contains(cpu));
    let shown: Vec<&Block<'_>> = blocks.iter().filter(|block| visible(block)).collect();
    for block in &shown {
        for line in &block.lines {
            render_line(line, block, &shown, cpus, &base_khz, out);
        }
        if block.closed {
            out.push(b'\n');
        }
    }
}

fn render_line(
    line: &[u8],
    block: &Block<'_>,
    shown: &[&Block<'_>],
    cpus: &Cpus,
    base_khz: &impl Fn(u32) -> Option<u64>,
    out: &mut Vec<u8>,
) {
    let Some((key, value)) = field(line) else {
        out.extend_from_slice(line);
        out.push(b'\n');
        return;
    };
    match (key, block.cpu) {
        ("processor" | "cpu number", Some(cpu)) => replace(line, cpus.shown_id(cpu), out),
        ("siblings", Some(_)) => replace(line, in_package(block, shown).count(), out),
        ("cpu cores", Some(_)) => {
            let mut cores: Vec<_> = in_package(block, shown)
                .map(|other| other.value("core id"))
                .collect();
            cores.sort_unstable();
            cores.dedup();
            replace(line, cores.len(), out);
        }
        ("cpu MHz", Some(cpu)) => {
            let khz = base_khz(cpu)
                .or_else(|| nominal_khz(block.value("model name"), block.value("bogomips")));
            match khz {
                Some(khz) => {
                    replace(line, format_args!("{}.{:03}", khz / 1000, khz % 1000), out);
                }
                None => replace(line, "0.000", out),
            }
        }
        // s390.
        ("# processors", None) => replace(line, cpus.visible.len(), out),
        (key, None) if key.starts_with("processor ") => {
            let cpu = fields(key.as_bytes()).nth(1).and_then(parse_u64);
            if let Some(cpu) = cpu.and_then(|cpu| u32::try_from(cpu).ok())
                && cpus.visible.contains(cpu)
            {
                put(
                    out,
                    format_args!("processor {}: {value}\n", cpus.shown_id(cpu)),
                );
            }
        }
        // On 32-bit ARM this is the serial number of the board, which containers must not see.
        ("Serial", None) => replace(line, "0000000000000000", out),
        _ => {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    }
}

/// Returns the shown CPUs of the same package.
fn in_package<'a>(
    block: &Block<'_>,
    shown: &'a [&'a Block<'a>],
) -> impl Iterator<Item = &'a &'a Block<'a>> {
    let package = block.value("physical id").map(str::to_owned);
    shown.iter().filter(move |other| {
        other.cpu.is_some() && other.value("physical id") == package.as_deref()
    })
}

/// Appends a line with another value. Label and separator stay as they are.
fn replace(line: &[u8], value: impl std::fmt::Display, out: &mut Vec<u8>) {
    let colon = line.iter().position(|&byte| byte == b':').unwrap_or(0);
    out.extend_from_slice(line.get(..=colon).unwrap_or_default());
    put(out, format_args!(" {value}\n"));
}

#[cfg(test)]
#[path = "cpuinfo_tests.rs"]
mod tests;
