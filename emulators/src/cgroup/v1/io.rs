//! The blkio controller of v1 (block/blk-throttle.c).

use crate::Error;
use crate::cgroup::Hierarchy;
use crate::cgroup::io::{DeviceIo, parse_device};
use crate::text::{fields, lines, parse_u64};

pub(crate) fn read_devices(hierarchy: &Hierarchy) -> Result<Vec<DeviceIo>, Error> {
    let mut devices = Vec::new();
    let file = "blkio.throttle.io_service_bytes_recursive";
    if let Some((level, bytes)) = hierarchy.read_nearest(file)? {
        let counts = hierarchy.read(level, "blkio.throttle.io_serviced_recursive")?;
        parse(&bytes, &mut devices, |io| {
            [
                &mut io.read_bytes,
                &mut io.written_bytes,
                &mut io.discarded_bytes,
            ]
        });
        parse(&counts.unwrap_or_default(), &mut devices, |io| {
            [&mut io.reads, &mut io.writes, &mut io.discards]
        });
    }
    Ok(devices)
}

/// Parses `8:0 Read 512` and so on for each device; the last line is `Total 1024`.
fn parse(
    text: &[u8],
    devices: &mut Vec<DeviceIo>,
    counters: impl Fn(&mut DeviceIo) -> [&mut u64; 3],
) {
    for line in lines(text) {
        let mut row = fields(line);
        let device = row.next().and_then(parse_device);
        let (Some(device), Some(operation)) = (device, row.next()) else {
            continue;
        };
        let value = row.next().and_then(parse_u64).unwrap_or(0);
        let index = devices
            .iter()
            .position(|io| io.device == device)
            .unwrap_or_else(|| {
                devices.push(DeviceIo {
                    device,
                    ..DeviceIo::default()
                });
                devices.len().saturating_sub(1)
            });
        let Some(io) = devices.get_mut(index) else {
            continue;
        };
        let [reads, writes, discards] = counters(io);
        match operation {
            b"Read" => *reads = value,
            b"Write" => *writes = value,
            b"Discard" => *discards = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn operations_of_a_device_are_one_row() {
        let text =
            b"8:0 Read 10\n8:0 Write 20\n8:0 Sync 5\n8:0 Discard 3\n8:0 Total 33\nTotal 33\n";
        let mut devices = Vec::new();
        parse(text, &mut devices, |io| {
            [&mut io.reads, &mut io.writes, &mut io.discards]
        });
        let io = DeviceIo {
            device: (8, 0),
            reads: 10,
            writes: 20,
            discards: 3,
            ..DeviceIo::default()
        };
        assert_eq!(devices, [io]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            parse(&bytes, &mut Vec::new(), |io| [&mut io.reads, &mut io.writes, &mut io.discards]);
        }
    }
}
