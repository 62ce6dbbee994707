//! The io controller of v2 (block/blk-cgroup.c).

use crate::Error;
use crate::cgroup::Hierarchy;
use crate::cgroup::io::{DeviceIo, parse_device};
use crate::text::{fields, lines, parse_u64};

pub(crate) fn read_devices(hierarchy: &Hierarchy) -> Result<Vec<DeviceIo>, Error> {
    let text = hierarchy.read_nearest("io.stat")?;
    Ok(text.map_or_else(Vec::new, |(_, text)| parse(&text)))
}

/// Parses `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`. Other policies add more keys.
fn parse(text: &[u8]) -> Vec<DeviceIo> {
    let line = |line| {
        let mut row = fields(line);
        let mut io = DeviceIo {
            device: parse_device(row.next()?)?,
            ..DeviceIo::default()
        };
        for field in row {
            let equals = field.iter().position(|&byte| byte == b'=')?;
            let value = field
                .get(equals.checked_add(1)?..)
                .and_then(parse_u64)
                .unwrap_or(0);
            match field.get(..equals)? {
                b"rbytes" => io.read_bytes = value,
                b"wbytes" => io.written_bytes = value,
                b"rios" => io.reads = value,
                b"wios" => io.writes = value,
                b"dbytes" => io.discarded_bytes = value,
                b"dios" => io.discards = value,
                _ => {}
            }
        }
        Some(io)
    };
    lines(text).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_a_device_and_its_counters() {
        let text = b"254:0 rbytes=512 wbytes=2 rios=48 wios=4 dbytes=5 dios=6 cost.usage=7\n8:0 \n";
        let io = DeviceIo {
            device: (254, 0),
            reads: 48,
            read_bytes: 512,
            writes: 4,
            written_bytes: 2,
            discards: 6,
            discarded_bytes: 5,
        };
        assert_eq!(parse(text)[0], io);
        assert_eq!(
            parse(text)[1],
            DeviceIo {
                device: (8, 0),
                ..DeviceIo::default()
            }
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }
}
