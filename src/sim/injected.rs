//! What the rules of the fault language do to requests.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::sim::fault::Action;
use crate::sim::http::response::Response;
use crate::sim::site::Site;
use crate::sim::soap::envelope;
use crate::sim::soap::fault::Fault;
use crate::sim::value::Moref;
use crate::sim::value::Value;

/// What happens instead of an answer.
#[derive(Debug)]
pub enum Instead {
    /// This answer.
    Answer(Response),
    /// This fault.
    Fault(Fault),
    /// The answer, but only half of it.
    Half,
}

/// Asks the rules about a point, waits if they say so, and gives what shall happen instead of an answer.
pub fn at(site: &Arc<Site>, point: &str) -> Option<Instead> {
    let hit = site.faults.at(point, None);
    pause(site, hit.delay);
    let action = hit.action?;
    site.log.info(|| format!("vixsim: {point}: a rule says {action:?}"));
    match action {
        Action::Status(status) => Some(Instead::Answer(Response::text(status, "A rule said so\n"))),
        Action::Refuse => Some(Instead::Answer(Response::text(503, "A rule said so\n"))),
        Action::Fault { name, fields } => Some(Instead::Fault(fault(&name, fields))),
        Action::Short { .. } => Some(Instead::Half),
        Action::Silence => {
            pause(site, FOREVER);
            Some(Instead::Answer(Response::gone()))
        }
        Action::Cut => Some(Instead::Answer(Response::gone())),
        Action::Shutdown => {
            for host in &site.hosts {
                host.knobs.change(|settings| settings.maintenance = true);
            }
            Some(Instead::Answer(Response::gone()))
        }
        // These are about NFC.
        _ => None,
    }
}

/// Longer than any client waits.
const FOREVER: Duration = Duration::from_secs(3600);

/// Waits, but not past the end of the simulator.
fn pause(site: &Site, time: Duration) {
    let until = Instant::now() + time;
    let mut world = site.world.lock();
    while Instant::now() < until && !site.ending.load(Ordering::Acquire) {
        site.changed.wait_until(&mut world, until);
    }
}

/// A fault with the fields of a rule. Fields that refer to an object are written `Type:id`, and `privilege` is short for
/// `privilegeId`.
fn fault(name: &str, fields: Vec<(String, String)>) -> Fault {
    let name = if envelope::is_name(name) { name } else { "SystemError" };
    let mut fault = Fault::new(name.to_owned(), String::new());
    for (field, value) in fields {
        if field == "text" {
            fault.text = value;
            continue;
        }
        let field = if field == "privilege" { "privilegeId".to_owned() } else { field };
        let moref = value
            .split_once(':')
            .filter(|_| matches!(field.as_str(), "object" | "obj" | "receiver" | "task"));
        let value = match moref {
            Some((kind, id)) => Value::Ref(Moref::new(kind, id)),
            None => Value::Text(value),
        };
        if envelope::is_name(&field) {
            fault = fault.with(field, value);
        }
    }
    if fault.text.is_empty() {
        fault.text = format!("{name}: a rule said so");
    }
    fault
}
