//! Running programs: output captured, a deadline, ended by id.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// True when it was ended because it took too long.
    pub late: bool,
    /// The command as it was given, for messages.
    pub command: String,
}

impl Outcome {
    /// Both streams as text.
    pub fn text(&self) -> String {
        format!("{}{}", String::from_utf8_lossy(&self.stdout), String::from_utf8_lossy(&self.stderr))
    }

    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Panics with everything it said unless it succeeded in time.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(!self.late, "took too long: {}\n{}", self.command, self.text());
        assert!(
            self.status.success(),
            "{}\nended with {:?} (signal {:?})\n{}",
            self.command,
            self.status.code(),
            self.status.signal(),
            self.text()
        );
        self
    }
}

/// Runs to the end or to the deadline.
pub fn run_within(command: &mut Command, limit: Duration) -> Outcome {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {shown}: {e}"));
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let (status, late) = wait_within(&mut child, limit);
    Outcome {
        status,
        stdout: stdout.join().expect("reader of standard output"),
        stderr: stderr.join().expect("reader of standard error"),
        late,
        command: shown,
    }
}

/// Runs with a deadline that is generous for a slow machine.
pub fn run(command: &mut Command) -> Outcome {
    run_within(command, Duration::from_secs(120))
}

/// Runs and expects success.
#[track_caller]
pub fn check(command: &mut Command) -> Outcome {
    run(command).ok()
}

/// Waits for the end; past the limit ends the process (by its id) and says so.
pub fn wait_within(child: &mut Child, limit: Duration) -> (ExitStatus, bool) {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait().expect("waiting for a child") {
            return (status, false);
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            return (child.wait().expect("waiting for an ended child"), true);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn drain<R: Read + Send + 'static>(stream: Option<R>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut all);
        }
        all
    })
}

/// `qemu-img` with these arguments.
pub fn qemu_img<I, S>(arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let mut command = Command::new("qemu-img");
    command.args(arguments);
    command
}

/// What `qemu-img convert` makes of a VMDK: the raw content.
pub fn qemu_raw(vmdk: &Path, folder: &Path) -> PathBuf {
    let raw = folder.join(format!("{}.qemu.raw", vmdk.file_name().expect("a file name").to_string_lossy()));
    check(qemu_img(["convert", "-f", "vmdk", "-O", "raw"]).arg(vmdk).arg(&raw));
    raw
}

/// `qemu-img check` finds nothing wrong, not even leaks.
#[track_caller]
pub fn qemu_check(vmdk: &Path) {
    check(qemu_img(["check", "-f", "vmdk"]).arg(vmdk));
}
