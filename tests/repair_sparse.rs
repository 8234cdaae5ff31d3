//! Sparse disks with one thing wrong, checked and mended: what could be read before reads the same afterwards, a mended
//! disk is found sound and takes writes, and a cut or a failing call in the middle of the repair does no harm.
#![allow(clippy::unwrap_used)]

#[path = "common/crash_storage.rs"]
mod crash_storage;
#[path = "../fuzz/src/lib.rs"]
mod fuzz_bodies;

use std::sync::Arc;
use std::sync::Mutex;

use vixDiskLib::disk::Disk;
use vixDiskLib::disk::check::check_link;
use vixDiskLib::error::Result;
use vixDiskLib::format::check::Verdict;
use vixDiskLib::logging::Level;
use vixDiskLib::logging::Log;
use vixDiskLib::logging::Sink;

use crash_storage::Files;
use crash_storage::Random;
use crash_storage::Recorder;
use crash_storage::after_power_cut;
use crash_storage::telling_positions;
use fuzz_bodies::chain::options;
use fuzz_bodies::images;
use fuzz_bodies::images::Built;
use fuzz_bodies::images::SparseSpec;

type Sector = Option<[u8; 512]>;

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Sink for Lines {
    fn line(&self, _level: Level, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// A disk of two tables; the grains stand out of order.
fn spec() -> SparseSpec {
    let mut spec = SparseSpec { version: 1, flags: 3, zero: Vec::new(), ..SparseSpec::two_tables() };
    spec.descriptor += &format!("ddb.toolsVersion = \"{}\"\n", "7".repeat(500));
    spec
}

fn built() -> Built {
    images::sparse(&spec())
}

fn recorder(files: &Files) -> Recorder {
    let names: Vec<String> = ["d.vmdk", "p.vmdk"].iter().take(files.len()).map(|n| (*n).to_owned()).collect();
    Recorder::new(&names, files.clone())
}

fn run(recorder: &Recorder, repair: bool) -> (Result<Verdict>, Vec<String>) {
    let lines = Arc::new(Lines::default());
    let log = Log::new(lines.clone(), Level::Warning);
    let verdict = check_link(&recorder.place("d.vmdk").unwrap(), repair, &log);
    let said = lines.0.lock().unwrap().clone();
    (verdict, said)
}

/// What can be read, sector by sector; `None`: the disk does not open.
fn content(files: &Files) -> Option<Vec<Sector>> {
    let recorder = recorder(files);
    let disk = Disk::open(recorder.place("d.vmdk").unwrap(), &options(false)).ok()?;
    let read = |lba: u64| {
        let mut sector = [0x55; 512];
        disk.read(&mut sector, lba * 512).ok().map(|()| sector)
    };
    Some((0..disk.capacity() / 512).map(read).collect())
}

/// Nothing that was readable has changed, unless to what is known to be right.
fn nothing_worse(before: &Files, after: &Files, truth: &[u8], lossy: bool, what: &str) {
    assert!(before[0].len() <= after[0].len() || before[0][72] != 0, "{what}: a file that was closed is cut");
    let Some(before) = content(before) else { return };
    let after = content(after).unwrap_or_else(|| panic!("{what}: does not open any more"));
    for (lba, (old, new)) in before.iter().zip(&after).enumerate() {
        let right: &[u8] = truth.get(lba * 512..lba * 512 + 512).unwrap_or(&[]);
        // A single fault costs nothing; of two, one may hide what the other one names, and what is wrong may stay wrong.
        let wrong = |sector: &[u8; 512]| !right.is_empty() && sector[..] != *right;
        let fits = match (old, new) {
            (Some(old), Some(new)) => old == new || new[..] == *right || (lossy && wrong(old)),
            (Some(old), None) => lossy && wrong(old),
            (None, None) => true,
            (None, Some(new)) => lossy || new[..] == *right,
        };
        let brief = |sector: &Sector| sector.map(|bytes| bytes[..8].to_vec());
        assert!(
            fits,
            "{what}: sector {lba} was {:x?}, became {:x?}, {:x?} is right",
            brief(old),
            brief(new),
            &right[..8]
        );
    }
}

/// The disk is sound: nothing is found, it takes writes, and they stay.
fn sound(files: &Files, what: &str) {
    let recorder = recorder(files);
    let (verdict, lines) = run(&recorder, false);
    assert_eq!(verdict.unwrap(), Verdict::default(), "{what}: found again: {lines:?}");
    let disk = Disk::open(recorder.place("d.vmdk").unwrap(), &options(true))
        .unwrap_or_else(|e| panic!("{what}: does not open for writing: {e}"));
    disk.write(&[0x5a; 4096], 40 * 512).unwrap();
    disk.finish().unwrap();
    let disk = Disk::open(recorder.place("d.vmdk").unwrap(), &options(true)).unwrap();
    let mut sector = [0; 512];
    disk.read(&mut sector, 41 * 512).unwrap();
    assert_eq!(sector, [0x5a; 512], "{what}");
}

/// Checks and mends; says what the repair came to.
fn mended(files: &Files, truth: &[u8], what: &str) -> (Option<Verdict>, Vec<String>) {
    let looker = recorder(files);
    let (found, _) = run(&looker, false);
    assert_eq!(looker.position(), 0, "{what}: a check without repair changed something");
    let mender = recorder(files);
    let (verdict, lines) = run(&mender, true);
    nothing_worse(files, &mender.files(), truth, !what.starts_with("field"), what);
    let Ok(verdict) = verdict else { return (None, lines) };
    // What a mended file leads on to is found in the same go.
    assert!(found.unwrap().found <= verdict.found, "{what}: repair overlooks something");
    assert_eq!(lines.len() as u64, verdict.found, "{what}: {lines:?}");
    if verdict.left() == 0 {
        sound(&mender.files(), what);
    }
    (Some(verdict), lines)
}

#[test]
fn a_sound_disk_is_found_sound() {
    let built = built();
    sound(&vec![built.file.clone()], "as built");
    let (verdict, lines) = mended(&vec![built.file], &built.content, "as built");
    assert_eq!((verdict, lines), (Some(Verdict::default()), vec![]));
}

#[test]
fn each_field_spoilt_in_each_way_is_mended_or_left_alone() {
    let built = built();
    let (mut cured, mut left, mut refused) = (0, 0, 0);
    for field in &built.fields {
        for value in images::nasty_values(built.value(field), field.width) {
            let what = format!("field {} = {value:#x}", field.name);
            let files = vec![built.with(field, value)];
            match mended(&files, &built.content, &what).0 {
                Some(verdict) if verdict.left() == 0 => cured += usize::from(verdict.found > 0),
                Some(_) => left += 1,
                None => refused += 1,
            }
        }
    }
    assert!(cured > 150 && left + refused > 50, "{cured} cured, {left} left, {refused} refused");
}

#[test]
fn two_fields_spoilt_at_once_cost_nothing_that_was_readable() {
    let built = built();
    let mut random = Random(41);
    let mut cured = 0;
    for round in 0..1500 {
        let mut file = built.file.clone();
        let mut what = format!("pair {round}");
        for _ in 0..2 {
            let field = &built.fields[random.below(built.fields.len() as u64) as usize];
            let values = images::nasty_values(built.value(field), field.width);
            // Places that exist are where mistakes hurt.
            let value = match random.below(3) {
                0 => values[random.below(values.len() as u64) as usize],
                1 => random.below(60),
                _ => built.value(&built.fields[random.below(built.fields.len() as u64) as usize]),
            };
            file[field.at..field.at + field.width].copy_from_slice(&value.to_le_bytes()[..field.width]);
            what += &format!(", {} = {value:#x}", field.name);
        }
        if let Some(verdict) = mended(&vec![file], &built.content, &what).0 {
            cured += usize::from(verdict.found > 0 && verdict.left() == 0);
        }
    }
    assert!(cured > 100, "{cured} cured");
}

/// Poke words into the file.
fn spoilt(changes: &[(&str, u64)]) -> (Files, Vec<u8>) {
    let built = built();
    let mut file = built.file.clone();
    for (name, value) in changes {
        let field = built.fields.iter().find(|f| f.name == *name).unwrap_or_else(|| panic!("{name}"));
        file[field.at..field.at + field.width].copy_from_slice(&value.to_le_bytes()[..field.width]);
    }
    (vec![file], built.content)
}

fn value(name: &str) -> u64 {
    let built = built();
    built.value(built.fields.iter().find(|f| f.name == name).unwrap())
}

/// A name, fields with values, whether all of it is mended, and a word of the report.
type Case = (&'static str, Vec<(&'static str, u64)>, bool, &'static str);

/// The damage of each kind.
fn cases() -> Vec<Case> {
    let (grain0, grain511) = (value("gt[0]"), value("gt[511]"));
    vec![
        ("unclean", vec![("uncleanShutdown", 1)], true, "did not close"),
        ("primary entry lost", vec![("gt[0]", 0)], true, "disagree"),
        ("redundant entry lost", vec![("rgt[0]", 0)], true, "disagree"),
        ("both name different data", vec![("rgt[0]", grain0 + 8)], true, "disagree"),
        ("grain used twice", vec![("gt[511]", grain0), ("rgt[511]", grain0)], true, "shares"),
        ("outside the file", vec![("gt[511]", 1 << 20), ("rgt[511]", 1 << 20)], true, "past the end"),
        ("outside in one table", vec![("gt[511]", 1 << 20)], true, "disagree"),
        ("among the tables", vec![("gt[511]", 12), ("rgt[511]", 12)], true, "among the tables"),
        ("primary table outside", vec![("gd[0]", 1 << 20)], true, "primary directory"),
        ("redundant table missing", vec![("rgd[1]", 0)], true, "redundant directory"),
        ("both tables outside", vec![("gd[0]", 1 << 20), ("rgd[0]", 1 << 20)], false, "impossible"),
        ("primary directory outside", vec![("gdOffset", 1 << 30)], true, "lies where"),
        ("redundant directory outside", vec![("rgdOffset", 1 << 30)], true, "lies where"),
        ("descriptor too large", vec![("descriptorSize", 1 << 40)], true, "header gives the descriptor"),
        ("descriptor too small", vec![("descriptorSize", 1)], true, "header gives the descriptor"),
        (
            "shifted into another",
            vec![("gt[511]", grain511 + 1), ("rgt[511]", grain511 + 1)],
            false,
            "overlap",
        ),
    ]
}

#[test]
fn each_kind_of_damage_is_told_and_mended_where_nothing_must_be_guessed() {
    for (name, changes, whole, word) in cases() {
        let (files, truth) = spoilt(&changes);
        let (verdict, lines) = mended(&files, &truth, name);
        assert!(lines.iter().any(|line| line.contains(word)), "{name}: {lines:?}");
        match verdict {
            Some(verdict) => assert_eq!(verdict.left() == 0, whole, "{name}: {lines:?}"),
            None => assert!(!whole, "{name}: refused: {lines:?}"),
        }
    }
}

#[test]
fn the_true_content_comes_back_where_a_copy_of_the_tables_has_it() {
    for changes in [
        vec![("gt[0]", 0)],
        vec![("gd[0]", 1 << 20)],
        vec![("gdOffset", 1 << 30)],
        vec![("gt[512]", 1 << 21)],
    ] {
        let (files, truth) = spoilt(&changes);
        let mender = recorder(&files);
        assert_eq!(run(&mender, true).0.unwrap().left(), 0);
        let got: Vec<u8> = content(&mender.files()).unwrap().into_iter().flat_map(|s| s.unwrap()).collect();
        assert!(got == truth, "{changes:?}");
    }
}

#[test]
fn a_grain_that_two_entries_name_is_split_and_both_can_be_written_to() {
    let grain0 = value("gt[0]");
    let (files, _) = spoilt(&[("gt[511]", grain0), ("rgt[511]", grain0)]);
    let mender = recorder(&files);
    assert_eq!(run(&mender, true).0.unwrap().left(), 0);
    let disk = Disk::open(mender.place("d.vmdk").unwrap(), &options(true)).unwrap();
    let mut before = vec![0; 4096];
    disk.read(&mut before, 0).unwrap();
    disk.write(&[0x11; 4096], 511 * 4096).unwrap();
    let mut after = vec![0; 4096];
    disk.read(&mut after, 0).unwrap();
    assert!(before == after);
}

#[test]
fn a_file_that_was_cut_short_keeps_what_is_left_of_it() {
    let built = built();
    let mut short = built.file.clone();
    short.truncate(built.file.len() - 6 * 512);
    let (verdict, lines) = mended(&vec![short.clone()], &built.content, "cut inside a grain");
    assert_eq!(verdict.unwrap().left(), 0, "{lines:?}");
    let last = *spec().data.last().unwrap() as usize * 8;
    let mender = recorder(&vec![short]);
    run(&mender, true).0.unwrap();
    let after = content(&mender.files()).unwrap();
    assert_eq!(after[last].unwrap()[..], built.content[last * 512..last * 512 + 512]);
    assert_eq!(after[last + 7], Some([0; 512]));
}

#[test]
fn what_a_child_lost_is_left_since_the_parent_would_show() {
    let parent = built();
    let line = format!("RW {} SPARSE \"d.vmdk\"", spec().capacity);
    let descriptor = images::child_descriptor("monolithicSparse", &line, "p.vmdk");
    let child = images::sparse(&SparseSpec { descriptor, data: vec![0, 511], ..spec() });
    let mut short = child.file.clone();
    short.truncate(child.file.len() - 6 * 512);
    let files = vec![short, parent.file];
    let mender = recorder(&files);
    let (verdict, lines) = run(&mender, true);
    assert_eq!(verdict.unwrap().left(), 1, "{lines:?}");
    nothing_worse(&files, &mender.files(), &[], true, "child");
    assert!(lines[0].contains("grain 511") && lines[0].contains("parent"), "{lines:?}");
}

#[test]
fn a_changed_parent_is_told_and_not_hidden() {
    let parent = built();
    let line = format!("RW {} SPARSE \"d.vmdk\"", spec().capacity);
    let descriptor = images::child_descriptor("monolithicSparse", &line, "p.vmdk");
    let child = images::sparse(&SparseSpec { descriptor, data: vec![0], ..spec() });
    let mut changed = parent.file.clone();
    let at = changed.windows(12).position(|w| w == b"CID=12345678").unwrap();
    changed[at + 4..at + 12].copy_from_slice(b"aaaaaaaa");
    let recorder = recorder(&vec![child.file, changed.clone()]);
    let (verdict, lines) = run(&recorder, true);
    assert_eq!(verdict.unwrap().left(), 1, "{lines:?}");
    assert!(lines[0].contains("12345678"), "{lines:?}");
    assert!(recorder.files()[1] == changed, "the parent was touched");
}

#[test]
fn a_long_content_id_that_does_not_fit_is_mended() {
    let built = built();
    let mut file = built.file.clone();
    let at = file.windows(8).position(|w| w == b"12345678").unwrap();
    file[at..at + 8].copy_from_slice(b"87654321");
    let (verdict, lines) = mended(&vec![file], &built.content, "long content id");
    assert_eq!(verdict, Some(Verdict { found: 1, mended: 1 }), "{lines:?}");
}

/// After a cut in the middle of a repair the disk can be repaired again, and nothing is worse.
#[test]
fn a_cut_during_repair_is_mended_by_another_repair() {
    for (name, changes, whole, _) in cases() {
        let (files, truth) = spoilt(&changes);
        let mender = recorder(&files);
        if run(&mender, true).0.is_err() {
            continue;
        }
        let ops = mender.ops();
        let mut random = Random(5);
        for now in telling_positions(&ops) {
            after_power_cut(&files, &ops, now, &mut random, 8, &mut |left| {
                let what = format!("{name}, cut after {now} of {}", ops.len());
                nothing_worse(&files, &left, &truth, true, &what);
                let (verdict, lines) = mended(&left, &truth, &what);
                assert!(!whole || verdict.is_some_and(|v| v.left() == 0), "{what}: {lines:?}");
            });
        }
    }
}

#[test]
fn any_failing_call_during_repair_is_told_and_does_no_harm() {
    for (name, changes, whole, _) in cases() {
        let (files, truth) = spoilt(&changes);
        for forever in [false, true] {
            for nth in 0.. {
                let mender = recorder(&files);
                mender.fail(nth, forever);
                let (verdict, _) = run(&mender, true);
                let failed = mender.heal();
                let what = format!("{name}, call {nth}, forever {forever}");
                nothing_worse(&files, &mender.files(), &truth, true, &what);
                if !failed {
                    break;
                }
                // A fault while the chain is looked at is a fault found; while mending it is an error.
                if let Ok(verdict) = verdict {
                    assert!(verdict.left() > 0, "{what}: the failure was hidden");
                }
                let (verdict, lines) = mended(&mender.files(), &truth, &what);
                assert!(!whole || verdict.is_some_and(|v| v.left() == 0), "{what}: {lines:?}");
            }
        }
    }
}
