//! The README's recipes, run as they are printed, and the demonstration.
//!
//! A fence below a line `<!-- tested: NAME -->` belongs to the test that takes NAME; the variables that the README explains
//! are set to a tree as `make dist` leaves it and to a chain of two disks whose content is known.
#![allow(clippy::unwrap_used)] // a test may end where it stands

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use sha2::Digest;
use sha2::Sha256;

#[path = "common/tree.rs"]
mod tree;

use tree::have;
use tree::project;
use tree::run;
use tree::skipped;

/// The marked fences by name.
fn recipes() -> BTreeMap<String, String> {
    let readme = std::fs::read_to_string(project().join("README.md")).unwrap();
    let mut found = BTreeMap::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("<!-- tested: ").and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        assert!(lines.next().is_some_and(|fence| fence.starts_with("```")), "{name} marks no fence");
        let body: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        assert!(found.insert(name.to_owned(), body.join("\n") + "\n").is_none(), "{name} stands twice");
    }
    found
}

fn recipe(name: &str) -> String {
    recipes().remove(name).unwrap_or_else(|| panic!("the README has no recipe {name}"))
}

/// A folder with the disk, and the README's variables.
struct Scene {
    scratch: tempfile::TempDir,
    disk: PathBuf,
    hash: String,
    plugin: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let (folder, child, hash) = tree::small_chain();
        let scratch = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, scratch.path().join(path.file_name().unwrap())).unwrap();
        }
        let disk = scratch.path().join(child.file_name().unwrap());
        let fetched = || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
        let peers = std::env::var_os("VIX_PEERS").map_or_else(fetched, PathBuf::from);
        let plugin = peers.join("nbdkit-1.42/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-vddk-plugin.so");
        Self { scratch, disk, hash, plugin }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Runs shell text in the folder, with the variables set.
    fn shell(&self, text: &str) -> String {
        run(Command::new("bash")
            .current_dir(self.scratch.path())
            .args(["-euo", "pipefail", "-c", text])
            .env("VDDK", tree::tree("readme-dist"))
            .env("DISK", &self.disk)
            .env("PLUGIN", &self.plugin))
    }

    fn hash_of(&self, name: &str) -> String {
        let digest = Sha256::digest(std::fs::read(self.path(name)).unwrap());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[test]
fn every_marked_recipe_has_a_test() {
    let names: Vec<_> = recipes().into_keys().collect();
    let tested = [
        "c",
        "c-build",
        "examples",
        "nbd-server",
        "nbdkit",
        "nbdkit-create",
        "python-module",
        "python-program",
    ];
    assert_eq!(names, tested);
}

#[test]
fn every_file_the_documents_name_exists() {
    for document in ["README.md", "CONTRIBUTING.md", "docs/vsphere.md", "tests/data/README.md"] {
        let text = std::fs::read_to_string(project().join(document)).unwrap();
        for word in text.split('`').skip(1).step_by(2) {
            let top = ["tests/", "examples/", "scripts/", "include/", "src/", "LICENSE-", ".ci/"];
            if top.iter().any(|start| word.starts_with(start)) && !word.contains(' ') {
                assert!(project().join(word).exists(), "{document} names {word}");
            }
        }
    }
}

#[test]
fn the_nbdkit_recipes_copy_the_disk_and_make_one() {
    if !have(&["nbdkit", "nbdinfo", "nbdcopy", "qemu-img"]) {
        return;
    }
    let scene = Scene::new();
    if !scene.plugin.exists() {
        skipped("nbdkit's vddk plugin is not there, scripts/fetch-nbdkit-plugins.sh gets it");
        return;
    }
    scene.shell(&recipe("nbdkit"));
    assert_eq!(scene.hash_of("disk.raw"), scene.hash);
    scene.shell("qemu-img compare -f raw -F qcow2 disk.raw disk.qcow2");
    scene.shell(&recipe("nbdkit-create"));
    scene.shell("qemu-img check -f vmdk new.vmdk && qemu-img convert -f vmdk -O raw new.vmdk new.raw");
    scene.shell("test $(stat -c %s new.raw) = 67108864 && cmp -n 524288 disk.raw new.raw");
}

#[test]
fn the_recipe_for_a_kvm_disk_copies_it() {
    if !have(&["nbdkit", "nbdcopy", "qemu-img", "qemu-nbd", "python3"]) {
        return;
    }
    let scene = Scene::new();
    if !scene.plugin.exists() {
        skipped("nbdkit's vddk plugin is not there, scripts/fetch-nbdkit-plugins.sh gets it");
        return;
    }
    scene.shell("qemu-img convert -f vmdk -O qcow2 $DISK kvm.qcow2");
    let printed = scene.shell(&recipe("nbd-server"));
    assert_eq!(scene.hash_of("kvm.raw"), scene.hash);
    assert!(printed.lines().count() > 0, "{printed}");
}

#[test]
fn the_python_recipes_tell_what_the_disk_is() {
    if !have(&["python3", "od"]) {
        return;
    }
    let scene = Scene::new();
    let printed = scene.shell(&recipe("python-program"));
    assert!(printed.contains("1024 sectors") && printed.contains("adapterType = lsilogic"), "{printed}");
    std::fs::write(scene.path("module.py"), recipe("python-module")).unwrap();
    let printed = scene.shell("python3 module.py");
    assert!(printed.starts_with("1024 sectors in 2 links\n"), "{printed}");
    scene.shell("python3 $VDDK/examples/vixdisklib.py cat $DISK > cat.raw");
    assert_eq!(scene.hash_of("cat.raw"), scene.hash);
}

#[test]
fn the_python_program_writes_what_it_reads_from_its_input() {
    if !have(&["python3", "qemu-img"]) {
        return;
    }
    let scene = Scene::new();
    scene.shell(
        "qemu-img create -q -f vmdk new.vmdk 4M && head -c 65536 /dev/urandom >part
         python3 $VDDK/examples/vixdisklib.py put new.vmdk --start 2048 <part
         qemu-img convert -f vmdk -O raw new.vmdk new.raw
         cmp -n 65536 -i 1048576:0 new.raw part
         ! head -c 100 part | python3 $VDDK/examples/vixdisklib.py put new.vmdk 2>/dev/null",
    );
}

#[test]
fn a_missing_disk_makes_the_python_program_fail_with_the_code() {
    if !have(&["python3"]) {
        return;
    }
    let scene = Scene::new();
    let said = scene.shell("! python3 $VDDK/examples/vixdisklib.py info /nonexistent/disk.vmdk 2>&1");
    assert!(said.contains("error 4 ("), "{said}");
}

#[test]
fn the_c_recipe_builds_and_reads() {
    if !have(&["cc", "pkg-config"]) {
        return;
    }
    let scene = Scene::new();
    std::fs::write(scene.path("first.c"), recipe("c")).unwrap();
    let printed = scene.shell(&recipe("c-build"));
    assert!(printed.contains("the first byte is "), "{printed}");
}

#[test]
fn the_examples_build_without_a_warning_and_agree_on_the_disk() {
    if !have(&["cc", "c++"]) {
        return;
    }
    let scene = Scene::new();
    let strict = "export CFLAGS='-O2 -Wall -Wextra -Wpedantic -Werror' CXXFLAGS='-O2 -Wall -Wextra -Wpedantic -Werror'\n";
    let printed = scene.shell(&(strict.to_owned() + &recipe("examples")));
    assert!(printed.contains(&scene.hash), "{printed}");
    assert_eq!(scene.hash_of("disk.raw"), scene.hash);
    // Queue depths, request sizes and the map make no difference; a wrong hash is noticed.
    for options in ["--depth 1 --size 1", "--depth 64 --size 3", "--all", "--all --depth 3 --size 65536"] {
        let verify = format!("./backup --no-progress {options} --verify {} $DISK", scene.hash);
        assert!(scene.shell(&verify).contains("verified"), "{options}");
    }
    let wrong = scene.hash.replace(['0', '1', '2'], "f");
    scene.shell(&format!("! ./backup --no-progress --verify {wrong} $DISK"));
    scene.shell("! ./backup /nonexistent/disk.vmdk && ! ./inspect /nonexistent/disk.vmdk");
}

#[test]
fn the_rust_example_says_what_the_others_say() {
    // cargo builds the examples next to the tests, unless it was asked for this test file alone.
    let built = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples/inspect");
    if !built.exists() {
        skipped("examples/inspect.rs was not built, `cargo test` without --test does");
        return;
    }
    let scene = Scene::new();
    let printed = run(Command::new(built).arg(&scene.disk));
    let cpp = scene.shell("make -s -C $VDDK/examples OUT=$PWD $PWD/inspect && ./inspect $DISK");
    for row in ["capacity", "links", "parent", "geometry", "transport", "metadata"] {
        let rows = |text: &str| -> Vec<String> {
            text.lines().filter(|line| line.starts_with(row)).map(str::to_owned).collect()
        };
        assert!(!rows(&printed).is_empty() && rows(&printed) == rows(&cpp), "{row}:\n{printed}\n{cpp}");
    }
}

#[test]
fn the_backup_example_computes_sha256_of_every_length_right() {
    if !have(&["cc"]) {
        return;
    }
    // Disk sizes are whole sectors, so the padding is tried here: the functions as they stand, over every length to 300.
    let scene = Scene::new();
    let source = std::fs::read_to_string(project().join("examples/backup.c")).unwrap();
    let main = source.find("int main(").unwrap();
    let test = r#"int main(void)
{
    unsigned char data[300];
    int n, i;
    for (i = 0; i < 300; i++) data[i] = (unsigned char)(i * 7);
    for (n = 0; n <= 300; n++) {
        struct sha256 h;
        char hex[65];
        sha256_init(&h);
        for (i = 0; i < n; i += 13) sha256_add(&h, data + i, (size_t)(n - i < 13 ? n - i : 13));
        sha256_hex(&h, hex);
        puts(hex);
    }
    return 0;
}
"#;
    std::fs::write(scene.path("sha.c"), source[..main].to_owned() + test).unwrap();
    let printed = scene.shell(
        "cc -std=c99 -w -pthread sha.c -I$VDDK/include -I$VDDK/examples -L$VDDK/lib64 -lvixDiskLib -Wl,-rpath,$VDDK/lib64 -o sha && ./sha",
    );
    let data: Vec<u8> = (0..300usize).map(|i| (i * 7 % 256) as u8).collect();
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines.len(), 301);
    for (n, line) in lines.iter().enumerate() {
        let expected: String = Sha256::digest(&data[..n]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(*line, expected, "length {n}");
    }
}

/// A scene with `backup` built, and `old.raw`, the backup of `d.vmdk` before 192 KiB of it changed; `new.raw` is right.
fn changed_disk() -> Scene {
    let scene = Scene::new();
    scene.shell(
        "make -s -C $VDDK/examples OUT=$PWD $PWD/backup
         qemu-img create -q -f vmdk d.vmdk 8M
         qemu-io -f vmdk d.vmdk -c 'write -q -P 1 0 2M' -c 'write -q -P 2 7M 1M'
         ./backup -n d.vmdk old.raw
         qemu-io -f vmdk d.vmdk -c 'write -q -P 3 1M 64k' -c 'write -q -P 4 4M 64k' -c 'write -q -z 7M 64k'
         qemu-img convert -f vmdk -O raw d.vmdk new.raw
         printf '# start length\n7340032 65536\n1048576 65536\n4194304 65530\n1048586 10\n' >areas",
    );
    scene
}

#[test]
fn the_backup_example_brings_an_old_backup_up_to_date() {
    if !have(&["cc", "qemu-img", "qemu-io"]) {
        return;
    }
    let scene = changed_disk();
    let verify = scene.hash_of("new.raw");
    let printed = scene
        .shell(&format!("./backup -n --areas areas --verify {verify} d.vmdk old.raw && cmp old.raw new.raw"));
    assert!(
        printed.contains("changed         384 sectors in 3 ranges") && printed.contains("verified"),
        "{printed}"
    );
    scene.shell("./backup -n --areas - d.vmdk old.raw </dev/null && cmp old.raw new.raw");
}

#[test]
fn the_backup_example_leaves_a_backup_alone_when_the_areas_are_wrong() {
    if !have(&["cc", "qemu-img", "qemu-io"]) {
        return;
    }
    let scene = changed_disk();
    let before = scene.hash_of("old.raw");
    let huge = "18446744073709551615 18446744073709551615";
    for line in ["8388608 1", "0 8388609", "-512 512", "512", "512 512 512", "start length", huge] {
        let lines = format!("1048576 65536\n{line}\n");
        std::fs::write(scene.path("wrong"), lines).unwrap();
        scene.shell("! ./backup -n --areas wrong d.vmdk old.raw 2>/dev/null");
        assert_eq!(scene.hash_of("old.raw"), before, "{line}");
    }
    scene.shell("truncate -s 7M old.raw && ! ./backup -n --areas areas d.vmdk old.raw && test $(stat -c %s old.raw) = 7340032");
    scene.shell("! ./backup -n --areas areas d.vmdk none.raw && test ! -e none.raw");
}

#[test]
fn the_demonstration_runs_to_its_end() {
    if !have(&["cc", "sha256sum", "cmp", "python3"]) {
        return;
    }
    let printed = run(Command::new(project().join("scripts/demo.sh"))
        .arg(tree::tree("readme-dist"))
        .env("VIXSIM", env!("CARGO_BIN_EXE_vixsim"))
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()));
    assert!(printed.contains("verified") && printed.trim_end().ends_with("== Done"), "{printed}");
    assert!(printed.contains("/sdk has [datastore1] vm/web.vmdk"), "no virtual machine was shown: {printed}");
}
