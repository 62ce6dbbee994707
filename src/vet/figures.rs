//! The figures of sysinfo(2), by the views that say the same.

/// The figures. Sizes are in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Seconds since the container began, rounded up as by the kernel.
    pub(super) uptime: u64,
    /// The load averages in 65536ths.
    pub(super) loads: [u64; 3],
    pub(super) total: u64,
    pub(super) free: u64,
    pub(super) shared: u64,
    pub(super) buffers: u64,
    pub(super) total_swap: u64,
    pub(super) free_swap: u64,
    /// The number of threads.
    pub(super) tasks: u16,
}

/// The layouts of `struct sysinfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// That of 64-bit programs.
    Long,
    /// That of 32-bit programs.
    Short,
}

impl Figures {
    /// Parses the texts of meminfo, uptime and loadavg. Returns none when one of them lacks a figure.
    pub(super) fn parse(meminfo: &str, uptime: &str, loadavg: &str) -> Option<Self> {
        let mut averages = loadavg.split_ascii_whitespace();
        let loads = [averages.next()?, averages.next()?, averages.next()?];
        let (_, tasks) = averages.next()?.split_once('/')?;
        Some(Self {
            uptime: parse_hundredths(uptime.split_ascii_whitespace().next()?)?.div_ceil(100),
            loads: [
                parse_load(loads[0])?,
                parse_load(loads[1])?,
                parse_load(loads[2])?,
            ],
            total: bytes_of(meminfo, "MemTotal:")?,
            free: bytes_of(meminfo, "MemFree:")?,
            shared: bytes_of(meminfo, "Shmem:")?,
            buffers: bytes_of(meminfo, "Buffers:")?,
            total_swap: bytes_of(meminfo, "SwapTotal:")?,
            free_swap: bytes_of(meminfo, "SwapFree:")?,
            // The kernel cuts the number to 16 bits. No more than all of them is less wrong.
            tasks: u16::try_from(tasks.parse::<u64>().ok()?).unwrap_or(u16::MAX),
        })
    }

    /// Returns the figures as `struct sysinfo`.
    pub(super) fn encode(&self, layout: Layout) -> Vec<u8> {
        match layout {
            Layout::Long => self.encode_long(),
            Layout::Short => self.encode_short(),
        }
    }

    fn sizes(&self) -> [u64; 6] {
        [
            self.total,
            self.free,
            self.shared,
            self.buffers,
            self.total_swap,
            self.free_swap,
        ]
    }

    fn encode_long(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(112);
        bytes.extend(self.uptime.to_ne_bytes());
        let numbers = self.loads.into_iter().chain(self.sizes());
        bytes.extend(numbers.flat_map(u64::to_ne_bytes));
        bytes.extend(self.tasks.to_ne_bytes());
        bytes.extend([0; 6]);
        // High memory, total and free.
        bytes.extend([0; 16]);
        bytes.extend(1u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    /// As the kernel does it: where a size does not fit, all are in units of more bytes.
    fn encode_short(&self) -> Vec<u8> {
        let most = self.total.max(self.total_swap);
        let mut unit = 1u32;
        while most / u64::from(unit) > u64::from(u32::MAX) {
            unit *= 2;
        }
        let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(short(self.uptime).to_ne_bytes());
        let sizes = self.sizes().map(|size| size / u64::from(unit));
        let numbers = self.loads.into_iter().chain(sizes);
        bytes.extend(numbers.flat_map(|number| short(number).to_ne_bytes()));
        bytes.extend(self.tasks.to_ne_bytes());
        bytes.extend([0; 2]);
        // High memory, total and free.
        bytes.extend([0; 8]);
        bytes.extend(unit.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes
    }
}

/// Returns the bytes of a row of meminfo, which is in KiB.
fn bytes_of(meminfo: &str, name: &str) -> Option<u64> {
    let row = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let number = row.trim().strip_suffix(" kB")?;
    number.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Returns the number of hundredths in a text such as "12.34".
fn parse_hundredths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.')?;
    if part.len() != 2 {
        return None;
    }
    let (whole, part): (u64, u64) = (whole.parse().ok()?, part.parse().ok()?);
    whole.checked_mul(100)?.checked_add(part)
}

/// Returns the least number of 65536ths that programs print as this text: they cut off what comes after the hundredths.
fn parse_load(text: &str) -> Option<u64> {
    let hundredths = parse_hundredths(text)?;
    Some(hundredths.checked_mul(1 << 16)?.div_ceil(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:         262144 kB\nMemFree:          200000 kB\nMemAvailable:     2 kB\n\
        Buffers:               8 kB\nCached:                4 kB\nSwapTotal:         1024 kB\nSwapFree:            512 kB\n\
        Shmem:                16 kB\n";

    fn figures() -> Figures {
        Figures::parse(MEMINFO, "12.01 9.00\n", "0.29 1.00 12.34 2/7 99\n").unwrap()
    }

    #[test]
    fn the_figures_are_those_of_the_views() {
        let expected = Figures {
            uptime: 13,
            loads: [19_006, 65_536, 808_715],
            total: 262_144 << 10,
            free: 200_000 << 10,
            shared: 16 << 10,
            buffers: 8 << 10,
            total_swap: 1024 << 10,
            free_swap: 512 << 10,
            tasks: 7,
        };
        assert_eq!(figures(), expected);
        for (meminfo, uptime, loadavg) in [
            ("", "12.01 9.00", "0.29 1.00 12.34 2/7 99"),
            (MEMINFO, "", "0.29 1.00 12.34 2/7 99"),
            (MEMINFO, "12 9", "0.29 1.00 12.34 2/7 99"),
            (MEMINFO, "12.01 9.00", "0.29 1.00 12.34"),
            ("MemTotal: 1 MB\n", "12.01 9.00", "0.29 1.00 12.34 2/7 99"),
        ] {
            assert_eq!(
                Figures::parse(meminfo, uptime, loadavg),
                None,
                "{meminfo} {uptime} {loadavg}"
            );
        }
    }

    #[test]
    fn every_load_is_printed_as_the_view_says_it() {
        for hundredths in 0..10_000u64 {
            let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
            let load = parse_load(&text).unwrap();
            let printed = format!("{}.{:02}", load >> 16, ((load & 0xffff) * 100) >> 16);
            assert_eq!(printed, text);
        }
    }

    #[test]
    fn both_layouts_have_the_sizes_and_places_of_the_kernel() {
        let long = figures().encode(Layout::Long);
        assert_eq!(long.len(), size_of::<libc::sysinfo>());
        assert_eq!(long[32..40], (262_144u64 << 10).to_ne_bytes());
        assert_eq!(long[80..82], 7u16.to_ne_bytes());
        assert_eq!(long[104..108], 1u32.to_ne_bytes());
        let short = figures().encode(Layout::Short);
        assert_eq!(short.len(), 64);
        assert_eq!(short[16..20], (262_144u32 << 10).to_ne_bytes());
        assert_eq!(short[40..42], 7u16.to_ne_bytes());
        assert_eq!(short[52..56], 1u32.to_ne_bytes());
    }

    #[test]
    fn sizes_that_do_not_fit_into_32_bits_are_in_larger_units() {
        let mut large = figures();
        large.total = 5 << 30;
        let short = large.encode(Layout::Short);
        assert_eq!(short[16..20], (5u32 << 29).to_ne_bytes());
        assert_eq!(short[52..56], 2u32.to_ne_bytes());
        large.total = (1 << 32) - 1;
        assert_eq!(large.encode(Layout::Short)[52..56], 1u32.to_ne_bytes());
    }
}
