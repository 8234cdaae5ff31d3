//! Disks of each kind but hosted sparse with one thing wrong: every fault is told, or the file is refused, or the number
//! says nothing about the disk; what can be mended reads afterwards as an independent reader says, and nothing else changes.
#![allow(clippy::unwrap_used)]

#[macro_use]
mod common;
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

/// Whatever real writers made is found sound, but for what is wrong with some of the set on purpose.
#[test]
fn golden_images_are_found_sound() {
    let images = Images::find();
    let mut checked = 0;
    for golden in images.golden() {
        let unpacked = images.unpack(&golden.path);
        let host: Arc<dyn FileSystem> = Arc::new(Host);
        let (place, _folder) = local::open_place(&host, &unpacked.path(), Access::READ, false).unwrap();
        let lines = Arc::new(Lines::default());
        let verdict = check_link(&place, false, &Log::new(lines.clone(), Level::Warning));
        let said = lines.0.lock().unwrap().join("\n");
        let verdict = verdict.unwrap_or_else(|e| panic!("{}: {e}; {said}", golden.path));
        // Their content ids were made zeros where they come from; one has the flag of a crash.
        let known = said.contains("content id 00000000, but") || golden.path.ends_with("unclean.vmdk");
        assert_eq!(verdict.found, u64::from(known), "{}: {said}", golden.path);
        checked += 1;
    }
    assert!(checked > 0);
}
