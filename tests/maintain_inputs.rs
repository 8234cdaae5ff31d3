//! Every operation on whole disks with every input that it may not like: what it answers, and that nothing is lost or left.
//!
//! A test is one kind of input; it goes through all [`OPERATIONS`] and says for each the code it expects. [`Stage`] sets the
//! same scene for each: a disk, its child where an operation needs one, and a name for what is made. A refused operation
//! leaves every file as it was, byte for byte; one that works leaves the content it should and no other file.

#[macro_use]
mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

use common::child::in_child;
use common::disks;
use common::disks::CAPACITY;
use common::disks::ODD_NAMES;
use common::model::is_zero;
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
use tempfile::TempDir;

/// Everything that works on whole disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Create,
    CreateChild,
    Attach,
    Clone,
    Grow,
    Shrink,
    Defragment,
    Rename,
    Unlink,
    Check,
    Repair,
}

use Operation as Op;

const OPERATIONS: [Operation; 11] = [
    Op::Create,
    Op::CreateChild,
    Op::Attach,
    Op::Clone,
    Op::Grow,
    Op::Shrink,
    Op::Defragment,
    Op::Rename,
    Op::Unlink,
    Op::Check,
    Op::Repair,
];

/// One kind of each way to lay a disk out.
const KINDS: [Kind; 4] = [Kind::Sparse, Kind::Flat, Kind::SplitSparse, Kind::VmfsThin];

impl Operation {
    /// It makes a disk under the target's name.
    fn makes(self) -> bool {
        matches!(self, Op::Create | Op::CreateChild | Op::Clone | Op::Rename)
    }

    /// It needs the disk to be there.
    fn has_source(self) -> bool {
        self != Op::Create
    }
}

/// A scene for one operation.
struct Stage<'v> {
    vix: &'v Vix,
    connection: Connection<'v>,
    place: TempDir,
    kind: Kind,
    /// The disk.
    source: PathBuf,
    /// A child of it, for `Attach`.
    child: PathBuf,
    /// The name for what is made.
    target: PathBuf,
    /// What `Grow` asks for.
    capacity: u64,
}

impl<'v> Stage<'v> {
    /// A disk `d.vmdk`, the target's name `t.vmdk`, nothing else.
    fn new(kind: Kind) -> Self {
        Self::within(scratch::folder_in_memory(), kind)
    }

    fn within(place: TempDir, kind: Kind) -> Self {
        let folder = place.path().join("vm");
        fs::create_dir(&folder).expect("a folder");
        let mut stage = Self::empty(kind, &folder, place);
        stage.fill("d.vmdk");
        stage
    }

    fn empty(kind: Kind, folder: &Path, place: TempDir) -> Self {
        let vix = Vix::started();
        let connection = vix.connect(false).expect("a connection");
        let [source, child, target] = ["d.vmdk", "c.vmdk", "t.vmdk"].map(|name| folder.join(name));
        Self { vix, connection, place, kind, source, child, target, capacity: CAPACITY + 1000 }
    }

    /// Makes the disk, under this name.
    fn fill(&mut self, name: &str) {
        self.source = self.folder().join(name);
        self.connection.must_create(&self.source, Spec::new(self.kind, CAPACITY));
        // Grains that turn to zeros lie before those with data: Shrink and Defragment have something to move.
        let disk = self.connection.must_open(&self.source, flags::READ_WRITE);
        disk.must_write(1000, &stamps(1000, 300, 2));
        disk.must_write(100, &stamps(100, 50, 1));
        disk.must_write(1000, &[0; 300 * 512]);
        assert_eq!(disk.close(), code::OK);
    }

    fn folder(&self) -> PathBuf {
        self.source.parent().expect("a folder").to_owned()
    }

    /// Makes the child that `Attach` works on.
    fn with_child(self) -> Self {
        disks::make_child(&self.connection, &self.source, &self.child);
        self
    }

    /// The scene that an operation starts from.
    fn of(operation: Operation, kind: Kind) -> Self {
        Self::of_within(scratch::folder_in_memory(), operation, kind)
    }

    fn of_within(place: TempDir, operation: Operation, kind: Kind) -> Self {
        let stage = Self::within(place, kind);
        if operation == Op::Attach { stage.with_child() } else { stage }
    }

    /// Does it; the first code that is not `VIX_OK`.
    fn run(&self, operation: Operation) -> u64 {
        let connection = &self.connection;
        match operation {
            Op::Create => connection.create(&self.target, Spec::new(self.kind, CAPACITY)),
            Op::CreateChild => {
                self.on_disk(flags::READ_ONLY, |disk| disk.create_child(&self.target, Kind::Sparse).0)
            }
            Op::Attach => self.attach(flags::READ_WRITE),
            Op::Clone => {
                let spec = Some(Spec::new(self.kind, 0));
                connection.clone_disk(&self.target, connection, &self.source, spec, false).0
            }
            Op::Grow => connection.grow(&self.source, self.capacity, true).0,
            Op::Shrink => self.on_disk(flags::READ_WRITE, |disk| disk.shrink().0),
            Op::Defragment => self.on_disk(flags::READ_WRITE, |disk| disk.defragment().0),
            Op::Rename => self.vix.rename(&self.source, &self.target),
            Op::Unlink => connection.unlink(&self.source),
            Op::Check => connection.check_repair(&self.source, false),
            Op::Repair => connection.check_repair(&self.source, true),
        }
    }

    fn on_disk(&self, how: u32, work: impl FnOnce(&vix::Disk<'_>) -> u64) -> u64 {
        let disk = match self.connection.open(&self.source, how) {
            Ok(disk) => disk,
            Err(code) => return code,
        };
        let result = work(&disk);
        let closed = disk.close();
        if result == code::OK { closed } else { result }
    }

    fn attach(&self, how: u32) -> u64 {
        let parent = match self.connection.open(&self.source, flags::READ_ONLY) {
            Ok(disk) => disk,
            Err(code) => return code,
        };
        let child = match self.connection.open(&self.child, how | flags::SINGLE_LINK) {
            Ok(disk) => disk,
            Err(code) => return code,
        };
        let result = parent.attach(&child);
        if result == code::OK {
            assert_eq!(child.must_read(100, 50), stamps(100, 50, 1));
            assert_eq!(child.must_read(2000, 3), stamps(2000, 3, 7));
        }
        drop(parent); // allowed, and harmless
        let closed = child.close();
        if result == code::OK { closed } else { result }
    }

    /// What has to be there after it worked.
    fn check_done(&self, operation: Operation) {
        let connection = &self.connection;
        match operation {
            Op::Rename | Op::Unlink => assert!(!self.source.exists(), "{operation:?}"),
            Op::Create => {}
            _ => disks::check(connection, &self.source),
        }
        match operation {
            Op::Create => {
                let disk = connection.must_open(&self.target, flags::READ_ONLY);
                assert!(is_zero(&disk.must_read(0, CAPACITY)));
            }
            Op::CreateChild | Op::Clone | Op::Rename => disks::check(connection, &self.target),
            Op::Grow => {
                assert_eq!(
                    connection.must_open(&self.source, flags::READ_ONLY).info().capacity,
                    self.capacity
                );
            }
            Op::Attach => disks::check_child(connection, &self.child),
            _ => {}
        }
        self.check_leftovers(operation);
    }

    /// No lock, no hidden file: only disks.
    fn check_leftovers(&self, operation: Operation) {
        let all = names(&self.folder());
        let odd: Vec<&String> = all
            .iter()
            .filter(|name| name.ends_with(".lck") || name.ends_with(".tmp") || name.starts_with(".vmdk"))
            .collect();
        assert!(odd.is_empty(), "{operation:?} left {odd:?}");
    }
}

/// Collects what is not as expected, so that one run shows all of it.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn compare(&mut self, what: &str, operation: Operation, got: u64, expected: u64) {
        if got != expected {
            let text = vix::log_text();
            self.0.push(format!("{what}, {operation:?}: {got} instead of {expected}: {text}"));
        }
        vix::forget_log();
    }

    fn finish(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

/// Runs one operation, compares its code, and checks that a failure changed nothing and a success did its work.
fn expect(findings: &mut Findings, what: &str, stage: &Stage<'_>, operation: Operation, expected: u64) {
    let before = snapshot(stage.place.path());
    let got = stage.run(operation);
    findings.compare(what, operation, got, expected);
    if got == code::OK {
        stage.check_done(operation);
    } else {
        let after = snapshot(stage.place.path());
        if after != before {
            let differing: Vec<_> = before
                .iter()
                .chain(&after)
                .filter(|(path, bytes)| {
                    !(before.contains(&(path.clone(), bytes.clone()))
                        && after.contains(&(path.clone(), bytes.clone())))
                })
                .map(|(path, _)| path)
                .collect();
            findings.0.push(format!("{what}, {operation:?}: failed with {got} and changed {differing:?}"));
        }
    }
}

/// Every file below a folder, with its content or, of a link, where it leads.
fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    use std::os::unix::ffi::OsStrExt;
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let meta = fs::symlink_metadata(&path).expect("what it is");
        if meta.is_dir() {
            all.push((path.clone(), b"a folder".to_vec()));
            all.extend(snapshot(&path));
        } else if meta.is_symlink() {
            all.push((path.clone(), fs::read_link(&path).expect("a link").as_os_str().as_bytes().to_vec()));
        } else {
            all.push((path.clone(), fs::read(&path).expect("a file")));
        }
    }
    all.sort();
    all
}

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
