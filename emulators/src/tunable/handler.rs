//! The kernel's handlers of sysctls as pure functions. A handler returns the new value and the answer to a write.
//!
//! A function that is named in a comment is the one in kernel/sysctl.c, with `sysctl_writes_strict` = 1, the default.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use rustix::io::Errno;

use super::Release;
use super::number::{Number, get_long, skip_spaces};
use super::{buckets, put_numbers, string};
use crate::text::fields;

/// The number of bytes of one write that the kernel reads: a page without its last byte.
const MOST_BYTES: usize = 4095;

/// The first version that refuses a negative number for an unsigned value. Earlier kernels ignore it.
const NEGATIVE_IS_REFUSED: Release = Release(6, 1);

/// The kernel's handler of a tunable.
#[derive(Debug, Clone, Copy)]
pub enum Handler {
    /// proc_dointvec and proc_dointvec_minmax: numbers of 32 bits with a sign.
    Int {
        /// The number of numbers.
        count: usize,
        /// The least value of each.
        least: i32,
        /// The most that can be written.
        most: i32,
    },
    /// proc_doulongvec_minmax: one number of 64 bits without a sign.
    Ulong {
        /// The least that can be written.
        least: u64,
        /// The most that can be written.
        most: u64,
    },
    /// proc_dointvec into a copy, which becomes the value if it passes a check of all numbers together.
    Checked {
        /// The number of numbers.
        count: usize,
        /// The check.
        check: fn(&[i32]) -> bool,
    },
    /// set_default_qdisc (net/core/sysctl_net_core.c): the name of a queueing discipline.
    Qdisc,
    /// nf_conntrack_set_hashsize (net/netfilter/nf_conntrack_core.c): buckets of a table, in whole pages.
    Buckets,
    /// The file cannot be written.
    ReadOnly,
}

/// The result of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The new value in the kernel's format, if the write has set one. A write that fails can set a part of a vector.
    pub value: Option<Vec<u8>>,
    /// The number of bytes that were written, or the errno.
    pub answer: Result<usize, Errno>,
}

impl Written {
    pub(super) fn nothing(answer: Result<usize, Errno>) -> Written {
        Written {
            value: None,
            answer,
        }
    }
}

impl Handler {
    /// Any number of 32 bits.
    pub const ANY_INT: Handler = Handler::int(i32::MIN, i32::MAX);

    /// Returns the handler of one number of 32 bits in a range.
    pub const fn int(least: i32, most: i32) -> Handler {
        Handler::Int {
            count: 1,
            least,
            most,
        }
    }

    /// Returns the handler of `count` numbers of 32 bits.
    pub const fn ints(count: usize) -> Handler {
        Handler::Int {
            count,
            least: i32::MIN,
            most: i32::MAX,
        }
    }

    /// Returns the handler of one number of 64 bits in a range.
    pub const fn ulong(least: u64, most: u64) -> Handler {
        Handler::Ulong { least, most }
    }

    /// Returns the result of a write of `bytes` at `offset` when the value is `present`.
    pub fn write(self, release: Release, present: &[u8], offset: u64, bytes: &[u8]) -> Written {
        if bytes.is_empty() {
            return Written::nothing(Ok(0));
        }
        match self {
            Handler::Qdisc => return string::write_qdisc(present, offset, bytes),
            Handler::Buckets => return buckets::write(bytes),
            _ => {}
        }
        // proc_first_pos_non_zero_ignore: only a write at the beginning counts. Others are answered and ignored.
        if offset != 0 {
            return Written::nothing(Ok(bytes.len()));
        }
        match self {
            Handler::Int { count, least, most } => ints(present, bytes, count, least..=most),
            Handler::Checked { count, check } => {
                let written = ints(present, bytes, count, i32::MIN..=i32::MAX);
                let passes = |value: &Vec<u8>| {
                    let numbers = fields(value)
                        .map(|field| std::str::from_utf8(field).ok()?.parse().ok())
                        .collect::<Option<Vec<i32>>>();
                    numbers.is_some_and(|numbers| check(&numbers))
                };
                match written.value.as_ref().is_none_or(passes) {
                    true => written,
                    false => Written::nothing(Err(Errno::INVAL)),
                }
            }
            Handler::Ulong { least, most } => vector(present, bytes, 1, |number| {
                if number.negative {
                    return (release < NEGATIVE_IS_REFUSED).then_some(None);
                }
                (least..=most)
                    .contains(&number.magnitude)
                    .then(|| Some(number.magnitude.to_string()))
            }),
            Handler::ReadOnly | Handler::Qdisc | Handler::Buckets => {
                Written::nothing(Err(Errno::PERM))
            }
        }
    }

    /// Returns the same handler with a least value of at least `bound`.
    pub(super) fn at_least(self, bound: i32) -> Handler {
        match self {
            Handler::Int { count, least, most } => Handler::Int {
                count,
                least: least.max(bound),
                most,
            },
            other => other,
        }
    }

    /// Returns the same handler with another most. A number that can be negative can be as far below zero.
    pub(super) fn at_most(self, most: u64) -> Handler {
        match self {
            Handler::Ulong { least, .. } => Handler::Ulong { least, most },
            Handler::Int { count, least, .. } => {
                let most = i32::try_from(most).unwrap_or(i32::MAX);
                Handler::Int {
                    count,
                    least: least.max(-most),
                    most,
                }
            }
            other => other,
        }
    }

    /// Returns whether `value` is the highest that can be written.
    pub(super) fn is_highest(self, value: &[u8]) -> bool {
        let most = match self {
            Handler::Int { most, .. } => most.to_string(),
            Handler::Ulong { most, .. } => most.to_string(),
            Handler::ReadOnly | Handler::Qdisc | Handler::Buckets | Handler::Checked { .. } => {
                return false;
            }
        };
        value.trim_ascii() == most.as_bytes()
    }

    /// Returns the same handler with the highest value as the only one.
    pub(super) fn only_highest(self) -> Handler {
        match self {
            Handler::Int { count, most, .. } => Handler::Int {
                count,
                least: most,
                most,
            },
            Handler::Ulong { most, .. } => Handler::Ulong { least: most, most },
            other => other,
        }
    }
}

/// Writes numbers of 32 bits, each in a range.
fn ints(present: &[u8], bytes: &[u8], count: usize, range: RangeInclusive<i32>) -> Written {
    vector(present, bytes, count, |number| {
        let magnitude = i64::try_from(number.magnitude).ok()?;
        let value = if number.negative {
            magnitude.checked_neg()?
        } else {
            magnitude
        };
        let value = i32::try_from(value)
            .ok()
            .filter(|value| range.contains(value))?;
        Some(Some(value.to_string()))
    })
}

/// __do_proc_dointvec and __do_proc_doulongvec_minmax: sets numbers one after the other, until there are no more or
/// one is wrong. `convert` returns the number to set, `Some(None)` to leave it as it is, or `None` for EINVAL.
fn vector(
    present: &[u8],
    bytes: &[u8],
    count: usize,
    convert: impl Fn(Number) -> Option<Option<String>>,
) -> Written {
    let mut numbers: Vec<Cow<'_, str>> = fields(present).map(String::from_utf8_lossy).collect();
    numbers.resize(count, Cow::Borrowed("0"));
    let mut left = bytes.get(..bytes.len().min(MOST_BYTES)).unwrap_or_default();
    let mut first = true;
    let mut wrong = false;
    let mut set = false;
    for number in &mut numbers {
        left = skip_spaces(left);
        if left.is_empty() {
            break;
        }
        let Some((found, rest)) = get_long(left) else {
            wrong = true;
            break;
        };
        left = rest;
        match convert(found) {
            None => {
                wrong = true;
                break;
            }
            Some(None) => {}
            Some(Some(value)) => {
                *number = Cow::Owned(value);
                set = true;
            }
        }
        first = false;
    }
    let answer = if wrong || first {
        Err(Errno::INVAL)
    } else {
        Ok(bytes.len().saturating_sub(skip_spaces(left).len()))
    };
    let value = set.then(|| {
        let mut out = Vec::new();
        put_numbers(&mut out, &numbers);
        out
    });
    Written { value, answer }
}

#[cfg(test)]
#[path = "handler_tests.rs"]
mod tests;
