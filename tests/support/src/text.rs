//! Numbers in the texts of views and commands.

/// Returns the first number after `key`, for example "MemTotal:" in /proc/meminfo.
///
/// # Panics
/// When there is no number.
#[track_caller]
pub fn number_after(text: &str, key: &str) -> u64 {
    let found = text.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix(key)?;
        rest.split_whitespace().next()?.parse().ok()
    });
    match found {
        Some(number) => number,
        None => panic!("{key:?} has no number in {text:?}"),
    }
}

/// Returns the CPUs of a list like "0-2,7".
///
/// # Panics
/// When the text is no list.
#[track_caller]
pub fn cpu_list(text: &str) -> Vec<u64> {
    let number = |text: &str| match text.parse::<u64>() {
        Ok(number) => number,
        Err(_) => panic!("{text:?} is no CPU"),
    };
    text.trim()
        .split(',')
        .filter(|part| !part.is_empty())
        .flat_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            number(first)..=number(last)
        })
        .collect()
}

/// Returns the number of processors in a /proc/cpuinfo.
pub fn count_cpus(cpuinfo: &str) -> usize {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count()
}

/// Returns the first number of a /proc/uptime.
///
/// # Panics
/// When there is no number.
#[track_caller]
pub fn uptime(text: &str) -> f64 {
    match text.split_whitespace().next().map(str::parse) {
        Some(Ok(seconds)) => seconds,
        _ => panic!("{text:?} is no uptime"),
    }
}

/// Returns the text with every run of digits, dots and blanks replaced by one mark. All versions of a view have the
/// same form; a torn or cut text has another one.
pub fn form(text: &str) -> String {
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
