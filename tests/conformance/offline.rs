//! Monitoring programs that expect a row of each CPU, or a column: they see a host some of whose CPUs are offline.

use support::cpu_list;

use crate::Means::{Below, Container, Machine, NeedsFirst, Works};
use crate::case::ended;
use crate::said::machine_cpus;
use crate::{Means, Program, Said, Seen, built};

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

/// It shows each core with a graph. What it draws is read until the first screen is whole.
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
drawn, asked = b"", False
while True:
    try: piece = os.read(terminal, 65536)
    except OSError: break
    if not piece: break
    drawn += piece
    if b"Load" in drawn and b"Pid:" in drawn and not asked:
        asked = True
        os.write(terminal, b"q")
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
