//! The handlers of tunables that are strings (proc_dostring).

use rustix::io::Errno;

use super::Written;

/// IFNAMSIZ: the size of a name in bytes, with the NUL at its end.
const IFNAMSIZ: usize = 16;

/// The queueing disciplines of net/sched. A kernel does not tell which it has, and it loads those that it lacks.
const QDISCS: &[&str] = &[
    "bfifo",
    "cake",
    "cbs",
    "choke",
    "clsact",
    "codel",
    "drr",
    "dualpi2",
    "etf",
    "ets",
    "fq",
    "fq_codel",
    "fq_pie",
    "gred",
    "hfsc",
    "hhf",
    "htb",
    "ingress",
    "mq",
    "mqprio",
    "multiq",
    "netem",
    "noqueue",
    "pfifo",
    "pfifo_fast",
    "pfifo_head_drop",
    "pie",
    "plug",
    "prio",
    "qfq",
    "red",
    "sfb",
    "sfq",
    "skbprio",
    "taprio",
    "tbf",
];

/// set_default_qdisc: returns the result of a write to a file that holds the name `present`.
pub(super) fn write_qdisc(present: &[u8], offset: u64, bytes: &[u8]) -> Written {
    let mut name = present.trim_ascii().to_vec();
    // _proc_do_string: a write can begin where the last one ended, but not behind the end of the value.
    if let Some(start) = usize::try_from(offset).ok().filter(|at| *at <= name.len()) {
        name.truncate(start);
        let end = |byte: &&u8| matches!(byte, 0 | b'\n');
        let new = bytes.iter().take_while(|byte| !end(byte)).copied();
        name.extend(new.take(IFNAMSIZ.saturating_sub(1).saturating_sub(start)));
    }
    if !QDISCS.iter().any(|known| known.as_bytes() == name) {
        return Written::nothing(Err(Errno::NOENT));
    }
    name.push(b'\n');
    Written {
        value: Some(name),
        answer: Ok(bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(offset: u64, bytes: &[u8]) -> Written {
        write_qdisc(b"pfifo_fast\n", offset, bytes)
    }

    fn is(written: &Written, value: &[u8], bytes: usize) -> bool {
        written.value.as_deref() == Some(value) && written.answer == Ok(bytes)
    }

    #[test]
    fn a_name_ends_with_a_newline_or_a_zero() {
        assert!(is(&written(0, b"fq"), b"fq\n", 2));
        assert!(is(&written(0, b"fq\nrest"), b"fq\n", 7));
        assert!(is(&written(0, b"fq\0x"), b"fq\n", 4));
    }

    #[test]
    fn a_later_write_goes_on_where_the_last_one_ended() {
        assert!(is(&written(5, b"\n"), b"pfifo\n", 1));
        assert!(is(&written(5, b"_head_drop"), b"pfifo_head_drop\n", 10));
        assert!(is(&written(11, b"zzz"), b"pfifo_fast\n", 3));
    }

    #[test]
    fn what_is_no_queueing_discipline_is_not_there() {
        for name in ["nonsense", "", " fq", "pfifo_head_drop_x", "FQ"] {
            let got = written(0, format!("{name}\n").as_bytes());
            let cut = name.len() > 15;
            assert_eq!(got.answer.is_ok(), cut, "{name}");
        }
    }
}
