//! Paths on datastores: `[datastore] folder/disk.vmdk`.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// A path that is longer is none.
const LONGEST: usize = 4096;

/// The path of a disk as servers write it: one blank behind the bracket, if there was none.
pub fn of_disk(path: &Path) -> Result<String> {
    let text = text(path)?;
    let (datastore, file) =
        split(text).ok_or_else(|| refused(text, "expected is [datastore] folder/disk.vmdk"))?;
    if file.trim().is_empty() {
        return Err(refused(text, "it names no file"));
    }
    Ok(joined(datastore, file))
}

/// The path of a disk that is named relative to a folder of a datastore. The folder may be written with the datastore in
/// front; a disk that is, is no longer relative.
pub fn below(datastore: &str, folder: &str, path: &Path) -> Result<String> {
    let text = text(path)?;
    if split(text).is_some() {
        return of_disk(path);
    }
    let folder = split(folder).map_or(folder, |(_, folder)| folder).trim_matches('/');
    let file = text.trim_start_matches('/');
    if file.trim().is_empty() {
        return Err(refused(text, "it names no file"));
    }
    if folder.split('/').chain(file.split('/')).any(|part| part == "..") {
        return Err(refused(text, "it climbs out of its folder"));
    }
    match folder.trim().is_empty() {
        true => Ok(joined(datastore, file)),
        false => Ok(joined(datastore, &format!("{folder}/{file}"))),
    }
}

fn joined(datastore: &str, file: &str) -> String {
    let blank = if file.starts_with(' ') { "" } else { " " };
    format!("[{datastore}]{blank}{file}")
}

/// Datastore, and what follows the bracket.
fn split(path: &str) -> Option<(&str, &str)> {
    let (datastore, file) = path.strip_prefix('[')?.split_once(']')?;
    (!datastore.is_empty()).then_some((datastore, file))
}

fn text(path: &Path) -> Result<&str> {
    match path.to_str() {
        Some(text) if text.len() <= LONGEST && !text.chars().any(char::is_control) => Ok(text),
        Some(text) => Err(refused(text, "it is too long, or not one line")),
        None => Err(Error::new(ErrorKind::NameInvalid, format!("{} is not in UTF-8", path.display()))),
    }
}

fn refused(path: &str, why: &str) -> Error {
    let path: String = path.chars().take(200).collect();
    Error::new(ErrorKind::NameInvalid, format!("{path:?} is no path on a datastore: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(path: &str) -> Result<String, ErrorKind> {
        of_disk(Path::new(path)).map_err(|e| e.kind())
    }

    #[test]
    fn a_missing_blank_is_added_and_nothing_else_is_changed() {
        assert_eq!(disk("[ds] a/b.vmdk").unwrap(), "[ds] a/b.vmdk");
        assert_eq!(disk("[ds]a/b.vmdk").unwrap(), "[ds] a/b.vmdk");
        assert_eq!(
            disk("[d s]  a /b.vmdk ").unwrap(),
            "[d s]  a /b.vmdk ",
            "names may begin and end with blanks"
        );
    }

    #[test]
    fn what_is_no_path_on_a_datastore_is_refused() {
        for path in [
            "",
            "a/b.vmdk",
            "[ds]",
            "[ds] ",
            "[] a",
            "[ds a",
            "[ds] a\nb",
            &format!("[ds] {}", "a".repeat(5000)),
        ] {
            assert_eq!(disk(path), Err(ErrorKind::NameInvalid), "{path}");
        }
    }

    #[test]
    fn a_disk_of_a_folder_is_named_relative_to_it() {
        let below = |folder, path| below("ds", folder, Path::new(path)).map_err(|e| e.kind());
        for folder in ["vm", "/vm/", "[ds] vm", "[ds]vm/"] {
            assert_eq!(below(folder, "a.vmdk").unwrap(), "[ds] vm/a.vmdk", "{folder}");
        }
        assert_eq!(below("", "/a/b.vmdk").unwrap(), "[ds] a/b.vmdk");
        assert_eq!(below("vm", "[other] a.vmdk").unwrap(), "[other] a.vmdk");
        for (folder, path) in [("vm", "../a"), ("vm/..", "a"), ("vm", ""), ("vm", "/")] {
            assert_eq!(below(folder, path), Err(ErrorKind::NameInvalid), "{folder} {path}");
        }
    }
}
