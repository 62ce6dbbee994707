//! Writes to tunables by the emulators and by the kernel: each write is made to both, and the results are compared.
//! The virtual machine is discarded afterwards, so it can take all writes.

use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};

use eci_fs_emulators::tunable::{Handler, Policy, Tunable};
use eci_fs_emulators::{
    Cgroup, Container, Context, History, Host, Identity, Settings, TUNABLES, Values,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::Result;
use crate::report::{Report, equal};

/// Writes that every handler meets.
const WRITES: &[&str] = &[
    "",
    "\n",
    " ",
    "0",
    "1",
    "1\n",
    "2",
    "3",
    "4",
    "5",
    "-1",
    "-0",
    "+1",
    "--1",
    "- 1",
    "x",
    "1x",
    "1,2",
    "1\0",
    "1 \0",
    "1\r\n",
    "  1\n",
    "\t1\t\n\n",
    "\u{b}1",
    "1 2\n",
    "1\n2\n",
    "1 x\n",
    "1 2 3 4\n",
    "1 2 3 4 5\n",
    "1 2 x\n",
    "x 2\n",
    "1\t2 \n3",
    "0x1",
    "0X2\n",
    "0x10\n",
    "0x",
    "0xg",
    "01",
    "010",
    "08",
    "300",
    "301",
    "1000\n",
    "8 9",
    "pfifo\n",
    "pfifo_fast",
    "bfifo\nrest",
    "mq\0",
    "pfifo_head_drop_and_more",
    "nonsense",
    "2147483583",
    "2147483584",
    "2147483585",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999",
    "00000000000000000001",
    "000000000000000000001",
];

/// Values that the machine would not survive.
const HARMFUL: &[(&str, u64)] = &[
    ("/proc/sys/vm/min_free_kbytes", 1 << 16),
    ("/sys/module/nf_conntrack/parameters/hashsize", 1 << 16),
];

/// Values that the kernel changes by itself: these modes are 1 while there is memory enough (update_defense_level).
const FLEETING: &[(&str, &str)] = &[
    ("/proc/sys/net/ipv4/vs/drop_entry", "2"),
    ("/proc/sys/net/ipv4/vs/drop_packet", "2"),
    ("/proc/sys/net/ipv4/vs/secure_tcp", "2"),
];

/// A write to overcommit_kbytes sets it to 0, and containers that come later begin with the machine's value.
const RATIO: &str = "/proc/sys/vm/overcommit_ratio";

/// ENOTSUPP, which the kernel says of a watchdog that the processor lacks.
const ENOTSUPP: i32 = 524;

pub(super) fn checks(report: &mut Report) {
    report.group("handlers", |report| {
        let host = Host::open().map_err(|error| error.to_string())?;
        let ratio = std::fs::read(RATIO).map_err(|error| format!("{RATIO}: {error}"))?;
        for tunable in TUNABLES.iter().copied().flatten() {
            let path = tunable.path();
            let Ok(meta) = std::fs::metadata(path) else {
                report.skip(path, "this kernel has none");
                continue;
            };
            let mode = meta.permissions().mode();
            if matches!(tunable.policy, Policy::Constant(_)) || mode & 0o222 == 0 {
                report.skip(path, "it cannot be written");
                continue;
            }
            match Pair::new(&host, tunable, mode) {
                Ok(mut pair) => {
                    report.check(path, pair.compare());
                    report.check(&format!("who may write {path}"), pair.compare_capability());
                }
                Err(error) if error.contains(&format!("{ENOTSUPP}")) => {
                    report.skip(path, "the machine lacks what it turns on");
                }
                Err(error) => report.check(path, Err(error)),
            }
        }
        std::fs::write(RATIO, ratio).map_err(|error| format!("{RATIO}: {error}"))
    });
}

/// A tunable of the machine and one of a container.
struct Pair<'a> {
    host: &'a Host,
    tunable: &'static Tunable,
    container: Container,
    settings: Settings,
    file: File,
    readable: bool,
}

/// What a write came to: the bytes that were taken or the errno, and what is read then.
type Outcome = (std::result::Result<usize, i32>, String);

impl<'a> Pair<'a> {
    fn new(host: &'a Host, tunable: &'static Tunable, mode: u32) -> Result<Self> {
        let path = tunable.path();
        let readable = mode & 0o444 != 0;
        let file = File::options().read(readable).write(true).open(path);
        let this = Self {
            host,
            tunable,
            container: Container {
                cgroup: Cgroup::new(Vec::new()),
                identity: Identity::default(),
                history: History::default(),
                tunables: Values::default(),
                can_measure_cpus: Default::default(),
            },
            settings: Settings::default(),
            file: file.map_err(|error| format!("{path}: {error}"))?,
            readable,
        };
        let present = this.present();
        match this.file.write_at(&present, 0) {
            Err(error) if readable => Err(format!("{path}: {error}")),
            _ => Ok(this),
        }
    }

    fn present(&self) -> Vec<u8> {
        let mut buffer = [0; 256];
        let length = if self.readable {
            self.file.read_at(&mut buffer, 0)
        } else {
            Ok(0)
        };
        buffer[..length.unwrap_or(0)].to_vec()
    }

    /// Every write, to both.
    fn compare(&mut self) -> Result<()> {
        let mut wrong = Vec::new();
        let mut writes: Vec<(u64, Vec<u8>)> = WRITES
            .iter()
            .map(|text| (0, text.as_bytes().to_vec()))
            .collect();
        writes.push((0, b"\xa01".to_vec()));
        for text in bounds(self.tunable.handler) {
            writes.push((0, text.into_bytes()));
        }
        for length in [30, 4094, 4095, 4096] {
            let mut padded = vec![b' '; length];
            padded.push(b'1');
            writes.push((0, padded.clone()));
            padded.rotate_right(1);
            writes.push((0, padded));
        }
        for text in ["1\n", "x", ""] {
            writes.push((1, text.as_bytes().to_vec()));
        }
        // Final values last.
        writes.sort_by_key(|(_, bytes)| bytes.trim_ascii() == b"3");
        for (offset, bytes) in &writes {
            let present = self.present();
            let ours = self.ours(&present, *offset, bytes)?;
            let fleeting = (self.tunable.path(), ours.1.trim());
            if self.is_harmful(&ours) || FLEETING.contains(&fleeting) {
                continue;
            }
            let machines = self.machines(&present, *offset, bytes);
            if ours != machines {
                let text = String::from_utf8_lossy(bytes);
                let text: String = text.chars().take(40).collect();
                wrong.push(format!("{text:?} at {offset}: {machines:?}, not {ours:?}"));
            }
        }
        equal("writes that differ", &wrong, &Vec::new())
    }

    fn context(&self) -> Context<'_> {
        let boottime = std::time::Duration::ZERO;
        Context::new(self.host, &self.container, &self.settings, boottime).with_cgroup()
    }

    /// What the emulators make of it.
    fn ours(&self, present: &[u8], offset: u64, bytes: &[u8]) -> Result<Outcome> {
        let id = self.tunable.id();
        self.container.tunables.restore(id, present);
        let written = self
            .tunable
            .write(&self.context(), offset, bytes, |_, _| ())
            .map_err(|error| error.to_string())?;
        let answer = written.answer.map_err(|errno| errno.raw_os_error());
        let value = self.container.tunables.get(id).unwrap_or_default();
        let value = if self.readable { &*value } else { &[] };
        Ok((answer, String::from_utf8_lossy(value).into_owned()))
    }

    /// What the machine makes of it. Nothing is allocated while its value is not what it was: it may be one that
    /// forbids that.
    fn machines(&self, present: &[u8], offset: u64, bytes: &[u8]) -> Outcome {
        let mut buffer = [0; 256];
        let answer = self.file.write_at(bytes, offset);
        let length = if self.readable {
            self.file.read_at(&mut buffer, 0)
        } else {
            Ok(0)
        };
        let restored = self.file.write_at(present, 0);
        drop(restored);
        let answer = answer.map_err(|error| error.raw_os_error().unwrap_or(0));
        let value = &buffer[..length.unwrap_or(0)];
        (answer, String::from_utf8_lossy(value).into_owned())
    }

    fn is_harmful(&self, (answer, value): &Outcome) -> bool {
        let most = HARMFUL
            .iter()
            .find(|(path, _)| *path == self.tunable.path());
        let number = value.trim().parse::<u64>().unwrap_or(0);
        answer.is_ok() && most.is_some_and(|(_, most)| number > *most)
    }

    /// Who lacks a capability, and who has only one.
    fn compare_capability(&self) -> Result<()> {
        let wanted = self
            .tunable
            .capability
            .map(|capability| CapabilitySet::from_bits_retain(1 << capability as u64));
        let nobody = self.write_with(CapabilitySet::empty())?;
        match wanted {
            None => equal("without any capability", &nobody, &Ok(())),
            Some(wanted) => {
                equal("without any capability", &nobody, &Err(libc_eperm()))?;
                equal("with the one", &self.write_with(wanted)?, &Ok(()))
            }
        }
    }

    /// Writes the present value by a thread with these capabilities in effect.
    fn write_with(&self, effective: CapabilitySet) -> Result<std::result::Result<(), i32>> {
        let present = if self.readable {
            self.present()
        } else {
            b"1".to_vec()
        };
        let write = || {
            let sets = capabilities(None).map_err(|error| error.to_string())?;
            let fewer = CapabilitySets { effective, ..sets };
            set_capabilities(None, fewer).map_err(|error| error.to_string())?;
            let file = File::options().write(true).open(self.tunable.path());
            let written = file.and_then(|file| file.write_at(&present, 0));
            Ok(written
                .map(drop)
                .map_err(|error| error.raw_os_error().unwrap_or(0)))
        };
        std::thread::scope(|scope| scope.spawn(write).join())
            .map_err(|_| "the thread panicked".to_owned())?
    }
}

fn libc_eperm() -> i32 {
    rustix::io::Errno::PERM.raw_os_error()
}

/// The ends of the range, and what lies behind them.
fn bounds(handler: Handler) -> Vec<String> {
    let (least, most) = match handler {
        Handler::Int { least, most, .. } => (i128::from(least), i128::from(most)),
        Handler::Ulong { least, most } => (i128::from(least), i128::from(most)),
        Handler::Buckets => (1, 1 << 16),
        Handler::Checked { .. } => (0, 8),
        Handler::ReadOnly | Handler::Qdisc => return Vec::new(),
    };
    [least - 1, least, least + 1, most - 1, most, most + 1]
        .iter()
        .map(i128::to_string)
        .collect()
}
