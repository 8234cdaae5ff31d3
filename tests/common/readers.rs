//! Independent readers of disks: qemu-img, libvmdk and dissect.hypervisor.
//!
//! All three read every kind of disk that this library writes, children with their parents included, of any number of sectors
//! and under any name. What had to be seen to that:
//!
//! * dissect.hypervisor (3.21) reads through a stream in units of 8 KiB, which runs past the end of a disk that is no multiple
//!   of that, so it is asked for sectors instead;
//! * libvmdk (20260714) does not look for a parent by itself, so it is opened and handed over;
//! * nobody takes a streamOptimized disk that is still being written for a whole one, which is meant.
//!
//! The Python readers come with `scripts/fetch-readers.sh`; without them a test says so, and with `CI=true` it fails.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::Once;

use super::scratch;
use super::tools;

/// A program that reads disks and shares no code with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// `qemu-img convert`.
    Qemu,
    /// libvmdk by its Python module.
    Libvmdk,
    /// dissect.hypervisor.
    Dissect,
}

/// All of them.
pub const READERS: [Reader; 3] = [Reader::Qemu, Reader::Libvmdk, Reader::Dissect];

impl Reader {
    /// Whether the disk has the content of the raw file. A reader that is not installed has no objection; that is said, and
    /// fails with `CI=true`.
    pub fn compare(self, path: &Path, raw: &Path) -> Result<(), String> {
        let Some(name) = self.name() else {
            let compared =
                tools::run(tools::qemu_img(["compare", "-f", "vmdk", "-F", "raw"]).arg(path).arg(raw));
            return if compared.status.success() { Ok(()) } else { Err(compared.text()) };
        };
        match ask_python(name, path, raw).as_str() {
            "same" => Ok(()),
            missing if missing.starts_with("missing: ") => {
                static SAID: Once = Once::new();
                SAID.call_once(|| {
                    scratch::skip(&format!("{name} is not installed (scripts/fetch-readers.sh), {missing}"));
                });
                Ok(())
            }
            other => Err(other.to_owned()),
        }
    }

    /// Whether it is installed.
    pub fn is_here(self) -> bool {
        let nothing = Path::new("/dev/null");
        self.name().is_none_or(|name| !ask_python(name, nothing, nothing).starts_with("missing: "))
    }

    /// What `readers.py` calls it.
    fn name(self) -> Option<&'static str> {
        match self {
            Reader::Qemu => None,
            Reader::Libvmdk => Some("libvmdk"),
            Reader::Dissect => Some("dissect.hypervisor"),
        }
    }
}

/// What the independent readers find in a disk must be `expected`; qemu also checks, maps and describes it.
#[track_caller]
pub fn readers_agree(path: &Path, folder: &Path, expected: &[u8]) {
    tools::qemu_check(path);
    qemu_describes(path, expected);
    let raw = folder.join(format!("{}.raw", path.file_name().expect("a name").to_string_lossy()));
    std::fs::write(&raw, expected).expect("a file with the expected content");
    for reader in READERS {
        if let Err(difference) = reader.compare(path, &raw) {
            panic!("{reader:?} on {}: {difference}", path.display());
        }
    }
    std::fs::remove_file(raw).expect("removing it");
}

/// `qemu-img info` tells the size, `qemu-img map` shows everything that is not zero as data.
#[track_caller]
fn qemu_describes(path: &Path, expected: &[u8]) {
    let info = tools::check(tools::qemu_img(["info", "-f", "vmdk", "--output=json"]).arg(path)).out();
    let size = format!("\"virtual-size\": {},", expected.len());
    assert!(info.contains(&size), "{}: not {size} in {info}", path.display());
    let map = tools::check(tools::qemu_img(["map", "-f", "vmdk", "--output=json"]).arg(path)).out();
    let mut end = 0;
    for (start, length, data) in map.split('{').skip(1).map(map_entry) {
        assert_eq!(start, end, "{}: a gap in {map}", path.display());
        end = (start + length).min(expected.len());
        let zero = expected[start.min(end)..end].iter().all(|byte| *byte == 0);
        assert!(data || zero, "{}: no data at {start} for qemu-img map: {map}", path.display());
    }
    assert_eq!(end, expected.len(), "{}: {map}", path.display());
}

/// Start, length and whether there is something to read, of one object of qemu's map.
fn map_entry(object: &str) -> (usize, usize, bool) {
    let number = |name: &str| -> usize {
        let at = object.find(&format!("\"{name}\": ")).expect("a field") + name.len() + 4;
        object[at..].split([',', '}']).next().expect("a value").trim().parse().expect("a number")
    };
    (number("start"), number("length"), object.contains("\"zero\": false"))
}

/// The Python that has the readers, and pyVmomi: `VIX_PYTHON`, the one of `scripts/fetch-readers.sh`, or any.
pub fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("VIX_PYTHON") {
        return PathBuf::from(python);
    }
    let fetched = scratch::peers().join("python/bin/python");
    if fetched.is_file() { fetched } else { PathBuf::from("python3") }
}

struct Python {
    child: Child,
    answers: BufReader<ChildStdout>,
}

/// Asks `readers.py`, which runs until this process ends.
fn ask_python(reader: &str, path: &Path, raw: &Path) -> String {
    static PYTHON: Mutex<Option<Python>> = Mutex::new(None);
    let mut running = PYTHON.lock().unwrap_or_else(|e| e.into_inner());
    let python = match &mut *running {
        Some(python) => python,
        none => match start_python() {
            Ok(python) => none.insert(python),
            Err(e) => return format!("missing: {}: {e}", python().display()),
        },
    };
    let question = format!("{reader} {} {}\n", hex(path), hex(raw));
    let stdin = python.child.stdin.as_mut().expect("its standard input");
    stdin.write_all(question.as_bytes()).expect("a question to Python");
    let mut answer = String::new();
    python.answers.read_line(&mut answer).expect("Python's answer");
    assert!(answer.ends_with('\n'), "Python ended: {reader} on {}", path.display());
    answer.trim_end().to_owned()
}

fn start_python() -> std::io::Result<Python> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/readers.py");
    let mut child =
        Command::new(python()).arg(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let answers = BufReader::new(child.stdout.take().expect("its standard output"));
    Ok(Python { child, answers })
}

fn hex(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
