//! Against qemu as an oracle: what it writes we read alike, what we write it reads alike, and its check finds nothing wrong.

#[macro_use]
mod common;

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use common::child::in_child;
use common::model::Rng;
use common::model::stamp;
use common::model::stamps;
use common::scratch;
use common::tools;
use common::tools::check;
use common::tools::qemu_img;
use common::vix;
use common::vix::Connection;
use common::vix::Disk;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

/// Sizes in sectors: one sector, less than a grain, one short of and one past a grain, across grain tables.
const SIZES: [u64; 6] = [1, 100, 127, 129, 65_536 + 77, 3 * 65_536];

/// Subformats that qemu writes in place.
const WRITABLE: [&str; 4] =
    ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"];

fn qemu_create(path: &Path, sectors: u64, options: &str) {
    let size = (sectors * 512).to_string();
    check(qemu_img(["create", "-q", "-f", "vmdk", "-o", options]).arg(path).arg(size));
}

/// Random writes by qemu-io: sector-aligned, overlapping, also of zeros.
fn qemu_scribble(path: &Path, sectors: u64, writes: u64, rng: &mut Rng) {
    let mut command = Command::new("qemu-io");
    command.args(["-f", "vmdk"]);
    for _ in 0..writes {
        let count = rng.between(1, sectors.min(300) + 1);
        let start = rng.below(sectors - count + 1);
        let (from, len) = (start * 512, count * 512);
        match rng.below(8) {
            0 => command.args(["-c", &format!("write -z {from} {len}")]),
            _ => command.args(["-c", &format!("write -P {} {from} {len}", rng.between(1, 256))]),
        };
    }
    check(command.arg(path));
}

/// The raw content by qemu.
fn qemu_content(path: &Path, folder: &Path) -> Vec<u8> {
    let raw = tools::qemu_raw(path, folder);
    let bytes = std::fs::read(&raw).expect("the raw file");
    std::fs::remove_file(raw).expect("removing it");
    bytes
}

#[track_caller]
fn assert_same(ours: &[u8], theirs: &[u8], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}: size");
    let differs = ours.chunks(512).zip(theirs.chunks(512)).position(|(a, b)| a != b);
    assert!(differs.is_none(), "{what}: sector {differs:?} differs");
}

/// Reads the whole disk in pieces of random size.
fn read_all(disk: &Disk<'_>, rng: &mut Rng) -> Vec<u8> {
    let capacity = disk.info().capacity;
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < capacity {
        let count = rng.between(1, 3000).min(capacity - at);
        pieces.push((at, count));
        at += count;
    }
    disk.read_many(&pieces, 8, 16).unwrap_or_else(|e| panic!("a read failed: {e}\n{}", vix::log_text()))
}

/// Opens what qemu made and compares content, and every unlisted sector with zeros.
fn compare_with_qemu(connection: &Connection<'_>, path: &Path, folder: &Path, rng: &mut Rng, what: &str) {
    let theirs = qemu_content(path, folder);
    let disk = connection.must_open(path, flags::READ_ONLY);
    let ours = read_all(&disk, rng);
    assert_same(&ours, &theirs, what);
    let mut covered = vec![false; theirs.len() / 512];
    for (start, count) in disk.allocated_all(128) {
        covered[start as usize..(start + count) as usize].fill(true);
    }
    let lost = theirs.chunks(512).zip(&covered).position(|(s, c)| !c && s.iter().any(|b| *b != 0));
    assert!(lost.is_none(), "{what}: sector {lost:?} holds data but is not listed");
}

#[test]
fn what_qemu_writes_reads_alike() {
    requires!("qemu-img", "qemu-io");
    in_child(|| {
        let connection = Vix::started().connect(true).expect("a connection");
        let mut rng = Rng::new(11);
        for subformat in WRITABLE {
            for sectors in SIZES {
                let folder = scratch::folder();
                let path = folder.path().join("d.vmdk");
                qemu_create(&path, sectors, &format!("subformat={subformat}"));
                qemu_scribble(&path, sectors, 25, &mut rng);
                let what = format!("{subformat} of {sectors} sectors");
                compare_with_qemu(&connection, &path, folder.path(), &mut rng, &what);
            }
        }
    });
}

#[test]
fn streams_that_qemu_writes_read_alike() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let mut rng = Rng::new(12);
        for sectors in SIZES {
            let folder = scratch::folder();
            let raw = folder.path().join("in.raw");
            let mut content = vec![0u8; (sectors * 512) as usize];
            for _ in 0..20 {
                let count = rng.between(1, sectors.min(400) + 1);
                let start = rng.below(sectors - count + 1);
                let data = if rng.below(2) == 0 {
                    rng.bytes((count * 512) as usize)
                } else {
                    stamps(start, count, 3)
                };
                content[(start * 512) as usize..][..data.len()].copy_from_slice(&data);
            }
            std::fs::write(&raw, &content).expect("the raw file");
            let path = folder.path().join("s.vmdk");
            let convert = ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"];
            check(qemu_img(convert).arg(&raw).arg(&path));
            let what = format!("streamOptimized of {sectors} sectors");
            compare_with_qemu(&connection, &path, folder.path(), &mut rng, &what);
            let disk = connection.must_open(&path, flags::READ_ONLY);
            assert_same(&read_all(&disk, &mut rng), &content, &what);
            assert_eq!(connection.open(&path, flags::READ_WRITE).err(), Some(code::FILE_READ_ONLY), "{what}");
        }
    });
}

#[test]
fn zeroed_grains_that_qemu_writes_read_alike() {
    requires!("qemu-img", "qemu-io");
    in_child(|| {
        let connection = Vix::started().connect(true).expect("a connection");
        let mut rng = Rng::new(13);
        let folder = scratch::folder();
        let sectors = 65_536 + 300;
        let base = folder.path().join("base.vmdk");
        qemu_create(&base, sectors, "subformat=monolithicSparse,zeroed_grain=on");
        qemu_scribble(&base, sectors, 60, &mut rng);
        compare_with_qemu(&connection, &base, folder.path(), &mut rng, "zeroed grains in a base");
        let child = folder.path().join("child.vmdk");
        qemu_child(&child, &base, "zeroed_grain=on,");
        qemu_scribble(&child, sectors, 60, &mut rng);
        // Whole grains of zeros over data of the parent.
        check(Command::new("qemu-io").args(["-f", "vmdk", "-c", "write -z 0 1M"]).arg(&child));
        compare_with_qemu(&connection, &child, folder.path(), &mut rng, "zeroed grains in a child");
    });
}

fn qemu_child(child: &Path, parent: &Path, more: &str) {
    let name = parent.file_name().expect("a name").to_string_lossy();
    let options = format!("{more}backing_fmt=vmdk,backing_file={name}");
    check(
        qemu_img(["create", "-q", "-f", "vmdk", "-o", &options])
            .arg(child)
            .current_dir(parent.parent().expect("a folder")),
    );
}

/// A chain of qemu's making: a base and children, each with random writes before the next is made.
fn qemu_chain(folder: &Path, sectors: u64, links: u64, writes: u64, rng: &mut Rng) -> PathBuf {
    let mut leaf = folder.join("link-0.vmdk");
    qemu_create(&leaf, sectors, "subformat=monolithicSparse");
    qemu_scribble(&leaf, sectors, writes, rng);
    for n in 1..links {
        let child = folder.join(format!("link-{n}.vmdk"));
        qemu_child(&child, &leaf, "");
        qemu_scribble(&child, sectors, writes, rng);
        leaf = child;
    }
    leaf
}

#[test]
fn chains_that_qemu_writes_read_alike() {
    requires!("qemu-img", "qemu-io");
    in_child(|| {
        let connection = Vix::started().connect(true).expect("a connection");
        let mut rng = Rng::new(14);
        for (links, sectors) in [(2, 100), (2, 65_536 + 77), (3, 20_001), (5, 70_000)] {
            let folder = scratch::folder();
            let leaf = qemu_chain(folder.path(), sectors, links, 15, &mut rng);
            let what = format!("a chain of {links} links, {sectors} sectors");
            compare_with_qemu(&connection, &leaf, folder.path(), &mut rng, &what);
            let info = connection.must_open(&leaf, flags::READ_ONLY).info();
            assert_eq!(info.links, links as i32, "{what}");
            assert_eq!(info.parent.as_deref(), Some(format!("link-{}.vmdk", links - 2).as_str()), "{what}");
            let single = connection.must_open(&leaf, flags::READ_ONLY | flags::SINGLE_LINK);
            assert_eq!(single.info().links, 1, "{what}: opened as a single link");
        }
    });
}

#[test]
fn a_chain_of_64_links_reads_alike() {
    requires!("qemu-img", "qemu-io");
    in_child(|| {
        let connection = Vix::started().connect(true).expect("a connection");
        let mut rng = Rng::new(15);
        let folder = scratch::folder();
        let leaf = qemu_chain(folder.path(), 4000, 64, 3, &mut rng);
        compare_with_qemu(&connection, &leaf, folder.path(), &mut rng, "64 links");
        assert_eq!(connection.must_open(&leaf, flags::READ_ONLY).info().links, 64);
    });
}

#[test]
fn a_chain_with_odd_names_reads_alike() {
    requires!("qemu-img", "qemu-io");
    in_child(|| {
        let connection = Vix::started().connect(true).expect("a connection");
        let mut rng = Rng::new(18);
        let folder = scratch::folder();
        let mut leaf = folder.path().join("b\u{e4}se 100%d.vmdk");
        qemu_create(&leaf, 1000, "subformat=monolithicSparse");
        qemu_scribble(&leaf, 1000, 5, &mut rng);
        for name in ["\u{6f22}\u{5b57} = x.vmdk", "#1 child.vmdk"] {
            let child = folder.path().join(name);
            qemu_child(&child, &leaf, "");
            qemu_scribble(&child, 1000, 5, &mut rng);
            leaf = child;
        }
        compare_with_qemu(&connection, &leaf, folder.path(), &mut rng, "odd names");
        assert_eq!(connection.must_open(&leaf, flags::READ_ONLY).info().links, 3);
    });
}

#[test]
fn a_moved_chain_is_found_next_to_the_child() {
    requires!("qemu-img", "qemu-io");
    in_child(|| {
        let connection = Vix::started().connect(true).expect("a connection");
        let mut rng = Rng::new(16);
        let folder = scratch::folder();
        let first = folder.path().join("first");
        std::fs::create_dir(&first).expect("a folder");
        let (base, child) = (first.join("b.vmdk"), first.join("c.vmdk"));
        qemu_create(&base, 1000, "subformat=monolithicSparse");
        qemu_scribble(&base, 1000, 5, &mut rng);
        // An absolute hint, which the move makes wrong.
        let options = format!("backing_fmt=vmdk,backing_file={}", base.display());
        check(qemu_img(["create", "-q", "-f", "vmdk", "-o", &options]).arg(&child));
        qemu_scribble(&child, 1000, 3, &mut rng);
        let expected = qemu_content(&child, folder.path());
        let disk = connection.must_open(&child, flags::READ_ONLY);
        assert_same(&read_all(&disk, &mut rng), &expected, "an absolute hint");
        drop(disk);
        let second = folder.path().join("second");
        std::fs::rename(&first, &second).expect("moving the folder");
        let disk = connection.must_open(&second.join("c.vmdk"), flags::READ_ONLY);
        assert_same(&read_all(&disk, &mut rng), &expected, "a moved chain");
    });
}

#[test]
fn a_changed_or_missing_parent_is_a_clear_error() {
    requires!("qemu-img", "qemu-io");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let mut rng = Rng::new(17);
        let folder = scratch::folder();
        let leaf = qemu_chain(folder.path(), 1000, 2, 3, &mut rng);
        // Writing to the parent through us changes its content id.
        let parent = connection.must_open(&folder.path().join("link-0.vmdk"), flags::READ_WRITE);
        parent.must_write(5, &stamp(5, 9));
        assert_eq!(parent.close(), code::OK);
        assert_eq!(connection.open(&leaf, flags::READ_ONLY).err(), Some(code::CID_MISMATCH));
        let single = connection.must_open(&leaf, flags::READ_ONLY | flags::SINGLE_LINK);
        assert_eq!(single.close(), code::OK);
        std::fs::remove_file(folder.path().join("link-0.vmdk")).expect("removing the parent");
        assert_eq!(connection.open(&leaf, flags::READ_ONLY).err(), Some(code::OPEN_PARENT));
    });
}

// ------------------------------------------------------------------------------------------------ our writing

/// A disk and what it must read as.
struct Model {
    bytes: Vec<u8>,
}

impl Model {
    /// Random stamped writes through the library, synchronous and asynchronous, with some reads in between.
    fn scribble(&mut self, disk: &Disk<'_>, writes: u64, rng: &mut Rng) {
        let sectors = (self.bytes.len() / 512) as u64;
        for version in 1..=writes {
            let count = rng.between(1, sectors.min(300) + 1);
            let start = rng.below(sectors - count + 1);
            let data = match rng.below(6) {
                0 => vec![0u8; (count * 512) as usize],
                1 => rng.bytes((count * 512) as usize),
                _ => stamps(start, count, version),
            };
            if rng.below(2) == 0 {
                disk.must_write(start, &data);
            } else {
                write_and_wait(disk, start, &data);
            }
            self.bytes[(start * 512) as usize..][..data.len()].copy_from_slice(&data);
            let (from, len) = (start.saturating_sub(3), (count + 6).min(sectors - start.saturating_sub(3)));
            let got = disk.must_read(from, len);
            assert_same(&got, &self.bytes[(from * 512) as usize..][..got.len()], "right after the write");
        }
    }
}

fn write_and_wait(disk: &Disk<'_>, start: u64, data: &[u8]) {
    let completions = vix::Completions::default();
    let count = (data.len() / 512) as u64;
    #[allow(unsafe_code)] // the data and the collector outlive the wait below
    // SAFETY: as said; nothing returns before the completion.
    let result = unsafe { disk.write_async(start, data.as_ptr(), count, start, &completions) };
    assert_eq!(result, code::ASYNC, "{}", vix::log_text());
    completions.wait_for(1);
    assert_eq!(completions.take(), [(start, code::OK)], "{}", vix::log_text());
}

/// Checks the closed disk with qemu and reopens it.
fn verify(connection: &Connection<'_>, path: &Path, folder: &Path, model: &Model, rng: &mut Rng, what: &str) {
    let theirs = qemu_content(path, folder);
    assert_same(&theirs, &model.bytes, &format!("{what}, read by qemu"));
    let disk = connection.must_open(path, flags::READ_ONLY);
    assert_same(&read_all(&disk, rng), &model.bytes, &format!("{what}, reopened"));
}

#[test]
fn what_we_create_and_write_qemu_reads_alike() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let mut rng = Rng::new(21);
        for kind in [Kind::Sparse, Kind::Flat, Kind::SplitSparse, Kind::SplitFlat] {
            for sectors in SIZES {
                let folder = scratch::folder();
                let path = folder.path().join("n.vmdk");
                connection.must_create(&path, Spec::new(kind, sectors));
                let mut model = Model { bytes: vec![0; (sectors * 512) as usize] };
                let what = format!("{kind:?} of {sectors} sectors");
                verify(&connection, &path, folder.path(), &model, &mut rng, &format!("new {what}"));
                for round in 0..2 {
                    let disk = connection.must_open(&path, flags::READ_WRITE);
                    model.scribble(&disk, 30, &mut rng);
                    assert_eq!(disk.flush(), code::OK);
                    assert_eq!(disk.close(), code::OK);
                    let what = format!("{what}, round {round}");
                    verify(&connection, &path, folder.path(), &model, &mut rng, &what);
                }
                tools::qemu_check(&path);
            }
        }
    });
}

#[test]
fn what_we_write_to_disks_of_qemu_it_reads_alike() {
    requires!("qemu-img", "qemu-io");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let mut rng = Rng::new(22);
        for subformat in WRITABLE {
            for sectors in SIZES {
                let folder = scratch::folder();
                let path = folder.path().join("d.vmdk");
                qemu_create(&path, sectors, &format!("subformat={subformat}"));
                qemu_scribble(&path, sectors, 10, &mut rng);
                let mut model = Model { bytes: qemu_content(&path, folder.path()) };
                let disk = connection.must_open(&path, flags::READ_WRITE);
                model.scribble(&disk, 30, &mut rng);
                assert_eq!(disk.close(), code::OK);
                let what = format!("{subformat} of {sectors} sectors");
                verify(&connection, &path, folder.path(), &model, &mut rng, &what);
                tools::qemu_check(&path);
                // And back: qemu writes over what we wrote.
                qemu_scribble(&path, sectors, 10, &mut rng);
                compare_with_qemu(&connection, &path, folder.path(), &mut rng, &what);
            }
        }
    });
}

#[test]
fn what_we_write_to_a_child_qemu_reads_alike() {
    requires!("qemu-img", "qemu-io");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let mut rng = Rng::new(23);
        for (links, sectors, more) in
            [(2, 1, ""), (2, 129, ""), (3, 65_536 + 77, ""), (2, 2000, "zeroed_grain=on,")]
        {
            let folder = scratch::folder();
            let parent = qemu_chain(folder.path(), sectors, links - 1, 20, &mut rng);
            let parent_before = std::fs::read(&parent).expect("the parent");
            let child = folder.path().join("leaf.vmdk");
            qemu_child(&child, &parent, more);
            if !more.is_empty() {
                qemu_scribble(&child, sectors, 10, &mut rng);
            }
            let mut model = Model { bytes: qemu_content(&child, folder.path()) };
            let what = format!("child of {links} links, {sectors} sectors");
            for round in 0..2 {
                let disk = connection.must_open(&child, flags::READ_WRITE);
                model.scribble(&disk, 30, &mut rng);
                assert_eq!(disk.flush(), code::OK);
                assert_eq!(disk.close(), code::OK);
                let what = format!("{what}, round {round}");
                verify(&connection, &child, folder.path(), &model, &mut rng, &what);
                tools::qemu_check(&child);
            }
            assert!(
                std::fs::read(&parent).expect("the parent") == parent_before,
                "{what}: the parent is untouched"
            );
        }
    });
}

/// A split disk of two extents: requests that cross from one file to the next.
#[test]
fn writes_across_split_extents_read_alike() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let border = 4_194_304; // qemu's extents are 2 GiB
        for subformat in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
            let folder = scratch::folder();
            let path = folder.path().join("d.vmdk");
            qemu_create(&path, border + 1000, &format!("subformat={subformat}"));
            let disk = connection.must_open(&path, flags::READ_WRITE);
            let data = stamps(border - 150, 300, 4);
            disk.must_write(border - 150, &data);
            assert_same(&disk.must_read(border - 150, 300), &data, subformat);
            disk.must_write(border + 999, &stamp(border + 999, 4));
            assert_eq!(disk.write(border + 999, &[0; 1024]), code::OUT_OF_RANGE, "{subformat}");
            let blocks = disk.allocated_all(128);
            let holds =
                |sector| blocks.iter().any(|(start, count)| (*start..start + count).contains(&sector));
            assert!(holds(border - 1) && holds(border) && holds(border + 999), "{subformat}: {blocks:?}");
            assert!(!holds(border / 2), "{subformat}: {blocks:?}");
            assert_eq!(disk.close(), code::OK);
            let from = (border - 150) * 512;
            let mut io = Command::new("qemu-io");
            let read = format!("read -v {from} 16");
            let said = check(io.args(["-r", "-f", "vmdk", "-c", &read]).arg(&path)).out();
            let first: Vec<String> = data[..16].iter().map(|b| format!("{b:02x}")).collect();
            assert!(said.contains(&first.join(" ")), "{subformat}: {said}");
            tools::qemu_check(&path);
        }
    });
}

#[test]
fn a_sparse_disk_of_2_tib_reads_and_writes_at_both_ends() {
    requires!("qemu-img", "qemu-io");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let path = folder.path().join("big.vmdk");
        // The file's own tables must have sector numbers below 2^32 too.
        let capacity = (2u64 << 40) / 512 - (512 << 11) - 77;
        connection.must_create(&path, Spec::new(Kind::Sparse, capacity));
        let disk = connection.must_open(&path, flags::READ_WRITE);
        assert_eq!(disk.info().capacity, capacity);
        for start in [0, capacity / 2, capacity - 3] {
            disk.must_write(start, &stamps(start, 3, 6));
        }
        assert_eq!(disk.close(), code::OK);
        let disk = connection.must_open(&path, flags::READ_ONLY);
        for start in [0, capacity / 2, capacity - 3] {
            assert_same(&disk.must_read(start, 3), &stamps(start, 3, 6), "2 TiB");
        }
        let chunks: u64 = disk.allocated_all(128).iter().map(|(_, count)| count.div_ceil(128)).sum();
        assert_eq!(chunks, 3, "three grains are allocated");
        drop(disk);
        let from = (capacity - 3) * 512;
        let said = check(
            Command::new("qemu-io")
                .args(["-r", "-f", "vmdk", "-c", &format!("read -v {from} 16")])
                .arg(&path),
        )
        .out();
        let first: Vec<String> = stamp(capacity - 3, 6)[..16].iter().map(|b| format!("{b:02x}")).collect();
        assert!(said.contains(&first.join(" ")), "qemu reads the last sectors: {said}");
    });
}

/// Where a file of this size can be, and why nowhere.
fn room_for(bytes: u64) -> Result<tempfile::TempDir, String> {
    for parent in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        let Ok(folder) = tempfile::Builder::new().prefix("vixtest-").tempdir_in(&parent) else { continue };
        let probe = folder.path().join("probe");
        let made = std::fs::File::create(&probe).and_then(|file| file.set_len(bytes));
        let _ = std::fs::remove_file(&probe);
        if made.is_ok() {
            return Ok(folder);
        }
    }
    Err(format!("no file system here holds a file of {bytes} bytes"))
}

#[test]
fn a_flat_disk_of_62_tib_reads_writes_and_maps() {
    let bytes = 62u64 << 40;
    let folder = match room_for(bytes) {
        Ok(folder) => folder,
        Err(reason) => return scratch::skip(&reason),
    };
    drop(folder);
    in_child(|| {
        let folder = room_for(bytes).expect("room, as a moment ago");
        let connection = Vix::started().connect(false).expect("a connection");
        let capacity = bytes / 512;
        // Made by hand: Create may preallocate.
        let descriptor = format!(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"vmfs\"\n\n\
             # Extent description\nRW {capacity} VMFS \"huge-flat.vmdk\"\n\n\
             # The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n"
        );
        let path = folder.path().join("huge.vmdk");
        std::fs::write(&path, descriptor).expect("the descriptor");
        let flat = std::fs::File::create(folder.path().join("huge-flat.vmdk")).expect("the flat file");
        flat.set_len(bytes).expect("62 TiB of hole");
        let disk = connection.must_open(&path, flags::READ_WRITE);
        assert_eq!(disk.info().capacity, capacity);
        let places = [0, capacity / 3 / 128 * 128, capacity - 128];
        for start in places {
            disk.must_write(start, &stamps(start, 128, 8));
        }
        for start in places {
            assert_same(&disk.must_read(start, 128), &stamps(start, 128, 8), "62 TiB");
        }
        let chunk = 131_072;
        let listed = disk.allocated_all(chunk);
        let chunks: Vec<u64> = listed.iter().map(|(start, _)| start / chunk).collect();
        assert_eq!(chunks, places.map(|start| start / chunk), "{listed:?}");
        assert_eq!(disk.close(), code::OK);
    });
}

#[test]
fn a_new_disk_is_what_qemu_takes_it_for() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for (kind, name) in [(Kind::Sparse, "monolithicSparse"), (Kind::Flat, "monolithicFlat")] {
            let folder = scratch::folder();
            let path = folder.path().join("n.vmdk");
            connection.must_create(&path, Spec::new(kind, 20_480));
            let said = check(qemu_img(["info", "-f", "vmdk", "--output=json"]).arg(&path)).out();
            assert!(said.contains(&format!("\"create-type\": \"{name}\"")), "{said}");
            assert!(said.contains("\"virtual-size\": 10485760"), "{said}");
            assert!(said.contains("\"parent-cid\": 4294967295"), "{said}");
        }
    });
}

#[test]
fn reading_by_both_at_once_is_possible_and_ours_is_not_in_the_way() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(true).expect("a connection");
        let folder = scratch::folder();
        let path = folder.path().join("d.vmdk");
        qemu_create(&path, 1000, "subformat=monolithicSparse");
        let disk = connection.must_open(&path, flags::READ_ONLY);
        let theirs = qemu_content(&path, folder.path());
        assert_same(&disk.must_read(0, 1000), &theirs, "both at once");
    });
}
