//! Values of the management interface: what properties, arguments and results are made of, and how they stand in XML.
//!
//! A structure lists its fields in the order of the published type definitions, base type first: clients with generated
//! parsers insist on it.

use std::borrow::Cow;
use std::fmt::Write;

use crate::sim::xml::escape;

/// The name of a managed object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Moref {
    /// Its type: `VirtualMachine`.
    pub kind: String,
    /// Its identifier, opaque to clients.
    pub id: String,
}

impl Moref {
    /// The object `id` of this type.
    pub fn new(kind: &str, id: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), id: id.into() }
    }
}

/// A value of any type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `xsd:boolean`.
    Bool(bool),
    /// `xsd:short`.
    Short(i16),
    /// `xsd:int`.
    Int(i32),
    /// `xsd:long`.
    Long(i64),
    /// `xsd:string`.
    Text(String),
    /// `xsd:dateTime`, already in its form.
    Time(String),
    /// A member of an enumeration: its type, and which one.
    Enum(&'static str, String),
    /// A reference to a managed object.
    Ref(Moref),
    /// A structure.
    Data(Data),
    /// Several of one type, which is named as in the type definitions: `string`, `VirtualDevice`, `ManagedObjectReference`.
    List(&'static str, Vec<Value>),
}

/// A structure: its type and its fields that are set.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// The name of the type.
    pub kind: Cow<'static, str>,
    /// Names and values, in the order of the definition.
    pub fields: Vec<(Cow<'static, str>, Value)>,
}

impl Data {
    /// A structure without fields.
    pub fn new(kind: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: kind.into(), fields: Vec::new() }
    }

    /// The same with one more field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// The same with one more field, if it is set.
    #[must_use]
    pub fn maybe(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The same with one more field of several values.
    #[must_use]
    pub fn list(self, name: &'static str, of: &'static str, values: impl IntoIterator<Item = Value>) -> Self {
        self.with(name, Value::List(of, values.into_iter().collect()))
    }

    /// The same with references to objects.
    #[must_use]
    pub fn refs(self, name: &'static str, values: impl IntoIterator<Item = Moref>) -> Self {
        self.list(name, "ManagedObjectReference", values.into_iter().map(Value::Ref))
    }

    /// A field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(given, _)| given == name).map(|(_, value)| value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i16> for Value {
    fn from(value: i16) -> Self {
        Value::Short(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Value::Int(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Long(value)
    }
}

/// Sizes: what no `xsd:long` holds is cut to the largest one.
impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::Long(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl From<Moref> for Value {
    fn from(value: Moref) -> Self {
        Value::Ref(value)
    }
}

impl From<Data> for Value {
    fn from(value: Data) -> Self {
        Value::Data(value)
    }
}

impl Value {
    /// What a path of names leads to, such as `hardware.device[2000].backing`; a key in brackets picks the member of a
    /// list that has it. `None` for what is not set.
    pub fn at(&self, path: &str) -> Option<&Value> {
        let mut here = self;
        for step in path.split('.') {
            let (name, key) = match step.split_once('[') {
                Some((name, key)) => (name, Some(key.trim_end_matches(']').trim_matches('"'))),
                None => (step, None),
            };
            let Value::Data(data) = here else { return None };
            here = data.get(name)?;
            if let Some(key) = key {
                let Value::List(_, members) = here else { return None };
                here = members.iter().find(|member| member.has_key(key))?;
            }
        }
        Some(here)
    }

    fn has_key(&self, key: &str) -> bool {
        match self {
            Value::Data(data) => match data.get("key") {
                Some(Value::Int(number)) => number.to_string() == key,
                Some(Value::Text(text)) => text == key,
                _ => false,
            },
            _ => false,
        }
    }

    /// The references in it: one, or those of a list.
    pub fn refs(&self) -> Vec<&Moref> {
        match self {
            Value::Ref(one) => vec![one],
            Value::List(_, members) => members.iter().flat_map(Value::refs).collect(),
            _ => Vec::new(),
        }
    }

    /// Writes it as the element `name`, with its type: what stands where any type may stand.
    pub fn write_any(&self, out: &mut String, name: &str) {
        if let Value::List(of, members) = self {
            let _ = write!(out, "<{name} xsi:type=\"ArrayOf{}\">", array_name(of));
            members.iter().for_each(|member| member.write_one(out, of, false));
            close(out, name);
        } else {
            self.write_one(out, name, true);
        }
    }

    /// Writes it as the element `name` where its type is known; a list becomes one element for each member.
    pub fn write(&self, out: &mut String, name: &str) {
        match self {
            Value::List(_, members) => members.iter().for_each(|member| member.write_one(out, name, false)),
            one => one.write_one(out, name, false),
        }
    }

    fn write_one(&self, out: &mut String, name: &str, typed: bool) {
        match self {
            Value::Bool(value) => simple(out, name, typed, "xsd:boolean", &value.to_string()),
            Value::Short(value) => simple(out, name, typed, "xsd:short", &value.to_string()),
            Value::Int(value) => simple(out, name, typed, "xsd:int", &value.to_string()),
            Value::Long(value) => simple(out, name, typed, "xsd:long", &value.to_string()),
            Value::Text(value) => simple(out, name, typed, "xsd:string", &escape(value)),
            Value::Time(value) => simple(out, name, typed, "xsd:dateTime", &escape(value)),
            Value::Enum(kind, value) => simple(out, name, typed, kind, &escape(value)),
            Value::Ref(moref) => {
                let kind = escape(&moref.kind);
                let also = if typed { " xsi:type=\"ManagedObjectReference\"" } else { "" };
                let _ = write!(out, "<{name} type=\"{kind}\"{also}>{}", escape(&moref.id));
                close(out, name);
            }
            Value::Data(data) => {
                let _ = write!(out, "<{name} xsi:type=\"{}\">", data.kind);
                data.fields.iter().for_each(|(field, value)| match &*data.kind {
                    // These hold values of any type.
                    "DynamicProperty" | "PropertyChange" | "OptionValue" | "TaskInfo"
                        if matches!(&**field, "val" | "value" | "result") =>
                    {
                        value.write_any(out, field);
                    }
                    _ => value.write(out, field),
                });
                close(out, name);
            }
            Value::List(..) => self.write_any(out, name),
        }
    }
}

fn simple(out: &mut String, name: &str, typed: bool, kind: &str, text: &str) {
    match typed {
        true => {
            let _ = write!(out, "<{name} xsi:type=\"{kind}\">{text}");
        }
        false => {
            let _ = write!(out, "<{name}>{text}");
        }
    }
    close(out, name);
}

fn close(out: &mut String, name: &str) {
    let _ = write!(out, "</{name}>");
}

/// The name of an array of a type: `ArrayOfString`, `ArrayOfVirtualDevice`.
fn array_name(of: &str) -> String {
    let mut letters = of.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(key: i32) -> Value {
        Data::new("VirtualDisk").with("key", key).with("capacityInKB", 5i64).into()
    }

    #[test]
    fn a_list_is_an_array_where_any_type_may_stand_and_repeated_elements_elsewhere() {
        let list = Value::List("VirtualDevice", vec![device(1), device(2)]);
        let mut any = String::new();
        list.write_any(&mut any, "val");
        assert!(
            any.starts_with(
                "<val xsi:type=\"ArrayOfVirtualDevice\"><VirtualDevice xsi:type=\"VirtualDisk\">"
            )
        );
        let mut known = String::new();
        list.write(&mut known, "device");
        assert_eq!(known.matches("<device xsi:type=\"VirtualDisk\">").count(), 2);
    }

    #[test]
    fn texts_cannot_break_out_of_their_element() {
        let mut out = String::new();
        Value::from("a<b>&\"'").write_any(&mut out, "v");
        assert_eq!(out, "<v xsi:type=\"xsd:string\">a&lt;b&gt;&amp;&quot;&apos;</v>");
    }

    #[test]
    fn paths_lead_through_structures_and_keyed_lists() {
        let hardware = Data::new("VirtualHardware").list("device", "VirtualDevice", [device(1), device(2)]);
        let config: Value = Data::new("VirtualMachineConfigInfo").with("hardware", hardware).into();
        assert_eq!(config.at("hardware.device[2].key"), Some(&Value::Int(2)));
        assert_eq!(config.at("hardware.device[3].key"), None);
        assert_eq!(config.at("hardware.nothing"), None);
    }
}
