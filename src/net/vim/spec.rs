//! Ways to name a virtual machine.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::http::percent::decoded;

/// What a program said to name a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineSpec {
    /// Its reference: `moref=vm-42`, `vm-42` or, as hosts number them, `42`.
    Moref(String),
    /// Its configuration file: `[ds] dir/vm.vmx?dcPath=dc&dsName=ds`. The values are as they were given; programs encode
    /// them once or twice, and a name may itself look encoded.
    File {
        /// With or without the datastore in front.
        vmx: String,
        /// Path of the datacenter in the inventory, empty when none was given.
        datacenter: String,
        /// Name of the datastore, empty when none was given.
        datastore: String,
    },
    /// Its UUID, of the firmware or of the instance.
    Uuid(String),
    /// Its path in the inventory: `dc/vm/folder/name`.
    Inventory(String),
}

impl MachineSpec {
    /// Understands every form that programs use.
    pub fn parse(text: &str) -> Result<Self> {
        let trimmed = text.trim();
        if let Some(id) = trimmed.strip_prefix("moref=") {
            return Self::moref(id);
        }
        if trimmed.chars().any(char::is_control) {
            return Err(unknown(trimmed));
        }
        if let Some((vmx, rest)) = text.split_once('?') {
            return Self::file(vmx, rest);
        }
        if is_uuid(trimmed) {
            return Ok(Self::Uuid(trimmed.to_owned()));
        }
        if is_bare_moref(trimmed) {
            return Self::moref(trimmed);
        }
        match trimmed.trim_matches('/').contains('/') {
            true => Ok(Self::Inventory(trimmed.to_owned())),
            false => Err(unknown(trimmed)),
        }
    }

    fn moref(id: &str) -> Result<Self> {
        let id = id.trim();
        if id.is_empty() || id.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(unknown(id));
        }
        Ok(Self::Moref(id.to_owned()))
    }

    /// Behind the question mark: `dcPath=..&dsName=..` in any order, or in the oldest form `dcPath?dsName`.
    fn file(vmx: &str, rest: &str) -> Result<Self> {
        let (mut datacenter, mut datastore) = (String::new(), String::new());
        let named = |part: &str| part.starts_with("dcPath=") || part.starts_with("dsName=");
        match rest.split_once('?') {
            Some((first, second)) if !named(first) => {
                (datacenter, datastore) = (first.to_owned(), second.to_owned());
            }
            _ => {
                for part in rest.split(['&', '?']) {
                    match part.split_once('=') {
                        Some(("dcPath", value)) => datacenter = value.to_owned(),
                        Some(("dsName", value)) => datastore = value.to_owned(),
                        _ => {}
                    }
                }
            }
        }
        if vmx.trim().is_empty() || (datastore.is_empty() && !vmx.starts_with('[')) {
            return Err(unknown(vmx));
        }
        Ok(Self::File { vmx: vmx.to_owned(), datacenter, datastore })
    }
}

fn unknown(text: &str) -> Error {
    let what = format!(
        "{:?} names no virtual machine: expected is moref=ID, FILE?dcPath=DATACENTER&dsName=DATASTORE, a UUID or a path \
         in the inventory",
        text.chars().take(200).collect::<String>()
    );
    Error::new(ErrorKind::InvalidArgument, what)
}

/// 32 hexadecimal digits, with or without the usual dashes.
fn is_uuid(text: &str) -> bool {
    let dashes = || text.char_indices().filter(|(_, c)| *c == '-').map(|(at, _)| at);
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    digits == 32 && (text.len() == 32 || text.len() == 36 && dashes().eq([8, 13, 18, 23]))
}

/// `vm-42`, or a plain number.
fn is_bare_moref(text: &str) -> bool {
    let number = text.strip_prefix("vm-").unwrap_or(text);
    !number.is_empty() && number.len() <= 20 && number.bytes().all(|b| b.is_ascii_digit())
}

/// A value as it was given, decoded once and decoded twice, without repetitions.
pub fn spellings(value: &str) -> Vec<String> {
    let mut all = vec![value.to_owned()];
    while all.len() < 3
        && let Some(next) = all.last().and_then(|last| decoded(last))
    {
        all.push(next);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(vmx: &str, datacenter: &str, datastore: &str) -> MachineSpec {
        MachineSpec::File {
            vmx: vmx.to_owned(),
            datacenter: datacenter.to_owned(),
            datastore: datastore.to_owned(),
        }
    }

    #[test]
    fn every_documented_form_is_understood() {
        for (text, expected) in [
            ("moref=vm-42", MachineSpec::Moref("vm-42".into())),
            (" moref=42 ", MachineSpec::Moref("42".into())),
            ("vm-42", MachineSpec::Moref("vm-42".into())),
            ("42", MachineSpec::Moref("42".into())),
            ("a/a.vmx?dcPath=DC&dsName=ds", file("a/a.vmx", "DC", "ds")),
            ("a/a.vmx?dsName=d%2520s&dcPath=f/DC", file("a/a.vmx", "f/DC", "d%2520s")),
            ("[ds] a/a.vmx?dcPath=DC", file("[ds] a/a.vmx", "DC", "")),
            ("a/a.vmx?DC?ds", file("a/a.vmx", "DC", "ds")),
            ("a/a.vmx?dcPath=DC?dsName=ds", file("a/a.vmx", "DC", "ds")),
            (
                "564D5eae-1111-2222-3333-444455556666",
                MachineSpec::Uuid("564D5eae-1111-2222-3333-444455556666".into()),
            ),
            (
                "564d5eae111122223333444455556666",
                MachineSpec::Uuid("564d5eae111122223333444455556666".into()),
            ),
            ("DC0/vm/DC0_H0_VM0", MachineSpec::Inventory("DC0/vm/DC0_H0_VM0".into())),
        ] {
            assert_eq!(MachineSpec::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_names_no_machine_is_an_invalid_argument() {
        for text in
            ["", "moref=", "moref=a b", "esx.example.com", "?dcPath=a&dsName=b", "a.vmx?x=y", "a\nb/c"]
        {
            assert_eq!(MachineSpec::parse(text).unwrap_err().kind(), ErrorKind::InvalidArgument, "{text:?}");
        }
    }

    #[test]
    fn values_are_undone_once_and_twice() {
        assert_eq!(spellings("plain"), ["plain"]);
        assert_eq!(spellings("a%20b"), ["a%20b", "a b"]);
        assert_eq!(spellings("a%2520b"), ["a%2520b", "a%20b", "a b"]);
        assert_eq!(spellings("%252525"), ["%252525", "%2525", "%25"]);
        assert_eq!(spellings("100% %zz %2"), ["100% %zz %2"]);
        assert_eq!(spellings("%ff"), ["%ff"]);
    }
}
