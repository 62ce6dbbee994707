//! Monitoring programs that expect a row of each CPU, or a column: they see a host some of whose CPUs are offline.

use support::cpu_list;

use crate::Means::{Below, Container, Machine, NeedsFirst, Works};
use crate::case::ended;
use crate::{Program, Said, Seen, built};

/// All that follows `label` in a line, up to a character that is no digit.
fn ids(said: &Said, label: &str) -> Vec<u64> {
    let after = |line: &str| -> Vec<u64> {
        let digits = |rest: &str| {
            rest.split(|c: char| !c.is_ascii_digit())
                .next()
                .map(cpu_list)
        };
        line.split(label)
            .skip(1)
            .filter_map(digits)
            .flatten()
            .collect()
    };
    let mut ids: Vec<u64> = said.text.lines().flat_map(after).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// It runs until it has drawn its window, and says its version.
const QPS: &str = r#"
export QT_QPA_PLATFORM=offscreen HOME=$(mktemp -d) XDG_RUNTIME_DIR=/tmp
exec 3< <(exec qps 2>&1)
qps=$!
while read -r line <&3; do
    echo "$line"
    [[ $line == *"DEBUG: version"* ]] && shown=1 && break
done
kill -KILL $qps
rm -r "$HOME"
[ "$shown" ]
"#;

#[test]
fn privileged_qps_needs_a_row_of_each_cpu_below_the_last() {
    let [seen] = Seen::each([Program::new("qps", ("qps", "qps"), ended(QPS))]);
    seen.row(
        "opens its window",
        Works,
        NeedsFirst,
        "/proc/stat",
        |said, means| {
            said.is_success(said.succeeded(), means);
        },
    );
}

#[test]
fn privileged_sar_and_sadc_count_the_interrupts_of_the_cpus_of_the_container() {
    let read = "export S_TIME_FORMAT=ISO; sar -I SUM -P ALL 1 1";
    let written = "export S_TIME_FORMAT=ISO; file=$(mktemp -u)
        /usr/lib/sysstat/sadc -S INT 1 2 $file && sar -I SUM -P ALL -f $file; rm $file";
    let needs = ("sar", "sysstat");
    let seen = Seen::each([
        Program::new("sar -I SUM", needs, read),
        Program::new("sadc -S INT", needs, written),
    ]);
    for seen in seen {
        seen.row(
            "CPUs, one by one",
            Machine,
            Container,
            "/proc/interrupts",
            |said, means| said.is_list(&ids(said, " CPU"), means),
        );
    }
}

/// What it draws in a terminal is read until all cores are there.
const BTOP: &str = r#"/usr/bin/python3 -c '
import fcntl, os, pty, re, struct, sys, tempfile, termios
home = tempfile.TemporaryDirectory()
os.environ.update(HOME=home.name, TERM="xterm", LC_ALL="C.UTF-8")
pid, terminal = pty.fork()
if pid == 0:
    os.kill(os.getpid(), 19)
    os.execvp("btop", ["btop", "--utf-force"])
os.waitpid(pid, os.WUNTRACED)
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 160, 0, 0))
os.kill(pid, 18)
drawn = b""
# Below the cores stands the load, in one of two words.
while b"LAV" not in drawn and b"Load AVG" not in drawn: drawn += os.read(terminal, 65536)
os.kill(pid, 9)
os.waitpid(pid, 0)
text = re.sub(rb"\x1b\[[0-9;]*m", b"", drawn)
print(re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"\n", text).decode(errors="replace"))'"#;

#[test]
fn privileged_btop_shows_the_cpus_of_the_container() {
    let [seen] = Seen::each([Program::new("btop", ("btop", "btop"), BTOP)]);
    seen.row(
        "CPUs, one by one",
        Machine,
        Below,
        "/proc/stat",
        |said, means| {
            let cores = said.text.lines().filter_map(|line| line.strip_prefix('C'));
            let digits = |rest: &str| rest.split(' ').next().unwrap().parse().ok();
            let mut ids: Vec<u64> = cores.filter_map(digits).collect();
            ids.sort_unstable();
            ids.dedup();
            said.is_list(&ids, means);
        },
    );
}

/// The first line is of the time since the start, in which the container has used its CPU.
const I3STATUS: &str = r#"
file=$(mktemp)
cat > $file <<'END'
general { output_format = "none" colors = false interval = 1 }
order += "cpu_usage"
cpu_usage { format = "all %usage 0 %cpu0 1 %cpu1" }
END
for i in {1..20000}; do :; done
i3status -c $file | head -n 1
rm $file
"#;

#[test]
fn privileged_i3status_shows_the_usage_of_the_cpus_of_the_container() {
    let [seen] = Seen::each([Program::new("i3status", ("i3status", "i3status"), I3STATUS)]);
    seen.row(
        "usage, CPU by CPU",
        Works,
        Works,
        "/proc/stat",
        |said, means| {
            // "all 73% 0 73% 1 00%"
            let words: Vec<&str> = said.text.split_whitespace().collect();
            let percent = |index: usize| words[index].trim_end_matches('%').parse::<u32>().unwrap();
            let visible = said.cpus(Container);
            let absent = [0, 1].into_iter().filter(|id| !visible.contains(id));
            let good = match said.attached {
                true => {
                    let of_absent: u32 = absent.map(|id| percent(3 + 2 * id as usize)).sum();
                    percent(1) > 0 && of_absent == 0 && percent(3 + 2 * visible[0] as usize) > 0
                }
                false => words[0] == "all",
            };
            said.is_success(good, means);
        },
    );
}

/// The CPUs in the rows of collectl that are not zeros throughout.
fn collected(said: &Said) -> Vec<u64> {
    let row = |line: &str| -> Option<u64> {
        let numbers: Option<Vec<u64>> = line
            .split_whitespace()
            .map(|word| word.parse().ok())
            .collect();
        let numbers = numbers.filter(|numbers| numbers.len() > 5)?;
        numbers[1..]
            .iter()
            .any(|number| *number > 0)
            .then_some(numbers[0])
    };
    said.text.lines().filter_map(row).collect()
}

#[test]
fn privileged_collectl_shows_the_cpus_of_the_container_and_a_column_of_interrupts_for_each_cpu() {
    let script = ended("collectl -sCJ -c1 -i1");
    let [seen] = Seen::each([Program::new("collectl", ("collectl", "collectl"), script)]);
    seen.row(
        "CPUs that do anything",
        Machine,
        Container,
        "/proc/stat",
        |said, means| said.is_list(&collected(said), means),
    );
    let from = "/proc/interrupts, /sys/devices/system/cpu/cpuN";
    seen.row(
        "interrupts, CPU by CPU",
        Works,
        Works,
        from,
        |said, means| {
            // It warns of columns that are no numbers.
            let good = said.succeeded() && !said.text.contains("Argument");
            said.is_success(good, means);
        },
    );
}

/// Its rows of one second, as numbers: "cpu HOST EPOCH DATE TIME 1 100 0 ...", in which the CPU comes eighth.
const ATOP: &str = r#"
file=$(mktemp -u)
atop -w $file 1 2 && atop -r $file -Pcpu
rm $file
"#;

#[test]
fn privileged_atop_numbers_the_rows_of_stat_itself() {
    let [seen] = Seen::each([Program::new("atop", ("atop", "atop"), ended(ATOP))]);
    seen.row(
        "CPUs, one by one",
        Works,
        NeedsFirst,
        "/proc/stat",
        |said, means| {
            let row = |line: &str| -> Option<(u64, bool)> {
                let mut words = line.strip_prefix("cpu ")?.split(' ').skip(6);
                let id = words.next()?.parse().ok()?;
                Some((id, words.take(8).any(|word| word != "0")))
            };
            let rows: Vec<(u64, bool)> = said.text.lines().filter_map(row).collect();
            let expected = said.cpus(if said.attached { Container } else { Machine });
            // The first rows are of the time since the start.
            let shown = rows.iter().take(expected.len());
            let good = shown.eq(expected
                .iter()
                .map(|id| (*id, true))
                .collect::<Vec<_>>()
                .iter());
            said.is_success(good && said.succeeded(), means);
        },
    );
}

/// The heading of the file that it writes has a line for each CPU.
const NMON: &str = r#"
dir=$(mktemp -d)
cd $dir
nmon -F out -s 1 -c 1 -p > pid
tail --pid="$(cat pid)" -f /dev/null
grep ^AAA,cpus out
cd /; rm -r $dir
"#;

#[test]
fn privileged_nmon_and_dstat_show_the_cpus_of_the_container() {
    let [nmon, dstat] = Seen::each([
        Program::new("nmon", ("nmon", "nmon"), NMON),
        Program::new(
            "dstat -C",
            ("dstat", "dstat"),
            "dstat -c -C 0,1 --noupdate 1 1",
        ),
    ]);
    nmon.row("CPUs", Machine, Container, "/proc/stat", |said, means| {
        let count = said.text.trim().rsplit(',').next().unwrap();
        said.is_count(count.parse().unwrap(), means);
    });
    dstat.row(
        "CPUs, one by one",
        Machine,
        Container,
        "/proc/stat",
        |said, means| {
            let asked: Vec<u64> = said.cpus(means).into_iter().filter(|id| *id < 2).collect();
            assert_eq!(ids(said, "-cpu"), asked, "{said:#?}");
        },
    );
}

#[test]
fn privileged_google_benchmark_counts_the_cpus_of_the_container() {
    let path = built::with_compiler("g++", "benchmark.cc", &["-lbenchmark", "-lpthread"]);
    let [seen] = Seen::each([Program::built("google-benchmark", &path)]);
    seen.row(
        "CPUs",
        Machine,
        Container,
        "/proc/cpuinfo",
        |said, means| {
            assert!(said.succeeded(), "{said:#?}");
            let (_, rest) = said.text.split_once("Run on (").unwrap();
            said.is_count(rest.split(' ').next().unwrap().parse().unwrap(), means);
        },
    );
    seen.row(
        "has no doubt about ids",
        Works,
        NeedsFirst,
        "/proc/cpuinfo",
        |said, means| {
            said.is_success(!said.text.contains("seem messed up"), means);
        },
    );
}
