//! Every local format as the disk of a machine of the simulator, read and written over `nbdssl`, and looked at afterwards where
//! it lies.

#[macro_use]
mod common;

use std::path::Path;
use std::path::PathBuf;

use common::child::in_child;
use common::images::Images;
use common::model;
use common::model::stamps;
use common::scratch;
use common::stage::PASSWORD;
use common::stage::USER;
use common::stage::connect;
use common::tools;
use common::vix;
use common::vix::Connection;
use common::vix::Disk;
use common::vix::Kind;
use common::vix::Server;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;
use tempfile::TempDir;
use vixDiskLib::sim::Sim;
use vixDiskLib::sim::options::MachineOptions;
use vixDiskLib::sim::options::Options;

/// Larger images would only take longer: the format is that of a smaller one.
const LARGEST: u64 = 64 << 20;

/// A disk of a format, in a folder of its own.
struct Sample {
    what: String,
    file: PathBuf,
    /// Sectors.
    capacity: u64,
    sha256: String,
}

fn all_of(disk: &Disk<'_>, capacity: u64) -> Vec<u8> {
    (0..capacity).step_by(4096).flat_map(|at| disk.must_read(at, (capacity - at).min(4096))).collect()
}

/// The golden images: those of other products, and odd ones.
fn golden(folder: &Path) -> Vec<Sample> {
    let images = Images::find();
    let small = images.golden().into_iter().filter(|golden| golden.size <= LARGEST);
    let samples = small.enumerate().map(|(n, golden)| {
        let (unpacked, place) = (images.unpack(&golden.path), folder.join(format!("golden {n}")));
        std::fs::create_dir(&place).expect("a folder");
        for name in scratch::names(unpacked.folder()) {
            std::fs::copy(unpacked.sibling(&name), place.join(&name)).expect("copying an image");
        }
        let file = place.join(unpacked.path().file_name().expect("a name"));
        Sample { what: golden.path, file, capacity: golden.size / 512, sha256: golden.sha256 }
    });
    samples.collect()
}

/// A content with holes; sectors that are no multiple of a grain.
const SECTORS: u64 = 5 * 1024 + 24;

fn raw(folder: &Path) -> (PathBuf, String) {
    let raw = model::sample(folder, SECTORS);
    let hash = model::sha256_of(&raw);
    (raw, hash)
}

/// What qemu-img writes, raw files among them.
fn of_qemu(folder: &Path) -> Vec<Sample> {
    let (raw, sha256) = raw(folder);
    let kinds = [
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "streamOptimized",
        "img",
        "raw",
    ];
    let sample = |kind: &&str| {
        let place = folder.join(format!("qemu {kind}"));
        std::fs::create_dir(&place).expect("a folder");
        let is_raw = matches!(*kind, "img" | "raw");
        let file = place.join(if is_raw { format!("d.{kind}") } else { "d.vmdk".to_owned() });
        match is_raw {
            true => drop(std::fs::copy(&raw, &file).expect("a copy")),
            false => {
                let subformat = format!("subformat={kind}");
                let convert = ["convert", "-f", "raw", "-O", "vmdk", "-o", &subformat];
                tools::check(tools::qemu_img(convert).args([&raw, &file]));
            }
        }
        Sample { what: format!("{kind} of qemu"), file, capacity: SECTORS, sha256: sha256.clone() }
    };
    kinds.iter().map(sample).collect()
}

/// What this library makes.
fn own(folder: &Path) -> Vec<Sample> {
    let (raw, sha256) = raw(folder);
    let content = std::fs::read(&raw).expect("the content");
    let here = Vix::started().connect(false).expect("a local connection");
    let kinds = [
        Kind::Sparse,
        Kind::Flat,
        Kind::SplitSparse,
        Kind::SplitFlat,
        Kind::VmfsFlat,
        Kind::Stream,
        Kind::VmfsThin,
    ];
    let sample = |kind: &Kind| {
        let place = folder.join(format!("own {kind:?}"));
        std::fs::create_dir(&place).expect("a folder");
        let file = place.join("d.vmdk");
        here.must_create(&file, Spec::new(*kind, SECTORS));
        let disk = here.must_open(&file, flags::READ_WRITE);
        disk.must_write(0, &content);
        assert_eq!(disk.close(), code::OK);
        Sample { what: format!("{kind:?} of our own"), file, capacity: SECTORS, sha256: sha256.clone() }
    };
    kinds.iter().map(sample).collect()
}

/// A machine for each sample.
struct Scene {
    folder: TempDir,
    samples: Vec<Sample>,
}

impl Scene {
    fn new() -> Scene {
        let folder = scratch::folder();
        let part = |name: &str| {
            let part = folder.path().join(name);
            std::fs::create_dir(&part).expect("a folder");
            part
        };
        let mut samples = golden(&part("golden"));
        samples.extend(of_qemu(&part("qemu")));
        samples.extend(own(&part("own")));
        Scene { folder, samples }
    }

    fn start(&self) -> (Sim, Vec<(Server, PathBuf)>) {
        let machines = self.samples.iter().enumerate().map(|(n, sample)| MachineOptions {
            name: format!("m{n}"),
            disks: vec![sample.file.clone()],
            powered_on: false,
        });
        let user = USER.to_owned();
        let mut options = Options { user, machines: machines.collect(), ..Options::default() };
        options.set_password(PASSWORD.to_owned());
        let sim = Sim::start(options).unwrap_or_else(|e| panic!("the simulator: {e}"));
        let ready = sim.ready();
        let way = |n: usize| {
            let machine = &ready.vms[n];
            let server = Server {
                name: sim.address().to_string(),
                thumbprint: Some(ready.thumbprint_sha1.clone()),
                machine: Some(format!("moref={}", machine.moref)),
                login: Some((USER.to_owned(), PASSWORD.to_owned())),
                modes: Some("nbdssl".to_owned()),
                ..Server::default()
            };
            (server, PathBuf::from(&machine.disks[0].path))
        };
        let ways = (0..self.samples.len()).map(way).collect();
        (sim, ways)
    }
}

#[test]
fn every_format_is_served_with_its_content() {
    requires!("qemu-img");
    in_child(|| {
        let scene = Scene::new();
        let (_sim, ways) = scene.start();
        let mut formats = 0;
        for (sample, (server, path)) in scene.samples.iter().zip(&ways) {
            let connection = connect(server);
            let disk = connection.must_open(path, flags::READ_ONLY);
            assert_eq!(disk.info().capacity, sample.capacity, "{}", sample.what);
            let content = all_of(&disk, sample.capacity);
            assert_eq!(model::sha256(&content), sample.sha256, "{}", sample.what);
            let listed = disk.allocated_all(128);
            let told = |sector: u64| listed.iter().any(|(at, count)| (*at..at + count).contains(&sector));
            for sector in (0..sample.capacity).filter(|sector| !told(*sector)) {
                let at = (sector * 512) as usize;
                assert!(model::is_zero(&content[at..at + 512]), "{}: sector {sector} is data", sample.what);
            }
            formats += 1;
        }
        assert!(formats >= 18 + 14, "{formats}");
    });
}

/// Opens a disk and writes to its begin, middle and end: what came of each. `None`: it does not open to be written.
fn written(connection: &Connection<'_>, path: &Path, sample: &Sample) -> Option<(Vec<bool>, Vec<u8>)> {
    let disk = connection.open(path, flags::READ_WRITE).ok()?;
    let spots = [0, sample.capacity / 2, sample.capacity - 3];
    let done = spots.map(|start| disk.write(start, &stamps(start, 3, 9)) == code::OK);
    assert_eq!(disk.flush(), code::OK, "{}", sample.what);
    let content = all_of(&disk, sample.capacity);
    for (start, _) in spots.iter().zip(done).filter(|(_, done)| *done) {
        let at = (start * 512) as usize;
        assert!(content[at..at + 3 * 512] == stamps(*start, 3, 9), "{}: sector {start}", sample.what);
    }
    assert_eq!(disk.close(), code::OK);
    Some((done.to_vec(), content))
}

/// What this library does not write: packed disks, which are written once and in order, and the deltas of hosts.
const READ_ONLY: [&str; 10] = [
    "vmdk/ws-streamOptimized/streamOptimized.vmdk",
    "vmdk/stream-converter/streamOptimizedWithMarkers.vmdk",
    "vmdk/qemu-64k/vmdk-streamoptimized.img",
    "vmdk/synthetic/cowd/cowd-000001.vmdk",
    "vmdk/synthetic/cowd/cowd-000002.vmdk",
    "vmdk/synthetic/sesparse/se-000001.vmdk",
    "vmdk/synthetic/stream/so-ooo-incompressible.vmdk",
    "vmdk/synthetic/custom/custom.vmdk",
    "streamOptimized of qemu",
    "Stream of our own",
];

#[test]
fn a_format_is_written_as_far_as_the_same_file_is_without_a_server() {
    requires!("qemu-img");
    in_child(|| {
        let (scene, near) = (Scene::new(), Scene::new());
        let here = Vix::started().connect(false).expect("a local connection");
        let (sim, ways) = scene.start();
        let mut results = Vec::new();
        for ((sample, local), (server, path)) in scene.samples.iter().zip(&near.samples).zip(&ways) {
            let far = written(&connect(server), path, sample);
            if is_raw(&sample.file) {
                let (done, content) = far.expect("a raw disk opens");
                assert_eq!(done, [true; 3], "{}: {}", sample.what, vix::log_text());
                results.push((sample, Some(content)));
                continue;
            }
            let near = written(&here, &local.file, local);
            assert!(far == near, "{}: not as without a server: {}", sample.what, vix::log_text());
            let whole = far.as_ref().is_some_and(|(done, _)| done.iter().all(|done| *done));
            assert_eq!(whole, !READ_ONLY.contains(&sample.what.as_str()), "{}: {far:?}", sample.what);
            results.push((sample, far.map(|(_, content)| content)));
        }
        drop(sim);
        for (sample, content) in
            results.iter().filter_map(|(sample, content)| Some((sample, content.as_ref()?)))
        {
            let file = match is_raw(&sample.file) {
                true => std::fs::read(&sample.file).expect("the disk"),
                false => all_of(&here.must_open(&sample.file, flags::READ_ONLY), sample.capacity),
            };
            assert!(file == *content, "{}: in the file", sample.what);
        }
        assert!(results.len() >= 18 + 14, "{}", results.len());
        drop((scene.folder, near.folder));
    });
}

fn is_raw(file: &Path) -> bool {
    file.ends_with("d.raw") || file.ends_with("d.img")
}
