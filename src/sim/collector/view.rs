//! Views: named sets of objects.

use std::collections::HashSet;
use std::sync::Arc;

use crate::sim::collector::MOST;
use crate::sim::collector::new_id;
use crate::sim::collector::too_many;
use crate::sim::props;
use crate::sim::props::inventory;
use crate::sim::props::known::is_a;
use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::call::Reply;
use crate::sim::soap::fault::Fault;
use crate::sim::value::Data;
use crate::sim::value::Moref;
use crate::sim::value::Value;
use crate::sim::world::World;
use crate::sim::xml::Arg;

/// A view.
#[derive(Clone, Debug)]
pub enum View {
    /// What lies in an object of the inventory, as it is at the moment.
    Container {
        /// The object.
        container: Moref,
        /// The types that count; none: all.
        types: Vec<String>,
        /// Everything below, not what lies directly in it alone.
        recursive: bool,
    },
    /// These objects.
    List(Vec<Moref>),
}

impl View {
    /// The type of its object.
    pub fn kind(&self) -> &'static str {
        match self {
            View::Container { .. } => "ContainerView",
            View::List(_) => "ListView",
        }
    }

    fn members(&self, world: &World) -> Vec<Moref> {
        match self {
            View::List(members) => members.clone(),
            View::Container { container, types, recursive } => {
                let counts =
                    |object: &Moref| types.is_empty() || types.iter().any(|kind| is_a(&object.kind, kind));
                below(world, container, *recursive).into_iter().filter(counts).collect()
            }
        }
    }

    /// The properties of its object.
    pub fn properties(&self, world: &World) -> Data {
        let data = Data::new(self.kind()).refs("view", self.members(world));
        match self {
            View::List(_) => data,
            View::Container { container, types, recursive } => data
                .with("container", container.clone())
                .list("type", "string", types.iter().map(|kind| Value::from(kind.clone())))
                .with("recursive", *recursive),
        }
    }
}

/// What lies in an object.
fn below(world: &World, container: &Moref, recursive: bool) -> Vec<Moref> {
    let mut open: Vec<Moref> = match container.kind.as_str() {
        "HostSystem" => inventory::machines_on(world, container),
        "ResourcePool" => inventory::machines(world),
        _ => inventory::children(world, container),
    };
    if !recursive {
        return open;
    }
    let (mut found, mut known) = (Vec::new(), HashSet::new());
    open.reverse();
    while let Some(object) = open.pop() {
        if known.insert(object.clone()) {
            open.extend(inventory::children(world, &object).into_iter().rev());
            found.push(object);
        }
    }
    found
}

fn add(call: &Call<'_>, view: View) -> Outcome {
    let session = call.session()?;
    let moref = Moref::new(view.kind(), new_id(&session.key)?);
    let mut state = session.collectors.lock();
    if state.views.len() >= MOST {
        return Err(too_many());
    }
    state.views.insert(moref.id.clone(), view);
    Reply::of(moref)
}

/// `CreateContainerView`.
pub fn create_container(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let container = call.moref("container")?;
    if !props::exists(site, call.session.as_ref(), &container) {
        return Err(Fault::no_object(&container));
    }
    if !matches!(
        container.kind.as_str(),
        "Folder"
            | "Datacenter"
            | "ComputeResource"
            | "ClusterComputeResource"
            | "ResourcePool"
            | "HostSystem"
    ) {
        return Err(Fault::argument("container"));
    }
    let types =
        call.args.all("type").map(|kind| kind.text().rsplit(':').next().unwrap_or_default().to_owned());
    add(
        call,
        View::Container {
            container,
            types: types.take(MOST).collect(),
            recursive: call.args.is("recursive"),
        },
    )
}

/// `CreateListView`.
pub fn create_list(_site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    add(call, View::List(call.args.all("obj").filter_map(Arg::moref).take(MOST).collect()))
}

/// `DestroyView`.
pub fn destroy(_site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    call.session()?.collectors.lock().views.remove(&call.this.id);
    Reply::none()
}
