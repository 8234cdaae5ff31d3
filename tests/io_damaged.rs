//! Images with a few wrong bytes, many of them, through the whole interface: no crash, no hang, bounded memory, no caught
//! panic, and every failure has a code that says something.

#[macro_use]
mod common;

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use common::child::in_child;
use common::images::Images;
use common::model::Rng;
use common::process;
use common::scratch;
use common::vix;
use common::vix::Connection;
use common::vix::Disk;
use common::vix::Level;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

/// The image of the set and the file of its folder that is damaged.
const TARGETS: &[(&str, &str)] = &[
    ("vmdk/ws-twoGbMaxExtentSparse/twoGbMaxExtentSparse.vmdk", "twoGbMaxExtentSparse.vmdk"),
    ("vmdk/ws-twoGbMaxExtentSparse/twoGbMaxExtentSparse.vmdk", "twoGbMaxExtentSparse-s001.vmdk"),
    ("vmdk/ws-monolithicFlat/monolithicFlat.vmdk", "monolithicFlat.vmdk"),
    ("vmdk/qemu-64k/vmdk-monolith.img", "vmdk-monolith.img"),
    ("vmdk/qemu-64k/vmdk-streamoptimized.img", "vmdk-streamoptimized.img"),
    ("vmdk/synthetic/zerograin/zg-000001.vmdk", "zg-000001.vmdk"),
    ("vmdk/synthetic/zerograin/zg-000001.vmdk", "zg-base.vmdk"),
    ("vmdk/synthetic/sparse/unclean.vmdk", "unclean.vmdk"),
    ("vmdk/synthetic/sparse/grain16.vmdk", "grain16.vmdk"),
    ("vmdk/synthetic/stream/so-ooo-incompressible.vmdk", "so-ooo-incompressible.vmdk"),
    ("vmdk/synthetic/cowd/cowd-000002.vmdk", "cowd-000001-delta.vmdk"),
    ("vmdk/synthetic/sesparse/se-000001.vmdk", "se-000001-sesparse.vmdk"),
    ("vmdk/synthetic/custom/custom.vmdk", "custom.vmdk"),
];

/// Variants of each target.
const VARIANTS: u64 = 100;

/// Numbers that headers and tables react to.
const NUMBERS: [u64; 12] = [
    0,
    1,
    2,
    127,
    128,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    1 << 40,
    u64::MAX / 512,
    u64::MAX,
];

/// Changes a few bytes, most of them where headers, directories and tables lie.
fn damage(original: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..rng.between(1, 4) {
        let reach = match rng.below(4) {
            0 => 96,
            1 => 1024,
            2 => 20_000,
            _ => u64::MAX,
        };
        let at = rng.below(reach.min(bytes.len() as u64)) as usize;
        match rng.below(6) {
            0 => bytes[at] = rng.next() as u8,
            1 => bytes[at] ^= 1 << rng.below(8),
            2 | 3 => {
                let number = NUMBERS[rng.below(NUMBERS.len() as u64) as usize].to_le_bytes();
                let width = if rng.below(2) == 0 { 4 } else { 8 };
                let at = at / 4 * 4;
                let end = (at + width).min(bytes.len());
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            4 => {
                // A piece of the file over another piece.
                let from = rng.below(bytes.len() as u64) as usize;
                let len = (rng.below(64) as usize).min(bytes.len() - from.max(at));
                bytes.copy_within(from..from + len, at);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

/// Uses everything that an opened disk offers; results do not matter, coming back does.
fn use_it(disk: &Disk<'_>, write: bool, rng: &mut Rng) -> Vec<u64> {
    let mut codes = Vec::new();
    let capacity = disk.info().capacity;
    disk.metadata_keys();
    codes.extend(disk.allocated(0, capacity.min(1 << 26).next_multiple_of(128), 128).err());
    let mut buf = vec![0u8; 256 * 512];
    for _ in 0..24 {
        let count = rng.between(1, 256.min(capacity) + 1);
        let start = rng.below(capacity - count + 1);
        codes.push(disk.read(start, &mut buf[..(count * 512) as usize]));
    }
    let near: Vec<(u64, u64)> = (0..8).map(|n| (n * 128 % capacity, 1)).collect();
    codes.extend(disk.read_many(&near, 4, 1).err());
    if write {
        for _ in 0..8 {
            let count = rng.between(1, 20.min(capacity) + 1);
            let start = rng.below(capacity.min(1 << 24) - count + 1);
            codes.push(disk.write(start, &vec![0x33; (count * 512) as usize]));
        }
        codes.push(disk.set_metadata("vixtest.damage", "1"));
        codes.push(disk.flush());
    }
    codes
}

fn one_variant(connection: &Connection<'_>, path: &Path, rng: &mut Rng) -> Vec<u64> {
    let mut codes = Vec::new();
    for (flag, write) in [(flags::READ_ONLY, false), (flags::READ_WRITE, true), (flags::READ_ONLY, false)] {
        match connection.open(path, flag) {
            Err(e) => codes.push(e),
            Ok(disk) => {
                codes.extend(use_it(&disk, write, rng));
                codes.push(disk.close());
            }
        }
    }
    codes
}

fn torture(target: usize) {
    let (image, file) = TARGETS[target];
    let images = Images::find();
    if !images.has(image) {
        return; // a smaller set of images
    }
    let vix = Vix::started();
    let connection = vix.connect(false).expect("a connection");
    let unpacked = images.unpack(image);
    let originals: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(unpacked.folder())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.metadata().is_ok_and(|m| m.is_file() && m.len() < 64 << 20))
        .map(|path| (path.clone(), std::fs::read(&path).expect("a file")))
        .collect();
    let pristine = std::fs::read(unpacked.sibling(file)).expect("the file");
    for seed in 0..VARIANTS {
        let mut rng = Rng::new(seed * 64 + target as u64);
        let folder = scratch::folder();
        for (path, bytes) in &originals {
            std::fs::write(folder.path().join(path.file_name().expect("a name")), bytes).expect("a copy");
        }
        std::fs::write(folder.path().join(file), damage(&pristine, &mut rng)).expect("the damaged file");
        let started = Instant::now();
        let path = folder.path().join(unpacked.path().file_name().expect("a name"));
        let codes = one_variant(&connection, &path, &mut rng);
        let what = format!("{file}, variant {seed}");
        assert!(started.elapsed() < Duration::from_secs(5), "{what}: took {:?}", started.elapsed());
        assert!(!codes.contains(&code::FAIL), "{what}: an unspecified failure\n{}", vix::log_text());
        assert!(!codes.contains(&2), "{what}: out of memory\n{}", vix::log_text());
        let panics: Vec<_> =
            vix::log_lines().into_iter().filter(|(level, _)| *level == Level::Panic).collect();
        assert!(panics.is_empty(), "{what}: {panics:?}");
        vix::forget_log();
    }
}

macro_rules! damaged {
    ($($name:ident: $target:expr,)*) => {
        $(
            #[test]
            fn $name() {
                in_child(|| {
                    Vix::started();
                    process::limit_address_space(process::address_space() + (512 << 20));
                    torture($target);
                });
            }
        )*
    };
}

damaged! {
    damaged_split_descriptors_are_survived: 0,
    damaged_split_extents_are_survived: 1,
    damaged_flat_descriptors_are_survived: 2,
    damaged_sparse_disks_are_survived: 3,
    damaged_streams_are_survived: 4,
    damaged_children_are_survived: 5,
    damaged_parents_are_survived: 6,
    damaged_unclean_disks_are_survived: 7,
    damaged_disks_of_small_grains_are_survived: 8,
    damaged_streams_with_a_footer_are_survived: 9,
    damaged_deltas_are_survived: 10,
    damaged_sesparse_deltas_are_survived: 11,
    damaged_custom_descriptors_are_survived: 12,
}

#[test]
fn every_target_has_its_test() {
    assert_eq!(TARGETS.len(), 13);
}
