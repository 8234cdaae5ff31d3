//! The new disk before anybody can see it, and how it comes to its place.
//!
//! A copy of several files that replaces a disk needs names of its own for them, since the old disk stays whole until the
//! copy has its name: `t-1-flat.vmdk`. Once the old files are gone, the new ones get the names that they would have had
//! otherwise: second names first, then a descriptor with those, in one step, then the first names go. In between the copy
//! is complete under one set of names or the other.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::create::DiskType;
use crate::format::create::base_name;
use crate::session::copy::Target;
use crate::session::copy::files::SourceFiles;
use crate::session::copy::files::descriptor_at;
use crate::session::copy::files::files_beside;
use crate::session::copy::leftover::Hidden;
use crate::session::copy::leftover::NEW;
use crate::session::copy::leftover::OLD;
use crate::session::library::Library;
use crate::session::maintain::renamed;
use crate::storage::file_system::FileSystem;
use crate::storage::names::NewNames;
use crate::transport::local;

/// A longer name is shortened before it gets a number.
const LONGEST_BASE: usize = 160;

/// A disk in a hidden folder of its own, which is removed with everything in it when this is dropped.
pub(super) struct Staged<'a> {
    hidden: Hidden<'a>,
    /// Its name there: extents are called after it.
    name: String,
}

impl Staged<'_> {
    /// An empty folder beside the target.
    pub fn new<'a>(library: &'a Library, target: &Target<'_>, kind: DiskType) -> Result<Staged<'a>> {
        let (folder, name) = split(target.path)?;
        let hidden = Hidden::new(library, folder, name)?;
        let one_file = matches!(kind, DiskType::MonolithicSparse | DiskType::StreamOptimized);
        let name = match target.replaces && !one_file {
            true => free_name(&**library.files(), folder, name),
            false => name.to_owned(),
        };
        Ok(Staged { hidden, name })
    }

    /// Where it is to be made.
    pub fn disk(&self) -> PathBuf {
        self.hidden.path.join(NEW).join(&self.name)
    }

    /// Moves the disk to its place.
    pub fn install(self, target: &Target<'_>, sources: &SourceFiles, library: &Library) -> Result<()> {
        let files = library.files();
        let (folder, name) = split(target.path)?;
        let old = if target.replaces { files_beside(target.path) } else { Vec::new() };
        for file in &old {
            // Without it, a killed process leaves the file for good, that is all.
            let _ = files.link(file, &self.keepsake(OLD, file));
        }
        let mut moved = NewNames::on(files);
        let mut new = Vec::new();
        for path in files.list(&self.hidden.path.join(NEW))? {
            let Some(name) = path.file_name() else { continue };
            if *name != *self.name && path.is_file() {
                let place = folder.join(name);
                give_name(&**files, &path, &place)?;
                moved.add(place.clone());
                new.push(place);
            }
        }
        files.flush_folder(folder)?;
        match target.replaces {
            true => {
                keep_rights(target.path, &self.disk());
                let what = || format!("replacing {}", target.path.display());
                files.rename(&self.disk(), target.path).context(what)?;
            }
            false => give_name(&**files, &self.disk(), target.path)?,
        }
        moved.keep();
        files.flush_folder(folder)?;
        // The copy is there: an old file that stays behind is no reason to call it failed.
        for file in old.iter().filter(|file| !new.contains(file) && !sources.name(file)) {
            if let Err(e) = files.remove(file) {
                let line = format!("{} of the overwritten disk was not removed: {e}", file.display());
                library.log().warning(|| line);
            }
        }
        if self.name != name
            && let Err(e) =
                self.settle(target.path, folder, (base_name(&self.name), base_name(name)), library)
        {
            let line = format!("the files of {} keep their names: {e}", target.path.display());
            library.log().info(|| line);
        }
        Ok(())
    }

    /// A name in the hidden folder for a file outside.
    fn keepsake(&self, part: &str, file: &Path) -> PathBuf {
        self.hidden.path.join(part).join(file.file_name().unwrap_or_default())
    }

    /// Gives the extents of the copy at `disk` names that begin with the second base instead of the first. Whatever fails,
    /// the copy stays as it was.
    fn settle(&self, disk: &Path, folder: &Path, bases: (&str, &str), library: &Library) -> Result<()> {
        let files = library.files();
        let Some(mut descriptor) = descriptor_at(disk) else {
            return Err(Error::new(ErrorKind::NotADisk, format!("{} is no descriptor", disk.display())));
        };
        let mut extents = descriptor.extents().to_vec();
        let mut made = NewNames::on(files);
        let mut former = Vec::new();
        for extent in &mut extents {
            let Some(name) = extent.name.as_mut() else { continue };
            let (before, after) = (folder.join(&*name), folder.join(renamed(name, bases)));
            if before == after {
                continue;
            }
            *name = renamed(name, bases);
            // First where a killed process leaves it for others to find.
            files.link(&before, &self.keepsake(NEW, &after))?;
            files.link(&before, &after)?;
            made.add(after);
            former.push(before);
        }
        files.flush_folder(folder)?;
        descriptor.set_links(&extents, None)?;
        let like = fs::metadata(disk).context(|| disk.display().to_string())?;
        let text = self.hidden.path.join("descriptor");
        local::write_aside(&**files, &text, &descriptor.to_bytes()?, &like)?;
        files.rename(&text, disk)?;
        made.keep();
        files.flush_folder(folder)?;
        former.iter().try_for_each(|file| files.remove(file))
    }
}

/// Folder and name of a path; the name as text, since descriptors hold it.
fn split(path: &Path) -> Result<(&Path, &str)> {
    match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(folder), Some(name)) => Ok((folder, name)),
        _ => Err(Error::new(
            ErrorKind::NameInvalid,
            format!("{} names no file, or not in UTF-8", path.display()),
        )),
    }
}

/// `name`, or `name` with a number, such that no file in `folder` begins with it and a dash.
fn free_name(files: &dyn FileSystem, folder: &Path, name: &str) -> String {
    let base = base_name(name);
    let end = name.get(base.len()..).unwrap_or_default();
    let taken = files.list(folder).unwrap_or_default();
    let name_of = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let taken: Vec<String> = taken.iter().filter_map(name_of).collect();
    let is_free = |base: &String| !taken.iter().any(|name| name.starts_with(&format!("{base}-")));
    let short = base.get(..base.floor_char_boundary(LONGEST_BASE)).unwrap_or(base);
    let numbered = (1u64..).map(|n| format!("{short}-{n}"));
    let free = std::iter::once(base.to_owned()).chain(numbered).find(is_free);
    free.unwrap_or_else(|| base.to_owned()) + end
}

/// Gives a file a further name that nobody has, or another one where files have one name only; an existing one is an error.
fn give_name(files: &dyn FileSystem, from: &Path, to: &Path) -> Result<()> {
    match files.link(from, to) {
        Err(e) if e.kind() == ErrorKind::NotSupported => match fs::symlink_metadata(to) {
            Ok(_) => Err(e.with_kind(ErrorKind::AlreadyExists).context(format!("{} exists", to.display()))),
            Err(_) => files.rename(from, to),
        },
        result => result,
    }
}

/// The new file gets the mode of the one it replaces.
fn keep_rights(old: &Path, new: &Path) {
    if let Ok(meta) = fs::metadata(old) {
        let _ = fs::set_permissions(new, meta.permissions()); // as good as it gets on this file system
    }
}
