//! Objects that do things rather than being things.

use std::time::SystemTime;

use crate::sim::clock;
use crate::sim::props::Source;
use crate::sim::soap::service;
use crate::sim::value::Data;
use crate::sim::value::Moref;
use crate::sim::value::Value;
use crate::sim::world::World;

/// True for a manager, the service instance or the NFC service.
pub fn is_one(world: &World, object: &Moref) -> bool {
    let shape = world.shape;
    *object == shape.service()
        || *object == shape.nfc_service()
        || shape.content().any(|(_, moref)| moref == *object)
}

/// Its properties.
pub fn properties(source: &Source<'_>, object: &Moref) -> Option<Data> {
    if !is_one(source.world, object) {
        return None;
    }
    Some(match object.kind.as_str() {
        "ServiceInstance" => Data::new("ServiceInstance")
            .with("serverClock", Value::Time(clock::iso(SystemTime::now())))
            .with("content", service::content_data(source.site, source.world.shape)),
        "SessionManager" => Data::new("SessionManager")
            .maybe("currentSession", source.session.map(|session| session.data()))
            .list("messageLocaleList", "string", [Value::from("en")])
            .list("supportedLocaleList", "string", [Value::from("en")])
            .with("defaultLocale", "en"),
        "TaskManager" => Data::new("TaskManager")
            .refs(
                "recentTask",
                source.world.machines.iter().flat_map(|machine| source.world.tasks.of(&machine.moref())),
            )
            .with("maxCollector", 32i32),
        "ViewManager" => Data::new("ViewManager")
            .refs("viewList", source.session.map(|session| session.collectors.views()).unwrap_or_default()),
        "PropertyCollector" => Data::new("PropertyCollector").refs(
            "filter",
            source.session.map(|session| session.collectors.filters(object)).unwrap_or_default(),
        ),
        _ => Data::new(object.kind.clone()),
    })
}
