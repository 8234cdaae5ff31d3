//! Filters: what changed since the client looked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::sim::collector::MOST;
use crate::sim::collector::new_id;
use crate::sim::collector::spec::Spec;
use crate::sim::collector::too_many;
use crate::sim::collector::walk;
use crate::sim::collector::walk::Seen;
use crate::sim::props::Source;
use crate::sim::session::Session;
use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::call::Reply;
use crate::sim::soap::fault::Fault;
use crate::sim::value::Data;
use crate::sim::value::Moref;
use crate::sim::value::Value;
use crate::sim::world::World;

/// A filter.
#[derive(Debug)]
pub struct Filter {
    /// The collector it belongs to.
    pub collector: String,
    spec: Spec,
    /// What the client was told last.
    told: Vec<Seen>,
}

/// Nobody waits longer than that, whatever he asks for.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// `CreateFilter`.
pub fn create(_site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let spec = Spec::read(call.args.one("spec").ok_or_else(|| Fault::argument("spec"))?)?;
    let session = call.session()?;
    let id = new_id(&session.key)?;
    let mut state = session.collectors.lock();
    if state.filters.len() >= MOST {
        return Err(too_many());
    }
    state.filters.insert(id.clone(), Filter { collector: call.this.id.clone(), spec, told: Vec::new() });
    Reply::of(Moref::new("PropertyFilter", id))
}

/// `DestroyPropertyFilter`.
pub fn destroy(_site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    call.session()?.collectors.lock().filters.remove(&call.this.id);
    Reply::none()
}

/// `CreatePropertyCollector`.
pub fn create_collector(_site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let session = call.session()?;
    let id = new_id(&session.key)?;
    let mut state = session.collectors.lock();
    if state.collectors.len() >= MOST {
        return Err(too_many());
    }
    state.collectors.push(id.clone());
    Reply::of(Moref::new("PropertyCollector", id))
}

/// `DestroyPropertyCollector`: with its filters. The common one stays.
pub fn destroy_collector(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let mut state = call.session()?.collectors.lock();
    if !state.collectors.contains(&call.this.id) {
        return Err(Fault::not_supported());
    }
    state.collectors.retain(|id| *id != call.this.id);
    state.filters.retain(|_, filter| filter.collector != call.this.id);
    drop(state);
    site.change(|_| ()); // who waits with it looks again
    Reply::none()
}

/// `CancelWaitForUpdates`.
pub fn cancel(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    *call.session()?.collectors.lock().cancels.entry(call.this.id.clone()).or_default() += 1;
    site.change(|_| ());
    Reply::none()
}

/// `CheckForUpdates`.
pub fn check(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    Reply::maybe(updates(site, call, Duration::ZERO)?)
}

/// `WaitForUpdates`: without a limit of its own.
pub fn wait(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    match updates(site, call, LONGEST)? {
        Some(updates) => Reply::of(updates),
        None => Err(cancelled()),
    }
}

/// `WaitForUpdatesEx`: nothing comes back when nothing happened.
pub fn wait_ex(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let seconds = call.args.one("options").and_then(|options| options.number("maxWaitSeconds"));
    let time = match seconds {
        None => LONGEST,
        Some(seconds) => Duration::from_secs(
            u64::try_from(seconds).map_err(|_| Fault::argument("options.maxWaitSeconds"))?,
        ),
    };
    Reply::maybe(updates(site, call, time.min(LONGEST))?)
}

fn cancelled() -> Fault {
    Fault::new("RequestCanceled", "The task was canceled by a user.")
}

/// Waits until a filter of the collector has something to tell.
fn updates(site: &Arc<Site>, call: &Call<'_>, time: Duration) -> Result<Option<Data>, Fault> {
    let (session, collector) = (call.session()?, call.this.id.as_str());
    let until = Instant::now() + time;
    begin(session, collector, &call.args.text_of("version").unwrap_or_default())?;
    let cancels = session.collectors.lock().cancels.get(collector).copied();
    let mut world = site.world.lock();
    loop {
        if let Some(found) = look(site, &world, session, collector)? {
            return Ok(Some(found));
        }
        if session.collectors.is_closed()
            || session.collectors.lock().cancels.get(collector).copied() != cancels
        {
            return Err(cancelled());
        }
        if site.ending.load(Ordering::Acquire) || Instant::now() >= until {
            return Ok(None);
        }
        site.changed.wait_until(&mut world, until);
    }
}

/// Without a version everything is told anew, and so it is after one that is not the last: what the client knew then is not
/// kept.
fn begin(session: &Arc<Session>, collector: &str, version: &str) -> Result<(), Fault> {
    let mut state = session.collectors.lock();
    let last = state.versions.get(collector).copied().unwrap_or(0);
    let given = match version.trim() {
        "" => 0,
        text => text.parse().ok().filter(|given| *given <= last).ok_or_else(|| {
            Fault::new(
                "InvalidCollectorVersion",
                format!("The version {text:?} is not one of this collector"),
            )
        })?,
    };
    if given != last || last == 0 {
        state
            .filters
            .values_mut()
            .filter(|filter| filter.collector == collector)
            .for_each(|filter| filter.told.clear());
    }
    Ok(())
}

/// What the filters of a collector have to tell at this moment.
fn look(site: &Site, world: &World, session: &Arc<Session>, collector: &str) -> Result<Option<Data>, Fault> {
    let source = Source { site, world, session: Some(session) };
    let specs: Vec<(String, Spec)> = {
        let state = session.collectors.lock();
        let ours = state.filters.iter().filter(|(_, filter)| filter.collector == collector);
        ours.map(|(id, filter)| (id.clone(), filter.spec.clone())).collect()
    };
    let mut sets = Vec::new();
    for (id, spec) in specs {
        // Objects of a filter may go while it exists.
        let seen = walk::walk(&source, &Spec { report_missing: true, ..spec })?;
        let mut state = session.collectors.lock();
        let Some(filter) = state.filters.get_mut(&id) else { continue };
        let objects = differences(&filter.told, &seen);
        filter.told = seen;
        if !objects.is_empty() {
            let update = Data::new("PropertyFilterUpdate")
                .with("filter", Moref::new("PropertyFilter", id))
                .list("objectSet", "ObjectUpdate", objects);
            sets.push(Value::Data(update));
        }
    }
    if sets.is_empty() {
        return Ok(None);
    }
    let mut state = session.collectors.lock();
    let version = state.versions.entry(collector.to_owned()).or_default();
    *version += 1;
    Ok(Some(Data::new("UpdateSet").with("version", version.to_string()).list(
        "filterSet",
        "PropertyFilterUpdate",
        sets,
    )))
}

fn differences(before: &[Seen], after: &[Seen]) -> Vec<Value> {
    let mut found = Vec::new();
    for seen in after {
        let old = before.iter().find(|old| old.object == seen.object);
        let known = old.map(|old| old.values.as_slice()).unwrap_or_default();
        let changed = seen.values.iter().filter(|pair| !known.contains(pair));
        let unset = known.iter().filter(|(path, _)| !seen.values.iter().any(|(other, _)| other == path));
        let mut changes: Vec<Value> = changed.map(|(path, value)| change(path, Some(value))).collect();
        changes.extend(unset.map(|(path, _)| change(path, None)));
        match old {
            None => found.push(update("enter", &seen.object, changes)),
            Some(_) if !changes.is_empty() => found.push(update("modify", &seen.object, changes)),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|old| !after.iter().any(|seen| seen.object == old.object));
    found.extend(gone.map(|old| update("leave", &old.object, Vec::new())));
    found
}

fn change(path: &str, value: Option<&Value>) -> Value {
    Data::new("PropertyChange")
        .with("name", path)
        .with("op", Value::Enum("PropertyChangeOp", "assign".to_owned()))
        .maybe("val", value.cloned())
        .into()
}

fn update(kind: &str, object: &Moref, changes: Vec<Value>) -> Value {
    Data::new("ObjectUpdate")
        .with("kind", Value::Enum("ObjectUpdateKind", kind.to_owned()))
        .with("obj", object.clone())
        .list("changeSet", "PropertyChange", changes)
        .into()
}
