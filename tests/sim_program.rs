//! The simulator as a program: how it starts, what it says, how it ends.
#![allow(clippy::unwrap_used)] // a test may end where it stands

mod common;

use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use common::scratch;
use common::tools;

const LIMIT: Duration = Duration::from_secs(60);

fn vixsim() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vixsim"));
    command.env_remove("VIXSIM_PASSWORD").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts it and waits for its ready file.
fn start(command: &mut Command, ready: &Path) -> (Child, String) {
    let mut child = command.arg("--ready-file").arg(ready).spawn().unwrap();
    let begun = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(ready) {
            return (child, text);
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was ready");
        assert!(begun.elapsed() < LIMIT, "no ready file");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn port(ready: &str, name: &str) -> u16 {
    let start = ready.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
    ready[start..].split([',', '}']).next().unwrap().parse().unwrap()
}

#[test]
fn it_accepts_when_it_says_so_and_ends_when_it_is_told() {
    for signal in ["TERM", "INT"] {
        let folder = scratch::folder();
        let (mut child, ready) = start(&mut vixsim(), &folder.path().join("ready"));
        assert!(
            ready.starts_with("{\"url\":\"https://127.0.0.1:")
                && ready.contains("\"vms\":[],\"hosts\":[{\"name\":\"127.0.0.1\",\"moref\":\"host-9\","),
            "{ready}"
        );
        for name in ["sdk_port", "nfc_port"] {
            std::net::TcpStream::connect(("127.0.0.1", port(&ready, name))).unwrap();
        }
        assert_eq!(scratch::names(folder.path()), ["ready"]);
        tools::check(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]));
        let (status, late) = tools::wait_within(&mut child, LIMIT);
        assert!(status.success() && !late, "{signal}: {status}");
    }
}

#[test]
fn every_host_has_a_name_and_a_port_that_accepts() {
    let folder = scratch::folder();
    let mut command = vixsim();
    command.stdin(Stdio::piped()).args(["--until-stdin-closes", "--hosts", "3"]);
    let (mut child, ready) = start(&mut command, &folder.path().join("ready"));
    let hosts = ready.split("\"hosts\":").nth(1).unwrap();
    let mut ports: Vec<u16> = hosts
        .split("\"nfc_port\":")
        .skip(1)
        .map(|rest| rest.split('}').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!((ports.len(), ports[0]), (3, port(&ready, "nfc_port")));
    for at in [1, 2] {
        assert!(hosts.contains(&format!("\"name\":\"127.0.0.1:{}\"", ports[at])), "{hosts}");
    }
    for port in &ports {
        std::net::TcpStream::connect(("127.0.0.1", *port)).unwrap();
    }
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 3);
    drop(child.stdin.take());
    let (status, late) = tools::wait_within(&mut child, LIMIT);
    assert!(status.success() && !late, "{status}");
}

#[test]
fn the_end_of_its_input_can_be_its_end() {
    let folder = scratch::folder();
    let mut command = vixsim();
    command.stdin(Stdio::piped()).arg("--until-stdin-closes");
    let (mut child, _) = start(&mut command, &folder.path().join("ready"));
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    let (status, late) = tools::wait_within(&mut child, LIMIT);
    assert!(status.success() && !late, "{status}");
}

#[test]
fn what_it_cannot_do_it_says() {
    let folder = scratch::folder();
    let missing = folder.path().join("missing.vmdk");
    let odd: &[(&[&str], i32, &str)] = &[
        (&["--nonsense"], 2, "no option --nonsense"),
        (&["stray"], 2, "unexpected argument"),
        (&["--listen", "here"], 2, "no address with a port"),
        (&["--personality", "5.5"], 2, "no personality"),
        (&["--vm", "x"], 2, "NAME=DISK"),
        (&["--powered-on", "x"], 2, "no --vm has this name"),
        (&["--cert", "x"], 2, "belong together"),
        (&["--hosts", "x"], 2, "no number"),
        (&["--hosts", "0"], 1, "0 hosts"),
        (&["--hosts", "65"], 1, "65 hosts"),
        (&["--hosts", "2", "--esxi"], 1, "a bare host is one host"),
        (&["--fault", "nfc.read=move(2)"], 1, "names host 2 of 1"),
        (&["--fault", "nfc.read"], 1, "the rule"),
        (&["--datastore", "d=/nonexistent/x"], 1, "No such file"),
        (&["--vm", &format!("m={}", missing.display())], 1, "missing.vmdk"),
    ];
    for (arguments, code, text) in odd {
        let outcome = tools::run_within(vixsim().args(*arguments), LIMIT);
        assert_eq!(outcome.status.code(), Some(*code), "{arguments:?}: {}", outcome.text());
        assert!(outcome.text().contains(text), "{arguments:?}: {}", outcome.text());
    }
}

#[test]
fn its_help_names_every_option() {
    let help = tools::check(vixsim().arg("--help")).out();
    let source = include_str!("../src/bin/vixsim/arguments.rs");
    let options: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix('"')?.split_once("\" =>"))
        .map(|(name, _)| name)
        .filter(|name| !matches!(*name, "real" | "once" | "twice" | "error" | "warning" | "info" | "debug"))
        .collect();
    assert!(options.len() > 20, "{options:?}");
    for option in options {
        assert!(help.contains(&format!("--{option}")), "--{option} is not in the help");
    }
    assert!(tools::check(vixsim().arg("--version")).out().starts_with("vixsim "));
}

/// The addresses on which somebody listens at a port, as the system writes them.
fn listeners(port: u16) -> Vec<String> {
    let end = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| {
            std::fs::read_to_string(table).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state) = (fields.get(1)?, fields.get(3)?);
            (*state == "0A" && local.ends_with(&end)).then(|| (*local).to_owned())
        })
        .collect()
}

#[test]
fn it_listens_on_loopback_unless_told_otherwise() {
    let folder = scratch::folder();
    let (mut child, ready) = start(vixsim().args(["--hosts", "2"]), &folder.path().join("ready"));
    let hosts = ready.split("\"nfc_port\":").skip(1);
    let mut ports: Vec<u16> =
        hosts.map(|rest| rest.split([',', '}']).next().unwrap().parse().unwrap()).collect();
    ports.push(port(&ready, "sdk_port"));
    assert_eq!(ports.len(), 4, "{ready}");
    for port in ports {
        assert_eq!(listeners(port), [format!("0100007F:{port:04X}")], "127.0.0.1 and nothing else");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let (mut child, ready) = start(vixsim().args(["--listen", "0.0.0.0:0"]), &folder.path().join("other"));
    let (sdk, nfc) = (port(&ready, "sdk_port"), port(&ready, "nfc_port"));
    assert_eq!(listeners(sdk), [format!("00000000:{sdk:04X}")], "the test sees the difference");
    assert_eq!(listeners(nfc), [format!("0100007F:{nfc:04X}")]);
    child.kill().unwrap();
    child.wait().unwrap();
}
