//! Deleting and renaming disks.

#[macro_use]
mod common;

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::child;
use common::child::in_child;
use common::disks::KINDS;
use common::disks::check;
use common::disks::make;
use common::images::Images;
use common::model::Hasher;
use common::model::Rng;
use common::model::stamps;
use common::process;
use common::scratch;
use common::scratch::content;
use common::scratch::names;
use common::tools;
use common::vix;
use common::vix::Connection;
use common::vix::Kind;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

/// A child of `parent` as QEMU makes it, with something of its own in it.
fn qemu_child(connection: &Connection<'_>, folder: &Path, parent: &str, child: &str) {
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", parent, child]).current_dir(folder);
    tools::check(&mut create);
    let disk = connection.must_open(&folder.join(child), flags::READ_WRITE);
    disk.must_write(2000, &stamps(2000, 3, 7));
    assert_eq!(disk.close(), code::OK);
}

#[test]
fn a_deleted_disk_is_gone_with_all_its_files() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in KINDS {
            let folder = scratch::folder();
            let path = folder.path().join("d.vmdk");
            make(&connection, &folder.path().join("d2.vmdk"), kind);
            let others = names(folder.path());
            make(&connection, &path, kind);
            assert_eq!(connection.unlink(&path), code::OK, "{kind:?}: {}", vix::log_text());
            assert_eq!(names(folder.path()), others, "{kind:?}: everything else is still there");
            check(&connection, &folder.path().join("d2.vmdk"));
            assert_eq!(connection.unlink(&path), code::FILE_NOT_FOUND, "{kind:?}");
        }
    });
}

#[test]
fn a_disk_that_is_open_for_writing_is_neither_deleted_nor_renamed() {
    in_child(|| {
        let vix = Vix::started();
        let connection = vix.connect(false).expect("a connection");
        for kind in [Kind::Sparse, Kind::Flat] {
            let folder = scratch::folder();
            let path = folder.path().join("d.vmdk");
            make(&connection, &path, kind);
            let before = content(folder.path());
            let disk = connection.must_open(&path, flags::READ_WRITE);
            assert_eq!(connection.unlink(&path), code::ALREADY_LOCKED, "{kind:?}");
            assert_eq!(vix.rename(&path, &folder.path().join("e.vmdk")), code::ALREADY_LOCKED, "{kind:?}");
            assert_eq!(disk.close(), code::OK);
            assert_eq!(content(folder.path()), before, "{kind:?}");
        }
    });
}

#[test]
fn deleting_takes_one_link_and_leaves_its_parent() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let (parent, child) = (folder.path().join("d.vmdk"), folder.path().join("c.vmdk"));
        make(&connection, &parent, Kind::Sparse);
        qemu_child(&connection, folder.path(), "d.vmdk", "c.vmdk");
        assert_eq!(connection.unlink(&child), code::OK);
        check(&connection, &parent);
        qemu_child(&connection, folder.path(), "d.vmdk", "c.vmdk");
        assert_eq!(connection.unlink(&parent), code::OK);
        assert_eq!(connection.open(&child, flags::READ_ONLY).err(), Some(code::OPEN_PARENT));
        assert_eq!(connection.unlink(&child), code::OK, "an orphan can be deleted");
        assert_eq!(names(folder.path()), [] as [&str; 0]);
    });
}

#[test]
fn what_is_no_disk_is_not_deleted() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let path = folder.path().join("d.vmdk");
        make(&connection, &path, Kind::SplitSparse);
        std::fs::write(folder.path().join("notes.txt"), "a text\n").expect("a file");
        std::fs::write(folder.path().join("empty"), "").expect("a file");
        let before = content(folder.path());
        for name in ["notes.txt", "empty", "d-s001.vmdk"] {
            let result = connection.unlink(&folder.path().join(name));
            assert_eq!(result, code::INVALID_DISK, "{name}: {}", vix::log_text());
        }
        assert_ne!(connection.unlink(folder.path()), code::OK, "a folder");
        assert_eq!(connection.unlink(Path::new("")), code::INVALID_ARG);
        assert_eq!(content(folder.path()), before);
    });
}

/// A description is data from a stranger: deleting must not reach out of its folder.
#[test]
fn extents_outside_the_folder_are_not_deleted() {
    in_child(|| {
        let vix = Vix::started();
        let connection = vix.connect(false).expect("a connection");
        let folder = scratch::folder();
        let place = folder.path().join("vm");
        std::fs::create_dir(&place).expect("a folder");
        let precious = folder.path().join("precious");
        std::fs::write(&precious, vec![7; 4096]).expect("a file");
        for name in ["../precious", precious.to_str().expect("text")] {
            let text = format!(
                "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\n\
                 createType=\"monolithicFlat\"\nRW 8 FLAT \"{name}\" 0\n"
            );
            let path = place.join("d.vmdk");
            std::fs::write(&path, text).expect("a descriptor");
            assert_eq!(connection.unlink(&path), code::ACCESS_ERROR, "{name}");
            assert_eq!(vix.rename(&path, &place.join("e.vmdk")), code::ACCESS_ERROR, "{name}");
            assert!(path.exists() && precious.exists());
        }
    });
}

#[test]
fn symbolic_links_go_with_what_they_lead_to() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let real = folder.path().join("real");
        std::fs::create_dir(&real).expect("a folder");
        make(&connection, &real.join("d.vmdk"), Kind::Flat);
        let link = folder.path().join("l.vmdk");
        std::os::unix::fs::symlink("real/d.vmdk", &link).expect("a link");
        assert_eq!(connection.unlink(&link), code::OK, "{}", vix::log_text());
        assert_eq!(names(&real), [] as [&str; 0]);
        assert_eq!(names(folder.path()), ["real"]);
    });
}

#[test]
fn a_renamed_disk_has_new_names_inside_and_outside() {
    requires!("qemu-img");
    in_child(|| {
        let vix = Vix::started();
        let connection = vix.connect(false).expect("a connection");
        for kind in KINDS {
            for moved in [false, true] {
                let folder = scratch::folder();
                let other = folder.path().join("other");
                std::fs::create_dir(&other).expect("a folder");
                let path = folder.path().join("d.vmdk");
                let target =
                    if moved { other.join("a new one.vmdk") } else { folder.path().join("a new one.vmdk") };
                make(&connection, &path, kind);
                let before = names(folder.path());
                assert_eq!(vix.rename(&path, &target), code::OK, "{kind:?}: {}", vix::log_text());
                let mut expected: Vec<String> = before
                    .iter()
                    .filter(|name| *name != "other")
                    .map(|name| format!("a new one{}", &name[1..]))
                    .collect();
                expected.sort();
                let found = names(target.parent().expect("a folder"));
                assert_eq!(found.into_iter().filter(|name| name != "other").collect::<Vec<_>>(), expected);
                check(&connection, &target);
                let bytes = std::fs::read(&target).expect("the descriptor");
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(11_000)]).into_owned();
                assert!(!text.contains("\"d-") && !text.contains("\"d.vmdk\""), "{kind:?}: {text}");
                assert!(text.contains("\"a new one"), "{kind:?}: {text}");
                tools::qemu_check(&target);
                let disk = connection.must_open(&target, flags::READ_WRITE);
                disk.must_write(0, &stamps(0, 1, 2));
                assert_eq!(disk.close(), code::OK);
            }
        }
    });
}

#[test]
fn children_follow_their_renamed_parent() {
    requires!("qemu-img");
    in_child(|| {
        let vix = Vix::started();
        let connection = vix.connect(false).expect("a connection");
        for kind in [Kind::Sparse, Kind::Flat, Kind::SplitSparse] {
            let folder = scratch::folder();
            let other = folder.path().join("other");
            std::fs::create_dir(&other).expect("a folder");
            make(&connection, &folder.path().join("d.vmdk"), kind);
            qemu_child(&connection, folder.path(), "d.vmdk", "c.vmdk");
            qemu_child(&connection, folder.path(), "c.vmdk", "cc.vmdk");
            let mut place = folder.path().join("d.vmdk");
            for target in [folder.path().join("e.vmdk"), other.join("f.vmdk"), folder.path().join("g.vmdk")] {
                assert_eq!(vix.rename(&place, &target), code::OK, "{kind:?}: {}", vix::log_text());
                check(&connection, &target);
                let disk = connection.must_open(&folder.path().join("cc.vmdk"), flags::READ_ONLY);
                assert_eq!(disk.info().links, 3);
                assert_eq!(disk.must_read(100, 50), stamps(100, 50, 1), "{kind:?}");
                assert_eq!(disk.must_read(2000, 3), stamps(2000, 3, 7), "{kind:?}");
                place = target;
            }
            // The child goes elsewhere: it still finds its parent, and its own child finds it.
            assert_eq!(vix.rename(&folder.path().join("c.vmdk"), &other.join("x.vmdk")), code::OK);
            let disk = connection.must_open(&folder.path().join("cc.vmdk"), flags::READ_ONLY);
            assert_eq!(disk.must_read(100, 50), stamps(100, 50, 1), "{kind:?}");
        }
    });
}

#[test]
fn a_folder_that_cannot_be_written_to_stays_as_it_is() {
    in_child(|| {
        let vix = Vix::started();
        let connection = vix.connect(false).expect("a connection");
        let folder = scratch::folder();
        let (closed, open) = (folder.path().join("closed"), folder.path().join("open"));
        for place in [&closed, &open] {
            std::fs::create_dir(place).expect("a folder");
            make(&connection, &place.join("d.vmdk"), Kind::Flat);
            for name in names(place) {
                process::give_away(&place.join(name));
            }
        }
        process::give_away(&open);
        process::drop_privileges();
        let before = (content(&closed), content(&open));
        assert_eq!(connection.unlink(&closed.join("d.vmdk")), code::ACCESS_ERROR);
        assert_eq!(vix.rename(&closed.join("d.vmdk"), &open.join("e.vmdk")), code::ACCESS_ERROR);
        assert_eq!(vix.rename(&open.join("d.vmdk"), &closed.join("e.vmdk")), code::ACCESS_ERROR);
        assert_eq!((content(&closed), content(&open)), before);
        assert_eq!(connection.unlink(&open.join("d.vmdk")), code::OK);
        assert_eq!(names(&open), [] as [&str; 0]);
    });
}

#[test]
fn another_file_system_is_refused_and_nothing_changes() {
    in_child(|| {
        let vix = Vix::started();
        let folder = scratch::folder();
        let place = folder.path().join("small");
        std::fs::create_dir(&place).expect("a folder");
        if let Err(reason) = process::mount_small(&place, 1 << 24) {
            return scratch::note(&reason);
        }
        let connection = vix.connect(false).expect("a connection");
        for kind in [Kind::Sparse, Kind::Flat] {
            let path = folder.path().join("d.vmdk");
            make(&connection, &path, kind);
            let before = content(folder.path());
            assert_eq!(vix.rename(&path, &place.join("d.vmdk")), code::NOT_SUPPORTED, "{kind:?}");
            assert_eq!(names(&place), [] as [&str; 0]);
            assert_eq!(content(folder.path()), before);
            assert_eq!(connection.unlink(&path), code::OK);
        }
    });
}

/// What other programs made is renamed and deleted as well, and reads as before in between.
#[test]
fn golden_images_are_renamed_and_deleted() {
    in_child(|| {
        let vix = Vix::started();
        let connection = vix.connect(false).expect("a connection");
        let images = Images::find();
        for golden in images.golden() {
            let place = images.unpack(&golden.path);
            let before = names(place.folder());
            let target = place.sibling("renamed it.vmdk");
            assert_eq!(vix.rename(&place.path(), &target), code::OK, "{}: {}", golden.path, vix::log_text());
            assert!(!place.path().exists(), "{}", golden.path);
            assert_eq!(names(place.folder()).len(), before.len(), "{}", golden.path);
            let disk = connection.must_open(&target, flags::READ_ONLY);
            let mut hash = Hasher::default();
            for start in (0..golden.size / 512).step_by(8192) {
                hash.add(&disk.must_read(start, (golden.size / 512 - start).min(8192)));
            }
            assert_eq!(hash.hex(), golden.sha256, "{}", golden.path);
            assert_eq!(disk.close(), code::OK);
            assert_eq!(connection.unlink(&target), code::OK, "{}: {}", golden.path, vix::log_text());
            let left = names(place.folder());
            assert!(left.len() < before.len(), "{}: {left:?}", golden.path);
            assert!(left.iter().all(|name| before.contains(name)), "{}: {left:?}", golden.path);
        }
    });
}

/// Killed at any moment, a renaming leaves the disk under its old or its new name, and its child with a parent.
#[test]
fn a_killed_renaming_leaves_the_old_or_the_new_disk() {
    requires!("qemu-img");
    const NAME: &str = "a_killed_renaming_leaves_the_old_or_the_new_disk";
    if child::is_child(NAME) {
        let vix = Vix::started();
        let folder = PathBuf::from(std::env::var_os("VIX_TEST_FOLDER").expect("the folder"));
        let [one, other] = ["d.vmdk", "e.vmdk"].map(|name| folder.join(name));
        loop {
            for (from, to) in [(&one, &other), (&other, &one)] {
                let result = vix.rename(from, to);
                assert!([code::OK, code::FILE_NOT_FOUND, code::ALREADY_EXISTS].contains(&result), "{result}");
            }
        }
    }
    let mut rng = Rng::new(77);
    for kind in [Kind::Sparse, Kind::SplitSparse, Kind::Flat] {
        for round in 0..8 {
            let folder = scratch::folder();
            in_place(kind, folder.path());
            let mut process = child::command(NAME)
                .env("VIX_TEST_FOLDER", folder.path())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("a child");
            std::thread::sleep(Duration::from_millis(150) + Duration::from_micros(rng.below(200_000)));
            process.kill().expect("killing the child");
            process.wait().expect("the end of the child");
            // Whether somebody is about to take a lock is known after seconds only; nobody is.
            for name in names(folder.path()).iter().filter(|name| name.ends_with(".lck")) {
                let _ = std::fs::remove_dir_all(folder.path().join(name));
            }
            let library = open_library();
            let connection = library.connect(false).expect("a connection");
            let found: Vec<PathBuf> = ["d.vmdk", "e.vmdk"]
                .map(|name| folder.path().join(name))
                .into_iter()
                .filter(|path| path.exists())
                .collect();
            assert!(!found.is_empty(), "{kind:?}, round {round}: {:?}", names(folder.path()));
            for path in &found {
                check(&connection, path);
            }
            let disk = connection.must_open(&folder.path().join("c.vmdk"), flags::READ_ONLY);
            assert_eq!(disk.must_read(100, 50), stamps(100, 50, 1), "{kind:?}, round {round}");
            drop(disk);
            if let [only] = &found[..] {
                let result = library.rename(only, &folder.path().join("again.vmdk"));
                assert_eq!(result, code::OK, "{kind:?}, round {round}: {}", vix::log_text());
            }
        }
    }
}

fn open_library() -> &'static Vix {
    Vix::started()
}

/// A disk `d.vmdk` with a child `c.vmdk`.
fn in_place(kind: Kind, folder: &Path) {
    let connection = open_library().connect(false).expect("a connection");
    make(&connection, &folder.join("d.vmdk"), kind);
    qemu_child(&connection, folder, "d.vmdk", "c.vmdk");
}
