//! What clippy cannot see: the shape of the house.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nexus_tests::settings::workspace;

/// A room has at most this many lines, its unit tests included.
const LINES_MAX: usize = 400;

/// Rooms that are larger. The list only shrinks.
const LARGE_ROOMS: &[&str] = &[];

/// Who may use whom: a crate, and those of ours that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("events", &[]),
    ("projector", &["nexus-events"]),
    ("archiver", &["nexus-events", "nexus-projector"]),
    (
        "gateway",
        &["nexus-events", "nexus-projector", "nexus-archiver"],
    ),
];

fn rust_files() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for folder in [
        "events",
        "projector",
        "archiver",
        "gateway",
        "tests",
        "tests/fuzz",
    ] {
        for part in ["src", "integration", "fuzz_targets"] {
            let folder = workspace().join(folder).join(part);
            if folder.exists() {
                walk(&folder, &mut found);
            }
        }
    }
    assert!(found.len() > 50, "the sources were not found");
    found
}

fn name(path: &Path) -> String {
    let workspace = workspace();
    let relative = path.strip_prefix(&workspace).unwrap_or(path);
    relative.to_string_lossy().into_owned()
}

#[test]
fn every_room_is_small() {
    let mut large: Vec<String> = rust_files()
        .iter()
        .filter(|path| fs::read_to_string(path).unwrap().lines().count() > LINES_MAX)
        .map(|path| name(path))
        .collect();
    large.sort();
    assert_eq!(large, LARGE_ROOMS, "the list of large rooms only shrinks");
}

#[test]
fn modules_name_themselves() {
    let found: Vec<String> = rust_files()
        .iter()
        .filter(|path| path.ends_with("mod.rs"))
        .map(|path| name(path))
        .collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn open_ends_are_not_left_in_the_code() {
    // Spelled in two halves, so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("unimpl", "emented!"),
        concat!("#[ig", "nore"),
    ];
    let found: Vec<String> = rust_files()
        .iter()
        .filter(|path| {
            let text = fs::read_to_string(path).unwrap();
            marks.iter().any(|mark| text.contains(mark))
        })
        .map(|path| name(path))
        .collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn every_crate_keeps_the_lints_and_the_arrows_point_down() {
    for (folder, allowed) in ARROWS {
        let manifest = fs::read_to_string(workspace().join(folder).join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{folder} does not take the workspace's lints"
        );
        let ours: Vec<&str> = manifest
            .lines()
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|name| name.starts_with("nexus-") && *name != "nexus-tests")
            .collect();
        for dependency in ours {
            assert!(
                allowed.contains(&dependency),
                "{folder} may not use {dependency}"
            );
        }
    }
}
