//! The whole way on the simulator: our SOAP client gets a ticket, a small NFC client made of the codec goes in with it.
#![allow(clippy::unwrap_used)] // a test may end where it stands

mod common;
#[path = "sim_nfc/client.rs"]
#[allow(dead_code)]
mod nfc;

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use common::model::Rng;
use common::scratch;
use common::tools;
use nfc::Client;
use nfc::Wish;
use tempfile::TempDir;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::logging::Log;
use vixDiskLib::net::nfc::Compression;
use vixDiskLib::net::nfc::ticket::HostIdentity;
use vixDiskLib::net::nfc::ticket::Ticket;
use vixDiskLib::net::tls::TlsSettings;
use vixDiskLib::net::vim::Login;
use vixDiskLib::net::vim::MachineSpec;
use vixDiskLib::net::vim::Moref;
use vixDiskLib::net::vim::Power;
use vixDiskLib::net::vim::Server;
use vixDiskLib::net::vim::Session;
use vixDiskLib::net::vim::Times;
use vixDiskLib::secret::Secret;
use vixDiskLib::sim::Sim;
use vixDiskLib::sim::fault::Rule;
use vixDiskLib::sim::options::MachineOptions;
use vixDiskLib::sim::options::Options;
use vixDiskLib::sim::personality::Release;

const SIZE: usize = 8 << 20;

/// A simulator with a machine on a chain of two links.
struct Scene {
    _folder: TempDir,
    sim: Sim,
    /// What the base and the leaf hold.
    content: [Vec<u8>; 2],
}

impl Scene {
    fn new(mut options: Options) -> Scene {
        let folder = scratch::folder();
        let (base, leaf) = (folder.path().join("base.vmdk"), folder.path().join("leaf.vmdk"));
        let mut rng = Rng::new(77);
        let mut lower = vec![0; SIZE];
        lower[1 << 20..2 << 20].copy_from_slice(&rng.bytes(1 << 20));
        let raw = folder.path().join("raw");
        std::fs::write(&raw, &lower).unwrap();
        tools::check(tools::qemu_img(["convert", "-f", "raw", "-O", "vmdk"]).args([&raw, &base]));
        let backing = base.to_str().unwrap();
        tools::check(tools::qemu_img(["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", backing]).arg(&leaf));
        let mut upper = lower.clone();
        let piece = rng.bytes(100 * 512);
        upper[0x18_0000..0x18_0000 + piece.len()].copy_from_slice(&piece);
        write(&leaf, 0x18_0000, &piece);
        options.machines =
            vec![MachineOptions { name: "m".to_owned(), disks: vec![leaf], powered_on: false }];
        Scene { _folder: folder, sim: Sim::start(options).unwrap(), content: [lower, upper] }
    }

    fn session(&self, login: Login) -> Result<Session, vixDiskLib::error::Error> {
        let ready = self.sim.ready();
        let tls = TlsSettings { thumbprint: Some(ready.thumbprint_sha1), ..TlsSettings::default() };
        let server = Server { host: "127.0.0.1".to_owned(), port: ready.sdk_port, tls };
        Session::open(server, login, Times::default(), Log::none())
    }

    fn user(&self) -> Session {
        self.session(user("vixsim")).unwrap()
    }

    fn path(&self, snapshot: bool) -> String {
        let ready = self.sim.ready();
        let machine = ready.vms.first().unwrap();
        let disks = if snapshot { &machine.snapshots.first().unwrap().disks } else { &machine.disks };
        disks.first().unwrap().path.clone()
    }
}

fn user(password: &str) -> Login {
    let name = Options::default().user;
    Login::User { name, password: Secret::from(password.to_owned()) }
}

fn write(path: &Path, offset: u64, bytes: &[u8]) {
    use vixDiskLib::sim::disks::open::How;
    use vixDiskLib::sim::disks::open::OpenFile;
    let open = OpenFile::open(path, How::Write, &Log::none()).unwrap();
    open.disk.write(bytes, offset).unwrap();
    open.finish().unwrap();
}

/// The ticket as the small client takes it: with an address.
fn usable(mut ticket: Ticket) -> Ticket {
    ticket.host = Some(ticket.host.unwrap_or_else(|| "127.0.0.1".to_owned()));
    ticket
}

fn the_machine(scene: &Scene) -> Moref {
    Moref::machine(scene.sim.ready().vms.first().unwrap().moref.clone())
}

#[track_caller]
fn kind<T>(done: Result<T, vixDiskLib::error::Error>) -> ErrorKind {
    done.err().expect("an error").kind()
}

#[test]
fn each_release_gives_tickets_that_open_disks_to_read_and_to_write() {
    requires!("qemu-img");
    for release in [Release::V70, Release::V80, Release::V90] {
        for (esxi, secure) in [(false, true), (true, false)] {
            let scene = Scene::new(Options { release, esxi, ..Options::default() });
            let session = scene.user();
            assert_eq!(session.about().is_vcenter(), !esxi);
            let vm = the_machine(&scene);
            for (snapshot, content) in [true, false].into_iter().zip(&scene.content) {
                let ticket = session.ticket_for_files(&vm).unwrap();
                assert_eq!((ticket.host.is_some(), ticket.port), (!esxi, scene.sim.ready().nfc_port));
                assert_eq!(ticket.service, if esxi { "nfc" } else { "vpxa-nfc" });
                // The certificate itself is for callers of version 9.0, which this client does not speak.
                assert!(matches!(ticket.identity, Some(HostIdentity::Thumbprint(_))), "{release:?}");
                let wish = Wish { secure, ..Wish::default() };
                let mut client = Client::open(&usable(ticket), &scene.path(snapshot), wish).unwrap();
                assert_eq!(client.opened.capacity, SIZE as u64);
                let half = SIZE as u32 / 2;
                let mut all = client.read(0, half).unwrap();
                all.extend(client.read(u64::from(half), half).unwrap());
                assert!(all == *content, "{release:?} {esxi} {snapshot}");
                client.close().unwrap();
            }
            let ticket = session.ticket_for_disk(&vm, 2000, None, true).unwrap();
            let wish = Wish { secure, write: true, ..Wish::default() };
            let mut client = Client::open(&usable(ticket), &scene.path(false), wish).unwrap();
            client.write(4096, &[9; 8192], Compression::None).unwrap().unwrap();
            client.close().unwrap();
            let ticket = session.ticket_for_disk(&vm, 2000, None, false).unwrap();
            let mut client = Client::open(&usable(ticket), &scene.path(false), Wish::default()).unwrap();
            assert_eq!(client.read(4096, 8192).unwrap(), [9; 8192]);
            session.close().unwrap();
        }
    }
}

#[test]
fn our_client_finds_machines_disks_and_places() {
    requires!("qemu-img");
    let scene = Scene::new(Options::default());
    let session = scene.user();
    let vm = the_machine(&scene);
    let ready = scene.sim.ready();
    let folder = scene.path(false);
    let vmx = folder.replace("leaf.vmdk", "m.vmx");
    let specs = [
        format!("moref={}", vm.id),
        "Datacenter/vm/m".to_owned(),
        format!("{vmx}?dcPath=Datacenter&dsName=datastore1"),
    ];
    for spec in specs {
        assert_eq!(session.machine(&MachineSpec::parse(&spec).unwrap()).unwrap(), vm, "{spec}");
    }
    assert_eq!(kind(session.ticket_for_files(&Moref::machine("vm-999"))), ErrorKind::MachineNotFound);
    let hardware = session.hardware(&vm, None).unwrap();
    assert_eq!((hardware.name.as_str(), hardware.power), ("m", Power::Off));
    let disk = hardware.disks.first().unwrap();
    assert_eq!((disk.key, disk.capacity, disk.chain.len()), (2000, SIZE as u64, 2));
    assert_eq!(disk.chain, [scene.path(false), scene.path(true)]);
    let snapshot = ready.vms[0].snapshots[0].moref.clone();
    let before = session.hardware(&vm, Moref::snapshot(&snapshot).as_ref()).unwrap();
    assert_eq!(before.disks.first().unwrap().chain, [scene.path(true)]);
    assert_eq!(session.datacenter_path(&vm).unwrap(), "Datacenter");
    assert_eq!(session.datastore_name(disk.datastore.as_ref().unwrap()).unwrap(), "datastore1");
    session.disable_relocation(&vm, "us").unwrap();
    session.disable_relocation(&vm, "us").unwrap();
    assert_eq!(kind(session.disable_relocation(&vm, "them")), ErrorKind::OperationDisabled);
    session.enable_relocation(&vm, "us").unwrap();
    session.disable_relocation(&vm, "them").unwrap();
    scene.sim.power("m", true).unwrap();
    assert_eq!(session.hardware(&vm, None).unwrap().power, Power::On);
}

#[test]
fn sessions_of_others_expired_ones_and_refusals_are_as_on_real_servers() {
    requires!("qemu-img");
    let scene = Scene::new(Options::default());
    assert_eq!(kind(scene.session(user("wrong"))), ErrorKind::Unauthorised);
    let first = scene.user();
    let vm = the_machine(&scene);
    let cookie = first.cookie().expose_text().unwrap().to_owned();
    let second = scene.session(Login::Cookie(Secret::from(cookie.clone()))).unwrap();
    second.ticket_for_files(&vm).unwrap();
    second.close().unwrap();
    first.keep_alive().unwrap();
    scene.sim.end_sessions();
    assert_eq!(kind(scene.session(Login::Cookie(Secret::from(cookie)))), ErrorKind::SessionInvalid);
    first.ticket_for_files(&vm).unwrap(); // it logs in again
    let rule = "soap.NfcGetVmFiles:1=fault(NoPermission,privilege=VirtualMachine.Provisioning.GetVmFiles)";
    scene.sim.faults().add(Rule::parse(rule).unwrap());
    let refused = first.ticket_for_files(&vm).unwrap_err();
    assert!(refused.to_string().contains("VirtualMachine.Provisioning.GetVmFiles"), "{refused}");
    first.ticket_for_files(&vm).unwrap();
    scene.sim.knobs().set("maintenance=yes").unwrap();
    assert_eq!(kind(first.ticket_for_files(&vm)), ErrorKind::HostUnavailable);
}

#[test]
fn a_ticket_is_good_once_and_for_its_machine() {
    requires!("qemu-img");
    let scene = Scene::new(Options { ticket_life: Duration::from_secs(3600), ..Options::default() });
    let session = scene.user();
    let vm = the_machine(&scene);
    let ticket = usable(session.ticket_for_files(&vm).unwrap());
    Client::open(&ticket, &scene.path(false), Wish::default()).unwrap().close().unwrap();
    assert_eq!(kind(Client::open(&ticket, &scene.path(false), Wish::default())), ErrorKind::Unauthorised);
    let ticket = usable(session.ticket_for_files(&vm).unwrap());
    let wish = Wish { write: true, ..Wish::default() };
    assert_eq!(kind(Client::open(&ticket, &scene.path(false), wish)), ErrorKind::ReadOnly);
    scene.sim.power("m", true).unwrap();
    let open =
        |path: &str| Client::open(&usable(session.ticket_for_files(&vm).unwrap()), path, Wish::default());
    assert!(open(&scene.path(false)).is_err());
    assert!(open(&scene.path(true)).is_ok());
    scene.sim.set_ticket_life(Duration::ZERO);
    assert_eq!(kind(open(&scene.path(true))), ErrorKind::Unauthorised);
}

#[test]
fn disks_without_description_are_served_too() {
    let folder = scratch::folder();
    let disk: PathBuf = folder.path().join("disk.img");
    let content = Rng::new(4).bytes(1 << 20);
    std::fs::write(&disk, &content).unwrap();
    let machines = vec![MachineOptions { name: "m".to_owned(), disks: vec![disk], powered_on: false }];
    let sim = Sim::start(Options { machines, ..Options::default() }).unwrap();
    let scene = Scene { _folder: folder, sim, content: [Vec::new(), Vec::new()] };
    let session = scene.user();
    let ticket = usable(session.ticket_for_files(&the_machine(&scene)).unwrap());
    let mut client = Client::open(&ticket, &scene.path(false), Wish::default()).unwrap();
    assert!(client.read(0, 1 << 20).unwrap() == content);
}
