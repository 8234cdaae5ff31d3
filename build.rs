//! Generates the C headers and names the shared object.
//!
//! The headers are made in `OUT_DIR` and copied to `include/` only where they differ, and only if that can be written: a
//! read-only checkout builds, and a test compares the two.

use std::fmt::Write;
use std::path::Path;
use std::path::PathBuf;

#[path = "src/abi/codes.rs"]
mod codes;

/// Files with what the main header declares, in the order of its declarations.
const MAIN_SOURCES: [&str; 7] = ["types", "init", "connect", "disk", "io", "metadata", "maintain"];

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    name_the_shared_object();
    for path in ["build.rs", "cbindgen.toml", "src/abi", "src/mntapi", "include"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for (name, text) in [
        ("vixDiskLib.h", main_header(&root)),
        ("vm_basic_types.h", BASIC_TYPES.trim_start().to_owned()),
        ("vixMntapi.h", mount_header(&root)),
    ] {
        std::fs::write(out.join(name), &text).expect("OUT_DIR can be written");
        publish(&root.join("include").join(name), &text);
    }
}

/// What a Rust shared object lacks: a SONAME, names bound to ourselves so that hosts cannot interpose them, no unloading under
/// running threads, complete relocation at load time.
fn name_the_shared_object() {
    for arg in ["-soname,libvixDiskLib.so.8", "-Bsymbolic", "-z,nodelete", "-z,relro", "-z,now"] {
        println!("cargo::rustc-cdylib-link-arg=-Wl,{arg}");
    }
    // A build for fuzzing takes its counters from the program it is linked into.
    if std::env::var_os("CARGO_CFG_FUZZING").is_none() {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,defs");
    }
}

fn publish(path: &Path, text: &str) {
    if std::fs::read_to_string(path).is_ok_and(|present| present == text) {
        return;
    }
    if let Err(e) = std::fs::write(path, text) {
        println!("cargo::warning={} is not up to date and cannot be written: {e}", path.display());
    }
}

fn main_header(root: &Path) -> String {
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml is valid");
    config.after_includes = config.after_includes.map(|text| text.replace("@ERROR_CODES@", &error_codes()));
    let mut builder = cbindgen::Builder::new().with_config(config);
    for name in MAIN_SOURCES {
        builder = builder.with_src(root.join("src/abi").join(name).with_extension("rs"));
    }
    finished(builder)
}

fn mount_header(root: &Path) -> String {
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml is valid");
    config.header = Some(MOUNT_HEADER.trim().to_owned());
    config.autogen_warning = Some("/* Generated from src/mntapi by build.rs: change it there. */".to_owned());
    config.include_guard = Some("_VIXMNTAPI_H_".to_owned());
    config.sys_includes.clear();
    config.includes = vec!["vixDiskLib.h".to_owned()];
    config.after_includes = None;
    config.export.include.clear();
    config.export.exclude.extend(["VixDiskLibConnection", "VixDiskLibHandle"].map(str::to_owned));
    finished(cbindgen::Builder::new().with_config(config).with_src(root.join("src/mntapi/lib.rs")))
}

/// The text for a C reader of any age: Rust's heading for what `unsafe` demands becomes a word, C89 has neither a comma at the
/// end of an enumeration nor `//`, and integers go by the names of `vm_basic_types.h`.
fn finished(builder: cbindgen::Builder) -> String {
    let mut bytes = Vec::new();
    builder.generate().expect("the sources of the header can be read").write(&mut bytes);
    let mut text = String::from_utf8(bytes).expect("the header is UTF-8");
    for (from, to) in [
        (",\n}", "\n}"),
        (" * # Safety\n", " * Requirements:\n"),
        ("}  // extern \"C\"", "} /* extern \"C\" */"),
        ("#endif  // __cplusplus", "#endif /* __cplusplus */"),
        ("#endif // __cplusplus", "#endif /* __cplusplus */"),
        ("uint8_t", "uint8"),
        ("uint16_t", "uint16"),
        ("uint32_t", "uint32"),
        ("uint64_t", "uint64"),
    ] {
        text = text.replace(from, to);
    }
    text
}

fn error_codes() -> String {
    let mut text = String::new();
    for (i, (code, name, meaning)) in codes::CODES.iter().enumerate() {
        let comma = if i + 1 < codes::CODES.len() { "," } else { "" };
        writeln!(text, "    /** {meaning}. */\n    {name} = {code}{comma}").expect("a string takes it");
    }
    text.trim_end().to_owned()
}

const MOUNT_HEADER: &str = "
/*
 * The interface for mounting the volumes of virtual disks.
 *
 * This library does not mount anything: every function says so through the `log` function given to VixMntapi_Init and returns
 * VIX_E_NOT_SUPPORTED. It is here for programs that are linked against it and do without when it fails.
 */
";

const BASIC_TYPES: &str = r#"
/*
 * Names for integers of fixed width.
 */
/* Generated by build.rs: change it there. */
#ifndef _VM_BASIC_TYPES_H_
#define _VM_BASIC_TYPES_H_

#include <stddef.h>
#include <stdint.h>

typedef int8_t int8;
typedef int16_t int16;
typedef int32_t int32;
typedef int64_t int64;
typedef uint8_t uint8;
typedef uint16_t uint16;
typedef uint32_t uint32;
typedef uint64_t uint64;

/** A truth value: 0 is false, anything else is true. */
typedef char Bool;

#ifndef FALSE
#define FALSE 0
#endif
#ifndef TRUE
#define TRUE 1
#endif

#endif /* _VM_BASIC_TYPES_H_ */
"#;
