//! The distribution tree as `make` lays it out, for tests that look at it or run programs against it.
#![allow(dead_code)] // each test file uses its part

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The project's folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program to its end and returns what it printed; a failure shows everything it said.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// `make` in the project, untouched by a `make` that may have started the tests.
pub fn make() -> Command {
    let mut make = Command::new("make");
    make.current_dir(project()).arg("--no-print-directory");
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "DESTDIR", "PREFIX", "DOCDIR"] {
        make.env_remove(name);
    }
    make
}

/// The tree of `make tree`, made once for a test program; `name` keeps programs apart that run at the same time.
pub fn tree(name: &str) -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let dist = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        run(make().arg("tree").arg(format!("DIST={}", dist.display())));
        dist.join("vmware-vix-disklib-distrib")
    })
}

/// True when every one of these programs is installed. Otherwise says so, and fails where nothing may be skipped.
pub fn have(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().copied().filter(|program| !installed(program)).collect();
    missing.is_empty() || !skipped(&format!("not installed: {}", missing.join(" ")))
}

/// Says why the running test is skipped, past the capture of its output; fails with `CI=true`.
pub fn skipped(reason: &str) -> bool {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let strict = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    assert!(!strict, "{test} may not be skipped: {reason}");
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
    true
}

fn installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// Everything below `top`: path to what it is, `file`, `folder` or `-> target`.
pub fn listing(top: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![top.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.symlink_metadata().unwrap().file_type();
            let what = if kind.is_symlink() {
                format!("-> {}", std::fs::read_link(&path).unwrap().display())
            } else if kind.is_dir() {
                todo.push(path.clone());
                "folder".to_owned()
            } else {
                "file".to_owned()
            };
            found.insert(path.strip_prefix(top).unwrap().display().to_string(), what);
        }
    }
    found
}

/// The chain of two small disks that comes with the project: the folder they are in, the child, the hash of its content.
pub fn small_chain() -> (PathBuf, PathBuf, String) {
    let name = "vmdk/synthetic/zerograin/zg-000001.vmdk";
    let data = project().join("tests/data");
    let manifest = std::fs::read_to_string(data.join("manifest.tsv")).unwrap();
    let row = manifest.lines().find(|line| line.starts_with(name)).unwrap();
    let child = data.join(name);
    (child.parent().unwrap().to_owned(), child, row.split('\t').nth(2).unwrap().to_owned())
}
