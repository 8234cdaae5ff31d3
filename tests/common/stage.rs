//! The simulator with machines on it, inside of the test's process, and the library as its client.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;
use vixDiskLib::sim::Sim;
use vixDiskLib::sim::fault::Rule;
use vixDiskLib::sim::options::MachineOptions;
use vixDiskLib::sim::options::Options;
use vixDiskLib::sim::ready::ReadyMachine;

use super::model::stamps;
use super::scratch;
use super::vix::Connection;
use super::vix::Disk;
use super::vix::Kind;
use super::vix::Server;
use super::vix::Spec;
use super::vix::Vix;
use super::vix::code;
use super::vix::flags;
use super::vix::log_text;

/// Sectors of the disks.
pub const SECTORS: u64 = 16384;
/// Who may log in.
pub const USER: &str = "root";
/// No line of any log may have this in it.
pub const PASSWORD: &str = "password-canary-4711";

/// A vCenter or host with the machine `vm`, whose first disk has a snapshot and whose second one has none.
pub struct Stage {
    /// The simulator.
    pub sim: Sim,
    /// Where the disks are.
    pub folder: TempDir,
}

/// Content of a disk: version 1 in the parts that are not left out.
fn fill(disk: &Disk<'_>, version: u64, parts: &[(u64, u64)]) {
    for &(start, count) in parts {
        disk.must_write(start, &stamps(start, count, version));
    }
}

/// Where the base of the first disk holds data.
pub const BASE: [(u64, u64); 3] = [(0, 1000), (4096, 2048), (16000, 384)];
/// Where its snapshot's child does.
pub const CHILD: [(u64, u64); 1] = [(512, 256)];

impl Stage {
    /// A vCenter.
    pub fn vcenter() -> Stage {
        Stage::start(Options::default())
    }

    /// A host without a vCenter.
    pub fn host() -> Stage {
        Stage::start(Options { esxi: true, ..Options::default() })
    }

    /// A simulator with these options, besides user and machine.
    pub fn start(mut options: Options) -> Stage {
        let folder = scratch::folder();
        let (base, child, other) =
            (folder.path().join("a.vmdk"), folder.path().join("a-1.vmdk"), folder.path().join("b.vmdk"));
        let here = Vix::started().connect(false).expect("a local connection");
        // From hardware version 7 on, disks have the long content id that hosts give theirs.
        here.must_create(&base, Spec { hw_version: 10, ..Spec::new(Kind::Sparse, SECTORS) });
        let disk = here.must_open(&base, flags::READ_WRITE);
        fill(&disk, 1, &BASE);
        assert_eq!(disk.create_child(&child, Kind::Sparse).0, code::OK, "{}", log_text());
        assert_eq!(disk.close(), code::OK);
        let disk = here.must_open(&child, flags::READ_WRITE);
        fill(&disk, 2, &CHILD);
        assert_eq!(disk.close(), code::OK);
        here.must_create(&other, Spec::new(Kind::Flat, SECTORS));
        USER.clone_into(&mut options.user);
        options.set_password(PASSWORD.to_owned());
        options.machines.push(MachineOptions {
            name: "vm".to_owned(),
            disks: vec![child, other],
            powered_on: false,
        });
        let sim = Sim::start(options).unwrap_or_else(|e| panic!("the simulator: {e}"));
        Stage { sim, folder }
    }

    /// The machine `vm`; the options may have named others before it.
    fn machine(&self) -> ReadyMachine {
        self.sim.ready().vms.pop().expect("the last machine")
    }

    /// The parameters that lead to its machine.
    pub fn server(&self) -> Server {
        Server {
            name: self.sim.address().to_string(),
            thumbprint: Some(self.sim.ready().thumbprint_sha1),
            machine: Some(format!("moref={}", self.machine().moref)),
            login: Some((USER.to_owned(), PASSWORD.to_owned())),
            ..Server::default()
        }
    }

    /// The path of a disk of the machine.
    pub fn disk(&self, number: usize) -> PathBuf {
        PathBuf::from(&self.machine().disks[number].path)
    }

    /// The snapshot, and the path of the disk that it has.
    pub fn snapshot(&self) -> (String, PathBuf) {
        let snapshot = &self.machine().snapshots[0];
        (snapshot.moref.clone(), PathBuf::from(&snapshot.disks[0].path))
    }

    /// Something goes wrong from here on.
    #[track_caller]
    pub fn fault(&self, rule: &str) {
        self.sim.faults().add(Rule::parse(rule).unwrap_or_else(|e| panic!("{rule}: {e}")));
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.sim.faults().clear();
        for at in 0..self.sim.ready().hosts.len() {
            self.sim.knobs_of(at).expect("a host").change(|settings| settings.maintenance = false);
        }
    }

    /// A file of a disk.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A disk over these transports, for the rest of the process.
    pub fn open_over(&self, modes: &str, number: usize, how: u32) -> Disk<'static> {
        connect(&self.server().over(modes)).leaked().must_open(&self.disk(number), how)
    }

    /// Ends the simulator, and has a disk looked at that is opened without it.
    pub fn left_behind(self, name: &str, look: impl FnOnce(&Disk<'_>)) {
        let file = self.file(name);
        let Stage { sim, folder } = self;
        drop(sim);
        let here = Vix::started().connect(true).expect("a local connection");
        look(&here.must_open(&file, flags::READ_ONLY));
        drop(folder);
    }
}

/// Starts the library with settings, everything logged.
pub fn configured(settings: &str) -> &'static Vix {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("vixDiskLib.transport.LogLevel=6\n{settings}")).expect("settings");
    let vix = Vix::started();
    assert_eq!(vix.init_with(8, 0, Some(file.path())), code::OK);
    vix
}

/// Fails when a log has a password, a cookie or a ticket in it.
#[track_caller]
pub fn assert_no_secret(log: &str) {
    assert!(!log.contains("canary"), "{log}");
    assert!(!log.contains("vmware_soap_session"), "{log}");
    // Tickets of the simulator have the form of a UUID, its cookies that of 40 digits.
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    for word in log.split(|c: char| !c.is_ascii_hexdigit() && c != '-') {
        let parts: Vec<&str> = word.split('-').collect();
        let lengths = [8, 4, 4, 4, 12];
        let is_uuid = parts.len() == 5 && parts.iter().zip(lengths).all(|(part, len)| hex(part, len));
        assert!(!is_uuid && !hex(word, 40), "{word} in\n{log}");
    }
}

/// Connects, which sends nothing and so succeeds.
#[track_caller]
pub fn connect(server: &Server) -> Connection<'static> {
    Vix::started().connect_to(server).unwrap_or_else(|e| panic!("ConnectEx = {e}\n{}", log_text()))
}

/// The code with which opening fails.
#[track_caller]
pub fn refused(server: &Server, path: &Path, how: u32) -> u64 {
    match connect(server).open(path, how) {
        Ok(_) => panic!("{} opens\n{}", path.display(), log_text()),
        Err(code) => code,
    }
}

/// All of a disk.
pub fn content(disk: &Disk<'_>) -> Vec<u8> {
    disk.must_read(0, SECTORS)
}

/// What the first disk holds, with or without what its child changed.
pub fn expected(child: bool) -> Vec<u8> {
    let mut all = vec![0; (SECTORS * 512) as usize];
    let parts = BASE.iter().map(|part| (part, 1)).chain(CHILD.iter().filter(|_| child).map(|part| (part, 2)));
    for (&(start, count), version) in parts {
        let at = (start * 512) as usize;
        all[at..at + (count * 512) as usize].copy_from_slice(&stamps(start, count, version));
    }
    all
}

/// Waits for something that other threads bring about.
#[track_caller]
pub fn until(what: &str, happened: impl Fn() -> bool) {
    let begin = Instant::now();
    while !happened() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}: not after a minute\n{}", log_text());
        std::thread::yield_now();
    }
}
