//! Every image of the set through the C interface: content by hash with many request sizes, asynchronous reads, unaligned
//! buffers, allocated blocks against content and against qemu, and the hostile ones: what each must lead to, in bounded
//! time and memory.

#[macro_use]
mod common;

use std::path::Path;
use std::time::Duration;

use common::child::in_child;
use common::child::in_child_within;
use common::images::Golden;
use common::images::Images;
use common::images::Unpacked;
use common::model;
use common::model::is_zero;
use common::tools;
use common::vix;
use common::vix::Disk;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

/// Disks above this are read with large requests only.
const SMALL: u64 = 64 << 20;

/// Runs `check` on every golden image, opened read-only.
fn for_each_image(mut check: impl FnMut(&Golden, &Unpacked, &Disk<'_>)) {
    let vix = Vix::started();
    let connection = vix.connect(true).expect("a connection");
    let images = Images::find();
    for golden in images.golden() {
        let unpacked = images.unpack(&golden.path);
        let disk = match connection.open(&unpacked.path(), flags::READ_ONLY) {
            Ok(disk) => disk,
            Err(e) => panic!("{}: Open = {e}\n{}", golden.path, vix::log_text()),
        };
        check(&golden, &unpacked, &disk);
        assert_eq!(disk.close(), code::OK, "{}: Close", golden.path);
        vix::forget_log();
    }
    let warned: Vec<_> = vix::log_lines().into_iter().filter(|(l, _)| *l != vix::Level::Log).collect();
    assert!(warned.is_empty(), "good images lead to no warning: {warned:?}");
}

/// The pieces of a whole disk in requests of `step` sectors, the last one shorter.
fn pieces(capacity: u64, step: u64) -> Vec<(u64, u64)> {
    (0..capacity.div_ceil(step)).map(|n| (n * step, step.min(capacity - n * step))).collect()
}

fn content(disk: &Disk<'_>, capacity: u64, step: u64) -> Vec<u8> {
    let mut all = vec![0xA5u8; (capacity * 512) as usize];
    for (start, count) in pieces(capacity, step) {
        let part = &mut all[(start * 512) as usize..((start + count) * 512) as usize];
        assert_eq!(disk.read(start, part), code::OK, "Read({start}, {count})\n{}", vix::log_text());
    }
    all
}

#[test]
fn every_image_has_its_capacity_and_hash() {
    in_child(|| {
        for_each_image(|golden, _, disk| {
            assert_eq!(disk.info().capacity * 512, golden.size, "{}", golden.path);
            let capacity = golden.size / 512;
            let mut hash = model::Hasher::default();
            let mut buf = vec![0xA5u8; 4 << 20];
            for (start, count) in pieces(capacity, 8192) {
                let part = &mut buf[..(count * 512) as usize];
                assert_eq!(disk.read(start, part), code::OK, "{}: Read({start}, {count})", golden.path);
                hash.add(part);
            }
            assert_eq!(hash.hex(), golden.sha256, "{} ({})", golden.path, golden.variant);
        });
    });
}

#[test]
fn every_request_size_reads_the_same() {
    in_child(|| {
        for_each_image(|golden, _, disk| {
            let capacity = golden.size / 512;
            if golden.size > SMALL {
                return; // the hash test reads it whole
            }
            let expected = content(disk, capacity, 8192);
            assert_eq!(model::sha256(&expected), golden.sha256, "{}", golden.path);
            for step in [1, 3, 17, 127, 128, 129, 1000, 2048, 4097] {
                let got = content(disk, capacity, step);
                assert!(got == expected, "{}: requests of {step} sectors read something else", golden.path);
            }
        });
    });
}

#[test]
fn asynchronous_reads_into_unaligned_buffers_read_the_same() {
    in_child(|| {
        for_each_image(|golden, _, disk| {
            let capacity = golden.size / 512;
            let whole = capacity.min(SMALL / 512);
            for (step, misalign) in [(8192, 0), (128, 1), (37, 16), (1, 3632), (777, 1984), (256, 511)] {
                if step < 128 && whole > 40_000 {
                    continue; // tens of thousands of tiny requests add nothing on the largest disk
                }
                let got = disk.read_many(&pieces(whole, step), 8, misalign);
                let got = got.unwrap_or_else(|e| panic!("{}: {e}\n{}", golden.path, vix::log_text()));
                let hash = model::sha256(&got);
                if whole == capacity {
                    assert_eq!(hash, golden.sha256, "{}: {step} sectors, shift {misalign}", golden.path);
                } else {
                    assert!(got == content(disk, whole, 8192), "{}: {step} sectors", golden.path);
                }
            }
        });
    });
}

#[test]
fn unbuffered_reads_into_unaligned_buffers_read_the_same() {
    in_child(|| {
        let vix = Vix::started();
        let connection = vix.connect(true).expect("a connection");
        let images = Images::find();
        for golden in images.golden() {
            if golden.size > SMALL {
                continue;
            }
            let unpacked = images.unpack(&golden.path);
            let disk = connection.must_open(&unpacked.path(), flags::READ_ONLY | flags::UNBUFFERED);
            for (step, misalign) in [(8192, 0), (129, 16), (5, 1312)] {
                let got = disk.read_many(&pieces(golden.size / 512, step), 8, misalign);
                let got = got.unwrap_or_else(|e| panic!("{}: {e}\n{}", golden.path, vix::log_text()));
                assert_eq!(model::sha256(&got), golden.sha256, "{}: {step}, {misalign}", golden.path);
            }
        }
    });
}

#[test]
fn random_reads_return_what_sequential_reads_return() {
    in_child(|| {
        for_each_image(|golden, _, disk| {
            let capacity = (golden.size / 512).min(SMALL / 512);
            let expected = content(disk, capacity, 8192);
            let mut rng = model::Rng::new(capacity);
            for _ in 0..400 {
                let count = rng.between(1, 300.min(capacity + 1));
                let start = rng.below(capacity - count + 1);
                let got = disk.must_read(start, count);
                let want = &expected[(start * 512) as usize..((start + count) * 512) as usize];
                assert!(got == want, "{}: {count} sectors at {start}", golden.path);
            }
        });
    });
}

#[test]
fn reading_past_the_end_is_out_of_range_and_reads_nothing() {
    in_child(|| {
        for_each_image(|golden, _, disk| {
            let capacity = golden.size / 512;
            let mut buf = vec![0xA5u8; 1024];
            assert_eq!(disk.read(capacity - 1, &mut buf), code::OUT_OF_RANGE, "{}", golden.path);
            assert!(buf.iter().all(|b| *b == 0xA5), "{}: a refused read transfers nothing", golden.path);
            for (start, count) in [(capacity, 1), (capacity + 1, 0), (u64::MAX, 1), (u64::MAX, u64::MAX)] {
                assert_eq!(disk.read_refused(start, count), code::OUT_OF_RANGE, "{}: {start}", golden.path);
            }
            assert_eq!(disk.read_refused(1, u64::MAX), code::OUT_OF_RANGE, "{}: overflow", golden.path);
            assert_eq!(disk.read(capacity, &mut []), code::OK, "{}: nothing at the end", golden.path);
        });
    });
}

/// Which chunks a list names; checks that it is ascending, disjoint, non-empty, clipped and merged.
fn listed(blocks: &[(u64, u64)], chunk: u64, capacity: u64) -> Vec<bool> {
    let mut chunks = vec![false; capacity.div_ceil(chunk) as usize];
    let mut end = 0;
    for (n, (start, length)) in blocks.iter().enumerate() {
        assert!(*length > 0 && (n == 0 || *start >= end), "ascending and disjoint: {blocks:?}");
        end = start + length;
        assert!(end <= capacity, "clipped at the end: {blocks:?}");
        assert!(start % chunk == 0 && (end % chunk == 0 || end == capacity), "whole chunks: {blocks:?}");
        chunks[(start / chunk) as usize..end.div_ceil(chunk) as usize].fill(true);
    }
    chunks
}

#[test]
fn everything_unlisted_reads_as_zeros() {
    in_child(|| {
        for_each_image(|golden, _, disk| {
            let capacity = golden.size / 512;
            let all = content(disk, capacity, 8192);
            for chunk in [128, 200, 2048, capacity.max(128)] {
                let listed = listed(&disk.allocated_all(chunk), chunk, capacity);
                for (n, part) in all.chunks((chunk * 512) as usize).enumerate() {
                    assert!(
                        listed[n] || is_zero(part),
                        "{}: chunk {n} of {chunk} sectors holds data but is not listed",
                        golden.path
                    );
                }
            }
        });
    });
}

/// What qemu says is allocated, as byte ranges; `None` when it does not read the image.
fn qemu_allocated(path: &Path) -> Option<Vec<(u64, u64)>> {
    let outcome = tools::run(tools::qemu_img(["map", "-f", "vmdk", "--output=json"]).arg(path));
    if !outcome.status.success() {
        return None;
    }
    let field = |object: &str, name: &str| -> String {
        let at = object.find(&format!("\"{name}\": ")).expect("a field of qemu's map") + name.len() + 4;
        object[at..].split([',', '}']).next().expect("a value").trim().to_owned()
    };
    let text = outcome.out();
    let objects = text.split('{').skip(1);
    let ranges = objects.filter(|o| field(o, "data") == "true" && field(o, "zero") == "false").map(|o| {
        let number = |name| field(o, name).parse::<u64>().expect("a number");
        (number("start"), number("length"))
    });
    Some(ranges.collect())
}

#[test]
fn listed_chunks_are_those_that_qemu_calls_allocated() {
    requires!("qemu-img");
    in_child(|| {
        let mut compared = 0;
        for_each_image(|golden, unpacked, disk| {
            let Some(ranges) = qemu_allocated(&unpacked.path()) else {
                return;
            };
            let capacity = golden.size / 512;
            for chunk in [128, 2048] {
                let listed = listed(&disk.allocated_all(chunk), chunk, capacity);
                let mut expected = vec![false; listed.len()];
                for (start, length) in &ranges {
                    let (first, last) = (start / 512 / chunk, (start + length - 1) / 512 / chunk);
                    expected[first as usize..=last as usize].fill(true);
                }
                let wrong: Vec<usize> = (0..listed.len()).filter(|n| listed[*n] != expected[*n]).collect();
                assert!(
                    wrong.is_empty(),
                    "{}: chunks of {chunk} sectors where qemu disagrees: {wrong:?}",
                    golden.path
                );
            }
            compared += 1;
        });
        assert!(compared > 0, "qemu reads at least one of the images");
    });
}

/// Images whose every allocated chunk holds something, so that the content alone says what must be listed. Those that
/// qemu cannot read are among them.
#[test]
fn listed_chunks_are_those_with_data_where_no_allocated_chunk_is_empty() {
    in_child(|| {
        for_each_image(|golden, _, disk| {
            let exact = ["/crlf-case.vmdk", "/custom.vmdk", "/cowd-000001.vmdk", "/cowd-000002.vmdk"];
            if !exact.iter().any(|name| golden.path.ends_with(name)) {
                return;
            }
            let capacity = golden.size / 512;
            let all = content(disk, capacity, 8192);
            let listed = listed(&disk.allocated_all(128), 128, capacity);
            for (n, part) in all.chunks(128 * 512).enumerate() {
                assert_eq!(listed[n], !is_zero(part), "{}: chunk {n}", golden.path);
            }
        });
    });
}

#[test]
fn a_query_answers_for_its_range_only() {
    in_child(|| {
        for_each_image(|golden, _, disk| {
            let capacity = golden.size / 512;
            let whole = listed(&disk.allocated_all(128), 128, capacity);
            let mut rng = model::Rng::new(7 + capacity);
            for _ in 0..50 {
                let first = rng.below(whole.len() as u64);
                let chunks = rng.between(1, whole.len() as u64 + 2 - first);
                let blocks = disk.allocated(first * 128, chunks * 128, 128).expect("a query");
                let end = ((first + chunks) * 128).min(capacity);
                let mut expected = vec![false; whole.len()];
                let last = (first + chunks).min(whole.len() as u64);
                expected[first as usize..last as usize]
                    .copy_from_slice(&whole[first as usize..last as usize]);
                assert!(
                    blocks.iter().all(|(start, n)| *start >= first * 128 && start + n <= end),
                    "{blocks:?}"
                );
                assert_eq!(listed(&blocks, 128, capacity), expected, "{}: {first}+{chunks}", golden.path);
            }
        });
    });
}

#[test]
fn queries_with_wrong_arguments_are_refused() {
    in_child(|| {
        for_each_image(|golden, _, disk| {
            let capacity = golden.size / 512;
            let refused = |start, count, chunk| disk.allocated(start, count, chunk).expect_err("a refusal");
            assert_eq!(refused(0, 128, 127), code::INVALID_ARG, "{}: a chunk too small", golden.path);
            assert_eq!(refused(0, 128, 0), code::INVALID_ARG, "{}: no chunk", golden.path);
            assert_eq!(refused(0, 128 * 524_289, 128), code::INVALID_ARG, "{}: too many chunks", golden.path);
            assert_eq!(refused(capacity, 128, 128), code::OUT_OF_RANGE, "{}: behind the end", golden.path);
            // The probe of nbdkit, on disks of any size.
            assert!(disk.allocated(0, 128, 128).is_ok(), "{}", golden.path);
        });
    });
}

#[test]
fn images_are_not_changed_by_reading() {
    in_child(|| {
        let vix = Vix::started();
        let connection = vix.connect(false).expect("a connection");
        let images = Images::find();
        for golden in images.golden().into_iter().filter(|golden| golden.size <= SMALL) {
            let unpacked = images.unpack(&golden.path);
            let before = folder_state(unpacked.folder());
            let disk = connection.must_open(&unpacked.path(), flags::READ_ONLY);
            content(&disk, golden.size / 512, 8192);
            disk.allocated_all(128);
            disk.metadata_keys();
            assert_eq!(disk.flush(), code::OK, "Flush of a read-only disk");
            assert_eq!(disk.wait(), code::OK, "Wait of a read-only disk");
            assert_eq!(disk.write(0, &[1u8; 512]), code::FILE_READ_ONLY, "{}", golden.path);
            assert_eq!(disk.set_metadata("comment", "x"), code::FILE_READ_ONLY, "{}", golden.path);
            assert_eq!(disk.transport(), "file");
            assert_eq!(folder_state(unpacked.folder()), before, "{}: also while it is open", golden.path);
            assert_eq!(disk.close(), code::OK);
            assert_eq!(folder_state(unpacked.folder()), before, "{}", golden.path);
        }
    });
}

/// Names and hashes of everything in a folder.
fn folder_state(folder: &Path) -> Vec<(String, String)> {
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let hash = if path.is_file() {
                model::sha256(&std::fs::read(&path).expect("a file"))
            } else {
                "-".into()
            };
            (name, hash)
        })
        .collect();
    all.sort();
    all
}

// ---------------------------------------------------------------------------------------------- hostile images

/// What a hostile image must lead to.
enum Wanted {
    /// `Open` fails with one of these codes.
    Refused(&'static [u64]),
    /// Opens; reading the grain at this sector fails with one of these codes, and every other grain reads right.
    GrainFails(u64, &'static [u64]),
    /// Opens and reads; opening for writing fails with one of these codes.
    NotWritable(&'static [u64]),
    /// Opens and reads through the redundant directory, and the log says so.
    ReadsRedundant,
}

use Wanted::GrainFails;
use Wanted::NotWritable;
use Wanted::ReadsRedundant;
use Wanted::Refused;

/// Codes for bytes that contradict themselves or end too early.
const BROKEN: &[u64] = &[code::CORRUPT, code::END_OF_FILE, code::FILE_ERROR];
/// Codes for a file whose header no reader should trust.
const NOT_A_DISK: &[u64] =
    &[code::INVALID_DISK, code::CORRUPT, code::UNSUPPORTED_VERSION, code::DISK_NOT_SUPPORTED];

const HOSTILE: &[(&str, Wanted)] = &[
    ("afl9.vmdk", Refused(NOT_A_DISK)),
    ("vmdk-invalid.img", Refused(&[code::INVALID_DISK])),
    ("ttylinux-truncated-stream.vmdk", Refused(&[code::INVALID_DISK, code::CORRUPT, code::END_OF_FILE])),
    ("gte-past-eof.vmdk", GrainFails(3 * 128, BROKEN)),
    ("gte-into-metadata.vmdk", GrainFails(3 * 128, BROKEN)),
    ("gd-past-eof.vmdk", ReadsRedundant),
    ("rgt-mismatch.vmdk", NotWritable(&[code::NEEDS_REPAIR])),
    ("newline-mangled.vmdk", Refused(NOT_A_DISK)),
    ("capacity-2e62.vmdk", Refused(NOT_A_DISK)),
    ("grainsize-zero.vmdk", Refused(NOT_A_DISK)),
    ("gtes-huge.vmdk", Refused(NOT_A_DISK)),
    ("truncated.vmdk", GrainFails(128, BROKEN)),
    ("unknown-incompat-flag.vmdk", Refused(&[code::DISK_NOT_SUPPORTED, code::INVALID_DISK])),
    ("so-bomb.vmdk", GrainFails(0, BROKEN)),
    ("so-size-huge.vmdk", GrainFails(0, BROKEN)),
    ("so-short-grain.vmdk", GrainFails(0, BROKEN)),
    ("desc-traversal.vmdk", Refused(&[code::ACCESS_ERROR, code::INVALID_DISK, code::CORRUPT, NAME_INVALID])),
    ("desc-overflow.vmdk", Refused(NOT_A_DISK)),
    ("desc-loop-a.vmdk", Refused(&[code::INVALID_CHAIN])),
    ("desc-loop-b.vmdk", Refused(&[code::INVALID_CHAIN])),
    ("sesparse-dirty.vmdk", Refused(&[code::NEEDS_REPAIR, code::DISK_NOT_SUPPORTED, code::CORRUPT])),
];

const NAME_INVALID: u64 = 22;

/// Memory that a process may have beyond what it has at the start of a hostile read.
const HEADROOM: u64 = 64 << 20;

/// The hostile images of the set: those of the table that it has. A small set may have none.
fn hostile_images() -> Vec<&'static str> {
    let images = Images::find();
    HOSTILE.iter().map(|(name, _)| *name).filter(|name| images.has(&format!("vmdk/hostile/{name}"))).collect()
}

#[test]
fn hostile_images_lead_to_errors_in_bounded_time_and_memory() {
    let present = hostile_images();
    let Some(first) = present.first() else {
        return common::scratch::note("this set of images has no hostile ones");
    };
    in_child_within(Duration::from_secs(30), || {
        let unpacked = Images::find().unpack(&format!("vmdk/hostile/{first}"));
        let vix = Vix::started();
        common::process::limit_address_space(common::process::address_space() + HEADROOM);
        let mut wrong = Vec::new();
        for (name, wanted) in HOSTILE.iter().filter(|(name, _)| present.contains(name)) {
            let started = std::time::Instant::now();
            if let Err(fault) = hostile(vix, &unpacked.sibling(name), wanted) {
                wrong.push(format!("{name}: {fault}"));
            }
            if started.elapsed() > Duration::from_secs(1) {
                wrong.push(format!("{name}: took {:?}", started.elapsed()));
            }
            vix::forget_log();
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// Every hostile file has a wanted behaviour in the table.
#[test]
fn no_hostile_image_is_left_out() {
    let Some(first) = hostile_images().first().copied() else {
        return common::scratch::note("this set of images has no hostile ones");
    };
    let unpacked = Images::find().unpack(&format!("vmdk/hostile/{first}"));
    for (name, _) in folder_state(unpacked.folder()) {
        let known = HOSTILE.iter().any(|(listed, _)| *listed == name);
        assert!(known || name == "sesparse-dirty-sesparse.vmdk", "{name} has no wanted behaviour");
    }
}

fn hostile(vix: &Vix, path: &Path, wanted: &Wanted) -> Result<(), String> {
    let connection = vix.connect(false).map_err(|e| format!("connect: {e}"))?;
    let opened = connection.open(path, flags::READ_ONLY);
    let disk = match (opened, wanted) {
        (Err(got), Refused(codes)) => {
            let read_write = connection.open(path, flags::READ_WRITE).err();
            return expect_code("Open", got, codes).and_then(|()| {
                read_write.map(drop).ok_or_else(|| "refused for reading but opens for writing".to_owned())
            });
        }
        (Err(got), _) => return Err(format!("Open = {got}\n{}", vix::log_text())),
        (Ok(disk), Refused(_)) => {
            return Err(format!("opens with {} sectors", disk.info().capacity));
        }
        (Ok(disk), _) => disk,
    };
    let capacity = disk.info().capacity;
    // Asking what is allocated may fail or not, but must come back.
    let _ = disk.allocated(0, capacity.div_ceil(128) * 128, 128);
    let mut failed = Vec::new();
    for start in (0..capacity).step_by(128) {
        let mut buf = vec![0xA5u8; (128.min(capacity - start) * 512) as usize];
        match disk.read(start, &mut buf) {
            code::OK => honest(start, &buf)?,
            got => failed.push((start, got)),
        }
    }
    drop(disk);
    match wanted {
        GrainFails(sector, codes) => {
            let [(start, got)] = failed[..] else {
                return Err(format!("exactly the grain at {sector} fails, but these did: {failed:?}"));
            };
            if start != *sector {
                return Err(format!("the grain at {sector} fails, not that at {start}"));
            }
            if connection.open(path, flags::READ_WRITE).is_ok() {
                return Err("opens for writing in spite of a bad table".to_owned());
            }
            expect_code("Read", got, codes)
        }
        NotWritable(codes) => {
            if !failed.is_empty() {
                return Err(format!("reads fail: {failed:?}"));
            }
            match connection.open(path, flags::READ_WRITE) {
                Ok(_) => Err("opens for writing".to_owned()),
                Err(got) => expect_code("Open for writing", got, codes),
            }
        }
        ReadsRedundant => {
            if !failed.is_empty() {
                return Err(format!("reads fail: {failed:?}"));
            }
            let first = connection.must_open(path, flags::READ_ONLY).must_read(0, 1);
            if is_zero(&first) {
                return Err("zeros for data that the redundant directory knows".to_owned());
            }
            let log = vix::log_text().to_lowercase();
            if log.contains("redundant") { Ok(()) } else { Err(format!("the log does not say it:\n{log}")) }
        }
        Refused(_) => unreachable!("handled above"),
    }
}

/// What was read is zeros or the sector's own pattern: nothing of the metadata, nothing of another sector.
fn honest(start: u64, bytes: &[u8]) -> Result<(), String> {
    for (sector, part) in (start..).zip(bytes.chunks(512)) {
        let number = format!("{sector:016}");
        let hexadecimal = format!("{sector:016x}");
        let text = String::from_utf8_lossy(&part[..32]).into_owned();
        if !is_zero(part) && !text.contains(&number) && !text.contains(&hexadecimal) {
            return Err(format!("sector {sector} holds something foreign: {text:?}"));
        }
    }
    Ok(())
}

fn expect_code(verb: &str, got: u64, codes: &[u64]) -> Result<(), String> {
    if codes.contains(&got) {
        let log = vix::log_text();
        // The cause belongs into the log, not just the number.
        return if log.len() > 40 {
            Ok(())
        } else {
            Err(format!("{verb} = {got}, but the log says nothing: {log}"))
        };
    }
    Err(format!("{verb} = {got}, expected one of {codes:?}\n{}", vix::log_text()))
}
