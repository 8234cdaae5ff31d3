//! The simulator as a process of its own, as its users run it.

use std::ffi::OsStr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use super::scratch;
use super::tools;

/// Who may log in.
pub const USER: &str = "root";
/// How.
pub const PASSWORD: &str = "password-canary-4712";

/// How long it may take to be ready, and to end.
const LIMIT: Duration = Duration::from_secs(60);

/// A running `vixsim`. It ends with the value, and also with this process, whose end closes its standard input.
#[derive(Debug)]
pub struct Vixsim {
    child: Child,
    folder: TempDir,
    ready: String,
}

impl Vixsim {
    /// Starts it with these options and waits until both of its ports accept.
    pub fn start<S: AsRef<OsStr>>(options: &[S]) -> Self {
        let folder = scratch::folder();
        let ready = folder.path().join("ready");
        let said = std::fs::File::create(folder.path().join("said")).expect("a file for its messages");
        let mut command = Command::new(env!("CARGO_BIN_EXE_vixsim"));
        command.args(["--until-stdin-closes", "--user", USER, "--log", "-", "--ready-file"]).arg(&ready);
        command.args(options).env("VIXSIM_PASSWORD", PASSWORD);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(said);
        let mut child = command.spawn().expect("starting vixsim");
        let begun = Instant::now();
        let ready = loop {
            if let Ok(text) = std::fs::read_to_string(&ready) {
                break text;
            }
            let ended = child.try_wait().expect("waiting for vixsim");
            if ended.is_some() || begun.elapsed() > LIMIT {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{command:?} is not ready ({ended:?}): {}", said_in(folder.path()));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Self { child, folder, ready }
    }

    /// The number of this name in what it said when it was ready.
    pub fn number(&self, name: &str) -> u64 {
        let rest = self.ready.split(&format!("\"{name}\":")).nth(1).unwrap_or_default();
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().unwrap_or_else(|e| panic!("{name}: {e} in {}", self.ready))
    }

    /// Every text of this name, in the order in which they stand.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let begin = format!("\"{name}\":\"");
        let parts = self.ready.split(&begin).skip(1);
        parts.map(|rest| rest.split('"').next().unwrap_or_default().to_owned()).collect()
    }

    /// The first text of this name.
    pub fn text(&self, name: &str) -> String {
        let found = self.texts(name).into_iter().next();
        found.unwrap_or_else(|| panic!("no {name} in {}", self.ready))
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        said_in(self.folder.path())
    }

    /// A file with the password, as programs take it.
    pub fn password_file(&self) -> PathBuf {
        let file = self.folder.path().join("password");
        std::fs::write(&file, PASSWORD).expect("a file with the password");
        file
    }

    /// Ends it, which writes to the disks what is still to be written.
    #[track_caller]
    pub fn finish(mut self) {
        drop(self.child.stdin.take());
        let (status, late) = tools::wait_within(&mut self.child, LIMIT);
        assert!(status.success() && !late, "vixsim ended with {status}: {}", self.said());
    }
}

fn said_in(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("said")).unwrap_or_default()
}

impl Drop for Vixsim {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = tools::wait_within(&mut self.child, Duration::from_secs(10));
    }
}
