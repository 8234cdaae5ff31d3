//! Renaming a disk.
//!
//! ```text
//!   1  the extents get their new names as second ones; the new description is written and gets its name last
//!   2  from here on there are two complete disks in the same files; children next to them turn to the new one
//!   3  the old description goes, then the old names of the extents
//! ```

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::create;
use crate::format::descriptor::Descriptor;
use crate::format::descriptor::ExtentLine;
use crate::session::library::Library;
use crate::session::maintain::children;
use crate::session::maintain::children::Follower;
use crate::session::maintain::children::children_of;
use crate::session::maintain::held::Held;
use crate::storage::file_system::FileSystem;
use crate::storage::names;
use crate::storage::names::NewNames;
use crate::transport::local;

/// Renames the disk at `from`. `AlreadyExists` when one of the new names is taken.
pub(super) fn rename(from: &Path, to: &Path, library: &Library) -> Result<()> {
    let target = Target::new(to)?;
    let files = library.files();
    let held = Held::hold(from, library)?;
    held.check_complete()?;
    let plan = Plan::new(&held, &target)?;
    let cid = held.anatomy.descriptor.cid();
    let mut followers = children_of(&**files, &held.path, cid, &[held.folder(), &target.folder])?
        .iter()
        .map(|child| Follower::new(child, &target.path, library))
        .collect::<Result<Vec<Follower>>>()?;
    let mut made = NewNames::on(files);
    let switched = plan.make(files, &held, &target, &mut made).and_then(|()| {
        followers.iter_mut().try_for_each(Follower::follow)?;
        files.remove(&held.path)?;
        files.flush_folder(held.folder())
    });
    if let Err(e) = switched {
        if held.path.exists() {
            followers.iter_mut().for_each(|follower| follower.turn_back(library));
            plan.turn_back(&held, library);
            return Err(e);
        }
        library.log().warning(|| format!("{} is renamed, perhaps not yet for good: {e}", from.display()));
    }
    made.keep();
    children::remove_all(&**files, &plan.old_names(&held))?;
    library.log().info(|| {
        let count = followers.len();
        format!("VixDiskLib: renamed {} to {}, {count} children follow", from.display(), to.display())
    });
    Ok(())
}

/// Where the disk goes.
struct Target {
    path: PathBuf,
    /// Absolute, without symbolic links.
    folder: PathBuf,
    name: String,
}

impl Target {
    fn new(to: &Path) -> Result<Target> {
        let Some(name) = to.file_name().and_then(|name| name.to_str()) else {
            let message = format!("{} names no file, or not in UTF-8", to.display());
            return Err(Error::new(ErrorKind::NameInvalid, message));
        };
        create::check_name(name)?;
        create::check_length(name)?;
        let folder = match to.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = folder.canonicalize().context(|| format!("folder {}", folder.display()))?;
        let path = folder.join(name);
        if std::fs::symlink_metadata(&path).is_ok() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("{} exists", path.display())));
        }
        Ok(Target { path, folder, name: name.to_owned() })
    }
}

/// What changes, worked out before anything does.
struct Plan {
    /// Second names of files: the old and the new path.
    links: Vec<(PathBuf, PathBuf)>,
    descriptor: Descriptor,
}

impl Plan {
    fn new(held: &Held, target: &Target) -> Result<Plan> {
        let moves = held.folder() != target.folder;
        let bases = (create::base_name(held.name()?), create::base_name(&target.name));
        let mut plan = Plan { links: Vec::new(), descriptor: held.anatomy.descriptor.clone() };
        let mut extents = held.anatomy.descriptor.extents().to_vec();
        if let ([only], Some(_)) = (&mut extents[..], &held.anatomy.embedded) {
            only.name = Some(target.name.clone());
        }
        for (line, file) in extents.iter_mut().zip(&held.extents) {
            let Some(file) = file else { continue };
            plan.rename_extent(line, &file.path, bases, target, moves)?;
        }
        let hint = match held.anatomy.descriptor.parent_hint() {
            Some(hint) if moves => Some(match local::parent_of(held.folder(), hint) {
                Some(parent) => local::hint_for(&target.folder, &parent)?,
                None => hint.to_owned(),
            }),
            hint => hint.map(str::to_owned),
        };
        plan.descriptor.set_links(&extents, hint.as_deref())?;
        if let Some((name, path)) = held.tracking() {
            let new = renamed(name, bases);
            plan.descriptor.set_change_track_path(&new)?;
            plan.link(path, target.folder.join(new));
        }
        Ok(plan)
    }

    fn rename_extent(
        &mut self,
        line: &mut ExtentLine,
        path: &Path,
        bases: (&str, &str),
        target: &Target,
        moves: bool,
    ) -> Result<()> {
        let Some(name) = line.name.as_deref() else { return Ok(()) };
        let simple = !name.contains('/');
        let is_link = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
        if moves && (is_link || !simple && !name.starts_with('/')) {
            let message = format!("extent {name:?} lies elsewhere: the disk cannot move to another folder");
            return Err(Error::new(ErrorKind::NotSupported, message));
        }
        if simple {
            let new = renamed(name, bases);
            self.link(path.to_owned(), target.folder.join(&new));
            line.name = Some(new);
        }
        Ok(())
    }

    fn link(&mut self, old: PathBuf, new: PathBuf) {
        if old != new && !self.links.iter().any(|(_, known)| *known == new) {
            self.links.push((old, new));
        }
    }

    /// Makes the new disk beside the old one. Its names are in `made`.
    fn make(
        &self,
        files: &Arc<dyn FileSystem>,
        held: &Held,
        target: &Target,
        made: &mut NewNames,
    ) -> Result<()> {
        for (old, new) in &self.links {
            if !is_same_file(old, new) {
                files.link(old, new)?;
                made.add(new.clone());
            }
        }
        files.flush_folder(&target.folder)?;
        if held.anatomy.embedded.is_some() {
            files.link(&held.path, &target.path)?;
            made.add(target.path.clone());
            files.flush_folder(&target.folder)?;
            return self.put_embedded(held);
        }
        let like = std::fs::metadata(&held.path).context(|| held.path.display().to_string())?;
        let temporary = names::temporary(&target.folder)?;
        let mut aside = NewNames::on(files);
        aside.add(temporary.clone());
        local::write_aside(&**files, &temporary, &self.descriptor.to_bytes()?, &like)?;
        files.link(&temporary, &target.path)?;
        made.add(target.path.clone());
        drop(aside);
        files.flush_folder(&target.folder)
    }

    /// Readers go by the file they opened and not by the name inside it: where there is no room for another one, as in the
    /// one sector of an ESXi export, the old one stays.
    fn put_embedded(&self, held: &Held) -> Result<()> {
        let same_parent = self.descriptor.parent_hint() == held.anatomy.descriptor.parent_hint();
        match children::put(held, &self.descriptor) {
            Err(e) if e.kind() == ErrorKind::DiskFull && same_parent => Ok(()),
            result => result,
        }
    }

    /// Puts the name inside an embedded description back.
    fn turn_back(&self, held: &Held, library: &Library) {
        if held.anatomy.embedded.is_some()
            && let Err(e) = children::put(held, &held.anatomy.descriptor)
        {
            let path = held.path.display();
            library.log().warning(|| format!("{path}: the name inside could not be put back: {e}"));
        }
    }

    /// The names that nobody needs any more.
    fn old_names(&self, held: &Held) -> BTreeSet<PathBuf> {
        let mut old: BTreeSet<PathBuf> = self.links.iter().map(|(old, _)| old.clone()).collect();
        if std::fs::symlink_metadata(&held.given).is_ok_and(|meta| meta.is_symlink()) {
            old.insert(held.given.clone());
        }
        old
    }
}

/// The name with its beginning replaced, if it is that of the disk: `d-flat.vmdk` becomes `e-flat.vmdk`.
pub fn renamed(name: &str, (old, new): (&str, &str)) -> String {
    match name.strip_prefix(old) {
        Some(rest) if rest.starts_with(['-', '.']) => format!("{new}{rest}"),
        _ => name.to_owned(),
    }
}

/// True when `new` is a second name of `old`: left by a renaming that died.
fn is_same_file(old: &Path, new: &Path) -> bool {
    let identity = |path| std::fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    identity(old).is_some() && identity(old) == identity(new)
}
