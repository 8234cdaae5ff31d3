//! Looking through datastores: the methods of their browsers, as the public interface describes them (T).
//!
//! Patterns know `*` and `?`. Of the queries those for folders, for disks and for any file are known; others match nothing.

use std::sync::Arc;

use crate::sim::clock;
use crate::sim::disks::stores;
use crate::sim::disks::stores::Entry;
use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::fault::Fault;
use crate::sim::soap::tasks;
use crate::sim::value::Data;
use crate::sim::value::Moref;
use crate::sim::value::Value;
use crate::sim::xml::Arg;

/// Folders below each other that are looked into.
const DEEPEST: usize = 32;
/// Folders that one search looks into.
const MOST_FOLDERS: usize = 2000;

/// `SearchDatastore_Task`: one folder.
pub fn search(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    begin(site, call, false)
}

/// `SearchDatastoreSubFolders_Task`: the folder and all below it.
pub fn search_below(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    begin(site, call, true)
}

fn begin(site: &Arc<Site>, call: &Call<'_>, below: bool) -> Outcome {
    let path = call.text("datastorePath")?;
    let wrong = || {
        Fault::new("InvalidDatastorePath", format!("Invalid datastore path '{path}'."))
            .with("datastorePath", path.clone())
    };
    let world = site.world.lock();
    let browsers = world.stores.iter().enumerate().map(|(at, store)| (world.shape.browser(at), at, store));
    let Some((_, at, store)) = browsers.into_iter().find(|(browser, ..)| *browser == call.this) else {
        return Err(Fault::no_object(&call.this));
    };
    let (named, folder) = stores::parse(&path).ok_or_else(wrong)?;
    if named != store.name {
        return Err(wrong());
    }
    let folder = folder.trim_matches('/');
    let folder = if folder == "." { String::new() } else { folder.to_owned() };
    let (name, datastore) = (store.name.clone(), world.shape.datastore(at));
    drop(world);
    let search = Search {
        name: name.clone(),
        datastore: datastore.clone(),
        wanted: Wanted::of(call.args.one("searchSpec")),
    };
    tasks::start_on(site, call, (datastore, name), move |site| match below {
        false => search.folder(site, &folder).map(|(found, _)| Some(found.into())),
        true => search.below(site, folder).map(Some),
    })
}

/// What is looked for.
struct Wanted {
    patterns: Vec<String>,
    any_case: bool,
    queries: Vec<String>,
    kinds: bool,
    sizes: bool,
    times: bool,
}

impl Wanted {
    fn of(spec: Option<Arg<'_>>) -> Wanted {
        let details = spec.and_then(|spec| spec.one("details"));
        let flag = |name: &'static str| details.is_some_and(|details| details.is(name));
        let all = |name: &'static str| spec.into_iter().flat_map(move |spec| spec.all(name));
        Wanted {
            patterns: all("matchPattern").map(Arg::text).collect(),
            any_case: spec.is_some_and(|spec| spec.is("searchCaseInsensitive")),
            queries: all("query").map(|query| query.kind().unwrap_or("FileQuery").to_owned()).collect(),
            kinds: flag("fileType"),
            sizes: flag("fileSize"),
            times: flag("modification"),
        }
    }

    fn takes(&self, entry: &Entry) -> bool {
        let named = |pattern: &String| match self.any_case {
            true => fits(&pattern.to_lowercase(), &entry.name.to_lowercase()),
            false => fits(pattern, &entry.name),
        };
        let asked = |query: &String| match query.as_str() {
            "FileQuery" => true,
            "FolderFileQuery" => entry.is_folder,
            "VmDiskFileQuery" => !entry.is_folder && is_disk(&entry.name),
            _ => false,
        };
        (self.patterns.is_empty() || self.patterns.iter().any(named))
            && (self.queries.is_empty() || self.queries.iter().any(asked))
    }

    /// `FileInfo`, or what is more than one.
    fn told(&self, entry: &Entry) -> Value {
        let kind = match self.kinds || !self.queries.is_empty() {
            true if entry.is_folder => "FolderFileInfo",
            true if is_disk(&entry.name) => "VmDiskFileInfo",
            _ => "FileInfo",
        };
        Data::new(kind)
            .with("path", entry.name.clone())
            .maybe("fileSize", self.sizes.then_some(entry.size))
            .maybe("modification", self.times.then(|| Value::Time(clock::iso(entry.modified))))
            .into()
    }
}

struct Search {
    name: String,
    datastore: Moref,
    wanted: Wanted,
}

impl Search {
    /// `HostDatastoreBrowserSearchResults` of a folder, and the folders in it.
    fn folder(&self, site: &Site, folder: &str) -> Result<(Data, Vec<String>), Fault> {
        let shown = match folder {
            "" => format!("[{}]", self.name),
            folder => format!("[{}] {folder}/", self.name),
        };
        let store = site.world.lock().stores.named(&self.name).cloned();
        let found = store.and_then(|store| store.list(folder));
        let entries = found.ok_or_else(|| Fault::file("FileNotFound", &shown))?;
        let files =
            entries.iter().filter(|entry| self.wanted.takes(entry)).map(|entry| self.wanted.told(entry));
        let results = Data::new("HostDatastoreBrowserSearchResults")
            .with("datastore", self.datastore.clone())
            .with("folderPath", shown)
            .list("file", "FileInfo", files);
        let folders = entries.iter().filter(|entry| entry.is_folder).map(|entry| entry.name.clone());
        Ok((results, folders.collect()))
    }

    fn below(&self, site: &Site, top: String) -> Result<Value, Fault> {
        let mut results = Vec::new();
        let mut open = vec![(top, 0)];
        while let Some((folder, depth)) = open.pop() {
            let (found, folders) = match self.folder(site, &folder) {
                Ok(found) => found,
                Err(fault) if depth == 0 => return Err(fault),
                Err(_) => continue, // it was removed meanwhile
            };
            results.push(found.into());
            if depth < DEEPEST && results.len() + open.len() < MOST_FOLDERS {
                let path =
                    |name: &String| if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                open.extend(folders.iter().rev().map(|name| (path(name), depth + 1)));
            }
        }
        Ok(Value::List("HostDatastoreBrowserSearchResults", results))
    }
}

fn is_disk(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".vmdk")
}

/// Whether a name fits a pattern with `*` for any letters and `?` for any one.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut from) = (0, 0);
    // Where the last star stands, and up to where it reaches.
    let mut star: Option<(usize, usize)> = None;
    while let Some(letter) = name.get(from) {
        match (pattern.get(at), star) {
            (Some('*'), _) => {
                star = Some((at, from));
                at += 1;
            }
            (Some(wanted), _) if *wanted == '?' || wanted == letter => (at, from) = (at + 1, from + 1),
            (_, Some((begin, reached))) => {
                star = Some((begin, reached + 1));
                (at, from) = (begin + 1, reached + 1);
            }
            _ => return false,
        }
    }
    pattern.iter().skip(at).all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_shells() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "a"),
            ("a*c", "abbc"),
            ("a*c", "ac"),
            ("?b*", "ab"),
            ("*.vmdk", "a.b.vmdk"),
            ("", ""),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("", "a"), ("a", ""), ("a*c", "abd"), ("?", ""), ("*.vmdk", "a.vmdk2"), ("A", "a")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
