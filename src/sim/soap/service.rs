//! The service instance: where everything else is.

use std::sync::Arc;
use std::time::SystemTime;

use crate::sim::clock;
use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::call::Reply;
use crate::sim::value::Data;
use crate::sim::value::Value;
use crate::sim::world::shape::Shape;

/// `RetrieveServiceContent`.
pub fn content(site: &Arc<Site>, _call: &Call<'_>) -> Outcome {
    let shape = site.world.lock().shape;
    Reply::of(content_data(site, shape))
}

/// `ServiceContent`.
pub fn content_data(site: &Site, shape: Shape) -> Data {
    let mut data = Data::new("ServiceContent");
    for (field, moref) in shape.content() {
        data = data.with(field, moref);
        // The order of the type has `about` behind the view manager.
        if field == "viewManager" {
            data = data.with("about", about(site, site.options.esxi));
        }
    }
    data
}

/// Which product it is: a host or a vCenter.
pub fn about(site: &Site, host: bool) -> Data {
    let (name, api_type, line, full) = match host {
        true => ("VMware ESXi", "HostAgent", "embeddedEsx", "VMware ESXi"),
        false => ("VMware vCenter Server", "VirtualCenter", "vpx", "VMware vCenter Server"),
    };
    let personality = site.personality;
    let uuid = crate::sim::world::build::identity_of("server", name);
    let of_vcenter = (!host).then_some(uuid);
    Data::new("AboutInfo")
        .with("name", name)
        .with("fullName", format!("{full} {} build-0 (vixsim)", personality.version))
        .with("vendor", "VMware, Inc.")
        .with("version", personality.version)
        .with("build", "0")
        .with("localeVersion", "INTL")
        .with("localeBuild", "000")
        .with("osType", if host { "vmnix-x86" } else { "linux-x64" })
        .with("productLineId", line)
        .with("apiType", api_type)
        .with("apiVersion", personality.api)
        .maybe("instanceUuid", of_vcenter)
        .with("licenseProductName", full)
        .with("licenseProductVersion", personality.name)
}

/// `RetrieveInternalContent`: of about twenty objects of a real server the one that is known (O, `vsphere.md` 4.1).
pub fn internal_content(site: &Arc<Site>, _call: &Call<'_>) -> Outcome {
    let shape = site.world.lock().shape;
    Reply::of(Data::new("InternalServiceInstanceContent").with("nfcService", shape.nfc_service()))
}

/// `CurrentTime`.
pub fn current_time(_site: &Arc<Site>, _call: &Call<'_>) -> Outcome {
    Reply::of(Value::Time(clock::iso(SystemTime::now())))
}
