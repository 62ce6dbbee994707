//! The capabilities with which programs can measure what runs on all CPUs: perf, bpftrace, agents made of eBPF programs.
//!
//! Only capabilities in the initial user namespace count (`perfmon_capable`, `bpf_capable`).

/// The capabilities, each with its number (include/uapi/linux/capability.h).
const MEASURING: [(&str, u32); 3] = [
    ("CAP_SYS_ADMIN", 21),
    // Linux 5.8.
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

/// Returns whether one of the names, as an OCI runtime has them, is of such a capability.
pub fn can_measure<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    names
        .into_iter()
        .any(|name| MEASURING.iter().any(|(measuring, _)| *measuring == name))
}

/// Returns whether the bounding set in the text of a `/proc/<pid>/status` has such a capability; none where the text has
/// no bounding set.
pub fn bounding_set_can_measure(status: &str) -> Option<bool> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))?;
    let set = u64::from_str_radix(line.trim(), 16).ok()?;
    Some(MEASURING.iter().any(|(_, number)| set >> number & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_three_capabilities_is_enough() {
        for (set, wanted) in [
            ("0000000000000000", Some(false)),
            // What engines leave to containers.
            ("00000000a80425fb", Some(false)),
            ("0000000000200000", Some(true)),
            ("0000004000000000", Some(true)),
            ("0000008000000000", Some(true)),
            ("000001ffffffffff", Some(true)),
            ("all", None),
        ] {
            let status = format!("Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t{set}\n");
            assert_eq!(bounding_set_can_measure(&status), wanted, "{set}");
        }
        assert_eq!(bounding_set_can_measure("Name:\tx\n"), None);
        assert!(can_measure(["CAP_CHOWN", "CAP_PERFMON"]));
        assert!(!can_measure(["CAP_CHOWN", "CAP_SYS_PTRACE"]));
    }
}
