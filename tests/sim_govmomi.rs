//! The simulator as govmomi sees it, which `govc` is made of: a client that others wrote, with parsers that insist on types
//! and on the order of fields.
//!
//! Each test runs behaviours of `tests/peers/govmomi_sim`, which end with a message when something is wrong.
#![allow(clippy::unwrap_used)] // a test may end where it stands

mod common;

use std::path::Path;
use std::process::Command;

use common::scratch;
use common::tools;
use tempfile::TempDir;
use vixDiskLib::sim::Sim;
use vixDiskLib::sim::options::FirstClassOptions;
use vixDiskLib::sim::options::MachineOptions;
use vixDiskLib::sim::options::Options;
use vixDiskLib::sim::personality::Release;

const PASSWORD: &str = "pass<&>\"word";

/// Where the client is.
fn program() -> String {
    scratch::peers().join("govmomi-sim").display().to_string()
}

/// A simulator with the machines `one`, on a chain of two links, and `two`, and a first class disk with a snapshot.
fn start(folder: &TempDir, options: Options) -> Sim {
    let path = |name: &str| folder.path().join(name);
    for name in ["a", "b", "f"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    let create = |arguments: &[&str], file: &Path, size: Option<&str>| {
        let mut command = tools::qemu_img(["create", "-q", "-f", "vmdk"]);
        tools::check(command.args(arguments).arg(file).args(size));
    };
    for chain in ["a", "f"] {
        let (base, child) = (path(&format!("{chain}/base.vmdk")), path(&format!("{chain}/child.vmdk")));
        create(&[], &base, Some("16M"));
        create(&["-b", base.to_str().unwrap(), "-F", "vmdk"], &child, None);
    }
    create(&[], &path("b/disk.vmdk"), Some("8M"));
    let machine = |name: &str, disk: &str| MachineOptions {
        name: name.to_owned(),
        disks: vec![path(disk)],
        powered_on: false,
    };
    let machines = vec![machine("one", "a/child.vmdk"), machine("two", "b/disk.vmdk")];
    let first_class = vec![FirstClassOptions { name: "first".to_owned(), disk: path("f/child.vmdk") }];
    let mut options = Options { machines, first_class, ..options };
    options.set_password(PASSWORD.to_owned());
    let sim = Sim::start(options).unwrap();
    sim.ready().write(&path("ready.json")).unwrap();
    sim
}

/// Runs behaviours on a simulator of its own.
#[track_caller]
fn run(options: Options, behaviours: &[&str]) {
    let folder = scratch::folder();
    let what = format!("{options:?}");
    let user = options.user.clone();
    // The version that it says by itself is younger than these releases.
    let version = matches!(options.release, Release::V65 | Release::V67).then_some("6.5");
    let sim = start(&folder, options);
    let mut command = Command::new(program());
    command
        .env("GOVC_VIM_VERSION", version.unwrap_or_default())
        .arg(folder.path().join("ready.json"))
        .arg(user)
        .args(behaviours);
    let said = tools::check(command.env("VIXSIM_PASSWORD", PASSWORD)).out();
    assert_eq!(said.lines().collect::<Vec<_>>(), behaviours, "{what}");
    drop(sim);
}

/// Behaviours that every release has, as vCenter and as host.
const EVERYWHERE: &[&str] = &["logins", "inventory", "devices", "browses", "downloads", "first-class"];

#[test]
fn every_release_is_a_vcenter_and_a_host_to_it() {
    requires!("qemu-img", &program());
    for release in Release::ALL {
        for esxi in [false, true] {
            run(Options { release, esxi, ..Options::default() }, EVERYWHERE);
        }
    }
}

#[test]
fn several_hosts_are_a_cluster_to_it() {
    requires!("qemu-img", &program());
    run(Options { hosts: 3, ..Options::default() }, &["inventory", "devices"]);
}

#[test]
fn snapshots_power_and_waiting_for_changes_are_as_it_expects() {
    requires!("qemu-img", &program());
    for esxi in [false, true] {
        run(Options { esxi, ..Options::default() }, &["snapshots", "waits", "snapshots"]);
    }
}

#[test]
fn what_the_simulator_does_not_do_is_refused_to_it() {
    requires!("qemu-img", &program());
    run(Options::default(), &["refused"]);
}
