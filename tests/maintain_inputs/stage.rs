//! The scene that each operation is put into, and what has to be true after it.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::common::disks;
use crate::common::disks::CAPACITY;
use crate::common::model::is_zero;
use crate::common::model::stamps;
use crate::common::scratch;
use crate::common::scratch::names;
use crate::common::vix;
use crate::common::vix::Connection;
use crate::common::vix::Kind;
use crate::common::vix::Spec;
use crate::common::vix::Vix;
use crate::common::vix::code;
use crate::common::vix::flags;

/// Everything that works on whole disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
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

pub use Operation as Op;

pub const OPERATIONS: [Operation; 11] = [
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
pub const KINDS: [Kind; 4] = [Kind::Sparse, Kind::Flat, Kind::SplitSparse, Kind::VmfsThin];

impl Operation {
    /// It makes a disk under the target's name.
    pub fn makes(self) -> bool {
        matches!(self, Op::Create | Op::CreateChild | Op::Clone | Op::Rename)
    }

    /// It needs the disk to be there.
    pub fn has_source(self) -> bool {
        self != Op::Create
    }
}

/// A scene for one operation.
pub struct Stage<'v> {
    vix: &'v Vix,
    pub connection: Connection<'v>,
    pub place: TempDir,
    pub kind: Kind,
    /// The disk.
    pub source: PathBuf,
    /// A child of it, for `Attach`.
    pub child: PathBuf,
    /// The name for what is made.
    pub target: PathBuf,
    /// What `Grow` asks for.
    pub capacity: u64,
}

impl<'v> Stage<'v> {
    /// A disk `d.vmdk`, the target's name `t.vmdk`, nothing else.
    pub fn new(kind: Kind) -> Self {
        Self::within(scratch::folder_in_memory(), kind)
    }

    pub fn within(place: TempDir, kind: Kind) -> Self {
        let folder = place.path().join("vm");
        fs::create_dir(&folder).expect("a folder");
        let mut stage = Self::empty(kind, &folder, place);
        stage.fill("d.vmdk");
        stage
    }

    pub fn empty(kind: Kind, folder: &Path, place: TempDir) -> Self {
        let vix = Vix::started();
        let connection = vix.connect(false).expect("a connection");
        let [source, child, target] = ["d.vmdk", "c.vmdk", "t.vmdk"].map(|name| folder.join(name));
        Self { vix, connection, place, kind, source, child, target, capacity: CAPACITY + 1000 }
    }

    /// Makes the disk, under this name.
    pub fn fill(&mut self, name: &str) {
        self.source = self.folder().join(name);
        self.connection.must_create(&self.source, Spec::new(self.kind, CAPACITY));
        // Grains that turn to zeros lie before those with data: Shrink and Defragment have something to move.
        let disk = self.connection.must_open(&self.source, flags::READ_WRITE);
        disk.must_write(1000, &stamps(1000, 300, 2));
        disk.must_write(100, &stamps(100, 50, 1));
        disk.must_write(1000, &[0; 300 * 512]);
        assert_eq!(disk.close(), code::OK);
    }

    pub fn folder(&self) -> PathBuf {
        self.source.parent().expect("a folder").to_owned()
    }

    /// Makes the child that `Attach` works on.
    pub fn with_child(self) -> Self {
        disks::make_child(&self.connection, &self.source, &self.child);
        self
    }

    /// The scene that an operation starts from.
    pub fn of(operation: Operation, kind: Kind) -> Self {
        Self::of_within(scratch::folder_in_memory(), operation, kind)
    }

    pub fn of_within(place: TempDir, operation: Operation, kind: Kind) -> Self {
        let stage = Self::within(place, kind);
        if operation == Op::Attach { stage.with_child() } else { stage }
    }

    /// Does it; the first code that is not `VIX_OK`.
    pub fn run(&self, operation: Operation) -> u64 {
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
    pub fn check_done(&self, operation: Operation) {
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
pub struct Findings(pub Vec<String>);

impl Findings {
    pub fn compare(&mut self, what: &str, operation: Operation, got: u64, expected: u64) {
        if got != expected {
            let text = vix::log_text();
            self.0.push(format!("{what}, {operation:?}: {got} instead of {expected}: {text}"));
        }
        vix::forget_log();
    }

    pub fn finish(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

/// Runs one operation, compares its code, and checks that a failure changed nothing and a success did its work.
pub fn expect(findings: &mut Findings, what: &str, stage: &Stage<'_>, operation: Operation, expected: u64) {
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
pub fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
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
