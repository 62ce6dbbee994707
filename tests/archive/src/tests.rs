use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The text of each kind of entry.
const TEXT: &str = "\
cgroup/empty/
cgroup/tasks:
host/binary (escaped):
\tone\\x00two\\\\\\xff
\tno newline\\
host/lines:
\tfirst
\t
\t\tthird
host/newline:
\t
host/one = a line = of : signs -> \\x41
host/program (mode 0755):
\t#!/bin/sh
\ttrue
host/secret (mode 0400) = 1
host/sys/node -> ../../cgroup/empty
";

fn error(text: &str) -> String {
    format!("{:#}", Archive::parse(text).unwrap_err())
}

#[test]
fn each_kind_of_entry_is_read_and_written() {
    let archive = Archive::parse(TEXT).unwrap();
    assert_eq!(archive.to_string(), TEXT);
    let file = |path| archive.file(path).unwrap();
    assert_eq!(file("cgroup/tasks"), b"");
    assert_eq!(file("host/binary"), b"one\0two\\\xff\nno newline");
    assert_eq!(file("host/lines"), b"first\n\n\tthird\n");
    assert_eq!(file("host/newline"), b"\n");
    assert_eq!(file("host/one"), b"a line = of : signs -> \\x41\n");
    assert_eq!(file("host/program"), b"#!/bin/sh\ntrue\n");
    assert_eq!(archive.file("host/sys/node"), None);
    assert_eq!(archive.file("cgroup/empty"), None);
    assert_eq!(archive.file("host/none"), None);
}

#[test]
fn a_tree_is_the_same_after_unpacking_and_packing() {
    let dir = TempDir::new().unwrap();
    let archive = Archive::parse(TEXT).unwrap();
    archive.unpack(dir.path()).unwrap();
    assert_eq!(Archive::pack(dir.path()).unwrap(), archive);
    let mode = |path: &str| {
        let data = fs::metadata(dir.path().join(path)).unwrap();
        data.permissions().mode() & 0o7777
    };
    assert_eq!(mode("host/program"), 0o755);
    assert_eq!(mode("host/secret"), 0o400);
    assert!(dir.path().join("cgroup/empty").is_dir());
    // Nothing is written over.
    assert!(archive.unpack(dir.path()).is_err());
}

#[test]
fn a_temporary_tree_is_gone_with_its_value() {
    let archive = Archive::parse(TEXT).unwrap();
    let dir = archive.unpack_temporary().unwrap();
    let path = dir.path().to_owned();
    assert_eq!(Archive::pack(&path).unwrap(), archive);
    drop(dir);
    assert!(!path.exists());
}

#[test]
fn an_archive_is_written_in_place_and_the_order_is_that_of_the_paths() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("case.txt");
    let mut archive = Archive::default();
    archive.insert_file("b", "2\n").unwrap();
    archive.insert_file("a", "1\n").unwrap();
    archive.write(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "a = 1\nb = 2\n");
    let mut archive = Archive::read(&path).unwrap();
    archive.insert_file("b", "3\n").unwrap();
    archive.write(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "a = 1\nb = 3\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(archive.paths().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_path_that_leads_out_of_the_tree_is_refused() {
    for path in [
        "",
        "/etc/passwd",
        "..",
        "../a",
        "a/../../b",
        "a/..",
        "a//b",
        "a/",
        ".",
        "./a",
        "a b",
        "a\nb",
        "a\tb",
        "\u{e9}",
    ] {
        let refused = Archive::default().insert_file(path, "x\n");
        assert!(refused.is_err(), "{path:?}");
    }
    for text in [
        "/etc/passwd = x\n",
        "../a = x\n",
        "a/../../b:\n",
        "/:\n",
        "../\n",
        "/\n",
        ".. -> a\n",
    ] {
        assert!(
            error(text).starts_with("line 1: a path may"),
            "{text}: {}",
            error(text)
        );
    }
}

#[test]
fn a_link_that_leads_out_of_the_tree_is_refused() {
    for text in [
        "a -> /etc\n",
        "a -> ..\n",
        "a/b -> ../../c\n",
        "a/b -> c/../../../d\n",
        "a -> \n",
    ] {
        assert!(Archive::parse(text).is_err(), "{text}");
    }
    assert!(Archive::parse("a/b -> ../c\n").is_ok());
}

#[test]
fn nothing_is_below_what_is_no_directory() {
    assert_eq!(
        error("a -> b\na/c = x\n"),
        "line 2: a/c is below a, which is an entry itself"
    );
    assert_eq!(
        error("a/b/c = x\na/b -> d\n"),
        "line 2: a/b is the directory of a/b/c"
    );
    assert!(Archive::parse("a/\na/b = x\n").is_err());
    // A name that only begins alike is another one.
    assert!(Archive::parse("a = x\na.b/c = x\nab = x\n").is_ok());
}

#[test]
fn what_is_no_entry_is_refused_with_its_line() {
    for text in [
        "a = 1\n\n",
        "a = 1\nb\n",
        "a = 1\n\tcontent\n",
        "a = 1\n b = 2\n",
        "a = 1\na = 2\n",
        "a = 1\nb (mode 9) = 1\n",
        "a = 1\nb (mode 10000) = 1\n",
        "a = 1\nb (other):\n",
        "a = 1\nb (mode 0600:\n",
        "a = 1\nb (escaped) = x\n",
        "a = 1\nb (escaped):\n\t\\q\n",
        "a = 1\nb (escaped):\n\t\\x\u{20ac}\n",
        "a = 1\nb (escaped):\n\t\\x+1\n",
    ] {
        assert!(
            error(text).starts_with("line 2: "),
            "{text:?}: {}",
            error(text)
        );
    }
}

proptest! {
    #[test]
    fn any_content_is_read_as_it_was_written(
        files in proptest::collection::btree_map(
            "[!-.0-~]{1,8}",
            (proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\\'), any::<u8>()], 0..40), 0..=0o7777_u32),
            0..6,
        ),
    ) {
        let mut archive = Archive::default();
        let mut wanted = BTreeMap::new();
        for (name, (bytes, mode)) in files {
            let path = format!("dir/_{name}");
            archive.insert(&path, Entry::File { bytes: bytes.clone(), mode }).unwrap();
            wanted.insert(path, bytes);
        }
        let again = Archive::parse(&archive.to_string()).unwrap();
        prop_assert_eq!(&again, &archive);
        for (path, bytes) in wanted {
            prop_assert_eq!(again.file(&path), Some(&bytes[..]));
        }
    }
}
