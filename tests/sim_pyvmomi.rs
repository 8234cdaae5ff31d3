//! The simulator as pyVmomi sees it: a client that others wrote, in every release that it accepts.
//!
//! Each test runs behaviours of `tests/peers/pyvmomi_sim.py`, which end with an exception when something is wrong.
#![allow(clippy::unwrap_used)] // a test may end where it stands

mod common;

use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;

use common::model::Rng;
use common::readers;
use common::scratch;
use common::tools;
use tempfile::TempDir;
use vixDiskLib::logging::Level;
use vixDiskLib::logging::Log;
use vixDiskLib::logging::Sink;
use vixDiskLib::sim::Sim;
use vixDiskLib::sim::disks::areas::Areas;
use vixDiskLib::sim::disks::areas::UNIT;
use vixDiskLib::sim::disks::open::How;
use vixDiskLib::sim::disks::open::OpenFile;
use vixDiskLib::sim::options::DatastoreOptions;
use vixDiskLib::sim::options::MachineOptions;
use vixDiskLib::sim::options::Options;
use vixDiskLib::sim::personality::Release;

const PASSWORD: &str = "pass<&>\"word";

/// Leaves the test when there is no pyVmomi.
fn is_here() -> bool {
    static HERE: OnceLock<Result<(), String>> = OnceLock::new();
    let found = HERE.get_or_init(|| {
        let python = readers::python();
        let asked = Command::new(&python).args(["-c", "import pyVmomi"]).output();
        match asked {
            Ok(outcome) if outcome.status.success() => Ok(()),
            _ => Err(format!("{} has no pyVmomi (scripts/fetch-readers.sh)", python.display())),
        }
    });
    match found {
        Ok(()) => true,
        Err(reason) => {
            scratch::skip(reason);
            false
        }
    }
}

/// A simulator with machines, and what its client has to know.
struct Scene {
    folder: TempDir,
    sim: Sim,
    user: String,
}

impl Scene {
    /// Machines `one`, on a chain of two links, and `two`.
    fn new(release: Release, esxi: bool) -> Scene {
        Scene::of(Options { release, esxi, ..Options::default() })
    }

    /// The same with these options.
    fn of(options: Options) -> Scene {
        let folder = scratch::folder();
        let (base, child, other) = (
            folder.path().join("a/base.vmdk"),
            folder.path().join("a/child.vmdk"),
            folder.path().join("b/disk.vmdk"),
        );
        for name in ["a", "b"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let create = |arguments: &[&str], path: &Path, size: Option<&str>| {
            let mut command = tools::qemu_img(["create", "-q", "-f", "vmdk"]);
            tools::check(command.args(arguments).arg(path).args(size));
        };
        create(&[], &base, Some("64M"));
        create(&["-b", base.to_str().unwrap(), "-F", "vmdk"], &child, None);
        create(&[], &other, Some("600M"));
        let machine = |name: &str, disk: PathBuf| MachineOptions {
            name: name.to_owned(),
            disks: vec![disk],
            powered_on: false,
        };
        let machines = vec![machine("one", child), machine("two", other)];
        Scene::with(Options { machines, ..options }, folder)
    }

    fn with(mut options: Options, folder: TempDir) -> Scene {
        options.set_password(PASSWORD.to_owned());
        let user = options.user.clone();
        let sim = Sim::start(options).unwrap();
        sim.ready().write(&folder.path().join("ready.json")).unwrap();
        std::fs::write(folder.path().join("certificate.pem"), sim.certificate()).unwrap();
        Scene { folder, sim, user }
    }

    /// Runs a behaviour; what it printed.
    #[track_caller]
    fn run(&self, checked: bool, behaviour: &[&str]) -> String {
        let certificate = if checked { self.folder.path().join("certificate.pem") } else { PathBuf::new() };
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/pyvmomi_sim.py");
        let mut command = Command::new(readers::python());
        command.arg(program).arg(self.folder.path().join("ready.json")).args([&self.user, PASSWORD]);
        tools::check(command.arg(certificate).args(behaviour)).out()
    }

    /// The file of the disk that a machine writes to.
    fn leaf(&self, machine: &str) -> PathBuf {
        let ready = self.sim.ready();
        let found = ready.vms.into_iter().find(|vm| vm.name == machine).unwrap();
        found.disks.first().unwrap().file.clone()
    }
}

#[test]
fn every_release_lets_a_client_in_as_vcenter_and_as_host() {
    requires!("qemu-img");
    if !is_here() {
        return;
    }
    for release in Release::ALL {
        for esxi in [false, true] {
            let scene = Scene::new(release, esxi);
            let kind = if esxi { "HostAgent" } else { "VirtualCenter" };
            scene.run(true, &["login", kind]);
            scene.run(
                false,
                &["several", "walk one two", "properties one two", "compare one", "snapshots two"],
            );
        }
    }
}

#[test]
fn wrong_logins_certificates_objects_and_methods_are_refused() {
    requires!("qemu-img");
    if !is_here() {
        return;
    }
    let scene = Scene::new(Release::V80, false);
    scene.run(false, &["refusals"]);
    scene.run(false, &["clone"]);
}

#[test]
fn settings_disks_and_power_change_and_filters_tell() {
    requires!("qemu-img");
    if !is_here() {
        return;
    }
    for esxi in [false, true] {
        let scene = Scene::new(Release::V80, esxi);
        scene.run(
            false,
            &[
                "several",
                "reconfigure two|[datastore1] a/base.vmdk",
                "power two",
                "updates two",
                "revert two",
            ],
        );
    }
}

#[test]
fn machines_move_between_hosts_unless_somebody_keeps_them() {
    use vixDiskLib::net::tls::TlsSettings;
    use vixDiskLib::net::vim::Login;
    use vixDiskLib::net::vim::Moref;
    use vixDiskLib::net::vim::Server;
    use vixDiskLib::net::vim::Session;
    use vixDiskLib::net::vim::Times;
    requires!("qemu-img");
    if !is_here() {
        return;
    }
    let scene = Scene::of(Options { hosts: 3, ..Options::default() });
    scene.run(false, &["several", "hosts one two", "relocate two", "snapshots two"]);
    let ready = scene.sim.ready();
    let place = Server {
        host: "127.0.0.1".to_owned(),
        port: ready.sdk_port,
        tls: TlsSettings { thumbprint: Some(ready.thumbprint_sha1.clone()), ..TlsSettings::default() },
    };
    let login = Login::User { name: scene.user.clone(), password: PASSWORD.to_owned().into() };
    let session = Session::open(place, login, Times::default(), Log::none()).unwrap();
    let two = ready.vms.iter().find(|vm| vm.name == "two").unwrap();
    let two = Moref::new("VirtualMachine", two.moref.as_str());
    session.disable_relocation(&two, "backup").unwrap();
    scene.run(false, &["kept", "two", "one"]);
    session.enable_relocation(&two, "backup").unwrap();
    scene.run(false, &["several", "relocate two"]);
    Scene::new(Release::V80, true).run(false, &["relocate_on_host", "two"]);
}

#[test]
fn files_are_read_by_those_who_may_whole_and_in_parts() {
    requires!("qemu-img");
    if !is_here() {
        return;
    }
    for (esxi, datacenter, encodings) in [(false, "Datacenter", "twice"), (true, "ha-datacenter", "once")] {
        let folder = scratch::folder();
        std::fs::create_dir(folder.path().join("vm")).unwrap();
        let disk = folder.path().join("vm/a disk.vmdk");
        tools::check(tools::qemu_img(["create", "-q", "-f", "vmdk"]).arg(&disk).arg("8M"));
        let datastores =
            vec![DatastoreOptions { name: "my store 100%".to_owned(), folder: folder.path().to_owned() }];
        let machines =
            vec![MachineOptions { name: "m".to_owned(), disks: vec![disk.clone()], powered_on: false }];
        let scene = Scene::with(Options { esxi, datastores, machines, ..Options::default() }, folder);
        let file = disk.to_str().unwrap();
        scene.run(false, &["folder", "[my store 100%] vm/a disk.vmdk", file, datacenter, encodings]);
    }
    let scene = Scene::new(Release::V80, false);
    scene.run(false, &["several", "ticket |[datastore1] b/disk.vmdk", "locked two|[datastore1] b/disk.vmdk"]);
}

/// Lines of all levels.
#[derive(Default)]
struct Lines(Mutex<String>);

impl Sink for Lines {
    fn line(&self, _level: Level, text: &str) {
        let mut lines = self.0.lock().unwrap();
        lines.push_str(text);
        lines.push('\n');
    }
}

#[test]
fn no_secret_is_in_the_log() {
    requires!("qemu-img");
    if !is_here() {
        return;
    }
    let folder = scratch::folder();
    let disk = folder.path().join("disk.vmdk");
    tools::check(tools::qemu_img(["create", "-q", "-f", "vmdk"]).arg(&disk).arg("8M"));
    let lines = Arc::new(Lines::default());
    let log = Log::new(lines.clone(), Level::Debug);
    let datastores = vec![DatastoreOptions { name: "d".to_owned(), folder: folder.path().to_owned() }];
    let machines = vec![MachineOptions { name: "m".to_owned(), disks: vec![disk], powered_on: false }];
    let scene = Scene::with(Options { log, datastores, machines, ..Options::default() }, folder);
    let printed = scene.run(false, &["secrets", "[d] disk.vmdk"]);
    let secrets: Vec<&str> = printed.trim().trim_matches(['[', ']']).split("\", \"").collect();
    assert_eq!(secrets.len(), 7, "{printed}");
    let said = lines.0.lock().unwrap();
    assert!(said.contains("NfcGetVmFiles") && said.contains("InvalidLogin"), "{said}");
    for secret in secrets.iter().map(|secret| secret.trim_matches('"').replace("\\\"", "\"")) {
        assert!(secret.len() > 8 && !said.contains(&secret), "{secret} is in {said}");
    }
}

#[test]
fn changed_areas_are_those_that_were_written() {
    requires!("qemu-img");
    if !is_here() {
        return;
    }
    let scene = Scene::new(Release::V80, false);
    let mut rng = Rng::new(42);
    let before = write_some(&scene.leaf("two"), &mut rng, 30);
    let first = scene.run(false, &["track", "two"]);
    assert_eq!(areas(&first), list(&before), "what is allocated");
    let change = text(&first, "change");

    // More areas than one answer holds: every second unit.
    let many: Vec<u64> = (0..2500).map(|i| i * 2).collect();
    let written = write_units(&scene.leaf("two"), &many, &mut rng);
    let second = scene.run(false, &["changed", "two", &change, "keep"]);
    assert_eq!(areas(&second), list(&written));
    assert_eq!(number(&second, "answers"), 2);

    // The map outlives the links that held it.
    let later = write_some(&scene.leaf("two"), &mut rng, 10);
    let third = scene.run(false, &["changed", "two", &text(&second, "change"), "merge"]);
    assert_eq!(areas(&third), list(&later), "after the first snapshot was merged away");

    // Nothing was written since, so what is asked from the beginning on is the sum of both.
    let mut both = written;
    both.unite(&later);
    let fourth = scene.run(false, &["changed", "two", &change, "merge"]);
    assert_eq!(areas(&fourth), list(&both), "after everything was merged into the base");
}

/// Writes whole units at random places, as a program beside the simulator does.
fn write_some(path: &Path, rng: &mut Rng, count: u64) -> Areas {
    let units: Vec<u64> = (0..count).map(|_| rng.below((600 << 20) / UNIT)).collect();
    write_units(path, &units, rng)
}

fn write_units(path: &Path, units: &[u64], rng: &mut Rng) -> Areas {
    let open = OpenFile::open(path, How::Write, &Log::none()).unwrap();
    let mut areas = Areas::default();
    for unit in units {
        open.disk.write(&rng.bytes(512), unit * UNIT + 1024).unwrap();
        areas.add(unit * UNIT..unit * UNIT + 1);
    }
    open.finish().unwrap();
    areas
}

fn list(areas: &Areas) -> Vec<Range<u64>> {
    areas.iter().collect()
}

/// The list `areas` of a line of JSON, neighbours united as in [`Areas`].
fn areas(json: &str) -> Vec<Range<u64>> {
    let start = json.find("\"areas\": [").unwrap() + 10;
    let end = start + json[start..].find("]]").map_or(0, |at| at + 1);
    let mut areas = Areas::default();
    for pair in json[start..end].split('[').skip(1) {
        let numbers: Vec<u64> =
            pair.split([',', ']']).filter_map(|number| number.trim().parse().ok()).collect();
        areas.add(numbers[0]..numbers[0] + numbers[1]);
    }
    list(&areas)
}

fn text(json: &str, name: &str) -> String {
    let start = json.find(&format!("\"{name}\": \"")).unwrap() + name.len() + 5;
    json[start..].split('"').next().unwrap().to_owned()
}

fn number(json: &str, name: &str) -> u64 {
    let start = json.find(&format!("\"{name}\": ")).unwrap() + name.len() + 4;
    json[start..].split([',', '}']).next().unwrap().trim().parse().unwrap()
}
