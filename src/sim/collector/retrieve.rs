//! Properties once.

use std::sync::Arc;

use crate::sim::collector::MOST;
use crate::sim::collector::spec::Spec;
use crate::sim::collector::too_many;
use crate::sim::collector::walk;
use crate::sim::props::Source;
use crate::sim::random;
use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::call::Reply;
use crate::sim::soap::fault::Fault;
use crate::sim::soap::login::internal;
use crate::sim::value::Data;
use crate::sim::value::Value;

/// `Fetch`: one property of one object.
pub fn fetch(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let name = call.text("prop")?;
    let world = site.world.lock();
    let source = Source { site, world: &world, session: call.session.as_ref() };
    let all = source.properties(&call.this).ok_or_else(|| Fault::no_object(&call.this))?;
    let value = source.at(&call.this, &Value::Data(all), name.trim())?;
    Ok(Reply { value, any: true, ..Reply::default() })
}

fn collect(site: &Arc<Site>, call: &Call<'_>) -> Result<Vec<Value>, Fault> {
    let mut all = Vec::new();
    let world = site.world.lock();
    let source = Source { site, world: &world, session: call.session.as_ref() };
    for arg in call.args.all("specSet") {
        let spec = Spec::read(arg)?;
        all.extend(walk::walk(&source, &spec)?.into_iter().map(walk::content));
    }
    Ok(all)
}

/// `RetrieveProperties`.
pub fn retrieve(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    Reply::of(Value::List("ObjectContent", collect(site, call)?))
}

/// `RetrievePropertiesEx`.
pub fn retrieve_ex(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let all = collect(site, call)?;
    if all.is_empty() {
        return Reply::none();
    }
    let most = call.args.one("options").and_then(|options| options.number("maxObjects"));
    let most = match most {
        None => usize::MAX,
        Some(most) => usize::try_from(most)
            .ok()
            .filter(|most| *most > 0)
            .ok_or_else(|| Fault::argument("options.maxObjects"))?,
    };
    page(call, all, most)
}

/// A part of an answer; the rest is kept for its token, which has the size of the parts in it.
fn page(call: &Call<'_>, mut all: Vec<Value>, most: usize) -> Outcome {
    let mut token = None;
    if all.len() > most {
        let rest = all.split_off(most);
        let name = format!("{most}-{}", random::uuid().map_err(|e| internal(&e))?);
        let mut state = call.session()?.collectors.lock();
        if state.rests.len() >= MOST {
            return Err(too_many());
        }
        state.rests.insert(name.clone(), rest);
        token = Some(name);
    }
    Reply::of(Data::new("RetrieveResult").maybe("token", token).list("objects", "ObjectContent", all))
}

fn rest_of(call: &Call<'_>) -> Result<(Vec<Value>, usize), Fault> {
    let token = call.text("token")?;
    let rest = call.session()?.collectors.lock().rests.remove(&token);
    let most = token.split('-').next().and_then(|most| most.parse().ok());
    rest.zip(most).ok_or_else(|| Fault::argument("token"))
}

/// `ContinueRetrievePropertiesEx`.
pub fn go_on(_site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let (rest, most) = rest_of(call)?;
    page(call, rest, most)
}

/// `CancelRetrievePropertiesEx`.
pub fn cancel(_site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    rest_of(call)?;
    Reply::none()
}
