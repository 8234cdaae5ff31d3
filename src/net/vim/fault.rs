//! Faults: what a server refuses, and what kind of error that is.

use std::fmt;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::net::http::Hidden;
use crate::net::vim::moref::Moref;
use crate::net::vim::xml;
use crate::net::vim::xml::Node;

/// A fault that a server reported.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// Its type, such as `NoPermission`; empty when the server named none.
    pub name: String,
    /// Words for people, in the server's language.
    pub text: String,
    /// The object that it is about.
    pub object: Option<Moref>,
    /// More about it, by the names of the fault's fields.
    pub facts: Vec<(&'static str, String)>,
}

/// All of it are the server's words: only [`Fault::error`] shows them.
impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").finish_non_exhaustive()
    }
}

/// Fields that say more. There is at most one of each that counts.
const FACTS: &[&str] =
    &["privilegeId", "privilegeIds", "invalidProperty", "sourceId", "file", "method", "name"];

/// Fields with the object that a fault is about.
const OBJECTS: &[&str] = &["object", "obj", "entity"];

impl Fault {
    /// Reads the `Fault` of an envelope.
    pub fn of_envelope(node: Node<'_>) -> Self {
        let text = child(node, "faultstring").map(xml::text).unwrap_or_default();
        let detail = child(node, "detail").and_then(|detail| detail.children().find(Node::is_element));
        let mut fault = detail.map(Self::of_value).unwrap_or_default();
        fault.text = text;
        fault
    }

    /// Reads a fault with its words, as they stand among properties and in tasks.
    pub fn localized(node: Node<'_>) -> Self {
        let mut fault = child(node, "fault").map(Self::of_value).unwrap_or_default();
        fault.text = child(node, "localizedMessage").map(xml::text).unwrap_or_default();
        fault
    }

    fn of_value(node: Node<'_>) -> Self {
        let name = node.tag_name().name();
        let name = xml::type_of(node).unwrap_or(name.strip_suffix("Fault").unwrap_or(name)).to_owned();
        let object = node
            .descendants()
            .filter(|n| n.is_element() && OBJECTS.contains(&n.tag_name().name()))
            .find_map(|n| xml::moref(n).ok());
        let fact = |wanted: &&'static str| {
            let found = node.descendants().find(|n| n.is_element() && n.tag_name().name() == *wanted)?;
            Some((*wanted, xml::text(found))).filter(|(_, text)| !text.is_empty())
        };
        Self { name, text: String::new(), object, facts: FACTS.iter().filter_map(fact).collect() }
    }

    /// A field of the fault.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|(n, _)| *n == name).map(|(_, text)| text.as_str())
    }

    /// The kind of error that it is.
    pub fn kind(&self) -> ErrorKind {
        if matches!(self.name.as_str(), "ManagedObjectNotFound" | "NotFound")
            && self.object.as_ref().is_some_and(|object| object.kind == "VirtualMachine")
        {
            return ErrorKind::MachineNotFound;
        }
        KINDS
            .iter()
            .find(|(_, names)| names.contains(&self.name.as_str()))
            .map_or(ErrorKind::ServerFault, |(k, _)| *k)
    }

    /// As an error of this method. All of it are the server's words, which are looked through for secrets.
    pub fn error(&self, method: &str, hidden: &Hidden) -> Error {
        let looks_like_one = |name: &str| {
            (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let name = match looks_like_one(&self.name) && !hidden.repeats(self.name.as_bytes()) {
            true => self.name.as_str(),
            false => "a fault that it does not name",
        };
        let mut what = format!("the server refuses {method} with {name}: {}", hidden.quote(&self.text));
        for (name, text) in &self.facts {
            what.push_str(&format!(", {name} {}", hidden.quote(text)));
        }
        if let Some(object) = &self.object {
            what.push_str(&format!(", about {}", hidden.quote(&object.to_string())));
        }
        Error::new(self.kind(), what)
    }
}

/// The element of this name inside of a fault. In faults, namespaces differ between servers.
fn child<'a>(node: Node<'a>, name: &str) -> Option<Node<'a>> {
    node.children().find(|n| n.is_element() && n.tag_name().name() == name)
}

/// Types of faults and their kinds; what is not here is a `ServerFault`.
const KINDS: &[(ErrorKind, &[&str])] = &[
    (
        ErrorKind::Unauthorised,
        &[
            "InvalidLogin",
            "NoPermission",
            "NoPermissionOnHost",
            "RestrictedByAdministrator",
            "SecurityError",
            "InvalidLocale",
        ],
    ),
    (ErrorKind::SessionInvalid, &["NotAuthenticated"]),
    (ErrorKind::ObjectNotFound, &["ManagedObjectNotFound", "NotFound"]),
    (ErrorKind::NotFound, &["FileNotFound", "NoDiskFound"]),
    (ErrorKind::Locked, &["FileLocked"]),
    (ErrorKind::AccessDenied, &["CannotAccessFile", "CannotAccessVmDisk", "FileNotWritable"]),
    (ErrorKind::Io, &["FileFault"]),
    (ErrorKind::AlreadyExists, &["FileAlreadyExists"]),
    (ErrorKind::NameTooLong, &["FileNameTooLong"]),
    (ErrorKind::NotAFile, &["NotAFile"]),
    (ErrorKind::FileTooBig, &["FileTooLarge"]),
    (
        ErrorKind::InvalidArgument,
        &["InvalidArgument", "InvalidRequest", "InvalidName", "InvalidDatastorePath"],
    ),
    (
        ErrorKind::Busy,
        &[
            "InvalidState",
            "TaskInProgress",
            "VAppTaskInProgress",
            "InvalidPowerState",
            "InvalidVmState",
            "InvalidDatastoreState",
            "MethodDisabled",
            "MethodAlreadyDisabledFault",
            "ResourceInUse",
            "ConcurrentAccess",
            "QuestionPending",
        ],
    ),
    (
        ErrorKind::NotSupported,
        &[
            "NotSupported",
            "NotImplemented",
            "MethodNotFound",
            "RestrictedVersion",
            "HostAccessRestrictedToManagementServer",
        ],
    ),
    (ErrorKind::DiskFull, &["NoDiskSpace", "InsufficientStorageSpace"]),
    (
        ErrorKind::OutOfMemory,
        &["InsufficientResourcesFault", "InsufficientMemoryResourcesFault", "InsufficientCpuResourcesFault"],
    ),
    (
        ErrorKind::HostUnavailable,
        &[
            "HostNotConnected",
            "HostNotReachable",
            "HostCommunication",
            "HostConnectFault",
            "InvalidHostState",
            "OperationDisallowedOnHost",
            "NoHost",
        ],
    ),
    (ErrorKind::Cancelled, &["RequestCanceled"]),
    (ErrorKind::TimedOut, &["Timedout"]),
];

/// Why a call gave nothing.
#[derive(Debug)]
pub enum Refused {
    /// The server reported a fault.
    Fault(Fault),
    /// It did not come to that.
    Error(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused::Error(error)
    }
}

impl Refused {
    /// The name of the fault, if it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Refused::Fault(fault) => Some(&fault.name),
            Refused::Error(_) => None,
        }
    }

    /// As an error of this method.
    pub fn error(self, method: &str, hidden: &Hidden) -> Error {
        match self {
            Refused::Fault(fault) => fault.error(method, hidden),
            Refused::Error(error) => error.context(method),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn fault(detail: &str) -> Fault {
        let text = format!(
            "<s:Fault xmlns:s='{}' xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance'><faultcode>ServerFaultCode</faultcode>\
             <faultstring>No, you may not.</faultstring><detail>{detail}</detail></s:Fault>",
            xml::ENVELOPE
        );
        let document = xml::parse(text.as_bytes(), &Hidden::default()).unwrap();
        Fault::of_envelope(document.root_element())
    }

    #[test]
    fn a_fault_is_named_by_its_type_or_else_by_its_element() {
        assert_eq!(fault("<XFault xmlns='urn:vim25' xsi:type='v:InvalidLogin'/>").name, "InvalidLogin");
        assert_eq!(fault("<InvalidLoginFault xmlns='urn:vim25'/>").name, "InvalidLogin");
        assert_eq!(fault("<x:Odd xmlns:x='urn:other'/>").name, "Odd");
        assert_eq!(fault("").name, "");
        assert_eq!(fault("").kind(), ErrorKind::ServerFault);
    }

    #[test]
    fn an_error_tells_words_privilege_and_object() {
        let e = fault(
            "<NoPermissionFault xmlns='urn:vim25' xsi:type='NoPermission'><object type='VirtualMachine'>vm-1</object>\
             <privilegeId>VirtualMachine.Provisioning.DiskRandomRead</privilegeId></NoPermissionFault>",
        )
        .error("NfcGetVmFiles", &Hidden::default());
        assert_eq!(e.kind(), ErrorKind::Unauthorised);
        assert_eq!(
            e.to_string(),
            "the server refuses NfcGetVmFiles with NoPermission: \"No, you may not.\", privilegeId \
             \"VirtualMachine.Provisioning.DiskRandomRead\", about \"VirtualMachine vm-1\""
        );
    }

    #[test]
    fn a_missing_machine_is_told_from_other_missing_objects() {
        let gone = |kind: &str| {
            fault(&format!("<ManagedObjectNotFoundFault xmlns='urn:vim25'><obj type='{kind}'>x</obj></ManagedObjectNotFoundFault>")).kind()
        };
        assert_eq!(gone("VirtualMachine"), ErrorKind::MachineNotFound);
        assert_eq!(gone("HostSystem"), ErrorKind::ObjectNotFound);
    }

    #[test]
    fn secrets_in_any_part_of_a_fault_are_left_out() {
        let hidden = Hidden::default();
        hidden.keep(&Secret::from("canary".to_owned()));
        let said = Fault {
            name: "canary".into(),
            text: "the canary".into(),
            object: Some(Moref::new("canary", "canary")),
            facts: vec![("file", "[ds] canary".into())],
        };
        let e = said.error("Login", &hidden).to_string();
        assert!(!e.contains("canary"), "{e}");
    }
}
