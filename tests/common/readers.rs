//! Independent readers of disks: qemu-img, and libvmdk and dissect.hypervisor where they are installed.

use std::path::Path;
use std::process::Command;
use std::sync::Once;

use super::scratch;
use super::tools;

/// What the independent readers that are installed find in a disk must be `expected`.
pub fn readers_agree(path: &Path, folder: &Path, expected: &[u8]) {
    tools::qemu_check(path);
    let raw = tools::qemu_raw(path, folder);
    assert!(std::fs::read(&raw).expect("qemu's raw file") == expected, "qemu-img reads something else");
    std::fs::remove_file(raw).expect("removing it");
    python_agrees("pyvmdk", PYVMDK, path, expected);
    if expected.len().is_multiple_of(8192) {
        python_agrees("dissect.hypervisor", DISSECT, path, expected);
    }
}

const PYVMDK: &str = "
import sys, pyvmdk
handle = pyvmdk.handle(); handle.open(sys.argv[1]); handle.open_extent_data_files()
left = handle.get_media_size()
while left:
    piece = handle.read_buffer(min(left, 1 << 20)); left -= len(piece); sys.stdout.buffer.write(piece)
";

const DISSECT: &str = "
import sys
from pathlib import Path
from dissect.hypervisor.disk.vmdk import VMDK
disk = VMDK(Path(sys.argv[1])); left = disk.size
while left:
    piece = disk.read(min(left, 1 << 20)); left -= len(piece); sys.stdout.buffer.write(piece)
";

/// A Python reader, where one is installed; `VIX_PYTHON` names the interpreter.
fn python_agrees(module: &str, program: &str, path: &Path, expected: &[u8]) {
    let python = std::env::var_os("VIX_PYTHON").unwrap_or_else(|| "python3".into());
    let has = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    if !has.is_ok_and(|run| run.status.success()) {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            scratch::note(&format!("the Python module {module} is not installed (VIX_PYTHON)"));
        });
        return;
    }
    let outcome = tools::check(Command::new(&python).args(["-c", program]).arg(path));
    assert!(outcome.stdout == expected, "{module} reads something else");
}
