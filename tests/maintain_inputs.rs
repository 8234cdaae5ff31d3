//! Every operation on whole disks with every input that it may not like: what it answers, and that nothing is lost or left.
//!
//! A test is one kind of input; it goes through all [`OPERATIONS`] and says for each the code it expects. [`Stage`] sets the
//! same scene for each: a disk, its child where an operation needs one, and a name for what is made. A refused operation
//! leaves every file as it was, byte for byte; one that works leaves the content it should and no other file.

#[macro_use]
mod common;
#[path = "maintain_inputs/stage.rs"]
mod stage;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use common::child::in_child;
use common::disks;
use common::disks::CAPACITY;
use common::disks::ODD_NAMES;
use common::model::stamps;
use common::process;
use common::scratch;
use common::scratch::names;
use common::tools;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::code;
use common::vix::flags;
use stage::Findings;
use stage::KINDS;
use stage::OPERATIONS;
use stage::Op;
use stage::Stage;
use stage::expect;
use stage::snapshot;

#[test]
fn every_operation_works_on_every_kind() {
    in_child(|| {
        let mut findings = Findings::default();
        for kind in disks::KINDS {
            for operation in OPERATIONS {
                let stage = Stage::of_within(scratch::folder(), operation, kind);
                expect(&mut findings, &format!("{kind:?}"), &stage, operation, code::OK);
            }
        }
        findings.finish();
    });
}

#[test]
fn odd_names_of_disks_and_of_folders_work() {
    in_child(|| {
        let mut findings = Findings::default();
        for kind in KINDS {
            for operation in OPERATIONS {
                for name in ODD_NAMES {
                    let place = scratch::folder_in_memory();
                    let folder = place.path().join(format!("in {name}"));
                    fs::create_dir(&folder).expect("a folder");
                    let mut stage = Stage::empty(kind, &folder, place);
                    stage.fill(name);
                    stage.target = folder.join(format!("to{name}"));
                    stage.child = folder.join(format!("child{name}"));
                    let stage = if operation == Op::Attach { stage.with_child() } else { stage };
                    expect(&mut findings, &format!("{kind:?}, {name}"), &stage, operation, code::OK);
                }
            }
        }
        findings.finish();
    });
}

/// Names that no descriptor or no folder can hold, for what is made and for what is worked on.
#[test]
fn impossible_names_are_refused() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    in_child(|| {
        let mut findings = Findings::default();
        let not_text = OsString::from_vec(b"\xff\xfe.vmdk".to_vec());
        let long = |len: usize| OsString::from(format!("{}.vmdk", "n".repeat(len - 5)));
        for kind in KINDS {
            for operation in OPERATIONS {
                for (what, name, as_target, as_source) in [
                    ("a quote", OsString::from("a\"b.vmdk"), code::NAME_INVALID, code::FILE_NOT_FOUND),
                    ("a line feed", OsString::from("a\nb.vmdk"), code::NAME_INVALID, code::FILE_NOT_FOUND),
                    ("no UTF-8", not_text.clone(), code::NAME_INVALID, code::FILE_NOT_FOUND),
                    ("255 bytes", long(255), code::NAME_TOO_LONG, code::FILE_NOT_FOUND),
                    ("256 bytes", long(256), code::NAME_TOO_LONG, code::NAME_TOO_LONG),
                    ("nothing", OsString::new(), code::INVALID_ARG, code::INVALID_ARG),
                ] {
                    let what = format!("{kind:?}, {what}");
                    let place = |stage: &Stage<'_>| match name.is_empty() {
                        true => PathBuf::new(),
                        false => stage.folder().join(&name),
                    };
                    if operation.makes() {
                        let mut stage = Stage::of(operation, kind);
                        stage.target = stage.folder().join("none/t.vmdk");
                        expect(&mut findings, "no folder", &stage, operation, code::FILE_NOT_FOUND);
                        stage.target = place(&stage);
                        expect(&mut findings, &format!("{what}, target"), &stage, operation, as_target);
                    }
                    if operation.has_source() {
                        let mut stage = Stage::of(operation, kind);
                        stage.source = place(&stage);
                        expect(&mut findings, &format!("{what}, source"), &stage, operation, as_source);
                    }
                }
            }
        }
        findings.finish();
    });
}

/// A name of 255 bytes that another program gave: there is no room for a lock next to it, which only writing needs.
#[test]
fn disks_with_the_longest_names_are_read_and_not_written() {
    in_child(|| {
        let mut findings = Findings::default();
        for kind in KINDS {
            for operation in OPERATIONS.into_iter().filter(|operation| operation.has_source()) {
                let mut stage = Stage::of(operation, kind);
                let long = stage.folder().join(format!("{}.vmdk", "n".repeat(250)));
                let given = std::mem::replace(&mut stage.source, long);
                fs::rename(&given, &stage.source).expect("another name");
                if operation == Op::Attach {
                    continue; // its child names the parent
                }
                let expected = match operation {
                    Op::CreateChild | Op::Clone | Op::Check => code::OK,
                    _ => code::NAME_TOO_LONG,
                };
                expect(&mut findings, &format!("{kind:?}"), &stage, operation, expected);
            }
        }
        findings.finish();
    });
}

/// Sizes that no disk can have, and one that some kinds cannot.
#[test]
fn impossible_sizes_are_refused() {
    const MOST: u64 = 62 << 31;
    in_child(|| {
        let mut findings = Findings::default();
        for kind in disks::KINDS.into_iter().chain([Kind::Stream]) {
            for size in [0, MOST + 1, u64::MAX / 512, u64::MAX / 512 + 1, u64::MAX] {
                let mut stage = Stage::new(Kind::Sparse);
                stage.capacity = size;
                stage.kind = kind;
                let what = format!("{kind:?} of {size}");
                let before = snapshot(stage.place.path());
                let got = stage.connection.create(&stage.target, Spec::new(kind, size));
                findings.compare(&what, Op::Create, got, code::INVALID_ARG);
                assert_eq!(snapshot(stage.place.path()), before, "{what}");
                if kind != Kind::Stream {
                    let mut stage = Stage::new(kind);
                    stage.capacity = size;
                    expect(&mut findings, &what, &stage, Op::Grow, code::INVALID_ARG);
                }
            }
            if kind != Kind::Stream {
                let mut stage = Stage::new(kind);
                stage.capacity = CAPACITY - 1;
                expect(&mut findings, "smaller", &stage, Op::Grow, code::INVALID_ARG);
            }
        }
        findings.finish();
    });
}

/// Disks behind symbolic links and folders behind them; links that lead nowhere or in a circle.
#[test]
fn symbolic_links_are_followed_to_disks() {
    in_child(|| {
        let mut findings = Findings::default();
        for kind in KINDS {
            for operation in OPERATIONS {
                for what in ["a linked disk", "a linked folder", "a link to nothing", "a link to itself"] {
                    let mut stage = Stage::of(operation, kind);
                    let beside = stage.place.path().join("beside");
                    fs::create_dir(&beside).expect("a folder");
                    let mut expected = code::OK;
                    match what {
                        "a linked disk" => {
                            symlink(&stage.source, beside.join("l.vmdk")).expect("a link");
                            stage.source = beside.join("l.vmdk");
                        }
                        "a linked folder" => {
                            let linked = stage.place.path().join("linked");
                            symlink("vm", &linked).expect("a link");
                            for path in [&mut stage.source, &mut stage.child, &mut stage.target] {
                                *path = linked.join(path.file_name().expect("a name"));
                            }
                        }
                        _ => {
                            stage.source = beside.join("l.vmdk");
                            let nowhere = what == "a link to nothing";
                            symlink(if nowhere { "none.vmdk" } else { "l.vmdk" }, &stage.source)
                                .expect("a link");
                            expected = if nowhere { code::FILE_NOT_FOUND } else { code::FILE_ERROR };
                        }
                    }
                    if operation.has_source() {
                        expect(&mut findings, &format!("{kind:?}, {what}"), &stage, operation, expected);
                    } else if what == "a linked folder" {
                        expect(&mut findings, &format!("{kind:?}, {what}"), &stage, operation, code::OK);
                    }
                }
            }
        }
        findings.finish();
    });
}

/// A child sees its parent's content after each operation on the parent, or is told why it cannot.
#[test]
fn operations_on_a_parent_leave_its_child_whole() {
    in_child(|| {
        let mut findings = Findings::default();
        for kind in KINDS {
            for operation in OPERATIONS {
                let stage = Stage::new(kind).with_child();
                let expected = match operation {
                    Op::Grow => code::NOT_SUPPORTED, // the child would be of another size
                    _ => code::OK,
                };
                expect(&mut findings, &format!("{kind:?}"), &stage, operation, expected);
                if operation == Op::Unlink {
                    let orphan = stage.connection.open(&stage.child, flags::READ_ONLY).err();
                    assert_eq!(orphan, Some(code::OPEN_PARENT), "{kind:?}");
                } else {
                    disks::check_child(&stage.connection, &stage.child);
                }
            }
        }
        findings.finish();
    });
}

/// Who has a disk open for reading, by itself or below a child, reads on what he read before, whatever happens to the disk;
/// what would move data about under him is refused.
#[test]
fn readers_read_on_what_they_read_before() {
    in_child(|| {
        let mut findings = Findings::default();
        for kind in KINDS {
            for operation in OPERATIONS {
                for through_child in [false, true] {
                    let stage = Stage::of(Op::Attach, kind);
                    if !through_child && operation == Op::Grow {
                        assert_eq!(stage.connection.unlink(&stage.child), code::OK);
                    }
                    let path = if through_child { &stage.child } else { &stage.source };
                    let reader = stage.connection.must_open(path, flags::READ_ONLY);
                    assert_eq!(reader.must_read(100, 50), stamps(100, 50, 1));
                    let moves = matches!(operation, Op::Shrink | Op::Defragment);
                    let expected = match operation {
                        Op::Grow if through_child => code::NOT_SUPPORTED,
                        _ if moves && matches!(kind, Kind::Sparse | Kind::SplitSparse) => {
                            code::ALREADY_LOCKED
                        }
                        _ => code::OK,
                    };
                    let what = format!("{kind:?}, through a child: {through_child}");
                    expect(&mut findings, &what, &stage, operation, expected);
                    assert_eq!(reader.must_read(100, 50), stamps(100, 50, 1), "{what}, {operation:?}");
                    assert_eq!(reader.close(), code::OK);
                    if expected == code::ALREADY_LOCKED {
                        expect(&mut findings, &format!("{what}, afterwards"), &stage, operation, code::OK);
                    }
                }
            }
        }
        findings.finish();
    });
}

/// Whoever has the disk or its child open for writing is not surprised. Reading a disk that is being written is allowed.
#[test]
fn disks_that_are_written_to_are_not_changed_by_others() {
    in_child(|| {
        let findings = std::sync::Mutex::new(Findings::default());
        // Each waits some seconds for the other to go: all at the same time.
        std::thread::scope(|scope| {
            for operation in OPERATIONS.into_iter().filter(|operation| operation.has_source()) {
                for through_child in [false, true] {
                    let findings = &findings;
                    scope.spawn(move || {
                        let expected = match operation {
                            Op::CreateChild | Op::Clone => code::OK,
                            Op::Attach if !through_child => code::OK,
                            Op::Unlink | Op::Check | Op::Repair if through_child => code::OK,
                            Op::Grow if through_child => code::NOT_SUPPORTED,
                            _ => code::ALREADY_LOCKED,
                        };
                        let stage = Stage::new(Kind::Sparse).with_child();
                        let path = if through_child { &stage.child } else { &stage.source };
                        let disk = stage.connection.must_open(path, flags::READ_WRITE);
                        let got = stage.run(operation);
                        let what = format!("through a child: {through_child}");
                        findings.lock().expect("findings").compare(&what, operation, got, expected);
                        assert_eq!(disk.must_read(100, 50), stamps(100, 50, 1), "{what}, {operation:?}");
                        disk.must_write(200, &stamps(200, 1, 1));
                        assert_eq!(disk.close(), code::OK, "{what}, {operation:?}");
                    });
                }
            }
        });
        findings.into_inner().expect("findings").finish();
    });
}

/// The folder belongs to somebody else, the files do not: those can be written to, but not locked, made or removed.
#[test]
fn folders_without_write_permission_stay_as_they_are() {
    in_child(|| {
        let mut findings = Findings::default();
        for kind in KINDS {
            for operation in OPERATIONS {
                let stage = Stage::of_within(scratch::folder(), operation, kind);
                names(&stage.folder()).iter().for_each(|name| process::give_away(&stage.folder().join(name)));
                if !process::is_root() {
                    use std::os::unix::fs::PermissionsExt;
                    let rights = fs::Permissions::from_mode(0o555);
                    fs::set_permissions(stage.folder(), rights).expect("no permission");
                }
                let expected = if operation == Op::Check { code::OK } else { code::ACCESS_ERROR };
                process::unprivileged(|| {
                    expect(&mut findings, &format!("{kind:?}"), &stage, operation, expected);
                });
                scratch::open_to_all(&stage.folder());
            }
        }
        findings.finish();
    });
}

#[test]
fn read_only_file_systems_stay_as_they_are() {
    in_child(|| {
        let base = scratch::folder();
        if let Err(reason) = process::mount_small(base.path(), 64 << 20) {
            return scratch::note(&reason);
        }
        let mut findings = Findings::default();
        for kind in KINDS {
            for operation in OPERATIONS {
                let stage =
                    Stage::of_within(tempfile::tempdir_in(base.path()).expect("a folder"), operation, kind);
                process::make_read_only(base.path(), true);
                let expected = match operation {
                    Op::Check => code::OK,
                    Op::Create | Op::CreateChild | Op::Clone => code::FILE_READ_ONLY,
                    _ => code::ACCESS_ERROR, // the lock folder cannot be made
                };
                expect(&mut findings, &format!("{kind:?}"), &stage, operation, expected);
                process::make_read_only(base.path(), false);
            }
        }
        findings.finish();
    });
}

/// The file system gets full at every moment of every operation: nothing is lost, nothing is left, and with enough room the
/// same call works.
#[test]
fn full_file_systems_lose_and_keep_nothing() {
    requires!("qemu-img");
    in_child(|| {
        let base = scratch::folder();
        if let Err(reason) = process::mount_small(base.path(), 16 << 20) {
            return scratch::note(&reason);
        }
        let mut findings = Findings::default();
        for kind in KINDS {
            for operation in OPERATIONS {
                let place = tempfile::tempdir_in(base.path()).expect("a folder");
                let stage = Stage::of_within(place, operation, kind);
                let (mut pages, mut failures) = (0, 0);
                loop {
                    let filler = base.path().join("filler");
                    let free = process::free_space(base.path());
                    fs::write(&filler, vec![1; (free - pages * 4096) as usize]).expect("a full file system");
                    let before = snapshot(stage.place.path());
                    let got = stage.run(operation);
                    fs::remove_file(filler).expect("room again");
                    let what = format!("{kind:?} with {pages} pages");
                    if got == code::OK {
                        stage.check_done(operation);
                        break;
                    }
                    findings.compare(&what, operation, got, code::DISK_FULL);
                    // What works in place may have begun; then the disk is sound and its content what it was.
                    let in_place = matches!(operation, Op::Grow | Op::Shrink | Op::Defragment);
                    let after = snapshot(stage.place.path());
                    let listed =
                        |all: &[(PathBuf, Vec<u8>)]| all.iter().map(|(path, _)| path.clone()).collect();
                    let (files, files_before): (Vec<PathBuf>, Vec<PathBuf>) =
                        (listed(&after), listed(&before));
                    if files != files_before || after != before && !in_place {
                        findings.0.push(format!("{what}, {operation:?}: something changed: {files:?}"));
                    } else if after != before {
                        tools::qemu_check(&stage.source);
                    }
                    disks::check(&stage.connection, &stage.source);
                    failures += 1;
                    pages += 1 + pages / 8;
                    assert!(pages < 2000, "{what}, {operation:?}: never enough room");
                }
                let takes_nothing = matches!(operation, Op::Check);
                assert!(failures > 0 || takes_nothing, "{kind:?}, {operation:?} needs no room");
            }
        }
        findings.finish();
    });
}

#[test]
fn existing_targets_are_left_alone() {
    in_child(|| {
        let mut findings = Findings::default();
        for kind in KINDS {
            for operation in OPERATIONS.into_iter().filter(|operation| operation.makes()) {
                for what in
                    ["a file", "a folder", "a link", "a link to nothing", "the disk itself", "an extent"]
                {
                    let mut stage = Stage::of(operation, kind);
                    match what {
                        "a file" => fs::write(&stage.target, b"precious").expect("a file"),
                        "a folder" => fs::create_dir(&stage.target).expect("a folder"),
                        "a link" => symlink("d.vmdk", &stage.target).expect("a link"),
                        "a link to nothing" => symlink("nothing.vmdk", &stage.target).expect("a link"),
                        "the disk itself" => stage.target = stage.source.clone(),
                        _ => {
                            let extents: Vec<String> = names(&stage.folder());
                            let Some(extent) = extents.iter().find(|name| *name != "d.vmdk") else {
                                continue;
                            };
                            if operation == Op::CreateChild {
                                continue; // a monolithic child has no extents
                            }
                            let taken = extent.replacen('d', "t", 1);
                            fs::write(stage.folder().join(taken), b"precious").expect("a file");
                        }
                    }
                    let what = format!("{kind:?}, {what}");
                    expect(&mut findings, &what, &stage, operation, code::ALREADY_EXISTS);
                }
            }
        }
        findings.finish();
    });
}
