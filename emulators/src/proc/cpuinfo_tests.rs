use proptest::prelude::*;

use super::*;
use crate::CpuIds;
use crate::cpulist::CpuSet;
use crate::model::cpus::fixed;

const X86: &[u8] = b"processor\t: 0\nmodel name\t: Xeon @ 2.40GHz\ncpu MHz\t\t: 3100.123\n\
physical id\t: 0\nsiblings\t: 4\ncore id\t\t: 0\ncpu cores\t: 2\n\n\
processor\t: 1\nmodel name\t: Xeon @ 2.40GHz\ncpu MHz\t\t: 1200.000\n\
physical id\t: 0\nsiblings\t: 4\ncore id\t\t: 1\ncpu cores\t: 2\n\n\
processor\t: 2\nmodel name\t: Xeon @ 2.40GHz\ncpu MHz\t\t: 1200.000\n\
physical id\t: 0\nsiblings\t: 4\ncore id\t\t: 0\ncpu cores\t: 2\n\n";

fn cpus(list: &str, ids: CpuIds) -> Cpus {
    fixed(CpuSet::parse_list(list.as_bytes()).unwrap(), ids)
}

fn text(host: &[u8], cpus: &Cpus) -> String {
    let mut out = Vec::new();
    render(host, cpus, |_| None, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn siblings_and_cores_count_what_is_visible() {
    let text = text(X86, &cpus("0,2", CpuIds::Physical));
    assert_eq!(text.matches("processor\t: ").count(), 2);
    assert!(text.contains("processor\t: 2\n"));
    assert_eq!(text.matches("siblings\t: 2\n").count(), 2);
    assert_eq!(text.matches("cpu cores\t: 1\n").count(), 2);
    assert!(text.ends_with("\n\n"));
}

#[test]
fn dense_ids_have_no_holes() {
    let text = text(X86, &cpus("1-2", CpuIds::Dense));
    assert!(text.starts_with("processor\t: 0\n"));
    assert!(text.contains("\n\nprocessor\t: 1\n"));
}

#[test]
fn the_frequency_is_the_nominal_one() {
    assert!(text(X86, &cpus("0", CpuIds::Physical)).contains("cpu MHz\t\t: 2400.000\n"));
    let mut out = Vec::new();
    render(
        X86,
        &cpus("0", CpuIds::Physical),
        |_| Some(2_100_500),
        &mut out,
    );
    assert!(
        String::from_utf8(out)
            .unwrap()
            .contains("cpu MHz\t\t: 2100.500\n")
    );
    let amd = b"processor\t: 0\ncpu MHz\t\t: 1.0\nbogomips\t: 5192.24\n\n";
    assert!(text(amd, &cpus("0", CpuIds::Physical)).contains("cpu MHz\t\t: 2596.120\n"));
}

#[test]
fn arm64_blocks_are_cut_as_well() {
    let arm = b"processor\t: 0\nBogoMIPS\t: 50.00\nCPU part\t: 0xd0c\n\n\
        processor\t: 1\nBogoMIPS\t: 50.00\nCPU part\t: 0xd0c\n\n";
    assert_eq!(
        text(arm, &cpus("1", CpuIds::Physical)),
        "processor\t: 1\nBogoMIPS\t: 50.00\nCPU part\t: 0xd0c\n\n"
    );
}

#[test]
fn what_belongs_to_no_cpu_stays_but_the_serial_number() {
    let arm = b"processor\t: 0\nBogoMIPS\t: 38.40\n\nprocessor\t: 1\nBogoMIPS\t: 38.40\n\n\
        Hardware\t: BCM2835\nSerial\t\t: 00000000deadbeef\n";
    assert_eq!(
        text(arm, &cpus("0", CpuIds::Physical)),
        "processor\t: 0\nBogoMIPS\t: 38.40\n\nHardware\t: BCM2835\nSerial\t\t: 0000000000000000\n"
    );
}

#[test]
fn the_header_of_s390_counts_and_lists_what_is_visible() {
    let s390 = b"vendor_id       : IBM/S390\n# processors    : 2\n\
        processor 0: version = FF,  identification = 1\n\
        processor 1: version = FF,  identification = 1\n\ncpu number      : 0\ncpu MHz dynamic : 5200\n\n\
        cpu number      : 1\ncpu MHz dynamic : 5200\n\n";
    assert_eq!(
        text(s390, &cpus("1", CpuIds::Dense)),
        "vendor_id       : IBM/S390\n# processors    : 1\n\
        processor 0: version = FF,  identification = 1\n\ncpu number      : 0\ncpu MHz dynamic : 5200\n\n"
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = {
            let mut out = Vec::new();
            render(&bytes, &cpus("0-3", CpuIds::Physical), |_| None, &mut out);
            out
        };
    }
}
