//! Making a new disk on this machine: the files that a layout lists, all of them or none.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::create;
use crate::format::create::CreateSpec;
use crate::format::create::NewFile;
use crate::format::create::NewIdentity;
use crate::session::library::Library;
use crate::storage::file_system::FileSystem;
use crate::storage::file_system::NamedFile;
use crate::storage::names::NewNames;
use crate::storage::os;
use crate::units::SECTOR;

/// Makes the disk `spec` at `path`, which must not exist. What was made before a failure is removed again.
pub(super) fn create_local(
    path: &Path,
    spec: &CreateSpec,
    library: &Arc<Library>,
    progress: &mut dyn FnMut(u8),
) -> Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(Error::new(
            ErrorKind::NameInvalid,
            format!("{} names no file, or not in UTF-8", path.display()),
        ));
    };
    let mut random = [0; 28];
    os::random_bytes(&mut random).context(|| "random identity")?;
    let layout = create::layout(spec, name, &NewIdentity::from_random(&random))?;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    progress(0);
    make_files(library.files(), &layout.files, folder, progress)?.keep();
    progress(100);
    library.log().info(|| {
        format!("VixDiskLib: created {} ({:?}, {} sectors)", path.display(), spec.disk_type, spec.capacity.0)
    });
    Ok(())
}

/// Makes files of a layout in `folder`: none of them has a name before it is complete, and the last one gets its name when
/// those of all others are stable.
pub(super) fn make_files(
    place: &Arc<dyn FileSystem>,
    files: &[NewFile],
    folder: &Path,
    progress: &mut dyn FnMut(u8),
) -> Result<NewNames> {
    for file in files {
        let path = folder.join(&file.name);
        if std::fs::symlink_metadata(&path).is_ok() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("{} exists", path.display())));
        }
    }
    let total: u64 = files.iter().map(|file| file.len).sum::<u64>().max(1);
    let (mut before, mut last) = (0, 0);
    let mut made = NewNames::on(place);
    for (i, file) in files.iter().enumerate() {
        if i > 0 && i + 1 == files.len() {
            place.flush_folder(folder)?;
        }
        make_file(&**place, file, folder.join(&file.name), &mut made, &mut |bytes| {
            let percent = u8::try_from(u128::from(before + bytes) * 99 / u128::from(total)).unwrap_or(99);
            if percent > last {
                last = percent;
                progress(percent);
            }
        })?;
        before += file.len;
    }
    place.flush_folder(folder)?;
    Ok(made)
}

fn make_file(
    place: &dyn FileSystem,
    file: &NewFile,
    path: PathBuf,
    made: &mut NewNames,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    if let Some(storage) = place.create_unnamed(&path) {
        fill(&*storage, file, progress)?;
        storage.flush()?;
        storage.give_name()?;
        made.add(path);
        return Ok(());
    }
    let storage = place.create(&path)?;
    made.add(path);
    // Its first sector comes last: without it, it is nothing that could be opened.
    let mut rest = file.clone();
    let head = rest.pieces.first_mut().filter(|piece| piece.offset == 0).map(|piece| {
        let later = piece.bytes.split_off(piece.bytes.len().min(SECTOR as usize));
        piece.offset = SECTOR;
        std::mem::replace(&mut piece.bytes, later)
    });
    rest.pieces.retain(|piece| !piece.bytes.is_empty());
    fill(&*storage, &rest, progress)?;
    storage.flush()?;
    if let Some(head) = head {
        storage.write_at(&head, 0)?;
        storage.flush()?;
    }
    Ok(())
}

/// Gives a file its length and content.
fn fill(storage: &dyn NamedFile, file: &NewFile, progress: &mut dyn FnMut(u64)) -> Result<()> {
    if file.preallocate {
        storage.preallocate(0..file.len, progress)?;
    } else {
        storage.set_len(file.len)?;
    }
    file.pieces.iter().try_for_each(|piece| storage.write_at(&piece.bytes, piece.offset))
}
