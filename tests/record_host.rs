//! `scripts/record-host.py`, which asks real hosts: its parts, and the whole of it.
#![allow(clippy::unwrap_used)] // a test may end where it stands

use std::path::Path;
use std::process::Command;

#[macro_use]
mod common;

use common::tools;

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
    assert_eq!(tools::run(&mut record_host()).status.code(), Some(2));
}
