//! What all parts of one simulator share, and the door through which requests of HTTPS come in.

use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::logging::Log;
use crate::sim::certificate::Identity;
use crate::sim::disks::uses::Uses;
use crate::sim::fault::Faults;
use crate::sim::folder;
use crate::sim::hosts;
use crate::sim::hosts::Host;
use crate::sim::http::request::Request;
use crate::sim::http::response::Response;
use crate::sim::http::server::Handler;
use crate::sim::injected;
use crate::sim::injected::Instead;
use crate::sim::options::Options;
use crate::sim::personality::Personality;
use crate::sim::session::Sessions;
use crate::sim::soap::envelope;
use crate::sim::tickets::Tickets;
use crate::sim::world::World;
use crate::threads::Threads;

/// One simulator.
pub struct Site {
    /// How it was started.
    pub options: Options,
    /// The release that it is.
    pub personality: &'static Personality,
    /// The certificate of HTTPS.
    pub identity: Identity,
    /// Where HTTPS is served.
    pub sdk: SocketAddr,
    /// Its hosts; there is at least one.
    pub hosts: Vec<Host>,
    /// What there is.
    pub world: Mutex<World>,
    /// Something in the world changed.
    pub changed: Condvar,
    /// Who is logged in.
    pub sessions: Sessions,
    /// What was promised to whom.
    pub tickets: Tickets,
    /// Which files are open.
    pub uses: Arc<Uses>,
    /// The rules about what goes wrong.
    pub faults: Arc<Faults>,
    /// The threads of tasks.
    pub threads: Threads,
    /// It ends: nobody waits any longer.
    pub ending: AtomicBool,
    /// Where lines go.
    pub log: Log,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("options", &self.options).field("sdk", &self.sdk).finish_non_exhaustive()
    }
}

impl Site {
    /// Changes the world; those who wait for changes look again.
    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world.lock();
        let result = change(&mut world);
        drop(world);
        self.changed.notify_all();
        result
    }

    /// A host. Machines are on hosts that exist; callers with a number of somebody else's ask `hosts` itself.
    pub fn host(&self, at: usize) -> &Host {
        &self.hosts[at]
    }

    /// The address of the hosts as it stands in tickets.
    pub fn host_address(&self) -> String {
        hosts::reachable(self.host(0).address().map_or(self.sdk.ip(), |address| address.ip()))
    }

    /// The name of a host in the inventory: the first one is called by its address, the others, which share it, by their ports
    /// as well.
    pub fn host_name(&self, at: usize) -> String {
        let address = self.host_address();
        let port = self.host(at).port();
        match (at, address.contains(':')) {
            (0, _) => address,
            (_, true) => format!("[{address}]:{port}"),
            (_, false) => format!("{address}:{port}"),
        }
    }
}

/// The handler that the server calls: a share of the site.
#[derive(Debug)]
pub struct Door(pub Arc<Site>);

impl Handler for Door {
    fn answer(&self, request: &Request, peer: IpAddr) -> Response {
        let site = &self.0;
        let get = matches!(request.method.as_str(), "GET" | "HEAD");
        match request.path.as_str() {
            "/sdk" | "/sdk/" | "/sdk/vimService" if request.method == "POST" => {
                envelope::answer(site, request, peer)
            }
            "/sdk/vimServiceVersions.xml" if get => {
                Response::xml(200, envelope::versions("urn:vim25", site.personality.versions()))
            }
            "/sdk/nfcServiceVersions.xml" if get => match site.personality.nfc_service {
                Some(version) => Response::xml(200, envelope::versions("urn:nfc", &[version])),
                None => Response::text(404, "There is no such page\n"),
            },
            path if path == "/folder" || path.starts_with("/folder/") => match injected::at(site, "folder") {
                Some(Instead::Answer(response)) => response,
                Some(Instead::Fault(fault)) => Response::text(500, fault.text),
                Some(Instead::Half) => folder::answer(site, request, peer).half(),
                None => folder::answer(site, request, peer),
            },
            "/sdk" | "/sdk/" | "/sdk/vimService" => Response::text(405, "This page takes POST\n"),
            _ => Response::text(404, "There is no such page\n"),
        }
    }

    fn end(&self) {
        self.0.ending.store(true, Ordering::Release);
        // Under the lock, so that nobody begins to wait between the flag and the call.
        drop(self.0.world.lock());
        self.0.changed.notify_all();
    }
}
