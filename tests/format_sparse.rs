//! Hosted sparse extents against real and hostile images.
#![allow(clippy::unwrap_used)]

mod sparse_images;

use std::sync::Arc;

use proptest::prelude::*;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::format::Image;
use vixDiskLib::format::sparse::Sparse;
use vixDiskLib::storage::memory::MemoryStorage;

use crate::sparse_images::Layout;
use crate::sparse_images::hash;
use crate::sparse_images::options;
use crate::sparse_images::read;
use crate::sparse_images::read_all;
use crate::sparse_images::scan_agrees_with_map;
use crate::sparse_images::seeded;
use crate::sparse_images::shared;
use crate::sparse_images::write;

fn open(bytes: Vec<u8>) -> Result<Sparse> {
    Sparse::open(Arc::new(MemoryStorage::new("test.vmdk", bytes)), &options(false))
}

const SAME: &str = "a3bcf05f07a1c06a3380eeca8571f0efb2b85afafa1e21662b8cad436d1f7727";
const GOLDEN: &[(&str, &str)] = &[
    ("ws-monolithicSparse/monolithicSparse.vmdk", SAME),
    ("ws-twoGbMaxExtentSparse/twoGbMaxExtentSparse-s001.vmdk", SAME),
    ("qemu-200-sectors/image.vmdk", "854c3db1c4a07a241e2ed9fbd8892adf2adc662c7862a75deed26f3483f414c9"),
    ("qemu-64k/vmdk-monolith.img", "de2f256064a0af797747c2b97505dc0b9f3df0de4f489eac731c23ae9ca9cc31"),
    ("synthetic/zerograin/zg-base.vmdk", "5aacda8d89f42e3f0b2297d8b7f2f902537478f46195206b4a087c3f99de773d"),
    ("synthetic/sparse/unclean.vmdk", "ccf8f54ca7e79197297267b1f911d13bd92143302024841a859e95dc3f59a3db"),
    ("synthetic/sparse/grain16.vmdk", "64df545eb0d9f5b202f99522133176673535397af60363bca376cfa438b57420"),
];

#[test]
fn golden_images_have_their_content() {
    for (name, sha) in GOLDEN {
        let Some(bytes) = shared(&format!("vmdk/{name}")) else { continue };
        let image = open(bytes.clone()).unwrap();
        assert_eq!(hash(&read_all(&image, None).unwrap()), *sha, "{name}");
        for max in [512, 4096, 5000, 65536, 100_000] {
            let again = open(bytes.clone()).unwrap();
            let all = read(&again, None, 0, again.capacity() as usize, max).unwrap();
            assert_eq!(hash(&all), *sha, "{name} by {max}");
        }
        scan_agrees_with_map(&image);
    }
}

#[test]
fn zero_grains_hide_the_parent() {
    let Some(base) = shared("vmdk/synthetic/zerograin/zg-base.vmdk") else { return };
    let Some(child) = shared("vmdk/synthetic/zerograin/zg-000001.vmdk") else { return };
    let base = read_all(&open(base).unwrap(), None).unwrap();
    let child = open(child).unwrap();
    let all = read_all(&child, Some(&base)).unwrap();
    assert_eq!(hash(&all), "8ea6357867b9195b3a0c388d0fd42861582c181bff6fb88fa5a1a9c6592cba93");
    scan_agrees_with_map(&child);
}

#[test]
fn hostile_headers_are_refused() {
    let wanted = [
        ("capacity-2e62.vmdk", ErrorKind::NotADisk),
        ("grainsize-zero.vmdk", ErrorKind::NotADisk),
        ("gtes-huge.vmdk", ErrorKind::NotADisk),
        ("newline-mangled.vmdk", ErrorKind::NotADisk),
        ("unknown-incompat-flag.vmdk", ErrorKind::UnsupportedFeature),
    ];
    for (name, kind) in wanted {
        let Some(bytes) = shared(&format!("vmdk/hostile/{name}")) else { continue };
        assert_eq!(open(bytes).unwrap_err().kind(), kind, "{name}");
    }
}

#[test]
fn hostile_tables_fail_where_they_lie_and_only_there() {
    for (name, wanted) in
        [("gte-past-eof", 1), ("gte-into-metadata", 1), ("gd-past-eof", 0), ("truncated", 1)]
    {
        let Some(bytes) = shared(&format!("vmdk/hostile/{name}.vmdk")) else { continue };
        let image = open(bytes).unwrap();
        let (mut good, mut bad) = (0, 0);
        for at in (0..image.capacity()).step_by(65536) {
            match read(&image, None, at, 65536.min(image.capacity() - at) as usize, 65536) {
                Ok(_) => good += 1,
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Corrupt, "{name}: {e}");
                    bad += 1;
                }
            }
        }
        assert_eq!(bad, wanted, "{name}: {good} grains are good");
        assert!(good > 0, "{name}");
    }
}

#[test]
fn a_fuzzed_image_is_an_error_and_no_crash() {
    let Some(bytes) = shared("vmdk/hostile/afl9.vmdk") else { return };
    let fault = match open(bytes) {
        Ok(image) => read(&image, None, 0, 1 << 20, 1 << 20).unwrap_err(),
        Err(e) => e,
    };
    assert!(matches!(fault.kind(), ErrorKind::Corrupt | ErrorKind::NotADisk), "{fault}");
}

#[test]
fn a_mismatch_of_tables_is_read_through_the_primary_ones() {
    let Some(bytes) = shared("vmdk/hostile/rgt-mismatch.vmdk") else { return };
    read_all(&open(bytes).unwrap(), None).unwrap();
}

/// Everything a disk does with an extent; faults come back, nothing else happens.
fn use_hostile(bytes: &[u8]) -> Vec<ErrorKind> {
    let mut kinds = Vec::new();
    for writable in [false, true] {
        let storage = Arc::new(MemoryStorage::new("hostile.vmdk", bytes.to_vec()));
        let image = match Sparse::open(storage, &options(writable)) {
            Ok(image) => image,
            Err(e) => {
                kinds.push(e.kind());
                continue;
            }
        };
        let mut note = |outcome: Result<()>| kinds.extend(outcome.err().map(|e| e.kind()));
        note(image.embedded_descriptor().map(|_| ()));
        let mut end = 0;
        let scanned = image.scan(0..image.capacity(), &mut |range, _| {
            assert_eq!(range.start, end);
            end = range.end;
        });
        assert!(scanned.is_err() || end == image.capacity());
        note(scanned);
        for i in 0..40u64 {
            let at = (image.capacity() - 1) / 39 * i;
            note(read(&image, None, at, 4096.min(image.capacity() - at) as usize, 4096).map(|_| ()));
            if writable {
                note(write(&image, None, at, &[1], i % 2 == 0));
            }
        }
        note(image.finish());
    }
    kinds
}

proptest! {
    #![proptest_config(seeded(400))]

    #[test]
    fn altered_metadata_leads_to_errors_only(
        changes in proptest::collection::vec((0..1usize << 20, 0..32usize, prop_oneof![
            Just(0u32), Just(1), Just(u32::MAX), Just(0x8000_0000), 0..2000u32, any::<u32>()
        ]), 1..6),
        unclean in any::<bool>(),
        zero_grains in any::<bool>(),
    ) {
        let layout = Layout { zero_grains, ..Layout::new(16 * 700 + 5, 16) };
        let storage = Arc::new(MemoryStorage::new("good.vmdk", layout.blank()));
        let image = Sparse::open(storage.clone(), &options(true)).unwrap();
        for i in 0..30 {
            write(&image, None, i * 16 * 512 * 23, &[7; 3000], false).unwrap();
        }
        if !unclean {
            image.finish().unwrap();
        }
        let mut bytes = storage.snapshot();
        for (place, width, value) in changes {
            // Half of the changes hit the header, the others the directories and tables.
            let at = if place % 2 == 0 { place % 80 } else { 21 * 512 + place / 2 % (layout.data() as usize - 21 * 512 - 4) };
            let width = 1 + width % 4;
            bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        for kind in use_hostile(&bytes) {
            prop_assert!(matches!(kind,
                ErrorKind::Corrupt | ErrorKind::NotADisk | ErrorKind::UnsupportedVersion | ErrorKind::UnsupportedFeature
                | ErrorKind::NeedsRepair | ErrorKind::NotSupported | ErrorKind::FileTooBig), "{kind:?}");
        }
    }
}
