//! Checks that the documents agree with the code: generated tables match the registry, and words are used as defined.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary")]

mod arrows;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use eci_fs_emulators::tunable::{Handler, Namespace, Policy, Tunable};
use eci_fs_emulators::{DIRECTORIES, EMULATORS, Pace, TUNABLES, tunable};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Replace what lies between the marks of `name`.
fn with_table(document: &str, name: &str, table: &str) -> String {
    let (begin, end) = (
        format!("<!-- begin: {name} -->\n"),
        format!("<!-- end: {name} -->"),
    );
    let start = document
        .find(&begin)
        .unwrap_or_else(|| panic!("no {begin}"))
        + begin.len();
    let stop = document.find(&end).unwrap_or_else(|| panic!("no {end}"));
    format!("{}{table}{}", &document[..start], &document[stop..])
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn views() -> String {
    let mut table = String::from(
        "| path | connection | source on v1 | source on v2 | invented |\n|---|---|---|---|---|\n",
    );
    let views = EMULATORS.iter().map(|emulator| emulator.facts());
    for facts in views.filter(|facts| tunable(facts.id).is_none()) {
        let connection = match (facts.mode & 0o222, facts.pace) {
            (0, Pace::Static) => "cached, static",
            // Its rows, one for each CPU, can exceed a page.
            (0, Pace::Ticking) if facts.path == "/proc/stat" => "cached; live with many CPUs",
            (0, Pace::Ticking) => "cached",
            _ => "live",
        };
        writeln!(
            table,
            "| {} | {connection} | {} | {} | {} |",
            facts.path,
            cell(facts.source_v1),
            cell(facts.source_v2),
            cell(facts.invented)
        )
        .unwrap();
    }
    table
}

fn directories() -> String {
    let mut table = String::from("| path | mode | computed in it |\n|---|---|---|\n");
    for directory in DIRECTORIES {
        let facts = directory.facts();
        let views = if directory.is_by_file() {
            format!(
                "not grafted itself, but file by file: {}",
                facts.views.join(", ")
            )
        } else if directory.is_namespaced() {
            "tunables of the next table; the rest is the kernel's own of the container's network namespace".to_owned()
        } else if !directory.kept().is_empty() {
            format!("empty but for {}", directory.kept().join(", "))
        } else if facts.views.is_empty() {
            "empty".to_owned()
        } else {
            facts.views.join(", ")
        };
        let views = match directory.is_for_all() {
            true => views,
            false => format!("{views}; not in a container that can measure CPUs"),
        };
        writeln!(
            table,
            "| {} | {:04o} | {} |",
            facts.path,
            facts.mode,
            cell(&views)
        )
        .unwrap();
    }
    table
}

fn tunables() -> String {
    let mut table = String::from("| path | takes | policy |\n|---|---|---|\n");
    for tunable in TUNABLES.iter().copied().flatten() {
        let range = |least: i128, most: i128, any: (i128, i128), bits: u32| match (least, most) {
            both if both == any => format!("a number of {bits} bits"),
            (least, most) => format!("{least} to {most}"),
        };
        let int = (i128::from(i32::MIN), i128::from(i32::MAX));
        let takes = match tunable.handler {
            Handler::Int { count, least, most } => {
                let one = range(least.into(), most.into(), int, 32);
                if count == 1 {
                    one
                } else {
                    format!("{count} times {one}")
                }
            }
            Handler::Ulong { least, most } => {
                range(least.into(), most.into(), (0, u64::MAX.into()), 64)
            }
            Handler::Checked { count: 1, .. } => "a power of two".to_owned(),
            Handler::Checked { .. } => {
                "two numbers, the first below the second, or the second 0".to_owned()
            }
            Handler::Qdisc => "the name of a queueing discipline".to_owned(),
            Handler::Buckets => "1 to 268435455, in whole pages of 512".to_owned(),
            Handler::ReadOnly => "nothing".to_owned(),
        };
        let takes = match tunable.capability {
            Some(capability) => format!("{takes}, from who has {capability}"),
            None => takes,
        };
        writeln!(
            table,
            "| {} | {takes} | {} |",
            tunable.path(),
            policy(tunable)
        )
        .unwrap();
    }
    table
}

fn policy(tunable: &Tunable) -> String {
    let policy = match tunable.policy {
        Policy::Private => "private".to_owned(),
        Policy::LimitedByPids => {
            "private; begins with the least of the machine's and of `min^ pids.max`".to_owned()
        }
        Policy::Raise(_) => {
            "private; a higher one can raise the machine's (docs/operating.md)".to_owned()
        }
        Policy::Constant(text) => format!("reads `{text}`, read-only"),
    };
    let policy = match tunable.in_network {
        true => format!("{policy}; where the network namespace lacks it"),
        false => policy,
    };
    match &tunable.namespaced {
        Some((Namespace::Pid, since)) => format!(
            "{policy}; from Linux {}.{} on no graft: the kernel keeps one for each pid namespace",
            since.0, since.1
        ),
        None => policy,
    }
}

#[test]
fn the_tables_of_views_are_what_the_registry_says() {
    let path = root().join("docs/semantics.md");
    let document = fs::read_to_string(&path).unwrap();
    let tables = [
        ("views", views()),
        ("directories", directories()),
        ("tunables", tunables()),
    ];
    let wanted = tables
        .iter()
        .fold(document.clone(), |document, (name, table)| {
            with_table(&document, name, table)
        });
    if std::env::var_os("ECI_FS_BLESS").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    assert!(
        document == wanted || std::env::var_os("ECI_FS_BLESS").is_some(),
        "docs/semantics.md is not what the registry says: ECI_FS_BLESS=1 cargo nextest run --test docs"
    );
}

/// The paths of the table of what tells about the host, each with the beginning of the cell that says what becomes of it.
fn told_of_the_host() -> Vec<(String, String)> {
    let document = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let table = document.split("<!-- begin: host -->\n").nth(1).unwrap();
    let table = table.split("<!-- end: host -->").next().unwrap();
    let rows = table.lines().skip(2).map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{row}");
        (cells[0], cells[2])
    });
    rows.flat_map(|(paths, here)| {
        let each = paths.split(", ");
        each.map(move |path| (path.to_owned(), here.to_owned()))
    })
    .collect()
}

#[test]
fn the_table_of_what_tells_about_the_host_says_of_each_entry_what_the_registry_does() {
    let files = EMULATORS.iter().map(|emulator| emulator.facts());
    let files = files.filter(|facts| tunable(facts.id).is_none());
    let directories = || {
        DIRECTORIES
            .iter()
            .filter(|directory| !directory.is_namespaced())
    };
    let registered: Vec<&str> = files
        .map(|facts| facts.path)
        .chain(directories().map(|directory| directory.facts().path))
        .collect();
    let rows = told_of_the_host();
    for path in &registered {
        let is_grafted =
            |(named, here): &&(String, String)| named == path && !here.starts_with("left");
        assert!(rows.iter().any(|row| is_grafted(&row)), "no row of {path}");
    }
    for (path, here) in &rows {
        let is_below = directories().any(|directory| {
            let facts = directory.facts();
            let below = path
                .strip_prefix(facts.path)
                .and_then(|rest| rest.strip_prefix('/'));
            below.is_some_and(|below| {
                let name = below.rsplit('/').next().unwrap_or(below);
                !directory.is_by_file() || facts.views.contains(&name)
            })
        });
        let is_registered = registered.contains(&path.as_str());
        let expected = match here.split([' ', ',', ':', ';']).next().unwrap_or_default() {
            "view" | "zeros" | "hidden" => is_registered || is_below,
            "passed" => is_below && !is_registered,
            "left" => !is_below && !is_registered,
            other => panic!("{path}: {other} is none of the words of the table"),
        };
        assert!(expected, "{path} is not {here}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = ["README.md", "CONTRIBUTING.md", "tests/README.md"]
        .map(|name| root().join(name))
        .to_vec();
    documents.extend(
        fs::read_dir(root().join("docs"))
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    for document in documents
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        let text = fs::read_to_string(document).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = document.parent().unwrap().join(file);
            assert!(target.exists(), "{} links to {file}", document.display());
        }
    }
}

/// The tests that go through most of the promises, by the letters that the table has for them.
const PROMISED: [(&str, &str); 3] = [
    (
        "R",
        "privileged_the_promises_of_isolation_hold_for_containers_of_runc",
    ),
    (
        "D",
        "privileged_the_promises_of_isolation_hold_for_containers_of_docker",
    ),
    (
        "P",
        "privileged_the_promises_of_isolation_hold_for_containers_of_podman",
    ),
];

#[test]
fn every_test_that_the_promises_of_isolation_name_is_there() {
    let document = fs::read_to_string(root().join("docs/isolation.md")).unwrap();
    let (_, promises) = document.split_once("\n## Promises").unwrap();
    let promises = promises.split("\n## ").next().unwrap();
    let mut files = Vec::new();
    for dir in ["tests", "src", "mountd"] {
        sources(&root().join(dir), &mut files);
    }
    let is_there = |name: &str| {
        let test = format!("fn {name}()");
        files.iter().any(|(_, text)| text.contains(&test))
    };
    for (letter, name) in PROMISED {
        assert!(promises.contains(&format!("- **{letter}** is `{name}`")));
        assert!(is_there(name), "{name}");
    }
    let (_, table) = promises.split_once("\n|---|---|---|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{row}");
        let (engines, holds) = (&cells[1..4], cells[4]);
        assert!(!holds.is_empty(), "{row}");
        let tests = |cell: &&str| !cell.starts_with("none: ");
        assert!(engines.iter().any(tests), "no test of any engine: {row}");
        for test in engines.iter().filter(|cell| tests(cell)) {
            for name in test.split(", ") {
                let is_letter = PROMISED.iter().any(|(letter, _)| *letter == name);
                assert!(is_letter || is_there(name.trim_matches('`')), "{name}");
            }
        }
        count += 1;
    }
    assert!(count > 20, "{count} promises");
}

#[test]
fn every_file_that_a_document_names_is_there() {
    for document in [
        "README.md",
        "CONTRIBUTING.md",
        "tests/README.md",
        "docs/architecture.md",
        "docs/security.md",
        "docs/semantics.md",
        "docs/operating.md",
        "docs/engines.md",
        "docs/isolation.md",
    ] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            let is_source = ["src/", "emulators/", "mountd/", "tests/", "benches/"]
                .iter()
                .any(|top| name.starts_with(top));
            if is_source && !name.contains(['{', '*', ' ']) {
                assert!(root().join(name).exists(), "{document} names {name}");
            }
        }
    }
}

fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

fn product() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for top in ["src", "emulators/src", "mountd/src", "mountd/protocol/src"] {
        sources(&root().join(top), &mut found);
    }
    found
}

#[test]
fn the_fuse_library_is_named_in_one_folder_only() {
    for (path, text) in product() {
        let inside = path.starts_with(root().join("src/server/fuse"));
        assert!(
            inside || !text.contains("fuser::"),
            "{} names the FUSE library",
            path.display()
        );
    }
}

#[test]
fn the_daemon_depends_on_neither_the_server_nor_the_emulators() {
    let manifest = fs::read_to_string(root().join("mountd/Cargo.toml")).unwrap();
    assert!(!manifest.contains("emulators") && !manifest.contains("fuser"));
}

#[test]
fn unsafe_code_is_where_the_architecture_says() {
    let allowed = [
        "src/server/fuse/session.rs",
        "src/server/sched_setattr.rs",
        "src/server/state/memory.rs",
        "src/vet/journal.rs",
        "src/cli/run/inherited.rs",
        "src/cli/sigpipe.rs",
        "src/isolation/mount_setattr.rs",
        "src/isolation/owned_namespace.rs",
        "src/isolation/sysctls_inside.rs",
        "mountd/src/connections/clone_device.rs",
        "mountd/src/container/pid_max.rs",
        "mountd/src/isolation/user_namespace.rs",
        "mountd/src/daemon/allocator.rs",
    ];
    for (path, text) in product() {
        let relative = path.strip_prefix(root()).unwrap();
        let named = allowed.iter().any(|file| relative == Path::new(file));
        let has = text
            .lines()
            .any(|line| line.contains("unsafe {") || line.contains("allow(unsafe_code"));
        assert!(!has || named, "{} has unsafe code", relative.display());
    }
}
