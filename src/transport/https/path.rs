//! Files of datastores, and how they are named to a server.

use std::fmt;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::net::http::percent;

/// A file or folder of a datastore. Shown as `[datastore] folder/file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath {
    /// The datastore's name.
    datastore: String,
    /// Names from the top down. None of them is empty or climbs.
    names: Vec<String>,
}

/// Deeper folders are none of a disk's.
const DEEPEST: usize = 64;
/// Where hosts see their datastores.
const VOLUMES: &str = "/vmfs/volumes/";

impl FilePath {
    /// Understands `[datastore] folder/file`.
    pub fn parse(text: &str) -> Result<FilePath> {
        let split = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let Some((datastore, path)) = split.filter(|(datastore, _)| !datastore.is_empty()) else {
            return Err(refused(text, "expected is [datastore] folder/disk.vmdk"));
        };
        let top = FilePath { datastore: datastore.to_owned(), names: Vec::new() };
        let file = top.below(path.strip_prefix(' ').unwrap_or(path))?;
        match file.names.is_empty() {
            true => Err(refused(text, "it names no file")),
            false => Ok(file),
        }
    }

    /// Where a relative path leads from this folder. It may climb, but not out of the datastore.
    fn below(&self, path: &str) -> Result<FilePath> {
        let mut names = self.names.clone();
        for name in path.split('/') {
            match name {
                "" | "." => {}
                ".." if names.pop().is_none() => {
                    let text = format!("{path:?} leads out of the datastore {}", self.datastore);
                    return Err(Error::new(ErrorKind::AccessDenied, text));
                }
                ".." => {}
                name if name.chars().any(char::is_control) => {
                    return Err(refused(path, "it is not one line of text"));
                }
                name => names.push(name.to_owned()),
            }
        }
        match names.len() > DEEPEST {
            true => Err(refused(path, "it is too deep")),
            false => Ok(FilePath { datastore: self.datastore.clone(), names }),
        }
    }

    /// The folder that it is in.
    pub fn folder(&self) -> FilePath {
        let names = self.names.split_last().map_or_else(Vec::new, |(_, folder)| folder.to_vec());
        FilePath { datastore: self.datastore.clone(), names }
    }

    /// Its own name.
    pub fn name(&self) -> &str {
        self.names.last().map_or("", String::as_str)
    }

    /// Where the name of an extent leads that stands in a descriptor of this folder: to files in or below the folder.
    pub fn extent(&self, name: &str) -> Result<FilePath> {
        if let Some((scheme, _)) = name.split_once("://") {
            let text =
                format!("the extent {name:?} is an object of {scheme}, which is no file of a datastore");
            return Err(Error::new(ErrorKind::NotSupported, text));
        }
        let found = match name.starts_with('/') {
            // An id may be that of another datastore, and nothing tells that a file of the same name is another one.
            true => self.absolute(name, false),
            false => Some(self.below(name)?),
        };
        let inside = |found: &FilePath| {
            found.names.len() > self.names.len() && found.names.starts_with(&self.names[..])
        };
        found.filter(inside).ok_or_else(|| {
            let text = format!("the extent {name:?} lies outside of {self}, the folder of its descriptor");
            Error::new(ErrorKind::AccessDenied, text)
        })
    }

    /// The files of this datastore that a parent hint in a descriptor of this folder may mean, best first: the path that it
    /// is, and its last part next to the child.
    pub fn parents(&self, hint: &str) -> Vec<Result<FilePath>> {
        let path = match (hint.starts_with('['), hint.starts_with('/')) {
            (true, _) => FilePath::parse(hint).ok().filter(|path| path.datastore == self.datastore).map(Ok),
            (_, true) => self.absolute(hint, true).map(Ok), // the content id tells whether it is the one
            _ => Some(self.below(hint)),
        };
        // Descriptors written on Windows separate with backslashes.
        let last = hint.rsplit(['/', '\\', ']']).next().unwrap_or(hint).trim_start();
        let beside = if last.is_empty() || last == ".." { None } else { self.below(last).ok() };
        let beside = beside.filter(|beside| !matches!(&path, Some(Ok(path)) if path == beside));
        path.into_iter()
            .chain(beside.map(Ok))
            .filter(|path| !matches!(path, Ok(path) if path.names.is_empty()))
            .collect()
    }

    /// Where an absolute path of a host leads, if that is in this datastore: the path has its name, or `by_id` an id that
    /// only the server could resolve. `None`: it is in another one.
    fn absolute(&self, path: &str, by_id: bool) -> Option<FilePath> {
        let (volume, rest) = path.strip_prefix(VOLUMES)?.split_once('/')?;
        let top = FilePath { datastore: self.datastore.clone(), names: Vec::new() };
        let ours = volume == self.datastore || by_id && is_volume_id(volume);
        top.below(rest).ok().filter(|_| ours)
    }

    /// What is asked of a server: path and query.
    pub fn target(&self, datacenter: &str, spelling: Spelling) -> String {
        let names: Vec<String> = self.names.iter().map(|name| percent::encoded(name)).collect();
        let value = |text: &str| match spelling {
            Spelling::Once => percent::encoded(text),
            Spelling::Twice => percent::encoded(&percent::encoded(text)),
        };
        let (path, store) = (names.join("/"), value(&self.datastore));
        format!("/folder/{path}?dcPath={}&dsName={store}", value(datacenter))
    }

    /// True when the spelling makes no difference.
    pub fn is_plain(&self, datacenter: &str) -> bool {
        self.target(datacenter, Spelling::Once) == self.target(datacenter, Spelling::Twice)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.datastore, self.names.join("/"))
    }
}

/// `5a0c1b2d-3e4f5a6b-7c8d-9e0f1a2b3c4d`, the id of a volume of VMFS, or two halves of one of NFS.
fn is_volume_id(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.iter().all(hex) && text.len() >= 16 && matches!(parts.len(), 2 | 4)
}

fn refused(path: &str, why: &str) -> Error {
    let path: String = path.chars().take(200).collect();
    Error::new(ErrorKind::NameInvalid, format!("{path:?} is no path on a datastore: {why}"))
}

/// How often the values of the query are percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// As hosts want them, and simulators.
    Once,
    /// As a vCenter wants them.
    Twice,
}

impl Spelling {
    /// The other one.
    pub fn other(self) -> Spelling {
        match self {
            Spelling::Once => Spelling::Twice,
            Spelling::Twice => Spelling::Once,
        }
    }
}

/// Which spelling each server took, once it has taken one that it would not have taken otherwise.
#[derive(Debug, Default)]
pub struct Spellings(Mutex<Vec<(String, Spelling)>>);

/// More servers than that are not remembered.
const MOST_SERVERS: usize = 64;

impl Spellings {
    /// What is known of a server.
    pub fn known(&self, server: &str) -> Option<Spelling> {
        self.0.lock().iter().find(|(name, _)| name == server).map(|(_, spelling)| *spelling)
    }

    /// Remembers what a server took.
    pub fn learn(&self, server: &str, spelling: Spelling) {
        let mut all = self.0.lock();
        all.retain(|(name, _)| name != server);
        all.truncate(MOST_SERVERS - 1);
        all.insert(0, (server.to_owned(), spelling));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(text: &str) -> FilePath {
        FilePath::parse(&format!("{text}/x")).unwrap().folder()
    }

    fn shown(path: Result<FilePath>) -> Result<String, ErrorKind> {
        path.map(|path| path.to_string()).map_err(|e| e.kind())
    }

    #[test]
    fn a_path_has_a_datastore_and_names() {
        let path = FilePath::parse("[d s]  a /b.vmdk").unwrap();
        assert_eq!((path.to_string().as_str(), path.name()), ("[d s]  a /b.vmdk", "b.vmdk"));
        assert_eq!(path.folder().to_string(), "[d s]  a ");
        assert_eq!(FilePath::parse("[ds]x/../a//./b").unwrap().to_string(), "[ds] a/b");
        for text in ["", "a/b", "[] a", "[ds]", "[ds] ", "[ds] a/..", "[ds a", "[ds] a\nb"] {
            assert_eq!(shown(FilePath::parse(text)), Err(ErrorKind::NameInvalid), "{text}");
        }
        assert_eq!(shown(FilePath::parse("[ds] ../a")), Err(ErrorKind::AccessDenied));
        assert_eq!(shown(FilePath::parse(&format!("[ds] {}", "a/".repeat(65)))), Err(ErrorKind::NameInvalid));
    }

    #[test]
    fn extents_lie_in_or_below_the_folder_of_their_descriptor() {
        let vm = folder("[ds] vms/vm");
        for (name, leads) in [
            ("a-flat.vmdk", "[ds] vms/vm/a-flat.vmdk"),
            ("sub/../a", "[ds] vms/vm/a"),
            ("/vmfs/volumes/ds/vms/vm/a", "[ds] vms/vm/a"),
        ] {
            assert_eq!(shown(vm.extent(name)), Ok(leads.to_owned()), "{name}");
        }
        for name in [
            "../other/a-flat.vmdk",
            "/vmfs/volumes/ds/vms/other/a",
            "/vmfs/volumes/other/vms/vm/a",
            "/vmfs/volumes/5a0c1b2d-3e4f5a6b-7c8d-9e0f1a2b3c4d/vms/vm/a",
            "/vmfs/devices/disks/naa.1",
            "/etc/shadow",
            "../../../a",
            ".",
            "",
        ] {
            assert_eq!(shown(vm.extent(name)), Err(ErrorKind::AccessDenied), "{name}");
        }
        assert_eq!(shown(vm.extent("vsan://52ab")), Err(ErrorKind::NotSupported));
        assert_eq!(shown(vm.extent("a\0b")), Err(ErrorKind::NameInvalid));
    }

    #[test]
    fn a_parent_is_looked_for_in_the_same_datastore_only() {
        let vm = folder("[ds] vm");
        let parents = |hint: &str| vm.parents(hint).into_iter().map(shown).collect::<Vec<_>>();
        let ok = |path: &str| Ok(path.to_owned());
        assert_eq!(parents("base.vmdk"), [ok("[ds] vm/base.vmdk")]);
        assert_eq!(parents("../gold/base.vmdk"), [ok("[ds] gold/base.vmdk"), ok("[ds] vm/base.vmdk")]);
        assert_eq!(parents("[ds] gold/base.vmdk"), [ok("[ds] gold/base.vmdk"), ok("[ds] vm/base.vmdk")]);
        assert_eq!(parents("[ds]base.vmdk"), [ok("[ds] base.vmdk"), ok("[ds] vm/base.vmdk")]);
        assert_eq!(parents("[other] gold/base.vmdk"), [ok("[ds] vm/base.vmdk")]);
        let gold = "gold/base.vmdk";
        let id = "5a0c1b2d-3e4f5a6b-7c8d-9e0f1a2b3c4d";
        for volume in ["ds", id, "9ff0cf5b-0ecc4f7b"] {
            let hint = format!("/vmfs/volumes/{volume}/{gold}");
            assert_eq!(parents(&hint), [ok("[ds] gold/base.vmdk"), ok("[ds] vm/base.vmdk")], "{hint}");
        }
        for hint in ["/vmfs/volumes/other/gold/base.vmdk", "/etc/base.vmdk", "C:\\vms\\base.vmdk"] {
            let found = parents(hint);
            assert_eq!(found.last(), Some(&ok("[ds] vm/base.vmdk")), "{hint}");
            assert!(!found.iter().any(|path| path.as_deref() == Ok("[ds] gold/base.vmdk")), "{hint}");
        }
        assert_eq!(parents("../../../base.vmdk"), [Err(ErrorKind::AccessDenied), ok("[ds] vm/base.vmdk")]);
        for hint in ["", "..", "/", "[ds] ", "vm/.."] {
            assert!(!parents(hint).contains(&ok("[ds] ")), "{hint}");
        }
    }

    #[test]
    fn the_query_is_encoded_as_often_as_the_server_wants() {
        let path = FilePath::parse("[my store] a b/100%-flat.vmdk").unwrap();
        assert_eq!(
            path.target("Nord/DC 1", Spelling::Once),
            "/folder/a%20b/100%25-flat.vmdk?dcPath=Nord%2FDC%201&dsName=my%20store"
        );
        assert_eq!(
            path.target("Nord/DC 1", Spelling::Twice),
            "/folder/a%20b/100%25-flat.vmdk?dcPath=Nord%252FDC%25201&dsName=my%2520store"
        );
        assert!(!path.is_plain("DC") && FilePath::parse("[ds_1] a b").unwrap().is_plain("ha-datacenter"));
    }

    #[test]
    fn spellings_are_remembered_by_server_and_not_without_end() {
        let all = Spellings::default();
        for n in 0..200 {
            all.learn(&format!("vc{n}"), Spelling::Once);
        }
        all.learn("vc199", Spelling::Twice);
        assert_eq!((all.known("vc199"), all.known("vc0")), (Some(Spelling::Twice), None));
        assert!(all.0.lock().len() <= MOST_SERVERS);
    }
}
