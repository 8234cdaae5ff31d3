//! The programs of `examples/` and the commands of `docs/vsphere.md` with virtual machines of the simulator.
#![allow(clippy::unwrap_used)] // a test may end where it stands

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

#[macro_use]
mod common;
#[path = "common/tree.rs"]
mod tree;

use common::readers;
use common::scratch;
use common::tools;
use tempfile::TempDir;
use vixDiskLib::logging::Log;
use vixDiskLib::sim::Sim;
use vixDiskLib::sim::disks::open::How;
use vixDiskLib::sim::disks::open::OpenFile;
use vixDiskLib::sim::fault::Rule;
use vixDiskLib::sim::options::MachineOptions;
use vixDiskLib::sim::options::Options;
use vixDiskLib::sim::personality::Release;

/// What is changed in one write, and what the simulator's maps of changes distinguish.
const UNIT: u64 = 65536;

/// Shell functions of the tests: the programs with what they need to come in, and a value of a JSON file.
const FUNCTIONS: &str = r#"
vsphere() { "$PYTHON" -B "$EXAMPLES/changed_areas.py" --server 127.0.0.1 --port $SDK --user "$LOGIN" --password-file password "$@"; }
areas() { vsphere --thumbprint $THUMB "$@"; }
value() { python3 -c 'import functools, json, sys
print(functools.reduce(lambda at, key: at[int(key) if key.isdigit() else key], sys.argv[2:], json.load(open(sys.argv[1]))))' "$@"; }
host="--server 127.0.0.1 --port $SDK --nfc-port $NFC --user $LOGIN --password-file password --vm $VM"
backup() { ./backup --no-progress $host "$@"; }
python() { python3 -B "$EXAMPLES/vixdisklib.py" "$@" $host --libdir "$VDDK"; }
fails() { local status=0; "${@:2}" >said 2>&1 || status=$?; cat said; [ $status = $1 ] || { echo "$* ended with $status"; exit 1; }; }
"#;

/// Leaves the test when there is no pyVmomi.
fn has_pyvmomi() -> bool {
    let asked = Command::new(readers::python()).args(["-c", "import pyVmomi"]).output();
    let found = asked.is_ok_and(|outcome| outcome.status.success());
    if !found {
        scratch::skip("there is no pyVmomi (scripts/fetch-readers.sh)");
    }
    found
}

/// A simulator with the machine `web`, and a folder for what programs leave.
struct Scene {
    folder: TempDir,
    sim: Sim,
    disk: PathBuf,
}

impl Scene {
    /// Its disk has so many MiB and data in some places; with `running` that is the disk of a snapshot.
    fn new(esxi: bool, mib: u64, running: bool) -> Scene {
        Scene::with(Options { esxi, ..Options::default() }, mib, running)
    }

    fn with(options: Options, mib: u64, running: bool) -> Scene {
        let folder = scratch::folder();
        std::fs::create_dir(folder.path().join("vm")).unwrap();
        let base = folder.path().join("vm/web.vmdk");
        tools::check(tools::qemu_img(["create", "-q", "-f", "vmdk"]).arg(&base).arg(format!("{mib}M")));
        change(&base, &[0, 1, 7, mib * 16 - 1], 1);
        let mut disk = base.clone();
        if running {
            disk = folder.path().join("vm/web-000001.vmdk");
            let mut child = tools::qemu_img(["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b"]);
            tools::check(child.arg(&base).arg(&disk));
        }
        let machine =
            MachineOptions { name: "web".to_owned(), disks: vec![disk.clone()], powered_on: running };
        let sim = Sim::start(Options { machines: vec![machine], ..options }).unwrap();
        std::fs::write(folder.path().join("password"), "vixsim\n").unwrap();
        Scene { folder, sim, disk }
    }

    /// The same with `backup` compiled.
    fn with_backup(esxi: bool, mib: u64, running: bool) -> Scene {
        Scene::new(esxi, mib, running).compiled()
    }

    fn compiled(self) -> Scene {
        self.shell("make -s -C $VDDK/examples OUT=$PWD $PWD/backup");
        self
    }

    /// Runs shell text in the folder; what it printed.
    #[track_caller]
    fn shell(&self, text: &str) -> String {
        let (ready, project) = (self.sim.ready(), tree::project());
        let machine = ready.vms.first().unwrap();
        let mut command = Command::new("bash");
        command.current_dir(self.folder.path()).args([
            "-euo",
            "pipefail",
            "-c",
            &format!("{FUNCTIONS}{text}"),
        ]);
        command.env("EXAMPLES", project.join("examples")).env("PYTHON", readers::python());
        command.env("SDK", ready.sdk_port.to_string()).env("NFC", ready.nfc_port.to_string());
        command.env("THUMB", ready.thumbprint_sha1).env("THUMB256", ready.thumbprint_sha256);
        command.env("LOGIN", Options::default().user).env("VM", format!("moref={}", machine.moref));
        command.env("WEB", &machine.disks.first().unwrap().path);
        if let Some(snapshot) = machine.snapshots.first() {
            command.env("SNAP", &snapshot.moref).env("OLD", &snapshot.disks.first().unwrap().path);
        }
        if text.contains("$VDDK") || text.contains("python ") {
            command.env("VDDK", tree::tree("examples-dist"));
        }
        tools::check(&mut command).out()
    }

    /// The file that the machine writes to.
    fn leaf(&self) -> PathBuf {
        self.sim.ready().vms.first().unwrap().disks.first().unwrap().file.clone()
    }

    /// The content of a disk's file as qemu reads it: the hash, and a raw file of this name.
    fn raw(&self, disk: &Path, name: &str) -> String {
        let raw = self.folder.path().join(name);
        tools::check(tools::qemu_img(["convert", "-U", "-f", "vmdk", "-O", "raw"]).arg(disk).arg(&raw));
        common::model::sha256(&std::fs::read(raw).unwrap())
    }
}

/// Writes into units of a disk, as the guest would.
fn change(disk: &Path, units: &[u64], seed: u8) {
    let open = OpenFile::open(disk, How::Write, &Log::none()).unwrap();
    for unit in units {
        let mut sector = format!("{seed} in {unit}").into_bytes();
        sector.resize(512, seed);
        open.disk.write(&sector, unit * UNIT + 1024).unwrap();
    }
    open.finish().unwrap();
}

/// What `changed_areas.py areas` prints of these units, each of which has no neighbour.
fn lines(units: &[u64]) -> String {
    units.iter().map(|unit| format!("{} {UNIT}\n", unit * UNIT)).collect()
}

#[test]
fn changed_areas_lists_more_areas_than_one_answer_holds() {
    requires!("bash", "python3", "qemu-img");
    if !has_pyvmomi() {
        return;
    }
    for esxi in [false, true] {
        let scene = Scene::new(esxi, 600, false);
        let printed = scene.shell(
            "areas enable web 2>&1; areas enable $VM 2>&1
             areas create web >monday.json; areas disks $VM $(value monday.json snapshot) >same.json
             cmp monday.json same.json; value monday.json disks 0 path; value monday.json disks 0 capacity
             areas areas web $(value monday.json snapshot) 2000",
        );
        // Units 0 and 1 are neighbours, so they are one area.
        let used = format!("0 {}\n{}", 2 * UNIT, lines(&[7, 9599]));
        let on = "changed block tracking is on";
        assert_eq!(printed, format!("{on}\n{on} already\n[datastore1] vm/web.vmdk\n629145600\n{used}"));

        let many: Vec<u64> = (0..2500).map(|n| n * 3 + 1).collect();
        change(&scene.leaf(), &many, 2);
        let printed = scene.shell(
            "areas create --name second web >tuesday.json
             areas areas web $(value tuesday.json snapshot) 2000 --since \"$(value monday.json disks 0 change_id)\"",
        );
        assert_eq!(printed, lines(&many));
        scene.shell(
            "areas remove web $(value monday.json snapshot); areas remove web $(value tuesday.json snapshot)
             fails 1 areas disks web $(value tuesday.json snapshot)",
        );
        assert_eq!(scratch::names(&scene.folder.path().join("vm")), ["web.vmdk"]);
    }
}

#[test]
fn changed_areas_ends_with_3_where_only_a_full_backup_helps() {
    requires!("bash", "python3", "qemu-img");
    if !has_pyvmomi() {
        return;
    }
    let scene = Scene::new(false, 8, false);
    let said = scene.shell(
        "areas enable web; areas create web >a.json
         fails 3 areas areas web $(value a.json snapshot) 2000 --since '52 00/1'",
    );
    assert!(said.contains("make a full backup"), "{said}");
}

#[test]
fn changed_areas_talks_to_the_expected_server_only() {
    requires!("bash", "python3", "qemu-img");
    if !has_pyvmomi() {
        return;
    }
    let scene = Scene::new(false, 8, false);
    scene.shell("vsphere --thumbprint $THUMB256 enable web");
    let said = scene.shell("fails 1 vsphere --thumbprint ${THUMB%:*} enable web");
    assert!(said.contains("neither 20 nor 32 bytes"), "{said}");
    let said = scene.shell("fails 1 vsphere --thumbprint $(printf '00%.0s' {1..20}) enable web");
    assert!(said.contains(&scene.sim.ready().thumbprint_sha1), "{said}");
    let said = scene.shell("fails 1 vsphere enable web");
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    let said = scene.shell("echo wrong >password; fails 1 areas enable web");
    assert!(said.contains("InvalidLogin"), "{said}");
    let said = scene.shell("echo vixsim >password; fails 1 areas enable nobody");
    assert!(said.contains("no virtual machines are called nobody"), "{said}");
}

#[test]
fn backup_reads_a_disk_over_every_transport_and_compression() {
    requires!("bash", "cc", "qemu-img");
    let scene = Scene::with_backup(false, 32, false);
    let hash = scene.raw(&scene.disk, "right.raw");
    for how in [
        "--transports nbd",
        "--transports nbdssl",
        "--transports nbdssl --compression zlib",
        "--transports nbd --compression fastlz",
        "--transports nbdssl --compression skipz --depth 1 --size 3",
        "--transports nbdssl:nbd --all",
        "--transports https",
    ] {
        let printed = scene.shell(&format!(
            "rm -f web.raw; backup --thumbprint $THUMB {how} --verify {hash} \"$WEB\" web.raw && cmp web.raw right.raw"
        ));
        assert!(printed.contains("verified"), "{how}: {printed}");
    }
}

#[test]
fn backup_reads_the_snapshot_of_a_running_machine_and_nothing_else() {
    requires!("bash", "cc", "qemu-img");
    for esxi in [false, true] {
        let scene = Scene::with_backup(esxi, 8, true);
        let hash = scene.raw(&scene.folder.path().join("vm/web.vmdk"), "right.raw");
        let printed = scene.shell(&format!(
            "backup --thumbprint $THUMB256 --transports nbdssl --snapshot $SNAP --verify {hash} \"$OLD\" web.raw
             fails 1 backup --thumbprint $THUMB256 --transports nbdssl \"$WEB\""
        ));
        assert!(printed.contains("verified"), "{printed}");
    }
}

#[test]
fn an_incremental_backup_is_what_a_full_one_would_be() {
    requires!("bash", "cc", "python3", "qemu-img");
    if !has_pyvmomi() {
        return;
    }
    let scene = Scene::with_backup(false, 64, false);
    scene.shell(
        "areas enable web; areas create web >monday.json
         backup --thumbprint $THUMB --snapshot $(value monday.json snapshot) --transports nbdssl \\
             \"$(value monday.json disks 0 path)\" web.raw",
    );
    change(&scene.leaf(), &[500], 3); // into the snapshot's child, which is merged away
    scene.shell(
        "areas remove web $(value monday.json snapshot)
         head -c 65536 /dev/urandom >news
         python put \"$(value monday.json disks 0 path)\" --thumbprint $THUMB --transports nbdssl --start 4096 <news
         python put \"$(value monday.json disks 0 path)\" --thumbprint $THUMB --transports nbd --compression fastlz --start 130944 <news",
    );
    let hash = scene.raw(&scene.leaf(), "right.raw");
    let printed = scene.shell(&format!(
        "areas create web >tuesday.json; snapshot=$(value tuesday.json snapshot)
         areas areas web $snapshot 2000 --since \"$(value monday.json disks 0 change_id)\" | tee list
         backup --thumbprint $THUMB --snapshot $snapshot --areas list --verify {hash} \"$(value tuesday.json disks 0 path)\" web.raw
         cmp web.raw right.raw; cmp -n 65536 -i 2097152:0 web.raw news"
    ));
    assert!(printed.starts_with(&lines(&[32, 500, 1023])) && printed.contains("verified"), "{printed}");
}

#[test]
fn the_python_program_shows_a_disk_of_a_host() {
    requires!("bash", "python3", "qemu-img");
    let scene = Scene::new(true, 8, false);
    scene.raw(&scene.disk, "right.raw");
    let printed = scene.shell(
        "python info \"$WEB\" --thumbprint $THUMB --transports nbd
         python map \"$WEB\" --thumbprint $THUMB
         python metadata \"$WEB\" --thumbprint $THUMB
         python cat \"$WEB\" --thumbprint $THUMB --transports nbdssl --compression skipz >web.raw; cmp web.raw right.raw",
    );
    assert!(
        printed.contains("capacity        16384 sectors") && printed.contains("transport       nbd\n"),
        "{printed}"
    );
    assert!(printed.contains("\n0 256\n896 128\n16256 128\n"), "{printed}");
    assert!(printed.contains("adapterType = ide"), "{printed}");
}

#[test]
fn the_programs_end_where_the_certificate_is_another_one() {
    requires!("bash", "cc", "python3", "qemu-img");
    let scene = Scene::with_backup(false, 8, false);
    let said = scene.shell(
        "wrong=$(printf '00:%.0s' {1..19})00
         fails 1 backup --thumbprint $wrong \"$WEB\" web.raw; test ! -e web.raw
         fails 1 python info \"$WEB\" --thumbprint $wrong",
    );
    assert!(said.contains(&scene.sim.ready().thumbprint_sha1), "{said}");
}

#[test]
fn hosts_whose_nfc_nobody_described_are_read_over_https() {
    requires!("bash", "cc", "qemu-img");
    for release in [Release::V65, Release::V67] {
        let scene = Scene::with(Options { release, ..Options::default() }, 8, false).compiled();
        let hash = scene.raw(&scene.disk, "right.raw");
        let printed = scene.shell(&format!(
            "fails 1 backup --thumbprint $THUMB --transports nbdssl:nbd \"$WEB\"
             backup --thumbprint $THUMB --transports nbdssl:https --verify {hash} \"$WEB\""
        ));
        assert!(printed.contains("verified"), "{printed}");
    }
}

/// The commands below a line `<!-- tested: NAME -->` of docs/vsphere.md.
fn recipe(name: &str) -> String {
    let text = std::fs::read_to_string(tree::project().join("docs/vsphere.md")).unwrap();
    let (_, rest) = text.split_once(&format!("<!-- tested: {name} -->\n```sh\n")).unwrap();
    rest.split_once("```\n").unwrap().0.to_owned()
}

/// Runs `vixsim` and these commands of docs/vsphere.md in a folder with a disk; what they printed, and the folder.
#[track_caller]
fn run_recipe(name: &str) -> (String, TempDir) {
    let folder = scratch::folder();
    let disk = folder.path().join("web.vmdk");
    tools::check(tools::qemu_img(["create", "-q", "-f", "vmdk"]).arg(&disk).arg("8M"));
    change(&disk, &[0, 5, 100], 9);
    let programs = [Path::new(env!("CARGO_BIN_EXE_vixsim")).parent().unwrap().to_owned()];
    let mut path: Vec<PathBuf> =
        readers::python().parent().map(Path::to_owned).into_iter().chain(programs).collect();
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let text =
        format!("trap '[ -z \"${{SIM:-}}\" ] || kill $SIM' EXIT\n{}{}", recipe("vixsim"), recipe(name));
    let mut command = Command::new("bash");
    command.current_dir(folder.path()).args(["-euo", "pipefail", "-c", &text]);
    command.env("PATH", std::env::join_paths(path).unwrap()).env("DISK", &disk).env("PLUGIN", plugin());
    let printed = tools::check(command.env("VDDK", tree::tree("examples-dist"))).out();
    tools::qemu_raw(&disk, folder.path());
    (printed, folder)
}

/// nbdkit's vddk plugin as `make setup` leaves it.
fn plugin() -> PathBuf {
    scratch::peers().join("nbdkit-1.42/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-vddk-plugin.so")
}

#[track_caller]
fn same(folder: &TempDir, copy: &str) {
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(read(copy) == read("web.vmdk.qemu.raw"), "{copy} differs");
}

#[test]
fn the_documented_nbdkit_command_copies_a_disk_of_vixsim() {
    requires!("bash", "python3", "qemu-img", "nbdkit", "nbdcopy", plugin().to_str().unwrap());
    let (_, folder) = run_recipe("vixsim-nbdkit");
    same(&folder, "nbdkit.raw");
}

#[test]
fn the_documented_programs_read_a_disk_of_vixsim() {
    requires!("bash", "cc", "c++", "python3", "qemu-img");
    let (printed, folder) = run_recipe("vixsim-programs");
    same(&folder, "backup.raw");
    assert!(printed.contains("transport       nbdssl"), "{printed}");
}

#[test]
fn the_documented_snapshot_of_a_machine_of_vixsim_has_a_change_id() {
    requires!("bash", "python3", "qemu-img");
    if !has_pyvmomi() {
        return;
    }
    let (printed, _folder) = run_recipe("vixsim-snapshot");
    assert!(printed.contains("\"change_id\": \"") && printed.contains("web.vmdk"), "{printed}");
}

#[test]
fn the_documented_rules_and_settings_are_taken() {
    let text = std::fs::read_to_string(tree::project().join("docs/vsphere.md")).unwrap();
    let (_, faults) = text.split_once("### Faults on demand").unwrap();
    let rules = faults.split("```").nth(1).unwrap();
    let rules: Vec<&str> = rules.lines().filter(|line| !line.is_empty()).collect();
    assert!(rules.len() > 4, "{rules:?}");
    for rule in rules {
        Rule::parse(rule.split("   ").next().unwrap()).unwrap_or_else(|e| panic!("{rule}: {e}"));
    }
    let (_, settings) = text.split_once("## Settings").unwrap();
    let readme = std::fs::read_to_string(tree::project().join("README.md")).unwrap();
    for name in settings.split('`').filter(|word| word.starts_with("vixDiskLib.")) {
        assert!(readme.contains(name), "the README does not know {name}");
    }
}
