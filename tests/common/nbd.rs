//! nbdkit with its vddk plugin around the built library.

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
use super::vix;

/// The plugins the tests run, oldest first.
pub const PLUGINS: [&str; 2] = ["nbdkit-1.42", "nbdkit-1.48"];

/// Where an unpacked plugin lies; fetched by `scripts/fetch-nbdkit-plugins.sh`.
pub fn plugin(version: &str) -> PathBuf {
    scratch::peers().join(version).join("usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-vddk-plugin.so")
}

/// An installation tree as programs expect it: `lib64` with one file and its links.
#[derive(Debug)]
pub struct Installation {
    root: TempDir,
}

impl Installation {
    /// Made of the built library.
    pub fn new() -> Self {
        let root = scratch::folder();
        let lib64 = root.path().join("lib64");
        std::fs::create_dir(&lib64).expect("lib64");
        let file = lib64.join("libvixDiskLib.so.8.0.3");
        let built = vix::library_path();
        if std::fs::hard_link(&built, &file).is_err() {
            std::fs::copy(&built, &file).expect("copying the library");
        }
        for link in ["libvixDiskLib.so", "libvixDiskLib.so.8", "libvixDiskLib.so.7"] {
            std::os::unix::fs::symlink("libvixDiskLib.so.8.0.3", lib64.join(link)).expect("a link");
        }
        Self { root }
    }

    /// What is given as `libdir`.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where the library lies.
    pub fn lib64(&self) -> PathBuf {
        self.root.path().join("lib64")
    }

    /// An nbdkit command up to and including `libdir=`; disk and parameters follow. `options` go before the plugin.
    pub fn nbdkit<S: AsRef<std::ffi::OsStr>>(&self, plugin: &Path, options: &[S]) -> Command {
        let mut command = Command::new("nbdkit");
        command.args(["-f", "-U", "-"]).args(options).arg(plugin);
        command.arg(format!("libdir={}", self.root().display()));
        command
    }
}

/// A running nbdkit on a socket of its own; ended by its id on drop.
#[derive(Debug)]
pub struct Server {
    child: Child,
    socket: PathBuf,
    folder: TempDir,
}

impl Server {
    /// Serves a disk until dropped. Ready when the socket is there.
    pub fn start(install: &Installation, plugin: &Path, options: &[&str], parameters: &[String]) -> Self {
        let folder = scratch::folder();
        let socket = folder.path().join("s");
        let mut command = Command::new("nbdkit");
        command.args(["-f", "-U"]).arg(&socket).args(options).arg(plugin);
        command.arg(format!("libdir={}", install.root().display())).args(parameters);
        let shown = format!("{command:?}");
        let said = std::fs::File::create(folder.path().join("said")).expect("a file for its messages");
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().expect("nbdkit");
        let start = Instant::now();
        while !socket.exists() {
            if let Some(status) = child.try_wait().expect("waiting for nbdkit") {
                panic!("{shown} ended early: {status}");
            }
            if start.elapsed() > Duration::from_secs(30) {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{shown} is not ready after 30 s");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Self { child, socket, folder }
    }

    /// Its address.
    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end and waits. Any status but success is a failure, with one exception that is told apart:
    /// nbdkit ends itself when a reply fails while other requests are in flight (seen with 1.32.5).
    #[track_caller]
    pub fn finish(mut self) -> End {
        // The plugin's Exit runs on this way, so a crash in it shows as the status.
        let id = self.child.id().to_string();
        tools::check(Command::new("kill").args(["-TERM", &id]));
        let (status, late) = tools::wait_within(&mut self.child, Duration::from_secs(30));
        assert!(!late, "nbdkit does not end");
        let said = std::fs::read_to_string(self.folder.path().join("said")).expect("its messages");
        if said.contains("raw_send_socket: Assertion `sock >= 0' failed") {
            return End::BrokenByItself;
        }
        assert!(status.success(), "nbdkit ended with {status}: {said}");
        End::Clean
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In order.
    Clean,
    /// By an assertion of its own about its sockets; nothing of the library ran afterwards.
    BrokenByItself,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The plugins that are there. A missing one is said, and is a failure with `CI=true`.
pub fn plugins() -> Vec<(&'static str, PathBuf)> {
    let mut found = Vec::new();
    for version in PLUGINS {
        let path = plugin(version);
        if path.is_file() {
            found.push((version, path));
        } else {
            scratch::skip(&format!(
                "{version}: {} is missing, fetch it with scripts/fetch-nbdkit-plugins.sh",
                path.display()
            ));
        }
    }
    found
}

/// Chunks of 64 KiB that hold data in nbdinfo's map.
pub fn nbdinfo_chunks(map: &str, size: u64) -> Vec<bool> {
    let mut chunks = vec![false; size.div_ceil(65_536) as usize];
    for object in map.split('{').skip(1) {
        let number = |name: &str| -> u64 {
            let at = object.find(&format!("\"{name}\":")).expect("a field") + name.len() + 3;
            object[at..]
                .trim_start()
                .split([',', '}'])
                .next()
                .expect("a value")
                .trim()
                .parse()
                .expect("a number")
        };
        if number("type") & 2 == 0 {
            let (start, length) = (number("offset"), number("length"));
            chunks[(start / 65_536) as usize..=((start + length - 1) / 65_536) as usize].fill(true);
        }
    }
    chunks
}

/// The same out of qemu's map; `None` when it does not read the image.
pub fn qemu_chunks(path: &Path, size: u64) -> Option<Vec<bool>> {
    let outcome = tools::run(tools::qemu_img(["map", "-f", "vmdk", "--output=json"]).arg(path));
    if !outcome.status.success() {
        return None;
    }
    let mut chunks = vec![false; size.div_ceil(65_536) as usize];
    for object in outcome.out().split('{').skip(1) {
        if !object.contains("\"data\": true") || !object.contains("\"zero\": false") {
            continue;
        }
        let number = |name: &str| -> u64 {
            let at = object.find(&format!("\"{name}\": ")).expect("a field") + name.len() + 4;
            object[at..].split([',', '}']).next().expect("a value").trim().parse().expect("a number")
        };
        let (start, length) = (number("start"), number("length"));
        chunks[(start / 65_536) as usize..=((start + length - 1) / 65_536) as usize].fill(true);
    }
    Some(chunks)
}
