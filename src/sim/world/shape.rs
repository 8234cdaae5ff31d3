//! The identifiers of objects that always exist, as a vCenter and as a bare host name them.

use crate::sim::value::Moref;

/// Which of the two it is, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// A bare host.
    pub esxi: bool,
    /// How many hosts there are.
    pub hosts: usize,
}

/// An object of which there is one: its type and its identifiers on a vCenter and on a host; no identifier: it has none.
struct Single(&'static str, &'static str, &'static str);

/// The fields of the service content, in the order of the type (T), and the objects behind them (O and V for those that
/// `vsphere.md` names, T for the rest).
const CONTENT: &[(&str, Single)] = &[
    ("rootFolder", Single("Folder", "group-d1", "ha-folder-root")),
    ("propertyCollector", Single("PropertyCollector", "propertyCollector", "ha-property-collector")),
    ("viewManager", Single("ViewManager", "ViewManager", "ViewManager")),
    ("sessionManager", Single("SessionManager", "SessionManager", "ha-sessionmgr")),
    ("authorizationManager", Single("AuthorizationManager", "AuthorizationManager", "ha-authmgr")),
    ("taskManager", Single("TaskManager", "TaskManager", "ha-taskmgr")),
    ("searchIndex", Single("SearchIndex", "SearchIndex", "ha-searchindex")),
    ("fileManager", Single("FileManager", "FileManager", "ha-nfc-file-manager")),
    ("virtualDiskManager", Single("VirtualDiskManager", "virtualDiskManager", "ha-vdiskmanager")),
    ("vStorageObjectManager", Single("VcenterVStorageObjectManager", "VStorageObjectManager", "")),
    ("vStorageObjectManager", Single("HostVStorageObjectManager", "", "ha-vstorage-object-manager")),
];

const DATACENTER: Single = Single("Datacenter", "datacenter-2", "ha-datacenter");
const VM_FOLDER: Single = Single("Folder", "group-v3", "ha-folder-vm");
const HOST_FOLDER: Single = Single("Folder", "group-h4", "ha-folder-host");
const DATASTORE_FOLDER: Single = Single("Folder", "group-s5", "ha-folder-datastore");
const NETWORK_FOLDER: Single = Single("Folder", "group-n6", "ha-folder-network");
const COMPUTE: Single = Single("ComputeResource", "domain-s8", "ha-compute-res");
const CLUSTER: Single = Single("ClusterComputeResource", "domain-c8", "");
const HOST: Single = Single("HostSystem", "host-9", "ha-host");
const POOL: Single = Single("ResourcePool", "resgroup-10", "ha-root-pool");
const NETWORK: Single = Single("Network", "network-11", "HaNetwork-VM Network");
const NFC_SERVICE: Single = Single("NfcService", "nfcService", "ha-nfc-service");

/// The number behind which those of machines and their like begin.
pub const FIRST_NUMBER: u32 = 20;

impl Shape {
    fn of(self, single: &Single) -> Moref {
        Moref::new(single.0, if self.esxi { single.2 } else { single.1 })
    }

    /// The fields of the service content.
    pub fn content(self) -> impl Iterator<Item = (&'static str, Moref)> {
        CONTENT
            .iter()
            .map(move |(field, single)| (*field, self.of(single)))
            .filter(|(_, moref)| !moref.id.is_empty())
    }

    /// The object behind a field of the service content.
    pub fn manager(self, field: &str) -> Option<Moref> {
        self.content().find(|(name, _)| *name == field).map(|(_, moref)| moref)
    }

    /// The service instance.
    pub fn service(self) -> Moref {
        Moref::new("ServiceInstance", "ServiceInstance")
    }

    /// The NFC service.
    pub fn nfc_service(self) -> Moref {
        self.of(&NFC_SERVICE)
    }

    /// The top of the inventory.
    pub fn root(self) -> Moref {
        self.manager("rootFolder").unwrap_or_else(|| Moref::new("Folder", ""))
    }

    /// The datacenter.
    pub fn datacenter(self) -> Moref {
        self.of(&DATACENTER)
    }

    /// The folder of machines.
    pub fn vm_folder(self) -> Moref {
        self.of(&VM_FOLDER)
    }

    /// The folder of hosts.
    pub fn host_folder(self) -> Moref {
        self.of(&HOST_FOLDER)
    }

    /// The folder of datastores.
    pub fn datastore_folder(self) -> Moref {
        self.of(&DATASTORE_FOLDER)
    }

    /// The folder of networks.
    pub fn network_folder(self) -> Moref {
        self.of(&NETWORK_FOLDER)
    }

    /// What the hosts are part of: of a cluster, unless there is only one.
    pub fn compute(self) -> Moref {
        self.of(if self.hosts > 1 { &CLUSTER } else { &COMPUTE })
    }

    /// The hosts.
    pub fn hosts(self) -> impl Iterator<Item = Moref> {
        (0..self.hosts).map(move |at| self.host(at))
    }

    /// The host of this number.
    pub fn host(self, at: usize) -> Moref {
        match at {
            0 => self.of(&HOST),
            _ => Moref::new("HostSystem", format!("host-{}", 9000 + at)),
        }
    }

    /// The number of a host.
    pub fn host_number(self, host: &Moref) -> Option<usize> {
        self.hosts().position(|known| known == *host)
    }

    /// The pool of resources.
    pub fn pool(self) -> Moref {
        self.of(&POOL)
    }

    /// The network.
    pub fn network(self) -> Moref {
        self.of(&NETWORK)
    }

    /// The `at`th datastore.
    pub fn datastore(self, at: usize) -> Moref {
        let id = if self.esxi {
            format!("6566a7d2-7f2b2cc0-{at:04x}-005056000001")
        } else {
            format!("datastore-{}", 12 + at)
        };
        Moref::new("Datastore", id)
    }

    /// What looks through the `at`th datastore.
    pub fn browser(self, at: usize) -> Moref {
        Moref::new("HostDatastoreBrowser", format!("datastoreBrowser-{}", self.datastore(at).id))
    }

    /// The machine made as `number`, the `count`th one.
    pub fn machine(self, number: u32, count: usize) -> String {
        if self.esxi { count.to_string() } else { format!("vm-{number}") }
    }

    /// A snapshot.
    pub fn snapshot(self, machine: &str, number: u32, count: i32) -> String {
        if self.esxi { format!("{machine}-snapshot-{count}") } else { format!("snapshot-{number}") }
    }

    /// The name of the datacenter.
    pub fn datacenter_name(self) -> &'static str {
        if self.esxi { "ha-datacenter" } else { "Datacenter" }
    }
}
