//! What NFC connections may open, and what becomes of what they write.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::format::create;
use crate::format::create::CreateSpec;
use crate::format::create::DiskType;
use crate::format::create::NewIdentity;
use crate::format::geometry::Adapter;
use crate::logging::Log;
use crate::sim::disks::child;
use crate::sim::options::MachineOptions;
use crate::sim::options::Options;

/// 1 MiB.
const SECTORS: u64 = 2048;

struct Scene {
    _folder: TempDir,
    site: Arc<Site>,
    house: Estate,
}

/// A new sparse disk.
fn disk(path: &Path) {
    let spec = CreateSpec {
        disk_type: DiskType::MonolithicSparse,
        adapter: Adapter::LsiLogic,
        hardware_version: 13,
        capacity: Sectors(SECTORS),
        logical_sector_size: 512,
        physical_sector_size: 512,
    };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap();
    let layout = create::layout(&spec, name, &NewIdentity::from_random(&[7; 28])).unwrap();
    for file in layout.files {
        let mut bytes = vec![0; file.len as usize];
        for piece in file.pieces {
            let at = piece.offset as usize;
            bytes[at..at + piece.bytes.len()].copy_from_slice(&piece.bytes);
        }
        std::fs::write(path.with_file_name(file.name), bytes).unwrap();
    }
}

impl Scene {
    /// Machine vm-21 on `a/a-000001.vmdk`, a child of `a/a.vmdk`; machine vm-23 on `b/b.vmdk`.
    fn new() -> Scene {
        Scene::with(1)
    }

    /// The same with so many hosts; the machines are on the first.
    fn with(hosts: usize) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["a", "b"] {
            std::fs::create_dir(root.join(name)).unwrap();
            disk(&root.join(name).join(format!("{name}.vmdk")));
        }
        let base = root.join("a/a.vmdk");
        let leaf = child::make(&base, &base, &Log::none()).unwrap();
        let machine =
            |name: &str, disk| MachineOptions { name: name.to_owned(), disks: vec![disk], powered_on: false };
        let machines = vec![machine("a", leaf), machine("b", root.join("b/b.vmdk"))];
        let options = Options { machines, hosts, ..Options::default() };
        let site = crate::sim::site_of(options, SocketAddr::from(([127, 0, 0, 1], 1))).unwrap();
        Scene { _folder: folder, house: Estate { site: site.clone(), host: 0 }, site }
    }

    fn open(&self, machine: &str, right: Right, path: &str, write: bool) -> Result<Arc<dyn Volume>, u64> {
        let grant = Grant { machine: machine.to_owned(), right };
        self.house.open(&grant, path, write).map_err(|refusal| refusal.code)
    }

    fn power(&self, machine: &str, on: bool) {
        crate::sim::soap::machine::switch(&self.site, machine, on).unwrap();
    }
}

const LEAF: &str = "[datastore1] a/a-000001.vmdk";
const BASE: &str = "[datastore1] a/a.vmdk";
const OTHER: &str = "[datastore1] b/b.vmdk";
const WRITE: Right = Right::Disk { key: 2000, write: true };
const READ: Right = Right::Disk { key: 2000, write: false };

#[test]
fn a_ticket_opens_the_files_it_is_for() {
    let scene = Scene::new();
    for right in [Right::Files, READ, WRITE] {
        assert!(scene.open("vm-21", right, LEAF, false).is_ok(), "{right:?}");
        assert!(scene.open("vm-21", right, BASE, false).is_ok(), "{right:?}");
        assert_eq!(scene.open("vm-21", right, OTHER, false).err(), Some(refusal::NOT_PERMITTED));
        assert_eq!(scene.open("vm-99", right, LEAF, false).err(), Some(refusal::NOT_PERMITTED));
        assert_eq!(scene.open("vm-21", right, "[datastore1] a/none.vmdk", false).err(), Some(MISSING));
        assert_eq!(scene.open("vm-21", right, "/etc/passwd", false).err(), Some(MISSING));
    }
    let other_disk = Right::Disk { key: 2001, write: true };
    assert_eq!(scene.open("vm-21", other_disk, LEAF, false).err(), Some(refusal::NOT_PERMITTED));
    // Files next to the disks of a machine are not its disks.
    std::fs::write(scene._folder.path().join("a/note.txt"), b"x").unwrap();
    assert_eq!(
        scene.open("vm-21", WRITE, "[datastore1] a/note.txt", false).err(),
        Some(refusal::NOT_PERMITTED)
    );
}

#[test]
fn only_a_ticket_for_writing_writes_and_only_to_the_leaf() {
    let scene = Scene::new();
    for right in [Right::Files, READ] {
        assert_eq!(scene.open("vm-21", right, LEAF, true).err(), Some(refusal::NOT_PERMITTED));
    }
    assert_eq!(scene.open("vm-21", WRITE, BASE, true).err(), Some(UNKNOWN));
    let leaf = scene.open("vm-21", WRITE, LEAF, true).unwrap();
    assert_eq!(scene.open("vm-21", WRITE, LEAF, true).err(), Some(LOCKED));
    assert_eq!(scene.open("vm-21", WRITE, LEAF, false).err(), Some(LOCKED));
    leaf.write(&[5; 1024], 512).unwrap();
    leaf.flush().unwrap();
    drop(leaf);
    let mut read = [0; 2048];
    scene.open("vm-21", READ, LEAF, false).unwrap().read(&mut read, 0).unwrap();
    assert!(read[..512] == [0; 512] && read[512..1536] == [5; 1024] && read[1536..] == [0; 512]);
    scene.open("vm-21", READ, BASE, false).unwrap().read(&mut read, 0).unwrap();
    assert_eq!(read, [0; 2048]);
}

#[test]
fn a_running_machine_keeps_its_leaf_and_shares_its_snapshots() {
    let scene = Scene::new();
    scene.power("vm-21", true);
    for (right, write) in [(Right::Files, false), (READ, false), (WRITE, true)] {
        assert_eq!(scene.open("vm-21", right, LEAF, write).err(), Some(UNKNOWN));
    }
    assert!(scene.open("vm-21", Right::Files, BASE, false).is_ok());
    scene.power("vm-21", false);
    assert!(scene.open("vm-21", Right::Files, LEAF, false).is_ok());
    let writer = scene.open("vm-21", WRITE, LEAF, true).unwrap();
    assert!(crate::sim::soap::machine::switch(&scene.site, "vm-21", true).is_err());
    drop(writer);
    scene.power("vm-21", true);
}

#[test]
fn a_disk_describes_itself() {
    let scene = Scene::new();
    let leaf = scene.open("vm-21", READ, LEAF, false).unwrap();
    assert_eq!((leaf.capacity(), leaf.sector_size(), leaf.geometry()), (SECTORS * 512, 512, (1, 64, 32)));
    assert_eq!(leaf.key("adapterType").as_deref(), Some("lsilogic"));
    assert!(leaf.key("uuid").is_some_and(|uuid| uuid.starts_with("60 00 C2 9")));
    assert_eq!(leaf.key("nonsense"), None);
    let mut parts = Vec::new();
    leaf.allocated(0..SECTORS * 512, &mut |part| parts.push(part)).unwrap();
    assert_eq!(parts, []);
}

#[test]
fn what_is_written_over_nfc_is_in_the_map_of_changes() {
    let scene = Scene::new();
    let tracker = scene.site.world.lock().machine("vm-23").unwrap().disks[0].tracker.clone();
    let moment = tracker.mark(None).unwrap();
    let disk = scene.open("vm-23", WRITE, OTHER, true).unwrap();
    disk.write(&[1; 512], 3 * 65536 + 512).unwrap();
    disk.write(&[1; 1024], 6 * 65536 - 512).unwrap();
    let known = tracker.between(&moment, None).unwrap();
    let units: Vec<_> = known.areas.iter().map(|area| (area.start / 65536, area.end / 65536)).collect();
    assert_eq!(units, [(3, 4), (5, 7)]);
}

#[test]
fn a_snapshot_stays_while_somebody_reads_what_would_change() {
    let scene = Scene::new();
    let snapshot = scene.site.world.lock().machine("vm-21").unwrap().snapshots[0].id.clone();
    let writer = scene.open("vm-21", WRITE, LEAF, true).unwrap();
    writer.write(&[3; 512], 0).unwrap();
    drop(writer);
    let remove = || crate::sim::soap::consolidate::remove(&scene.site, "vm-21", &snapshot, true);
    for path in [LEAF, BASE] {
        let reader = scene.open("vm-21", READ, path, false).unwrap();
        assert_eq!(remove().unwrap_err().name(), "FileLocked");
        let mut sector = [0; 512];
        reader.read(&mut sector, 0).unwrap();
        assert_eq!(sector, if path == LEAF { [3; 512] } else { [0; 512] });
    }
    remove().unwrap();
    assert_eq!(scene.open("vm-21", READ, LEAF, false).err(), Some(MISSING));
    let mut sector = [0; 512];
    scene.open("vm-21", READ, BASE, false).unwrap().read(&mut sector, 0).unwrap();
    assert_eq!(sector, [3; 512]);
}

#[test]
fn a_machine_that_moves_takes_its_tickets_along_and_is_served_by_its_new_host_alone() {
    let scene = Scene::with(2);
    let there = Estate { site: scene.site.clone(), host: 1 };
    let grant = || Grant { machine: "vm-23".to_owned(), right: WRITE };
    let ticket = |host| scene.site.tickets.for_nfc(host, grant()).unwrap();
    let (redeemed, waiting) = (ticket(0), ticket(0));
    let redeemed = scene.house.redeem(&redeemed).unwrap();
    assert!(scene.house.relocate(&redeemed, Target::Next));
    assert_eq!((scene.house.redeem(&waiting), there.redeem(&waiting)), (None, None));
    assert_eq!(scene.house.open(&redeemed, OTHER, true).err().map(|refusal| refusal.code), Some(UNKNOWN));
    let later = ticket(1);
    assert_eq!(scene.house.redeem(&later), None);
    let later = there.redeem(&later).unwrap();
    there.open(&later, OTHER, true).unwrap();
    assert!(scene.open("vm-21", READ, LEAF, false).is_ok(), "the other machine stayed");
    assert!(!there.relocate(&later, Target::Host(1)), "it is there already");
    assert!(!there.relocate(&later, Target::Host(2)), "there is no such host");
    assert!(there.relocate(&later, Target::Next) && scene.open("vm-23", READ, OTHER, false).is_ok());
    assert_eq!(scene.site.world.lock().moves, 2);
}
