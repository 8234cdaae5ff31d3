//! COWD deltas: golden images, chosen tables, every header field corrupted.
#![allow(clippy::unwrap_used, reason = "a test ends where its expectations do")]

mod packed;

use std::sync::Arc;

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
use vixDiskLib::format::cowd::Cowd;
use vixDiskLib::logging::Log;

fn open(bytes: Vec<u8>) -> Result<Cowd> {
    Cowd::open(memory(bytes), Log::none(), "d-000001-delta.vmdk")
}

fn kind_of(bytes: Vec<u8>) -> ErrorKind {
    open(bytes).unwrap_err().kind()
}

/// A delta of `sectors` whose `grains` (number, content) stand in the file in the order given.
fn delta(sectors: u32, grain: u32, grains: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let tables = u64::from(sectors).div_ceil(4096 * u64::from(grain)) as usize;
    let mut file = vec![0; 2048];
    let fields = [0x4457_4f43, 1, 3, sectors, grain, 4, tables as u32, 0];
    for (i, field) in fields.into_iter().enumerate() {
        patch(&mut file, 4 * i, &field.to_le_bytes());
    }
    file.resize(2048 + (tables * 4).next_multiple_of(512), 0);
    let mut starts = vec![0; tables];
    for (number, bytes) in grains {
        let table = (number / 4096) as usize;
        if starts[table] == 0 {
            starts[table] = file.len();
            let sector = (file.len() / 512) as u32;
            patch(&mut file, 2048 + 4 * table, &sector.to_le_bytes());
            file.resize(file.len() + 16384, 0);
        }
        let sector = (file.len() / 512) as u32;
        patch(&mut file, starts[table] + 4 * (number % 4096) as usize, &sector.to_le_bytes());
        file.extend(bytes);
        file.resize(file.len().next_multiple_of(512), 0);
    }
    file
}

const CHAIN: [(&str, &str); 3] = [
    ("cowd-base-flat.vmdk", "f430fff57bdd429eb11a901c805f2fc2a465fdf314e14dbc92a437fc8a7a792b"),
    ("cowd-000001-delta.vmdk", "79d16c108c1462fd970fa57e487b53d3afeabb7705b431f8f4391181a3d95cac"),
    ("cowd-000002-delta.vmdk", "748ac0204b3383be234eada331ab8872a713270bdb67d968d42d3127ee429ae8"),
];

#[test]
fn the_golden_chain_gives_its_content() {
    let bytes = |i: usize| image(&format!("synthetic/cowd/{}", CHAIN[i].0));
    let (Some(base), Some(one), Some(two)) = (bytes(0), bytes(1), bytes(2)) else { return };
    let base = Base::new(base);
    let (one, two) = (open(one).unwrap(), open(two).unwrap());
    assert_eq!((one.capacity(), two.capacity()), (10247 * 512, 10247 * 512));
    for step in [512, 4096, 65536, 1 << 20, 12345] {
        assert_eq!(sha256(&[&base], step), CHAIN[0].1);
        assert_eq!(sha256(&[&one, &base], step), CHAIN[1].1);
        assert_eq!(sha256(&[&two, &one, &base], step), CHAIN[2].1);
    }
    scan_agrees_with_map(&one);
    scan_agrees_with_map(&two);
}

#[test]
fn random_deltas_give_what_was_put_in() {
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    for round in 0..60 {
        let grain = [1, 1, 2, 8, 3, 128][round % 6];
        let bytes = grain as usize * 512;
        let sectors = 1 + rng.below(5 * 4096 * u64::from(grain).min(8)) as u32;
        let numbers = u64::from(sectors).div_ceil(u64::from(grain));
        let mut expected = vec![0x77; sectors as usize * 512];
        let mut taken = std::collections::BTreeSet::new();
        let mut grains = Vec::new();
        for _ in 0..rng.below(12) {
            let (first, count) = (rng.below(numbers), 1 + rng.below(40));
            for number in (first..numbers.min(first + count)).filter(|&n| taken.insert(n)) {
                let data = pattern(number, bytes);
                let at = number as usize * bytes;
                let end = expected.len().min(at + bytes);
                expected[at..end].copy_from_slice(&data[..end - at]);
                grains.push((number, data));
            }
        }
        let image = open(delta(sectors, grain, &grains)).unwrap();
        let base = Base::new(vec![0x77; sectors as usize * 512]);
        assert!(content(&[&image, &base], 100_000) == expected, "round {round}");
        assert!(content(&[&image, &base], 1000) == expected, "round {round}");
        scan_agrees_with_map(&image);
        let data: u64 = scanned(&image, 0..image.capacity())
            .iter()
            .filter(|(_, presence)| *presence == Presence::Data)
            .map(|(part, _)| part.end - part.start)
            .sum();
        let end = sectors as usize * 512;
        let stored: usize = taken.iter().map(|&n| bytes.min(end - n as usize * bytes)).sum();
        assert_eq!(data, stored as u64, "round {round}");
    }
}

#[test]
fn neighbouring_sectors_are_one_run() {
    let grains: Vec<_> = (100..2148).map(|n| (n, pattern(n, 512))).collect();
    let image = open(delta(4096, 1, &grains)).unwrap();
    let (mapping, run) = image.map(100 * 512, 1 << 20).unwrap();
    assert!(matches!(mapping, Mapping::Data { .. }));
    assert_eq!(run, 1 << 20);
    let (mapping, run) = image.map(0, 1 << 20).unwrap();
    assert!(matches!(mapping, Mapping::Unallocated) && run == 100 * 512);
}

#[test]
fn qemu_reads_the_same() {
    let grains: Vec<_> = [5000, 4097, 0, 1, 2, 9000, 4096].map(|n| (n, pattern(n, 512))).into();
    let bytes = delta(9001, 1, &grains);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("d-delta.vmdk"), &bytes).unwrap();
    let text = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"vmfsSparse\"\n\
                RW 9001 VMFSSPARSE \"d-delta.vmdk\"\nddb.adapterType = \"lsilogic\"\n";
    std::fs::write(folder.path().join("d.vmdk"), text).unwrap();
    let Some(raw) = qemu_raw(&folder.path().join("d.vmdk")) else { return };
    assert!(content(&[&open(bytes).unwrap()], 1 << 20) == raw);
}

#[test]
fn each_corrupt_header_field_leads_to_one_kind() {
    use ErrorKind::NotADisk;
    use ErrorKind::UnsupportedFeature;
    use ErrorKind::UnsupportedVersion;
    let good = delta(10_000, 1, &[(0, pattern(0, 512)), (9999, pattern(9999, 512))]);
    assert!(open(good.clone()).is_ok());
    let table: &[(&str, usize, u32, ErrorKind)] = &[
        ("magic", 0, 0x4457_4f42, NotADisk),
        ("version 0", 4, 0, UnsupportedVersion),
        ("version 2", 4, 2, UnsupportedVersion),
        ("flag bit 2", 8, 7, UnsupportedFeature),
        ("flag bit 31", 8, 0x8000_0003, UnsupportedFeature),
        ("capacity 0", 12, 0, NotADisk),
        ("capacity past the directory", 12, 3 * 4096 + 1, NotADisk),
        ("capacity max", 12, u32::MAX, NotADisk),
        ("grain 0", 16, 0, NotADisk),
        ("grain 2049", 16, 2049, NotADisk),
        ("grain max", 16, u32::MAX, NotADisk),
        ("directory in the header", 20, 3, NotADisk),
        ("directory 0", 20, 0, NotADisk),
        ("directory past the end", 20, 0x0100_0000, NotADisk),
        ("directory max", 20, u32::MAX, NotADisk),
        ("too few entries", 24, 2, NotADisk),
        ("no entries", 24, 0, NotADisk),
    ];
    for &(name, at, value, kind) in table {
        let mut bytes = good.clone();
        patch(&mut bytes, at, &value.to_le_bytes());
        assert_eq!(kind_of(bytes), kind, "{name}");
    }
    for len in [0, 1, 4, 2047] {
        assert_eq!(kind_of(good[..len].to_vec()), NotADisk, "{len} bytes");
    }
    assert_eq!(kind_of(good[..2052].to_vec()), NotADisk, "directory cut");
}

#[test]
fn fields_without_meaning_for_readers_change_nothing() {
    let good = delta(10_000, 1, &[(0, pattern(0, 512)), (9999, pattern(9999, 512))]);
    let expected = content(&[&open(good.clone()).unwrap()], 1 << 20);
    for at in [28, 32, 36, 1056, 1060, 1064, 1636, 1640, 1648, 1652, 2044] {
        let mut bytes = good.clone();
        patch(&mut bytes, at, &u32::MAX.to_le_bytes());
        assert!(content(&[&open(bytes).unwrap()], 1 << 20) == expected, "byte {at}");
    }
}

#[test]
fn a_bad_entry_fails_its_grain_and_no_other() {
    let grains: Vec<_> = (0..4).map(|n| (n, pattern(n, 512))).collect();
    let good = delta(4096, 1, &grains);
    let table = 5 * 512;
    let end = (good.len() / 512) as u32;
    for entry in [1, 3, 4, end, end + 1, 0x00ff_ffff, u32::MAX] {
        let mut bytes = good.clone();
        patch(&mut bytes, table + 4, &entry.to_le_bytes());
        let image = open(bytes).unwrap();
        assert_eq!(image.map(512, 512).unwrap_err().kind(), ErrorKind::Corrupt, "entry {entry:#x}");
        for n in [0, 2, 3] {
            let mut buf = [0; 512];
            packed::read(&[&image], n * 512, &mut buf).unwrap();
            assert!(buf == *pattern(n, 512));
        }
        assert_eq!(scanned(&image, 512..1024), [(512..1024, Presence::Data)]);
        let text = image.map(512, 1).unwrap_err().to_string();
        assert!(text.contains("grain 1 ") && text.contains("d-000001-delta.vmdk"), "{text}");
    }
}

#[test]
fn a_bad_directory_entry_fails_its_table_and_no_other() {
    let good = delta(3 * 4096, 1, &[(0, pattern(0, 512)), (5000, pattern(5000, 512))]);
    let end = (good.len() / 512) as u32;
    for entry in [1, 4, end - 31, end, u32::MAX] {
        let mut bytes = good.clone();
        patch(&mut bytes, 2048 + 4, &entry.to_le_bytes());
        let image = open(bytes).unwrap();
        assert_eq!(image.map(4096 * 512, 1).unwrap_err().kind(), ErrorKind::Corrupt, "entry {entry:#x}");
        assert!(matches!(image.map(0, 512).unwrap().0, Mapping::Data { .. }));
        assert!(matches!(image.map(2 * 4096 * 512, 512).unwrap().0, Mapping::Unallocated));
    }
}

#[test]
fn a_last_grain_cut_behind_the_disks_end_is_good() {
    let mut bytes = delta(9, 8, &[(0, pattern(0, 4096)), (1, pattern(1, 4096))]);
    let end = bytes.len();
    bytes.truncate(end - 7 * 512);
    let image = open(bytes.clone()).unwrap();
    assert!(content(&[&image], 4096)[4096..] == pattern(1, 512));
    bytes.truncate(end - 7 * 512 - 1);
    let image = open(bytes).unwrap();
    assert_eq!(image.map(4096, 512).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn writing_is_refused_with_the_reason() {
    let image = open(delta(10, 1, &[])).unwrap();
    for error in [image.begin_writing().unwrap_err(), image.prepare(0, 512).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
        assert!(error.to_string().contains("belongs to its host"));
    }
}

#[test]
fn offsets_past_the_disk_are_out_of_range() {
    let image = open(delta(10, 1, &[])).unwrap();
    for offset in [5120, 5121, u64::MAX] {
        assert_eq!(image.map(offset, 1).unwrap_err().kind(), ErrorKind::OutOfRange);
    }
    assert_eq!(image.map(5119, u64::MAX).unwrap().1, 1);
    assert_eq!(image.scan(0..5121, &mut |_, _| ()).unwrap_err().kind(), ErrorKind::OutOfRange);
}

#[test]
fn a_fault_of_the_file_is_told_and_does_not_stick() {
    #[derive(Debug)]
    struct Faulty(Vec<u8>, std::sync::atomic::AtomicI64);
    impl vixDiskLib::storage::Storage for Faulty {
        fn size(&self) -> Result<u64> {
            Ok(self.0.len() as u64)
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            if self.1.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) == 0 {
                return Err(vixDiskLib::error::Error::new(ErrorKind::Io, "the disk is on fire"));
            }
            buf.copy_from_slice(&self.0[offset as usize..offset as usize + buf.len()]);
            Ok(())
        }
        fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
            unreachable!("nothing is written")
        }
        fn flush(&self) -> Result<()> {
            Ok(())
        }
        fn label(&self) -> String {
            "faulty".into()
        }
    }
    let bytes = delta(10_000, 1, &[(0, pattern(0, 512)), (9999, pattern(9999, 512))]);
    for nth in 0..6 {
        let storage = Arc::new(Faulty(bytes.clone(), nth.into()));
        let image = match Cowd::open(storage, Log::none(), "d") {
            Ok(image) => image,
            Err(e) => {
                assert!(nth == 0 && e.kind() == ErrorKind::Io, "{e}");
                continue;
            }
        };
        let mut buf = vec![0; 10_000 * 512];
        let first = packed::read(&[&image], 0, &mut buf);
        assert!(first.is_err_and(|e| e.kind() == ErrorKind::Io), "read {nth}");
        packed::read(&[&image], 0, &mut buf).unwrap();
        assert!(buf[9999 * 512..] == pattern(9999, 512));
    }
}

/// Reads all that can be read of a file with a few bytes changed: anything but a panic is good.
#[test]
fn damaged_files_never_panic() {
    let mut rng = Rng(2027);
    let good = delta(9000, 2, &[(0, pattern(0, 1024)), (1, pattern(1, 1024)), (4499, pattern(2, 1024))]);
    for _ in 0..3000 {
        let mut file = good.clone();
        for _ in 0..1 + rng.below(3) {
            let part = [0..36, 2048..2056, 2560..2600, 2560..file.len()][rng.below(4) as usize].clone();
            let at = part.start + rng.below(part.len() as u64) as usize;
            file[at] = [0, 1, 0x7f, 0x80, 0xff, rng.next() as u8][rng.below(6) as usize];
        }
        if rng.below(8) == 0 {
            file.truncate(rng.below(file.len() as u64) as usize);
        }
        let Ok(image) = open(file) else { continue };
        let mut buf = vec![0; 100_000];
        for at in [0, 1000, image.capacity().saturating_sub(100_000)] {
            let len = buf.len().min((image.capacity() - at.min(image.capacity())) as usize);
            let _ = packed::read(&[&image], at.min(image.capacity()), &mut buf[..len]);
        }
        let _ = image.scan(0..image.capacity(), &mut |_, _| ());
    }
}
