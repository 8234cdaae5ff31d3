//! What the shared objects say about themselves: names, needs, binding.

mod common;

use common::abi;
use common::tools;
use common::vix;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

const MOUNT_FUNCTIONS: [&str; 15] = [
    "CloseDiskSet",
    "DismountVolume",
    "Exit",
    "FreeDiskSetInfo",
    "FreeOsInfo",
    "FreeVolumeHandles",
    "FreeVolumeInfo",
    "GetDiskSetInfo",
    "GetOsInfo",
    "GetVolumeHandles",
    "GetVolumeInfo",
    "Init",
    "MountVolume",
    "OpenDiskSet",
    "OpenDisks",
];

/// The words in brackets of dynamic entries of one kind.
fn dynamic(file: &Path, kind: &str) -> Vec<String> {
    let tag = format!("({kind})");
    let bracketed = |line: &String| {
        let value = line.split_once(&tag)?.1.trim();
        Some(value.split_once('[').map_or(value, |(_, rest)| rest.trim_end_matches(']')).to_owned())
    };
    abi::readelf(&["-d"], file).iter().filter_map(bracketed).collect()
}

fn assert_needs_only_the_c_library(file: &Path) {
    for needed in dynamic(file, "NEEDED") {
        let known = ["libc.so.", "libm.so.", "libgcc_s.so.", "ld-linux-"];
        assert!(known.iter().any(|start| needed.starts_with(start)), "needs {needed}");
    }
}

#[test]
fn exactly_the_agreed_functions_are_exported() {
    requires!("readelf");
    let golden =
        std::fs::read_to_string(abi::root().join("tests/golden/exports.txt")).expect("the golden list");
    let golden: Vec<&str> = golden.lines().collect();
    assert_eq!(golden.len(), 43);
    assert_eq!(abi::dynamic_symbols(&vix::library_path(), true), golden);
}

#[test]
fn the_library_binds_to_itself_and_is_never_unloaded() {
    requires!("readelf");
    let library = vix::library_path();
    assert_eq!(dynamic(&library, "SONAME"), ["libvixDiskLib.so.8"]);
    let flags = [dynamic(&library, "FLAGS"), dynamic(&library, "FLAGS_1")].concat().join(" ");
    for flag in ["SYMBOLIC", "BIND_NOW", "NODELETE"] {
        assert!(flags.split_whitespace().any(|word| word == flag), "{flag} is not in {flags}");
    }
    assert_eq!(dynamic(&library, "RPATH").len() + dynamic(&library, "RUNPATH").len(), 0);
    assert_eq!(dynamic(&library, "TEXTREL").len(), 0);
    assert_needs_only_the_c_library(&library);
}

#[test]
fn plain_names_of_hosts_are_not_imported() {
    requires!("readelf");
    // A host of cgo functions has these in its dynamic symbol table.
    let names = [
        "Init", "Connect", "Open", "Create", "Clone", "Cleanup", "GetInfo", "Read", "Write", "Close",
        "Attach",
    ];
    let wanted = abi::dynamic_symbols(&vix::library_path(), false);
    assert!(wanted.iter().any(|name| name == "pread64" || name == "pread" || name == "memcpy"), "{wanted:?}");
    assert!(wanted.iter().all(|name| !names.contains(&name.as_str()) && !name.starts_with("VixDiskLib_")));
}

#[test]
fn loading_runs_nothing_but_the_standard_librarys_own_start() {
    requires!("readelf");
    // std keeps the program's arguments; everything else would be ours or a dependency's.
    let sizes = |kind: &str| dynamic(&vix::library_path(), kind);
    assert!(sizes("INIT_ARRAYSZ").iter().all(|size| matches!(size.as_str(), "8 (bytes)" | "16 (bytes)")));
    assert!(sizes("PREINIT_ARRAYSZ").is_empty());
}

/// The mount library, built by the command that its source gives.
fn mount_library(folder: &Path) -> PathBuf {
    let file = folder.join("libvixMntapi.so.1.1.0");
    let cargo = PathBuf::from(std::env::var_os("CARGO").expect("set by cargo"));
    let rustc = cargo.with_file_name("rustc");
    tools::check(
        Command::new(if rustc.is_file() { rustc } else { "rustc".into() })
            .args(["--edition", "2024", "--crate-type", "cdylib", "--crate-name", "vixMntapi"])
            .args(["-C", "opt-level=3", "-C", "strip=symbols"])
            .args(
                ["soname,libvixMntapi.so.1", "z,defs", "Bsymbolic"]
                    .map(|arg| format!("-Clink-arg=-Wl,-{arg}")),
            )
            .arg("-o")
            .arg(&file)
            .arg("src/mntapi/lib.rs")
            .current_dir(abi::root()),
    );
    file
}

#[test]
fn the_mount_library_exports_its_functions_and_refuses_them_aloud() {
    requires!("readelf", "gcc");
    let folder = common::scratch::folder();
    let library = mount_library(folder.path());
    let expected: Vec<String> = MOUNT_FUNCTIONS.iter().map(|name| format!("VixMntapi_{name}")).collect();
    assert_eq!(abi::dynamic_symbols(&library, true), expected);
    assert_eq!(dynamic(&library, "SONAME"), ["libvixMntapi.so.1"]);
    assert_needs_only_the_c_library(&library);

    std::os::unix::fs::symlink(&library, folder.path().join("libvixMntapi.so.1")).expect("a link");
    let program = folder.path().join("mount");
    tools::check(
        Command::new("gcc")
            .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-I"])
            .arg(abi::root().join("include"))
            .arg(abi::root().join("tests/c/mount.c"))
            .arg(&library)
            .arg(format!("-Wl,-rpath,{}", folder.path().display()))
            .arg("-o")
            .arg(&program),
    );
    let outcome = tools::check(&mut Command::new(&program));
    assert_eq!(outcome.text(), "");
}
