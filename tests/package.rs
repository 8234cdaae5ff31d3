//! What `make` packs: the names programs look for, what is in the shared objects, and that a program builds against it.
#![allow(clippy::unwrap_used)] // a test may end where it stands

use std::path::Path;
use std::process::Command;

#[path = "common/tree.rs"]
mod tree;

use tree::have;
use tree::listing;
use tree::make;
use tree::run;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn the_tree() -> &'static Path {
    tree::tree("package-dist")
}

/// Every file below the tree and what it is.
fn expected_tree() -> Vec<(String, String)> {
    let library = format!("libvixDiskLib.so.{VERSION}");
    let mut expected: Vec<(String, String)> = Vec::new();
    for folder in ["doc", "examples", "include", "lib64", "lib64/pkgconfig"] {
        expected.push((folder.into(), "folder".into()));
    }
    for file in [
        "doc/CHANGELOG.md",
        "doc/LICENSE-APACHE",
        "doc/LICENSE-MIT",
        "doc/README.md",
        "doc/THIRD-PARTY.txt",
        "examples/Makefile",
        "examples/backup.c",
        "examples/blocks.h",
        "examples/changed_areas.py",
        "examples/inspect.cpp",
        "examples/say.h",
        "examples/sha256.h",
        "examples/vixdisklib.py",
        "include/vixDiskLib.h",
        "include/vixMntapi.h",
        "include/vm_basic_types.h",
        "lib64/libvixMntapi.so.1.1.0",
        "lib64/pkgconfig/vix-disklib.pc",
    ] {
        expected.push((file.into(), "file".into()));
    }
    expected.push((format!("lib64/{library}"), "file".into()));
    for end in ["", ".5", ".6", ".7", ".8", ".9"] {
        expected.push((format!("lib64/libvixDiskLib.so{end}"), format!("-> {library}")));
    }
    for end in ["", ".1"] {
        expected.push((format!("lib64/libvixMntapi.so{end}"), "-> libvixMntapi.so.1.1.0".into()));
    }
    expected.sort();
    expected
}

#[test]
fn the_tree_has_the_names_that_programs_look_for_and_nothing_else() {
    let found: Vec<_> = listing(the_tree()).into_iter().collect();
    assert_eq!(found, expected_tree());
}

/// The values of one kind of entry in the dynamic section, without brackets.
fn dynamic(library: &Path, tag: &str) -> Vec<String> {
    run(Command::new("readelf").arg("-dW").arg(library))
        .lines()
        .filter(|line| line.contains(&format!("({tag})")))
        .map(|line| match (line.find('['), line.rfind(']')) {
            (Some(open), Some(close)) => line[open + 1..close].to_owned(),
            _ => line.to_owned(),
        })
        .collect()
}

/// The names a shared object defines for others.
fn exports(library: &Path) -> Vec<String> {
    let mut names: Vec<_> = run(Command::new("readelf").args(["--dyn-syms", "-W"]).arg(library))
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [number, _, _, _, bind, _, section, name, ..] = fields.as_slice() else { return None };
            let defined =
                number.trim_end_matches(':').parse::<u32>().is_ok() && *bind != "LOCAL" && *section != "UND";
            defined.then(|| (*name).to_owned())
        })
        .collect();
    names.sort();
    names
}

#[test]
fn the_library_says_its_name_needs_only_libc_and_exports_only_its_interface() {
    if !have(&["readelf"]) {
        return;
    }
    let library = the_tree().join("lib64/libvixDiskLib.so");
    assert_eq!(dynamic(&library, "SONAME"), ["libvixDiskLib.so.8"]);
    for needed in dynamic(&library, "NEEDED") {
        let known = ["libc.so.6", "libm.so.6", "libgcc_s.so.1"];
        assert!(known.contains(&needed.as_str()) || needed.starts_with("ld-linux"), "needs {needed}");
    }
    for tag in ["RPATH", "RUNPATH", "TEXTREL"] {
        assert_eq!(dynamic(&library, tag), [""; 0], "{tag}");
    }
    let flags = dynamic(&library, "FLAGS").concat() + &dynamic(&library, "SYMBOLIC").concat();
    assert!(flags.contains("SYMBOLIC"), "a host's names would take the place of ours: {flags}");
    let exports = exports(&library);
    assert_eq!(exports.len(), 43, "{exports:?}");
    assert!(exports.iter().all(|name| name.starts_with("VixDiskLib_")), "{exports:?}");
}

#[test]
fn the_mount_library_says_its_name_and_exports_only_its_interface() {
    if !have(&["readelf"]) {
        return;
    }
    let library = the_tree().join("lib64/libvixMntapi.so");
    assert_eq!(dynamic(&library, "SONAME"), ["libvixMntapi.so.1"]);
    let exports = exports(&library);
    assert!(!exports.is_empty() && exports.iter().all(|name| name.starts_with("VixMntapi_")), "{exports:?}");
}

#[test]
fn the_libraries_are_small_stripped_and_free_of_paths_of_the_build_machine() {
    let home = std::env::var("HOME").unwrap_or_default();
    for (name, limit) in [("libvixDiskLib.so", 6 << 20), ("libvixMntapi.so", 1 << 20)] {
        let bytes = std::fs::read(the_tree().join("lib64").join(name)).unwrap();
        assert!(bytes.len() < limit, "{name} has {} bytes", bytes.len());
        let contains = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!contains(".symtab"), "{name} is not stripped");
        assert!(
            !contains(concat!(env!("CARGO_MANIFEST_DIR"), "/src/")),
            "{name} names the folder it was built in"
        );
        assert!(home.len() < 2 || !contains(&format!("{home}/.cargo")), "{name} names the builder's home");
    }
}

#[test]
fn every_linked_crate_has_its_notice() {
    let notices = std::fs::read_to_string(the_tree().join("doc/THIRD-PARTY.txt")).unwrap();
    for name in ["libc ", "libdeflate-sys ", "parking_lot ", "encoding_rs ", "Rust standard library"] {
        assert!(notices.contains(&format!("\n{name}")), "{name}");
    }
    assert!(!notices.contains("\ncbindgen "), "build tools are not part of the library");
}

/// Prints what the compiled-in interface and the loaded library say.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <vixDiskLib.h>
int main(int argc, char **argv)
{
    VixDiskLibConnection connection = NULL;
    VixDiskLibHandle disk = NULL;
    VixDiskLibInfo *info = NULL;
    VixError err = VixDiskLib_InitEx(7, 0, NULL, NULL, NULL, NULL, NULL);
    if (VIX_SUCCEEDED(err)) err = VixDiskLib_Connect(NULL, &connection);
    if (VIX_SUCCEEDED(err)) err = VixDiskLib_Open(connection, argv[argc - 1], VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk);
    if (VIX_SUCCEEDED(err)) err = VixDiskLib_GetInfo(disk, &info);
    if (VIX_SUCCEEDED(err)) printf("%llu\n", (unsigned long long)info->capacity);
    VixDiskLib_FreeInfo(info);
    VixDiskLib_Close(disk);
    VixDiskLib_Disconnect(connection);
    VixDiskLib_Exit();
    return VIX_FAILED(err);
}
"#;

/// Compiles [`PROGRAM`] with what pkg-config says about the tree at `prefix` and runs it on a disk.
fn build_and_run_against(prefix: &Path, scratch: &Path) {
    std::fs::write(scratch.join("program.c"), PROGRAM).unwrap();
    let flags = run(Command::new("pkg-config")
        .env("PKG_CONFIG_PATH", prefix.join("lib64/pkgconfig"))
        .args(["--cflags", "--libs", "vix-disklib"]));
    run(Command::new("cc")
        .current_dir(scratch)
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "program.c", "-o", "program"])
        .args(flags.split_whitespace()));
    let (_, disk, _) = tree::small_chain();
    let printed =
        run(Command::new(scratch.join("program")).env("LD_LIBRARY_PATH", prefix.join("lib64")).arg(disk));
    assert_eq!(printed.trim(), "1024");
    let version = run(Command::new("pkg-config")
        .env("PKG_CONFIG_PATH", prefix.join("lib64/pkgconfig"))
        .args(["--modversion", "vix-disklib"]));
    assert_eq!(version.trim(), VERSION);
}

#[test]
fn a_program_builds_and_runs_against_what_make_install_leaves() {
    if !have(&["cc", "pkg-config"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let prefix = scratch.path().join("prefix");
    run(make().arg("install").arg(format!("PREFIX={}", prefix.display())));
    build_and_run_against(&prefix, scratch.path());
}

#[test]
fn a_program_builds_and_runs_against_a_tree_that_was_moved() {
    if !have(&["cc", "pkg-config", "cp"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    run(Command::new("cp").arg("-a").arg(the_tree()).arg(scratch.path().join("elsewhere")));
    build_and_run_against(&scratch.path().join("elsewhere"), scratch.path());
}

#[test]
fn a_staged_install_stays_below_its_destination() {
    let scratch = tempfile::tempdir().unwrap();
    let destination = scratch.path().join("stage");
    run(make().arg("install").arg(format!("DESTDIR={}", destination.display())).arg("PREFIX=/opt/vix"));
    let found = listing(&destination);
    assert!(found.contains_key("opt/vix/lib64/libvixDiskLib.so.8"), "{found:?}");
    assert!(found.keys().all(|path| path == "opt" || path.starts_with("opt/vix")), "{found:?}");
    assert_eq!(listing(scratch.path()).keys().filter(|path| !path.contains('/')).count(), 1);
}

#[test]
fn the_tarball_is_the_tree_and_comes_out_the_same_twice() {
    if !have(&["tar", "gzip"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let tarball = || {
        run(make().arg("dist").arg(format!("DIST={}", scratch.path().display())));
        let name = listing(scratch.path()).into_keys().find(|name| name.ends_with(".tar.gz")).unwrap();
        std::fs::read(scratch.path().join(name)).unwrap()
    };
    let first = tarball();
    assert_eq!(first, tarball(), "two packings of one build differ");
    let archive = scratch.path().join("copy.tar.gz");
    std::fs::write(&archive, &first).unwrap();
    let unpacked = tempfile::tempdir().unwrap();
    run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(unpacked.path()));
    assert_eq!(
        listing(&unpacked.path().join("vmware-vix-disklib-distrib")).into_iter().collect::<Vec<_>>(),
        expected_tree()
    );
}
