//! The arrows between the folders of the source. They are read from the paths in the code, compared with the intended
//! order, and drawn in docs/architecture.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use syn::visit::Visit;
use syn::{ItemMod, ItemUse, UseTree};

use crate::{root, sources, with_table};

/// One folder of sources, and the order of what lies in it. A name of one row may use names of the rows below it, and no
/// other.
struct Floor {
    /// The process whose code this is.
    title: &'static str,
    /// The folder, from the root of the repository.
    folder: &'static str,
    /// The crate, as Rust names it, and the module in it that the folder is.
    module: &'static str,
    /// The files and folders in it, from the top.
    rows: &'static [&'static [&'static str]],
}

const FLOORS: &[Floor] = &[
    Floor {
        title: "commands, and what engines call",
        folder: "src",
        module: "eci_fs",
        rows: &[
            &["main"],
            &["cli"],
            &["isolation"],
            &["oci", "server", "vet"],
            &["confinement"],
        ],
    },
    Floor {
        title: "isolation, in the process that becomes the runtime",
        folder: "src/isolation",
        module: "eci_fs::isolation",
        rows: &[
            &["root"],
            &["overlay"],
            &[
                "cgroups",
                "clones",
                "devices",
                "network",
                "pinned",
                "read_only_root",
                "system_calls",
                "time_namespace",
                "trials",
            ],
            &["policy", "restricted"],
            &["namespace"],
            &[
                "file_owner",
                "mount_setattr",
                "overlay_options",
                "owned_namespace",
                "place",
                "runtime_version",
                "streams",
                "sysctls",
                "sysctls_inside",
            ],
        ],
    },
    Floor {
        title: "the confined server",
        folder: "src/server",
        module: "eci_fs::server",
        rows: &[
            &["orphan"],
            &["start"],
            &["fuse", "sandbox"],
            &["fs"],
            &["psi", "host_sysctls"],
            &["container"],
            &["state"],
            &["ids", "broker", "workers"],
            &[
                "error",
                "clock",
                "faults",
                "in_flight",
                "progress",
                "budget",
                "account",
                "sched_setattr",
                "threads",
            ],
        ],
    },
    Floor {
        title: "the mount daemon",
        folder: "mountd/src",
        module: "eci_fs_mountd",
        rows: &[
            &["main"],
            &["daemon"],
            &["supervisor", "vet"],
            &["service_manager"],
            &["registry"],
            &["persistent_descriptors"],
            &["state_file"],
            &["grafts"],
            &["connections"],
            &["broker"],
            &["isolation"],
            &["host_sysctls"],
            &["config"],
            &["runtime_dir", "regular_file", "telemetry", "output"],
            &["container"],
            &["threads", "faults"],
        ],
    },
    Floor {
        title: "what the files say",
        folder: "emulators/src",
        module: "eci_fs_emulators",
        rows: &[
            &["registry"],
            &["proc", "sys"],
            &["directory"],
            &["emulator"],
            &["tunable"],
            &["model"],
            &["view"],
            &["facts"],
            &["context"],
            &["container"],
            &["cgroup"],
            &["host"],
            &["descriptor_cache"],
            &["limit_cache", "stall_cache"],
            &["buffer"],
            &["cpulist"],
            &["text"],
            &["error"],
        ],
    },
];

/// The crates, from the top. A crate may name those below it, and no other.
const CRATES: &[&str] = &[
    "eci_fs",
    "eci_fs_mountd",
    "eci_fs_emulators",
    "eci_fs_protocol",
];

/// Folders in which no two files may use each other, not even by way of others.
const WITHOUT_CIRCLES: &[(&str, &str)] = &[
    ("src/server/fs", "eci_fs::server::fs"),
    ("mountd/src/daemon", "eci_fs_mountd::daemon"),
];

/// An arrow: a file, and the module that it names, both as full paths of modules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    file: String,
    from: Vec<String>,
    to: Vec<String>,
}

/// Collects the paths that a file names outside of its tests.
struct Reader<'a> {
    /// The module that is read, with the crate first.
    at: Vec<String>,
    /// The names that the crate's root shows of its modules, and where they are.
    shown: &'a BTreeMap<String, Vec<String>>,
    found: BTreeSet<Vec<String>>,
}

impl Reader<'_> {
    /// Notes a path if it leads into a crate of the project.
    fn note(&mut self, path: &[String]) {
        let Some(first) = path.first() else { return };
        let mut full = match first.as_str() {
            "crate" => self.at[..1].to_vec(),
            "self" => self.at.clone(),
            "super" => self.at[..self.at.len() - 1].to_vec(),
            name if CRATES.contains(&name) => vec![name.to_owned()],
            _ => return,
        };
        for name in &path[1..] {
            match name.as_str() {
                "super" => drop(full.pop()),
                "self" => {}
                name => full.push(name.to_owned()),
            }
        }
        let shown = full.get(1).and_then(|name| self.shown.get(name));
        if full[0] == self.at[0]
            && let Some(shown) = shown
        {
            full.splice(0..2, shown.iter().cloned());
        }
        self.found.insert(full);
    }

    fn tree(&mut self, tree: &UseTree, before: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(&path.tree, before);
                before.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(tree, before);
                }
            }
            UseTree::Name(name) => self.leaf(&name.ident.to_string(), before),
            UseTree::Rename(name) => self.leaf(&name.ident.to_string(), before),
            UseTree::Glob(_) => self.note(before),
        }
    }

    fn leaf(&mut self, name: &str, before: &mut Vec<String>) {
        before.push(name.to_owned());
        self.note(before);
        before.pop();
    }
}

/// Returns whether something is compiled for tests only.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if is_test(&module.attrs) {
            return;
        }
        self.at.push(module.ident.to_string());
        syn::visit::visit_item_mod(self, module);
        self.at.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_test(&item.attrs) {
            self.tree(&item.tree, &mut Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if names.len() > 1 {
            self.note(&names);
        }
        syn::visit::visit_path(self, path);
    }
}

/// Returns the names that a crate's root shows of its modules, and where they are.
fn shown(name: &str) -> BTreeMap<String, Vec<String>> {
    let folder = match name {
        "eci_fs" => "src",
        "eci_fs_mountd" => "mountd/src",
        "eci_fs_emulators" => "emulators/src",
        _ => "mountd/protocol/src",
    };
    let text = fs::read_to_string(root().join(folder).join("lib.rs")).unwrap();
    let mut shown = BTreeMap::new();
    for item in syn::parse_file(&text).unwrap().items {
        let syn::Item::Use(item) = item else { continue };
        let mut reader = Reader {
            at: vec![name.to_owned()],
            shown: &BTreeMap::new(),
            found: BTreeSet::new(),
        };
        // In a root, a path that begins with the name of a module leads into that.
        reader.tree(&item.tree, &mut vec!["crate".to_owned()]);
        for path in reader.found.into_iter().filter(|path| path.len() > 2) {
            // A module and a function may have one name: it is the module that paths lead through.
            let name = path[path.len() - 1].clone();
            if !modules(folder).contains(&name) {
                shown.insert(name, path);
            }
        }
    }
    shown
}

/// Returns the arrows of all files below a folder that is a crate's or a module's.
fn arrows(folder: &str, module: &str) -> Vec<Arrow> {
    let shown_names = shown(module.split("::").next().unwrap());
    let top = root().join(folder);
    let mut files = Vec::new();
    sources(&top, &mut files);
    let mut arrows = Vec::new();
    for (path, text) in files {
        let relative = path.strip_prefix(&top).unwrap().with_extension("");
        let names: Vec<String> = relative
            .iter()
            .map(|name| name.to_str().unwrap().to_owned())
            .collect();
        let is_tests = |name: &String| name == "tests" || name.ends_with("_tests");
        if names.iter().any(is_tests) || names.first().is_some_and(|name| name == "bin") {
            continue;
        }
        let mut at: Vec<String> = module.split("::").map(str::to_owned).collect();
        at.extend(names);
        if matches!(at.last().map(String::as_str), Some("mod" | "lib")) {
            at.pop();
        }
        let file =
            syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut reader = Reader {
            at: at.clone(),
            shown: &shown_names,
            found: BTreeSet::new(),
        };
        reader.visit_file(&file);
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        arrows.extend(reader.found.into_iter().map(|to| Arrow {
            file: shown.clone(),
            from: at.clone(),
            to,
        }));
    }
    arrows
}

/// Returns the name in a module that a path leads to, if it leads there.
fn child<'a>(path: &'a [String], module: &str) -> Option<&'a str> {
    let names: Vec<&str> = module.split("::").collect();
    let leads = path.len() > names.len() && path.iter().zip(&names).all(|(a, b)| a == b);
    leads.then(|| path[names.len()].as_str())
}

/// Returns the names of the modules in a folder.
fn modules(folder: &str) -> BTreeSet<String> {
    fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() || path.extension().is_some_and(|e| e == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !matches!(name.as_str(), "mod" | "lib" | "bin" | "tests"))
        .filter(|name| !name.ends_with("_tests"))
        .collect()
}

/// Returns the arrows between the modules in a folder: who uses whom, and by which file.
fn between(folder: &str, module: &str) -> BTreeMap<(String, String), String> {
    let modules = modules(folder);
    let mut found = BTreeMap::new();
    for arrow in arrows(folder, module) {
        let Some(from) = child(&arrow.from, module) else {
            continue;
        };
        let Some(to) = child(&arrow.to, module) else {
            continue;
        };
        if from != to && modules.contains(to) {
            found.insert((from.to_owned(), to.to_owned()), arrow.file);
        }
    }
    found
}

#[test]
fn no_arrow_between_folders_runs_back() {
    let mut wrong = String::new();
    for floor in FLOORS {
        let row = |name: &str| floor.rows.iter().position(|row| row.contains(&name));
        let named: BTreeSet<String> = floor
            .rows
            .iter()
            .flat_map(|row| row.iter().map(|name| (*name).to_owned()))
            .collect();
        assert_eq!(
            modules(floor.folder),
            named,
            "{}: what is there, and what has a place in FLOORS",
            floor.folder
        );
        for ((from, to), file) in between(floor.folder, floor.module) {
            if row(&from) >= row(&to) {
                writeln!(wrong, "{file}: {from} uses {to}, which is not below it").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn crates_name_only_those_below_them() {
    let folders = [
        ("src", "eci_fs"),
        ("mountd/src", "eci_fs_mountd"),
        ("emulators/src", "eci_fs_emulators"),
        ("mountd/protocol/src", "eci_fs_protocol"),
    ];
    for (folder, name) in folders {
        let rank = |name: &str| CRATES.iter().position(|other| *other == name);
        for arrow in arrows(folder, name) {
            let to = arrow.to[0].as_str();
            assert!(
                to == name || rank(name) < rank(to),
                "{} names {to}",
                arrow.file
            );
        }
    }
    // The server is not told how the daemon works, and the daemon not what the views say.
    for (folder, module, other) in [
        ("src/server", "eci_fs::server", "eci_fs_mountd"),
        ("mountd/src", "eci_fs_mountd", "eci_fs_emulators"),
    ] {
        for arrow in arrows(folder, module) {
            assert_ne!(arrow.to[0], other, "{} names it", arrow.file);
        }
    }
}

#[test]
fn files_of_one_folder_do_not_run_in_circles() {
    for (folder, module) in WITHOUT_CIRCLES {
        let mut left = between(folder, module);
        // What uses nothing that is left goes, until there is nothing, or circles.
        loop {
            let users: BTreeSet<String> = left.keys().map(|(from, _)| from.clone()).collect();
            let before = left.len();
            left.retain(|(_, to), _| users.contains(to));
            if left.len() == before {
                break;
            }
        }
        assert!(left.is_empty(), "{folder}: circles in {left:#?}");
    }
}

/// Two views that share something have it in `model`.
#[test]
fn no_view_uses_a_view_beside_or_above_it() {
    let is_view = |path: &[String]| {
        let name = child(path, "eci_fs_emulators");
        matches!(name, Some("proc" | "sys"))
    };
    let mut checked = 0;
    for arrow in arrows("emulators/src", "eci_fs_emulators") {
        if is_view(&arrow.from) {
            let beside = is_view(&arrow.to) && !arrow.to.starts_with(&arrow.from);
            assert!(!beside, "{} uses {}", arrow.file, arrow.to.join("::"));
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked}");
}

/// Returns the picture: for each folder its rows from the top, and what each name in them uses.
fn picture() -> String {
    let mut picture = String::from("```text\n");
    for (index, floor) in FLOORS.iter().enumerate() {
        if index > 0 {
            picture.push('\n');
        }
        writeln!(picture, "{}  ({})", floor.folder, floor.title).unwrap();
        let arrows = between(floor.folder, floor.module);
        let width = floor
            .rows
            .iter()
            .flat_map(|row| row.iter())
            .map(|name| name.len());
        let width = width.max().unwrap_or(0);
        for (index, row) in floor.rows.iter().enumerate() {
            for name in *row {
                let used: Vec<&str> = arrows
                    .keys()
                    .filter(|(from, _)| from == name)
                    .map(|(_, to)| to.as_str())
                    .collect();
                let arrow = if used.is_empty() { "" } else { " -> " };
                let line = format!("{:2}  {name:width$}{arrow}{}", index + 1, used.join(", "));
                writeln!(picture, "{}", line.trim_end()).unwrap();
            }
        }
    }
    picture.push_str("```\n");
    picture
}

#[test]
fn the_picture_of_the_folders_is_what_the_code_says() {
    let path = root().join("docs/architecture.md");
    let document = fs::read_to_string(&path).unwrap();
    let wanted = with_table(&document, "folders", &picture());
    let bless = std::env::var_os("ECI_FS_BLESS").is_some();
    if bless {
        fs::write(Path::new(&path), &wanted).unwrap();
    }
    assert!(
        document == wanted || bless,
        "docs/architecture.md is not what the code says: ECI_FS_BLESS=1 cargo nextest run --test docs"
    );
}
