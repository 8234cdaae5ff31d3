//! Datastores: names for folders of this machine.
//!
//! A datastore is a tree of directories. One that the user named is a folder with everything below it; the one that holds
//! disks from elsewhere has each of their folders as a directory of its own, and nothing else of the machine.

use std::fmt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::sim::options::DatastoreOptions;

/// More entries of a directory are not listed.
const MOST_ENTRIES: usize = 10_000;

/// A file of a datastore. Shown as `[store] dir/name`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct FileRef {
    /// The datastore's name.
    pub store: String,
    /// The path in it.
    pub path: String,
    /// The file on this machine: absolute, without symbolic links.
    pub file: PathBuf,
}

impl fmt::Display for FileRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.store, self.path)
    }
}

/// One datastore.
#[derive(Clone, Debug)]
pub struct Store {
    /// Its name.
    pub name: String,
    /// Directories (empty: its top) and the folders behind them.
    roots: Vec<(String, PathBuf)>,
}

/// All datastores.
#[derive(Clone, Debug, Default)]
pub struct Stores(Vec<Store>);

impl Stores {
    /// The datastores that the user named.
    pub fn new(options: &[DatastoreOptions]) -> Result<Stores> {
        let mut stores = Stores::default();
        for option in options {
            let folder = option.folder.canonicalize();
            let folder =
                folder.context(|| format!("datastore {:?}: {}", option.name, option.folder.display()))?;
            if !folder.is_dir() || stores.named(&option.name).is_some() {
                let text = format!("datastore {:?} is no folder, or named twice", option.name);
                return Err(Error::new(ErrorKind::InvalidArgument, text));
            }
            stores.0.push(Store { name: option.name.clone(), roots: vec![(String::new(), folder)] });
        }
        Ok(stores)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Store> {
        self.0.iter()
    }

    /// The one of this name.
    pub fn named(&self, name: &str) -> Option<&Store> {
        self.0.iter().find(|store| store.name == name)
    }

    /// The name in a datastore of a file of this machine, which need not exist but whose folder must.
    pub fn name_of(&mut self, path: &Path) -> Result<Arc<FileRef>> {
        let what = || path.display().to_string();
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Err(Error::new(
                ErrorKind::NameInvalid,
                format!("{} names no file, or not in UTF-8", what()),
            ));
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = folder.canonicalize().context(what)?;
        let (store, directory) = match self.directory_of(&folder) {
            Some(found) => found,
            None => self.adopt(&folder)?,
        };
        let path = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
        Ok(Arc::new(FileRef { store, path, file: folder.join(name) }))
    }

    /// The store and directory of a folder: of several the nearest.
    fn directory_of(&self, folder: &Path) -> Option<(String, String)> {
        let mut best: Option<(usize, String, String)> = None;
        for store in &self.0 {
            for (directory, root) in &store.roots {
                let Some(rest) = folder.strip_prefix(root).ok().and_then(Path::to_str) else { continue };
                let parts = [directory.as_str(), rest];
                let name = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
                let depth = root.components().count();
                // Below a folder that only its disks brought in, nothing is shown.
                let reaches = directory.is_empty() || rest.is_empty();
                if reaches && best.as_ref().is_none_or(|(other, ..)| *other < depth) {
                    best = Some((depth, store.name.clone(), name));
                }
            }
        }
        best.map(|(_, store, directory)| (store, directory))
    }

    /// Makes a folder a directory of the datastore for such folders.
    fn adopt(&mut self, folder: &Path) -> Result<(String, String)> {
        let named = |root: &(String, PathBuf)| root.0.is_empty();
        let at = match self.0.iter().position(|store| !store.roots.iter().any(named)) {
            Some(at) => at,
            None => {
                let name = (1..).map(|n| format!("datastore{n}")).find(|name| self.named(name).is_none());
                self.0.push(Store { name: name.unwrap_or_default(), roots: Vec::new() });
                self.0.len() - 1
            }
        };
        let base = folder.file_name().and_then(|name| name.to_str()).unwrap_or("vm").to_owned();
        let Some(store) = self.0.get_mut(at) else {
            return Err(Error::new(ErrorKind::Internal, "the datastore that was just made is gone"));
        };
        let taken = |name: &str| store.roots.iter().any(|(directory, _)| directory == name);
        let names = std::iter::once(base.clone()).chain((2..).map(|n| format!("{base}_{n}")));
        let directory = names.filter(|name| !taken(name)).take(1).next().unwrap_or_default();
        store.roots.push((directory.clone(), folder.to_owned()));
        Ok((store.name.clone(), directory))
    }

    /// The existing file behind a path of a datastore. `None`: there is none, or the path leads out of the datastore.
    pub fn file(&self, store: &str, path: &str) -> Option<PathBuf> {
        let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if path.is_empty() || path.contains('\0') || !plain {
            return None;
        }
        self.named(store)?.roots.iter().find_map(|(directory, root)| {
            let rest = match directory.is_empty() {
                true => path,
                false => path
                    .strip_prefix(directory.as_str())?
                    .strip_prefix('/')
                    .filter(|rest| !rest.contains('/'))?,
            };
            root.join(rest).canonicalize().ok().filter(|real| real.starts_with(root))
        })
    }
}

/// What lies in a directory of a datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// It is a directory.
    pub is_folder: bool,
    /// Bytes.
    pub size: u64,
    /// When it was written to.
    pub modified: SystemTime,
}

impl Entry {
    fn at(path: &Path, name: String) -> Option<Entry> {
        let about = std::fs::metadata(path).ok()?;
        let modified = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Some(Entry { name, is_folder: about.is_dir(), size: about.len(), modified })
    }
}

/// The entries of a folder of this machine that [`Stores::file`] would find, by their names.
fn entries(root: &Path, folder: &Path, with_folders: bool) -> Option<Vec<Entry>> {
    let folder = folder.canonicalize().ok().filter(|real| real.starts_with(root))?;
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).ok()?.filter_map(std::io::Result::ok).take(MOST_ENTRIES) {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(real) = entry.path().canonicalize() else { continue };
        // A link to a folder may lead in circles.
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        entries.extend(
            Entry::at(&real, name)
                .filter(|entry| real.starts_with(root) && (!entry.is_folder || (with_folders && !is_link))),
        );
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Some(entries)
}

impl Store {
    /// What lies in a directory. `None`: it is not there, or leads out of the datastore.
    pub fn list(&self, directory: &str) -> Option<Vec<Entry>> {
        let plain = Path::new(directory).components().all(|part| matches!(part, Component::Normal(_)));
        if directory.contains('\0') || !plain {
            return None;
        }
        let mut top = Vec::new();
        for (name, root) in &self.roots {
            match (name.is_empty(), directory.is_empty()) {
                (true, _) => return entries(root, &root.join(directory), true),
                (false, true) => top.extend(Entry::at(root, name.clone())),
                (false, false) if name == directory => return entries(root, root, false),
                (false, false) => {}
            }
        }
        directory.is_empty().then_some(top)
    }

    /// A folder of it, for its size and its identity.
    pub fn folder(&self) -> Option<&Path> {
        self.roots.first().map(|(_, folder)| folder.as_path())
    }
}

/// `[store] path` taken apart. One blank after the bracket is customary, none and several are accepted.
pub fn parse(name: &str) -> Option<(&str, &str)> {
    let (store, path) = name.strip_prefix('[')?.split_once(']')?;
    Some((store, path.trim_start_matches(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_names_in_the_nearest_datastore() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["ds/vm", "else/vm", "other/vm"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
            std::fs::write(dir.path().join(folder).join("d.vmdk"), b"x").unwrap();
        }
        let options = DatastoreOptions { name: "ds1".to_owned(), folder: dir.path().join("ds") };
        let mut stores = Stores::new(&[options]).unwrap();
        let names: Vec<String> = ["ds/vm", "else/vm", "other/vm", "else/vm"]
            .iter()
            .map(|folder| stores.name_of(&dir.path().join(folder).join("d.vmdk")).unwrap().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "[ds1] vm/d.vmdk",
                "[datastore1] vm/d.vmdk",
                "[datastore1] vm_2/d.vmdk",
                "[datastore1] vm/d.vmdk"
            ]
        );
        for name in names {
            let (store, path) = parse(&name).unwrap();
            assert!(stores.file(store, path).is_some(), "{name}");
        }
    }

    #[test]
    fn paths_do_not_lead_out_of_a_datastore() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("ds/vm/sub")).unwrap();
        for file in ["secret", "ds/vm/d.vmdk", "ds/vm/sub/e"] {
            std::fs::write(dir.path().join(file), b"x").unwrap();
        }
        std::os::unix::fs::symlink("../../secret", dir.path().join("ds/vm/link")).unwrap();
        let mut stores = Stores::default();
        stores.name_of(&dir.path().join("ds/vm/d.vmdk")).unwrap();
        assert!(stores.file("datastore1", "vm/d.vmdk").is_some());
        let out = dir.path().join("secret");
        for path in
            ["../secret", "vm/../../secret", "vm/link", out.to_str().unwrap(), "", "vm/a\0", "vm/sub/e"]
        {
            assert_eq!(stores.file("datastore1", path), None, "{path:?}");
        }
        assert_eq!(stores.file("other", "vm/d.vmdk"), None);
    }

    #[test]
    fn directories_show_what_can_be_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("ds/vm/sub")).unwrap();
        for file in ["secret", "ds/vm/d.vmdk", "ds/vm/sub/e"] {
            std::fs::write(dir.path().join(file), b"xy").unwrap();
        }
        std::os::unix::fs::symlink("../../secret", dir.path().join("ds/vm/link")).unwrap();
        std::os::unix::fs::symlink("..", dir.path().join("ds/vm/circle")).unwrap();
        let names = |store: &Store, directory: &str| {
            let found = store.list(directory)?;
            Some(found.into_iter().map(|entry| (entry.name, entry.is_folder)).collect::<Vec<_>>())
        };
        let file = |name: &str| (name.to_owned(), false);
        let folder = |name: &str| (name.to_owned(), true);
        let options = DatastoreOptions { name: "ds1".to_owned(), folder: dir.path().join("ds") };
        let stores = Stores::new(&[options]).unwrap();
        let whole = stores.named("ds1").unwrap();
        assert_eq!(names(whole, ""), Some(vec![folder("vm")]));
        assert_eq!(names(whole, "vm"), Some(vec![file("d.vmdk"), folder("sub")]));
        assert_eq!(whole.list("vm/sub").unwrap()[0].size, 2);
        for out in ["..", "vm/..", "/", "none", "vm/d.vmdk"] {
            assert_eq!(names(whole, out), None, "{out}");
        }
        let mut stores = Stores::default();
        stores.name_of(&dir.path().join("ds/vm/d.vmdk")).unwrap();
        let adopted = stores.named("datastore1").unwrap();
        assert_eq!(names(adopted, ""), Some(vec![folder("vm")]));
        assert_eq!(names(adopted, "vm"), Some(vec![file("d.vmdk")]), "no folders below");
        assert_eq!(names(adopted, "vm/sub"), None);
    }

    #[test]
    fn names_are_taken_apart_with_and_without_blank() {
        assert_eq!(parse("[a b] c/d.vmdk"), Some(("a b", "c/d.vmdk")));
        assert_eq!(parse("[a]c"), Some(("a", "c")));
        assert_eq!((parse("a/b"), parse("[a")), (None, None));
    }
}
