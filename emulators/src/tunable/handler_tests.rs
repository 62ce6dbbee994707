//! The rules of the handlers by name. tests/vm compares the handlers with real kernels.

use proptest::prelude::*;

use super::*;

const NEW: Release = Release(6, 12);

fn value(written: &Written) -> Option<&str> {
    written
        .value
        .as_deref()
        .map(|value| std::str::from_utf8(value).unwrap())
}

/// Returns the result of one write to a tunable whose value is 7.
fn write(handler: Handler, bytes: &str) -> (Option<String>, Result<usize, Errno>) {
    let written = handler.write(NEW, b"7\n", 0, bytes.as_bytes());
    (value(&written).map(str::to_owned), written.answer)
}

fn set(value: &str, taken: usize) -> (Option<String>, Result<usize, Errno>) {
    (Some(value.to_owned()), Ok(taken))
}

const REFUSED: (Option<String>, Result<usize, Errno>) = (None, Err(Errno::INVAL));

#[test]
fn a_number_is_read_back_in_the_kernels_format() {
    for (text, wanted) in [
        ("5", "5\n"),
        ("5\n", "5\n"),
        ("  5\t\n\n", "5\n"),
        ("0x10\n", "16\n"),
        ("010\n", "8\n"),
        ("-0\n", "0\n"),
        ("-5\n", "-5\n"),
        ("-2147483648", "-2147483648\n"),
    ] {
        assert_eq!(
            write(Handler::ANY_INT, text),
            set(wanted, text.len()),
            "{text:?}"
        );
    }
}

#[test]
fn what_is_no_number_or_out_of_range_is_refused_and_changes_nothing() {
    for text in [
        "\n",
        " ",
        "x",
        "5x",
        "+5",
        "5\0",
        "2147483648",
        "-2147483649",
    ] {
        assert_eq!(write(Handler::ANY_INT, text), REFUSED, "{text:?}");
    }
    for text in ["-1", "3", "x", "99999999999999999999"] {
        assert_eq!(write(Handler::int(0, 2), text), REFUSED, "{text:?}");
    }
    assert_eq!(write(Handler::ulong(0, 9), "10"), REFUSED);
    assert_eq!(write(Handler::ulong(0, 9), "-1"), REFUSED);
}

#[test]
fn what_follows_the_number_is_left_to_the_next_write_which_is_forgotten() {
    assert_eq!(write(Handler::ANY_INT, "5 6\n"), set("5\n", 2));
    let written = Handler::ANY_INT.write(NEW, b"5\n", 2, b"6\n");
    assert_eq!((value(&written), written.answer), (None, Ok(2)));
    let written = Handler::ANY_INT.write(NEW, b"5\n", 1, b"nonsense");
    assert_eq!((value(&written), written.answer), (None, Ok(8)));
}

#[test]
fn a_vector_is_written_from_the_front_and_as_far_as_it_is_right() {
    let printk = |text: &str| {
        let written = Handler::ints(4).write(NEW, b"7\t4\t1\t7\n", 0, text.as_bytes());
        (value(&written).map(str::to_owned), written.answer)
    };
    assert_eq!(printk("3\n"), set("3\t4\t1\t7\n", 2));
    assert_eq!(printk("3 3 3 3\n"), set("3\t3\t3\t3\n", 8));
    assert_eq!(printk("1 2 3 4 5\n"), set("1\t2\t3\t4\n", 8));
    assert_eq!(
        printk("1 2 x\n"),
        (Some("1\t2\t1\t7\n".to_owned()), Err(Errno::INVAL))
    );
    assert_eq!(printk("x\n"), REFUSED);
}

#[test]
fn old_kernels_pass_over_a_negative_number_that_has_no_sign() {
    let written = Handler::ulong(0, 9).write(Release(5, 10), b"7\n", 0, b"-1\n");
    assert_eq!((value(&written), written.answer), (None, Ok(3)));
}

#[test]
fn nothing_but_the_highest_follows_the_highest() {
    let handler = Handler::int(0, 3);
    assert!(handler.is_highest(b"3\n") && !handler.is_highest(b"2\n"));
    assert_eq!(write(handler.only_highest(), "2"), REFUSED);
    assert_eq!(write(handler.only_highest(), "3"), set("3\n", 1));
}

#[test]
fn bytes_behind_a_page_are_taken_unseen() {
    let mut text = vec![b' '; 4095];
    text.extend_from_slice(b"5\n");
    let written = Handler::ANY_INT.write(NEW, b"7\n", 0, &text);
    assert_eq!(written.answer, Err(Errno::INVAL));
    let mut text = b"5 ".to_vec();
    text.resize(5000, b' ');
    let written = Handler::ANY_INT.write(NEW, b"7\n", 0, &text);
    assert_eq!((value(&written), written.answer), (Some("5\n"), Ok(5000)));
}

proptest! {
    #[test]
    fn every_number_in_range_is_read_back(number: i32) {
        let text = number.to_string();
        prop_assert_eq!(write(Handler::ANY_INT, &text), set(&format!("{number}\n"), text.len()));
    }

    #[test]
    fn any_bytes_are_taken_or_refused_and_a_value_is_canonical(bytes: Vec<u8>, offset in 0u64..3) {
        for handler in [Handler::int(0, 9), Handler::ints(4), Handler::ulong(1, 99)] {
            let written = handler.write(NEW, b"7\n", offset, &bytes);
            if let Ok(taken) = written.answer {
                prop_assert!(taken <= bytes.len());
            }
            if let Some(value) = &written.value {
                // A write of the present value changes nothing.
                let again = handler.write(NEW, value, 0, value);
                prop_assert_eq!(again.value.as_ref(), Some(value));
                prop_assert_eq!(again.answer, Ok(value.len()));
            }
        }
    }
}

#[test]
fn numbers_that_fail_a_check_together_change_nothing() {
    fn rising(numbers: &[i32]) -> bool {
        numbers.is_sorted()
    }
    let handler = Handler::Checked {
        count: 2,
        check: rising,
    };
    let write = |text: &[u8]| handler.write(Release(6, 1), b"3\t9\n", 0, text);
    assert_eq!(write(b"4").value.unwrap(), b"4\t9\n");
    assert_eq!(write(b"1 2").value.unwrap(), b"1\t2\n");
    for refused in [&b"10"[..], b"5 4", b"x"] {
        let written = write(refused);
        assert_eq!((written.value, written.answer), (None, Err(Errno::INVAL)));
    }
}

#[test]
fn a_most_of_the_machine_bounds_what_is_below_zero_too() {
    let handler = Handler::ANY_INT.at_most(100);
    let write = |text: &[u8]| handler.write(Release(6, 1), b"1\n", 0, text).answer;
    assert_eq!((write(b"100"), write(b"-100")), (Ok(3), Ok(4)));
    assert_eq!(
        (write(b"101"), write(b"-101")),
        (Err(Errno::INVAL), Err(Errno::INVAL))
    );
}
