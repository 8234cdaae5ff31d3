//! C programs of `tests/c` against the built library, as C and as C++, plain and under valgrind; what an ELF file says.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::scratch;
use super::tools;
use super::vix;

/// The folder of this package.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A language that programs are compiled as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// C99.
    C,
    /// C++17.
    Cxx,
}

/// A scratch folder with the library under the names that programs are linked to.
pub struct Bench {
    /// The folder; programs may work in it.
    pub folder: TempDir,
    lib64: PathBuf,
}

impl Bench {
    /// A new one.
    pub fn new() -> Self {
        let folder = scratch::folder();
        let lib64 = folder.path().join("lib64");
        std::fs::create_dir(&lib64).expect("a folder for the library");
        for name in ["libvixDiskLib.so", "libvixDiskLib.so.8"] {
            symlink(vix::library_path(), lib64.join(name)).expect("a link to the library");
        }
        Self { folder, lib64 }
    }

    /// A name in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A compiled program of `tests/c`.
    pub fn compile(&self, name: &str, language: Language) -> PathBuf {
        let (compiler, options): (&str, &[&str]) = match language {
            Language::C => ("gcc", &["-std=gnu99", "-x", "c"]),
            Language::Cxx => ("g++", &["-std=gnu++17", "-x", "c++"]),
        };
        let program = self.path(&format!("{name}-{language:?}"));
        tools::check(
            Command::new(compiler)
                .args(options)
                .args(["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-pthread", "-I"])
                .arg(root().join("include"))
                .arg(root().join("tests/c").join(name).with_extension("c"))
                .args(["-x", "none", "-o"])
                .arg(&program)
                .arg("-L")
                .arg(&self.lib64)
                .arg(format!("-Wl,-rpath,{}", self.lib64.display()))
                .arg("-lvixDiskLib"),
        );
        program
    }
}

/// The program under valgrind: an error is one, and so is memory of the library that is definitely lost.
pub fn under_valgrind(program: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command
        .args(["-q", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"])
        .args(["--show-leak-kinds=definite", "--fair-sched=yes"])
        .arg(program);
    command
}

/// Lines of what `readelf` says about a file.
pub fn readelf(options: &[&str], file: &Path) -> Vec<String> {
    tools::check(Command::new("readelf").args(options).arg("-W").arg(file))
        .out()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Names of the dynamic symbols that a file defines (`true`) or wants from others (`false`), sorted.
pub fn dynamic_symbols(file: &Path, defined: bool) -> Vec<String> {
    let mut names: Vec<String> = readelf(&["--dyn-syms"], file)
        .iter()
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [_, _, _, _, bind, _, section, name, ..] = columns[..] else { return None };
            let counts = matches!(bind, "GLOBAL" | "WEAK") && (section != "UND") == defined;
            counts.then(|| name.split('@').next().unwrap_or(name).to_owned())
        })
        .collect();
    names.sort();
    names.dedup();
    names
}
