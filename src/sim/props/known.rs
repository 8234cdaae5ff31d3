//! The types of objects: what they inherit from, and which properties they have that may not be set here (T: the published
//! type definitions, as pyVmomi carries them).

/// The types that a type is, itself included.
pub fn is_a(kind: &str, wanted: &str) -> bool {
    if kind == wanted || wanted == "ManagedObject" {
        return true;
    }
    match wanted {
        "ManagedEntity" => ENTITIES.contains(&kind),
        "ExtensibleManagedObject" => {
            ENTITIES.contains(&kind) || matches!(kind, "VirtualMachineSnapshot" | "Task")
        }
        "ComputeResource" => kind == "ClusterComputeResource",
        "View" => matches!(kind, "ContainerView" | "ListView"),
        "ManagedObjectView" => matches!(kind, "ContainerView" | "ListView"),
        "VStorageObjectManagerBase" => kind.ends_with("VStorageObjectManager"),
        _ => false,
    }
}

const ENTITIES: &[&str] = &[
    "Folder",
    "Datacenter",
    "ComputeResource",
    "ClusterComputeResource",
    "HostSystem",
    "ResourcePool",
    "Datastore",
    "Network",
    "VirtualMachine",
];

const OF_ENTITIES: &[&str] = &[
    "value",
    "availableField",
    "parent",
    "customValue",
    "overallStatus",
    "configStatus",
    "configIssue",
    "effectiveRole",
    "permission",
    "name",
    "disabledMethod",
    "recentTask",
    "declaredAlarmState",
    "triggeredAlarmState",
    "alarmActionsEnabled",
    "tag",
];

/// Own properties by type.
const OWN: &[(&str, &[&str])] = &[
    (
        "VirtualMachine",
        &[
            "capability",
            "config",
            "layout",
            "layoutEx",
            "storage",
            "environmentBrowser",
            "resourcePool",
            "parentVApp",
            "resourceConfig",
            "runtime",
            "guest",
            "summary",
            "datastore",
            "network",
            "snapshot",
            "rootSnapshot",
            "guestHeartbeatStatus",
        ],
    ),
    ("VirtualMachineSnapshot", &["value", "availableField", "config", "childSnapshot", "vm"]),
    ("Folder", &["childType", "childEntity", "namespace"]),
    (
        "Datacenter",
        &[
            "vmFolder",
            "hostFolder",
            "datastoreFolder",
            "networkFolder",
            "datastore",
            "network",
            "configuration",
        ],
    ),
    (
        "ComputeResource",
        &["resourcePool", "host", "datastore", "network", "summary", "environmentBrowser", "configurationEx"],
    ),
    (
        "ClusterComputeResource",
        &[
            "resourcePool",
            "host",
            "datastore",
            "network",
            "summary",
            "environmentBrowser",
            "configurationEx",
            "configuration",
            "recommendation",
            "drsRecommendation",
            "migrationHistory",
            "actionHistory",
            "drsFault",
        ],
    ),
    (
        "HostSystem",
        &[
            "runtime",
            "summary",
            "hardware",
            "capability",
            "licensableResource",
            "configManager",
            "config",
            "vm",
            "datastore",
            "network",
            "datastoreBrowser",
            "systemResources",
        ],
    ),
    ("ResourcePool", &["summary", "runtime", "owner", "resourcePool", "vm", "config", "childConfiguration"]),
    ("Datastore", &["info", "summary", "host", "vm", "browser", "capability", "iormConfiguration"]),
    ("HostDatastoreBrowser", &["datastore", "supportedType"]),
    ("Network", &["summary", "host", "vm"]),
    ("Task", &["value", "availableField", "info"]),
    ("ServiceInstance", &["serverClock", "capability", "content"]),
    (
        "SessionManager",
        &[
            "sessionList",
            "currentSession",
            "message",
            "messageLocaleList",
            "supportedLocaleList",
            "defaultLocale",
        ],
    ),
    ("TaskManager", &["recentTask", "description", "maxCollector"]),
    ("AuthorizationManager", &["privilegeList", "roleList", "description"]),
    ("ViewManager", &["viewList"]),
    ("ContainerView", &["view", "container", "type", "recursive"]),
    ("ListView", &["view"]),
    ("PropertyCollector", &["filter"]),
    ("PropertyFilter", &["spec", "partialUpdates"]),
];

/// True for a property that objects of this type may have.
pub fn is_property(kind: &str, name: &str) -> bool {
    (ENTITIES.contains(&kind) && OF_ENTITIES.contains(&name))
        || OWN.iter().any(|(of, names)| *of == kind && names.contains(&name))
}
