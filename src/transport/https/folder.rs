//! A folder of a datastore as the descriptors in it see it: names lead to files of the same datastore, nowhere else.

use std::ffi::OsString;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::Access;
use crate::storage::Folder;
use crate::storage::Place;
use crate::storage::Storage;
use crate::transport::https::file::HttpsFile;
use crate::transport::https::path::FilePath;
use crate::transport::https::site::Site;
use crate::transport::identity_of;

/// A folder.
#[derive(Debug)]
pub struct HttpsFolder {
    site: Arc<Site>,
    path: FilePath,
}

/// Opens a file as the start of a chain.
pub fn open_place(site: &Arc<Site>, path: FilePath) -> Result<Place> {
    let label = path.to_string();
    let folder = HttpsFolder { site: site.clone(), path: path.folder() };
    let name = OsString::from(path.name());
    Ok(Place {
        storage: Arc::new(HttpsFile::open(site.clone(), path)?),
        folder: Arc::new(folder),
        name,
        identity: identity_of(&label),
        label,
    })
}

impl Folder for HttpsFolder {
    fn extent(&self, name: &str, access: Access) -> Result<Arc<dyn Storage>> {
        if access.write {
            let text = format!("{} is read over HTTPS and cannot be written to", self.path);
            return Err(Error::new(ErrorKind::ReadOnly, text));
        }
        Ok(Arc::new(HttpsFile::open(self.site.clone(), self.path.extent(name)?)?))
    }

    fn parent(&self, hint: &str, nth: usize) -> Result<Option<Place>> {
        match self.path.parents(hint).into_iter().nth(nth) {
            Some(path) => open_place(&self.site, path?).map(Some),
            None => Ok(None),
        }
    }
}
