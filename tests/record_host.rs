//! `scripts/record-host.py`, which asks real hosts: its parts, and the whole of it.
#![allow(clippy::unwrap_used)] // a test may end where it stands

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

#[macro_use]
mod common;

use common::scratch;
use common::tools;
use tempfile::TempDir;
use vixDiskLib::logging::Log;
use vixDiskLib::sim::Sim;
use vixDiskLib::sim::disks::open::How;
use vixDiskLib::sim::disks::open::OpenFile;
use vixDiskLib::sim::options::MachineOptions;
use vixDiskLib::sim::options::Options;
use vixDiskLib::sim::personality::Release;

const PASSWORD: &str = "not to be written down";
const MACHINE: &str = "accounting-7";
const TEXT: &[u8] = b"What a guest wrote is nobody's business. ";

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs one function of `tests/peers/record_host_parts.py`.
#[track_caller]
fn part(name: &str) {
    tools::check(Command::new("python3").arg(project().join("tests/peers/record_host_parts.py")).arg(name));
}

fn record_host() -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").arg(project().join("scripts/record-host.py"));
    command
}

#[test]
fn published_fragments_are_unpacked() {
    requires!("python3");
    part("published_fragments");
}

#[test]
fn damaged_fragments_are_refused() {
    requires!("python3");
    part("wrong_fragments");
}

#[test]
fn names_and_addresses_are_taken_out() {
    requires!("python3");
    part("names_are_taken_out");
}

#[test]
fn a_secret_is_never_written() {
    requires!("python3");
    part("a_secret_is_never_written");
}

#[test]
fn thumbprints_are_compared_in_any_spelling() {
    requires!("python3");
    part("thumbprints");
}

#[test]
fn it_says_what_it_would_ask_without_a_server() {
    requires!("python3");
    let listed = tools::check(record_host().arg("--list")).out();
    for name in [
        "versions",
        "ticket-age",
        "outstanding",
        "open-flags",
        "tls2-leaf",
        "compression",
        "error-path",
        "idle",
    ] {
        assert!(listed.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}:\n{listed}");
    }
    for name in ["file-info", "open-unbuffered", "fastlz-level"] {
        let line = listed.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
        assert!(line.contains("? Not asked: "), "{line}");
    }
    assert_eq!(tools::run(&mut record_host()).status.code(), Some(2));
}

/// A simulator with one machine: its disk, of 64 MiB, begins with a MiB of text in every sector. The machine may run; then
/// the disk is that of a snapshot.
struct Host {
    folder: TempDir,
    sim: Sim,
}

impl Host {
    fn new(options: Options, running: bool) -> Host {
        let folder = scratch::folder();
        let base = folder.path().join("ledger.vmdk");
        tools::check(tools::qemu_img(["create", "-q", "-f", "vmdk"]).arg(&base).arg("64M"));
        let mut sector = TEXT.repeat(3);
        sector.resize(512, 0);
        let open = OpenFile::open(&base, How::Write, &Log::none()).unwrap();
        open.disk.write(&sector.repeat(2048), 0).unwrap();
        open.finish().unwrap();
        let child = folder.path().join("ledger-000001.vmdk");
        if running {
            let base = base.to_str().unwrap();
            tools::check(
                tools::qemu_img(["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", base]).arg(&child),
            );
        }
        let disks = vec![if running { child } else { base }];
        let machines = vec![MachineOptions { name: MACHINE.to_owned(), disks, powered_on: running }];
        let mut options = Options { machines, ..options };
        options.set_password(PASSWORD.to_owned());
        std::fs::write(folder.path().join("password"), PASSWORD).unwrap();
        Host { sim: Sim::start(options).unwrap(), folder }
    }

    fn release(release: Release, esxi: bool) -> Host {
        Host::new(Options { release, esxi, ..Options::default() }, false)
    }

    /// The program with everything it needs to come in.
    fn program(&self) -> Command {
        let ready = self.sim.ready();
        let mut command = record_host();
        command.args(["--server", "127.0.0.1", "--user", &Options::default().user, "--timeout", "30"]);
        command.args(["--port", &ready.sdk_port.to_string(), "--nfc-port", &ready.nfc_port.to_string()]);
        command.arg("--password-file").arg(self.folder.path().join("password"));
        command
    }

    fn trusted(&self) -> Command {
        let mut command = self.program();
        command.args(["--thumbprint", &self.sim.ready().thumbprint_sha1]);
        command
    }

    /// Runs these experiments, or all; the file with the answers.
    #[track_caller]
    fn ask(&self, only: &[&str]) -> PathBuf {
        let file = self.folder.path().join("answers.json");
        let mut command = self.trusted();
        command.args(["--vm", MACHINE, "--yes", "--ticket-ages", "0,1", "--output"]).arg(&file);
        for name in only {
            command.args(["--only", name]);
        }
        tools::check(&mut command);
        file
    }
}

/// Compares values of the file: paths as `tests/peers/answers.py` takes them, and JSON.
#[track_caller]
fn answers(file: &Path, expected: &[(&str, &str)]) {
    let mut command = Command::new("python3");
    command.arg("-B").arg(project().join("tests/peers/answers.py")).arg(file);
    let printed = tools::check(command.args(expected.iter().map(|(path, _)| path))).out();
    let found: Vec<(&str, &str)> = expected.iter().map(|(path, _)| *path).zip(printed.lines()).collect();
    assert_eq!(found, expected);
}

/// All experiments with a vCenter 8.0, run once.
fn everything() -> &'static Path {
    static RUN: OnceLock<(Host, PathBuf)> = OnceLock::new();
    let (_, file) = RUN.get_or_init(|| {
        let host = Host::release(Release::V80, false);
        let file = host.ask(&[]);
        (host, file)
    });
    file
}

#[test]
fn every_question_about_the_way_to_a_disk_is_answered() {
    requires!("python3", "qemu-img");
    let ticket = r#"["host", "port", "service", "serviceVersion", "sessionId", "sslThumbprint"]"#;
    answers(
        everything(),
        &[
            ("server/apiType", r#""VirtualCenter""#),
            ("versions/nfc_library", "11"),
            ("versions/nfc_namespace/0/version", r#""7.0.3.2""#),
            ("tickets/NfcGetVmFiles", ticket),
            ("tickets/NfcRandomAccessOpenReadonly", ticket),
            ("authd/nbd/proxy", r#""200 Connect ha-nfc""#),
            ("authd/nbdssl/proxy", r#""200 Connect ha-nfcssl""#),
            ("tls2-leaf/same_as_first_tls", "true"),
            ("tls2-leaf/thumbprint_line_is_that_of", r#"{"first_tls": true, "second_tls": true}"#),
            ("ticket-second-use/first/proxy", r#""200 Connect ha-nfcssl""#),
            ("ticket-second-use/second/stopped", r#""Refused: 530 Login incorrect""#),
            ("ticket-unknown/stopped", r#""Refused: 530 Login incorrect""#),
            ("ticket-age/1/proxy", r#""200 Connect ha-nfcssl""#),
            ("handshake/offer 11", r#"{"answered": 11, "offered": 11, "order": [36, 51]}"#),
            ("handshake/offer 12/answered", "11"),
            ("handshake/without message 43/stopped", r#""Refused: SESSION_COMPLETE in the handshake""#),
            ("records/stopped", r#""Refused: SESSION_COMPLETE in the handshake""#),
        ],
    );
}

#[test]
fn every_question_about_a_disk_is_answered() {
    requires!("python3", "qemu-img");
    let whole = r#"[{"at": 0, "bytes": 65536, "compression": 0, "on_the_wire": 65536}]"#;
    answers(
        everything(),
        &[
            ("open/capacity", "67108864"),
            ("open/length_of_values/adapterType", "3"),
            ("open/length_of_values/noSuchKey", "0"),
            ("open/query/good", "true"),
            ("open/read/fragments", whole),
            ("without-setup/without SET_SOCK_OPTS/good", "true"),
            ("without-setup/without SET_RES_POOL/good", "true"),
            ("without-setup/without both/good", "true"),
            ("open-flags/0x1e/read/good", "true"),
            ("open-flags/0x4/good", "false"),
            ("buffers/64 KiB x 4/sizes", "[65536]"),
            ("buffers/2048 KiB x 4/sizes", "[2097152]"),
            ("outstanding/4 buffers, 32 reads/good", "true"),
            ("outstanding/1 buffers, 32 reads/good", "true"),
            ("several-files/second/good", "false"),
            ("several-files/reads/0/good", "true"),
            ("file-info/asked", "false"),
            ("open-unbuffered/asked", "false"),
            ("fastlz-level/asked", "false"),
            ("error-leaf/asked", "false"),
            ("idle/asked", "false"),
        ],
    );
}

#[test]
fn fragments_are_packed_as_they_were_observed() {
    requires!("python3", "qemu-img");
    let mut expected = Vec::new();
    for length in ["512", "8192", "65536", "197120"] {
        for (kind, name) in ["none", "zlib", "fastlz", "skipz"].iter().enumerate() {
            let path = format!("compression/{name}, {length} bytes");
            expected.push((format!("{path}/equal_to_plain"), "true".to_owned()));
            expected.push((format!("{path}/fragments/0/compression"), kind.to_string()));
        }
        // Level 2 for whole fragments of 64 KiB, level 1 for shorter ones.
        let level = if length.len() < 5 { "1" } else { "2" };
        expected.push((format!("compression/fastlz, {length} bytes/fragments/0/level"), level.to_owned()));
    }
    let expected: Vec<(&str, &str)> = expected.iter().map(|(path, value)| (&**path, &**value)).collect();
    answers(everything(), &expected);
}

#[test]
fn refusals_are_recorded_and_leave_connections_usable() {
    requires!("python3", "qemu-img");
    answers(
        everything(),
        &[
            ("error-path/answer/good", "false"),
            ("error-path/answer/errors/0/payload_bytes", "16"),
            ("error-path/answer/reply", "true"),
            ("error-path/then_the_right_one/good", "true"),
            ("error-query/answer/good", "false"),
            ("error-query/usable", "true"),
            ("error-read/past the end/answer/good", "false"),
            ("error-read/past the end/usable", "true"),
            ("error-read/half a sector/answer/good", "false"),
            ("error-read/half a sector/usable", "true"),
            ("error-buffers/answer/good", "false"),
            ("error-buffers/then_64_kib/good", "true"),
        ],
    );
}

#[test]
fn the_answers_have_no_secrets_names_and_contents() {
    requires!("python3", "qemu-img");
    let text = std::fs::read_to_string(everything()).unwrap();
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let user = Options::default().user;
    for word in [PASSWORD, MACHINE, "ledger", "127.0.0.1", "datastore1", &user, "nobody's business"] {
        assert!(!text.contains(word), "{word}");
        assert!(!text.contains(&hex(word.as_bytes())), "{word} in hex");
    }
    assert!(text.contains(&hex(b"SHA")) || text.contains("SHA256 supported"), "the banner is there");
}

#[test]
fn a_running_machine_is_asked_about_through_its_snapshot() {
    requires!("python3", "qemu-img");
    let host = Host::new(Options { esxi: true, ..Options::default() }, true);
    answers(
        &host.ask(&["tickets", "open", "error-leaf"]),
        &[
            ("names", r#"["error-leaf", "open", "tickets"]"#),
            ("server/through_snapshot", "true"),
            (
                "tickets/NfcGetVmFiles",
                r#"["port", "service", "serviceVersion", "sessionId", "sslThumbprint"]"#,
            ),
            ("open/read/good", "true"),
            ("error-leaf/errors/0/text", r#""Thin/TBZ/Sparse disks cannot be opened in multiwriter mode""#),
        ],
    );
}

#[test]
fn each_release_is_recorded_as_it_is_known() {
    requires!("python3", "qemu-img");
    let refused = r#""Refused: SESSION_COMPLETE in the handshake""#;
    let none = "null";
    for (release, library, offered, without, answered) in [
        (Release::V65, "0", refused, refused, none),
        (Release::V67, "2", refused, refused, "2"),
        (Release::V70, "7", none, none, "7"),
        (Release::V90, none, none, refused, none),
    ] {
        for esxi in [false, true] {
            let host = Host::release(release, esxi);
            answers(
                &host.ask(&["versions", "handshake"]),
                &[
                    ("server/apiType", if esxi { r#""HostAgent""# } else { r#""VirtualCenter""# }),
                    ("versions/nfc_library", if library == none { UNKNOWN_CALL } else { library }),
                    ("handshake/offer 11/stopped", offered),
                    ("handshake/without message 43/stopped", without),
                    ("handshake/without message 43/answered", answered),
                ],
            );
        }
    }
}

const UNKNOWN_CALL: &str = r#"{"stopped": "Refused: NfcGetServerNfcLibVersion: NotSupported: The operation is not supported on the object."}"#;

#[test]
fn a_host_that_fails_is_recorded_too() {
    requires!("python3", "qemu-img");
    let rules =
        ["nfc.read:1=error(5,\"Failed to allocate the requested 65560 bytes\")", "authd.proxy:2=refuse"];
    let faults = rules.map(str::to_owned).to_vec();
    let host = Host::new(Options { faults, ..Options::default() }, false);
    answers(
        &host.ask(&["open", "tls2-leaf", "error-path"]),
        &[
            ("open/read/errors/0/code", "5"),
            ("open/read/errors/0/text", r#""Failed to allocate the requested 65560 bytes""#),
            ("tls2-leaf/ended", r#""Refused: 530 Login incorrect""#),
            ("error-path/then_the_right_one/good", "true"),
        ],
    );
}

#[test]
fn a_server_whose_certificate_is_not_known_is_told_nothing() {
    requires!("python3", "qemu-img");
    let host = Host::release(Release::V80, false);
    let outcome = tools::run(host.program().args(["--vm", MACHINE, "--yes"]));
    let said = outcome.text();
    assert_eq!(outcome.status.code(), Some(1), "{said}");
    assert!(said.contains(&host.sim.ready().thumbprint_sha256), "{said}");
}

#[test]
fn machines_are_listed_where_none_is_named() {
    requires!("python3", "qemu-img");
    let host = Host::release(Release::V80, false);
    let printed = tools::check(&mut host.trusted()).out();
    let moref = &host.sim.ready().vms[0].moref;
    assert_eq!(printed, format!("moref={moref}\tpoweredOff\t{MACHINE}\n"));
}
