//! The header read back: bindgen's view of it against the library's own types.

#![allow(non_snake_case)]

mod common;

use common::abi;
use common::scratch;
use std::collections::BTreeMap;
use std::mem::offset_of;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use vixDiskLib::abi::codes::CODES;
use vixDiskLib::abi::types::*;

/// What bindgen makes of a header, `None` without libclang.
fn bindings(header: &Path) -> Option<String> {
    let text = catch_unwind(AssertUnwindSafe(|| {
        bindgen::Builder::default()
            .header(header.to_string_lossy())
            .allowlist_type("Vix.*")
            .allowlist_var("VIX.*")
            .allowlist_function("VixDiskLib_.*")
            .default_enum_style(bindgen::EnumVariation::Consts)
            .prepend_enum_name(false)
            .layout_tests(true)
            .generate()
    }));
    match text {
        Ok(Ok(bindings)) => Some(bindings.to_string()),
        Ok(Err(e)) => panic!("{} cannot be read: {e}", header.display()),
        Err(_) => {
            scratch::note("bindgen finds no libclang: the header is not read back");
            None
        }
    }
}

/// Sizes by type and offsets by `type::member`, out of the assertions that bindgen writes.
fn layouts(bindings: &str) -> BTreeMap<String, usize> {
    let flat: String = bindings.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = BTreeMap::new();
    for (start, end) in [("[\"Size of ", "\"]"), ("[\"Offset of field: ", "\"]")] {
        for part in flat.split(start).skip(1) {
            let (name, rest) = part.split_once(end).expect("a name ends");
            let value = rest.split_once(" - ").and_then(|(_, rest)| rest.split_once("usize]"));
            let value = value.expect("an assertion").0.trim().parse().expect("a number");
            found.insert(name.to_owned(), value);
        }
    }
    found
}

macro_rules! ours {
    ($($type:ident { $($member:ident),* })*) => {
        vec![$(
            (stringify!($type).to_owned(), size_of::<$type>()),
            $((format!("{}::{}", stringify!($type), stringify!($member)), offset_of!($type, $member)),)*
        )*]
    };
}

fn expected() -> Vec<(String, usize)> {
    ours! {
        VixDiskLibGeometry { cylinders, heads, sectors }
        VixDiskLibCreateParams { diskType, adapterType, hwVersion, capacity, logicalSectorSize, physicalSectorSize }
        VixDiskLibUidPasswdCreds { userName, password }
        VixDiskLibSessionIdCreds { cookie, userName, key }
        VixDiskLibVStorageObjectSpec { id, datastoreMoRef, ssId }
        VixDiskLibDatastoreSpec { datastoreMoRef, diskFolder }
        VixDiskLibConnectParams {
            vmxSpec, serverName, thumbPrint, privateUse, credType, creds, port, nfcHostPort, vimApiVer, reserved, state, spec,
            specType
        }
        VixDiskLibInfo {
            biosGeo, physGeo, capacity, adapterType, numLinks, parentFileNameHint, uuid, logicalSectorSize, physicalSectorSize
        }
        VixDiskLibBlock { offset, length }
        VixDiskLibBlockList { numBlocks, blocks }
    }
}

#[test]
fn the_header_has_the_layout_of_the_library() {
    let Some(text) = bindings(&abi::root().join("include/vixDiskLib.h")) else { return };
    let found = layouts(&text);
    for (name, value) in expected() {
        assert_eq!(found.get(&name), Some(&value), "{name}");
    }
}

#[test]
fn the_header_has_the_codes_of_the_table_and_the_functions_of_the_list() {
    let Some(text) = bindings(&abi::root().join("include/vixDiskLib.h")) else { return };
    let constants: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": "))
        .filter_map(|(name, rest)| Some((name, rest.split_once(" = ")?.1.trim_end_matches(';'))))
        .collect();
    for (code, name, _) in CODES {
        assert_eq!(constants.get(name).copied(), Some(&*code.to_string()), "{name}");
    }
    let exports =
        std::fs::read_to_string(abi::root().join("tests/golden/exports.txt")).expect("the golden list");
    for name in exports.lines() {
        assert!(text.contains(&format!("pub fn {name}(")), "{name} is not declared");
    }
}

#[test]
fn a_vendor_header_has_the_same_layout_where_there_is_one() {
    let Some(vendor) = std::env::var_os("VDDK_INCLUDE") else {
        scratch::note("VDDK_INCLUDE names no folder of another header to compare with");
        return;
    };
    let Some(text) = bindings(&Path::new(&vendor).join("vixDiskLib.h")) else { return };
    let found = layouts(&text);
    let mut shared = 0;
    for (name, value) in expected() {
        // Members that only one of the two headers names are a matter of taste; what both have must agree.
        if let Some(other) = found.get(&name) {
            assert_eq!(*other, value, "{name}");
            shared += 1;
        }
    }
    assert!(shared > 30, "only {shared} names in common");
}
