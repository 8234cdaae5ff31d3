//! The way to a disk whose files are read from its datastore over HTTPS.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::open::OpenOptions;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::stream::PackOptions;
use crate::logging::Log;
use crate::net::http::Door;
use crate::net::http::Hidden;
use crate::net::nfc::identity::Identity;
use crate::net::tls::Tls;
use crate::net::vim::Moref;
use crate::secret::Secret;
use crate::transport::Mode;
use crate::transport::choice::Way;
use crate::transport::homes::Home;
use crate::transport::https::FilePath;
use crate::transport::https::Pass;
use crate::transport::https::ServedDisk;
use crate::transport::https::Site;
use crate::transport::https::SiteOptions;
use crate::transport::https::Spelling;
use crate::transport::https::Spellings;
use crate::transport::vsphere::host::Served;
use crate::transport::vsphere::sessions::Shared;
use crate::transport::vsphere::soap::Soap;
use crate::transport::vsphere::way::DiskWay;

/// Memory of a disk that is put together here.
#[derive(Clone, Copy, Debug)]
pub struct Caches {
    /// Bytes of grain tables.
    pub tables: usize,
    /// Bytes of inflated grains.
    pub grains: usize,
}

/// A disk over HTTPS.
#[derive(Debug)]
pub struct HttpsWay {
    /// Who lets us in.
    pub session: Arc<Shared>,
    /// `[datastore] folder/disk.vmdk`.
    pub path: String,
    /// The machine or the datastore, to find the datacenter that it is in.
    pub inside: Option<Moref>,
    /// Writes will come.
    pub write: bool,
    /// Memory.
    pub caches: Caches,
    /// What is known of servers.
    pub spellings: Arc<Spellings>,
    /// Where is said what happens.
    pub log: Log,
    /// What was found when it was opened last.
    pub said: Mutex<Option<Served>>,
}

/// The datacenter of a host without a vCenter.
const DATACENTER_OF_HOSTS: &str = "ha-datacenter";

impl HttpsWay {
    fn site(&self, soap: &dyn Soap) -> Result<Site> {
        let is_vcenter = soap.is_vcenter();
        let datacenter = match (is_vcenter, &self.inside) {
            (false, _) => DATACENTER_OF_HOSTS.to_owned(),
            (true, Some(inside)) => soap.datacenter_path(inside)?,
            (true, None) => {
                let what = format!(
                    "neither machine nor datastore of {} is known, and so not its datacenter",
                    self.path
                );
                return Err(Error::new(ErrorKind::NotSupported, what));
            }
        };
        let (server, times) = (self.session.server(), self.session.times());
        let tls = Tls::new(&server.tls, self.log.clone())?;
        let options = SiteOptions {
            datacenter,
            spelling: if is_vcenter { Spelling::Twice } else { Spelling::Once },
            tries_other: is_vcenter,
            connect: times.connect,
            request: times.request,
        };
        let door = Door { host: server.host.clone(), port: server.port, tls };
        let pass = Arc::new(SessionPass(Arc::clone(&self.session)));
        Ok(Site::new(Box::new(door), pass, options, Arc::clone(&self.spellings), self.log.clone()))
    }

    fn open_disk(&self) -> Result<Served> {
        let path = FilePath::parse(&self.path)?;
        let site = Arc::new(self.site(&*self.session.soap()?)?);
        let options = OpenOptions {
            write: false,
            direct: false,
            single_link: false,
            table_cache: self.caches.tables,
            grain_cache: self.caches.grains,
            pack: PackOptions::without_threads(1),
            log: self.log.clone(),
        };
        let url = format!("https://{path}@{}", self.session.name());
        let disk = Arc::new(ServedDisk::open(site, path, &options)?);
        let (database, chain) = (disk.database(), Some(disk.chain()));
        let identity = Identity::of(&database, self.write);
        let home = Home { blocks: disk.clone(), line: disk, identity };
        Ok(Served { home, url, geometry: None, database, chain })
    }
}

impl Way for HttpsWay {
    type Opened = Home;

    fn mode(&self) -> Mode {
        Mode::Https
    }

    fn open(&self) -> Result<Home> {
        let opening = || format!("opening {} over https", self.path);
        if self.write {
            let what = "files of a datastore can only be read over https";
            return Err(Error::new(ErrorKind::NotSupported, what).context(opening()));
        }
        let served = self.open_disk().context(opening)?;
        let home = served.home.clone();
        *self.said.lock() = Some(served);
        Ok(home)
    }
}

impl DiskWay for HttpsWay {
    fn said(&self) -> Option<Served> {
        self.said.lock().take()
    }
}

/// The session that the disk's connection has.
#[derive(Debug)]
struct SessionPass(Arc<Shared>);

impl Pass for SessionPass {
    fn cookie(&self) -> Result<Secret> {
        Ok(self.0.soap()?.cookie())
    }

    fn renew(&self, stale: &Secret) -> Result<Option<Secret>> {
        self.0.soap()?.renew(stale)
    }

    fn hidden(&self) -> Result<Hidden> {
        Ok(self.0.soap()?.hidden())
    }
}
