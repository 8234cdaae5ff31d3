//! Making a new disk on this machine: the files that a layout lists, all of them or none.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::create;
use crate::format::create::CreateSpec;
use crate::format::create::DiskType;
use crate::format::create::Layout;
use crate::format::create::NewFile;
use crate::format::create::NewIdentity;
use crate::format::stream::write;
use crate::session::library::Library;
use crate::storage::Storage;
use crate::storage::file::FileStorage;
use crate::storage::os;

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
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("{} exists", path.display())));
    }
    let mut random = [0; 28];
    os::random_bytes(&mut random).context(|| "random identity")?;
    let layout = layout_of(spec, name, &NewIdentity::from_random(&random))?;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    progress(0);
    let mut made = Made { files: Vec::new(), keep: false };
    write_files(&layout, folder, &mut made, progress)?;
    made.keep = true;
    progress(100);
    library.log().info(|| {
        format!("VixDiskLib: created {} ({:?}, {} sectors)", path.display(), spec.disk_type, spec.capacity.0)
    });
    Ok(())
}

/// The files of the disk types this build makes.
pub(super) fn layout_of(spec: &CreateSpec, name: &str, identity: &NewIdentity) -> Result<Layout> {
    match spec.disk_type {
        DiskType::MonolithicSparse => create::monolithic_sparse(spec, name, identity),
        DiskType::MonolithicFlat => create::monolithic_flat(spec, name, identity),
        DiskType::StreamOptimized => write::stream_optimized(spec, name, identity),
        other => {
            Err(Error::new(ErrorKind::NotSupported, format!("disks of type {other:?} cannot be made yet")))
        }
    }
}

/// The files made so far; removed when dropped unless kept.
struct Made {
    files: Vec<PathBuf>,
    keep: bool,
}

impl Drop for Made {
    fn drop(&mut self) {
        if !self.keep {
            self.files.iter().for_each(|file| {
                let _ = std::fs::remove_file(file); // the error that led here is the one to tell
            });
        }
    }
}

/// Writes every file and makes them and their names durable.
fn write_files(layout: &Layout, folder: &Path, made: &mut Made, progress: &mut dyn FnMut(u8)) -> Result<()> {
    let total: u64 = layout.files.iter().map(|file| file.len).sum::<u64>().max(1);
    let mut before = 0;
    let mut last = 0;
    for file in &layout.files {
        let path = folder.join(&file.name);
        let storage = FileStorage::create(&path)?;
        made.files.push(path);
        write_file(&storage, file, &mut |bytes| {
            let percent = u8::try_from(u128::from(before + bytes) * 99 / u128::from(total)).unwrap_or(99);
            if percent > last {
                last = percent;
                progress(percent);
            }
        })?;
        before += file.len;
    }
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .context(|| format!("making the names in {} durable", folder.display()))
}

fn write_file(storage: &FileStorage, file: &NewFile, progress: &mut dyn FnMut(u64)) -> Result<()> {
    if file.preallocate {
        storage.preallocate(file.len, progress)?;
    } else {
        storage.set_len(file.len)?;
    }
    file.pieces.iter().try_for_each(|piece| storage.write_at(&piece.bytes, piece.offset))?;
    storage.flush()
}
