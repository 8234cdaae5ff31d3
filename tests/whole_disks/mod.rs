//! Operations on whole disks that change names: what is there before, what is done, and what may be there afterwards.
#![allow(dead_code)] // each test program uses its part

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

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
use vixDiskLib::session::OpenDisk;
use vixDiskLib::session::OpenFlags;
use vixDiskLib::storage::file_system::FileSystem;
use vixDiskLib::storage::file_system::Host;
use vixDiskLib::units::Sectors;

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
    /// The file system can make files without a name.
    pub unnamed: bool,
    /// A disk comes to be: a killed process may leave files without a description, which are in the way.
    pub makes_disk: bool,
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
            unnamed: true,
            makes_disk: false,
            prepare: Box::new(prepare),
            act: Box::new(act),
            judge: Box::new(judge),
            after: Box::new(|_, _| ()),
        }
    }
}

/// A fresh folder, in memory where that is possible.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("vixtest-").tempdir_in(place).unwrap()
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
                move |root| match which(&root.join("d.vmdk"), &[&Seen::empty(sectors)]) {
                    Some(_) => State::New,
                    None => State::Old,
                },
            );
            all.push(Scenario { unnamed, makes_disk: true, ..scenario });
        }
    }
    all
}

/// A child is made of a disk that was just written to.
pub fn children() -> Vec<Scenario> {
    let parent = || Seen::marked(SMALL, 1);
    let changed = move || parent().with(&[5], 2);
    [(MonolithicSparse, MonolithicSparse), (MonolithicFlat, SplitSparse)]
        .into_iter()
        .map(|(below, kind)| {
            Scenario::new(
                format!("create child {kind:?} of {below:?}"),
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
                    match which(&root.join("c.vmdk"), &[&changed()]) {
                        Some(_) => State::New,
                        None => State::Old,
                    }
                },
            )
        })
        .map(|scenario| Scenario { makes_disk: true, ..scenario })
        .collect()
}

/// Disks of one and of several files get another name, in their folder and in another one; a child follows.
pub fn renamings() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (kind, sectors) in [(MonolithicSparse, SMALL), (MonolithicFlat, SMALL), (SplitSparse, TWO_FILES)] {
        for to in ["e.vmdk", "other/e.vmdk"] {
            for has_child in [false, true] {
                all.push(renaming(kind, sectors, to, has_child));
            }
        }
    }
    all
}

fn renaming(kind: DiskType, sectors: u64, to: &'static str, has_child: bool) -> Scenario {
    let disk = move || Seen::marked(sectors, 1);
    let child = move || disk().with(&[2, 900], 3);
    let judge = move |root: &Path| {
        let old = which(&root.join("d.vmdk"), &[&disk()]);
        let new = which(&root.join(to), &[&disk()]);
        if has_child {
            let found = which(&root.join("c.vmdk"), &[&child()]);
            assert!(found.is_some(), "the child: {}", reason(&root.join("c.vmdk")));
        }
        match (old, new) {
            (Some(_), None) => State::Old,
            (None, Some(_)) => State::New,
            (Some(_), Some(_)) => State::Both,
            (None, None) => panic!("lost: {}; {}", reason(&root.join("d.vmdk")), reason(&root.join(to))),
        }
    };
    let after = move |home: &Home, root: &Path| {
        // Deleting one of two names leaves the other disk whole.
        if judge(root) == State::Both {
            home.connection.unlink(&root.join("d.vmdk")).unwrap();
            assert_eq!(which(&root.join(to), &[&disk()]), Some(0), "the name that stays");
        }
    };
    let with = if has_child { " with a child" } else { "" };
    let scenario = Scenario::new(
        format!("rename {kind:?} to {to}{with}"),
        move |home, root| {
            std::fs::create_dir(root.join("other")).unwrap();
            home.make(&root.join("d.vmdk"), kind, &disk());
            if has_child {
                home.child(&root.join("d.vmdk"), &root.join("c.vmdk"), &[2, 900], 3);
            }
        },
        move |home, root| home.rename(&root.join("d.vmdk"), &root.join(to)),
        judge,
    );
    Scenario { after: Box::new(after), ..scenario }
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

/// A disk is copied to nowhere and over others.
pub fn copies() -> Vec<Scenario> {
    let mut all = Vec::new();
    for kind in [MonolithicSparse, MonolithicFlat, SplitSparse, StreamOptimized] {
        for over in [None, Some(MonolithicSparse), Some(MonolithicFlat)] {
            let (source, old) = (|| Seen::marked(SMALL, 1), || Seen::marked(SMALL + 7, 2));
            let scenario = Scenario::new(
                format!("copy as {kind:?} over {over:?}"),
                move |home, root| {
                    home.make(&root.join("s.vmdk"), MonolithicFlat, &source());
                    if let Some(over) = over {
                        home.make(&root.join("t.vmdk"), over, &old());
                    }
                },
                move |home, root| home.copy(&root.join("s.vmdk"), &root.join("t.vmdk"), kind, over.is_some()),
                move |root| {
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
            all.push(Scenario { makes_disk: over.is_none(), ..scenario });
        }
    }
    all
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
    cases
        .into_iter()
        .map(|(kind, sectors, after)| {
            let disk = move || Seen::marked(sectors, 1);
            Scenario::new(
                format!("grow {kind:?} to {after}"),
                move |home, root| home.make(&root.join("d.vmdk"), kind, &disk()),
                move |home, root| {
                    home.connection.grow(&root.join("d.vmdk"), Sectors(after), true, &mut |_| ())
                },
                move |root| match which(&root.join("d.vmdk"), &[&disk(), &disk().grown(after)]) {
                    Some(0) => State::Old,
                    Some(_) => State::New,
                    None => panic!("{}", reason(&root.join("d.vmdk"))),
                },
            )
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
