//! Operations on whole disks that change names: what is there before, what is done, and what may be there afterwards.
#![allow(dead_code)] // each test program uses its part

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use vixDiskLib::config::Config;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Log;
use vixDiskLib::session::Adapter;
use vixDiskLib::session::ConnectParams;
use vixDiskLib::session::Connection;
use vixDiskLib::session::CopySpec;
use vixDiskLib::session::CreateSpec;
use vixDiskLib::session::DiskType;
use vixDiskLib::session::Library;
use vixDiskLib::session::OpenDisk;
use vixDiskLib::session::OpenFlags;
use vixDiskLib::storage::file_system::FileSystem;
use vixDiskLib::storage::file_system::Host;
use vixDiskLib::units::Sectors;

use super::power_cut::Tree;
use super::recorder::Can;

/// Small disks have so many sectors; the last grain is a part.
pub const SMALL: u64 = 3001;
/// More than one file of a split disk.
pub const TWO_FILES: u64 = 4_192_256 + 500;

/// What a disk holds: its size and its sectors that are not zeros.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    pub sectors: u64,
    pub data: BTreeMap<u64, Vec<u8>>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let marks: Vec<(u64, u8)> = self.data.iter().map(|(sector, bytes)| (*sector, bytes[0])).collect();
        write!(f, "{} sectors, {marks:?}", self.sectors)
    }
}

impl Seen {
    /// Zeros.
    pub fn empty(sectors: u64) -> Self {
        Self { sectors, data: BTreeMap::new() }
    }

    /// A mark in the first and the last sector, and some between.
    pub fn marked(sectors: u64, mark: u8) -> Self {
        Self::empty(sectors).with(&[0, 1, 700, 1400, sectors - 1], mark)
    }

    /// With the mark in these sectors too.
    pub fn with(mut self, sectors: &[u64], mark: u8) -> Self {
        self.data.extend(sectors.iter().map(|sector| (*sector, stamp(*sector, mark))));
        self
    }

    /// The same on a larger disk.
    pub fn grown(mut self, sectors: u64) -> Self {
        self.sectors = sectors;
        self
    }
}

fn stamp(sector: u64, mark: u8) -> Vec<u8> {
    let mut bytes = vec![mark; 512];
    bytes[8..16].copy_from_slice(&sector.to_le_bytes());
    bytes
}

/// A connection on a file system. The library has to outlive it.
pub struct Home {
    _library: Arc<Library>,
    pub connection: Arc<Connection>,
}

impl Home {
    pub fn on(files: Arc<dyn FileSystem>) -> Self {
        let library = Library::on_file_system(Log::none(), Config::default(), files);
        let connection = library.connect(ConnectParams::default(), false, None, None).unwrap();
        Self { _library: library, connection }
    }

    pub fn host() -> Self {
        Self::on(Arc::new(Host))
    }

    pub fn create(&self, path: &Path, kind: DiskType, sectors: u64) -> Result<()> {
        let spec = CreateSpec {
            disk_type: kind,
            adapter: Adapter::LsiLogic,
            hardware_version: 10,
            capacity: Sectors(sectors),
            logical_sector_size: 512,
            physical_sector_size: 512,
        };
        self.connection.create(path, &spec, &mut |_| ())
    }

    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self._library.rename(from, to)
    }

    pub fn copy(&self, from: &Path, to: &Path, kind: DiskType, overwrite: bool) -> Result<()> {
        let spec = CopySpec { disk_type: kind, adapter: Adapter::LsiLogic, hardware_version: 10 };
        self.connection.copy_disk(to, &self.connection, from, Some(&spec), overwrite, &mut |_| ())
    }

    /// Writes everything of `seen` that is not zeros.
    pub fn fill(&self, path: &Path, seen: &Seen) {
        let disk = self.connection.open(path, OpenFlags::empty()).unwrap();
        for (sector, bytes) in &seen.data {
            disk.write(Sectors(*sector), bytes).unwrap();
        }
        disk.close().unwrap();
    }

    /// A disk that holds `seen`. Thick ones take no space.
    pub fn make(&self, path: &Path, kind: DiskType, seen: &Seen) {
        self.create(path, kind, seen.sectors).unwrap();
        self.fill(path, seen);
    }

    /// A child of the disk at `parent`, with these sectors marked in it.
    pub fn child(&self, parent: &Path, path: &Path, sectors: &[u64], mark: u8) {
        let disk = self.connection.open(parent, OpenFlags::READ_ONLY).unwrap();
        disk.create_child(path, DiskType::MonolithicSparse, &mut |_| ()).unwrap();
        disk.close().unwrap();
        self.fill(path, &Seen::empty(0).with(sectors, mark));
    }

    pub fn look(&self, path: &Path, flags: OpenFlags) -> Result<Seen> {
        let disk = self.connection.open(path, flags)?;
        let seen = see(&disk);
        let closed = disk.close();
        let seen = seen?;
        closed.map(|()| seen)
    }
}

fn see(disk: &OpenDisk) -> Result<Seen> {
    let mut seen = Seen::empty(disk.info()?.capacity.0);
    for (start, count) in disk.allocated_blocks(Sectors(0), Sectors(seen.sectors), Sectors(128))? {
        let mut bytes = vec![0xA5; count as usize * 512];
        disk.read(Sectors(start), &mut bytes)?;
        for (sector, bytes) in (start..).zip(bytes.chunks(512)) {
            if bytes.iter().any(|byte| *byte != 0) {
                seen.data.insert(sector, bytes.to_vec());
            }
        }
    }
    Ok(seen)
}

/// Which of `allowed` the disk at `path` is, read-only and opened for writing; `None` when it refuses to be opened. Anything
/// else it may be is a fault.
pub fn which(path: &Path, allowed: &[&Seen]) -> Option<usize> {
    let home = Home::host();
    let found = home.look(path, OpenFlags::READ_ONLY);
    let Ok(found) = found else {
        let writable = home.look(path, OpenFlags::empty());
        assert!(writable.is_err(), "{}: opens only for writing", path.display());
        return None;
    };
    let number = allowed.iter().position(|seen| **seen == found);
    let number = number.unwrap_or_else(|| panic!("{} is none of {allowed:?}: {found:?}", path.display()));
    match home.look(path, OpenFlags::empty()) {
        Ok(again) => assert_eq!(again, found, "{}, opened for writing", path.display()),
        // A compressed disk is written once.
        Err(e) => assert!(e.to_string().contains("is written once"), "{}: {e}", path.display()),
    }
    Some(number)
}

/// Why a disk does not open; for messages.
pub fn reason(path: &Path) -> String {
    match Home::host().look(path, OpenFlags::READ_ONLY) {
        Ok(seen) => format!("{} opens: {seen:?}", path.display()),
        Err(e) => e.to_string(),
    }
}

/// What is there after an operation, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// As before.
    Old,
    /// As after.
    New,
    /// A renamed disk under both names.
    Both,
}

type Work<T> = Box<dyn Fn(&Home, &Path) -> T>;

/// An operation.
pub struct Scenario {
    pub name: String,
    /// What the file system can do.
    pub can: Can,
    /// A killed process may leave files that are no disk and that are in the way when it is done again.
    pub in_the_way: bool,
    /// A disk is taken away last, in the good time of the file system.
    pub replaces: bool,
    /// Makes what is there before.
    pub prepare: Work<()>,
    /// The operation.
    pub act: Work<Result<()>>,
    /// Looks at everything and says what it is. Panics at what may never be.
    pub judge: Box<dyn Fn(&Path) -> State>,
    /// Further demands on what a cut left; the folder is thrown away afterwards.
    pub after: Work<()>,
}

impl Scenario {
    fn new(
        name: impl Into<String>,
        prepare: impl Fn(&Home, &Path) + 'static,
        act: impl Fn(&Home, &Path) -> Result<()> + 'static,
        judge: impl Fn(&Path) -> State + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            can: Can::ALL,
            replaces: false,
            in_the_way: false,
            prepare: Box::new(prepare),
            act: Box::new(act),
            judge: Box::new(judge),
            after: Box::new(|_, _| ()),
        }
    }
}

/// A place for files that is emptied again and again, in memory where that is possible. Its path stays the same: disks may
/// name each other by it.
pub struct Site {
    _folder: tempfile::TempDir,
    pub root: PathBuf,
}

impl Site {
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("vixtest-").tempdir_in(place).unwrap();
        let root = folder.path().canonicalize().unwrap().join("disks");
        std::fs::create_dir(&root).unwrap();
        Self { _folder: folder, root }
    }

    /// Has `tree` in it, and nothing else.
    pub fn fill(&self, tree: &Tree) {
        std::fs::remove_dir_all(&self.root).unwrap();
        std::fs::create_dir(&self.root).unwrap();
        tree.store(&self.root);
    }
}

/// What went wrong in `check`, if anything did.
pub fn complaint(check: impl FnOnce()) -> Option<String> {
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).err()?;
    let text = panicked.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panicked.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
}

/// Fails with everything that went wrong.
pub fn no_complaints(complaints: &[String]) {
    let shown: Vec<&str> = complaints.iter().take(12).map(String::as_str).collect();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), shown.join("\n"));
}

/// The names of all files below a folder.
pub fn listing(root: &Path) -> BTreeSet<String> {
    let (mut found, mut todo) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                todo.push(path.clone());
            }
            found.insert(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
    found
}

use DiskType::MonolithicFlat;
use DiskType::MonolithicSparse;
use DiskType::SplitFlat;
use DiskType::SplitSparse;
use DiskType::StreamOptimized;
use DiskType::VmfsFlat;
use DiskType::VmfsThin;

/// Every type of disk is created, where files without a name are possible and where not.
pub fn creations() -> Vec<Scenario> {
    let kinds = [
        (MonolithicSparse, SMALL),
        (MonolithicFlat, SMALL),
        (SplitSparse, TWO_FILES),
        (SplitFlat, TWO_FILES),
        (VmfsFlat, SMALL),
        (VmfsThin, SMALL),
        (StreamOptimized, SMALL),
    ];
    let mut all = Vec::new();
    for (kind, sectors) in kinds {
        for unnamed in [true, false] {
            let scenario = Scenario::new(
                format!("create {kind:?}, unnamed files {unnamed}"),
                |_, _| (),
                move |home, root| home.create(&root.join("d.vmdk"), kind, sectors),
                move |root| created(&root.join("d.vmdk"), &Seen::empty(sectors)),
            );
            all.push(Scenario { can: Can { unnamed, link: true }, in_the_way: true, ..scenario });
        }
    }
    all
}

/// A new disk is there whole, or there is nothing of that name, or something that nobody takes for a disk.
fn created(path: &Path, seen: &Seen) -> State {
    if which(path, &[seen]).is_none() {
        let refused = Home::host().look(path, OpenFlags::READ_ONLY).map_err(|e| e.kind());
        let part = refused == Err(ErrorKind::NotADisk);
        assert!(part || !path.exists(), "a part of a disk: {}", reason(path));
        return State::Old;
    }
    let home = Home::host();
    let disk = home.connection.open(path, OpenFlags::READ_ONLY).unwrap();
    let keys = ["adapterType", "geometry.cylinders", "longContentID", "uuid", "virtualHWVersion"];
    for key in keys {
        assert!(disk.metadata(key).is_ok(), "the description has no {key}: {:?}", disk.metadata_keys());
    }
    disk.close().unwrap();
    State::New
}

/// A child is made of a disk that was just written to.
pub fn children() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (below, kind) in [(MonolithicSparse, MonolithicSparse), (MonolithicFlat, SplitSparse)] {
        for unnamed in [true, false] {
            let scenario = child(below, kind, unnamed);
            all.push(Scenario { can: Can { unnamed, link: true }, in_the_way: true, ..scenario });
        }
    }
    all
}

fn child(below: DiskType, kind: DiskType, unnamed: bool) -> Scenario {
    let parent = || Seen::marked(SMALL, 1);
    let changed = move || parent().with(&[5], 2);
    Scenario::new(
        format!("create child {kind:?} of {below:?}, unnamed files {unnamed}"),
        move |home, root| home.make(&root.join("d.vmdk"), below, &parent()),
        move |home, root| {
            let disk = home.connection.open(&root.join("d.vmdk"), OpenFlags::empty())?;
            let made = disk
                .write(Sectors(5), &stamp(5, 2))
                .and_then(|()| disk.create_child(&root.join("c.vmdk"), kind, &mut |_| ()));
            let closed = disk.close();
            made.and(closed)
        },
        move |root| {
            let below = which(&root.join("d.vmdk"), &[&parent(), &changed()]);
            assert!(below.is_some(), "{}", reason(&root.join("d.vmdk")));
            created(&root.join("c.vmdk"), &changed())
        },
    )
}

/// Disks of one and of several files get another name, in their folder and in another one; a child follows.
pub fn renamings() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (kind, sectors) in [(MonolithicSparse, SMALL), (MonolithicFlat, SMALL), (SplitSparse, TWO_FILES)] {
        for to in ["e.vmdk", "other/d.vmdk"] {
            for child in [None, Some("c.vmdk"), Some("other/c.vmdk")] {
                all.push(renaming(kind, sectors, to, child));
            }
        }
    }
    // A child that is renamed itself.
    all.push(renaming_a_child());
    all
}

fn renaming(kind: DiskType, sectors: u64, to: &'static str, child_at: Option<&'static str>) -> Scenario {
    let disk = move || Seen::marked(sectors, 1);
    let child = move || disk().with(&[2, 900], 3);
    let also = move |root: &Path| {
        // It is followed from the folders of the old and the new name.
        if let Some(child_at) = child_at.filter(|at| !at.contains('/') || to.contains('/')) {
            let found = which(&root.join(child_at), &[&child()]);
            assert!(found.is_some(), "the child: {}", reason(&root.join(child_at)));
        }
    };
    let prepare = move |home: &Home, root: &Path| {
        std::fs::create_dir(root.join("other")).unwrap();
        home.make(&root.join("d.vmdk"), kind, &disk());
        if let Some(child_at) = child_at {
            home.child(&root.join("d.vmdk"), &root.join(child_at), &[2, 900], 3);
        }
    };
    moved(format!("rename {kind:?} to {to}, child {child_at:?}"), prepare, "d.vmdk", to, disk, also)
}

fn renaming_a_child() -> Scenario {
    let disk = || Seen::marked(SMALL, 1);
    let child = move || disk().with(&[2, 900], 3);
    let prepare = move |home: &Home, root: &Path| {
        std::fs::create_dir(root.join("other")).unwrap();
        home.make(&root.join("d.vmdk"), MonolithicFlat, &disk());
        home.child(&root.join("d.vmdk"), &root.join("c.vmdk"), &[2, 900], 3);
    };
    let also = move |root: &Path| assert_eq!(which(&root.join("d.vmdk"), &[&disk()]), Some(0));
    // Its new name is given before the path to its parent fits the other folder: it does not open then.
    let scenario = moved("rename a child".to_owned(), prepare, "c.vmdk", "other/c2.vmdk", child, also);
    Scenario { in_the_way: true, ..scenario }
}

/// The disk `from` gets the name `to`.
fn moved(
    name: String,
    prepare: impl Fn(&Home, &Path) + 'static,
    from: &'static str,
    to: &'static str,
    disk: impl Fn() -> Seen + Copy + 'static,
    also: impl Fn(&Path) + Copy + 'static,
) -> Scenario {
    let judge = move |root: &Path| {
        let old = which(&root.join(from), &[&disk()]);
        let new = which(&root.join(to), &[&disk()]);
        also(root);
        match (old, new) {
            (Some(_), None) => State::Old,
            (None, Some(_)) => State::New,
            (Some(_), Some(_)) => State::Both,
            (None, None) => panic!("lost: {}; {}", reason(&root.join(from)), reason(&root.join(to))),
        }
    };
    let after = move |home: &Home, root: &Path| {
        // Deleting one of two names leaves the other disk whole.
        if judge(root) == State::Both {
            home.connection.unlink(&root.join(from)).unwrap();
            assert_eq!(which(&root.join(to), &[&disk()]), Some(0), "the name that stays");
        }
    };
    let act = move |home: &Home, root: &Path| home.rename(&root.join(from), &root.join(to));
    Scenario { after: Box::new(after), ..Scenario::new(name, prepare, act, judge) }
}

/// Disks of one and of several files, and a child, are deleted.
pub fn deletions() -> Vec<Scenario> {
    let kinds = [(MonolithicSparse, SMALL), (VmfsFlat, SMALL), (SplitSparse, TWO_FILES)];
    let mut all: Vec<Scenario> = kinds
        .into_iter()
        .map(|(kind, sectors)| {
            let (disk, other) = (move || Seen::marked(sectors, 1), || Seen::marked(SMALL, 4));
            Scenario::new(
                format!("unlink {kind:?}"),
                move |home, root| {
                    home.make(&root.join("d.vmdk"), kind, &disk());
                    home.make(&root.join("other.vmdk"), MonolithicSparse, &other());
                },
                |home, root| home.connection.unlink(&root.join("d.vmdk")),
                move |root| {
                    assert_eq!(which(&root.join("other.vmdk"), &[&other()]), Some(0));
                    match which(&root.join("d.vmdk"), &[&disk()]) {
                        Some(_) => State::Old,
                        None => {
                            assert!(!root.join("d.vmdk").exists(), "neither a disk nor gone");
                            State::New
                        }
                    }
                },
            )
        })
        .collect();
    let (disk, child) = (|| Seen::marked(SMALL, 1), || Seen::marked(SMALL, 1).with(&[3], 2));
    all.push(Scenario::new(
        "unlink a child",
        move |home, root| {
            home.make(&root.join("d.vmdk"), MonolithicFlat, &disk());
            home.child(&root.join("d.vmdk"), &root.join("c.vmdk"), &[3], 2);
        },
        |home, root| home.connection.unlink(&root.join("c.vmdk")),
        move |root| {
            assert_eq!(which(&root.join("d.vmdk"), &[&disk()]), Some(0));
            match which(&root.join("c.vmdk"), &[&child()]) {
                Some(_) => State::Old,
                None => State::New,
            }
        },
    ));
    all
}

/// A chain is copied to nowhere and over disks of one file and of several.
pub fn copies() -> Vec<Scenario> {
    let mut all = Vec::new();
    for kind in [MonolithicSparse, MonolithicFlat, SplitSparse, StreamOptimized] {
        for over in [None, Some(MonolithicSparse), Some(MonolithicFlat)] {
            all.push(copy(kind, over, Can::ALL));
        }
    }
    all.push(copy(MonolithicFlat, None, Can { unnamed: false, link: false }));
    all.push(copy(SplitSparse, Some(MonolithicFlat), Can { unnamed: false, link: false }));
    all
}

fn copy(kind: DiskType, over: Option<DiskType>, can: Can) -> Scenario {
    let (parent, old) = (|| Seen::marked(SMALL, 1), || Seen::marked(SMALL + 7, 2));
    let source = move || parent().with(&[4, 2000], 3);
    let scenario = Scenario::new(
        format!("copy as {kind:?} over {over:?}, {can:?}"),
        move |home, root| {
            home.make(&root.join("p.vmdk"), MonolithicFlat, &parent());
            home.child(&root.join("p.vmdk"), &root.join("s.vmdk"), &[4, 2000], 3);
            if let Some(over) = over {
                home.make(&root.join("t.vmdk"), over, &old());
            }
        },
        move |home, root| home.copy(&root.join("s.vmdk"), &root.join("t.vmdk"), kind, over.is_some()),
        move |root| {
            assert_eq!(which(&root.join("p.vmdk"), &[&parent()]), Some(0), "the source's parent");
            assert_eq!(which(&root.join("s.vmdk"), &[&source()]), Some(0), "the source");
            let target = root.join("t.vmdk");
            match which(&target, &[&source(), &old()]) {
                Some(0) => State::New,
                Some(_) if over.is_some() => State::Old,
                None if over.is_none() && !target.exists() => State::Old,
                found => panic!("{found:?}: {}", reason(&target)),
            }
        },
    );
    Scenario { can, in_the_way: over.is_none(), replaces: true, ..scenario }
}

/// Every kind of disk that can grow does, within its last file and into further ones.
pub fn growths() -> Vec<Scenario> {
    let cases = [
        (MonolithicSparse, SMALL, 40_000),
        (MonolithicFlat, SMALL, 5000),
        (VmfsFlat, SMALL, 5000),
        (VmfsThin, SMALL, 5000),
        (SplitSparse, SMALL, 3050),
        (SplitSparse, SMALL, 9000),
        (SplitFlat, SMALL, TWO_FILES),
    ];
    let fallback = [(SplitSparse, SMALL, 9000), (SplitFlat, SMALL, TWO_FILES)];
    let cases = cases.into_iter().map(|case| (case, true));
    cases
        .chain(fallback.into_iter().map(|case| (case, false)))
        .map(|((kind, sectors, after), unnamed)| {
            let disk = move || Seen::marked(sectors, 1);
            let scenario = Scenario::new(
                format!("grow {kind:?} to {after}, unnamed files {unnamed}"),
                move |home, root| home.make(&root.join("d.vmdk"), kind, &disk()),
                move |home, root| {
                    home.connection.grow(&root.join("d.vmdk"), Sectors(after), true, &mut |_| ())
                },
                move |root| match which(&root.join("d.vmdk"), &[&disk(), &disk().grown(after)]) {
                    Some(0) => State::Old,
                    Some(_) => State::New,
                    None => panic!("{}", reason(&root.join("d.vmdk"))),
                },
            );
            Scenario { can: Can { unnamed, link: true }, ..scenario }
        })
        .collect()
}

/// Two chains are put together and written to; the description of a disk is replaced.
pub fn changes() -> Vec<Scenario> {
    let parent = || Seen::marked(SMALL, 1);
    let (child, written) = (move || parent().with(&[3], 2), move || parent().with(&[3], 2).with(&[9], 6));
    let attach = Scenario::new(
        "attach",
        move |home, root| {
            home.make(&root.join("d.vmdk"), MonolithicFlat, &parent());
            home.child(&root.join("d.vmdk"), &root.join("c.vmdk"), &[3], 2);
        },
        |home, root| {
            let below = home.connection.open(&root.join("d.vmdk"), OpenFlags::READ_ONLY)?;
            let upper = home.connection.open(&root.join("c.vmdk"), OpenFlags::SINGLE_LINK)?;
            let joined = OpenDisk::attach(&below, &upper)?;
            let done = joined.write(Sectors(9), &stamp(9, 6));
            let closed = joined.close();
            done.and(closed)
        },
        move |root| {
            assert_eq!(which(&root.join("d.vmdk"), &[&parent()]), Some(0));
            match which(&root.join("c.vmdk"), &[&child(), &written()]) {
                Some(0) => State::Old,
                Some(_) => State::New,
                None => panic!("{}", reason(&root.join("c.vmdk"))),
            }
        },
    );
    let value = |root: &Path| {
        let home = Home::host();
        let disk = home.connection.open(&root.join("d.vmdk"), OpenFlags::READ_ONLY).unwrap();
        let value = disk.metadata("toolsVersion").ok();
        disk.close().unwrap();
        value
    };
    let describe = Scenario::new(
        "replace a description",
        move |home, root| home.make(&root.join("d.vmdk"), SplitSparse, &parent()),
        |home, root| {
            let disk = home.connection.open(&root.join("d.vmdk"), OpenFlags::empty())?;
            let set = disk.set_metadata("toolsVersion", "4711");
            let closed = disk.close();
            set.and(closed)
        },
        move |root| {
            assert_eq!(which(&root.join("d.vmdk"), &[&parent()]), Some(0));
            match value(root).as_deref() {
                Some("4711") => State::New,
                Some("2147483647") => State::Old,
                other => panic!("{other:?}"),
            }
        },
    );
    vec![attach, describe]
}
