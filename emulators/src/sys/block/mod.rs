//! /sys/block: the statistics of block devices, which are grafted file by file.
//!
//! Format: part_stat_show and part_inflight_show, block/genhd.c; as many columns as the running kernel prints.
//! Virtual: the figures of /proc/diskstats, and zeros for a device that has no row there; the counters of SCSI devices and
//! of zram, which are 0.
//! Passed through: everything else of a device, by the kernel.
//! Invented: that nothing is in flight.
//!
//! /sys/block, /sys/class/block and /sys/dev/block are links to the directories of the devices below /sys/devices. A
//! mount lies on the file, so it is seen by every link.
//!
//! The directories are not grafted: programs in privileged containers write to what lies beside the statistics.

use crate::directory::{Decision, Directory, DirectoryFacts, hidden, join};
use crate::model::disks;
use crate::text::{fields, parse_u64, put};
use crate::{Context, Error, Host, Pace};

/// The statistics of block devices.
#[derive(Debug)]
pub struct Block;

/// The directory below which the devices are.
const PATH: &str = "/sys/devices";

/// The links to all disks and partitions.
const CLASS: &str = "/sys/class/block";

/// The files of each device that tell what it does.
const FILES: [&str; 2] = ["inflight", "stat"];

/// The counters that only zram has (drivers/block/zram/zram_drv.c): what it holds, which often is the swap of the host.
const ZRAM_FILES: [&str; 3] = ["bd_stat", "io_stat", "mm_stat"];

/// The files of the SCSI device that a disk belongs to, two directories above the disk (drivers/scsi/scsi_sysfs.c): the
/// requests to it in hexadecimal, which are the I/O of all containers.
const SCSI_FILES: [&str; 4] = ["iodone_cnt", "ioerr_cnt", "iorequest_cnt", "iotmo_cnt"];

/// Returns the directory of the SCSI device that a disk belongs to, if it is the disk of one.
fn scsi_device(disk: &str) -> Option<&str> {
    disk.rsplit_once("/block/").map(|(device, _)| device)
}

/// The most devices that are grafted: as many grafts take about 3 ms of an attach.
const MOST: usize = 128;

/// Returns the directory of the device with a name, relative to [`PATH`].
fn directory_of(host: &Host, name: &str) -> Option<String> {
    let target = host.read_link(&join(CLASS, name))?;
    Some(target.strip_prefix("../../devices/")?.to_owned())
}

/// Returns whether a relative path is the directory of a block device.
fn is_device(host: &Host, rel: &str) -> bool {
    let name = rel.rsplit_once('/').map_or(rel, |(_, name)| name);
    directory_of(host, name).as_deref() == Some(rel)
}

/// Returns the directories of the devices, hardware first: disks and partitions that have a size, and those that have done
/// I/O since the host was started. Others, such as a loop device without a file, have zeros.
///
/// If there are more than [`MOST`], those that come last keep the kernel's figures.
fn devices(host: &Host) -> Result<Vec<String>, Error> {
    let has_size = |dir: &String| {
        let size = host.read_once(&format!("{PATH}/{dir}/size")).ok();
        size.and_then(|size| parse_u64(&size)).unwrap_or(0) > 0
    };
    let has_done_io = |dir: &String| {
        let stat = host.read_once(&format!("{PATH}/{dir}/stat"));
        stat.is_ok_and(|stat| stat.iter().any(|byte| (b'1'..=b'9').contains(byte)))
    };
    let mut all: Vec<String> = host
        .names(CLASS)?
        .iter()
        .filter_map(|name| directory_of(host, name))
        .filter(|dir| has_size(dir) || has_done_io(dir))
        .collect();
    all.sort_by_key(|dir| dir.starts_with("virtual/"));
    all.truncate(MOST);
    Ok(all)
}

/// Returns the relative paths of the files of a device that are grafted.
fn files_of(host: &Host, device: &str) -> Vec<String> {
    let has = |path: &String| host.exists(&join(PATH, path));
    let mut files = FILES.map(|file| join(device, file)).to_vec();
    files.extend(
        ZRAM_FILES
            .map(|file| join(device, file))
            .into_iter()
            .filter(has),
    );
    if let Some(scsi) = scsi_device(device) {
        files.extend(
            SCSI_FILES
                .map(|file| join(scsi, file))
                .into_iter()
                .filter(has),
        );
    }
    files
}

/// Returns the directory and the name of a file, if a relative path is one of a device that is grafted.
fn file_of<'a>(host: &Host, rel: &'a str) -> Option<(&'a str, &'a str)> {
    let (directory, file) = rel.rsplit_once('/')?;
    let is_it = if SCSI_FILES.contains(&file) {
        host.is_directory(&format!("{PATH}/{directory}/block"))
    } else {
        (FILES.contains(&file) || ZRAM_FILES.contains(&file)) && is_device(host, directory)
    };
    is_it.then_some((directory, file))
}

impl Directory for Block {
    fn facts(&self) -> &DirectoryFacts {
        &DirectoryFacts {
            id: 139,
            path: PATH,
            mode: 0o755,
            views: &[
                "inflight",
                "stat",
                "bd_stat",
                "io_stat",
                "mm_stat",
                "iodone_cnt",
                "ioerr_cnt",
                "iorequest_cnt",
                "iotmo_cnt",
            ],
        }
    }

    /// Directories on the way to a device are walked to by the daemon alone, which clones the mounts of the files.
    fn entry(&self, cx: &Context<'_>, rel: &str) -> Result<Decision, Error> {
        // The directories below system have emulators of their own.
        let is_way = || rel != "system" && !rel.starts_with("system/");
        Ok(if file_of(cx.host, rel).is_some() {
            Decision::View {
                mode: 0o444,
                pace: Pace::Ticking,
            }
        } else if is_way() && cx.host.is_directory(join(PATH, rel).trim_end_matches('/')) {
            Decision::Made
        } else {
            Decision::Hidden
        })
    }

    fn names(&self, cx: &Context<'_>, rel: &str) -> Result<Vec<String>, Error> {
        let mut names: Vec<String> = self
            .single_files(cx)?
            .iter()
            .filter_map(|file| match rel {
                "" => Some(file.as_str()),
                _ => file.strip_prefix(rel)?.strip_prefix('/'),
            })
            .map(|rest| rest.split('/').next().unwrap_or(rest).to_owned())
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn render(&self, cx: &Context<'_>, rel: &str, out: &mut Vec<u8>) -> Result<(), Error> {
        let (device, file) = file_of(cx.host, rel).ok_or_else(|| hidden(rel))?;
        // The device may be gone by now.
        let kernels = cx.host.read_once(&join(PATH, rel))?;
        let columns = fields(&kernels).count();
        if SCSI_FILES.contains(&file) {
            out.extend_from_slice(b"0x0\n");
            return Ok(());
        }
        if file != "stat" {
            render_row(columns, |_| 0, out);
            return Ok(());
        }
        let number = cx.host.read_once(&format!("{PATH}/{device}/dev"));
        let number = number.ok().and_then(|text| parse_number(&text));
        let all = disks::read(cx)?;
        let io = all.iter().find(|io| Some(io.device) == number);
        render_row(
            columns,
            |column| io.map_or(0, |io| disks::figure(io, column)),
            out,
        );
        Ok(())
    }

    fn exists(&self, cx: &Context<'_>) -> bool {
        cx.host.is_directory(CLASS)
    }

    fn is_by_file(&self) -> bool {
        true
    }

    fn single_files(&self, cx: &Context<'_>) -> Result<Vec<String>, Error> {
        let mut files = Vec::new();
        for device in devices(cx.host)? {
            files.extend(files_of(cx.host, &device));
        }
        Ok(files)
    }
}

/// Appends numbers of at least eight columns, with a space between them and a newline at the end.
fn render_row(columns: usize, figure: impl Fn(usize) -> u64, out: &mut Vec<u8>) {
    for column in 0..columns {
        let space = if column > 0 { " " } else { "" };
        put(out, format_args!("{space}{:8}", figure(column)));
    }
    out.push(b'\n');
}

/// Parses the file `dev` of a device: "254:0".
fn parse_number(text: &[u8]) -> Option<(u64, u64)> {
    crate::cgroup::io::parse_device(fields(text).next()?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::{Cgroup, Container, Controller, Hierarchy, HierarchyCache, Settings, Version};

    /// Calls `check` for a host with these devices, each with its size, and a container that has used 8:0.
    fn with(devices: &[(&str, &str)], check: impl FnOnce(&Context<'_>)) {
        with_more(devices, &[], check);
    }

    /// The same, with these files below /sys/devices, each with its text.
    fn with_more(
        devices: &[(&str, &str)],
        files: &[(&str, &str)],
        check: impl FnOnce(&Context<'_>),
    ) {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path().join("sys");
        fs::create_dir_all(sys.join("class/block")).unwrap();
        for (index, (dir, size)) in devices.iter().enumerate() {
            let path = sys.join("devices").join(dir);
            fs::create_dir_all(&path).unwrap();
            let write = |name: &str, text: &str| fs::write(path.join(name), text).unwrap();
            write("size", &format!("{size}\n"));
            write("dev", &format!("8:{index}\n"));
            let stat = " 1918702    71018 79214578  2936232   809003   965951 361581432  3074790        0   364980  6199946   831705      273 282883288   167818   110287    21104\n";
            // A loop device that never had a file.
            let zeros = "0 ".repeat(17);
            write("stat", if *size == "0" { &zeros } else { stat });
            write("inflight", "       3        4\n");
            let name = path.file_name().unwrap();
            let link = sys.join("class/block").join(name);
            symlink(format!("../../devices/{dir}"), link).unwrap();
        }
        for (path, text) in files {
            fs::write(sys.join("devices").join(path), text).unwrap();
        }
        let cgroup = root.path().join("cgroup");
        fs::create_dir(&cgroup).unwrap();
        let io = "8:0 rbytes=1024 wbytes=4096 rios=1 wios=3 dbytes=512 dios=5\n";
        fs::write(cgroup.join("io.stat"), io).unwrap();
        let open = |path: &std::path::Path| fs::File::open(path).unwrap().into();
        let container = Container {
            cgroup: Cgroup::new(vec![Hierarchy {
                version: Version::V2,
                controllers: vec![Controller::Io],
                dir: open(&cgroup),
                depth: 1,
                cache: HierarchyCache::default(),
            }]),
            identity: Default::default(),
            history: Default::default(),
            tunables: Default::default(),
            can_measure_cpus: Default::default(),
        };
        let host = Host::from_dirs(open(root.path()), open(&sys));
        let settings = Settings::default();
        let cx = Context::new(&host, &container, &settings, Default::default()).with_cgroup();
        check(&cx);
    }

    const DEVICES: &[(&str, &str)] = &[
        ("pci0000:00/ata1/block/sda", "100"),
        ("pci0000:00/ata1/block/sda/sda1", "90"),
        ("virtual/block/loop0", "0"),
        ("virtual/block/dm-0", "50"),
    ];

    fn text(cx: &Context<'_>, rel: &str) -> String {
        let mut out = Vec::new();
        Block.render(cx, rel, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_device_that_has_done_io_has_files_also_without_a_size() {
        let devices = [("virtual/block/loop0", "0"), ("virtual/block/loop1", "0")];
        let stat = (
            "virtual/block/loop1/stat",
            "578 6 84420 572 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
        );
        with_more(&devices, &[stat], |cx| {
            assert_eq!(
                Block.single_files(cx).unwrap(),
                ["virtual/block/loop1/inflight", "virtual/block/loop1/stat",]
            );
        });
    }

    #[test]
    fn each_disk_and_each_partition_that_has_a_size_has_two_files() {
        with(DEVICES, |cx| {
            assert_eq!(
                Block.single_files(cx).unwrap(),
                [
                    "pci0000:00/ata1/block/sda/inflight",
                    "pci0000:00/ata1/block/sda/stat",
                    "pci0000:00/ata1/block/sda/sda1/inflight",
                    "pci0000:00/ata1/block/sda/sda1/stat",
                    "virtual/block/dm-0/inflight",
                    "virtual/block/dm-0/stat",
                ]
            );
            assert_eq!(Block.names(cx, "").unwrap(), ["pci0000:00", "virtual"]);
            let sda = Block.names(cx, "pci0000:00/ata1/block/sda").unwrap();
            assert_eq!(sda, ["inflight", "sda1", "stat"]);
            let kind = |rel: &str| Block.entry(cx, rel).unwrap();
            assert_eq!(kind("virtual/block"), Decision::Made);
            assert_eq!(kind("virtual/block/dm-0"), Decision::Made);
            for rel in [
                "virtual/block/dm-1/stat",
                "virtual/stat",
                "virtual/block/dm-0/size",
            ] {
                assert_eq!(kind(rel), Decision::Hidden, "{rel}");
            }
        });
    }

    #[test]
    fn a_disk_shows_what_the_container_did_and_others_show_zeros() {
        with(DEVICES, |cx| {
            assert_eq!(
                text(cx, "pci0000:00/ata1/block/sda/stat"),
                "       1        0        2        0        3        0        8        0        0        0        0        5        0        1        0        0        0\n"
            );
            let zeros = ["       0"; 17].join(" ") + "\n";
            assert_eq!(text(cx, "pci0000:00/ata1/block/sda/sda1/stat"), zeros);
            assert_eq!(text(cx, "virtual/block/dm-0/stat"), zeros);
            let inflight = text(cx, "pci0000:00/ata1/block/sda/inflight");
            assert_eq!(inflight, "       0        0\n");
        });
    }

    #[test]
    fn requests_to_scsi_devices_and_contents_of_zram_are_zeros() {
        let devices = [
            ("pci0/0:0:0:0/block/sda", "100"),
            ("virtual/block/zram0", "8"),
        ];
        let files = [
            ("pci0/0:0:0:0/iorequest_cnt", "0x1a2b\n"),
            ("pci0/0:0:0:0/iodone_cnt", "0x1a2a\n"),
            ("pci0/iorequest_cnt", "0x1\n"),
            (
                "virtual/block/zram0/mm_stat",
                "   73728       74    12288\n",
            ),
        ];
        with_more(&devices, &files, |cx| {
            assert_eq!(
                Block.single_files(cx).unwrap(),
                [
                    "pci0/0:0:0:0/block/sda/inflight",
                    "pci0/0:0:0:0/block/sda/stat",
                    "pci0/0:0:0:0/iodone_cnt",
                    "pci0/0:0:0:0/iorequest_cnt",
                    "virtual/block/zram0/inflight",
                    "virtual/block/zram0/stat",
                    "virtual/block/zram0/mm_stat",
                ]
            );
            assert_eq!(text(cx, "pci0/0:0:0:0/iorequest_cnt"), "0x0\n");
            let zeros = ["       0"; 3].join(" ") + "\n";
            assert_eq!(text(cx, "virtual/block/zram0/mm_stat"), zeros);
            let other = Block.entry(cx, "pci0/iorequest_cnt").unwrap();
            assert_eq!(other, Decision::Hidden);
        });
    }

    #[test]
    fn the_number_of_devices_is_bounded_and_hardware_comes_first() {
        let names: Vec<String> = (0..MOST)
            .map(|number| format!("virtual/block/loop{number}"))
            .chain(["pci0000:00/block/sda".to_owned()])
            .collect();
        let devices: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        with(&devices, |cx| {
            let files = Block.single_files(cx).unwrap();
            assert_eq!(files.len(), MOST * FILES.len());
            assert_eq!(files[0], "pci0000:00/block/sda/inflight");
        });
    }
}
