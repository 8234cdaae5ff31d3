//! The authorization manager: methods that programs switch off for others (`vsphere.md` 6, T).

use std::sync::Arc;

use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::call::Reply;
use crate::sim::soap::fault::Fault;
use crate::sim::world::machine::Disabled;
use crate::sim::xml::Arg;

/// More entries than that on one machine are refused.
const MOST: usize = 100;

/// `DisableMethods`.
pub fn disable(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let (entity, source) = entity(site, call)?;
    let session = if call.args.is("sessionScope") { Some(call.session()?.key.clone()) } else { None };
    let wanted: Vec<Disabled> = call
        .args
        .all("method")
        .map(|method| Disabled {
            method: method.text_of("method").unwrap_or_default(),
            source: source.clone(),
            reason: method.text_of("reasonId").unwrap_or_default(),
            session: session.clone(),
        })
        .collect();
    if wanted.is_empty() || wanted.iter().any(|one| one.method.is_empty()) {
        return Err(Fault::argument("method"));
    }
    site.change(|world| {
        let machine = world.machine_mut(&entity.id).ok_or_else(|| Fault::no_object(&entity))?;
        machine.disabled.retain(|one| one.session.as_ref().is_none_or(|key| site.sessions.has_key(key)));
        let taken = machine.disabled.iter().find(|one| wanted.iter().any(|w| w.method == one.method));
        if let Some(taken) = taken {
            let text = format!("The method is already disabled by '{}'", taken.source);
            return Err(Fault::new("MethodAlreadyDisabledFault", text).with("sourceId", taken.source.clone()));
        }
        if machine.disabled.len() + wanted.len() > MOST {
            return Err(Fault::argument("method"));
        }
        machine.disabled.extend(wanted);
        Ok(())
    })?;
    Reply::none()
}

/// `EnableMethods`: ends what the same source disabled; what it did not disable stays.
pub fn enable(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let (entity, source) = entity(site, call)?;
    let methods: Vec<String> = call.args.all("method").map(Arg::text).collect();
    site.change(|world| {
        let machine = world.machine_mut(&entity.id).ok_or_else(|| Fault::no_object(&entity))?;
        machine.disabled.retain(|one| one.source != source || !methods.contains(&one.method));
        Ok(())
    })?;
    Reply::none()
}

fn entity(site: &Site, call: &Call<'_>) -> Result<(crate::sim::value::Moref, String), Fault> {
    if site.options.esxi {
        return Err(Fault::not_supported());
    }
    let entity = call.moref("entity")?;
    if entity.kind != "VirtualMachine" || site.world.lock().machine(&entity.id).is_none() {
        return Err(Fault::no_object(&entity));
    }
    Ok((entity, call.text("sourceId")?))
}
