//! Children of disks, and chains put together from open disks.

#[macro_use]
mod common;

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use common::abi::Bench;
use common::abi::Language;
use common::abi::under_valgrind;
use common::child::in_child;
use common::model::stamps;
use common::process;
use common::scratch;
use common::scratch::names;
use common::tools;
use common::vix;
use common::vix::Connection;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

const CAPACITY: u64 = 3001;
const PARENTS: [Kind; 6] =
    [Kind::Sparse, Kind::Flat, Kind::SplitSparse, Kind::SplitFlat, Kind::VmfsFlat, Kind::VmfsThin];

fn make(connection: &Connection<'_>, path: &Path, kind: Kind, capacity: u64) {
    connection.must_create(path, Spec::new(kind, capacity));
    let disk = connection.must_open(path, flags::READ_WRITE);
    disk.must_write(100, &stamps(100, 50, 1));
    assert_eq!(disk.close(), code::OK);
}

fn make_child(connection: &Connection<'_>, parent: &Path, child: &Path, kind: Kind) {
    let disk = connection.must_open(parent, flags::READ_ONLY);
    let (result, seen) = disk.create_child(child, kind);
    assert_eq!(result, code::OK, "CreateChild({}): {}", child.display(), vix::log_text());
    assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&100)), "{seen:?}");
    assert_eq!(disk.close(), code::OK);
}

fn write(connection: &Connection<'_>, path: &Path, start: u64, version: u64) {
    let disk = connection.must_open(path, flags::READ_WRITE);
    disk.must_write(start, &stamps(start, 3, version));
    assert_eq!(disk.close(), code::OK);
}

fn text_of(path: &Path) -> String {
    let bytes = std::fs::read(path).expect("the descriptor");
    String::from_utf8_lossy(&bytes[..bytes.len().min(11_000)]).into_owned()
}

#[test]
fn a_child_shows_its_parent_until_it_is_written_to() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for parent_kind in PARENTS {
            for child_kind in [Kind::Sparse, Kind::SplitSparse] {
                let folder = scratch::folder();
                let (parent, child) = (folder.path().join("d.vmdk"), folder.path().join("c.vmdk"));
                make(&connection, &parent, parent_kind, CAPACITY);
                let before = std::fs::read(&parent).expect("the parent");
                make_child(&connection, &parent, &child, child_kind);
                assert!(std::fs::read(&parent).expect("the parent") == before, "the parent stays as it is");
                let disk = connection.must_open(&child, flags::READ_ONLY);
                let info = disk.info();
                assert_eq!((info.capacity, info.links), (CAPACITY, 2));
                assert_eq!(info.parent.as_deref(), Some("d.vmdk"));
                let of_parent = connection.must_open(&parent, flags::READ_ONLY).info();
                assert_eq!(
                    (info.uuid, info.physical, info.adapter),
                    (of_parent.uuid, of_parent.physical, of_parent.adapter)
                );
                assert_eq!(disk.must_read(100, 50), stamps(100, 50, 1));
                assert_eq!(disk.close(), code::OK);
                write(&connection, &child, 99, 5);
                write(&connection, &child, CAPACITY - 3, 6);
                let disk = connection.must_open(&child, flags::READ_ONLY);
                let all = disk.must_read(0, CAPACITY);
                assert_eq!(all[99 * 512..102 * 512], stamps(99, 3, 5));
                assert_eq!(all[102 * 512..150 * 512], stamps(102, 48, 1));
                assert!(std::fs::read(&parent).expect("the parent") == before, "writes go to the child");
                let raw = folder.path().join("all.raw");
                std::fs::write(&raw, &all).expect("the content");
                let mut compare = Command::new("qemu-img");
                compare.args(["compare", "-f", "vmdk", "-F", "raw"]).arg(&child).arg(&raw);
                tools::check(&mut compare);
                tools::qemu_check(&child);
            }
        }
    });
}

#[test]
fn the_parent_is_named_relative_in_or_below_the_folder_and_absolute_else() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let root = folder.path().canonicalize().expect("the folder");
        let (below, beside) = (root.join("be low"), root.join("beside"));
        std::fs::create_dir(&below).expect("a folder");
        std::fs::create_dir(&beside).expect("a folder");
        let parent = below.join("d %s.vmdk");
        make(&connection, &parent, Kind::Sparse, CAPACITY);
        let absolute = parent.to_str().expect("text").to_owned();
        for (child, hint) in [
            (below.join("c.vmdk"), "d %s.vmdk".to_owned()),
            (root.join("c.vmdk"), "be low/d %s.vmdk".to_owned()),
            (beside.join("c.vmdk"), absolute),
        ] {
            make_child(&connection, &parent, &child, Kind::Sparse);
            let text = text_of(&child);
            assert!(
                text.contains(&format!("createType=\"monolithicSparse\"\nparentFileNameHint=\"{hint}\"\n")),
                "{text}"
            );
            let disk = connection.must_open(&child, flags::READ_ONLY);
            assert_eq!(disk.must_read(100, 50), stamps(100, 50, 1));
        }
    });
}

#[test]
fn chains_of_sixty_four_links_are_read_and_written() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let place = |n: u64| folder.path().join(format!("d-{n:06}.vmdk"));
        make(&connection, &place(0), Kind::Sparse, CAPACITY);
        for n in 1..64 {
            let kind = if n % 2 == 0 { Kind::Sparse } else { Kind::SplitSparse };
            make_child(&connection, &place(n - 1), &place(n), kind);
            write(&connection, &place(n), 200 + 10 * n, n + 1);
        }
        let disk = connection.must_open(&place(63), flags::READ_ONLY);
        assert_eq!(disk.info().links, 64);
        assert_eq!(disk.must_read(100, 50), stamps(100, 50, 1));
        for n in 1..64 {
            assert_eq!(disk.must_read(200 + 10 * n, 3), stamps(200 + 10 * n, 3, n + 1), "link {n}");
        }
    });
}

#[test]
fn a_child_of_a_disk_that_is_written_to_again_is_refused() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let (parent, child) = (folder.path().join("d.vmdk"), folder.path().join("c.vmdk"));
        make(&connection, &parent, Kind::Sparse, CAPACITY);
        let disk = connection.must_open(&parent, flags::READ_WRITE);
        disk.must_write(7, &stamps(7, 3, 2));
        let (result, _) = disk.create_child(&child, Kind::Sparse);
        assert_eq!(result, code::OK, "{}", vix::log_text());
        let seen = connection.must_open(&child, flags::READ_ONLY);
        assert_eq!(seen.must_read(7, 3), stamps(7, 3, 2), "what was written before belongs to the child");
        assert_eq!(seen.close(), code::OK);
        disk.must_write(7, &stamps(7, 3, 3));
        assert_eq!(connection.open(&child, flags::READ_ONLY).err(), Some(code::CID_MISMATCH));
        assert_eq!(disk.close(), code::OK);
        assert_eq!(connection.open(&child, flags::READ_ONLY).err(), Some(code::CID_MISMATCH));
    });
}

#[test]
fn impossible_children_are_refused_and_leave_nothing() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let path = folder.path().join("d.vmdk");
        make(&connection, &path, Kind::Sparse, CAPACITY);
        let stream = folder.path().join("s.vmdk");
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "vmdk", "-O", "vmdk", "-o", "subformat=streamOptimized"]);
        tools::check(convert.arg(&path).arg(&stream));
        let before = names(folder.path());
        let disk = connection.must_open(&path, flags::READ_ONLY);
        let to = |name: &str| folder.path().join(name);
        for (child, kind, expected) in [
            (path.clone(), Kind::Sparse, code::ALREADY_EXISTS),
            (to("none/c.vmdk"), Kind::Sparse, code::FILE_NOT_FOUND),
            (to("c\"c.vmdk"), Kind::Sparse, code::NAME_INVALID),
            (to(&"n".repeat(254)), Kind::Sparse, code::NAME_TOO_LONG),
            (to("c.vmdk"), Kind::Flat, code::INVALID_ARG),
            (to("c.vmdk"), Kind::VmfsThin, code::INVALID_ARG),
            (to("c.vmdk"), Kind::Stream, code::INVALID_ARG),
            (PathBuf::new(), Kind::Sparse, code::INVALID_ARG),
        ] {
            assert_eq!(disk.create_child(&child, kind).0, expected, "{} {kind:?}", child.display());
        }
        let compressed = connection.must_open(&stream, flags::READ_ONLY);
        assert_eq!(compressed.create_child(&to("c.vmdk"), Kind::Sparse).0, code::PARENT_NOT_ALLOWED);
        assert_eq!(names(folder.path()), before);
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).expect("a folder");
        process::drop_privileges();
        assert_eq!(disk.create_child(&closed.join("c.vmdk"), Kind::SplitSparse).0, code::ACCESS_ERROR);
        assert_eq!(names(&closed), [] as [&str; 0]);
    });
}

#[test]
fn an_attached_child_stands_for_the_whole_chain() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for mode in [flags::READ_ONLY, flags::READ_WRITE] {
            let folder = scratch::folder();
            let [base, middle, leaf] = ["a.vmdk", "b.vmdk", "c.vmdk"].map(|name| folder.path().join(name));
            make(&connection, &base, Kind::Flat, CAPACITY);
            make_child(&connection, &base, &middle, Kind::Sparse);
            write(&connection, &middle, 300, 2);
            make_child(&connection, &middle, &leaf, Kind::SplitSparse);
            // The child finds its parent by what is attached, not by its hint.
            let moved = folder.path().join("elsewhere");
            std::fs::create_dir(&moved).expect("a folder");
            for name in names(folder.path()).iter().filter(|name| name.starts_with(['a', 'b'])) {
                std::fs::rename(folder.path().join(name), moved.join(name)).expect("moving a file");
            }
            assert_eq!(connection.open(&leaf, mode).err(), Some(code::OPEN_PARENT));
            let parent = connection.must_open(&moved.join("b.vmdk"), flags::READ_ONLY);
            let child = connection.must_open(&leaf, mode | flags::SINGLE_LINK);
            assert_eq!(child.info().links, 1);
            assert_eq!(parent.is_attach_possible(&child), code::OK, "{}", vix::log_text());
            assert_eq!(parent.attach(&child), code::OK, "{}", vix::log_text());
            assert_eq!(child.info().links, 3);
            assert_eq!(child.must_read(100, 50), stamps(100, 50, 1));
            assert_eq!(child.must_read(300, 3), stamps(300, 3, 2));
            assert_eq!(parent.read_refused(0, 1), code::INVALID_HANDLE);
            assert_eq!(parent.close_again(), code::OK, "closing the attached parent is harmless");
            if mode == flags::READ_WRITE {
                child.must_write(101, &stamps(101, 3, 8));
                assert_eq!(
                    child.must_read(100, 1),
                    stamps(100, 1, 1),
                    "the rest of the grain is the parent's"
                );
                assert_eq!(child.must_read(101, 3), stamps(101, 3, 8));
                assert_eq!(child.flush(), code::OK);
                assert_eq!(
                    connection.open(&leaf, mode | flags::SINGLE_LINK).err(),
                    Some(code::ALREADY_LOCKED)
                );
            }
            assert_eq!(child.close(), code::OK);
            if mode == flags::READ_WRITE {
                let parent = connection.must_open(&moved.join("b.vmdk"), flags::READ_ONLY);
                let child = connection.must_open(&leaf, flags::READ_WRITE | flags::SINGLE_LINK);
                assert_eq!(parent.attach(&child), code::OK, "{}", vix::log_text());
                assert_eq!(child.must_read(101, 3), stamps(101, 3, 8));
                child.leak(); // Disconnect closes it
                parent.leak();
            }
        }
        assert_eq!(connection.disconnect(), code::OK);
    });
}

#[test]
fn disks_that_do_not_fit_are_not_attached() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let to = |name: &str| folder.path().join(name);
        make(&connection, &to("a.vmdk"), Kind::Sparse, CAPACITY);
        make(&connection, &to("other.vmdk"), Kind::Sparse, CAPACITY);
        make(&connection, &to("large.vmdk"), Kind::Sparse, CAPACITY + 1);
        make_child(&connection, &to("a.vmdk"), &to("c.vmdk"), Kind::Sparse);
        make_child(&connection, &to("c.vmdk"), &to("cc.vmdk"), Kind::Sparse);
        let single = flags::READ_ONLY | flags::SINGLE_LINK;
        for (parent, parent_flags, child, child_flags, expected) in [
            ("a.vmdk", flags::READ_ONLY, "other.vmdk", flags::READ_ONLY, code::ATTACH_ROOT_LINK),
            ("a.vmdk", flags::READ_ONLY, "c.vmdk", flags::READ_ONLY, code::ATTACH_ROOT_LINK),
            ("c.vmdk", single, "a.vmdk", single, code::INVALID_CHAIN),
            ("large.vmdk", flags::READ_ONLY, "c.vmdk", single, code::CAPACITY_MISMATCH),
            ("other.vmdk", flags::READ_ONLY, "c.vmdk", single, code::CID_MISMATCH),
            ("c.vmdk", single, "cc.vmdk", single, code::PARTIAL_CHAIN),
        ] {
            let upper = connection.must_open(&to(child), child_flags);
            let lower = connection.must_open(&to(parent), parent_flags);
            assert_eq!(lower.is_attach_possible(&upper), expected, "{child} on {parent}");
            let _ = lower.must_read(0, 1);
            assert_eq!(lower.attach(&upper), expected, "{child} on {parent}");
            assert_eq!(lower.read_refused(0, 1), code::INVALID_HANDLE, "the parent is gone in any case");
            assert_eq!(lower.close_again(), code::OK);
            assert_eq!(lower.close_again(), code::INVALID_HANDLE);
            let _ = upper.must_read(0, 1);
            assert_eq!(upper.close(), code::OK);
        }
        let disk = connection.must_open(&to("c.vmdk"), single);
        assert_eq!(disk.is_attach_possible(&disk), code::INVALID_ARG);
        assert_eq!(disk.attach(&disk), code::INVALID_ARG);
        let _ = disk.must_read(0, 1);
    });
}

/// The sequence of the restore scenario: a child takes the writes, its parent is closed by the library, the child is deleted.
#[test]
fn a_restore_by_attach_reads_back_and_leaves_the_parent_alone() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let (parent, child) = (folder.path().join("d.vmdk"), folder.path().join("redo.vmdk"));
        make(&connection, &parent, Kind::Sparse, CAPACITY);
        let before = std::fs::read(&parent).expect("the parent");
        let lower = connection.must_open(&parent, flags::READ_WRITE);
        assert_eq!(lower.create_child(&child, Kind::Sparse).0, code::OK, "{}", vix::log_text());
        let upper = connection.must_open(&child, flags::SINGLE_LINK);
        assert_eq!(lower.attach(&upper), code::OK, "{}", vix::log_text());
        upper.must_write(120, &stamps(120, 10, 4));
        assert_eq!(upper.must_read(100, 20), stamps(100, 20, 1));
        assert_eq!(upper.must_read(120, 10), stamps(120, 10, 4));
        assert_eq!(upper.close(), code::OK);
        assert_eq!(connection.unlink(&child), code::OK);
        assert!(std::fs::read(&parent).expect("the parent") == before);
        let again = connection.must_open(&parent, flags::READ_WRITE);
        assert_eq!(again.close(), code::OK, "the parent's lock went with its handle");
    });
}

#[test]
fn a_c_program_makes_grows_renames_attaches_and_deletes() {
    requires!("gcc");
    let bench = Bench::new();
    let program = bench.compile("maintain", Language::C);
    let place = bench.path("disks");
    std::fs::create_dir(&place).expect("a folder");
    let said = tools::check(Command::new(&program).arg(&place)).text();
    assert!(said.contains("all is well"), "{said}");
    assert_eq!(names(&place), [] as [&str; 0]);
}

#[test]
fn a_c_program_that_maintains_disks_is_clean_under_valgrind() {
    requires!("gcc", "valgrind");
    let bench = Bench::new();
    let program = bench.compile("maintain", Language::C);
    let place = bench.path("disks");
    std::fs::create_dir(&place).expect("a folder");
    let said = tools::check(under_valgrind(&program).arg(&place)).text();
    assert!(said.contains("all is well"), "{said}");
}
