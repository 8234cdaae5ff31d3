//! The NFC service: tickets for connections to authd (`vsphere.md` 4.2, O).

use std::sync::Arc;

use crate::sim::nfc::Grant;
use crate::sim::nfc::Right;
use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::call::Reply;
use crate::sim::soap::fault::Fault;
use crate::sim::soap::login::internal;
use crate::sim::value::Data;
use crate::sim::value::Moref;
use crate::sim::world::shape::Shape;
use crate::sim::xml::Arg;

/// `NfcGetVmFiles`: every file of a machine, for reading.
pub fn get_vm_files(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let machine = machine_of(site, call)?;
    ticket(site, call, machine, Right::Files)
}

/// `NfcRandomAccessOpenDisk`: one disk, for reading and writing.
pub fn open_disk(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    disk(site, call, true)
}

/// `NfcRandomAccessOpenReadonly`: one disk, for reading.
pub fn open_readonly(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    disk(site, call, false)
}

fn disk(site: &Site, call: &Call<'_>, write: bool) -> Outcome {
    let id = machine_of(site, call)?;
    let key = call.args.number("diskDeviceKey").and_then(|key| i32::try_from(key).ok());
    let key = key.ok_or_else(|| Fault::argument("diskDeviceKey"))?;
    let world = site.world.lock();
    if let Some(host) = call.args.one("hostForAccess").and_then(Arg::moref) {
        is_host(world.shape, &host)?;
    }
    let machine = world.machine(&id).ok_or_else(|| Fault::no_object(&call.this))?;
    if !machine.devices().any(|device| device.key == key) {
        return Err(Fault::argument("diskDeviceKey"));
    }
    drop(world);
    ticket(site, call, id, Right::Disk { key, write })
}

/// `NfcGetServerNfcLibVersion`. Without a host it is refused (O).
pub fn library_version(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let host = call.moref("hostForAccess")?;
    is_host(site.world.lock().shape, &host)?;
    match site.personality.nfc_library {
        Some(version) => Reply::of(version),
        None => Err(Fault::not_supported()),
    }
}

fn is_host(ours: Shape, given: &Moref) -> Result<(), Fault> {
    ours.host_number(given).map(drop).ok_or_else(|| Fault::no_object(given))
}

fn machine_of(site: &Site, call: &Call<'_>) -> Result<String, Fault> {
    let vm = call.moref("vm")?;
    let world = site.world.lock();
    let found = world.machine(&vm.id).filter(|_| vm.kind == "VirtualMachine");
    found.map(|machine| machine.id.clone()).ok_or_else(|| Fault::no_object(&vm))
}

/// The first version of the interface whose tickets have a field for a certificate, in place of its thumbprint (D).
const WITH_CERTIFICATE: u32 = 9;

/// `HostServiceTicket` for the host that the machine is on, whichever was asked for. A bare host leaves its own name out (O).
/// A certificate is for callers whose version of the interface has a field for it.
fn ticket(site: &Site, call: &Call<'_>, machine: String, right: Right) -> Outcome {
    // The lock is held until the ticket is known: a machine that moves takes all of its tickets with it.
    let world = site.world.lock();
    let Some(at) = world.machine(&machine).map(|machine| machine.host) else {
        return Err(Fault::not_found());
    };
    let host = site.host(at);
    let settings = host.knobs.now();
    if settings.maintenance {
        // That there is no ticket then is documented; by which fault it is refused, inferred.
        let text = "Unable to communicate with the remote host, since it is disconnected.";
        return Err(Fault::new("HostNotConnected", text));
    }
    let id = site.tickets.for_nfc(at, Grant { machine, right }).map_err(|e| internal(&e))?;
    drop(world);
    let address = (!site.options.esxi && settings.ticket_host).then(|| site.host_address());
    let by_certificate = site.personality.ticket_certificate && call.knows(WITH_CERTIFICATE);
    Reply::of(
        Data::new("HostServiceTicket")
            .maybe("host", address)
            .with("port", i32::from(host.port()))
            .maybe("sslThumbprint", (!by_certificate).then(|| host.identity.sha1.clone()))
            .with("service", if site.options.esxi { "nfc" } else { "vpxa-nfc" })
            .with("serviceVersion", "1.1")
            .with("sessionId", id)
            .maybe("sslCertificate", by_certificate.then(|| host.identity.pem.clone())),
    )
}
