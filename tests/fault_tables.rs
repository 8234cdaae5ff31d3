//! After a table could not be written, nothing is written to the disk until it is opened again, also not into grains that
//! are in the tables already; reading goes on.
#![allow(clippy::unwrap_used)]

#[path = "common/crash_storage.rs"]
mod crash_storage;
#[path = "../fuzz/src/lib.rs"]
mod fuzz_bodies;

use vixDiskLib::disk::Disk;

use crash_storage::Op;
use crash_storage::Recorder;
use fuzz_bodies::chain::options;
use fuzz_bodies::images;
use fuzz_bodies::images::Built;
use fuzz_bodies::images::SparseSpec;

/// Grains 0, 3 and 5 have data.
fn built() -> Built {
    images::sparse(&SparseSpec::tiny())
}

fn recorder() -> Recorder {
    Recorder::new(&["d.vmdk".to_owned()], vec![built().file])
}

fn open(recorder: &Recorder) -> Disk {
    Disk::open(recorder.place("d.vmdk").unwrap(), &options(true)).unwrap()
}

/// Writes into a grain that has no place yet.
fn allocate(disk: &Disk) -> vixDiskLib::error::Result<()> {
    disk.write(&[0x11; 512], 4096)
}

/// Writes into a grain that has one.
fn overwrite(disk: &Disk) -> vixDiskLib::error::Result<()> {
    disk.write(&[0x22; 512], 3 * 4096)
}

#[test]
fn nothing_is_written_after_a_table_could_not_be_written() {
    let sound = recorder();
    let disk = open(&sound);
    let before = sound.position();
    allocate(&disk).unwrap();
    let ops = sound.ops();
    let tables = 5 * 512..usize::try_from(built().value(&field("overHead"))).unwrap() * 512;
    let mut refused = 0;
    for nth in 0.. {
        let recorder = recorder();
        let disk = open(&recorder);
        assert_eq!(recorder.position(), before);
        recorder.fail(nth, false);
        let outcome = allocate(&disk);
        if !recorder.heal() {
            assert!(outcome.is_ok() && overwrite(&disk).is_ok());
            break;
        }
        let failed = ops.get(recorder.position());
        let table = matches!(failed, Some(Op::Write { at, .. }) if tables.contains(at));
        if outcome.is_ok() || !table {
            continue;
        }
        let now = recorder.position();
        for _ in 0..2 {
            let error = overwrite(&disk).unwrap_err().to_string();
            assert!(error.contains("until the disk is opened again"), "{error}");
        }
        assert_eq!(recorder.position(), now, "call {nth}: something was written");
        let mut sector = [0; 512];
        disk.read(&mut sector, 3 * 4096).unwrap();
        assert_eq!(sector[..], built().content[3 * 4096..3 * 4096 + 512]);
        drop(disk);
        let disk = open(&recorder);
        overwrite(&disk).unwrap();
        disk.read(&mut sector, 3 * 4096).unwrap();
        assert_eq!(sector, [0x22; 512]);
        refused += 1;
    }
    assert_eq!(refused, 2, "the redundant table and the primary one");
}

fn field(name: &str) -> images::Field {
    built().fields.iter().find(|f| f.name == name).unwrap().clone()
}
