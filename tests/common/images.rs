//! The golden and hostile images, unpacked into scratch folders.
//!
//! They are looked for in `VIX_IMAGES`, then next to the checkout, then in `tests/data`, which holds the few small ones a
//! clone has.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::scratch;
use super::tools;

/// One line of the manifest.
#[derive(Clone, Debug)]
pub struct Golden {
    /// The file to open, relative to the set.
    pub path: String,
    /// Size of the disk in bytes.
    pub size: u64,
    /// SHA-256 of the raw content.
    pub sha256: String,
    /// What kind of image it is.
    pub variant: String,
}

/// A set of images, read-only where it lies.
#[derive(Clone, Debug)]
pub struct Images {
    root: PathBuf,
}

/// An image's folder, unpacked; removed on drop.
#[derive(Debug)]
pub struct Unpacked {
    folder: TempDir,
    name: String,
}

impl Images {
    /// The best set there is.
    pub fn find() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let candidates = [
            std::env::var_os("VIX_IMAGES").map(PathBuf::from),
            Some(manifest.join("../shared/images")),
            Some(manifest.join("tests/data")),
        ];
        let root = candidates.into_iter().flatten().find(|path| path.join("manifest.tsv").is_file());
        Self { root: root.expect("tests/data has a manifest.tsv") }
    }

    /// The disks with a known content. There is at least one.
    pub fn golden(&self) -> Vec<Golden> {
        let text = std::fs::read_to_string(self.root.join("manifest.tsv")).expect("the manifest");
        let all: Vec<Golden> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
            .map(|line| {
                let fields: Vec<&str> = line.split('\t').collect();
                assert!(fields.len() >= 4, "a manifest line of four fields: {line}");
                Golden {
                    path: fields[0].to_owned(),
                    size: fields[1].parse().expect("a size"),
                    sha256: fields[2].to_owned(),
                    variant: fields[3].to_owned(),
                }
            })
            .collect();
        assert!(!all.is_empty(), "the manifest names no image");
        all
    }

    /// True when the set has this file, packed or not.
    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).exists() || self.root.join(format!("{path}.zst")).exists()
    }

    /// The folder of an image in a scratch folder, with the names its descriptors use.
    pub fn unpack(&self, path: &str) -> Unpacked {
        let source = self.root.join(path);
        let name = source.file_name().expect("a file name").to_string_lossy().into_owned();
        let folder = scratch::folder();
        let origin = source.parent().expect("a folder");
        for entry in std::fs::read_dir(origin).unwrap_or_else(|e| panic!("{}: {e}", origin.display())) {
            let from = entry.expect("a folder entry").path();
            let file = from.file_name().expect("a name").to_string_lossy().into_owned();
            if !from.is_file() {
                continue;
            }
            match file.strip_suffix(".zst") {
                Some(plain) => {
                    let mut zstd = Command::new("zstd");
                    zstd.args(["-dq", "--sparse", "-o"]).arg(folder.path().join(plain)).arg(&from);
                    tools::check(&mut zstd);
                }
                None => {
                    let to = folder.path().join(&file);
                    std::fs::copy(&from, &to).expect("copying an image");
                    let mut rights = std::fs::metadata(&to).expect("its rights").permissions();
                    #[allow(clippy::permissions_set_readonly_false)] // a private copy in a scratch folder
                    rights.set_readonly(false);
                    std::fs::set_permissions(&to, rights).expect("making it writable");
                }
            }
        }
        Unpacked { folder, name }
    }
}

impl Unpacked {
    /// The file to open.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// Another file of the same folder.
    pub fn sibling(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
