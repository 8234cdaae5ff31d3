//! References to objects of a server.

use std::fmt;

/// A reference to an object of a server. The id means something to that server only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Moref {
    /// The type: `VirtualMachine`.
    pub kind: String,
    /// The id: `vm-42` on a vCenter, `42` on a host.
    pub id: String,
}

impl Moref {
    /// A reference to an object of this type.
    pub fn new(kind: impl Into<String>, id: impl Into<String>) -> Self {
        Self { kind: kind.into(), id: id.into() }
    }

    /// A reference to a virtual machine.
    pub fn machine(id: impl Into<String>) -> Self {
        Self::new("VirtualMachine", id)
    }

    /// A reference to a snapshot, in the forms `moref=snapshot-2` and `snapshot-2`. `None` when nothing is named.
    pub fn snapshot(text: &str) -> Option<Self> {
        let text = text.trim();
        let id = text.strip_prefix("moref=").unwrap_or(text);
        (!id.is_empty()).then(|| Self::new("VirtualMachineSnapshot", id))
    }
}

/// `VirtualMachine vm-42`.
impl fmt::Display for Moref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_named_with_and_without_moref() {
        let snapshot = Some(Moref::new("VirtualMachineSnapshot", "snapshot-2"));
        assert_eq!(Moref::snapshot("moref=snapshot-2"), snapshot);
        assert_eq!(Moref::snapshot(" snapshot-2\n"), snapshot);
        assert_eq!(Moref::snapshot(""), None);
        assert_eq!(Moref::snapshot("moref="), None);
    }
}
