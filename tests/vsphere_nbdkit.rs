//! nbdkit's vddk plugin, two versions as Debian ships them, on the built library, on `vixsim`: four programs that know
//! nothing of each other's insides, and qemu-img as the judge of what is in the disks.

#[macro_use]
mod common;

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use common::model;
use common::nbd;
use common::nbd::Installation;
use common::pki::Pki;
use common::scratch;
use common::tools;
use common::tools::check;
use common::tools::qemu_img;
use common::vixsim::PASSWORD;
use common::vixsim::USER;
use common::vixsim::Vixsim;
use tempfile::TempDir;
use vixDiskLib::logging::Log;
use vixDiskLib::net::tls::TlsSettings;
use vixDiskLib::net::vim::Login;
use vixDiskLib::net::vim::Server;
use vixDiskLib::net::vim::Session;
use vixDiskLib::net::vim::Times;

/// Sectors of the disks: 8 MiB, and a part of a chunk.
const SECTORS: u64 = 16 * 1024 + 40;

/// Lists of transports, and what each comes to.
const LISTS: [(Option<&str>, &str); 4] =
    [(None, "nbdssl"), (Some("nbd"), "nbd"), (Some("nbdssl"), "nbdssl"), (Some("file:nbdssl:nbd"), "nbdssl")];

/// Packings, and how they show in the name of a connection.
const PACKINGS: [(&str, &str); 4] =
    [("none", " "), ("zlib", " ZLIB-"), ("fastlz", " FASTLZ-"), ("skipz", " SKIPZ-")];

/// A disk with a snapshot, as qemu-img made both.
struct Chain {
    folder: TempDir,
}

impl Chain {
    fn new() -> Self {
        let folder = scratch::folder();
        let raw = model::sample(folder.path(), SECTORS);
        let chain = Self { folder };
        check(qemu_img(["convert", "-f", "raw", "-O", "vmdk"]).arg(raw).arg(chain.base()));
        let options = ["create", "-q", "-f", "vmdk", "-o", "backing_fmt=vmdk,backing_file=base.vmdk"];
        check(qemu_img(options).arg(chain.leaf()).current_dir(chain.folder.path()));
        let writes = ["-c", "write -P 9 1M 512", "-c", "write -P 8 5000k 700k", "-c", "write -z 0 64k"];
        check(Command::new("qemu-io").args(["-f", "vmdk"]).args(writes).arg(chain.leaf()));
        chain
    }

    fn base(&self) -> PathBuf {
        self.folder.path().join("base.vmdk")
    }

    fn leaf(&self) -> PathBuf {
        self.folder.path().join("leaf.vmdk")
    }

    /// As the disk of a machine.
    fn machine(&self) -> String {
        format!("vm={}", self.leaf().display())
    }

    /// What qemu makes of a link: hash and chunks with data.
    fn judged(&self, link: &Path) -> (String, Vec<bool>) {
        let raw = tools::qemu_raw(link, self.folder.path());
        let chunks = nbd::qemu_chunks(link, SECTORS * 512).expect("qemu-img reads what it wrote");
        (model::sha256_of(&raw), chunks)
    }
}

/// How a program says which server, who it is and which machine.
fn named(sim: &Vixsim) -> Vec<String> {
    let mut parameters = anonymous(sim);
    parameters.push(format!("thumbprint={}", sim.text("thumbprint_sha1")));
    parameters
}

/// The same without a word about the certificate.
fn anonymous(sim: &Vixsim) -> Vec<String> {
    vec![
        "server=127.0.0.1".to_owned(),
        format!("port={}", sim.number("sdk_port")),
        format!("user={USER}"),
        format!("password=+{}", sim.password_file().display()),
        format!("vm=moref={}", sim.text("moref")),
    ]
}

/// The paths of the machine's disks and then of its snapshots' disks.
fn disk(sim: &Vixsim, number: usize) -> String {
    format!("file={}", sim.texts("path")[number])
}

/// The path of the first snapshot's disk, and the snapshot.
fn snapshot(sim: &Vixsim) -> Vec<String> {
    vec![disk(sim, 1), format!("snapshot={}", sim.texts("moref")[1])]
}

/// What a copy of a disk over NBD came to.
struct Copy {
    hash: String,
    map: Vec<bool>,
    log: String,
}

/// Copies a disk and asks for its map, with everything logged.
#[track_caller]
fn copy(install: &Installation, plugin: &Path, options: &[&str], parameters: &[String]) -> Copy {
    let out = scratch::folder();
    let (raw, map) = (out.path().join("o.raw"), out.path().join("map"));
    let script = format!(
        "nbdcopy --requests=64 \"$uri\" {} && nbdinfo --map --json \"$uri\" >{}",
        raw.display(),
        map.display()
    );
    let mut nbdkit = install.nbdkit(plugin, &["-r", "-v", "-D", "vddk.datapath=0"]);
    nbdkit.args(options).args(parameters).args(["--run", &script]);
    let log = check(&mut nbdkit).text();
    assert_eq!(std::fs::metadata(&raw).expect("the copy").len(), SECTORS * 512, "{parameters:?}");
    let map = nbd::nbdinfo_chunks(&std::fs::read_to_string(map).expect("the map"), SECTORS * 512);
    Copy { hash: model::sha256_of(&raw), map, log }
}

/// Opens a disk that cannot be opened.
#[track_caller]
fn refused(install: &Installation, plugin: &Path, parameters: &[String]) -> String {
    let mut nbdkit = install.nbdkit(plugin, &["-r", "-v"]);
    nbdkit.args(parameters).args(["--run", "nbdinfo --size \"$uri\""]);
    let outcome = tools::run(&mut nbdkit);
    let said = outcome.text();
    assert!(!outcome.status.success() && !outcome.late, "{parameters:?}: {said}");
    assert!(!said.contains(PASSWORD), "{said}");
    said
}

/// Chunks that are whole: the plugin asks for no others and calls the rest of the disk data (seen in its debug log).
const WHOLE: usize = (SECTORS / 128) as usize;

#[test]
fn leaf_and_snapshot_copy_alike_over_every_transport_with_every_packing() {
    requires!("nbdkit", "nbdcopy", "nbdinfo", "qemu-img", "qemu-io");
    let (install, chain) = (Installation::new(), Chain::new());
    let sim = Vixsim::start(&["--vm", &chain.machine()]);
    let judged = [chain.judged(&chain.leaf()), chain.judged(&chain.base())];
    assert_ne!(judged[0].0, judged[1].0);
    let which = [vec![disk(&sim, 0)], snapshot(&sim)];
    for (version, plugin) in nbd::plugins() {
        for (list, mode) in LISTS {
            for (packing, word) in PACKINGS {
                for (which, (hash, chunks)) in which.iter().zip(&judged) {
                    let mut parameters = named(&sim);
                    parameters.extend(list.map(|list| format!("transports={list}")));
                    parameters.push(format!("compression={packing}"));
                    parameters.extend(which.iter().cloned());
                    let what = format!("{version}, {list:?}, {packing}, {which:?}");
                    let copy = copy(&install, &plugin, &[], &parameters);
                    assert_eq!(copy.hash, *hash, "{what}");
                    let wrong: Vec<usize> = (0..WHOLE).filter(|n| copy.map[*n] != chunks[*n]).collect();
                    assert!(wrong.is_empty(), "{what}: chunks where qemu disagrees: {wrong:?}");
                    let service = if mode == "nbdssl" { "vpxa-nfcssl" } else { "vpxa-nfc" };
                    // Other programs look for the last of these lines, with this prefix, to learn the host.
                    let place = format!(
                        "{service}://{}@127.0.0.1:{}",
                        which[0].replacen("file=", "", 1),
                        sim.number("nfc_port")
                    );
                    for line in [
                        format!("transport mode: {mode}\n"),
                        format!("attempting to create connection to{word}{service}://"),
                        format!("nbdkit: vddk[1]: debug: DISKLIB-LINK  : Opened '{}{place}' (0x", &word[1..]),
                    ] {
                        assert!(copy.log.contains(&line), "{what}: {line:?} is missing: {}", copy.log);
                    }
                    assert!(!copy.log.contains(PASSWORD), "{what}");
                }
            }
        }
    }
    sim.finish();
}

#[test]
fn files_of_a_datastore_copy_over_https_when_that_is_asked_for() {
    requires!("nbdkit", "nbdcopy", "nbdinfo", "qemu-img", "qemu-io");
    let (install, chain) = (Installation::new(), Chain::new());
    let sim = Vixsim::start(&["--vm", &chain.machine()]);
    let judged = [chain.judged(&chain.leaf()), chain.judged(&chain.base())];
    let which = [vec![disk(&sim, 0)], snapshot(&sim)];
    for (version, plugin) in nbd::plugins() {
        for (which, (hash, _)) in which.iter().zip(&judged) {
            let mut parameters = named(&sim);
            parameters.push("transports=https".to_owned());
            parameters.extend(which.iter().cloned());
            let copy = copy(&install, &plugin, &[], &parameters);
            assert_eq!(copy.hash, *hash, "{version}, {which:?}");
            assert!(copy.log.contains("transport mode: https\n"), "{version}: {}", copy.log);
        }
    }
    sim.finish();
}

#[test]
fn a_bare_host_serves_its_disks_without_a_vcenter() {
    requires!("nbdkit", "nbdcopy", "nbdinfo", "qemu-img", "qemu-io");
    let (install, chain) = (Installation::new(), Chain::new());
    let sim = Vixsim::start(&["--esxi", "--vm", &chain.machine()]);
    let (hash, _) = chain.judged(&chain.leaf());
    for (version, plugin) in nbd::plugins() {
        for transports in ["transports=nbd", "transports=nbdssl"] {
            let mut parameters = named(&sim);
            parameters.extend([transports.to_owned(), "compression=fastlz".to_owned(), disk(&sim, 0)]);
            let copy = copy(&install, &plugin, &[], &parameters);
            assert_eq!(copy.hash, hash, "{version}, {transports}");
            assert!(copy.log.contains(" FASTLZ-nfc"), "{version}: the host's own service: {}", copy.log);
        }
    }
    sim.finish();
}

#[test]
fn only_the_snapshot_of_a_running_machine_can_be_copied() {
    requires!("nbdkit", "nbdcopy", "nbdinfo", "qemu-img", "qemu-io");
    let (install, chain) = (Installation::new(), Chain::new());
    let sim = Vixsim::start(&["--vm", &chain.machine(), "--powered-on", "vm"]);
    let (hash, _) = chain.judged(&chain.base());
    for (version, plugin) in nbd::plugins() {
        let parameters = [named(&sim), snapshot(&sim)].concat();
        assert_eq!(copy(&install, &plugin, &[], &parameters).hash, hash, "{version}");
        let said = refused(&install, &plugin, &[named(&sim), vec![disk(&sim, 0)]].concat());
        assert!(said.contains("Thin/TBZ/Sparse disks cannot be opened in multiwriter mode"), "{said}");
    }
    sim.finish();
}

#[test]
fn four_connections_at_once_copy_what_one_does() {
    requires!("nbdkit", "nbdcopy", "qemu-img", "qemu-io");
    let (install, chain) = (Installation::new(), Chain::new());
    let sim = Vixsim::start(&["--vm", &chain.machine()]);
    let (hash, _) = chain.judged(&chain.leaf());
    for (version, plugin) in nbd::plugins() {
        let raw = chain.folder.path().join("four.raw");
        let script = format!("nbdcopy --connections=4 --threads=4 \"$uri\" {}", raw.display());
        let mut nbdkit = install.nbdkit(&plugin, &["-r", "--filter=multi-conn"]);
        nbdkit.args([named(&sim), vec![disk(&sim, 0)]].concat());
        check(nbdkit.args(["multi-conn-mode=unsafe", "--run", &script]));
        assert_eq!(model::sha256_of(&raw), hash, "{version}");
    }
    sim.finish();
}

#[test]
fn a_copy_survives_a_host_that_cuts_and_refuses() {
    requires!("nbdkit", "nbdcopy", "nbdinfo", "qemu-img", "qemu-io");
    let (install, chain) = (Installation::new(), Chain::new());
    let faults =
        ["nfc.read:/7=cut", "nfc.read:/5=error(5,\"Failed to allocate the requested 1048600 bytes\")"];
    let sim = Vixsim::start(&["--vm", &chain.machine(), "--fault", faults[0], "--fault", faults[1]]);
    let (hash, _) = chain.judged(&chain.leaf());
    for (version, plugin) in nbd::plugins() {
        let copy = copy(&install, &plugin, &[], &[named(&sim), vec![disk(&sim, 0)]].concat());
        assert_eq!(copy.hash, hash, "{version}");
        assert!(copy.log.contains("received NFC error 5 from server"), "{version}: {}", copy.log);
    }
    assert!(sim.said().contains("cut on purpose"), "{}", sim.said());
    sim.finish();
}

/// The cookie of a session of our own.
fn log_in(sim: &Vixsim) -> (Session, String) {
    let port = u16::try_from(sim.number("sdk_port")).expect("a port");
    let tls = TlsSettings { thumbprint: Some(sim.text("thumbprint_sha256")), ..TlsSettings::default() };
    let place = Server { host: "127.0.0.1".to_owned(), port, tls };
    let login = Login::User { name: USER.to_owned(), password: PASSWORD.to_owned().into() };
    let session = Session::open(place, login, Times::default(), Log::none()).expect("a session");
    let cookie = session.cookie().expose_text().expect("text").to_owned();
    (session, cookie)
}

/// A log without the lines in which nbdkit repeats its own parameters.
fn by_the_library(log: &str) -> String {
    let parameter = |line: &&str| line.contains("vddk: config key=");
    log.lines().filter(|line| !parameter(line)).fold(String::new(), |all, line| all + line + "\n")
}

#[test]
fn a_cookie_lets_in_whatever_the_password_and_its_session_stays() {
    requires!("nbdkit", "nbdcopy", "nbdinfo", "qemu-img", "qemu-io");
    let (install, chain) = (Installation::new(), Chain::new());
    let sim = Vixsim::start(&["--vm", &chain.machine()]);
    let hashes = [chain.judged(&chain.leaf()).0, chain.judged(&chain.base()).0];
    let which = [vec![disk(&sim, 0)], snapshot(&sim)];
    let (session, cookie) = log_in(&sim);
    for (version, plugin) in nbd::plugins() {
        let mut parameters = named(&sim);
        parameters.retain(|parameter| !parameter.starts_with("password="));
        parameters.push("password=not this".to_owned());
        let said = refused(&install, &plugin, &[&parameters[..], &which[0]].concat());
        assert!(said.contains("InvalidLogin"), "{version}: {said}");
        parameters.push(format!("cookie={cookie}"));
        for transports in ["transports=nbd", "transports=nbdssl"] {
            for (which, hash) in which.iter().zip(&hashes) {
                let parameters = [&parameters[..], &[transports.to_owned()], which].concat();
                let copy = copy(&install, &plugin, &[], &parameters);
                assert_eq!(copy.hash, *hash, "{version}, {transports}, {which:?}");
                let what = format!("{version}, {transports}, {which:?}");
                assert!(!by_the_library(&copy.log).contains(&cookie), "{what}: {}", copy.log);
                session.keep_alive().expect("the session is its owner's");
            }
        }
    }
    sim.finish();
}

#[test]
fn a_cookie_is_shown_to_no_server_with_a_wrong_thumbprint() {
    requires!("nbdkit", "nbdinfo", "qemu-img", "qemu-io");
    let (install, chain) = (Installation::new(), Chain::new());
    let sim = Vixsim::start(&["--vm", &chain.machine(), "--log-level", "debug"]);
    let (session, cookie) = log_in(&sim);
    let calls = || sim.said().lines().filter(|line| line.contains("vixsim: 127.0.0.1 ")).count();
    let before = calls();
    for (version, plugin) in nbd::plugins() {
        for transports in ["nbd", "nbdssl", "https"] {
            let mut parameters = anonymous(&sim);
            let wrong = wrong_thumbprint(&sim);
            parameters.extend([format!("thumbprint={wrong}"), format!("cookie={cookie}"), disk(&sim, 0)]);
            parameters.push(format!("transports={transports}"));
            let said = refused(&install, &plugin, &parameters);
            assert!(said.contains(&format!("expected={wrong}")), "{version}, {transports}: {said}");
            assert!(!by_the_library(&said).contains(&cookie), "{version}, {transports}: {said}");
        }
    }
    assert_eq!(calls(), before, "nobody asks a server that is not trusted: {}", sim.said());
    session.keep_alive().expect("a session that nobody touched");
    assert!(calls() > before, "calls are seen");
    sim.finish();
}

/// That of no certificate.
fn wrong_thumbprint(sim: &Vixsim) -> String {
    let actual = sim.text("thumbprint_sha1");
    actual.replacen(&actual[..2], if actual.starts_with("00") { "01" } else { "00" }, 1)
}

#[test]
fn a_wrong_thumbprint_shows_the_right_one_and_the_programs_advice() {
    requires!("nbdkit", "nbdinfo", "qemu-img", "qemu-io");
    let (install, chain) = (Installation::new(), Chain::new());
    let sim = Vixsim::start(&["--vm", &chain.machine()]);
    let (actual, wrong) = (sim.text("thumbprint_sha1"), wrong_thumbprint(&sim));
    for (version, plugin) in nbd::plugins() {
        for transports in [None, Some("nbd"), Some("nbdssl"), Some("https")] {
            let mut parameters = anonymous(&sim);
            parameters.extend([format!("thumbprint={wrong}"), disk(&sim, 0)]);
            parameters.extend(transports.map(|list| format!("transports={list}")));
            let said = refused(&install, &plugin, &parameters);
            for line in [
                format!(
                    "VixDiskLibVim: Failed to verify SSL certificate: actual thumbprint={actual} expected={wrong}"
                ),
                "VDDK \"Unknown error\" can be caused by several problems.".to_owned(),
            ] {
                assert!(said.contains(&line), "{version}, {transports:?}: {line} is missing: {said}");
            }
        }
    }
    assert!(!sim.said().contains("Login"), "nobody logs in at a server that is not trusted: {}", sim.said());
    sim.finish();
}

#[test]
fn without_a_thumbprint_an_authority_has_to_vouch_for_the_server() {
    requires!("nbdkit", "nbdcopy", "nbdinfo", "qemu-img", "qemu-io", "certtool");
    let (install, chain, pki) = (Installation::new(), Chain::new(), Pki::new());
    let file = |name: &str| pki.server().join(name).display().to_string();
    let (certificate, key) = (file("server-cert.pem"), file("server-key.pem"));
    let machine = chain.machine();
    let sim = Vixsim::start(&["--vm", &machine, "--cert", &certificate, "--key", &key]);
    let (hash, _) = chain.judged(&chain.leaf());
    let trusting = |authority: &Path| {
        let config = chain.folder.path().join("config");
        let line = format!("vixDiskLib.tls.caFile={}\n", authority.display());
        std::fs::write(&config, line).expect("a configuration");
        format!("config={}", config.display())
    };
    for (version, plugin) in nbd::plugins() {
        for transports in ["nbd", "nbdssl", "https"] {
            let what = format!("{version}, {transports}");
            let mut parameters = anonymous(&sim);
            parameters.extend([disk(&sim, 0), format!("transports={transports}")]);
            let said = refused(&install, &plugin, &parameters);
            assert!(said.contains("certificate"), "{what}: nobody vouches for it: {said}");
            parameters.push(trusting(&pki.ca()));
            let copy = copy(&install, &plugin, &[], &parameters);
            assert_eq!(copy.hash, hash, "{what}");
            assert!(copy.log.contains(&format!("transport mode: {transports}\n")), "{what}: {}", copy.log);
            parameters.pop();
            parameters.push(trusting(&pki.stranger().join("ca-cert.pem")));
            let said = refused(&install, &plugin, &parameters);
            assert!(said.contains("certificate"), "{what}: a stranger vouches for others: {said}");
        }
    }
    sim.finish();
}

#[test]
fn what_is_written_is_read_back_and_in_the_file() {
    requires!("nbdkit", "nbdcopy", "qemu-img");
    let (install, folder) = (Installation::new(), scratch::folder());
    let raw = model::sample(folder.path(), SECTORS);
    let hash = model::sha256_of(&raw);
    let ways = [("nbd", "none"), ("nbdssl", "none"), ("nbd", "zlib"), ("nbdssl", "fastlz"), ("nbd", "skipz")];
    let plugins = nbd::plugins();
    let files: Vec<PathBuf> =
        (0..plugins.len() * ways.len()).map(|n| folder.path().join(format!("{n}.vmdk"))).collect();
    for (n, file) in files.iter().enumerate() {
        let kind = ["subformat=monolithicSparse", "subformat=monolithicFlat"][n % 2];
        check(
            qemu_img(["create", "-q", "-f", "vmdk", "-o", kind]).arg(file).arg((SECTORS * 512).to_string()),
        );
    }
    let disks: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let sim = Vixsim::start(&["--vm", &format!("w={}", disks.join(","))]);
    let mut number = 0;
    for (version, plugin) in &plugins {
        for (transport, packing) in ways {
            let out = folder.path().join("o.raw");
            let script =
                format!("nbdcopy --flush {} \"$uri\" && nbdcopy \"$uri\" {}", raw.display(), out.display());
            let mut nbdkit = install.nbdkit(plugin, &[] as &[&str]);
            nbdkit.args(named(&sim)).arg(disk(&sim, number)).arg(format!("transports={transport}"));
            check(nbdkit.args([&format!("compression={packing}"), "--run", &script]));
            assert_eq!(model::sha256_of(&out), hash, "{version}, {transport}, {packing}: read back");
            std::fs::remove_file(&out).expect("removing the copy");
            number += 1;
        }
    }
    sim.finish();
    for file in &files {
        check(qemu_img(["compare", "-f", "vmdk", "-F", "raw"]).arg(file).arg(&raw));
        if std::fs::metadata(file).expect("the disk").len() > 1 << 20 {
            tools::qemu_check(file); // a flat disk's descriptor is small, and has nothing to check
        }
    }
}
