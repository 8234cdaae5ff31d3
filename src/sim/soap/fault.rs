//! Faults of the management interface.

use std::borrow::Cow;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::sim::value::Data;
use crate::sim::value::Moref;
use crate::sim::value::Value;

/// Why a call or a task failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The structure: its type is the name of the fault.
    pub data: Data,
    /// The text for people.
    pub text: String,
}

impl Fault {
    /// A fault of this name.
    pub fn new(name: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Fault {
        Fault { data: Data::new(name), text: text.into() }
    }

    /// The same with one more field.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Fault {
        self.data.fields.push((name.into(), value.into()));
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.data.kind
    }

    /// An argument is wrong.
    pub fn argument(name: &str) -> Fault {
        let text = format!("A specified parameter was not correct: {name}");
        Fault::new("InvalidArgument", text).with("invalidProperty", name)
    }

    /// The request is no request.
    pub fn request(why: impl Into<String>) -> Fault {
        Fault::new("InvalidRequest", why)
    }

    /// There is no such object, or it is not one of those that the caller may see.
    pub fn no_object(object: &Moref) -> Fault {
        let text = format!(
            "The object 'vim.{}:{}' has already been deleted or has not been completely created",
            object.kind, object.id
        );
        Fault::new("ManagedObjectNotFound", text).with("obj", object.clone())
    }

    /// The object has no such method.
    pub fn no_method(object: &Moref, method: &str) -> Fault {
        Fault::new("MethodNotFound", format!("The method {method} is not supported on the object."))
            .with("receiver", object.clone())
            .with("method", method)
    }

    /// Nobody is logged in.
    pub fn not_authenticated(object: &Moref) -> Fault {
        Fault::new("NotAuthenticated", "The session is not authenticated.")
            .with("object", object.clone())
            .with("privilegeId", "System.View")
    }

    /// The server does not do that.
    pub fn not_supported() -> Fault {
        Fault::new("NotSupported", "The operation is not supported on the object.")
    }

    /// What is asked for does not exist.
    pub fn not_found() -> Fault {
        Fault::new("NotFound", "The object or item referred to could not be found.")
    }

    /// Something about a file.
    pub fn file(name: &'static str, file: &str) -> Fault {
        let text = match name {
            "FileNotFound" => format!("File {file} was not found"),
            "FileLocked" => format!("Unable to access file {file} since it is locked"),
            "FileAlreadyExists" => format!("The specified key, name, or identifier '{file}' already exists."),
            _ => format!("Error caused by file {file}"),
        };
        Fault::new(name, text).with("file", file)
    }

    /// The object is being changed already.
    pub fn in_progress() -> Fault {
        Fault::new(
            "TaskInProgress",
            "The operation is not allowed in the current state: another task is already in progress.",
        )
    }

    /// The machine's power state does not allow it.
    pub fn power(existing: bool) -> Fault {
        let state = |on: bool| {
            Value::Enum("VirtualMachinePowerState", if on { "poweredOn" } else { "poweredOff" }.to_owned())
        };
        let word = if existing { "Powered on" } else { "Powered off" };
        let text = format!("The attempted operation cannot be performed in the current state ({word}).");
        Fault::new("InvalidPowerState", text)
            .with("requestedState", state(!existing))
            .with("existingState", state(existing))
    }

    /// What a fault of a file of this machine is to a client.
    pub fn of(error: &Error, file: &str) -> Fault {
        let name = match error.kind() {
            ErrorKind::NotFound => "FileNotFound",
            ErrorKind::Locked => "FileLocked",
            ErrorKind::AlreadyExists => "FileAlreadyExists",
            ErrorKind::DiskFull => {
                return Fault::new("NoDiskSpace", error.to_string()).with("file", file).with("datastore", "");
            }
            ErrorKind::NotSupported | ErrorKind::ParentNotAllowed | ErrorKind::TooManyLinks => {
                return Fault::new("NotSupported", error.to_string());
            }
            _ => "FileFault",
        };
        let fault = Fault::file(name, file);
        Fault { text: format!("{}: {error}", fault.text), ..fault }
    }

    /// As it stands in a property or in a task.
    pub fn localized(&self) -> Data {
        Data::new("LocalizedMethodFault")
            .with("fault", self.data.clone())
            .with("localizedMessage", self.text.clone())
    }
}
