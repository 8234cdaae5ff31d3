//! What a client wants to see: types with paths, objects to begin with, and ways to others.

use crate::sim::soap::fault::Fault;
use crate::sim::value::Moref;
use crate::sim::xml::Arg;

/// A filter's specification.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Types and the properties wanted of them.
    pub wanted: Vec<Wanted>,
    /// Where to begin.
    pub starts: Vec<Start>,
    /// All ways, in the order of their appearance.
    pub ways: Vec<Way>,
    /// Objects that are not there are told, rather than failing the call.
    pub report_missing: bool,
}

/// Properties of a type.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The type; those that inherit from it count too.
    pub kind: String,
    /// All properties.
    pub all: bool,
    /// Paths.
    pub paths: Vec<String>,
}

/// An object to begin with.
#[derive(Clone, Debug)]
pub struct Start {
    /// The object.
    pub object: Moref,
    /// It is not wanted itself.
    pub skip: bool,
    /// The ways from it.
    pub next: Vec<Next>,
}

/// A way from objects of a type along one of their properties.
#[derive(Clone, Debug)]
pub struct Way {
    /// Its name, by which it is named again.
    pub name: String,
    /// The type.
    pub kind: String,
    /// The property.
    pub path: String,
    /// What it leads to is not wanted itself.
    pub skip: bool,
    /// The ways from there.
    pub next: Vec<Next>,
}

/// A way, or the name of one.
#[derive(Clone, Debug)]
pub enum Next {
    /// Its place in the list of all ways.
    At(usize),
    /// The ways of this name.
    Named(String),
}

/// Ways lie no deeper in each other than that, and there are no more.
const DEEPEST: usize = 32;
const MOST: usize = 1000;

impl Spec {
    /// Reads a `PropertyFilterSpec`.
    pub fn read(arg: Arg<'_>) -> Result<Spec, Fault> {
        let mut spec = Spec { report_missing: arg.is("reportMissingObjectsInResults"), ..Spec::default() };
        for set in arg.all("propSet") {
            let kind = set.text_of("type").unwrap_or_default();
            let kind = kind.rsplit(':').next().unwrap_or_default().trim().to_owned();
            if kind.is_empty() {
                return Err(Fault::argument("specSet.propSet.type"));
            }
            let paths = set.all("pathSet").map(|path| path.text().trim().to_owned()).collect();
            spec.wanted.push(Wanted { kind, all: set.is("all"), paths });
        }
        for set in arg.all("objectSet") {
            let object = set.one("obj").and_then(Arg::moref);
            let object = object.ok_or_else(|| Fault::argument("specSet.objectSet.obj"))?;
            let next = spec.ways_of(set, 0)?;
            spec.starts.push(Start { object, skip: set.is("skip"), next });
        }
        match spec.starts.len() + spec.wanted.len() > MOST {
            true => Err(Fault::argument("specSet")),
            false => Ok(spec),
        }
    }

    fn ways_of(&mut self, arg: Arg<'_>, depth: usize) -> Result<Vec<Next>, Fault> {
        if depth > DEEPEST {
            return Err(Fault::argument("specSet.objectSet.selectSet"));
        }
        let mut next = Vec::new();
        for set in arg.all("selectSet") {
            if self.ways.len() >= MOST {
                return Err(Fault::argument("specSet.objectSet.selectSet"));
            }
            let name = set.text_of("name").unwrap_or_default();
            // A traversal has a path. Some clients leave its type out, none leaves that out.
            let Some(path) = set.text_of("path") else {
                next.push(Next::Named(name));
                continue;
            };
            let at = self.ways.len();
            let kind = set.text_of("type").unwrap_or_default();
            let kind = kind.rsplit(':').next().unwrap_or_default().trim().to_owned();
            let path = path.trim().to_owned();
            self.ways.push(Way { name, kind, path, skip: set.is("skip"), next: Vec::new() });
            let further = self.ways_of(set, depth + 1)?;
            if let Some(way) = self.ways.get_mut(at) {
                way.next = further;
            }
            next.push(Next::At(at));
        }
        Ok(next)
    }

    /// The places of the ways that are meant.
    pub fn resolve(&self, next: &[Next]) -> Vec<usize> {
        let mut found = Vec::new();
        for one in next {
            match one {
                Next::At(at) => found.push(*at),
                Next::Named(name) => {
                    let named = self.ways.iter().enumerate().filter(|(_, way)| way.name == *name);
                    found.extend(named.map(|(at, _)| at));
                }
            }
        }
        found
    }
}
