//! Properties of objects.

use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::vim::Moref;
use crate::net::vim::Session;
use crate::net::vim::call::Call;
use crate::net::vim::fault::Fault;
use crate::net::vim::xml;
use crate::net::vim::xml::Node;

/// More parts than that are not asked for.
const MOST_PARTS: usize = 256;

/// Longest token that names the next part.
const LONGEST_TOKEN: usize = 4 << 10;

/// Takes a property: its path and its value.
pub type Each<'a> = dyn FnMut(&str, Node<'_>) -> Result<()> + 'a;

/// Properties that the server would not give, and why.
pub struct Withheld {
    of: Moref,
    faults: Vec<(String, Fault)>,
}

impl Session {
    /// Asks for properties of an object; `each` takes those that have a value, in any order.
    pub(super) fn properties(&self, object: &Moref, paths: &[&str], each: &mut Each<'_>) -> Result<Withheld> {
        self.properties_by(object, paths, None, each)
    }

    /// The same by `until`, if that is earlier than the usual time.
    pub(super) fn properties_by(
        &self,
        object: &Moref,
        paths: &[&str],
        until: Option<Instant>,
        each: &mut Each<'_>,
    ) -> Result<Withheld> {
        let collector = &self.content.property_collector;
        let call = Call::new("RetrievePropertiesEx", collector).inside("specSet", |spec| {
            spec.inside("propSet", |set| {
                let set = set.text("type", &object.kind).text("all", "false");
                paths.iter().fold(set, |set, path| set.text("pathSet", path))
            })
            .inside("objectSet", |set| set.moref("obj", object).text("skip", "false"))
        });
        let mut withheld = Withheld { of: object.clone(), faults: Vec::new() };
        let mut call = call.inside("options", |options| options);
        for _ in 0..MOST_PARTS {
            let read = &mut |response: Node<'_>| part(response, object, each, &mut withheld.faults);
            let next = self.get_by(call, until, read)?;
            let Some(token) = next else { return Ok(withheld) };
            call = Call::new("ContinueRetrievePropertiesEx", collector).text("token", token);
        }
        Err(xml::broken("the properties of one object do not end"))
    }

    /// Why a property that is needed is not there.
    pub(super) fn missing(&self, withheld: &Withheld, path: &str) -> Error {
        match withheld.faults.iter().find(|(p, _)| p == path || p.starts_with(path)) {
            Some((_, fault)) => fault.error(&format!("to tell {path} of {}", withheld.of), &self.wire.hidden),
            None => {
                Error::new(ErrorKind::Protocol, format!("the server does not tell {path} of {}", withheld.of))
            }
        }
    }
}

/// Reads one part; the token of the next one.
fn part(
    response: Node<'_>,
    object: &Moref,
    each: &mut Each<'_>,
    withheld: &mut Vec<(String, Fault)>,
) -> Result<Option<String>> {
    let Some(part) = xml::one(response, "returnval")? else { return Ok(None) };
    for found in xml::all(part, "objects") {
        if xml::moref(xml::need(found, "obj")?)?.id != object.id {
            return Err(xml::broken("properties of an object that was not asked for"));
        }
        for set in xml::all(found, "propSet") {
            let name = xml::text(xml::need(set, "name")?);
            each(&name, xml::need(set, "val")?)?;
        }
        for missing in xml::all(found, "missingSet") {
            let path = xml::text(xml::need(missing, "path")?);
            withheld.push((path, Fault::localized(xml::need(missing, "fault")?)));
        }
    }
    match xml::optional(part, "token")?.filter(|token| !token.is_empty()) {
        Some(token) if token.len() > LONGEST_TOKEN => Err(xml::broken("a token that is too long")),
        token => Ok(token),
    }
}
