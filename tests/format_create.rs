//! New disks: the bytes that a layout lists, and what other programs make of them.
//!
//! The comparison with qemu-img is left out, with a line that says so, where the program is missing.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use vixDiskLib::error::ErrorKind;
use vixDiskLib::format::create::CreateSpec;
use vixDiskLib::format::create::DiskType;
use vixDiskLib::format::create::Layout;
use vixDiskLib::format::create::NewFile;
use vixDiskLib::format::create::NewIdentity;
use vixDiskLib::format::create::monolithic_flat;
use vixDiskLib::format::create::monolithic_sparse;
use vixDiskLib::format::descriptor::Descriptor;
use vixDiskLib::format::geometry::Adapter;
use vixDiskLib::units::Sectors;

fn spec(sectors: u64) -> CreateSpec {
    CreateSpec {
        disk_type: DiskType::MonolithicSparse,
        adapter: Adapter::LsiLogic,
        hardware_version: 14,
        capacity: Sectors(sectors),
        logical_sector_size: 512,
        physical_sector_size: 512,
    }
}

fn identity() -> NewIdentity {
    NewIdentity::from_random(&std::array::from_fn(|i| i as u8))
}

fn sparse(sectors: u64) -> NewFile {
    let mut layout = monolithic_sparse(&spec(sectors), "d.vmdk", &identity()).unwrap();
    assert_eq!(layout.files.len(), 1);
    layout.files.remove(0)
}

/// The whole file.
fn image(file: &NewFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len).unwrap()];
    for piece in &file.pieces {
        let at = usize::try_from(piece.offset).unwrap();
        bytes[at..at + piece.bytes.len()].copy_from_slice(&piece.bytes);
    }
    bytes
}

fn write(layout: &Layout, folder: &Path) {
    for file in &layout.files {
        let target = fs::File::create_new(folder.join(&file.name)).unwrap();
        target.set_len(file.len).unwrap();
        for piece in &file.pieces {
            target.write_all_at(&piece.bytes, piece.offset).unwrap();
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn a_sparse_disk_of_10_mib_has_the_header_that_vmware_writes() {
    // The first 80 bytes of a disk made by vmware-vdiskmanager.
    let vmware = "4b444d560100000003000000005000000000000080000000000000000100000000000000140000000000\
                  00000002000015000000000000001a000000000000008000000000000000000a200d0a000000";
    let bytes = image(&sparse(20480));
    let hex: String = bytes[..80].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, vmware);
    assert!(bytes[80..512].iter().all(|&b| b == 0));
}

#[test]
fn the_descriptor_of_a_sparse_disk_is_spelled_as_vmware_does() {
    let expected = r#"# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=fffffffe
parentCID=ffffffff
createType="monolithicSparse"

# Extent description
RW 20480 SPARSE "d.vmdk"

# The Disk Data Base 
#DDB

ddb.adapterType = "lsilogic"
ddb.encoding = "UTF-8"
ddb.geometry.cylinders = "10"
ddb.geometry.heads = "64"
ddb.geometry.sectors = "32"
ddb.longContentID = "000102030405060708090a0bfffffffe"
ddb.toolsVersion = "2147483647"
ddb.uuid = "60 00 C2 9f 10 11 12 13-14 15 16 17 18 19 1a 1b"
ddb.virtualHWVersion = "14"
"#;
    let file = sparse(20480);
    assert_eq!(std::str::from_utf8(&file.pieces[1].bytes).unwrap(), expected);
    assert_eq!(file.pieces[1].offset, 512);
}

#[test]
fn directories_name_tables_that_lie_one_after_the_other_inside_the_file() {
    for sectors in [1, 127, 128, 129, 65536, 65537, 512_000, 4_194_304, 8_388_608, 500_000_000] {
        let bytes = image(&sparse(sectors));
        assert_eq!(u64_at(&bytes, 12), sectors, "kept exactly");
        let tables = sectors.div_ceil(65536);
        let overhead = u64_at(&bytes, 64);
        assert_eq!((overhead * 512, overhead % 128), (bytes.len() as u64, 0));
        let mut next = 21;
        for directory in [u64_at(&bytes, 48), u64_at(&bytes, 56)] {
            assert_eq!(directory, next, "{sectors} sectors");
            next += (tables * 4).div_ceil(512);
            for table in 0..tables {
                assert_eq!(u32_at(&bytes, (directory * 512 + table * 4) as usize), next);
                next += 4;
            }
        }
        assert!(next <= overhead && overhead < next + 128);
    }
}

#[test]
fn metadata_of_a_250_mb_disk_stays_below_a_thousandth() {
    assert!(sparse(512_000).len < 262_144);
}

#[test]
fn a_flat_disk_is_a_descriptor_and_a_file_of_exactly_its_size() {
    let layout = monolithic_flat(&spec(20481), "my disk.VMDK", &identity()).unwrap();
    let [flat, text] = &layout.files[..] else { panic!("{layout:?}") };
    assert_eq!((flat.name.as_str(), flat.len, flat.preallocate), ("my disk-flat.vmdk", 20481 * 512, true));
    assert!(flat.pieces.is_empty());
    assert_eq!((text.name.as_str(), text.len), ("my disk.VMDK", text.pieces[0].bytes.len() as u64));
    let d = Descriptor::parse(&text.pieces[0].bytes).unwrap();
    assert_eq!(d.extents()[0].to_line(), "RW 20481 FLAT \"my disk-flat.vmdk\" 0");
    assert_eq!((d.create_type(), d.cid(), d.parent_cid()), (Some("monolithicFlat"), Some(0xffff_fffe), None));
}

#[test]
fn sector_sizes_stand_in_the_database_only_when_they_are_not_512() {
    let of = |logical, physical| {
        let spec = CreateSpec { logical_sector_size: logical, physical_sector_size: physical, ..spec(8) };
        let layout = monolithic_flat(&spec, "d.vmdk", &identity()).unwrap();
        let d = Descriptor::parse(&layout.files[1].pieces[0].bytes).unwrap();
        ["logicalSectorSize", "physicalSectorSize"].map(|key| d.ddb(key).map(str::to_owned))
    };
    assert_eq!(of(512, 512), [None, None]);
    assert_eq!(of(0, 77), [None, None]);
    assert_eq!(of(512, 4096), [None, Some("4096".into())]);
    assert_eq!(of(4096, 4096), [Some("4096".into()), Some("4096".into())]);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let sparse = |sectors| monolithic_sparse(&spec(sectors), "d.vmdk", &identity()).map_err(|e| e.kind());
    let flat = |sectors| monolithic_flat(&spec(sectors), "d.vmdk", &identity()).map_err(|e| e.kind());
    let most = 62u64 << 31;
    assert_eq!(sparse(0), Err(ErrorKind::InvalidArgument));
    assert_eq!(flat(0), Err(ErrorKind::InvalidArgument));
    assert!(flat(most).is_ok());
    assert_eq!(flat(most + 1), Err(ErrorKind::InvalidArgument));
    assert_eq!(flat(u64::MAX), Err(ErrorKind::InvalidArgument));
    assert_eq!(sparse(u64::MAX), Err(ErrorKind::InvalidArgument));
    assert_eq!(sparse(1 << 32), Err(ErrorKind::FileTooBig));
    // The largest that can be filled: metadata and grains end at the last sector that an entry can name.
    let (mut good, mut bad) = (1u64 << 31, 1u64 << 32);
    while good + 1 < bad {
        let middle = good.midpoint(bad);
        *if sparse(middle).is_ok() { &mut good } else { &mut bad } = middle;
    }
    let file = sparse(good).unwrap().files.remove(0);
    assert_eq!(file.len / 512 + good.next_multiple_of(128), 1 << 32);
}

#[test]
fn names_that_a_descriptor_cannot_hold_are_refused() {
    for name in ["", ".", "..", "a/b.vmdk", "a\"b.vmdk", "a\nb.vmdk", "a\rb", "a\0b"] {
        for make in [monolithic_sparse, monolithic_flat] {
            let error = make(&spec(8), name, &identity()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NameInvalid, "{name:?}");
        }
    }
    let layout = monolithic_flat(&spec(8), "é=#.vmdk", &identity()).unwrap();
    assert_eq!(layout.files[0].name, "é=#-flat.vmdk");
    assert_eq!(monolithic_flat(&spec(8), ".vmdk", &identity()).unwrap().files[0].name, ".vmdk-flat.vmdk");
}

/// Runs qemu-img; `None`, with a line that says so, where it is missing.
fn qemu_img(arguments: &[&str], folder: &Path) -> Option<String> {
    let Ok(output) = Command::new("qemu-img").args(arguments).current_dir(folder).output() else {
        eprintln!("skipped: qemu-img is not installed");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

#[test]
fn qemu_reads_what_is_made_and_can_write_to_it() {
    for (make, name) in [(monolithic_sparse as fn(&_, &_, &_) -> _, "sparse"), (monolithic_flat, "flat")] {
        for sectors in [1, 200, 20480, 65537, 262_145] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            write(&make(&spec(sectors), "d.vmdk", &identity()).unwrap(), folder);
            let bytes = sectors * 512;
            let Some(info) = qemu_img(&["info", "--output=json", "-f", "vmdk", "d.vmdk"], folder) else {
                return;
            };
            assert!(info.contains(&format!("\"virtual-size\": {bytes},")), "{name} {sectors}: {info}");
            if name == "sparse" {
                qemu_img(&["check", "-f", "vmdk", "d.vmdk"], folder);
            }
            // Write a pattern over all of it through QEMU, then read it back as raw bytes.
            let pattern: Vec<u8> = (0..bytes).map(|i| (i / 512 % 251) as u8 + 1).collect();
            fs::write(folder.join("in.raw"), &pattern).unwrap();
            qemu_img(&["convert", "-n", "-f", "raw", "-O", "vmdk", "in.raw", "d.vmdk"], folder);
            qemu_img(&["convert", "-f", "vmdk", "-O", "raw", "d.vmdk", "out.raw"], folder);
            assert!(fs::read(folder.join("out.raw")).unwrap() == pattern, "{name} {sectors}");
        }
    }
}

#[test]
fn qemu_reads_a_new_disk_as_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(&monolithic_sparse(&spec(70000), "d.vmdk", &identity()).unwrap(), folder);
    if qemu_img(&["convert", "-f", "vmdk", "-O", "raw", "-S", "0", "d.vmdk", "out.raw"], folder).is_some() {
        assert!(fs::read(folder.join("out.raw")).unwrap() == vec![0; 70000 * 512]);
    }
}
