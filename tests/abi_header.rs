//! The headers: committed as generated, clean in every standard, laid out as every other header of the interface.

mod common;

use common::abi;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

const C: [&str; 5] = ["c89", "c99", "c11", "c17", "gnu17"];
const CXX: [&str; 6] = ["c++98", "c++11", "c++14", "c++17", "c++20", "gnu++20"];

/// What the compiler says about a text, nothing when it is clean.
fn compile(compiler: &str, options: &[&str], text: &str) -> String {
    let language = if compiler == "gcc" { "c" } else { "c++" };
    let mut child = Command::new(compiler)
        .args(options)
        .args(["-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", language, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the compiler starts");
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() || !output.stderr.is_empty());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn include() -> String {
    format!("-I{}", abi::root().join("include").display())
}

#[test]
fn committed_headers_are_the_generated_ones() {
    for name in ["vixDiskLib.h", "vm_basic_types.h", "vixMntapi.h"] {
        let generated =
            std::fs::read_to_string(Path::new(env!("OUT_DIR")).join(name)).expect("made by build.rs");
        let present = std::fs::read_to_string(abi::root().join("include").join(name)).expect("committed");
        assert!(
            present == generated,
            "include/{name} was not made from these sources: build again and commit it"
        );
    }
}

#[test]
fn programs_use_the_header_in_every_standard_without_a_warning() {
    requires!("gcc", "g++");
    let program = std::fs::read_to_string(abi::root().join("tests/c/header_alone.c")).expect("the program");
    for standard in C {
        assert_eq!(
            compile("gcc", &[&format!("-std={standard}"), "-pedantic", &include()], &program),
            "",
            "{standard}"
        );
    }
    for standard in CXX {
        let options = [&*format!("-std={standard}"), "-pedantic", &include()];
        assert_eq!(compile("g++", &options, &program), "", "{standard}");
        let inside =
            program.replacen("#include \"vixDiskLib.h\"", "extern \"C\" {\n#include \"vixDiskLib.h\"\n}", 1);
        assert_ne!(inside, program);
        assert_eq!(compile("g++", &options, &inside), "", "{standard} inside extern \"C\"");
    }
}

#[test]
fn what_programs_define_themselves_is_left_to_them() {
    requires!("gcc");
    let text = "#include \"vixDiskLib.h\"\n#if defined(VIXDISKLIB_VERSION_MAJOR) || defined(VIXDISKLIB_VERSION_MINOR) || \
                defined(MIN) || defined(MAX)\n#error defined\n#endif\n#ifndef _VIXDISKLIB_H_\n#error no guard\n#endif\n\
                int max = sizeof(VIXDISKLIB_SECTOR_SIZE) == sizeof(int) ? 1 : -1;\n";
    assert_eq!(compile("gcc", &["-std=c99", &include()], text), "");
    let with_vix = "#define _VIX_H_\n#include <stdint.h>\ntypedef uint64_t VixError;\nenum { VIX_OK = 0 };\n\
                    #define VIX_FAILED(e) (VIX_OK != (e))\n#include \"vixDiskLib.h\"\n";
    assert_eq!(compile("gcc", &["-std=c99", &include()], with_vix), "");
    let own_truth = "#define TRUE 1\n#define FALSE 0\n#include \"vixDiskLib.h\"\n";
    assert_eq!(compile("gcc", &["-std=c99", &include()], own_truth), "");
}

/// Sizes and offsets that every program relies on.
const LAYOUT: &str = r#"
#include <stddef.h>
#include "vixDiskLib.h"
#define OFF(t, f, n) _Static_assert(offsetof(t, f) == (n), #t "." #f)
#define SZ(t, n) _Static_assert(sizeof(t) == (n), "sizeof " #t)
#define IS(name, n) _Static_assert((name) == (n), #name)
SZ(VixError, 8); SZ(Bool, 1); SZ(VixDiskLibSectorType, 8); SZ(VixDiskLibHandle, 8); SZ(VixDiskLibConnection, 8);
SZ(VixDiskLibDiskType, 4); SZ(VixDiskLibAdapterType, 4); SZ(VixDiskLibCredType, 4); SZ(VixDiskLibSpecType, 4);
SZ(VixDiskLibGeometry, 12); OFF(VixDiskLibGeometry, heads, 4); OFF(VixDiskLibGeometry, sectors, 8);
SZ(VixDiskLibCreateParams, 32); OFF(VixDiskLibCreateParams, diskType, 0); OFF(VixDiskLibCreateParams, adapterType, 4);
OFF(VixDiskLibCreateParams, hwVersion, 8); OFF(VixDiskLibCreateParams, capacity, 16);
OFF(VixDiskLibCreateParams, logicalSectorSize, 24); OFF(VixDiskLibCreateParams, physicalSectorSize, 28);
SZ(VixDiskLibConnectParams, 128); OFF(VixDiskLibConnectParams, vmxSpec, 0); OFF(VixDiskLibConnectParams, serverName, 8);
OFF(VixDiskLibConnectParams, thumbPrint, 16); OFF(VixDiskLibConnectParams, privateUse, 24);
OFF(VixDiskLibConnectParams, credType, 32); OFF(VixDiskLibConnectParams, creds, 40);
OFF(VixDiskLibConnectParams, creds.uid.password, 48); OFF(VixDiskLibConnectParams, creds.sessionId.key, 56);
OFF(VixDiskLibConnectParams, port, 64); OFF(VixDiskLibConnectParams, nfcHostPort, 68);
OFF(VixDiskLibConnectParams, vimApiVer, 72); OFF(VixDiskLibConnectParams, reserved, 80);
OFF(VixDiskLibConnectParams, state, 88); OFF(VixDiskLibConnectParams, spec, 96);
OFF(VixDiskLibConnectParams, spec.vStorageObjSpec.datastoreMoRef, 104);
OFF(VixDiskLibConnectParams, spec.vStorageObjSpec.ssId, 112);
OFF(VixDiskLibConnectParams, specType, 120);
SZ(VixDiskLibInfo, 64); OFF(VixDiskLibInfo, biosGeo, 0); OFF(VixDiskLibInfo, physGeo, 12); OFF(VixDiskLibInfo, capacity, 24);
OFF(VixDiskLibInfo, adapterType, 32); OFF(VixDiskLibInfo, numLinks, 36); OFF(VixDiskLibInfo, parentFileNameHint, 40);
OFF(VixDiskLibInfo, uuid, 48); OFF(VixDiskLibInfo, logicalSectorSize, 56); OFF(VixDiskLibInfo, physicalSectorSize, 60);
SZ(VixDiskLibBlock, 16); OFF(VixDiskLibBlock, offset, 0); OFF(VixDiskLibBlock, length, 8);
SZ(VixDiskLibBlockList, 24); OFF(VixDiskLibBlockList, numBlocks, 0); OFF(VixDiskLibBlockList, blocks, 8);
IS(VIXDISKLIB_DISK_MONOLITHIC_SPARSE, 1); IS(VIXDISKLIB_DISK_MONOLITHIC_FLAT, 2); IS(VIXDISKLIB_DISK_SPLIT_SPARSE, 3);
IS(VIXDISKLIB_DISK_SPLIT_FLAT, 4); IS(VIXDISKLIB_DISK_VMFS_FLAT, 5); IS(VIXDISKLIB_DISK_STREAM_OPTIMIZED, 6);
IS(VIXDISKLIB_DISK_VMFS_THIN, 7); IS(VIXDISKLIB_DISK_VMFS_SPARSE, 8); IS(VIXDISKLIB_DISK_UNKNOWN, 256);
IS(VIXDISKLIB_ADAPTER_IDE, 1); IS(VIXDISKLIB_ADAPTER_SCSI_BUSLOGIC, 2); IS(VIXDISKLIB_ADAPTER_SCSI_LSILOGIC, 3);
IS(VIXDISKLIB_ADAPTER_UNKNOWN, 256); IS(VIXDISKLIB_CRED_UID, 1); IS(VIXDISKLIB_CRED_SESSIONID, 2);
IS(VIXDISKLIB_CRED_TICKETID, 3); IS(VIXDISKLIB_CRED_SSPI, 4); IS(VIXDISKLIB_CRED_UNKNOWN, 256);
IS(VIXDISKLIB_SPEC_VMX, 0); IS(VIXDISKLIB_SPEC_VSTORAGE_OBJECT, 1);
IS(VIXDISKLIB_FLAG_OPEN_UNBUFFERED, 1); IS(VIXDISKLIB_FLAG_OPEN_SINGLE_LINK, 2); IS(VIXDISKLIB_FLAG_OPEN_READ_ONLY, 4);
IS(VIXDISKLIB_FLAG_OPEN_COMPRESSION_ZLIB, 16); IS(VIXDISKLIB_FLAG_OPEN_COMPRESSION_FASTLZ, 32);
IS(VIXDISKLIB_FLAG_OPEN_COMPRESSION_SKIPZ, 64); IS(VIXDISKLIB_FLAG_OPEN_COMPRESSION_MASK, 0x3f0);
IS(VIXDISKLIB_SECTOR_SIZE, 512); IS(VIXDISKLIB_MIN_CHUNK_SIZE, 128); IS(VIXDISKLIB_MAX_CHUNK_SIZE, 131072);
IS(VIXDISKLIB_MAX_CHUNK_NUMBER, 524288);
IS(VIXDISKLIB_HWVERSION_WORKSTATION_4, 3); IS(VIXDISKLIB_HWVERSION_WORKSTATION_5, 4);
IS(VIXDISKLIB_HWVERSION_WORKSTATION_6, 6); IS(VIXDISKLIB_HWVERSION_ESX30, 4); IS(VIXDISKLIB_HWVERSION_ESX4X, 7);
IS(VIXDISKLIB_HWVERSION_ESX50, 8); IS(VIXDISKLIB_HWVERSION_ESX51, 9); IS(VIXDISKLIB_HWVERSION_ESX55, 10);
IS(VIXDISKLIB_HWVERSION_ESX60, 11); IS(VIXDISKLIB_HWVERSION_ESX65, 13);
IS(VIX_OK, 0); IS(VIX_E_FAIL, 1); IS(VIX_E_INVALID_ARG, 3); IS(VIX_E_BUFFER_TOOSMALL, 24);
IS(VIX_E_DISK_OUTOFRANGE, 16007); IS(VIX_ASYNC, 25000); IS(VIX_E_DISK_INVALID_CONNECTION, 16054);
"#;

#[test]
fn sizes_offsets_and_numbers_are_those_of_the_interface() {
    requires!("gcc");
    assert_eq!(compile("gcc", &["-std=c11", &include()], LAYOUT), "");
    let wrong = LAYOUT.replace("SZ(VixDiskLibInfo, 64)", "SZ(VixDiskLibInfo, 63)");
    assert!(
        compile("gcc", &["-std=c11", &include()], &wrong).contains("VixDiskLibInfo"),
        "the check can fail"
    );
}

#[test]
fn a_vendor_header_agrees_where_there_is_one() {
    requires!("gcc");
    let Some(vendor) = std::env::var_os("VDDK_INCLUDE") else {
        common::scratch::note("VDDK_INCLUDE names no folder of another header to compare with");
        return;
    };
    let folder = format!("-I{}", Path::new(&vendor).display());
    assert_eq!(compile("gcc", &["-std=c11", "-w", &folder], LAYOUT), "", "{folder}");
    // The program of the interface compiles against it too, so that nothing there is only ours.
    let program = std::fs::read_to_string(abi::root().join("tests/c/before_init.c")).expect("the program");
    let own = format!("-I{}", abi::root().join("tests/c").display());
    assert_eq!(compile("gcc", &["-std=gnu99", "-w", &folder, &own], &program), "", "{folder}");
}
