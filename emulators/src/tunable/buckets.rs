//! nf_conntrack_set_hashsize. The parameter of a module is a file of sysfs, where each write is a whole value.

use rustix::io::Errno;

use super::Written;

/// The number of bytes of a bucket (struct hlist_nulls_head).
const BUCKET: u32 = 8;

/// The number of buckets in a page of the smallest size that Linux has.
const PAGE: u32 = 4096 / BUCKET;

/// Returns the result of a write of `bytes` at any offset.
pub(super) fn write(bytes: &[u8]) -> Written {
    match kstrtouint(bytes).and_then(rounded) {
        Ok(buckets) => Written {
            value: Some(format!("{buckets}\n").into()),
            answer: Ok(bytes.len()),
        },
        Err(errno) => Written::nothing(Err(errno)),
    }
}

/// nf_ct_alloc_hashtable: rounds to whole pages, and refuses more memory than one allocation may have (INT_MAX
/// bytes).
fn rounded(buckets: u32) -> Result<u32, Errno> {
    if buckets == 0 {
        return Err(Errno::INVAL);
    }
    buckets
        .checked_next_multiple_of(PAGE)
        .filter(|buckets| *buckets <= i32::MAX.unsigned_abs() / BUCKET)
        .ok_or(Errno::NOMEM)
}

/// kstrtouint with base 0: a number is octal after 0, hexadecimal after 0x, else decimal. One newline may follow.
fn kstrtouint(bytes: &[u8]) -> Result<u32, Errno> {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let (base, digits) = match text {
        [b'0', b'x' | b'X', rest @ ..] if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
            (16, rest)
        }
        [b'0', ..] => (8, text),
        _ => (10, text),
    };
    let mut value = Some(0u32);
    for digit in digits {
        let digit = char::from(*digit).to_digit(base).ok_or(Errno::INVAL)?;
        value = value.and_then(|value| value.checked_mul(base)?.checked_add(digit));
    }
    match digits {
        [] => Err(Errno::INVAL),
        _ => value.ok_or(Errno::RANGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_fill_whole_pages() {
        for (text, value) in [
            ("1", "512\n"),
            ("512\n", "512\n"),
            ("513", "1024\n"),
            ("0x401", "1536\n"),
            ("+010\n", "512\n"),
            ("7\0junk", "512\n"),
        ] {
            let written = write(text.as_bytes());
            assert_eq!(written.value.as_deref(), Some(value.as_bytes()), "{text}");
            assert_eq!(written.answer, Ok(text.len()));
        }
    }

    #[test]
    fn what_is_no_number_or_too_large_is_refused_as_the_kernel_does() {
        for (text, errno) in [
            ("0", Errno::INVAL),
            ("-1", Errno::INVAL),
            (" 1", Errno::INVAL),
            ("1 2", Errno::INVAL),
            ("1\n\n", Errno::INVAL),
            ("08", Errno::INVAL),
            ("0x", Errno::INVAL),
            ("x", Errno::INVAL),
            ("\n", Errno::INVAL),
            ("4294967296", Errno::RANGE),
            ("4294967295", Errno::NOMEM),
            ("268435456", Errno::NOMEM),
        ] {
            assert_eq!(write(text.as_bytes()).answer, Err(errno), "{text}");
        }
    }
}
