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

/// The number of CAP_SYS_RESOURCE.
const SYS_RESOURCE: u32 = 24;

/// Returns whether one of the names, as an OCI runtime has them, is of such a capability.
pub fn can_measure<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    names
        .into_iter()
        .any(|name| MEASURING.iter().any(|(measuring, _)| *measuring == name))
}

/// Returns whether the bounding set in the text of a `/proc/<pid>/status` has such a capability; none where the text has
/// no bounding set.
pub fn bounding_set_can_measure(status: &str) -> Option<bool> {
    let set = bounding_set(status)?;
    Some(MEASURING.iter().any(|(_, number)| set >> number & 1 == 1))
}

/// Returns whether the bounding set in the text of a `/proc/<pid>/status` has CAP_SYS_RESOURCE; none where the text has no
/// bounding set.
pub fn bounding_set_has_sys_resource(status: &str) -> Option<bool> {
    Some(bounding_set(status)? >> SYS_RESOURCE & 1 == 1)
}

fn bounding_set(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
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
        for (set, wanted) in [("0000000001000000", true), ("00000000a80425fb", false)] {
            let status = format!("CapBnd:\t{set}\n");
            assert_eq!(
                bounding_set_has_sys_resource(&status),
                Some(wanted),
                "{set}"
            );
        }
        assert!(can_measure(["CAP_CHOWN", "CAP_PERFMON"]));
        assert!(!can_measure(["CAP_CHOWN", "CAP_SYS_PTRACE"]));
    }
}
