//! The house rules that a compiler does not check: which room may name which, where `unsafe` and system calls live,
//! how long files and functions get, and what a library inside a foreign process must not do.
//!
//! Each rule is a function from a source file to complaints. The tests run it over `src/`, and over a small bad sample
//! that it must complain about.
#![allow(clippy::unwrap_used)]

#[path = "layering/source.rs"]
mod source;

use std::fmt::Write;
use std::path::Path;

use source::Source;
use source::closing_brace;
use source::line_of;
use source::words;

/// Which other rooms each room may name. Base rooms come first; a room not listed here has no place in the house.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("units", &["error"]),
    ("logging", &["error"]),
    ("secret", &["error"]),
    ("config", &["error", "logging"]), // the level of the log is a setting
    ("threads", &["error"]),
    ("transfer", &["error"]),
    ("os", &[]),
    ("storage", BASE),
    ("format", &["error", "units", "logging", "secret", "config", "threads", "transfer", "os", "storage"]),
    (
        "disk",
        &["error", "units", "logging", "secret", "config", "threads", "transfer", "os", "storage", "format"],
    ),
    ("vmfs", &["error", "units", "logging", "secret", "config", "threads", "transfer", "os", "storage"]),
    ("net", BASE),
    (
        "transport",
        &[
            "error", "units", "logging", "secret", "config", "threads", "transfer", "os", "storage",
            "format", "disk", "vmfs", "net",
        ],
    ),
    (
        "engine",
        &["error", "units", "logging", "secret", "config", "threads", "transfer", "os", "storage", "disk"],
    ),
    (
        "session",
        &[
            "error",
            "units",
            "logging",
            "secret",
            "config",
            "threads",
            "transfer",
            "os",
            "storage",
            "format",
            "disk",
            "vmfs",
            "net",
            "transport",
            "engine",
        ],
    ),
    ("abi", &["error", "units", "logging", "secret", "config", "threads", "transfer", "os", "session"]),
    ("mntapi", &["abi"]),
    (
        "sim",
        &[
            "error",
            "units",
            "logging",
            "secret",
            "config",
            "threads",
            "transfer",
            "os",
            "storage",
            "format",
            "disk",
            "net",
            "transport",
        ],
    ),
    ("bin/vixdisk", &["session"]),
    ("bin/vixsim", &["sim", "error", "logging"]),
    ("", &[]),
];

const BASE: &[&str] = &["error", "units", "logging", "secret", "config", "threads", "transfer", "os"];

/// Where `unsafe` may stand.
const UNSAFE_ROOMS: &[&str] = &["abi", "mntapi"];
const UNSAFE_FILES: &[&str] = &["os.rs", "storage/os.rs", "net/os.rs", "engine/ring.rs"];

/// Rooms that know neither files nor sockets nor processes.
const NO_FILES: &[&str] = &["error", "units", "logging", "secret", "format", "disk", "engine"];

/// Log lines that other programs look for and that carry the interface's name: the file's room, and how the string begins.
const REQUIRED_LINES: &[(&str, &str)] = &[
    ("session", "VMware VixDiskLib ("),
    ("session", "VixDiskLib: "),
    ("session", "VixDiskLibVim: "),
    ("net", "VixDiskLibVim: "),
];

const FILE_SOFT: usize = 400;
const FILE_HARD: usize = 800;
const FUNCTION_USUAL: usize = 35;
const FUNCTION_HARD: usize = 80;

type Complaints = Vec<String>;

fn complain(source: &Source, at: usize, what: &str) -> String {
    format!("src/{}:{}: {what}", source.path, line_of(&source.code, at))
}

fn may_have_unsafe(source: &Source) -> bool {
    UNSAFE_ROOMS.contains(&source.room()) || UNSAFE_FILES.contains(&source.path.as_str())
}

/// Names point downwards: `crate::room` only as the table allows.
fn layers(source: &Source) -> Complaints {
    let Some((_, allowed)) = MAY_USE.iter().find(|(room, _)| *room == source.room()) else {
        return vec![format!("src/{}: no such room in the table of this test", source.path)];
    };
    let library = if source.path.starts_with("bin/") { "vixDiskLib" } else { "crate" };
    let mut complaints = Vec::new();
    for at in words(&source.code, library) {
        let after = source.code[at + library.len()..].trim_start();
        let Some(path) = after.strip_prefix("::").map(str::trim_start) else {
            if !after.starts_with(')') {
                complaints.push(complain(source, at, "the crate itself is named without a room"));
            }
            continue;
        };
        let end = path.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(path.len());
        let room = &path[..end];
        if room.is_empty() {
            complaints.push(complain(source, at, "a group or glob of rooms: import one parent per line"));
        } else if room != source.room() && !allowed.contains(&room) {
            let what = format!("{} must not name {room}", source.room());
            complaints.push(complain(source, at, &what));
        }
    }
    complaints
}

/// `super` never climbs to the crate root, where every room is in reach.
fn no_climbing_to_the_root(source: &Source) -> Complaints {
    let mut complaints = Vec::new();
    for at in words(&source.code, "super") {
        let before = source.code[..at].trim_end();
        if before.ends_with("super::") || before.ends_with("(in") || before.ends_with('(') {
            continue; // counted with the first of the row; pub(super) names nothing
        }
        let row = source.code[at..].split("::").take_while(|part| part.trim() == "super").count();
        if row >= source.depth() + inline_modules_around(source, at) {
            complaints.push(complain(source, at, "super climbs to the crate root: say crate::room"));
        }
    }
    complaints
}

fn inline_modules_around(source: &Source, at: usize) -> usize {
    let around = |start: usize| {
        let Some(open) = source.code[start..].find(['{', ';']).map(|i| start + i) else { return false };
        source.code.as_bytes()[open] == b'{' && (open..closing_brace(&source.code, open)).contains(&at)
    };
    words(&source.code, "mod").filter(|start| around(*start)).count()
}

/// `unsafe` and leave for it stand only in the few rooms made for it.
fn unsafe_only_where_allowed(source: &Source) -> Complaints {
    if may_have_unsafe(source) {
        return Vec::new();
    }
    let keyword = words(&source.code, "unsafe").map(|at| complain(source, at, "unsafe outside its rooms"));
    let leave = words(&source.code, "unsafe_code")
        .filter(|at| !source.code[..*at].ends_with("forbid("))
        .map(|at| complain(source, at, "unsafe_code is allowed outside its rooms"));
    keyword.chain(leave).collect()
}

/// Every file that may not hold `unsafe` is covered by a `forbid`: its own, its declaration's, or that of a module above.
fn forbids_unsafe(sources: &[Source]) -> Complaints {
    let holds_an_allowed_file = |source: &Source| {
        let folder = source.path.strip_suffix("mod.rs");
        source.path == "lib.rs"
            || folder.is_some_and(|f| UNSAFE_FILES.iter().any(|u| u.starts_with(f) && exists(sources, u)))
    };
    sources
        .iter()
        .filter(|s| !may_have_unsafe(s) && !holds_an_allowed_file(s) && !is_covered(sources, s))
        .map(|s| format!("src/{}: nothing forbids unsafe code here", s.path))
        .collect()
}

fn exists(sources: &[Source], path: &str) -> bool {
    sources.iter().any(|s| s.path == path)
}

fn is_covered(sources: &[Source], source: &Source) -> bool {
    if source.code.contains("#![forbid(unsafe_code)]") {
        return true;
    }
    let module = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
    let (folder, name) = module.rsplit_once('/').unwrap_or(("", module));
    let parents = match folder {
        "" => ["lib.rs".to_owned(), "main.rs".to_owned()],
        _ => [format!("{folder}/mod.rs"), format!("{folder}.rs")],
    };
    sources
        .iter()
        .filter(|p| parents.contains(&p.path) && p.path != source.path)
        .any(|p| declares_with_forbid(p, name) || is_covered(sources, p))
}

fn declares_with_forbid(parent: &Source, name: &str) -> bool {
    let compact: String = parent.code.split_whitespace().collect::<Vec<_>>().join(" ");
    ["", "pub ", "pub(crate) "]
        .iter()
        .any(|visible| compact.contains(&format!("#[forbid(unsafe_code)] {visible}mod {name};")))
}

/// The interface's names stay in `abi/`. Strings may carry them only as the log lines other programs look for; the crate's
/// own documentation says what it implements.
fn interface_names_only_in_abi(source: &Source) -> Complaints {
    if matches!(source.room(), "abi" | "mntapi") {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for name in ["VixDiskLib", "VixError", "VIX_E_", "VIX_OK", "VixMntapi"] {
        complaints.extend(source.code.match_indices(name).map(|(at, _)| {
            let what = format!("{name} outside abi/");
            complain(source, at, &what)
        }));
    }
    let is_required = |text: &str| {
        REQUIRED_LINES.iter().any(|(room, start)| *room == source.room() && text.starts_with(start))
    };
    for (line, text) in &source.strings {
        if text.contains("VixDiskLib") && !is_required(text) {
            complaints
                .push(format!("src/{}:{line}: a text with the interface's name: {text:?}", source.path));
        }
    }
    for (line, text) in &source.comments {
        if source.path != "lib.rs" && text.contains("VixDiskLib_") {
            complaints.push(format!("src/{}:{line}: a comment names a C function: {text}", source.path));
        }
    }
    complaints
}

/// No file over the hard limit, no function over its own, except tables.
fn sizes(source: &Source) -> Complaints {
    let mut complaints = Vec::new();
    if source.lines > FILE_HARD {
        complaints.push(format!("src/{}: {} lines, at most {FILE_HARD}", source.path, source.lines));
    }
    for function in source.functions() {
        if function.lines > FUNCTION_HARD && !function.is_table {
            complaints.push(format!(
                "src/{}:{}: {} has {} lines, at most {FUNCTION_HARD}",
                source.path, function.line, function.name, function.lines
            ));
        }
    }
    complaints
}

/// The length that nine of ten functions do not pass.
fn usual_function_length(sources: &[Source]) -> usize {
    let mut lengths: Vec<usize> =
        sources.iter().flat_map(Source::functions).filter(|f| !f.is_table).map(|f| f.lines).collect();
    lengths.sort_unstable();
    lengths.get(lengths.len() * 9 / 10).copied().unwrap_or(0)
}

/// A guest in a foreign process: no printing, no ending the process, no half-written code.
fn a_polite_guest(source: &Source) -> Complaints {
    let mut complaints = Vec::new();
    if source.path.starts_with("bin/") {
        return complaints;
    }
    for macro_name in ["println", "print", "eprintln", "eprint", "dbg", "todo", "unimplemented"] {
        let calls = words(&source.product, macro_name)
            .filter(|at| source.product[at + macro_name.len()..].trim_start().starts_with('!'));
        complaints.extend(calls.map(|at| complain(source, at, &format!("{macro_name}! in library code"))));
    }
    for call in
        ["process::exit", "process::abort", "libc::exit", "libc::abort", "libc::_exit", "libc::signal"]
    {
        complaints.extend(
            words(&source.product, call).map(|at| complain(source, at, &format!("{call} in library code"))),
        );
    }
    let globals = words(&source.product, "static mut").filter(|at| !source.product[..*at].ends_with('\''));
    complaints.extend(globals.map(|at| complain(source, at, "a static mut")));
    complaints
}

/// Thread-locals must be readable after their thread has begun to end: plain cells of numbers or `Copy` types, which have
/// no destructor, made without running code.
fn thread_locals_have_no_destructor(source: &Source) -> Complaints {
    const PLAIN: &[&str] = &["bool", "u8", "u16", "u32", "u64", "usize", "i8", "i16", "i32", "i64", "isize"];
    let mut complaints = Vec::new();
    for at in words(&source.product, "thread_local") {
        let Some(open) = source.product[at..].find('{').map(|i| at + i) else { continue };
        let block = &source.product[open..closing_brace(&source.product, open)];
        for entry in words(block, "static") {
            let declaration = block[entry..].split_once(';').map_or("", |(d, _)| d);
            let (kind, value) = declaration.split_once('=').unwrap_or(("", ""));
            let held = kind.rsplit_once(": Cell<").map_or("", |(_, held)| held.trim().trim_end_matches('>'));
            let plain = PLAIN.contains(&held) || is_copy(source, held);
            if !plain || !value.trim().starts_with("const {") {
                complaints.push(complain(
                    source,
                    at,
                    "a thread-local that is not a const Cell of something plain",
                ));
            }
        }
    }
    complaints
}

/// A structure of the same file that derives `Copy`.
fn is_copy(source: &Source, name: &str) -> bool {
    let compact = source.product.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some(at) = compact.find(&format!("struct {name} ")).filter(|_| !name.is_empty()) else {
        return false;
    };
    compact[..at]
        .rsplit("#[")
        .next()
        .is_some_and(|attribute| attribute.starts_with("derive(") && attribute.contains("Copy"))
}

/// Threads are born in `threads.rs` alone.
fn threads_are_born_in_one_place(source: &Source) -> Complaints {
    if source.path == "threads.rs" || source.path.starts_with("bin/") {
        return Vec::new();
    }
    ["thread::spawn", "thread::Builder", "thread::scope", "libc::pthread_create", "libc::fork"]
        .iter()
        .flat_map(|call| {
            words(&source.product, call).map(move |at| complain(source, at, "a thread is born here"))
        })
        .collect()
}

/// Formats and the loops above them know storages only; system calls have one door.
fn files_and_system_calls_have_their_rooms(source: &Source) -> Complaints {
    let mut complaints = Vec::new();
    if NO_FILES.contains(&source.room()) && source.path != "engine/ring.rs" {
        for name in ["std::fs", "std::net", "std::process", "std::os::unix"] {
            let what = format!("{} knows no {name}", source.room());
            complaints.extend(words(&source.product, name).map(|at| complain(source, at, &what)));
        }
    }
    if !may_have_unsafe(source) {
        let calls = words(&source.product, "libc").filter(|at| is_call(&source.product[*at..]));
        complaints.extend(calls.map(|at| complain(source, at, "a system call outside its door")));
    }
    complaints
}

/// A path that ends in a function's name and its arguments; constants and types of C have no effects.
fn is_call(path: &str) -> bool {
    let end = path.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':').unwrap_or(path.len());
    let name = path[..end].rsplit("::").next().unwrap_or("");
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') && path[end..].starts_with('(')
}

fn sources() -> Vec<Source> {
    let sources = Source::tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(sources.len() > 20, "only {} files found under src/", sources.len());
    sources
}

#[track_caller]
fn assert_kept(rule: fn(&Source) -> Complaints) {
    assert_none(&sources().iter().flat_map(rule).collect::<Complaints>());
}

#[track_caller]
fn assert_none(complaints: &[String]) {
    let list = complaints.iter().fold(String::new(), |mut list, c| {
        let _ = writeln!(list, "  {c}");
        list
    });
    assert!(complaints.is_empty(), "{} complaints:\n{list}", complaints.len());
}

/// The rule complains about this text, once for every line that is marked `BAD`, and about nothing else.
#[track_caller]
fn assert_notices(rule: fn(&Source) -> Complaints, path: &str, text: &str) {
    let complaints = rule(&Source::new(path, text));
    let bad = text.lines().filter(|l| l.contains("BAD")).count();
    assert!(bad > 0, "a bad sample has something bad in it");
    assert_eq!(complaints.len(), bad, "{complaints:#?}");
}

#[test]
fn names_point_downwards() {
    assert_kept(layers);
    assert_notices(
        layers,
        "format/sparse/mod.rs",
        "use crate::error::Result;\n\
         use crate::storage::Storage; // crate::session is only text here\n\
         use crate::disk::Disk; // BAD\n\
         use crate::{error, units}; // BAD\n\
         use crate::*; // BAD\n\
         pub(crate) fn f() { crate :: session::go(\"crate::abi::x\"); /* BAD */ }\n\
         use crate as all; // BAD\n",
    );
    assert_notices(layers, "attic.rs", "// BAD: a room nobody planned");
    assert_notices(
        layers,
        "bin/vixdisk/main.rs",
        "use vixDiskLib::session::Library;\nuse vixDiskLib::disk::Disk; // BAD",
    );
}

#[test]
fn super_stays_inside_the_room() {
    assert_kept(no_climbing_to_the_root);
    assert_notices(
        no_climbing_to_the_root,
        "disk/mod.rs",
        "use super::format; // BAD\n\
         mod tests { use super::*; }\n\
         mod deep { mod deeper { use super::super::Disk; use super::super::super::abi; } } // BAD\n\
         pub(super) fn f() {}\n",
    );
    assert_notices(
        no_climbing_to_the_root,
        "format/sparse/tables.rs",
        "use super::X;\nuse super::super::Y;\nuse super::super::super::Z; // BAD",
    );
}

#[test]
fn unsafe_stays_in_its_rooms() {
    assert_kept(unsafe_only_where_allowed);
    let text = "#![forbid(unsafe_code)]\n// unsafe words\nlet s = \"unsafe\";\nunsafe { x() } // BAD\n#![allow(unsafe_code)] // BAD\n";
    assert_notices(unsafe_only_where_allowed, "disk/mod.rs", text);
    assert!(unsafe_only_where_allowed(&Source::new("abi/io.rs", text)).is_empty());
}

#[test]
fn every_other_file_forbids_unsafe() {
    assert_none(&forbids_unsafe(&sources()));
    let house = [
        Source::new("lib.rs", "pub mod disk; pub mod storage; #[forbid(unsafe_code)]\npub mod units;"),
        Source::new("disk/mod.rs", "// #![forbid(unsafe_code)]\npub mod chain;"),
        Source::new("disk/chain.rs", "#![forbid(unsafe_code)]"),
        Source::new("storage/mod.rs", "#[forbid(unsafe_code)] pub mod file;\npub mod os; pub mod lock;"),
        Source::new("storage/file.rs", ""),
        Source::new("storage/lock.rs", ""),
        Source::new("storage/os.rs", "unsafe {}"),
        Source::new("units.rs", ""),
    ];
    let complaints = forbids_unsafe(&house);
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(complaints[0].starts_with("src/disk/mod.rs") && complaints[1].starts_with("src/storage/lock.rs"));
}

#[test]
fn the_interfaces_names_stay_in_abi() {
    assert_kept(interface_names_only_in_abi);
    let text = "//! Knows nothing of C.\n\
                fn f() -> VixError { // BAD\n\
                VixDiskLib_Read(); // BAD\n\
                log(\"VixDiskLib: VixDiskLib_OpenEx: Cannot open disk\");\n\
                log(\"the VixDiskLib handle\"); // BAD\n\
                } // like VixDiskLib_Read: BAD\n\
                #[cfg(test)] mod tests {\n\"VixDiskLib in a test\" }";
    assert_notices(interface_names_only_in_abi, "session/open_disk.rs", text);
    assert!(interface_names_only_in_abi(&Source::new("abi/io.rs", text)).is_empty());
}

#[test]
fn files_and_functions_stay_short() {
    let sources = sources();
    for source in sources.iter().filter(|s| s.product_lines() > FILE_SOFT) {
        println!(
            "warning: src/{} has {} lines without tests, aim for {FILE_SOFT}",
            source.path,
            source.product_lines()
        );
    }
    assert_kept(sizes);
    let usual = usual_function_length(&sources);
    assert!(
        usual <= FUNCTION_USUAL,
        "nine of ten functions have at most {usual} lines, aim for {FUNCTION_USUAL}"
    );

    let long = |name: &str, line: &str, lines: usize| {
        format!("fn {name}(a: [u8; 3]) -> u8 {{\n{}}}\n", line.repeat(lines))
    };
    assert_notices(sizes, "disk/mod.rs", &format!("// BAD\n{}", long("f", "g();\n", 80)));
    assert_notices(sizes, "disk/mod.rs", &format!("// BAD{}", "\n".repeat(801)));
    let fine = [long("f", "g();\n", 78), long("table", "3 => \"} no brace {\",\n", 200)].concat();
    assert!(sizes(&Source::new("disk/mod.rs", &fine)).is_empty());
    let many = Source::new(
        "disk/mod.rs",
        &[long("f", "g();\n", 3).repeat(8), long("f", "g();\n", 50).repeat(2)].concat(),
    );
    assert_eq!(usual_function_length(&[many]), 52);
}

#[test]
fn inline_tests_do_not_count() {
    let text = "fn f() {}\n#[cfg(test)]\nmod tests {\n    fn g() {}\n    println!(\"}\");\n}\nfn h() {}\n";
    let source = Source::new("disk/mod.rs", text);
    assert_eq!(source.functions().iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["f", "h"]);
    assert_eq!((source.lines, source.product_lines()), (7, 2));
    assert!(a_polite_guest(&source).is_empty());

    let declared = Source::new(
        "storage/lock/mod.rs",
        "#[cfg(test)]\nmod tests;\nmod member;\n#[cfg(test)] mod inline { }",
    );
    assert_eq!(declared.test_files(), ["storage/lock/tests.rs", "storage/lock/tests/mod.rs"]);
    let declared = Source::new("storage/lock.rs", "#[cfg(test)] pub mod tests;");
    assert_eq!(declared.test_files()[0], "storage/lock/tests.rs");
}

#[test]
fn the_library_is_a_polite_guest() {
    assert_kept(a_polite_guest);
    assert_notices(
        a_polite_guest,
        "disk/mod.rs",
        "let a = 'x'; let s = \"println!()\"; // println!()\n\
         println!(\"{}\", 1); // BAD\n\
         let b = '\"'; eprint!(\"\"); // BAD\n\
         let r = r#\"todo!() \" \"#; todo!(); // BAD\n\
         std::process::exit(1); // BAD\n\
         fn f<'a>(x: &'a str) { std::process::abort(); } // BAD\n\
         static mut N: u8 = 0; // BAD\n\
         fn g(x: &'static mut u8) {}\n",
    );
}

#[test]
fn thread_locals_outlive_their_thread() {
    assert_kept(thread_locals_have_no_destructor);
    assert_notices(
        thread_locals_have_no_destructor,
        "threads.rs",
        "thread_local! { static A: Cell<u64> = const { Cell::new(0) }; }\n\
         thread_local! { static B: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) }; } // BAD\n\
         thread_local! { static C: Cell<u64> = Cell::new(f()); } // BAD\n\
         thread_local! { static D: Cell<Plain> = const { Cell::new(Plain(1)) }; }\n\
         thread_local! { static E: Cell<Owner> = const { Cell::new(Owner(None)) }; } // BAD\n\
         #[derive(Clone, Copy)]\nstruct Plain (u8);\n#[derive(Debug)]\nstruct Owner (Option<Box<u8>>);\n",
    );
}

#[test]
fn threads_are_named_and_registered() {
    assert_kept(threads_are_born_in_one_place);
    let text =
        "std::thread::spawn(f); // BAD\nlet b = thread::Builder::new(); // BAD\nstd::thread::sleep(d);\n";
    assert_notices(threads_are_born_in_one_place, "engine/pool.rs", text);
    assert!(threads_are_born_in_one_place(&Source::new("threads.rs", text)).is_empty());
}

#[test]
fn files_and_system_calls_stay_in_their_rooms() {
    assert_kept(files_and_system_calls_have_their_rooms);
    let text = "use std::fs::File; // BAD\nuse std::fmt;\nlibc::read(0); // BAD\nlet n: libc::c_int = libc::EINTR;\n";
    assert_notices(files_and_system_calls_have_their_rooms, "format/flat.rs", text);
    assert!(files_and_system_calls_have_their_rooms(&Source::new("storage/os.rs", text)).is_empty());
}
