//! The property collector: which objects, which of their properties, and what changed since.
//!
//! ```text
//!   spec   a filter's text: types and paths, objects, ways from object to object
//!   walk   the objects that it selects, and their properties
//!   retrieve · filter · view   the methods
//! ```

pub mod filter;
pub mod retrieve;
pub mod spec;
pub mod view;
pub mod walk;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::sim::collector::filter::Filter;
use crate::sim::collector::view::View;
use crate::sim::random;
use crate::sim::soap::fault::Fault;
use crate::sim::value::Data;
use crate::sim::value::Moref;
use crate::sim::value::Value;
use crate::sim::world::World;

/// What belongs to one session. The lock is taken after that of the world, where both are.
#[derive(Debug, Default)]
pub struct Collectors {
    state: Mutex<State>,
    closed: AtomicBool,
}

/// Views, filters, collectors and unfinished answers.
#[derive(Debug, Default)]
pub(in crate::sim) struct State {
    views: HashMap<String, View>,
    filters: HashMap<String, Filter>,
    /// Collectors beside the common one.
    collectors: Vec<String>,
    /// The version that each collector gave last.
    versions: HashMap<String, u64>,
    /// How often waiting was cancelled.
    cancels: HashMap<String, u64>,
    /// What is left of answers, by token.
    rests: HashMap<String, Vec<Value>>,
}

/// More of anything than that is refused.
const MOST: usize = 1000;

impl Collectors {
    /// The session ended: nobody waits in its name any longer.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        *self.state.lock() = State::default();
    }

    /// True once it was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// True for a view, a filter or a collector of this session.
    pub fn has(&self, object: &Moref) -> bool {
        let state = self.state.lock();
        match object.kind.as_str() {
            "PropertyFilter" => state.filters.contains_key(&object.id),
            "PropertyCollector" => state.collectors.contains(&object.id),
            kind => state.views.get(&object.id).is_some_and(|view| view.kind() == kind),
        }
    }

    /// The properties of such an object.
    pub fn properties(&self, world: &World, object: &Moref) -> Option<Data> {
        let state = self.state.lock();
        match object.kind.as_str() {
            "PropertyFilter" => state
                .filters
                .get(&object.id)
                .map(|_| Data::new("PropertyFilter").with("partialUpdates", false)),
            "PropertyCollector" if state.collectors.contains(&object.id) => {
                let filters = filters_of(&state, object);
                Some(Data::new("PropertyCollector").refs("filter", filters))
            }
            kind => state
                .views
                .get(&object.id)
                .filter(|view| view.kind() == kind)
                .map(|view| view.properties(world)),
        }
    }

    /// The views.
    pub fn views(&self) -> Vec<Moref> {
        self.state.lock().views.iter().map(|(id, view)| Moref::new(view.kind(), id.clone())).collect()
    }

    /// The filters of a collector.
    pub fn filters(&self, collector: &Moref) -> Vec<Moref> {
        filters_of(&self.state.lock(), collector)
    }

    /// Its insides.
    pub(in crate::sim) fn lock(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }
}

fn filters_of(state: &State, collector: &Moref) -> Vec<Moref> {
    let of = state.filters.iter().filter(|(_, filter)| filter.collector == collector.id);
    of.map(|(id, _)| Moref::new("PropertyFilter", id.clone())).collect()
}

/// An identifier for something of a session, in the form that real servers give them.
fn new_id(key: &str) -> Result<String, Fault> {
    let own = random::uuid().map_err(|e| crate::sim::soap::login::internal(&e))?;
    Ok(format!("session[{key}]{own}"))
}

fn too_many() -> Fault {
    Fault::new("SystemError", "Too many objects belong to this session").with("reason", "too many objects")
}
