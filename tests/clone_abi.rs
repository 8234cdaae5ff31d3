//! Clone and SpaceNeededForClone through the C interface: arguments, codes, progress. What copies hold is shown in
//! `clone_disks.rs`.

mod common;

use std::path::Path;
use std::ptr::null_mut;

use common::child::in_child;
use common::model::stamps;
use common::scratch;
use common::vix;
use common::vix::Connection;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::adapter;
use common::vix::code;
use common::vix::flags;

const SECTORS: u64 = 10_000;

fn source(connection: &Connection<'_>, path: &Path) {
    connection.must_create(path, Spec { hw_version: 9, ..Spec::new(Kind::Sparse, SECTORS) });
    let disk = connection.must_open(path, flags::READ_WRITE);
    disk.must_write(300, &stamps(300, 4000, 1));
    assert_eq!(disk.close(), code::OK);
}

fn assert_is_copy(connection: &Connection<'_>, path: &Path) {
    let disk = connection.must_open(path, flags::READ_ONLY);
    assert_eq!(disk.info().capacity, SECTORS);
    assert_eq!(disk.must_read(300, 4000), stamps(300, 4000, 1));
    assert!(disk.must_read(0, 300).iter().all(|byte| *byte == 0));
    assert_eq!(disk.close(), code::OK);
}

#[test]
fn a_clone_has_the_kind_and_adapter_that_were_asked_for() {
    in_child(|| {
        let vix = Vix::started();
        let connection = vix.connect(false).expect("a connection");
        let other = vix.connect(true).expect("a read-only connection for the source");
        let folder = scratch::folder();
        let from = folder.path().join("source.vmdk");
        source(&connection, &from);
        for (kind, create_type) in
            [(Kind::Sparse, "KDMV"), (Kind::Stream, "KDMV"), (Kind::Flat, "monolithicFlat")]
        {
            let to = folder.path().join(format!("{kind:?}.vmdk"));
            // The capacity of the parameters is of no meaning, 0 included.
            let spec = Spec { adapter: adapter::LSILOGIC, hw_version: 13, ..Spec::new(kind, 0) };
            let (result, seen) = connection.clone_disk(&to, &other, &from, Some(spec), false);
            assert_eq!(result, code::OK, "{kind:?}\n{}", vix::log_text());
            assert_eq!(seen.last(), Some(&100), "{seen:?}");
            assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
            assert_is_copy(&connection, &to);
            let head = std::fs::read(&to).expect("the copy");
            assert!(String::from_utf8_lossy(&head).contains(create_type));
            let disk = connection.must_open(&to, flags::READ_ONLY);
            assert_eq!(disk.info().adapter, adapter::LSILOGIC);
            assert_eq!(disk.metadata("virtualHWVersion").as_deref(), Ok("13"));
        }
        // NULL: one growing file that takes after the source.
        let to = folder.path().join("null.vmdk");
        assert_eq!(connection.clone_null(Some(&to), Some(&from)), code::OK, "{}", vix::log_text());
        assert_is_copy(&connection, &to);
        let disk = connection.must_open(&to, flags::READ_ONLY);
        assert_eq!(disk.info().adapter, adapter::BUSLOGIC);
        assert_eq!(disk.metadata("virtualHWVersion").as_deref(), Ok("9"));
    });
}

#[test]
fn impossible_clones_are_refused_with_their_codes() {
    in_child(|| {
        let vix = Vix::started();
        let connection = vix.connect(false).expect("a connection");
        let folder = scratch::folder();
        let (from, to) = (folder.path().join("s.vmdk"), folder.path().join("t.vmdk"));
        source(&connection, &from);
        let clone = |to: &Path, from: &Path, kind: Option<Kind>, overwrite| {
            let spec = kind.map(|kind| Spec::new(kind, 1));
            let (result, seen) = connection.clone_disk(to, &connection, from, spec, overwrite);
            assert!(!seen.contains(&100) || result == code::OK, "{seen:?}");
            result
        };
        assert_eq!(connection.clone_null(None, Some(&from)), code::INVALID_ARG);
        assert_eq!(connection.clone_null(Some(&to), None), code::INVALID_ARG);
        assert_eq!(clone(Path::new(""), &from, None, false), code::INVALID_ARG);
        assert_eq!(clone(&to, Path::new(""), None, false), code::INVALID_ARG);
        assert_eq!(clone(&to, &folder.path().join("none.vmdk"), None, false), code::FILE_NOT_FOUND);
        assert_eq!(clone(&folder.path().join("none/t.vmdk"), &from, None, false), code::FILE_NOT_FOUND);
        assert_eq!(clone(&to, &from, Some(Kind::VmfsSparse), false), code::NOT_SUPPORTED);
        assert_eq!(clone(&from, &from, None, false), code::ALREADY_EXISTS);
        assert_eq!(clone(&from, &from, None, true), code::INVALID_ARG, "onto itself");
        assert!(!to.exists());
        assert_eq!(clone(&to, &from, Some(Kind::Flat), false), code::OK);
        assert_eq!(clone(&to, &from, None, false), code::ALREADY_EXISTS);
        assert_eq!(clone(&to, &from, None, true), code::OK);
        assert!(
            !folder.path().join("t-flat.vmdk").exists(),
            "the flat file went with the disk it belonged to"
        );
        assert_is_copy(&connection, &to);
        let gone = vix.connect(false).expect("a connection");
        assert_eq!(gone.disconnect_again(), code::OK);
        let new = folder.path().join("new.vmdk");
        let (result, _) = connection.clone_disk(&new, &gone, &from, None, false);
        assert_eq!(result, code::INVALID_CONNECTION);
        assert_eq!(gone.clone_null(Some(&new), Some(&from)), code::INVALID_CONNECTION);
        gone.leak();
        assert!(!new.exists());
    });
}

#[test]
fn the_space_that_a_clone_needs_is_told() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let from = folder.path().join("s.vmdk");
        source(&connection, &from);
        let disk = connection.must_open(&from, flags::READ_ONLY);
        let own = disk.space_for_clone(256).expect("the own type");
        assert_eq!(Ok(own), disk.space_for_clone(Kind::Sparse as u32));
        for kind in
            [Kind::Sparse, Kind::Flat, Kind::SplitSparse, Kind::SplitFlat, Kind::VmfsFlat, Kind::Stream]
        {
            let space = disk.space_for_clone(kind as u32).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
            let place = scratch::folder();
            let to = place.path().join("t.vmdk");
            let (result, _) = connection.clone_disk(&to, &connection, &from, Some(Spec::new(kind, 0)), false);
            assert_eq!(result, code::OK, "{kind:?}");
            let lengths = std::fs::read_dir(place.path())
                .expect("the folder")
                .map(|entry| entry.expect("an entry").metadata().expect("its length").len());
            let takes: u64 = lengths.sum();
            assert!(takes <= space && space <= takes + takes / 50 + 8192, "{kind:?}: {takes}, said {space}");
        }
        for bad in [0, 9, 255, 257, u32::MAX] {
            assert_eq!(disk.space_for_clone(bad), Err(code::INVALID_ARG), "{bad}");
        }
        assert_eq!(disk.space_for_clone(Kind::VmfsSparse as u32), Err(code::NOT_SUPPORTED));
        assert_eq!(disk.space_for_clone_raw(256, null_mut()), code::INVALID_ARG);
        let mut untouched = 7;
        assert_eq!(disk.close_again(), code::OK);
        assert_eq!(disk.space_for_clone_raw(256, &raw mut untouched), code::INVALID_HANDLE);
        disk.leak();
    });
}

/// As a backup program does it: create, open, write in order, close.
#[test]
fn a_stream_is_created_and_written_in_order() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let path = folder.path().join("d.vmdk");
        connection.must_create(&path, Spec::new(Kind::Stream, SECTORS));
        let disk = connection.must_open(&path, flags::READ_WRITE);
        for start in (0..SECTORS).step_by(200).filter(|start| start % 600 != 0) {
            disk.must_write(start, &stamps(start, 200, 1));
        }
        assert_eq!(disk.write(200, &stamps(200, 1, 2)), code::NOT_SUPPORTED, "going back");
        assert!(vix::log_text().contains("ascending order"), "{}", vix::log_text());
        assert_eq!(disk.flush(), code::OK);
        assert_eq!(disk.close(), code::OK);
        let disk = connection.must_open(&path, flags::READ_ONLY);
        for start in (0..SECTORS).step_by(200) {
            let expected = if start % 600 == 0 { vec![0; 200 * 512] } else { stamps(start, 200, 1) };
            assert_eq!(disk.must_read(start, 200), expected, "{start}");
        }
        assert_eq!(disk.close(), code::OK);
        assert_eq!(connection.open(&path, flags::READ_WRITE).map(drop), Err(code::FILE_READ_ONLY));
    });
}
