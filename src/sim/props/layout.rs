//! The files of a machine.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::sim::clock;
use crate::sim::disks::stores::FileRef;
use crate::sim::value::Data;
use crate::sim::value::Value;
use crate::sim::world::device::Device;
use crate::sim::world::device::Link;
use crate::sim::world::machine::Machine;

/// Files and the keys they were given.
#[derive(Default)]
struct Files {
    keys: HashMap<PathBuf, i32>,
    list: Vec<Value>,
}

impl Files {
    /// The key of a file of this type.
    fn key(&mut self, file: &FileRef, kind: &str) -> i32 {
        if let Some(key) = self.keys.get(&file.file) {
            return *key;
        }
        let key = i32::try_from(self.list.len()).unwrap_or(i32::MAX);
        let size = std::fs::metadata(&file.file).map_or(0, |meta| meta.len());
        let data = Data::new("VirtualMachineFileLayoutExFileInfo")
            .with("key", key)
            .with("name", file.to_string())
            .with("type", kind)
            .with("size", size)
            .with("uniqueSize", size)
            .with("accessible", true);
        self.list.push(data.into());
        self.keys.insert(file.file.clone(), key);
        key
    }

    fn link(&mut self, link: &Link) -> Value {
        let mut keys = vec![Value::Int(self.key(&link.file, "diskDescriptor"))];
        keys.extend(link.extents.iter().map(|extent| Value::Int(self.key(extent, "diskExtent"))));
        Data::new("VirtualMachineFileLayoutExDiskUnit").list("fileKey", "int", keys).into()
    }

    /// Base first, as real servers list chains.
    fn disk(&mut self, device: &Device) -> Value {
        let chain: Vec<Value> = device.chain.iter().rev().map(|link| self.link(link)).collect();
        Data::new("VirtualMachineFileLayoutExDiskLayout")
            .with("key", device.key)
            .list("chain", "VirtualMachineFileLayoutExDiskUnit", chain)
            .into()
    }
}

/// `VirtualMachineFileLayoutEx`.
pub fn layout(machine: &Machine) -> Data {
    let mut files = Files::default();
    let disks: Vec<Value> = machine.disks.iter().map(|disk| files.disk(&disk.device)).collect();
    let snapshots: Vec<Value> = machine
        .snapshots
        .iter()
        .map(|snapshot| {
            let disks: Vec<Value> = snapshot.disks.iter().map(|device| files.disk(device)).collect();
            Data::new("VirtualMachineFileLayoutExSnapshotLayout")
                .with("key", snapshot.moref())
                .with("dataKey", -1i32)
                .with("memoryKey", -1i32)
                .list("disk", "VirtualMachineFileLayoutExDiskLayout", disks)
                .into()
        })
        .collect();
    Data::new("VirtualMachineFileLayoutEx")
        .list("file", "VirtualMachineFileLayoutExFileInfo", files.list)
        .list("disk", "VirtualMachineFileLayoutExDiskLayout", disks)
        .list("snapshot", "VirtualMachineFileLayoutExSnapshotLayout", snapshots)
        .with("timestamp", Value::Time(clock::iso(machine.created)))
}
