//! Another disk under the name of one that is open: while the connection is lost, a machine may be reverted or restored. What
//! is there then is not read or written on as if it were the same.

mod common;

use std::path::PathBuf;

use common::child::in_child;
use common::model::stamps;
use common::scratch;
use common::stage::SECTORS;
use common::stage::Stage;
use common::stage::configured;
use common::stage::content;
use common::stage::expected;
use common::vix;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;
use common::vix::logged;
use tempfile::TempDir;

const TIMES: &str = "vixDiskLib.nfc.AcceptTimeoutMs=2000\nvixDiskLib.nfc.reconnectTimeoutMs=1000\n";

/// Puts files in the place of the machine's: what the simulator has open stays what it was until it opens it again.
fn put(stage: &Stage, from: &TempDir, names: &[&str]) {
    for name in names {
        std::fs::rename(from.path().join(name), stage.file(name)).expect("putting a file in place");
    }
}

/// Another disk with the name and the size of the second one.
fn another_disk() -> TempDir {
    let folder = scratch::folder();
    let here = Vix::started().connect(false).expect("a local connection");
    let path = folder.path().join("b.vmdk");
    here.must_create(&path, Spec::new(Kind::Flat, SECTORS));
    let disk = here.must_open(&path, flags::READ_WRITE);
    disk.must_write(0, &stamps(0, 2048, 9));
    assert_eq!(disk.close(), code::OK);
    folder
}

const FILES: [&str; 2] = ["b.vmdk", "b-flat.vmdk"];

#[test]
fn another_disk_of_the_same_size_is_not_read_or_written_on() {
    in_child(|| {
        configured(TIMES);
        for how in [flags::READ_ONLY, flags::READ_WRITE] {
            let stage = Stage::vcenter();
            let disk = stage.open_over("nbdssl", 1, how);
            assert!(disk.must_read(0, 64) == vec![0; 64 * 512]);
            put(&stage, &another_disk(), &FILES);
            stage.sim.cut_nfc();
            vix::forget_log();
            assert_eq!(disk.read(1024, &mut [0; 512]), code::CID_MISMATCH, "{}", vix::log_text());
            let told = "the disk is another one since the connection was lost: its uuid is ";
            assert!(logged(told) > 0, "{}", vix::log_text());
            if how == flags::READ_WRITE {
                assert_eq!(disk.write(0, &stamps(0, 64, 1)), code::CID_MISMATCH, "{}", vix::log_text());
            }
            let depth_first = disk.read_many(&[(64, 64), (512, 64)], 2, 0).map(drop);
            assert_eq!(depth_first, Err(code::CID_MISMATCH), "{}", vix::log_text());
            disk.close();
            // Who opens it anew opens what is there.
            let anew = stage.open_over("nbdssl", 1, flags::READ_ONLY);
            assert!(anew.must_read(0, 2048) == stamps(0, 2048, 9));
        }
    });
}

#[test]
fn another_disk_is_not_read_on_by_another_transport() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        let disk = stage.open_over("nbdssl:https", 1, flags::READ_ONLY);
        disk.must_read(0, 64);
        put(&stage, &another_disk(), &FILES);
        stage.fault("authd.proxy=refuse");
        stage.sim.cut_nfc();
        assert_eq!(disk.read(1024, &mut [0; 512]), code::HANDSHAKE, "{}", vix::log_text());
        let told = "it has not the disk that was opened: its uuid is ";
        assert!(logged(told) > 0 && logged("goes on by") == 0, "{}", vix::log_text());
    });
}

/// The files of the first disk, its child written to once more by somebody else.
fn rewritten(stage: &Stage) -> TempDir {
    let folder = scratch::folder();
    for name in ["a.vmdk", "a-1.vmdk"] {
        std::fs::copy(stage.file(name), folder.path().join(name)).expect("copying a disk");
    }
    let here = Vix::started().connect(false).expect("a local connection");
    let disk = here.must_open(&folder.path().join("a-1.vmdk"), flags::READ_WRITE);
    let uuid = disk.metadata("uuid");
    disk.must_write(600, &stamps(600, 8, 7));
    assert_eq!((disk.metadata("uuid"), disk.close()), (uuid, code::OK));
    folder
}

#[test]
fn the_same_disk_with_other_content_is_not_read_on() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        let disk = stage.open_over("nbdssl", 0, flags::READ_ONLY);
        assert!(disk.must_read(0, 64) == expected(true)[..64 * 512]);
        let later = rewritten(&stage);
        put(&stage, &later, &["a-1.vmdk"]);
        stage.sim.cut_nfc();
        assert_eq!(disk.read(4096, &mut [0; 512]), code::CID_MISMATCH, "{}", vix::log_text());
        assert!(logged("its longContentID is ") > 0, "{}", vix::log_text());
    });
}

#[test]
fn who_writes_is_not_stopped_by_what_he_wrote() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        let disk = stage.open_over("nbdssl", 0, flags::READ_WRITE);
        let whole = stamps(0, 4096, 5);
        for at in (0..4096).step_by(512) {
            disk.must_write(at as u64, &whole[at * 512..(at + 512) * 512]);
            stage.sim.cut_nfc();
        }
        assert!(disk.must_read(0, 4096) == whole, "{}", vix::log_text());
        assert!(logged("connected again") > 0);
        assert_eq!(disk.close(), code::OK);
    });
}

#[test]
fn a_disk_whose_host_tells_no_id_goes_on_by_its_size() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        stage.fault("nfc.ddb=error(4)");
        let disk = stage.open_over("nbdssl", 1, flags::READ_ONLY);
        disk.must_read(0, 64);
        put(&stage, &another_disk(), &FILES);
        stage.sim.cut_nfc();
        assert!(disk.must_read(1024, 64) == stamps(1024, 64, 9), "{}", vix::log_text());
    });
}

#[test]
fn a_disk_that_goes_away_and_comes_back_is_the_same() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        for modes in ["nbdssl", "nbdssl:https"] {
            let disk = stage.open_over(modes, 0, flags::READ_ONLY);
            if modes.contains("https") {
                stage.fault("authd.proxy=refuse");
            }
            stage.sim.cut_nfc();
            assert!(content(&disk) == expected(true), "{}", vix::log_text());
            let aside: PathBuf = stage.file("aside.vmdk");
            std::fs::rename(stage.file("a-1.vmdk"), &aside).expect("moving a file");
            std::fs::rename(&aside, stage.file("a-1.vmdk")).expect("moving it back");
            stage.sim.cut_nfc();
            assert!(content(&disk) == expected(true), "{}", vix::log_text());
        }
    });
}
