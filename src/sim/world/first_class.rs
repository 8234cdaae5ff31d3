//! First class disks: disks that exist without a machine, with snapshots of their own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::sim::options::FirstClassOptions;
use crate::sim::options::Options;
use crate::sim::world::World;
use crate::sim::world::build::identity_of;
use crate::sim::world::device::Found;
use crate::sim::world::device::Link;

/// A first class disk.
#[derive(Clone, Debug)]
pub struct FirstClassDisk {
    /// Its id, a UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Bytes.
    pub capacity: u64,
    /// Its files as they are.
    pub leaf: Arc<Link>,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<FirstClassSnapshot>,
    /// When it was made.
    pub created: SystemTime,
}

/// A snapshot of a first class disk.
#[derive(Clone, Debug)]
pub struct FirstClassSnapshot {
    /// Its id, a UUID.
    pub id: String,
    /// The files that hold it.
    pub link: Arc<Link>,
}

impl World {
    /// Opens the disk once. The parents of a chain are its snapshots.
    pub fn add_first_class(&mut self, given: &FirstClassOptions, options: &Options) -> Result<()> {
        let story = || format!("first class disk {:?}", given.name);
        if self.first_class.iter().any(|other| other.name == given.name) {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("{} is named twice", story())));
        }
        let found = Found::at(&given.disk, &mut self.stores, &options.log).context(story)?;
        let mut links = found.chain.into_iter();
        let Some(leaf) = links.next() else {
            return Err(Error::new(ErrorKind::Internal, format!("{} has no file", story())));
        };
        let mut snapshots: Vec<FirstClassSnapshot> = links
            .map(|link| {
                let file = link.file.file.to_string_lossy().into_owned();
                FirstClassSnapshot { id: identity_of("snapshot of a first class disk", &file), link }
            })
            .collect();
        snapshots.reverse();
        self.first_class.push(FirstClassDisk {
            id: identity_of("first class disk", &given.name),
            name: given.name.clone(),
            capacity: found.capacity,
            leaf,
            snapshots,
            created: SystemTime::now(),
        });
        Ok(())
    }

    /// The first class disk whose leaf a file is: of a machine's disk, that it is one.
    pub fn first_class_at(&self, file: &PathBuf) -> Option<&FirstClassDisk> {
        self.first_class.iter().find(|disk| disk.leaf.file.file == *file)
    }
}
