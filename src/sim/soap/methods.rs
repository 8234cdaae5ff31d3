//! Which object has which method.

use std::sync::Arc;

use crate::sim::collector;
use crate::sim::props;
use crate::sim::site::Site;
use crate::sim::soap::authorization;
use crate::sim::soap::browse;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::call::Run;
use crate::sim::soap::changes;
use crate::sim::soap::envelope::show;
use crate::sim::soap::fault::Fault;
use crate::sim::soap::first_class;
use crate::sim::soap::generic;
use crate::sim::soap::login;
use crate::sim::soap::machine;
use crate::sim::soap::nfc;
use crate::sim::soap::reconfigure;
use crate::sim::soap::relocate;
use crate::sim::soap::search;
use crate::sim::soap::service;
use crate::sim::soap::snapshot;

/// A method: its name, the types of objects that have it, and what it does. A type that is empty is every type.
struct Method(&'static str, &'static [&'static str], Run);

const COLLECTOR: &[&str] = &["PropertyCollector"];
const SESSIONS: &[&str] = &["SessionManager"];
const SEARCH: &[&str] = &["SearchIndex"];
const NFC: &[&str] = &["NfcService"];
const SERVICE: &[&str] = &["ServiceInstance"];
const MACHINE: &[&str] = &["VirtualMachine"];
const SNAPSHOT: &[&str] = &["VirtualMachineSnapshot"];
const RIGHTS: &[&str] = &["AuthorizationManager"];
const BROWSER: &[&str] = &["HostDatastoreBrowser"];
const VIEWS: &[&str] = &["ContainerView", "ListView"];
const FCD: &[&str] = &["VcenterVStorageObjectManager"];
const HOST_FCD: &[&str] = &["HostVStorageObjectManager"];

/// The methods. What a real server has besides is answered with [`generic::not_supported`] where clients ask for it; names
/// that are in no table are no methods.
const METHODS: &[Method] = &[
    Method("RetrieveServiceContent", SERVICE, service::content),
    Method("RetrieveInternalContent", SERVICE, service::internal_content),
    Method("CurrentTime", SERVICE, service::current_time),
    Method("QueryServiceList", &["ServiceManager"], generic::not_supported),
    Method("Login", SESSIONS, login::login),
    Method("LoginByToken", SESSIONS, generic::not_supported),
    Method("LoginExtensionByCertificate", SESSIONS, generic::not_supported),
    Method("LoginBySSPI", SESSIONS, generic::not_supported),
    Method("Logout", SESSIONS, login::logout),
    Method("SessionIsActive", SESSIONS, login::session_is_active),
    Method("AcquireCloneTicket", SESSIONS, login::acquire_clone_ticket),
    Method("CloneSession", SESSIONS, login::clone_session),
    Method("AcquireLocalTicket", SESSIONS, generic::not_supported),
    Method("AcquireGenericServiceTicket", SESSIONS, login::acquire_generic_service_ticket),
    Method("Fetch", &[], collector::retrieve::fetch),
    Method("RetrieveProperties", COLLECTOR, collector::retrieve::retrieve),
    Method("RetrievePropertiesEx", COLLECTOR, collector::retrieve::retrieve_ex),
    Method("ContinueRetrievePropertiesEx", COLLECTOR, collector::retrieve::go_on),
    Method("CancelRetrievePropertiesEx", COLLECTOR, collector::retrieve::cancel),
    Method("CreateFilter", COLLECTOR, collector::filter::create),
    Method("DestroyPropertyFilter", &["PropertyFilter"], collector::filter::destroy),
    Method("CheckForUpdates", COLLECTOR, collector::filter::check),
    Method("WaitForUpdates", COLLECTOR, collector::filter::wait),
    Method("WaitForUpdatesEx", COLLECTOR, collector::filter::wait_ex),
    Method("CancelWaitForUpdates", COLLECTOR, collector::filter::cancel),
    Method("CreatePropertyCollector", COLLECTOR, collector::filter::create_collector),
    Method("DestroyPropertyCollector", COLLECTOR, collector::filter::destroy_collector),
    Method("CreateContainerView", &["ViewManager"], collector::view::create_container),
    Method("CreateListView", &["ViewManager"], collector::view::create_list),
    Method("DestroyView", VIEWS, collector::view::destroy),
    Method("FindByUuid", SEARCH, search::by_uuid),
    Method("FindAllByUuid", SEARCH, search::all_by_uuid),
    Method("FindByInventoryPath", SEARCH, search::by_inventory_path),
    Method("FindByDatastorePath", SEARCH, search::by_datastore_path),
    Method("FindChild", SEARCH, search::child),
    Method("FindByDnsName", SEARCH, search::by_name_or_address),
    Method("FindByIp", SEARCH, search::by_name_or_address),
    Method("FindAllByDnsName", SEARCH, search::by_name_or_address),
    Method("FindAllByIp", SEARCH, search::by_name_or_address),
    Method("NfcGetVmFiles", NFC, nfc::get_vm_files),
    Method("NfcRandomAccessOpenDisk", NFC, nfc::open_disk),
    Method("NfcRandomAccessOpenReadonly", NFC, nfc::open_readonly),
    Method("NfcGetServerNfcLibVersion", NFC, nfc::library_version),
    Method("NfcRandomAccessFileOpen", NFC, generic::not_supported),
    Method("NfcPutVmFiles", NFC, generic::not_supported),
    Method("NfcFileManagement", NFC, generic::not_supported),
    Method("DisableMethods", RIGHTS, authorization::disable),
    Method("EnableMethods", RIGHTS, authorization::enable),
    Method("CreateSnapshot_Task", MACHINE, snapshot::create),
    Method("CreateSnapshotEx_Task", MACHINE, snapshot::create),
    Method("RemoveAllSnapshots_Task", MACHINE, snapshot::remove_all),
    Method("RevertToCurrentSnapshot_Task", MACHINE, snapshot::revert_to_current),
    Method("ConsolidateVMDisks_Task", MACHINE, snapshot::consolidate),
    Method("RemoveSnapshot_Task", SNAPSHOT, snapshot::remove),
    Method("RevertToSnapshot_Task", SNAPSHOT, snapshot::revert),
    Method("RenameSnapshot", SNAPSHOT, snapshot::rename),
    Method("ReconfigVM_Task", MACHINE, reconfigure::reconfigure),
    Method("PowerOnVM_Task", MACHINE, machine::power_on),
    Method("PowerOffVM_Task", MACHINE, machine::power_off),
    Method("ShutdownGuest", MACHINE, machine::shut_down),
    Method("RelocateVM_Task", MACHINE, relocate::relocate),
    Method("MigrateVM_Task", MACHINE, relocate::migrate),
    Method("CloneVM_Task", MACHINE, machine::refuse_task),
    Method("Destroy_Task", &[], machine::refuse_task),
    Method("QueryChangedDiskAreas", MACHINE, changes::query),
    Method("CancelTask", &["Task"], generic::not_supported),
    Method("RetrieveVStorageObject", FCD, first_class::retrieve),
    Method("HostRetrieveVStorageObject", HOST_FCD, first_class::retrieve),
    Method("RetrieveSnapshotDetails", FCD, first_class::snapshot_details),
    Method("ListVStorageObject", FCD, first_class::list),
    Method("HostListVStorageObject", HOST_FCD, first_class::list),
    Method("CreateDisk_Task", FCD, generic::not_supported),
    Method("VstorageObjectVCenterQueryChangedDiskAreas", FCD, generic::not_supported),
    Method("SearchDatastore_Task", BROWSER, browse::search),
    Method("SearchDatastoreSubFolders_Task", BROWSER, browse::search_below),
    Method("CreateVirtualDisk_Task", &["VirtualDiskManager"], generic::not_supported),
    Method("DeleteVirtualDisk_Task", &["VirtualDiskManager"], generic::not_supported),
    Method("CopyVirtualDisk_Task", &["VirtualDiskManager"], generic::not_supported),
    Method("DeleteDatastoreFile_Task", &["FileManager"], generic::not_supported),
    Method("MakeDirectory", &["FileManager"], generic::not_supported),
    Method("CreateVM_Task", &["Folder"], generic::not_supported),
    Method("RegisterVM_Task", &["Folder"], generic::not_supported),
];

/// Methods for which nobody has to be logged in.
const OPEN: &[&str] = &[
    "RetrieveServiceContent",
    "RetrieveInternalContent",
    "Login",
    "LoginByToken",
    "LoginExtensionByCertificate",
    "LoginBySSPI",
    "CloneSession",
    "AcquireLocalTicket",
];

/// Finds the method and runs it.
pub fn run(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let mut named = METHODS.iter().filter(|method| method.0 == call.method).peekable();
    if named.peek().is_none() {
        return Err(Fault::request(format!("Unable to resolve WSDL method name {}", call.method)));
    }
    if call.session.is_none() && !OPEN.contains(&call.method) {
        return Err(Fault::not_authenticated(&call.this));
    }
    if !props::exists(site, call.session.as_ref(), &call.this) {
        site.log.debug(|| format!("vixsim: {} on {}, which is not there", call.method, show(&call.this)));
        return Err(Fault::no_object(&call.this));
    }
    let fits = |method: &&Method| method.1.is_empty() || method.1.iter().any(|kind| *kind == call.this.kind);
    let Some(method) = named.find(fits) else { return Err(Fault::no_method(&call.this, call.method)) };
    disabled(site, call)?;
    (method.2)(site, call)
}

/// A method that somebody disabled on a machine is refused (`vsphere.md` 12.2).
fn disabled(site: &Site, call: &Call<'_>) -> Result<(), Fault> {
    if call.this.kind != "VirtualMachine" {
        return Ok(());
    }
    let world = site.world.lock();
    let found = world.machine(&call.this.id).and_then(|machine| {
        let active = |session: &String| site.sessions.has_key(session);
        machine.disabled.iter().find(|d| d.method == call.method && d.session.as_ref().is_none_or(active))
    });
    match found {
        Some(disabled) => {
            Err(Fault::new("MethodDisabled", format!("The method is disabled by '{}'", disabled.source))
                .with("source", disabled.source.clone()))
        }
        None => Ok(()),
    }
}

/// The name of a method as the table has it.
pub fn name(method: &str) -> Option<&'static str> {
    METHODS.iter().find(|known| known.0 == method).map(|known| known.0)
}

/// The names of all methods.
#[cfg(test)]
pub fn names() -> Vec<&'static str> {
    METHODS.iter().map(|known| known.0).collect()
}
