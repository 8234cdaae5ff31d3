//! What a program that started the simulator wants to know: where it is, who it is, and what there is to read.

use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;

use crate::error::Context;
use crate::error::Result;
use crate::sim::random;

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// `https://127.0.0.1:1234/sdk`.
    pub url: String,
    /// The port of HTTPS.
    pub sdk_port: u16,
    /// The port of authd and NFC of the first host.
    pub nfc_port: u16,
    /// Of the certificate, `AA:BB:..`.
    pub thumbprint_sha1: String,
    /// The same, of 32 bytes.
    pub thumbprint_sha256: String,
    /// The machines.
    pub vms: Vec<ReadyMachine>,
    /// The hosts.
    pub hosts: Vec<ReadyHost>,
    /// The first class disks.
    pub first_class: Vec<ReadyFirstClass>,
}

/// A first class disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyFirstClass {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The reference of its datastore: `datastore-12`.
    pub datastore: String,
    /// `[datastore1] dir/name.vmdk`.
    pub path: String,
    /// The ids of its snapshots, oldest first.
    pub snapshots: Vec<String>,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyHost {
    /// Its name in the inventory.
    pub name: String,
    /// `host-9`.
    pub moref: String,
    /// The port of its authd and NFC.
    pub nfc_port: u16,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyMachine {
    /// Its name.
    pub name: String,
    /// `vm-21`.
    pub moref: String,
    /// Its disks as they are.
    pub disks: Vec<ReadyDisk>,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<ReadySnapshot>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyDisk {
    /// `[datastore1] dir/name.vmdk`.
    pub path: String,
    /// The key of its device.
    pub key: i32,
    /// The file on this machine.
    pub file: PathBuf,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadySnapshot {
    /// Its name.
    pub name: String,
    /// `snapshot-22`.
    pub moref: String,
    /// The disks it holds.
    pub disks: Vec<ReadyDisk>,
}

impl Ready {
    /// As JSON on one line.
    pub fn json(&self) -> String {
        let vms = array(&self.vms, |vm| {
            let disks = array(&vm.disks, |disk| {
                format!(
                    "{{\"path\":{},\"key\":{},\"file\":{}}}",
                    quoted(&disk.path),
                    disk.key,
                    quoted(&disk.file.to_string_lossy())
                )
            });
            let snapshots = array(&vm.snapshots, |snapshot| {
                let disks = array(&snapshot.disks, |disk| {
                    format!("{{\"path\":{},\"key\":{}}}", quoted(&disk.path), disk.key)
                });
                let (name, moref) = (quoted(&snapshot.name), quoted(&snapshot.moref));
                format!("{{\"name\":{name},\"moref\":{moref},\"disks\":{disks}}}")
            });
            let (name, moref) = (quoted(&vm.name), quoted(&vm.moref));
            format!("{{\"name\":{name},\"moref\":{moref},\"disks\":{disks},\"snapshots\":{snapshots}}}")
        });
        let hosts = array(&self.hosts, |host| {
            let (name, moref) = (quoted(&host.name), quoted(&host.moref));
            format!("{{\"name\":{name},\"moref\":{moref},\"nfc_port\":{}}}", host.nfc_port)
        });
        let first_class = array(&self.first_class, |disk| {
            let snapshots = array(&disk.snapshots, |id| quoted(id));
            let [name, id, store, path] =
                [&disk.name, &disk.id, &disk.datastore, &disk.path].map(|text| quoted(text));
            format!(
                "{{\"name\":{name},\"id\":{id},\"datastore\":{store},\"path\":{path},\"snapshots\":{snapshots}}}"
            )
        });
        format!(
            "{{\"url\":{},\"sdk_port\":{},\"nfc_port\":{},\"thumbprint_sha1\":{},\"thumbprint_sha256\":{},\
             \"vms\":{vms},\"hosts\":{hosts},\"first_class\":{first_class}}}",
            quoted(&self.url),
            self.sdk_port,
            self.nfc_port,
            quoted(&self.thumbprint_sha1),
            quoted(&self.thumbprint_sha256),
        )
    }

    /// Writes the JSON to a file in one step: who sees the file sees all of it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let what = || format!("writing {}", path.display());
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}.part", random::hex(&random::bytes::<4>()?)));
        std::fs::write(&aside, self.json() + "\n").context(what)?;
        std::fs::rename(&aside, path).context(what)
    }
}

fn array<T>(members: &[T], text: impl Fn(&T) -> String) -> String {
    format!("[{}]", members.iter().map(text).collect::<Vec<_>>().join(","))
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0'..='\x1f' => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            _ => out.push(letter),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_the_json() {
        assert_eq!(quoted("a\"b\\c\n\u{e9}"), "\"a\\\"b\\\\c\\u000a\u{e9}\"");
    }

    #[test]
    fn the_file_has_the_agreed_fields() {
        let disk = ReadyDisk { path: "[d] a/b.vmdk".into(), key: 2000, file: "/x/b.vmdk".into() };
        let snapshot =
            ReadySnapshot { name: "s".into(), moref: "snapshot-3".into(), disks: vec![disk.clone()] };
        let vm = ReadyMachine {
            name: "v".into(),
            moref: "vm-2".into(),
            disks: vec![disk],
            snapshots: vec![snapshot],
        };
        let ready = Ready {
            url: "https://127.0.0.1:1/sdk".into(),
            sdk_port: 1,
            nfc_port: 2,
            thumbprint_sha1: "AA".into(),
            thumbprint_sha256: "BB".into(),
            vms: vec![vm],
            hosts: vec![ReadyHost { name: "h".into(), moref: "host-9".into(), nfc_port: 2 }],
            first_class: vec![ReadyFirstClass {
                name: "f".into(),
                id: "i".into(),
                datastore: "datastore-12".into(),
                path: "[d] f.vmdk".into(),
                snapshots: vec!["s".into()],
            }],
        };
        assert_eq!(
            ready.json(),
            "{\"url\":\"https://127.0.0.1:1/sdk\",\"sdk_port\":1,\"nfc_port\":2,\"thumbprint_sha1\":\"AA\",\
             \"thumbprint_sha256\":\"BB\",\"vms\":[{\"name\":\"v\",\"moref\":\"vm-2\",\"disks\":[{\"path\":\
             \"[d] a/b.vmdk\",\"key\":2000,\"file\":\"/x/b.vmdk\"}],\"snapshots\":[{\"name\":\"s\",\"moref\":\
             \"snapshot-3\",\"disks\":[{\"path\":\"[d] a/b.vmdk\",\"key\":2000}]}]}],\
             \"hosts\":[{\"name\":\"h\",\"moref\":\"host-9\",\"nfc_port\":2}],\"first_class\":[{\"name\":\"f\",\
             \"id\":\"i\",\"datastore\":\"datastore-12\",\"path\":\"[d] f.vmdk\",\"snapshots\":[\"s\"]}]}"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        ready.write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), ready.json() + "\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
