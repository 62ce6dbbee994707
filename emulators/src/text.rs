//! Parsers and formats for small pieces of text. No function does I/O, and none fails on any input.

use std::fmt::Arguments;
use std::io::Write;

/// Appends formatted text. A write to a `Vec` cannot fail.
pub fn put(out: &mut Vec<u8>, text: Arguments<'_>) {
    let _ = out.write_fmt(text);
}

/// Returns the lines of a file without their newlines, and without the empty rest after the last newline.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let empty = text.is_empty();
    body.split(|&byte| byte == b'\n').filter(move |_| !empty)
}

/// Returns the fields of a line, which spaces and tabs separate.
pub fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| byte.is_ascii_whitespace())
        .filter(|field| !field.is_empty())
}

/// Returns `text` without leading and trailing ASCII whitespace, or "" if it is not UTF-8. The files of the kernel
/// that are parsed here are ASCII.
pub fn trimmed(text: &[u8]) -> &str {
    std::str::from_utf8(text).unwrap_or("").trim_ascii()
}

/// Parses a decimal number, which consists of digits only. A number of more than 64 bits saturates. Returns `None`
/// for any other text.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for &byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value
            .saturating_mul(10)
            .saturating_add(u64::from(byte.saturating_sub(b'0')));
    }
    Some(value)
}

/// Appends a UUID as the kernel's `%pU` does: lower case, with dashes.
pub fn put_uuid(out: &mut Vec<u8>, uuid: &[u8; 16]) {
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        put(out, format_args!("{byte:02x}"));
    }
}

/// Returns the number of decimal digits; 0 has one.
pub fn digits(value: u64) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Returns the value of a key in a flat-keyed file, which has `key value` on each line (cgroup-v2.rst).
pub fn parse_key(text: &[u8], key: &str) -> Option<u64> {
    lines(text).find_map(|line| {
        let rest = line.strip_prefix(key.as_bytes())?.strip_prefix(b" ")?;
        parse_u64(rest)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_past_64_bits_saturate() {
        assert_eq!(parse_u64(b"18446744073709551615\n"), Some(u64::MAX));
        assert_eq!(parse_u64(b"99999999999999999999999"), Some(u64::MAX));
        assert_eq!(parse_u64(b""), None);
        assert_eq!(parse_u64(b"-1"), None);
        assert_eq!(parse_u64(b"max"), None);
    }

    #[test]
    fn lines_end_where_the_kernel_ends_them() {
        assert_eq!(lines(b"").count(), 0);
        assert_eq!(lines(b"\n").collect::<Vec<_>>(), [b""]);
        assert_eq!(
            lines(b"a\n\nb\n").collect::<Vec<_>>(),
            [&b"a"[..], b"", b"b"]
        );
    }

    #[test]
    fn a_key_is_matched_whole() {
        let text = b"file_mapped 7\nfile 5\nfile_dirty 9\n";
        assert_eq!(parse_key(text, "file"), Some(5));
        assert_eq!(parse_key(text, "fil"), None);
    }

    proptest! {
        #[test]
        fn a_number_is_read_back(value: u64) {
            let text = value.to_string();
            prop_assert_eq!(parse_u64(text.as_bytes()), Some(value));
            prop_assert_eq!(digits(value), text.len());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse_u64(&bytes);
            let _ = parse_key(&bytes, "key");
            let _ = lines(&bytes).flat_map(fields).count();
        }
    }
}
