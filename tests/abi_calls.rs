//! The interface as C programs see it: one program of `tests/c` per behaviour, each in a process of its own, built as C and as
//! C++, and once more under valgrind.

mod common;

use common::abi::Bench;
use common::abi::Language;
use common::abi::under_valgrind;
use common::tools;
use std::process::Command;

/// What the program is given: names of files in its folder, or words.
fn run(name: &str, files: &[&str], expected: i32) {
    requires!("gcc", "g++");
    for language in [Language::C, Language::Cxx] {
        let bench = Bench::new();
        let program = bench.compile(name, language);
        let outcome =
            tools::run(Command::new(program).args(arguments(&bench, files)).env("HOME", bench.folder.path()));
        assert_ended(&outcome, expected);
        assert_eq!(outcome.text(), "", "{language:?}: nothing goes to the standard streams");
    }
    requires!("valgrind");
    let bench = Bench::new();
    let mut command = under_valgrind(&bench.compile(name, Language::C));
    let outcome = tools::run(command.args(arguments(&bench, files)));
    assert_ended(&outcome, expected);
}

fn assert_ended(outcome: &tools::Outcome, expected: i32) {
    let (late, code) = (outcome.late, outcome.status.code());
    assert!(
        !late && code == Some(expected),
        "{}: {code:?}, late: {late}\n{}",
        outcome.command,
        outcome.text()
    );
}

fn arguments(bench: &Bench, files: &[&str]) -> Vec<std::ffi::OsString> {
    let argument = |word: &&str| match word.strip_prefix('@') {
        Some(name) => bench.path(name).into_os_string(),
        None => word.into(),
    };
    files.iter().map(argument).collect()
}

#[test]
fn before_init_and_after_exit_every_function_answers() {
    run("before_init", &[], 0);
}

#[test]
fn null_in_any_place_is_an_invalid_argument() {
    run("null_arguments", &["@d.vmdk"], 0);
}

#[test]
fn dead_and_foreign_handles_are_refused_everywhere() {
    run("dead_handles", &["@d.vmdk", "@e.vmdk"], 0);
}

#[test]
fn older_versions_are_served_and_inits_are_counted() {
    run("versions", &[], 0);
}

#[test]
fn every_code_has_a_text() {
    run("error_texts", &[], 0);
}

#[test]
fn connection_parameters_are_read_copied_and_freed_as_agreed() {
    run("params", &[], 0);
}

#[test]
fn lines_arrive_through_the_right_function_in_the_words_programs_look_for() {
    run("log_lines", &["@"], 0);
}

#[test]
fn a_child_of_fork_is_on_its_own() {
    run("fork_child", &["@d.vmdk"], 0);
}

#[test]
fn the_end_works_in_an_atexit_handler() {
    run("at_exit", &["@d.vmdk"], 42);
}

#[test]
fn a_disk_is_checked_shrunk_and_put_in_order() {
    run("whole_disk", &["@d.vmdk", "@e.vmdk"], 0);
}

#[test]
fn a_flat_disk_lives_from_create_to_exit() {
    run("disk_life", &["@d.vmdk", "2"], 0);
}

#[test]
fn a_sparse_disk_lives_from_create_to_exit() {
    run("disk_life", &["@d.vmdk", "1"], 0);
}
