//! Disks of each kind but hosted sparse with one thing wrong: every fault is told, or the file is refused, or the number
//! says nothing about the disk; what can be mended reads afterwards as an independent reader says, and nothing else changes.
#![allow(clippy::unwrap_used)]

#[macro_use]
mod common;
#[path = "common/crash_storage.rs"]
mod crash_storage;
#[path = "../fuzz/src/lib.rs"]
mod fuzz_bodies;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

use vixDiskLib::disk::Disk;
use vixDiskLib::disk::check::check_link;
use vixDiskLib::error::Result;
use vixDiskLib::format::check::Verdict;
use vixDiskLib::logging::Level;
use vixDiskLib::logging::Log;
use vixDiskLib::logging::Sink;
use vixDiskLib::storage::Access;
use vixDiskLib::storage::file_system::FileSystem;
use vixDiskLib::storage::file_system::Host;
use vixDiskLib::transport::local;

use common::images::Images;
use common::scratch;
use crash_storage::Random;
use crash_storage::Recorder;
use crash_storage::after_power_cut;
use fuzz_bodies::chain::options;
use fuzz_bodies::images;
use fuzz_bodies::images::Built;
use fuzz_bodies::images::StreamLayout;
use fuzz_bodies::store::Holey;
use fuzz_bodies::store::MemFolder;

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Sink for Lines {
    fn line(&self, _level: Level, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// A disk of one kind: the file under test and what goes with it.
struct Kind {
    built: Built,
    /// The descriptor, where it is a file of its own.
    descriptor: Option<String>,
    /// Numbers that say nothing that a check could judge, and why.
    silent: &'static [(&'static str, &'static str)],
    /// True for the kinds that are mended.
    mends: bool,
}

impl Kind {
    fn folder(&self, file: &Arc<Holey>) -> MemFolder {
        let mut files = vec![("d.vmdk".to_owned(), file.clone())];
        if let Some(text) = &self.descriptor {
            files =
                vec![("d.vmdk".to_owned(), Holey::new(text.as_bytes())), ("delta".to_owned(), file.clone())];
        }
        MemFolder::new(files)
    }
}

fn cowd() -> Kind {
    Kind {
        built: images::cowd(),
        descriptor: Some(images::descriptor(4100, "vmfsSparse", "RW 4100 VMFSSPARSE \"delta\"")),
        silent: &[
            ("generation", "what it counts is not known"),
            ("savedGeneration", "its part in telling a crash is not known"),
        ],
        mends: false,
    }
}

fn sesparse() -> Kind {
    let built = images::sesparse();
    let sectors = built.content.len() / 512;
    let line = format!("RW {sectors} SESPARSE \"delta\"");
    Kind {
        built,
        descriptor: Some(images::descriptor(sectors as u64, "seSparse", &line)),
        silent: &[
            ("capacity", "the header may round up to a whole grain"),
            ("volatileHeaderSize", "only where it begins is used"),
            ("journalHeaderSize", "only where it begins is used"),
            ("v.freeGT", "more tables may be in use than the directory names"),
            ("journal", "a larger or smaller journal is as good, if it is empty"),
            ("grainDirectory", "may be larger than needed"),
            ("grainTables", "may be larger than needed"),
            ("freeBitmap", "may be larger than needed"),
            ("backmapSize", "may be larger than needed"),
            ("grainsSize", "may be larger than needed"),
            ("bitmap", "a bit more says that a place is lost, which harms nobody"),
            ("gt[7] zero", "what else a zero grain's entry holds is not known"),
            ("gt[8] unmapped", "where the unmapped grain was does not matter"),
        ],
        mends: false,
    }
}

fn stream(layout: StreamLayout) -> Kind {
    Kind {
        built: images::stream(layout),
        descriptor: None,
        silent: &[
            ("version", "older files have lower ones"),
            ("flags", "unknown flags without consequences, and zero grains, which the disk has not"),
            ("capacity", "the header may round up to a whole grain"),
            ("descriptorSize", "the text ends before"),
            ("rgdOffset", "not used without its flag"),
            ("overHead", "the metadata may end before"),
            ("pad", "not used"),
            ("marker[", "padding and the like"),
            ("gt marker", "a table's marker is not needed where the directory names the table"),
            ("gd marker", "the same"),
            ("end marker", "the same"),
            ("newlines", "not used without its flag"),
        ],
        mends: true,
    }
}

fn run(folder: &MemFolder, repair: bool) -> (Result<Verdict>, Vec<String>) {
    let lines = Arc::new(Lines::default());
    let log = Log::new(lines.clone(), Level::Warning);
    let verdict = check_link(&folder.place("d.vmdk").unwrap(), repair, &log);
    let said = lines.0.lock().unwrap().clone();
    (verdict, said)
}

/// What can be read; `None`: it does not open, or not all of it reads.
fn content(folder: &MemFolder) -> Option<Vec<u8>> {
    let disk = Disk::open(folder.place("d.vmdk").unwrap(), &options(false)).ok()?;
    let mut bytes = vec![0x55; usize::try_from(disk.capacity()).unwrap()];
    disk.read(&mut bytes, 0).ok().map(|()| bytes)
}

fn whole(file: &Holey) -> Vec<u8> {
    file.peek(0, file.len() as usize).unwrap()
}

/// What each spoilt value came to.
#[derive(Default, Debug)]
struct Tally {
    refused: u32,
    told: u32,
    mended: u32,
    silent: u32,
}

/// Spoils every number of the file with every value that parsers stumble over. Returns the mended files.
fn each_field(kind: &Kind) -> (Tally, Vec<(String, Vec<u8>)>) {
    let sound = Holey::new(&kind.built.file);
    let (verdict, lines) = run(&kind.folder(&sound), false);
    assert_eq!(verdict.unwrap(), Verdict::default(), "as built: {lines:?}");
    assert!(content(&kind.folder(&sound)).unwrap() == kind.built.content);
    let (mut tally, mut mended, mut complaints) = (Tally::default(), Vec::new(), Vec::new());
    for field in &kind.built.fields {
        for value in images::nasty_values(kind.built.value(field), field.width) {
            let what = format!("{} = {value:#x}", field.name);
            let file = sound.copy();
            file.poke(field.at as u64, &value.to_le_bytes()[..field.width]);
            match judged(kind, &file, &what) {
                Judged::Refused => tally.refused += 1,
                Judged::Told => tally.told += 1,
                Judged::Mended => {
                    tally.mended += 1;
                    mended.push((what, whole(&file)));
                }
                Judged::Silent => {
                    tally.silent += 1;
                    if !kind.silent.iter().any(|(start, _)| field.name.starts_with(start)) {
                        complaints.push(format!("{what} is not told"));
                    }
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    (tally, mended)
}

enum Judged {
    Refused,
    Told,
    Mended,
    Silent,
}

fn judged(kind: &Kind, file: &Arc<Holey>, what: &str) -> Judged {
    let folder = kind.folder(file);
    let (before, read) = (kind.folder(&file.copy()), content(&folder));
    let (found, lines) = run(&before, false);
    assert!(content(&before) == read, "{what}: a check without repair changed something");
    let Ok(found) = found else {
        assert!(read.is_none(), "{what}: reads, but the check refuses it");
        assert!(run(&folder, true).0.is_err(), "{what}");
        return Judged::Refused;
    };
    assert_eq!(lines.len() as u64, found.found, "{what}: {lines:?}");
    if found.found == 0 {
        let read = read.unwrap_or_else(|| panic!("{what}: does not read, and nothing is told"));
        assert!(read == kind.built.content, "{what}: reads wrong, and nothing is told");
        return Judged::Silent;
    }
    let (verdict, lines) = run(&folder, true);
    let verdict = verdict.unwrap_or_else(|e| panic!("{what}: {e}; {lines:?}"));
    if verdict.left() > 0 {
        assert!(content(&folder) == read, "{what}: changed although not all can be mended: {lines:?}");
        return Judged::Told;
    }
    assert!(kind.mends, "{what}: this kind is never written to");
    assert!(content(&folder).unwrap() == kind.built.content, "{what}: mended to something wrong: {lines:?}");
    let (again, lines) = run(&folder, false);
    assert_eq!(again.unwrap(), Verdict::default(), "{what}: found again: {lines:?}");
    Judged::Mended
}

#[test]
fn each_field_of_a_cowd_file_spoilt_is_told_or_refused() {
    let (tally, _) = each_field(&cowd());
    assert!(tally.told > 300 && tally.mended == 0, "{tally:?}");
}

#[test]
fn each_field_of_a_sesparse_file_spoilt_is_told_or_refused() {
    let (tally, _) = each_field(&sesparse());
    assert!(tally.told > 600 && tally.mended == 0, "{tally:?}");
}

#[test]
fn each_field_of_a_stream_file_spoilt_is_told_or_refused_and_mended_from_the_grains() {
    let scratch = scratch::folder();
    for layout in [StreamLayout::Footer, StreamLayout::InFront] {
        let kind = stream(layout);
        let (tally, mended) = each_field(&kind);
        assert!(tally.told > 50 && tally.mended > 100, "{layout:?}: {tally:?}");
        println!("{layout:?}: {tally:?}");
        qemu_reads(scratch.path(), &kind, mended);
    }
}

/// qemu reads what was mended as what was put in.
fn qemu_reads(folder: &std::path::Path, kind: &Kind, mended: Vec<(String, Vec<u8>)>) {
    requires!("qemu-img");
    let different: BTreeMap<Vec<u8>, String> = mended.into_iter().map(|(what, file)| (file, what)).collect();
    for (file, what) in different {
        let (image, raw) = (folder.join("m.vmdk"), folder.join("m.raw"));
        std::fs::write(&image, file).unwrap();
        let done = std::process::Command::new("qemu-img")
            .args(["convert", "-f", "vmdk", "-O", "raw"])
            .args([&image, &raw])
            .output()
            .unwrap();
        assert!(done.status.success(), "{what}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(std::fs::read(&raw).unwrap() == kind.built.content, "{what}: qemu reads something else");
    }
}

/// A stream that ends anywhere: what its grains say comes back, or it is left as it is.
#[test]
fn a_stream_that_was_cut_gets_its_tables_back_from_the_grains_that_are_whole() {
    let kind = stream(StreamLayout::Footer);
    let records: Vec<(usize, usize)> = [2usize, 0, 4]
        .map(|grain| {
            let field =
                |name: &str| kind.built.fields.iter().find(|f| f.name == format!("marker[{grain}].{name}"));
            let (start, size) = (field("lba").unwrap(), field("size").unwrap());
            (grain, start.at + 12 + kind.built.value(size) as usize)
        })
        .into();
    for len in (16 * 512..kind.built.file.len()).step_by(64) {
        let what = format!("cut at {len}");
        let folder = kind.folder(&Holey::new(&kind.built.file[..len]));
        let (verdict, lines) = run(&folder, true);
        assert_eq!(verdict.unwrap().left(), 0, "{what}: {lines:?}");
        let mut expected = vec![0; kind.built.content.len()];
        for (grain, end) in &records {
            let part = grain * 4096..((grain + 1) * 4096).min(expected.len());
            if *end <= len {
                expected[part.clone()].copy_from_slice(&kind.built.content[part]);
            }
        }
        assert!(content(&folder).unwrap() == expected, "{what}: {lines:?}");
        let lost = records.iter().any(|(_, end)| *end > len);
        assert!(!lost || lines.iter().any(|line| line.contains("are lost")), "{what}: {lines:?}");
    }
}

/// Two numbers wrong at once: nothing that could be read becomes something else.
#[test]
fn two_fields_of_a_stream_spoilt_at_once_cost_nothing_that_was_readable() {
    let mut random = Random(77);
    let mut mended = 0;
    for layout in [StreamLayout::Footer, StreamLayout::InFront] {
        let kind = stream(layout);
        for round in 0..1500 {
            let mut file = kind.built.file.clone();
            let mut what = format!("{layout:?}, pair {round}");
            for _ in 0..2 {
                let field = &kind.built.fields[random.below(kind.built.fields.len() as u64) as usize];
                let values = images::nasty_values(kind.built.value(field), field.width);
                let value = match random.below(2) {
                    0 => values[random.below(values.len() as u64) as usize],
                    _ => random.below(40),
                };
                file[field.at..field.at + field.width].copy_from_slice(&value.to_le_bytes()[..field.width]);
                what += &format!(", {} = {value:#x}", field.name);
            }
            if round % 5 == 0 {
                file.truncate(file.len() - random.below(9000) as usize);
            }
            let folder = kind.folder(&Holey::new(&file));
            let before = sectors(&folder);
            let (verdict, lines) = run(&folder, true);
            mended += u32::from(verdict.is_ok_and(|v| v.found > 0 && v.left() == 0));
            nothing_worse(&before, &sectors(&folder), &kind.built.content, &format!("{what}: {lines:?}"));
        }
    }
    assert!(mended > 200, "{mended}");
}

/// Every sector that reads; empty: the disk does not open.
fn sectors(folder: &MemFolder) -> Vec<Option<Vec<u8>>> {
    let Ok(disk) = Disk::open(folder.place("d.vmdk").unwrap(), &options(false)) else { return Vec::new() };
    let read = |lba: u64| {
        let mut sector = vec![0x55; 512];
        disk.read(&mut sector, lba * 512).ok().map(|()| sector)
    };
    (0..(disk.capacity() / 512).min(4096)).map(read).collect()
}

/// What read right before reads right afterwards.
fn nothing_worse(before: &[Option<Vec<u8>>], after: &[Option<Vec<u8>>], truth: &[u8], what: &str) {
    for (lba, old) in before.iter().enumerate() {
        let right = truth.get(lba * 512..lba * 512 + 512);
        if old.is_some() && old.as_deref() == right {
            assert_eq!(after.get(lba).cloned().flatten().as_deref(), right, "{what}: sector {lba}");
        }
    }
}

fn recorder(file: &[u8]) -> Recorder {
    Recorder::new(&["d.vmdk".to_owned()], vec![file.to_vec()])
}

/// Streams whose repair writes something.
fn damaged_streams() -> Vec<(String, Kind, Vec<u8>)> {
    let mut all = Vec::new();
    for layout in [StreamLayout::Footer, StreamLayout::InFront] {
        let cases: &[(&str, u64)] = match layout {
            StreamLayout::Footer => {
                &[("gt[2]", 0), ("gd[0]", 1 << 20), ("footer.magic", 0), ("uncleanShutdown", 1)]
            }
            StreamLayout::InFront => {
                &[("gt[4]", 19), ("gd[0]", 0), ("gdOffset", 1 << 40), ("uncleanShutdown", 1)]
            }
        };
        for (name, value) in cases {
            let kind = stream(layout);
            let field = kind.built.fields.iter().find(|f| f.name == *name).unwrap();
            let file = kind.built.with(field, *value);
            all.push((format!("{layout:?}, {name} = {value}"), kind, file));
        }
    }
    all
}

fn mend(recorder: &Recorder) -> Result<Verdict> {
    check_link(&recorder.place("d.vmdk").unwrap(), true, &Log::none())
}

fn recorded_content(recorder: &Recorder) -> Vec<u8> {
    let disk = Disk::open(recorder.place("d.vmdk").unwrap(), &options(false)).unwrap();
    let mut bytes = vec![0x55; usize::try_from(disk.capacity()).unwrap()];
    disk.read(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_cut_during_the_repair_of_a_stream_is_mended_by_another_repair() {
    let mut random = Random(3);
    for (name, kind, file) in damaged_streams() {
        let mender = recorder(&file);
        assert_eq!(mend(&mender).unwrap().left(), 0, "{name}");
        let ops = mender.ops();
        for now in 0..=ops.len() {
            after_power_cut(&vec![file.clone()], &ops, now, &mut random, 8, &mut |left| {
                let again = recorder(&left[0]);
                let what = format!("{name}, cut after {now} of {}", ops.len());
                assert_eq!(mend(&again).unwrap_or_else(|e| panic!("{what}: {e}")).left(), 0, "{what}");
                assert!(recorded_content(&again) == kind.built.content, "{what}");
            });
        }
    }
}

#[test]
fn any_failing_call_during_the_repair_of_a_stream_is_told_and_mended_later() {
    for (name, kind, file) in damaged_streams() {
        for nth in 0.. {
            let mender = recorder(&file);
            mender.fail(nth, true);
            let verdict = mend(&mender);
            let failed = mender.heal();
            let what = format!("{name}, call {nth}");
            if !failed {
                assert_eq!(verdict.unwrap().left(), 0, "{what}");
                break;
            }
            assert!(
                verdict.is_err() || verdict.is_ok_and(|v| v.left() > 0),
                "{what}: the failure was hidden"
            );
            assert_eq!(mend(&mender).unwrap().left(), 0, "{what}");
            assert!(recorded_content(&mender) == kind.built.content, "{what}");
        }
    }
}

#[test]
fn an_unmapped_and_a_lost_place_of_a_sesparse_file_are_told_apart() {
    let kind = sesparse();
    let field = |name: &str| kind.built.fields.iter().find(|f| f.name == name).unwrap();
    // Place 3 was grain 8's, which is unmapped: that it is still in use is no fault. Place 4 is nobody's.
    for (bits, found) in [(0b0110_1111, 0), (0b0111_0111, 1), (0b0110_0110, 1)] {
        let folder = kind.folder(&Holey::new(&kind.built.with(field("bitmap[0]"), bits)));
        let (verdict, lines) = run(&folder, false);
        assert_eq!(verdict.unwrap().found, found, "{bits:#b}: {lines:?}");
    }
}

#[test]
fn a_delta_of_a_host_is_left_as_it_is_and_the_log_says_why() {
    for (mut kind, name, value) in [(cowd(), "uncleanShutdown", 1), (sesparse(), "v.freeGT", 0)] {
        let field = kind.built.fields.iter().find(|f| f.name == name).unwrap();
        let file = Holey::new(&kind.built.with(field, value));
        let before = whole(&file);
        for descriptor in [kind.descriptor.clone(), None] {
            kind.descriptor = descriptor;
            let (verdict, lines) = run(&kind.folder(&file), true);
            assert_eq!(verdict.unwrap(), Verdict { found: 1, mended: 0 }, "{lines:?}");
            assert!(lines.iter().any(|line| line.contains("belongs to its host")), "{lines:?}");
        }
        assert!(whole(&file) == before, "{name}");
    }
}

/// Flat disks: what their files can have wrong.
#[test]
fn flat_files_that_are_missing_or_have_another_length_are_told() {
    let text =
        |sectors: &str| images::descriptor(64, "monolithicFlat", &format!("RW {sectors} FLAT \"f\" 0"));
    let cases: [(&str, Option<usize>, u64, &str); 5] = [
        ("64", Some(64), 0, ""),
        ("64", Some(63), 1, "needs 32768 bytes"),
        ("64", Some(65), 1, "has 33280 bytes"),
        ("6", Some(64), 1, "knows of 3072"),
        ("64", None, 1, "no file"),
    ];
    for (sectors, len, found, word) in cases {
        let mut files = vec![("d.vmdk".to_owned(), Holey::new(text(sectors).as_bytes()))];
        files.extend(len.map(|len| ("f".to_owned(), Holey::new(&vec![7; len * 512]))));
        for repair in [false, true] {
            let (verdict, lines) = run(&MemFolder::new(files.clone()), repair);
            assert_eq!(verdict.unwrap(), Verdict { found, mended: 0 }, "{sectors}, {len:?}: {lines:?}");
            assert!(lines.iter().all(|line| line.contains(word)), "{lines:?}");
        }
    }
}

#[test]
fn extents_that_share_a_file_are_not_too_long() {
    let lines = "RW 8 FLAT \"f\" 2\nRW 5 ZERO\nRW 8 FLAT \"f\" 10";
    let files = [
        ("d.vmdk".to_owned(), Holey::new(images::descriptor(21, "custom", lines).as_bytes())),
        ("f".to_owned(), Holey::new(&[7; 9216])),
    ];
    let (verdict, lines) = run(&MemFolder::new(files), false);
    assert_eq!(verdict.unwrap(), Verdict::default(), "{lines:?}");
}

#[test]
fn every_extent_is_looked_at_although_one_is_no_extent() {
    let tiny = images::SparseSpec::tiny();
    let capacity = tiny.capacity;
    let lines = format!("RW {capacity} SPARSE \"s1\"\nRW {capacity} SPARSE \"s2\"");
    let part = images::sparse(&images::SparseSpec { descriptor: String::new(), ..tiny }).file;
    let mut unclean = part.clone();
    unclean[72] = 1;
    let files = [
        ("d.vmdk", Holey::new(images::descriptor(2 * capacity, "twoGbMaxExtentSparse", &lines).as_bytes())),
        ("s1", Holey::new(&part[..100])),
        ("s2", Holey::new(&unclean)),
    ]
    .map(|(name, file)| (name.to_owned(), file));
    let (verdict, lines) = run(&MemFolder::new(files), false);
    assert_eq!(verdict.unwrap().found, 2, "{lines:?}");
}

/// Whatever real writers made is found sound, but for what is wrong with some of the set on purpose.
#[test]
fn golden_images_are_found_sound() {
    let images = Images::find();
    let mut checked = 0;
    let more =
        ["vmdk/esxi-sesparse/sesparse-desc.vmdk", "vmdk/stream-converter/streamOptimizedWithMarkers.vmdk"];
    let more = more.map(str::to_owned).into_iter().filter(|path| images.has(path));
    for path in images.golden().into_iter().map(|golden| golden.path).chain(more) {
        let unpacked = images.unpack(&path);
        let host: Arc<dyn FileSystem> = Arc::new(Host);
        let (place, _folder) = local::open_place(&host, &unpacked.path(), Access::READ, false).unwrap();
        let lines = Arc::new(Lines::default());
        let verdict = check_link(&place, false, &Log::new(lines.clone(), Level::Warning));
        let said = lines.0.lock().unwrap().join("\n");
        let verdict = verdict.unwrap_or_else(|e| panic!("{path}: {e}; {said}"));
        // Their content ids were made zeros where they come from; one has the flag of a crash; a converter wrote a long
        // content id of its own.
        let known = said.contains("content id 00000000, but")
            || path.ends_with("unclean.vmdk")
            || path.ends_with("streamOptimizedWithMarkers.vmdk") && said.contains("but the long content id");
        assert_eq!(verdict.found, u64::from(known), "{path}: {said}");
        checked += 1;
    }
    assert!(checked > 0);
}
