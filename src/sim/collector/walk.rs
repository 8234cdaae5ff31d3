//! The objects that a specification selects, and what is wanted of them.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::sim::collector::spec::Spec;
use crate::sim::props::Source;
use crate::sim::props::known::is_a;
use crate::sim::soap::fault::Fault;
use crate::sim::value::Data;
use crate::sim::value::Moref;
use crate::sim::value::Value;

/// An object and the properties that are wanted and set.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The object.
    pub object: Moref,
    /// Paths and values.
    pub values: Vec<(String, Value)>,
}

/// The objects that a specification selects, each once.
pub fn walk(source: &Source<'_>, spec: &Spec) -> Result<Vec<Seen>, Fault> {
    let mut walk = Walk { source, spec, known: HashMap::new(), been: HashSet::new(), order: Vec::new() };
    for start in &spec.starts {
        if walk.properties(&start.object).is_none() {
            match spec.report_missing {
                true => continue,
                false => return Err(Fault::no_object(&start.object)),
            }
        }
        if !start.skip {
            walk.add(&start.object);
        }
        walk.follow(&start.object, &spec.resolve(&start.next));
    }
    let mut seen = Vec::new();
    for object in std::mem::take(&mut walk.order) {
        if let Some(values) = walk.wanted(&object)? {
            seen.push(Seen { object, values });
        }
    }
    Ok(seen)
}

struct Walk<'a> {
    source: &'a Source<'a>,
    spec: &'a Spec,
    /// Properties of objects met so far.
    known: HashMap<Moref, Option<Value>>,
    /// Which ways were followed from which objects: ways may lead in circles.
    been: HashSet<(Moref, usize)>,
    order: Vec<Moref>,
}

impl Walk<'_> {
    fn properties(&mut self, object: &Moref) -> Option<&Value> {
        let source = self.source;
        self.known
            .entry(object.clone())
            .or_insert_with(|| source.properties(object).map(Value::Data))
            .as_ref()
    }

    fn add(&mut self, object: &Moref) {
        if !self.order.contains(object) {
            self.order.push(object.clone());
        }
    }

    fn follow(&mut self, from: &Moref, ways: &[usize]) {
        let mut open: Vec<(Moref, usize)> = ways.iter().rev().map(|way| (from.clone(), *way)).collect();
        while let Some((object, at)) = open.pop() {
            let Some(way) = self.spec.ways.get(at) else { continue };
            if !is_a(&object.kind, &way.kind) || !self.been.insert((object.clone(), at)) {
                continue;
            }
            let reached: Vec<Moref> = self
                .properties(&object)
                .and_then(|all| all.at(&way.path))
                .map(|value| value.refs().into_iter().cloned().collect())
                .unwrap_or_default();
            let next = self.spec.resolve(&way.next);
            for there in &reached {
                if !way.skip && self.properties(there).is_some() {
                    self.add(there);
                }
            }
            for there in reached.into_iter().rev() {
                open.extend(next.iter().rev().map(|way| (there.clone(), *way)));
            }
        }
    }

    /// What is wanted of an object. `None`: its type is not wanted at all.
    fn wanted(&mut self, object: &Moref) -> Result<Option<Vec<(String, Value)>>, Fault> {
        let (source, spec) = (self.source, self.spec);
        let fits: Vec<_> = spec.wanted.iter().filter(|wanted| is_a(&object.kind, &wanted.kind)).collect();
        let Some(all) = self.properties(object) else { return Ok(None) };
        if fits.is_empty() {
            return Ok(None);
        }
        let mut values: Vec<(String, Value)> = Vec::new();
        if fits.iter().any(|wanted| wanted.all)
            && let Value::Data(data) = all
        {
            values.extend(data.fields.iter().map(|(name, value)| (name.to_string(), value.clone())));
        }
        for path in fits.iter().flat_map(|wanted| &wanted.paths) {
            if values.iter().any(|(have, _)| have == path) {
                continue;
            }
            if let Some(value) = source.at(object, all, path)? {
                values.push((path.clone(), value));
            }
        }
        Ok(Some(values))
    }
}

/// `ObjectContent`.
pub fn content(seen: Seen) -> Value {
    let set = seen
        .values
        .into_iter()
        .map(|(path, value)| Value::Data(Data::new("DynamicProperty").with("name", path).with("val", value)));
    Data::new("ObjectContent").with("obj", seen.object).list("propSet", "DynamicProperty", set).into()
}
