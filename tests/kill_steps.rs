//! Copying and renaming killed before each of their calls to the file system: what is left is the old disk or the new one,
//! and doing the same once more leaves exactly the files that it should.
#![allow(clippy::unwrap_used, reason = "a test ends where its expectations do")]

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use common::child;
use common::process;
use common::scratch;
use vixDiskLib::config::Config;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Log;
use vixDiskLib::session::Adapter;
use vixDiskLib::session::ConnectParams;
use vixDiskLib::session::Connection;
use vixDiskLib::session::CopySpec;
use vixDiskLib::session::CreateSpec;
use vixDiskLib::session::DiskType;
use vixDiskLib::session::Library;
use vixDiskLib::session::OpenFlags;
use vixDiskLib::storage::Access;
use vixDiskLib::storage::file_system::FileSystem;
use vixDiskLib::storage::file_system::Host;
use vixDiskLib::storage::file_system::NamedFile;
use vixDiskLib::units::Sectors;

const FOLDER: &str = "VIX_STEPS_FOLDER";
const KIND: &str = "VIX_STEPS_KIND";
const STEP: &str = "VIX_STEPS_STEP";
/// More than one piece of a split disk would take gigabytes; the names are the same with one.
const SECTORS: u64 = 3000;

/// The host's files, until the process is killed in front of the n-th change.
#[derive(Debug)]
struct Deadly(AtomicI64);

impl Deadly {
    fn step(&self) -> Host {
        if self.0.fetch_sub(1, Ordering::SeqCst) == 0 {
            process::kill_self();
        }
        Host
    }
}

impl FileSystem for Deadly {
    fn open(&self, path: &Path, access: Access) -> Result<Arc<dyn NamedFile>> {
        Host.open(path, access)
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn NamedFile>> {
        self.step().create(path)
    }

    fn create_like(&self, path: &Path, like: &fs::Metadata) -> Result<Arc<dyn NamedFile>> {
        self.step().create_like(path, like)
    }

    fn create_unnamed(&self, path: &Path) -> Option<Arc<dyn NamedFile>> {
        self.step().create_unnamed(path)
    }

    fn link(&self, old: &Path, new: &Path) -> Result<()> {
        self.step().link(old, new)
    }

    fn rename(&self, old: &Path, new: &Path) -> Result<()> {
        self.step().rename(old, new)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.step().remove(path)
    }

    fn make_folder(&self, path: &Path) -> Result<()> {
        self.step().make_folder(path)
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        self.step().remove_folder(path)
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        Host.list(folder)
    }

    fn flush_folder(&self, folder: &Path) -> Result<()> {
        Host.flush_folder(folder)
    }
}

fn connect(files: Arc<dyn FileSystem>) -> (Arc<Library>, Arc<Connection>) {
    let library = Library::on_file_system(Log::none(), Config::default(), files);
    let connection = library.connect(ConnectParams::default(), false, None, None).unwrap();
    (library, connection)
}

fn host() -> (Arc<Library>, Arc<Connection>) {
    connect(Arc::new(Host))
}

/// A disk full of `byte`.
fn make(connection: &Arc<Connection>, path: &Path, kind: DiskType, sectors: u64, byte: u8) {
    let spec = CreateSpec {
        disk_type: kind,
        adapter: Adapter::LsiLogic,
        hardware_version: 10,
        capacity: Sectors(sectors),
        logical_sector_size: 512,
        physical_sector_size: 512,
    };
    connection.create(path, &spec, &mut |_| ()).unwrap();
    let disk = connection.open(path, OpenFlags::empty()).unwrap();
    disk.write(Sectors(0), &vec![byte; sectors as usize * 512]).unwrap();
    disk.close().unwrap();
}

/// The byte that the disk is full of, and its sectors.
fn look(connection: &Arc<Connection>, path: &Path) -> (u8, u64) {
    let disk =
        connection.open(path, OpenFlags::READ_ONLY).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let sectors = disk.info().unwrap().capacity.0;
    let mut all = vec![0; sectors as usize * 512];
    disk.read(Sectors(0), &mut all).unwrap();
    disk.close().unwrap();
    assert!(all.iter().all(|byte| *byte == all[0]), "{}: of one kind", path.display());
    (all[0], sectors)
}

fn names(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    all
}

/// Runs the body of the test `name` in a process that dies before step `step`; true if it got that far.
fn killed(name: &str, folder: &Path, kind: usize, step: usize) -> bool {
    let mut command = child::command(name);
    command.env(FOLDER, folder).env(KIND, kind.to_string()).env(STEP, step.to_string());
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success() || status.signal() == Some(9), "{status}");
    !status.success()
}

/// What the parent said: folder, number of the case, and the library that dies.
fn told() -> (PathBuf, usize, Arc<Library>, Arc<Connection>) {
    let value = |name| std::env::var(name).unwrap();
    let (library, connection) = connect(Arc::new(Deadly(AtomicI64::new(value(STEP).parse().unwrap()))));
    (value(FOLDER).into(), value(KIND).parse().unwrap(), library, connection)
}

/// What is there before, what is made, and how the files are called then.
const COPIES: [(Option<DiskType>, DiskType, &[&str]); 6] = [
    (None, DiskType::MonolithicFlat, &["t-flat.vmdk", "t.vmdk"]),
    (None, DiskType::MonolithicSparse, &["t.vmdk"]),
    (Some(DiskType::MonolithicFlat), DiskType::MonolithicFlat, &["t-flat.vmdk", "t.vmdk"]),
    (Some(DiskType::SplitFlat), DiskType::SplitSparse, &["t-s001.vmdk", "t.vmdk"]),
    (Some(DiskType::SplitSparse), DiskType::SplitSparse, &["t-s001.vmdk", "t.vmdk"]),
    (Some(DiskType::VmfsFlat), DiskType::MonolithicSparse, &["t.vmdk"]),
];

fn copy_over(connection: &Arc<Connection>, folder: &Path, kind: DiskType) {
    let spec = CopySpec { disk_type: kind, adapter: Adapter::LsiLogic, hardware_version: 10 };
    let (from, to) = (folder.join("s.vmdk"), folder.join("to/t.vmdk"));
    connection.copy_disk(&to, connection, &from, Some(&spec), true, &mut |_| ()).unwrap();
}

#[test]
fn a_copy_killed_at_any_step_is_cleaned_up_by_the_next_one() {
    const NAME: &str = "a_copy_killed_at_any_step_is_cleaned_up_by_the_next_one";
    if child::is_child(NAME) {
        let (folder, case, _library, connection) = told();
        return copy_over(&connection, &folder, COPIES[case].1);
    }
    let (_library, connection) = host();
    for (case, (before, kind, expected)) in COPIES.into_iter().enumerate() {
        for step in 0.. {
            let story = format!("{before:?} to {kind:?}, killed before step {step}");
            let folder = scratch::folder_in_memory();
            let target = folder.path().join("to/t.vmdk");
            fs::create_dir(folder.path().join("to")).unwrap();
            fs::write(folder.path().join("to/t-notes.txt"), b"not ours").unwrap();
            make(&connection, &folder.path().join("s.vmdk"), DiskType::MonolithicSparse, SECTORS, 2);
            if let Some(before) = before {
                make(&connection, &target, before, 2000, 1);
            }
            let died = killed(NAME, folder.path(), case, step);
            if target.exists() {
                let found = look(&connection, &target);
                assert!([(1, 2000), (2, SECTORS)].contains(&found), "{story}: {found:?}");
            } else {
                assert!(before.is_none() && died, "{story}: the old disk is gone");
            }
            copy_over(&connection, folder.path(), kind);
            assert_eq!(look(&connection, &target), (2, SECTORS), "{story}");
            let mut expected: Vec<&str> = [expected, &["t-notes.txt"]].concat();
            expected.sort_unstable();
            assert_eq!(names(&folder.path().join("to")), expected, "{story}");
            assert_eq!(look(&connection, &folder.path().join("s.vmdk")), (2, SECTORS));
            if !died {
                assert!(step > 8, "{story}: only so few steps");
                break;
            }
        }
    }
}

/// Files that were not made by a copy stay, whatever they are called, and so does what a living copy makes.
#[test]
fn nothing_else_is_cleaned_up() {
    let (_library, connection) = host();
    let folder = scratch::folder();
    let (from, target) = (folder.path().join("s.vmdk"), folder.path().join("to/t.vmdk"));
    make(&connection, &from, DiskType::MonolithicSparse, SECTORS, 2);
    let to = folder.path().join("to");
    // A folder of nobody, with a file that has a namesake outside; and one whose names are not the same file.
    let stale = to.join(".vmdk-copy-00000001/new");
    fs::create_dir_all(&stale).unwrap();
    fs::write(stale.join("t-flat.vmdk"), b"inside").unwrap();
    let other = to.join(".vmdk-copy-00000002");
    fs::create_dir_all(other.join("old")).unwrap();
    fs::write(other.join("owner"), b"u.vmdk").unwrap();
    fs::write(other.join("old/mine.vmdk"), b"same text").unwrap();
    fs::write(to.join("mine.vmdk"), b"same text").unwrap();
    // One that tells of a disk which is there and needs the file.
    let used = to.join(".vmdk-copy-00000003");
    fs::create_dir_all(used.join("new")).unwrap();
    fs::write(used.join("owner"), b"f.vmdk").unwrap();
    make(&connection, &to.join("f.vmdk"), DiskType::MonolithicFlat, 500, 7);
    fs::hard_link(to.join("f-flat.vmdk"), used.join("new/f-flat.vmdk")).unwrap();
    // One whose disk cannot be read, so nobody knows what it needs.
    let unknown = to.join(".vmdk-copy-00000004");
    fs::create_dir_all(unknown.join("new")).unwrap();
    fs::write(unknown.join("owner"), b"damaged.vmdk").unwrap();
    fs::write(to.join("damaged.vmdk"), b"# Disk Descriptor").unwrap();
    fs::write(to.join("damaged-flat.vmdk"), b"precious").unwrap();
    fs::hard_link(to.join("damaged-flat.vmdk"), unknown.join("new/damaged-flat.vmdk")).unwrap();
    // One that names something outside.
    let climbing = to.join(".vmdk-copy-00000005");
    fs::create_dir_all(climbing.join("new")).unwrap();
    fs::write(climbing.join("owner"), b"../s.vmdk").unwrap();
    // What looks like one and is a link to somewhere else.
    fs::create_dir(folder.path().join("elsewhere")).unwrap();
    fs::write(folder.path().join("elsewhere/owner"), b"t.vmdk").unwrap();
    std::os::unix::fs::symlink("../elsewhere", to.join(".vmdk-copy-00000006")).unwrap();

    // One whose process had not written the name yet, which is removed; and one that lost it but holds files.
    for (name, files) in [(".vmdk-copy-00000007", false), (".vmdk-copy-00000008", true)] {
        fs::create_dir_all(to.join(name).join("new")).unwrap();
        fs::write(to.join(name).join("owner"), b"").unwrap();
        if files {
            fs::hard_link(to.join("f-flat.vmdk"), to.join(name).join("new/f-flat.vmdk")).unwrap();
        }
    }

    let spec =
        CopySpec { disk_type: DiskType::MonolithicFlat, adapter: Adapter::LsiLogic, hardware_version: 10 };
    let mut seen = Vec::new();
    let mut progress = |_| {
        // While it is being made, another copy into the same folder must leave it alone.
        if seen.is_empty() {
            seen = names(&to);
            connection
                .copy_disk(&to.join("second.vmdk"), &connection, &from, None, false, &mut |_| ())
                .unwrap();
        }
    };
    connection.copy_disk(&target, &connection, &from, Some(&spec), false, &mut progress).unwrap();
    assert_eq!(look(&connection, &target), (2, SECTORS));
    assert_eq!(look(&connection, &to.join("second.vmdk")), (2, SECTORS));
    assert_eq!(look(&connection, &to.join("f.vmdk")), (7, 500));
    assert_eq!(fs::read(to.join("damaged-flat.vmdk")).unwrap(), b"precious");
    let expected = [
        ".vmdk-copy-00000001",
        ".vmdk-copy-00000004",
        ".vmdk-copy-00000005",
        ".vmdk-copy-00000006",
        ".vmdk-copy-00000008",
        "damaged-flat.vmdk",
        "damaged.vmdk",
        "f-flat.vmdk",
        "f.vmdk",
        "mine.vmdk",
        "second.vmdk",
        "t-flat.vmdk",
        "t.vmdk",
    ];
    assert_eq!(names(&to), expected);
}

const RENAMED: [DiskType; 4] =
    [DiskType::MonolithicSparse, DiskType::MonolithicFlat, DiskType::SplitSparse, DiskType::SplitFlat];

#[test]
fn a_renaming_killed_at_any_step_is_finished_by_the_next_one() {
    const NAME: &str = "a_renaming_killed_at_any_step_is_finished_by_the_next_one";
    if child::is_child(NAME) {
        let (folder, _, library, _connection) = told();
        return library.rename(&folder.join("d.vmdk"), &folder.join("e.vmdk")).unwrap();
    }
    let (library, connection) = host();
    for (case, kind) in RENAMED.into_iter().enumerate() {
        let mut both = 0;
        for step in 0.. {
            let story = format!("{kind:?}, killed before step {step}");
            let folder = scratch::folder_in_memory();
            let [old, new, child_disk] = ["d.vmdk", "e.vmdk", "c.vmdk"].map(|name| folder.path().join(name));
            make(&connection, &old, kind, SECTORS, 5);
            let parent = connection.open(&old, OpenFlags::READ_ONLY).unwrap();
            parent.create_child(&child_disk, DiskType::MonolithicSparse, &mut |_| ()).unwrap();
            parent.close().unwrap();
            let died = killed(NAME, folder.path(), case, step);
            let found: Vec<&PathBuf> = [&old, &new].into_iter().filter(|path| path.exists()).collect();
            assert!(!found.is_empty(), "{story}: {:?}", names(folder.path()));
            found.iter().for_each(|path| assert_eq!(look(&connection, path), (5, SECTORS), "{story}"));
            assert_eq!(look(&connection, &child_disk), (5, SECTORS), "{story}");
            both += usize::from(found.len() == 2);
            let old_names = names(folder.path()).iter().any(|name| name.starts_with('d'));
            let again = library.rename(&old, &new);
            assert_eq!(again.is_ok(), old_names, "{story}: {again:?}");
            let left = names(folder.path());
            // Locks and half-written texts of the dead process stop nobody.
            let dead = |name: &String| name.ends_with(".lck") || name.ends_with(".tmp");
            let stray = |name: &String| !name.starts_with('e') && name != "c.vmdk" && !dead(name);
            assert!(!left.iter().any(stray), "{story}: {left:?}");
            assert_eq!(look(&connection, &new), (5, SECTORS), "{story}");
            assert_eq!(look(&connection, &child_disk), (5, SECTORS), "{story}");
            if !died {
                break;
            }
        }
        assert!(both > 0, "{kind:?}: the state with both names was seen");
    }
}

#[test]
fn two_disks_of_the_same_files_that_went_different_ways_are_not_taken_for_one() {
    let (library, connection) = host();
    let folder = scratch::folder();
    let [old, new] = ["d.vmdk", "e.vmdk"].map(|name| folder.path().join(name));
    make(&connection, &old, DiskType::MonolithicFlat, SECTORS, 5);
    let text = fs::read_to_string(&old).unwrap();
    fs::write(&new, text.replace("d-flat", "e-flat")).unwrap();
    fs::hard_link(folder.path().join("d-flat.vmdk"), folder.path().join("e-flat.vmdk")).unwrap();
    let disk = connection.open(&new, OpenFlags::empty()).unwrap();
    disk.write(Sectors(0), &vec![6; SECTORS as usize * 512]).unwrap();
    disk.close().unwrap();
    let fault = library.rename(&old, &new).unwrap_err();
    assert_eq!(fault.kind(), vixDiskLib::error::ErrorKind::AlreadyExists, "{fault}");
    assert_eq!(names(folder.path()), ["d-flat.vmdk", "d.vmdk", "e-flat.vmdk", "e.vmdk"]);
    connection.unlink(&old).unwrap();
    assert_eq!(names(folder.path()), ["e-flat.vmdk", "e.vmdk"]);
    assert_eq!(look(&connection, &new), (6, SECTORS));
    // A disk is not its own second name.
    assert!(library.rename(&new, &new).is_err());
    std::os::unix::fs::symlink("e.vmdk", folder.path().join("l.vmdk")).unwrap();
    assert!(library.rename(&new, &folder.path().join("l.vmdk")).is_err());
    assert_eq!(look(&connection, &new), (6, SECTORS));
}
