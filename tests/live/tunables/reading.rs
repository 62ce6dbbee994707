//! Readers of a tunable whose length has changed.

use super::{PANIC, scene, start};

#[test]
fn privileged_a_tunable_is_read_a_byte_at_a_time() {
    let scene = scene();
    let mut container = start(&scene);
    container.ask(&["write", PANIC, "1234567"]);
    let bytes = container.busybox(&["dd", "bs=1", "status=none", &format!("if={PANIC}")]);
    assert_eq!(bytes, "1234567\n");
}

#[test]
fn privileged_what_is_written_is_whole_for_a_reader_that_copies_as_much_as_it_was_told() {
    let scene = scene();
    let mut container = start(&scene);
    // busybox has the kernel copy (sendfile), which stops at the size that it knows.
    for number in [1, 1_234_567, 12, 123_456_789, 1234] {
        container.ask(&["write", PANIC, &number.to_string()]);
        let text = container.busybox(&["cat", PANIC]);
        assert_eq!(text, format!("{number}\n"));
    }
}

#[test]
fn privileged_a_size_that_a_write_has_changed_is_not_believed_any_more() {
    let scene = scene();
    let mut container = start(&scene);
    // Shorter, longer, and other than what was written: right after one another, so that the kernel believes sizes.
    let written = [
        "1\n", "22\n", "  333\n", "4", "0x10", "12345678", "5\n", "6\n", "070",
    ];
    let wanted = ["1", "22", "333", "4", "16", "12345678", "5", "6", "56"];
    for _ in 0..20 {
        let command = [&["write-and-copy", PANIC], &written[..]].concat();
        let copied = container.ask(&command);
        let wanted: Vec<String> = wanted.iter().map(|number| format!("{number}\n")).collect();
        assert_eq!(copied, serde_json::json!(wanted));
    }
}
