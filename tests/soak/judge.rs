//! Checks of a text against the container in which it was read: the numbers that identify the container, the layout,
//! and counters that never fall.

use support::{count_cpus, number_after};

/// What is known of a container without reading a view.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// The limit of its memory.
    pub(crate) memory_kib: u64,
    /// The CPUs that it is shown.
    pub(crate) cpus: Vec<u64>,
    /// The most hundredths of a second that it can have run for.
    pub(crate) age: u64,
}

/// What can be compared with what was read before.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// Never fall.
    pub(crate) counters: Vec<(String, u64)>,
    /// Never change.
    pub(crate) constants: Vec<(String, u64)>,
}

type Judged = Result<Numbers, String>;

/// Judge a text that changes with time. `before` is an earlier one.
pub(crate) fn judge(path: &str, text: &str, before: &str, known: &Known) -> Judged {
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the end is missing".to_owned());
    }
    if text.contains('\0') {
        return Err("there is a NUL".to_owned());
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    match name {
        "uptime" => uptime(text, known),
        "stat" => stat(text, known),
        "meminfo" => meminfo(text, before, known),
        "vmstat" if path.starts_with("/proc") => vmstat(text, before),
        "zoneinfo" => zoneinfo(text, before, known),
        "swaps" => expect(text.starts_with("Filename"), "no header"),
        "loadavg" => loadavg(text),
        "diskstats" => diskstats(text),
        _ if path.starts_with("/proc/pressure/") => pressure(text),
        _ => expect(support::form(text) == support::form(before), "another form"),
    }
}

fn expect(holds: bool, otherwise: &str) -> Judged {
    if holds {
        Ok(Numbers::default())
    } else {
        Err(otherwise.to_owned())
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word:?} is no number"))
}

/// Hundredths of a second out of "12.34".
fn hundredths(word: &str) -> Result<u64, String> {
    let (whole, part) = word.split_once('.').ok_or("no point in a number")?;
    if part.len() != 2 {
        return Err(format!("{word:?} has not two digits"));
    }
    Ok(number(whole)? * 100 + number(part)?)
}

fn uptime(text: &str, known: &Known) -> Judged {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [up, idle] = words.as_slice() else {
        return Err("not two numbers".to_owned());
    };
    let (up, idle) = (hundredths(up)?, hundredths(idle)?);
    if up > known.age {
        return Err(format!("up for {up} of {}", known.age));
    }
    if idle > up * known.cpus.len() as u64 + 1 {
        return Err("idle for longer than up".to_owned());
    }
    Ok(Numbers {
        counters: vec![("up".to_owned(), up), ("idle".to_owned(), idle)],
        ..Numbers::default()
    })
}

fn stat(text: &str, known: &Known) -> Judged {
    let (mut rows, mut numbers) = (Vec::new(), Numbers::default());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(key) = words.next() else { continue };
        if key.starts_with("cpu") {
            let row: Vec<u64> = words.map(number).collect::<Result<_, _>>()?;
            for (column, value) in row.iter().enumerate() {
                numbers.counters.push((format!("{key}.{column}"), *value));
            }
            rows.push((key, row));
        } else if matches!(key, "btime" | "processes") {
            let value = number(words.next().unwrap_or_default())?;
            let kind = if key == "btime" {
                &mut numbers.constants
            } else {
                &mut numbers.counters
            };
            kind.push((key.to_owned(), value));
        }
    }
    let names: Vec<String> = known.cpus.iter().map(|id| format!("cpu{id}")).collect();
    let Some(((first, total), rows)) = rows.split_first() else {
        return Err("no row".to_owned());
    };
    if *first != "cpu" || rows.iter().map(|(name, _)| *name).ne(&names) {
        return Err(format!("not the rows of {names:?}"));
    }
    for (column, total) in total.iter().enumerate() {
        let sum: u64 = rows.iter().filter_map(|(_, row)| row.get(column)).sum();
        if sum != *total {
            return Err(format!("column {column} adds up to {sum} and not {total}"));
        }
    }
    if numbers.constants.is_empty() {
        return Err("no btime".to_owned());
    }
    Ok(numbers)
}

fn meminfo(text: &str, before: &str, known: &Known) -> Judged {
    if support::form(text) != support::form(before) {
        return Err("other lines".to_owned());
    }
    // Those of a node have its name in front.
    let plain: String = text
        .lines()
        .map(|line| line.find("Mem").map_or(line, |at| &line[at..]).to_owned() + "\n")
        .collect();
    let total = number_after(&plain, "MemTotal:");
    if total != known.memory_kib {
        return Err(format!("{total} KiB and not {}", known.memory_kib));
    }
    expect(
        number_after(&plain, "MemFree:") <= total,
        "more free than there is",
    )
}

fn vmstat(text: &str, before: &str) -> Judged {
    let keys = |text: &str| -> Vec<String> {
        let words = text.lines().filter_map(|line| line.split(' ').next());
        words.map(str::to_owned).collect()
    };
    if keys(text) != keys(before) {
        return Err("other lines".to_owned());
    }
    let mut numbers = Numbers::default();
    for line in text.lines() {
        let (key, value) = line
            .trim_end()
            .split_once(' ')
            .ok_or("a line of one word")?;
        let value = number(value)?;
        let counts = ["pg", "workingset_", "thp_", "swp", "pswp"];
        if counts.iter().any(|start| key.starts_with(start)) && key != "workingset_nodes" {
            numbers.counters.push((key.to_owned(), value));
        }
    }
    Ok(numbers)
}

fn zoneinfo(text: &str, before: &str, known: &Known) -> Judged {
    if support::form(text) != support::form(before) {
        return Err("other lines".to_owned());
    }
    let managed = number_after(text, "managed") * 4;
    expect(managed == known.memory_kib, "not the container's pages")
}

fn loadavg(text: &str) -> Judged {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [one, five, fifteen, tasks, last] = words.as_slice() else {
        return Err("not five words".to_owned());
    };
    for load in [one, five, fifteen] {
        hundredths(load)?;
    }
    let (running, all) = tasks.split_once('/').ok_or("no slash")?;
    number(last)?;
    expect(number(running)? >= 1, "nobody runs, not even the reader")?;
    expect(number(running)? <= number(all)?, "more run than there are")
}

fn diskstats(text: &str) -> Judged {
    let mut numbers = Numbers::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, name, values @ ..] = words.as_slice() else {
            continue;
        };
        for (column, value) in values.iter().enumerate() {
            let value = number(value)?;
            numbers.counters.push((format!("{name}.{column}"), value));
        }
    }
    Ok(numbers)
}

fn pressure(text: &str) -> Judged {
    let mut numbers = Numbers::default();
    for line in text.trim_end().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [kind, averages @ .., total] = words.as_slice() else {
            return Err("an empty line".to_owned());
        };
        let total = total.strip_prefix("total=").ok_or("no total")?;
        if averages.len() != 3 || !averages.iter().all(|word| word.starts_with("avg")) {
            return Err("not three averages".to_owned());
        }
        numbers.counters.push(((*kind).to_owned(), number(total)?));
    }
    expect(!numbers.counters.is_empty(), "no line")?;
    Ok(numbers)
}

/// Judge what does not change with time, when it is seen first.
pub(crate) fn judge_static(path: &str, text: &str, known: &Known) -> Result<(), String> {
    let shown = match path {
        "/proc/cpuinfo" => {
            let rows = text.lines().filter(|line| line.starts_with("processor"));
            let ids = rows.filter_map(|line| line.rsplit(' ').next()?.parse().ok());
            debug_assert_eq!(count_cpus(text), known.cpus.len());
            ids.collect()
        }
        "/sys/devices/system/cpu/online" => support::cpu_list(text),
        _ => return Ok(()),
    };
    if shown == known.cpus {
        Ok(())
    } else {
        Err(format!("{shown:?} and not {:?}", known.cpus))
    }
}
