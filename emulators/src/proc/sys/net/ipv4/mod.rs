//! Views below /proc/sys/net/ipv4.
//!
//! The file `ping_group_range` is that of the container's network namespace. A range that ends at the highest group
//! there is, as systemd and podman write it, is EINVAL in a user namespace, which has not so many groups. So what a
//! container writes is cut to the groups that its user namespace has, before the kernel gets it.

pub mod neigh;
pub mod vs;

use rustix::io::Errno;

use crate::container::IdMap;
use crate::directory::{Converted, Decision, Directory, DirectoryFacts, hidden};
use crate::text::{fields, put};
use crate::tunable::Handler;
use crate::{Context, Error, Identity};

/// The files of /proc/sys/net/ipv4 that are grafted one by one.
#[derive(Debug)]
pub struct Ipv4;

const PATH: &str = "/proc/sys/net/ipv4";
const PING_GROUP_RANGE: &str = "ping_group_range";

/// ipv4_ping_group_range (net/ipv4/sysctl_net_ipv4.c): the first and the last group.
const HANDLER: Handler = Handler::Int {
    count: 2,
    least: 0,
    most: i32::MAX,
};

/// The range that the kernel sets when the first group is above the last: nobody's.
const NOBODY: (u32, u32) = (1, 0);

/// Returns the groups of the user namespace that owns the container's network namespace, if that is the container's.
fn groups(identity: &Identity) -> Option<&IdMap> {
    let groups = &identity.network.as_ref()?.groups;
    (!groups.is_empty()).then_some(groups)
}

impl Directory for Ipv4 {
    fn facts(&self) -> &DirectoryFacts {
        &DirectoryFacts {
            id: 141,
            path: PATH,
            mode: 0o555,
            views: &[PING_GROUP_RANGE],
        }
    }

    fn entry(&self, cx: &Context<'_>, rel: &str) -> Result<Decision, Error> {
        Ok(match rel {
            "" => Decision::Made,
            PING_GROUP_RANGE if groups(cx.identity()).is_some() => {
                Decision::Namespaced(format!("{PATH}/{PING_GROUP_RANGE}"))
            }
            _ => Decision::Hidden,
        })
    }

    fn names(&self, cx: &Context<'_>, rel: &str) -> Result<Vec<String>, Error> {
        match rel {
            "" => self.single_files(cx),
            _ => Err(hidden(rel)),
        }
    }

    fn render(&self, _cx: &Context<'_>, rel: &str, _out: &mut Vec<u8>) -> Result<(), Error> {
        Err(hidden(rel))
    }

    fn is_namespaced(&self) -> bool {
        true
    }

    fn is_by_file(&self) -> bool {
        true
    }

    fn single_files(&self, cx: &Context<'_>) -> Result<Vec<String>, Error> {
        let has_it = groups(cx.identity()).is_some();
        Ok(has_it
            .then(|| PING_GROUP_RANGE.to_owned())
            .into_iter()
            .collect())
    }

    fn exists(&self, cx: &Context<'_>) -> bool {
        groups(cx.identity()).is_some()
    }

    fn to_container(&self, cx: &Context<'_>, text: Vec<u8>) -> Vec<u8> {
        match (groups(cx.identity()), parse_range(&text)) {
            (Some(groups), Some((first, last))) => {
                print_range(groups.in_namespace(first), groups.in_namespace(last))
            }
            _ => text,
        }
    }

    fn to_kernel(
        &self,
        cx: &Context<'_>,
        present: &[u8],
        offset: u64,
        bytes: &[u8],
    ) -> Result<Converted, Errno> {
        let release = cx.host.release().map_err(|_| Errno::IO)?;
        let written = HANDLER.write(release, present, offset, bytes);
        let taken = written.answer?;
        let Some(value) = written.value else {
            return Ok(Converted { taken, bytes: None });
        };
        let groups = groups(cx.identity()).ok_or(Errno::INVAL)?;
        let (first, last) = parse_range(&value).ok_or(Errno::INVAL)?;
        let (first, last) = on_host(groups, first, last).ok_or(Errno::INVAL)?;
        Ok(Converted {
            taken,
            bytes: Some(print_range(first, last)),
        })
    }
}

/// Returns the range on the host of a range that a container has written, cut to the groups that it has. None if it has
/// none of these.
fn on_host(groups: &IdMap, first: u32, last: u32) -> Option<(u32, u32)> {
    if last < first {
        return Some(NOBODY);
    }
    let (first, last) = (groups.lowest_from(first)?, groups.highest_to(last)?);
    if last < first {
        return None;
    }
    let range = (groups.on_host(first)?, groups.on_host(last)?);
    Some(if range.1 < range.0 { NOBODY } else { range })
}

fn parse_range(text: &[u8]) -> Option<(u32, u32)> {
    let mut numbers = fields(text).map(|field| std::str::from_utf8(field).ok()?.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn print_range(first: u32, last: u32) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, format_args!("{first}\t{last}\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::IdRange;

    fn groups(ranges: &[(u32, u32, u32)]) -> IdMap {
        let range = |&(inside, outside, count)| IdRange {
            inside,
            outside,
            count,
        };
        IdMap::new(ranges.iter().map(range).collect())
    }

    #[test]
    fn a_range_is_cut_to_the_groups_of_the_namespace() {
        let one = groups(&[(0, 100_000, 65_536)]);
        for (written, host) in [
            ((0, 2_147_483_647), Some((100_000, 165_535))),
            ((5, 7), Some((100_005, 100_007))),
            ((65_535, 65_536), Some((165_535, 165_535))),
            ((65_536, 70_000), None),
            ((1, 0), Some(NOBODY)),
        ] {
            assert_eq!(on_host(&one, written.0, written.1), host, "{written:?}");
        }
    }

    #[test]
    fn a_range_over_several_parts_is_what_the_kernel_makes_of_its_ends() {
        let two = groups(&[(0, 1000, 1), (1, 200_000, 65_536)]);
        assert_eq!(on_host(&two, 0, 2_147_483_647), Some((1000, 265_535)));
        assert_eq!(on_host(&two, 1, 1), Some((200_000, 200_000)));
        // The host's number of the last is below that of the first.
        let turned = groups(&[(0, 5000, 10), (10, 1000, 10)]);
        assert_eq!(on_host(&turned, 0, 19), Some(NOBODY));
        // Between the parts is nobody.
        let gap = groups(&[(0, 1000, 10), (100, 2000, 10)]);
        assert_eq!(on_host(&gap, 20, 50), None);
        assert_eq!(on_host(&gap, 5, 50), Some((1005, 1009)));
    }

    #[test]
    fn groups_that_are_not_mapped_are_shown_as_the_kernel_shows_them() {
        let one = groups(&[(0, 100_000, 65_536)]);
        assert_eq!(one.in_namespace(100_005), 5);
        assert_eq!(one.in_namespace(1), 65_534);
        assert_eq!(one.in_namespace(165_536), 65_534);
        assert_eq!(IdMap::default().in_namespace(0), 65_534);
    }
}
