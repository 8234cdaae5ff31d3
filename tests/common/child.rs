//! A test's body in a process of its own.
//!
//! `InitEx`, `Exit`, resource limits, identity and signals belong to a process, so a test that uses them starts its own
//! program again with its own name and runs the body there. A body that panics, crashes, hangs or writes to the wrong
//! stream fails the test in the parent.
//!
//! ```ignore
//! #[test]
//! fn a_behaviour() {
//!     in_child(|| { /* library calls */ });
//! }
//! ```

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use super::tools;

const MARK: &str = "VIX_TEST_CHILD";

/// Runs the closure in a process of its own; fails when it fails, crashes or takes more than two minutes.
#[track_caller]
pub fn in_child<F: FnOnce()>(body: F) {
    in_child_within(Duration::from_secs(120), body);
}

/// The same with another deadline.
#[track_caller]
pub fn in_child_within<F: FnOnce()>(limit: Duration, body: F) {
    let name = test_name::<F>();
    if is_child(&name) {
        body();
        return;
    }
    let outcome = tools::run_within(&mut command(&name), limit);
    assert!(!outcome.late, "{name}: no end after {limit:?}\n{}", outcome.text());
    assert!(
        outcome.status.success(),
        "{name}: the child ended with code {:?}, signal {:?}\n{}",
        outcome.status.code(),
        outcome.status.signal(),
        outcome.text()
    );
}

/// True in the process that was started to run the body of the test with this name.
pub fn is_child(name: &str) -> bool {
    std::env::var(MARK).is_ok_and(|value| value == name)
}

/// This test program, told to run just that test's body.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(MARK, name);
    command
}

/// The path of the test a closure stands in, as the harness names it: its type name without crate and closure.
pub fn test_name<F>() -> String {
    let full = std::any::type_name::<F>();
    let path = full.split_once("::").map_or(full, |(_, rest)| rest);
    path.split("::{{closure}}").next().unwrap_or(path).to_owned()
}

/// A running child whose standard input is a pipe it writes its report to, because the harness prints to the other two.
pub struct Reporting {
    /// The process.
    pub child: std::process::Child,
    /// Where its report arrives.
    pub report: std::io::PipeReader,
}

/// Starts the body of `name` with a report pipe and these extra variables.
pub fn start_reporting(name: &str, variables: &[(&str, &str)]) -> Reporting {
    let (report, writer) = std::io::pipe().expect("a pipe");
    let child = command(name)
        .envs(variables.iter().copied())
        .stdin(writer)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("starting a reporting child");
    Reporting { child, report }
}

/// In a reporting child: where to write the report.
pub fn report() -> File {
    File::from(std::io::stdin().as_fd().try_clone_to_owned().expect("the report pipe"))
}
