//! SESparse deltas: golden images, chosen tables, every header field corrupted.
#![allow(clippy::unwrap_used, reason = "a test ends where its expectations do")]

mod packed;

use std::sync::Arc;
use std::sync::Mutex;

use packed::Base;
use packed::Rng;
use packed::content;
use packed::image;
use packed::memory;
use packed::patch;
use packed::pattern;
use packed::qemu_raw;
use packed::scan_agrees_with_map;
use packed::scanned;
use packed::sha256;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::format::Image;
use vixDiskLib::format::Mapping;
use vixDiskLib::format::Presence;
use vixDiskLib::format::sesparse::SeSparse;
use vixDiskLib::logging::Log;
use vixDiskLib::storage::Storage;

fn open(bytes: Vec<u8>) -> Result<SeSparse> {
    SeSparse::open(memory(bytes), Log::none(), "d-000001-sesparse.vmdk")
}

fn kind_of(bytes: Vec<u8>) -> ErrorKind {
    open(bytes).unwrap_err().kind()
}

const GRAIN: usize = 4096;
const MIB: u64 = 2048;

/// Sectors where the areas of [`Delta`] start.
const DIRECTORY: usize = 4096;
const TABLES: usize = 6144;
const GRAINS: usize = 12288;

/// A delta in the making.
struct Delta {
    file: Vec<u8>,
    tables: u32,
}

impl Delta {
    /// An empty delta of `sectors`, with room for 1 MiB of tables.
    fn new(sectors: u64) -> Self {
        let mut file = vec![0; GRAINS * 512];
        let words: [u64; 26] = [
            0xcafe_babe,
            0x0000_0002_0000_0001,
            sectors,
            8,
            64,
            0,
            0,
            0,
            0,
            0,
            1,
            1,
            2,
            2,
            MIB,
            MIB,
            2 * MIB,
            MIB,
            3 * MIB,
            MIB,
            4 * MIB,
            MIB,
            5 * MIB,
            MIB,
            6 * MIB,
            sectors.next_multiple_of(8),
        ];
        for (i, word) in words.into_iter().enumerate() {
            patch(&mut file, 8 * i, &word.to_le_bytes());
        }
        patch(&mut file, 512, &0xcafe_cafe_u64.to_le_bytes());
        Self { file, tables: 0 }
    }

    /// Where the entry of a grain stands; makes the table that it needs.
    fn entry_at(&mut self, number: u64) -> usize {
        let slot = DIRECTORY * 512 + 8 * (number / 4096) as usize;
        let held = u64::from_le_bytes(self.file[slot..slot + 8].try_into().unwrap());
        let index = match held {
            0 => {
                // Indexes from the top of what one MiB of tables holds, downwards: out of order.
                self.tables += 1;
                32 - self.tables
            }
            entry => entry as u32,
        };
        patch(&mut self.file, slot, &((0x1000_0000_u64 << 32) | u64::from(index)).to_le_bytes());
        TABLES * 512 + index as usize * 32768 + 8 * (number % 4096) as usize
    }

    fn entry(&mut self, number: u64, entry: u64) {
        let at = self.entry_at(number);
        patch(&mut self.file, at, &entry.to_le_bytes());
    }

    /// Puts a grain of data at an index of the grains area.
    fn data(&mut self, number: u64, index: u64, bytes: &[u8]) {
        self.entry(number, 3 << 60 | (index & 0xfff) << 48 | index >> 12);
        patch(&mut self.file, GRAINS * 512 + index as usize * GRAIN, bytes);
    }
}

#[test]
fn the_golden_chain_gives_its_content() {
    let Some(base) = image("synthetic/sesparse/se-base-flat.vmdk") else { return };
    let Some(delta) = image("synthetic/sesparse/se-000001-sesparse.vmdk") else { return };
    let (base, delta) = (Base::new(base), open(delta).unwrap());
    for step in [4096, 65536, 1 << 20, 98_765] {
        let expected = "20627c5baf8b63a3406b1377d2adbb3e244ac689ea78e18af4f902174f2107bb";
        assert_eq!(sha256(&[&delta, &base], step), expected, "step {step}");
    }
    scan_agrees_with_map(&delta);
    assert!(scanned(&delta, 0..delta.capacity()).iter().any(|(_, presence)| *presence == Presence::Zero));
}

#[test]
fn the_file_of_a_host_gives_its_content() {
    let Some(delta) = image("esxi-sesparse/sesparse.vmdk") else { return };
    let delta = open(delta).unwrap();
    assert_eq!(delta.capacity(), 536_870_912);
    let expected = "3afa48010241335528fe402f083fc9f3a1013a49485221443a78d9a8604e2f90";
    assert_eq!(sha256(&[&delta], 1 << 20), expected);
    scan_agrees_with_map(&delta);
}

#[test]
fn a_journal_to_be_replayed_is_refused() {
    let Some(dirty) = image("hostile/sesparse-dirty-sesparse.vmdk") else { return };
    let error = open(dirty).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsRepair);
    assert!(error.to_string().contains("journal"), "{error}");
}

#[test]
fn random_deltas_give_what_was_put_in() {
    let mut rng = Rng(42);
    for round in 0..20 {
        let sectors = 1 + rng.below(5 * 32768);
        let numbers = sectors.div_ceil(8);
        let base = pattern(round, sectors as usize * 512);
        let mut expected = base.clone();
        let mut delta = Delta::new(sectors);
        let mut index = rng.below(numbers.min(5000));
        let mut taken = std::collections::BTreeSet::new();
        for _ in 0..rng.below(15) {
            let (first, count, kind) = (rng.below(numbers), 1 + rng.below(300), rng.below(4));
            for number in (first..numbers.min(first + count)).filter(|&n| taken.insert(n)) {
                let at = number as usize * GRAIN;
                let end = expected.len().min(at + GRAIN);
                match kind {
                    0 => delta.entry(number, 0),
                    1 => delta.entry(number, 1 << 60 | rng.below(1 << 60)),
                    2 => delta.entry(number, 2 << 60),
                    _ => {
                        let data = pattern(number + 1_000_000, GRAIN);
                        delta.data(number, index % numbers, &data);
                        index += 1;
                        expected[at..end].copy_from_slice(&data[..end - at]);
                    }
                }
                if kind == 1 || kind == 2 {
                    expected[at..end].fill(0);
                }
            }
        }
        let image = open(delta.file).unwrap();
        let base = Base::new(base);
        assert!(content(&[&image, &base], 1 << 20) == expected, "round {round}");
        assert!(content(&[&image, &base], 33_333) == expected, "round {round}");
        scan_agrees_with_map(&image);
    }
}

#[test]
fn neighbouring_grains_are_one_run() {
    let mut delta = Delta::new(65536);
    for n in 0..600 {
        delta.data(1000 + n, 4000 + n, &pattern(n, GRAIN));
    }
    let image = open(delta.file).unwrap();
    let at = 1000 * GRAIN as u64;
    match image.map(at + 512, 1 << 21).unwrap() {
        (Mapping::Data { offset, .. }, run) => {
            assert_eq!(offset, (GRAINS as u64 * 512) + 4000 * 4096 + 512);
            assert_eq!(run, 1 << 21);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(image.map(0, u64::MAX).unwrap().1, at);
}

#[test]
fn qemu_reads_the_same() {
    let mut delta = Delta::new(3 * 32768 - 3);
    for (i, number) in [12287, 5000, 1, 0, 2, 8191, 8192].into_iter().enumerate() {
        delta.data(number, 5000 - 4 * i as u64, &pattern(number, GRAIN));
    }
    delta.entry(3, 2 << 60);
    delta.entry(4, 1 << 60 | 77);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("d-sesparse.vmdk"), &delta.file).unwrap();
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"seSparse\"\n\
         RW {} SESPARSE \"d-sesparse.vmdk\"\nddb.adapterType = \"lsilogic\"\n",
        3 * 32768 - 3
    );
    std::fs::write(folder.path().join("d.vmdk"), text).unwrap();
    let image = open(delta.file).unwrap();
    let Some(raw) = qemu_raw(&folder.path().join("d.vmdk")) else { return };
    assert!(content(&[&image], 1 << 20) == raw);
}

fn patched(good: &[u8], at: usize, value: u64) -> Vec<u8> {
    let mut bytes = good.to_vec();
    patch(&mut bytes, at, &value.to_le_bytes());
    bytes
}

#[test]
fn each_corrupt_header_field_leads_to_one_kind() {
    use ErrorKind::NeedsRepair;
    use ErrorKind::NotADisk;
    use ErrorKind::UnsupportedFeature;
    use ErrorKind::UnsupportedVersion;
    let mut delta = Delta::new(100_000);
    delta.data(1, 1, &pattern(1, GRAIN));
    let good = delta.file;
    assert!(open(good.clone()).is_ok());
    let table: &[(&str, usize, u64, ErrorKind)] = &[
        ("magic", 0, 0xcafe_babf, NotADisk),
        ("magic high", 0, 1 << 63 | 0xcafe_babe, NotADisk),
        ("version 2.0", 8, 0x2_0000_0000, UnsupportedVersion),
        ("version 3.1", 8, 0x3_0000_0001, UnsupportedVersion),
        ("capacity 0", 16, 0, NotADisk),
        ("capacity past the directory", 16, 131_072 * 32_768 + 1, NotADisk),
        ("capacity max", 16, u64::MAX, NotADisk),
        ("grain 16", 24, 16, UnsupportedFeature),
        ("grain 0", 24, 0, UnsupportedFeature),
        ("table 32", 32, 32, UnsupportedFeature),
        ("flags", 40, 1, UnsupportedFeature),
        ("flags high", 40, 1 << 63, UnsupportedFeature),
        ("reserved 1", 48, 1, UnsupportedFeature),
        ("reserved 4", 72, 1 << 40, UnsupportedFeature),
        ("volatile header 0", 80, 0, NotADisk),
        ("volatile header past the end", 80, 1 << 40, NotADisk),
        ("volatile header elsewhere", 80, 12287, NotADisk),
        ("volatile header overflows", 80, u64::MAX, NotADisk),
        ("volatile header empty", 88, 0, NotADisk),
        ("directory 0", 128, 0, NotADisk),
        ("directory in the tables", 128, 6144, NotADisk),
        ("directory on a half grain", 128, 4097, NotADisk),
        ("directory past the end", 128, 1 << 40, NotADisk),
        ("directory overflows", 128, u64::MAX - 7, NotADisk),
        ("directory empty", 136, 0, NotADisk),
        ("directory huge", 136, u64::MAX, NotADisk),
        ("tables in the directory", 144, 4096, NotADisk),
        ("tables huge", 152, 1 << 50, NotADisk),
        ("grains in the backmap", 192, 10240, NotADisk),
        ("grains on a half grain", 192, 12289, NotADisk),
        ("grains overflow", 200, u64::MAX, NotADisk),
        ("padding", 208, 1, UnsupportedFeature),
        ("padding end", 504, 1 << 56, UnsupportedFeature),
        ("volatile magic", 512, 0xcafe_caff, NotADisk),
        ("replay journal", 536, 1, NeedsRepair),
        ("replay journal high", 536, 1 << 63, NeedsRepair),
        ("volatile padding", 544, 1, UnsupportedFeature),
    ];
    for &(name, at, value, kind) in table {
        assert_eq!(kind_of(patched(&good, at, value)), kind, "{name}");
    }
    for len in [0, 8, 511, 512, 1023, DIRECTORY * 512, DIRECTORY * 512 + 24] {
        let error = open(good[..len].to_vec()).unwrap_err();
        assert_eq!(error.kind(), NotADisk, "{len} bytes: {error}");
    }
}

#[test]
fn entries_are_read_by_their_kind_and_nothing_else() {
    let mut delta = Delta::new(32768);
    delta.data(0, 0, &pattern(0, GRAIN));
    let good = delta.file.clone();
    let last = (good.len() as u64 - GRAINS as u64 * 512) / 4096;
    let rotated = |index: u64| 3 << 60 | (index & 0xfff) << 48 | index >> 12;
    let corrupt = [
        1,
        1 << 59,
        0x0fff_ffff_ffff_ffff,
        4 << 60,
        5 << 60,
        8 << 60,
        15 << 60,
        u64::MAX,
        rotated(last),
        rotated(4096),
        3 << 60 | 1,
        4 << 60 | 1,
        3 << 60 | 0xffff_ffff_ffff,
    ];
    for entry in corrupt {
        let at = delta.entry_at(7);
        let image = open(patched(&good, at, entry)).unwrap();
        let error = image.map(7 * 4096, 4096).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "entry {entry:#x}");
        assert!(error.to_string().contains(&format!("{entry:#x}")), "{error}");
        assert!(matches!(image.map(0, 4096).unwrap().0, Mapping::Data { .. }));
        assert!(matches!(image.map(8 * 4096, 4096).unwrap().0, Mapping::Unallocated));
    }
    for entry in [1 << 60, 1 << 60 | 5, 2 << 60, 2 << 60 | 1 << 48] {
        let at = delta.entry_at(7);
        let image = open(patched(&good, at, entry)).unwrap();
        assert!(matches!(image.map(7 * 4096, 4096).unwrap(), (Mapping::Zero, 4096)), "entry {entry:#x}");
    }
}

#[test]
fn an_index_behind_the_grains_area_is_corrupt_even_inside_the_file() {
    let mut delta = Delta::new(64);
    delta.data(0, 7, &pattern(0, GRAIN));
    delta.data(1, 8, &pattern(1, GRAIN));
    let image = open(delta.file).unwrap();
    assert!(matches!(image.map(0, 4096).unwrap(), (Mapping::Data { .. }, 4096)));
    assert_eq!(image.map(4096, 4096).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_bad_directory_entry_fails_its_table_and_no_other() {
    let mut delta = Delta::new(3 * 32768);
    delta.data(0, 0, &pattern(0, GRAIN));
    let mark = 0x1000_0000_u64 << 32;
    for entry in [1, 31, mark | 32, mark | 0xffff_ffff, 2 * mark, mark | 1 << 32 | 31, u64::MAX] {
        let image = open(patched(&delta.file, DIRECTORY * 512 + 8, entry)).unwrap();
        let error = image.map(4096 * 4096, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "entry {entry:#x}");
        assert!(matches!(image.map(0, 512).unwrap().0, Mapping::Data { .. }));
        assert!(matches!(image.map(2 * 4096 * 4096, 512).unwrap().0, Mapping::Unallocated));
        let parts = scanned(&image, 0..image.capacity());
        assert_eq!(parts[2], (4096 * 4096..2 * 4096 * 4096, Presence::Data), "unknown is not empty");
    }
}

/// A file of any size that is zero except for its head; counts what is read.
#[derive(Debug)]
struct Holey {
    head: Vec<u8>,
    size: u64,
    reads: Mutex<Vec<usize>>,
}

impl Storage for Holey {
    fn size(&self) -> Result<u64> {
        Ok(self.size)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        assert!(offset + buf.len() as u64 <= self.size);
        self.reads.lock().unwrap().push(buf.len());
        buf.fill(0);
        if let Some(rest) = self.head.get(offset as usize..) {
            let len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
        }
        Ok(())
    }
    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        unreachable!("nothing is written")
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn label(&self) -> String {
        "holey".into()
    }
}

#[test]
fn a_disk_of_62_tib_opens_with_two_reads() {
    let sectors = 62_u64 << 31;
    let mut delta = Delta::new(sectors);
    let directory = (sectors / 32768 * 8 / 512).next_multiple_of(MIB);
    let tables = sectors / 32768 * 64;
    let mut next = 2 * MIB;
    for (at, size) in [(128, directory), (144, tables), (160, MIB), (176, MIB), (192, sectors)] {
        patch(&mut delta.file, at, &next.to_le_bytes());
        patch(&mut delta.file, at + 8, &size.to_le_bytes());
        next += size;
    }
    delta.file.truncate(4096);
    let storage = Arc::new(Holey { head: delta.file, size: next * 512, reads: Mutex::default() });
    let image = SeSparse::open(Arc::clone(&storage) as _, Log::none(), "huge").unwrap();
    assert_eq!(*storage.reads.lock().unwrap(), [512, 512]);
    assert_eq!(image.capacity(), 62 << 40);
    let (mapping, run) = image.map((62 << 40) - (1 << 20), 1 << 20).unwrap();
    assert!(matches!(mapping, Mapping::Unallocated) && run == 1 << 20);
    assert_eq!(storage.reads.lock().unwrap()[2..], [4096]);
    assert_eq!(scanned(&image, 0..62 << 40), [(0..62 << 40, Presence::Unallocated)]);
    assert!(*storage.reads.lock().unwrap().iter().max().unwrap() <= 1 << 20);
}

#[test]
fn writing_is_refused_with_the_reason() {
    let image = open(Delta::new(100).file).unwrap();
    for error in [image.begin_writing().unwrap_err(), image.prepare(0, 512).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
        assert!(error.to_string().contains("belongs to its host"));
    }
}

/// Reads all that can be read of a file with a few bytes changed: anything but a panic is good.
#[test]
fn damaged_files_never_panic() {
    let mut rng = Rng(2028);
    let mut delta = Delta::new(100_001);
    delta.data(0, 0, &pattern(0, GRAIN));
    delta.data(12_500, 2, &pattern(2, GRAIN));
    delta.entry(1, 2 << 60);
    let table = delta.entry_at(0);
    let mut file = delta.file;
    for _ in 0..3000 {
        let mut undo = Vec::new();
        for _ in 0..1 + rng.below(3) {
            let parts = [0..208, 512..552, DIRECTORY * 512..DIRECTORY * 512 + 40, table..table + 64];
            let part = parts[rng.below(4) as usize].clone();
            let at = part.start + rng.below(part.len() as u64) as usize;
            undo.push((at, file[at]));
            file[at] = [0, 1, 0x7f, 0x80, 0xff, rng.next() as u8][rng.below(6) as usize];
        }
        let storage = Holey { head: std::mem::take(&mut file), size: 7 << 20, reads: Mutex::default() };
        let storage = Arc::new(storage);
        if let Ok(image) = SeSparse::open(Arc::clone(&storage) as _, Log::none(), "d") {
            let mut buf = vec![0; 100_000];
            for at in [0, 1000, image.capacity().saturating_sub(100_000)] {
                let at = at.min(image.capacity());
                let len = buf.len().min((image.capacity() - at) as usize);
                let _ = packed::read(&[&image], at, &mut buf[..len]);
            }
            let _ = image.scan(0..image.capacity().min(1 << 40), &mut |_, _| ());
        }
        file = Arc::into_inner(storage).unwrap().head;
        undo.into_iter().rev().for_each(|(at, byte)| file[at] = byte);
    }
}
