//! What the behaviour tests share. Each file is one idea:
//!
//! * [`abi`]: C programs against the built library;
//! * [`vix`]: the C interface of the built library behind a thin safe wrapper;
//! * [`disks`]: disks with something in them, and odd names;
//! * [`child`]: running a test's body in a process of its own, because `InitEx` and `Exit` are global to a process;
//! * [`scratch`]: folders that disappear, and peers that a machine may lack;
//! * [`images`]: the golden and hostile images, unpacked;
//! * [`model`]: stamped sectors and a seeded generator, so that a wrong sector says which one it is;
//! * [`tools`]: running programs with a deadline;
//! * [`nbd`]: nbdkit with its vddk plugin around the built library;
//! * [`export`]: what every NBD server and transport must do as a disk;
//! * [`servers`]: NBD servers that others wrote; [`pki`]: certificates for them; [`proxy`]: a bad way to them;
//! * [`nbd_peer`], [`nfc_peer`]: an NBD server and an ESXi host inside the test, which may lie;
//! * [`vcsim`]: a vCenter or ESXi that others wrote; [`soap_peer`]: one inside the test, which may lie;
//! * [`stage`]: our own simulator with machines on it; [`vixsim`]: the same as a process of its own;
//! * [`pieces`]: a disk in pieces of many sizes;
//! * [`nfc_house`]: the NFC server of the simulator over disks in memory;
//! * [`readers`]: other programs that read disks;
//! * [`process`]: limits, identity and what a process used.
//!
//! Each test program uses only a part of it.
#![allow(dead_code)]

pub mod abi;
pub mod child;
pub mod disks;
pub mod export;
pub mod images;
pub mod model;
pub mod nbd;
pub mod nbd_peer;
pub mod nfc_house;
pub mod nfc_peer;
pub mod pieces;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod readers;
pub mod scratch;
pub mod servers;
pub mod soap_peer;
pub mod stage;
pub mod tools;
pub mod vcsim;
pub mod vix;
pub mod vixsim;

/// Leaves the test when a program it needs is missing: the reason is printed, and with `CI=true` it is a failure.
#[macro_export]
macro_rules! requires {
    ($($program:expr),+ $(,)?) => {
        $(
            if let Err(reason) = common::scratch::program($program) {
                common::scratch::skip(&reason);
                return;
            }
        )+
    };
}
