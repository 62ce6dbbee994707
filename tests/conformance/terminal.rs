//! htop, in a terminal.

use crate::Means::{Container, Machine};
use crate::{Said, Seen};

/// The screen after its first drawing, row by row. `script` is the terminal; "q" ends htop, which draws before it
/// looks for keys.
const HTOP: &str = r#"
export HOME=$(mktemp -d) TERM=vt100
printf q | script -qec 'stty cols 120 rows 60; htop' /dev/null |
    sed 's/\x1b\[[0-9;]*m//g; s/\x1b[()][0-9A-B]//g; s/[\x0e\x0f]//g; s/\x1b\[[0-9;?]*[A-Za-z]/\n/g'
rm -r "$HOME"
"#;

/// What stands in the last cell of a meter: "1.2M/300M" of `Mem[||  1.2M/300M]`.
#[track_caller]
fn meter<'a>(said: &'a Said, name: &str) -> &'a str {
    let piece = said
        .text
        .split(name)
        .nth(1)
        .and_then(|rest| rest.split(']').next());
    match piece {
        Some(piece) => piece.rsplit(' ').next().unwrap(),
        None => panic!("there is no {name:?}: {said:#?}"),
    }
}

#[test]
fn privileged_htop_shows_the_memory_and_the_cpus_of_the_container() {
    let seen = Seen::of("htop", "htop", HTOP);
    seen.row(
        "total memory",
        Machine,
        Container,
        "/proc/meminfo",
        |said, means| {
            let total = meter(said, "Mem[").rsplit('/').next().unwrap();
            let (number, unit) = total.split_at(total.len() - 1);
            let shift = match unit {
                "K" => 10,
                "M" => 20,
                "G" => 30,
                _ => 40,
            };
            let bytes = number.parse::<f64>().unwrap() * f64::from(1u32 << (shift - 10)) * 1024.0;
            said.is_memory(bytes as u64, means);
        },
    );
    let cpus = "/sys/devices/system/cpu/cpuN/online, /proc/stat";
    seen.row(
        "CPUs that are not offline",
        Machine,
        Container,
        cpus,
        |said, means| {
            // Above the memory there are meters of CPUs only: "0[||  12.0%]", or "1[  offline]".
            let above = said.text.split("Mem[").next().unwrap();
            let meters = above
                .split('[')
                .skip(1)
                .filter_map(|piece| piece.split(']').next());
            said.is_count(meters.filter(|meter| meter.ends_with('%')).count(), means);
        },
    );
}
