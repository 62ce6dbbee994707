//! Parsers of numbers that are written to /proc/sys, as in the kernel (kernel/sysctl.c).

/// The size of the buffer of proc_get_long, for one number and the byte after it.
const TMPBUFLEN: usize = 22;

/// A number as proc_get_long returns it, with its sign apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) negative: bool,
    pub(super) magnitude: u64,
}

/// isspace of include/linux/ctype.h, which includes the no-break space of Latin-1.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0)
}

/// proc_skip_spaces.
pub(super) fn skip_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|byte| is_space(**byte)).count();
    text.get(spaces..).unwrap_or_default()
}

/// proc_get_long: returns one number and the rest, which begins with a space, tab or newline. Returns `None` where
/// the kernel returns EINVAL.
pub(super) fn get_long(text: &[u8]) -> Option<(Number, &[u8])> {
    let room = text.len().min(TMPBUFLEN.saturating_sub(1));
    let tmp = text.get(..room)?;
    let (negative, digits) = match tmp.split_first() {
        Some((b'-', more)) if text.len() > 1 => (true, more),
        _ => (false, tmp),
    };
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    let (magnitude, after) = strtoul_lenient(digits)?;
    // A number that fills the buffer may be longer.
    let length = tmp.len().saturating_sub(after.len());
    if length == TMPBUFLEN.saturating_sub(1) {
        return None;
    }
    let rest = text.get(length..)?;
    match rest.first() {
        Some(b' ' | b'\t' | b'\n') | None => Some((
            Number {
                negative,
                magnitude,
            },
            rest,
        )),
        Some(_) => None,
    }
}

/// strtoul_lenient: a number is octal after 0, hexadecimal after 0x, else decimal. Returns `None` if it has more than
/// 64 bits.
fn strtoul_lenient(text: &[u8]) -> Option<(u64, &[u8])> {
    let (base, mut rest) = match text {
        [b'0', b'x' | b'X', more @ ..] if more.first().is_some_and(u8::is_ascii_hexdigit) => {
            (16, more)
        }
        [b'0', ..] => (8, text),
        _ => (10, text),
    };
    let mut value = 0u64;
    while let Some((first, more)) = rest.split_first()
        && let Some(digit) = char::from(*first).to_digit(base)
    {
        value = value
            .checked_mul(u64::from(base))?
            .checked_add(u64::from(digit))?;
        rest = more;
    }
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Option<(i128, &str)> {
        let (number, rest) = get_long(text.as_bytes())?;
        let value = i128::from(number.magnitude) * if number.negative { -1 } else { 1 };
        Some((value, std::str::from_utf8(rest).unwrap()))
    }

    #[test]
    fn a_number_ends_at_a_space_a_tab_a_newline_or_the_end() {
        assert_eq!(number("5"), Some((5, "")));
        assert_eq!(number("5\n"), Some((5, "\n")));
        assert_eq!(number("5 6"), Some((5, " 6")));
        assert_eq!(number("-5\t6"), Some((-5, "\t6")));
        for wrong in [
            "", "-", "+5", "x", "5x", "5,6", "5\0", "5\r", "- 5", "--5", " 5",
        ] {
            assert_eq!(number(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn octal_and_hexadecimal_are_numbers() {
        assert_eq!(number("010"), Some((8, "")));
        assert_eq!(number("0x10"), Some((16, "")));
        assert_eq!(number("0XfF"), Some((255, "")));
        assert_eq!(number("0"), Some((0, "")));
        assert_eq!(number("08"), None);
        assert_eq!(number("0x"), None);
        assert_eq!(number("0xg"), None);
    }

    #[test]
    fn what_does_not_fit_is_no_number() {
        assert_eq!(
            number("18446744073709551615"),
            Some((i128::from(u64::MAX), ""))
        );
        assert_eq!(number("18446744073709551616"), None);
        // 20 digits after a zero fill the buffer.
        assert_eq!(number("000000000000000000005"), None);
        assert_eq!(number("00000000000000000005"), Some((5, "")));
    }
}
