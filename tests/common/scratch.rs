//! Folders that disappear at the end of a test, and peers that a machine may lack.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use tempfile::TempDir;

/// A fresh folder that everybody may enter (tests drop privileges inside it); removed on drop.
pub fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("vixtest-").tempdir().expect("a temporary folder");
    open_to_all(folder.path());
    folder
}

/// A fresh folder in memory where there is room for it: for tests whose disks are large and whose flushes are many.
pub fn folder_in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if super::process::free_space(memory) < 1 << 30 {
        return folder();
    }
    tempfile::Builder::new().prefix("vixtest-").tempdir_in(memory).unwrap_or_else(|_| folder())
}

/// Lets everybody enter and list the folder.
pub fn open_to_all(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
        .expect("chmod of a scratch folder");
}

/// Where the program is, or why the test cannot run.
pub fn program(name: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        return if path.exists() { Ok(path) } else { Err(format!("{name} does not exist")) };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| format!("the program {name} is not installed"))
}

/// Where `scripts/setup.sh` puts programs that are not installed: `VIX_PEERS`, or `peers` next to what cargo builds.
pub fn peers() -> PathBuf {
    if let Some(peers) = std::env::var_os("VIX_PEERS") {
        return PathBuf::from(peers);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("peers")
}

/// Names of everything in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    all
}

/// Every file of a folder and what it holds.
pub fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    names(folder)
        .into_iter()
        .filter(|name| folder.join(name).is_file())
        .map(|name| {
            let bytes = std::fs::read(folder.join(&name)).expect("a file");
            (name, bytes)
        })
        .collect()
}

/// True where a missing peer is a failure.
pub fn strict() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// Says why a test or a part of it does not run here; fails with `CI=true`.
///
/// Written past the capture of the test harness, so that a green run still shows what it left out.
pub fn skip(reason: &str) {
    assert!(!strict(), "not skipped because CI is set: {reason}");
    let name = std::thread::current().name().unwrap_or("main").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {reason}");
}

/// Says that a part of a test does not run because the machine does not allow it. Never a failure.
pub fn note(reason: &str) {
    let _ = writeln!(std::io::stderr(), "not possible here: {reason}");
}
