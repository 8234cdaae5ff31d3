//! Disks whose extents are devices, or stand for them: whole devices, parts of them, raw device mappings.
#![allow(clippy::unwrap_used)]

#[macro_use]
mod common;

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use common::scratch;
use vixDiskLib::config::Config;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Log;
use vixDiskLib::session::ConnectParams;
use vixDiskLib::session::Library;
use vixDiskLib::session::OpenDisk;
use vixDiskLib::session::OpenFlags;
use vixDiskLib::units::Sectors;

const SECTORS: usize = 2048;

/// Every sector says where it stands.
fn pattern(sectors: usize) -> Vec<u8> {
    (0..sectors * 512).map(|i| (i / 512 * 31 + i % 251) as u8).collect()
}

fn open(path: &Path, flags: OpenFlags) -> Result<Arc<OpenDisk>> {
    let library = Library::new(Log::none(), Config::default());
    library.connect(ConnectParams::default(), false, None, None)?.open(path, flags)
}

fn describe(folder: &Path, create_type: &str, extents: &[String]) -> PathBuf {
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"{create_type}\"\n\n\
         # Extent description\n{}\n\n# The Disk Data Base\n#DDB\n",
        extents.join("\n")
    );
    let path = folder.join("d.vmdk");
    std::fs::write(&path, text).unwrap();
    path
}

fn content(disk: &OpenDisk) -> Vec<u8> {
    let mut bytes = vec![0xee; disk.info().unwrap().capacity.0 as usize * 512];
    disk.read(Sectors(0), &mut bytes).unwrap();
    bytes
}

/// A loop device on a file of its own, gone at the end.
struct Loop(String);

impl Loop {
    /// `None`: this machine lets nobody have one, and the reason was given.
    fn over(file: &Path) -> Option<Loop> {
        let made = Command::new("losetup").args(["--show", "-f"]).arg(file).output().unwrap();
        if !made.status.success() {
            scratch::skip(&format!("losetup: {}", String::from_utf8_lossy(&made.stderr).trim()));
            return None;
        }
        Some(Loop(String::from_utf8(made.stdout).unwrap().trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn whole_devices_and_parts_of_them_are_read() {
    requires!("losetup");
    let folder = scratch::folder();
    let bytes = pattern(SECTORS);
    std::fs::write(folder.path().join("backing"), &bytes).unwrap();
    let Some(device) = Loop::over(&folder.path().join("backing")) else { return };

    let whole = [format!("RW {SECTORS} FLAT \"{}\" 0", device.0)];
    for flags in [OpenFlags::READ_ONLY, OpenFlags::READ_ONLY | OpenFlags::UNBUFFERED] {
        let disk = open(&describe(folder.path(), "fullDevice", &whole), flags).unwrap();
        assert!(content(&disk) == bytes, "{flags:?}");
        disk.close().unwrap();
    }

    std::fs::write(folder.path().join("d-pt.vmdk"), vec![0x55; 63 * 512]).unwrap();
    let parts = [
        "RW 63 FLAT \"d-pt.vmdk\" 0".to_owned(),
        format!("RW 100 FLAT \"{}\" 300", device.0),
        "RW 37 ZERO".to_owned(),
        format!("RDONLY 200 FLAT \"{}\" 1848", device.0),
    ];
    let disk = open(&describe(folder.path(), "partitionedDevice", &parts), OpenFlags::READ_ONLY).unwrap();
    let wanted = [&[0x55; 63 * 512][..], &bytes[300 * 512..400 * 512], &[0; 37 * 512], &bytes[1848 * 512..]];
    assert!(content(&disk) == wanted.concat());
    disk.close().unwrap();

    let beyond = [format!("RW {} FLAT \"{}\" 1", SECTORS, device.0)];
    let short = open(&describe(folder.path(), "fullDevice", &beyond), OpenFlags::READ_ONLY).unwrap_err();
    assert!(short.to_string().contains(&device.0), "{short}");

    let plain = describe(folder.path(), "monolithicFlat", &whole);
    assert_eq!(open(&plain, OpenFlags::READ_ONLY).unwrap_err().kind(), ErrorKind::AccessDenied);
}

#[test]
fn a_raw_device_mapping_is_read_from_a_copy_of_its_device() {
    let folder = scratch::folder();
    let bytes = pattern(300);
    for create_type in ["vmfsRDM", "vmfsRDMP", "vmfsRawDeviceMap", "vmfsPassthroughRawDeviceMap"] {
        std::fs::write(folder.path().join("d-rdm.vmdk"), &bytes).unwrap();
        let extents = ["RW 300 VMFSRDM \"d-rdm.vmdk\"".to_owned()];
        let disk = open(&describe(folder.path(), create_type, &extents), OpenFlags::READ_ONLY).unwrap();
        assert!(content(&disk) == bytes, "{create_type}");
        disk.close().unwrap();
    }
}

#[test]
fn a_raw_device_mapping_that_only_points_is_refused_and_said_why() {
    let folder = scratch::folder();
    std::fs::write(folder.path().join("d-rdm.vmdk"), b"").unwrap();
    let extents = ["RW 300 VMFSRDM \"d-rdm.vmdk\"".to_owned()];
    let refused = open(&describe(folder.path(), "vmfsRDM", &extents), OpenFlags::READ_ONLY).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotSupported);
    assert!(refused.to_string().contains("raw device mapping"), "{refused}");
}
