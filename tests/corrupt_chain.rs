//! One thing is wrong with a descriptor, a name in it, or a chain: each leads to its kind of error, told in words, in bounded
//! time; or it does not matter and everything reads as before. All of it on real files, through the library's front door.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
mod fuzz_bodies;

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use vixDiskLib::config::Config;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::ErrorKind::AccessDenied;
use vixDiskLib::error::ErrorKind::CapacityMismatch;
use vixDiskLib::error::ErrorKind::CidMismatch;
use vixDiskLib::error::ErrorKind::Corrupt;
use vixDiskLib::error::ErrorKind::Encrypted;
use vixDiskLib::error::ErrorKind::EndOfFile;
use vixDiskLib::error::ErrorKind::InvalidChain;
use vixDiskLib::error::ErrorKind::NameInvalid;
use vixDiskLib::error::ErrorKind::NotADisk;
use vixDiskLib::error::ErrorKind::NotAFile;
use vixDiskLib::error::ErrorKind::NotFound;
use vixDiskLib::error::ErrorKind::NotSupported;
use vixDiskLib::error::ErrorKind::ParentMissing;
use vixDiskLib::error::ErrorKind::TooManyLinks;
use vixDiskLib::error::ErrorKind::UnsupportedFeature;
use vixDiskLib::error::ErrorKind::UnsupportedVersion;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Log;
use vixDiskLib::session::ConnectParams;
use vixDiskLib::session::Library;
use vixDiskLib::session::OpenFlags;
use vixDiskLib::units::Sectors;

use fuzz_bodies::images;
use fuzz_bodies::images::SparseSpec;
use fuzz_bodies::limits::Counting;
use fuzz_bodies::limits::measured;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SECTORS: u64 = 64;

/// The whole content of a disk, by way of a library of its own; nothing takes long.
fn content(path: &Path) -> Result<Vec<u8>> {
    let (result, cost) = measured(|| read(path, OpenFlags::READ_ONLY));
    assert!(cost.time < Duration::from_secs(5), "{} takes {:?}", path.display(), cost.time);
    assert!(cost.memory < 96 << 20, "{} holds {} MiB at once", path.display(), cost.memory >> 20);
    result
}

fn read(path: &Path, flags: OpenFlags) -> Result<Vec<u8>> {
    let library = Library::new(Log::none(), Config::default());
    let connection = library.connect(ConnectParams::default(), true, None, None)?;
    let disk = connection.open(path, flags)?;
    let mut content = vec![0x77; disk.info()?.capacity.0.min(1 << 14) as usize * 512];
    disk.read(Sectors(0), &mut content)?;
    disk.close()?;
    library.shut_down();
    Ok(content)
}

#[track_caller]
fn assert_fails(path: &Path, kinds: &[ErrorKind], what: &str) {
    match content(path) {
        Ok(_) => panic!("{what}: reads"),
        Err(e) => {
            assert!(kinds.contains(&e.kind()), "{what}: {e:?}, expected {kinds:?}");
            assert!(e.to_string().len() > 10, "{what}: says only {e}");
        }
    }
}

/// A folder `vm` with a flat disk `d.vmdk`, and a secret beside the folder.
fn scratch() -> (TempDir, String, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let vm = dir.path().join("vm");
    std::fs::create_dir(&vm).unwrap();
    let bytes: Vec<u8> = (0..SECTORS).flat_map(|lba| images::pattern(5, lba)).collect();
    std::fs::write(vm.join("d-flat.vmdk"), &bytes).unwrap();
    std::fs::write(dir.path().join("secret"), vec![0x53; bytes.len()]).unwrap();
    let text = images::descriptor(SECTORS, "monolithicFlat", "RW 64 FLAT \"d-flat.vmdk\" 0");
    (dir, text, bytes)
}

/// What is replaced by what, and the kinds of error that may come of it.
type Change = (&'static str, &'static str, &'static [ErrorKind]);

const DESCRIPTOR: &[Change] = &[
    ("version=1", "version=0", &[NotADisk]),
    ("version=1", "version=4", &[UnsupportedVersion]),
    ("version=1", "version=99999999999999999999", &[NotADisk, UnsupportedVersion]),
    ("version=1", "version=-1", &[NotADisk]),
    ("version=1", "version=", &[NotADisk]),
    ("version=1\n", "", &[NotADisk]),
    ("# Disk DescriptorFile\nversion=1", "\u{0}", &[NotADisk]),
    ("CID=12345678", "CID=1234567g", &[NotADisk]),
    ("CID=12345678", "CID=123456789", &[NotADisk]),
    ("CID=12345678", "CID=", &[NotADisk]),
    ("CID=12345678", "CID=12345678\nCID=12345678", &[NotADisk]),
    ("parentCID=ffffffff", "parentCID=fffffff", &[ParentMissing]),
    ("parentCID=ffffffff", "parentCID=12345678", &[ParentMissing]),
    ("parentCID=ffffffff", "parentCID=x", &[NotADisk]),
    ("createType", "encryptionKeys=\"vmware:key/list/x\"\ncreateType", &[Encrypted]),
    ("createType=\"monolithicFlat\"", "createType=\"monolithicFlat", &[NotADisk]),
    ("RW 64", "RW 0", &[NotADisk]),
    ("RW 64", "RW 65", &[EndOfFile, Corrupt]),
    ("RW 64", "RW -64", &[NotADisk]),
    ("RW 64", "RW 18446744073709551615", &[NotADisk]),
    ("RW 64", "RW 36028797018963967", &[EndOfFile, Corrupt, NotADisk]),
    ("RW 64", "RW 99999999999999999999999", &[NotADisk]),
    ("RW 64", "RW", &[NotADisk, UnsupportedFeature]),
    ("RW 64", "XX 64", &[UnsupportedFeature]),
    ("FLAT", "FLATTER", &[UnsupportedFeature]),
    ("FLAT", "VSANSPARSE", &[UnsupportedFeature, NotSupported]),
    ("FLAT", "SPARSE", &[NotADisk]),
    ("FLAT \"d-flat.vmdk\" 0", "VMFSSPARSE \"d-flat.vmdk\"", &[NotADisk]),
    ("FLAT \"d-flat.vmdk\" 0", "SESPARSE \"d-flat.vmdk\"", &[NotADisk]),
    ("FLAT \"d-flat.vmdk\" 0", "FLAT", &[NotADisk]),
    ("\"d-flat.vmdk\"", "\"\"", &[NotADisk, NameInvalid]),
    ("\"d-flat.vmdk\"", "\"d-flat.vmdk", &[NotADisk]),
    ("\"d-flat.vmdk\"", "\"missing.vmdk\"", &[NotFound]),
    ("\"d-flat.vmdk\" 0", "\"d-flat.vmdk\" 1", &[EndOfFile, Corrupt]),
    ("\"d-flat.vmdk\" 0", "\"d-flat.vmdk\" -1", &[NotADisk]),
    ("\"d-flat.vmdk\" 0", "\"d-flat.vmdk\" 18446744073709551615", &[EndOfFile, Corrupt, NotADisk]),
    ("\"d-flat.vmdk\" 0", "\"d-flat.vmdk\" 36028797018963967", &[EndOfFile, Corrupt, NotADisk]),
    ("RW 64 FLAT \"d-flat.vmdk\" 0", "", &[NotADisk]),
    ("RW 64", "RW 36028797018963967 ZERO\nRW 36028797018963967 ZERO\nRW 64", &[NotADisk]),
];

#[test]
fn one_wrong_word_in_a_descriptor_leads_to_one_kind_of_error() {
    let (dir, text, bytes) = scratch();
    let path = dir.path().join("vm/d.vmdk");
    std::fs::write(&path, &text).unwrap();
    assert!(content(&path).unwrap() == bytes, "the sound disk");
    for (from, to, kinds) in DESCRIPTOR {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        assert_fails(&path, kinds, &format!("{from:?} -> {to:?}"));
    }
}

#[test]
fn what_says_nothing_about_reading_changes_nothing() {
    let (dir, text, bytes) = scratch();
    let path = dir.path().join("vm/d.vmdk");
    for (from, to) in [
        ("# Disk DescriptorFile", "# something else"),
        ("# Disk DescriptorFile\n", ""),
        ("version=1", "version=3"),
        ("version=1", "  VERSION =\t1  "),
        ("encoding=\"UTF-8\"", "encoding=\"windows-1252\""),
        ("CID=12345678", "CID=ffffffff"),
        ("createType=\"monolithicFlat\"", "createType=\"twoGbMaxExtentSparse\""),
        ("createType=\"monolithicFlat\"", "createType=\"\""),
        ("RW 64 FLAT", "RDONLY 64 VMFS"),
        ("RW 64 FLAT", "rw   64\tflat"),
        ("ddb.geometry.cylinders = \"1\"", "ddb.geometry.cylinders = \"99999999999999999999\""),
        ("ddb.geometry.heads = \"64\"", "ddb.geometry.heads = \"-1\""),
        ("ddb.uuid = \"60 00", "ddb.uuid = \"zz"),
        ("ddb.adapterType = \"lsilogic\"", "ddb.adapterType = \"floppy\""),
        ("ddb.adapterType", "nonsense = = =\nddb.adapterType"),
        ("#DDB", "\u{1}\u{2}\u{7f}"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let got = content(&path).unwrap_or_else(|e| panic!("{from:?} -> {to:?}: {e:?}"));
        assert!(got == bytes, "{from:?} -> {to:?} reads other bytes");
    }
}

#[test]
fn a_descriptor_cut_anywhere_reads_right_or_fails() {
    let (dir, text, bytes) = scratch();
    let path = dir.path().join("vm/d.vmdk");
    for end in 0..text.len() {
        std::fs::write(&path, &text[..end]).unwrap();
        if let Ok(got) = content(&path) {
            assert!(got == bytes || bytes.starts_with(&got) && text[..end].ends_with("RW 6"), "cut at {end}");
        }
    }
}

#[test]
fn names_lead_nowhere_outside_the_folder() {
    let (dir, text, _) = scratch();
    let vm = dir.path().join("vm");
    let path = vm.join("d.vmdk");
    std::fs::create_dir(vm.join("folder")).unwrap();
    std::os::unix::fs::symlink("../secret", vm.join("link")).unwrap();
    std::os::unix::fs::symlink("..", vm.join("up")).unwrap();
    std::os::unix::fs::symlink("circle", vm.join("circle")).unwrap();
    make_fifo(&vm.join("fifo"));
    let secret = dir.path().join("secret");
    for name in [
        secret.to_str().unwrap(),
        "../secret",
        "../vm/../secret",
        "./../secret",
        "folder/../../secret",
        "up/secret",
        "link",
        "circle",
        "folder",
        ".",
        "..",
        "/",
        "fifo",
        "/etc/passwd",
        "/etc/shadow",
        "/dev/null",
        "/dev/zero",
        "/dev/stdin",
        "/dev/full",
        "/proc/self/mem",
        "/proc/self/environ",
        "d-flat.vmdk/",
        "d-flat.vmdk/x",
        "~/x",
        "$HOME",
        "file:///etc/passwd",
        "nbd://localhost/x",
        "vsan://x",
    ] {
        for (kind, create) in [
            ("FLAT", "monolithicFlat"),
            ("FLAT", "fullDevice"),
            ("VMFS", "vmfs"),
            ("VMFSRAW", "vmfsRaw"),
            ("VMFSRDM", "vmfsRDM"),
            ("SPARSE", "custom"),
        ] {
            let offset = if kind == "FLAT" { " 0" } else { "" };
            let text = text
                .replace("RW 64 FLAT \"d-flat.vmdk\" 0", &format!("RW 1 {kind} \"{name}\"{offset}"))
                .replace("monolithicFlat", create);
            std::fs::write(&path, text).unwrap();
            let kinds =
                &[AccessDenied, NotAFile, NotFound, ErrorKind::Io, NotADisk, NameInvalid, UnsupportedFeature];
            assert_fails(&path, kinds, &format!("{kind} {name:?} in {create}"));
        }
    }
}

fn make_fifo(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success());
}

#[test]
fn an_opened_path_that_is_no_disk_is_told_so() {
    let (dir, _, _) = scratch();
    let vm = dir.path().join("vm");
    make_fifo(&vm.join("fifo"));
    std::fs::write(vm.join("empty"), b"").unwrap();
    std::fs::write(vm.join("zeros"), [0; 65536]).unwrap();
    std::fs::write(vm.join("text"), "Dear reader,\nthis is a letter.\n").unwrap();
    let big = std::fs::File::create(vm.join("big")).unwrap();
    big.set_len(1 << 40).unwrap();
    std::fs::write(vm.join("bigtext"), "# x\n".repeat(5 << 20)).unwrap();
    for name in ["fifo", "empty", "zeros", "text", "big", "bigtext", ".", "d-flat.vmdk", "missing"] {
        assert_fails(&vm.join(name), &[NotADisk, NotAFile, NotFound], name);
    }
    for name in ["/dev/zero", "/dev/null", "/proc/self/mem", "/", ""] {
        assert_fails(
            Path::new(name),
            &[NotADisk, NotAFile, NotFound, ErrorKind::InvalidArgument, NameInvalid],
            name,
        );
    }
}

/// A chain of `count` links in a folder, leaf `l0.vmdk`; each holds one grain.
fn chain(folder: &Path, count: usize) -> Vec<u8> {
    let spec = SparseSpec::tiny();
    let mut content = vec![0; spec.capacity as usize * 512];
    for i in (0..count).rev() {
        let extent = format!("RW {} SPARSE \"x\"", spec.capacity);
        let descriptor = match i + 1 == count {
            true => images::descriptor(spec.capacity, "monolithicSparse", &extent),
            false => images::child_descriptor("monolithicSparse", &extent, &format!("l{}.vmdk", i + 1))
                .replace("0badcafe", "12345678"),
        };
        let grain = (i % 5) as u64;
        let built = images::sparse(&SparseSpec { data: vec![grain], descriptor, ..spec.clone() });
        let bytes = grain as usize * 4096..(grain as usize + 1) * 4096;
        content[bytes.clone()].copy_from_slice(&built.content[bytes]);
        std::fs::write(folder.join(format!("l{i}.vmdk")), built.file).unwrap();
    }
    content
}

/// Changes a text inside a file, keeping its length.
fn change(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_wrong_link_breaks_the_chain_with_its_own_kind() {
    let cases: &[(&str, &str, &str, ErrorKind)] = &[
        ("l1.vmdk", "\nCID=12345678", "\nCID=12345679", CidMismatch),
        ("l2.vmdk", "\nCID=12345678", "\nCID=ffffffff", CidMismatch),
        ("l0.vmdk", "l1.vmdk", "l9.vmdk", ParentMissing),
        ("l1.vmdk", "l2.vmdk", "l1.vmdk", InvalidChain),
        ("l1.vmdk", "l2.vmdk", "l0.vmdk", InvalidChain),
        ("l0.vmdk", "l1.vmdk", "l0.vmdk", InvalidChain),
        ("l1.vmdk", "parentFileNameHint", "parentFileNameHunt", ParentMissing),
        ("l1.vmdk", "version=1", "version=9", UnsupportedVersion),
        ("l2.vmdk", "KDMV", "KDMX", NotADisk),
        ("l1.vmdk", "KDMV", "kdmv", NotADisk),
    ];
    for (file, from, to, kind) in cases {
        let dir = tempfile::tempdir().unwrap();
        let want = chain(dir.path(), 3);
        assert!(content(&dir.path().join("l0.vmdk")).unwrap() == want, "the sound chain");
        change(&dir.path().join(file), from, to);
        assert_fails(&dir.path().join("l0.vmdk"), &[*kind], &format!("{file}: {from:?} -> {to:?}"));
    }
}

#[test]
fn a_parent_of_another_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    chain(dir.path(), 2);
    let spec = SparseSpec { capacity: 8 * 6, ..SparseSpec::tiny() };
    let descriptor = images::descriptor(spec.capacity, "monolithicSparse", "RW 48 SPARSE \"x\"");
    std::fs::write(dir.path().join("l1.vmdk"), images::sparse(&SparseSpec { descriptor, ..spec }).file)
        .unwrap();
    assert_fails(&dir.path().join("l0.vmdk"), &[CapacityMismatch], "48 sectors below 43");
}

#[test]
fn long_chains_read_and_endless_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let want = chain(dir.path(), 64);
    assert!(content(&dir.path().join("l0.vmdk")).unwrap() == want, "64 links");
    chain(dir.path(), 300);
    assert_fails(&dir.path().join("l0.vmdk"), &[TooManyLinks], "300 links");
}

#[test]
fn a_parent_hint_leads_to_disks_only() {
    let dir = tempfile::tempdir().unwrap();
    make_fifo(&dir.path().join("fifo"));
    let spec = SparseSpec::tiny();
    for hint in [
        "/etc/passwd",
        "/dev/zero",
        "/dev/null",
        "fifo",
        ".",
        "/",
        "/proc/self/mem",
        "../../../../etc/passwd",
        "x/../fifo",
        "",
    ] {
        let extent = format!("RW {} SPARSE \"x\"", spec.capacity);
        let descriptor = images::child_descriptor("monolithicSparse", &extent, hint);
        let built = images::sparse(&SparseSpec { descriptor, ..spec.clone() });
        std::fs::write(dir.path().join("c.vmdk"), built.file).unwrap();
        let kinds = &[NotADisk, NotAFile, ParentMissing, AccessDenied, NameInvalid, InvalidChain];
        assert_fails(&dir.path().join("c.vmdk"), kinds, hint);
    }
}

#[test]
fn many_extents_take_no_time() {
    let (dir, text, bytes) = scratch();
    let path = dir.path().join("vm/d.vmdk");
    let many = |count: usize| {
        let zeros = "RW 1 ZERO\n".repeat(count);
        text.replace("RW 64 FLAT", &format!("{zeros}RW 64 FLAT"))
    };
    std::fs::write(&path, many(15_000)).unwrap();
    let (got, cost) = measured(|| content(&path).unwrap());
    assert!(cost.time < Duration::from_secs(3), "{:?}", cost.time);
    assert!(
        got[15_000 * 512..] == bytes[..got.len() - 15_000 * 512]
            && got[..15_000 * 512].iter().all(|b| *b == 0)
    );
    std::fs::write(&path, many(70_000)).unwrap();
    assert_fails(&path, &[NotADisk], "70001 extents");
}
