//! The n-th call on the file system fails, for every n and every way to fail, while disks are made, renamed, grown, copied
//! and deleted.
//!
//! The operation says so, with the cause. Everything is as before then, with nothing left over, and the operation works when
//! it is done again; or it is done all the same.
#![allow(clippy::unwrap_used)]

#[path = "common/crash_storage.rs"]
mod crash_storage;
#[path = "common/power_cut.rs"]
mod power_cut;
#[path = "common/recorder.rs"]
mod recorder;
mod whole_disks;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use vixDiskLib::error::ErrorKind;

use power_cut::Tree;
use recorder::Fault;
use recorder::Recorder;
use whole_disks::Home;
use whole_disks::Scenario;
use whole_disks::State;
use whole_disks::complaint;
use whole_disks::listing;
use whole_disks::no_complaints;
use whole_disks::scratch;

/// What is there before an operation, and after it.
struct Subject<'a> {
    scenario: &'a Scenario,
    tree: Tree,
    before: BTreeSet<String>,
    after: BTreeSet<String>,
    complaints: RefCell<Vec<String>>,
}

impl<'a> Subject<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let folder = scratch();
        let root = folder.path().canonicalize().unwrap();
        let recorder = Recorder::new(&root, Default::default(), true);
        let home = Home::on(Arc::new(recorder));
        (scenario.prepare)(&home, &root);
        let (tree, _) = Tree::read(&root);
        let before = listing(&root);
        (scenario.act)(&home, &root).unwrap_or_else(|e| panic!("{}: {e}", scenario.name));
        Self { scenario, tree, before, after: listing(&root), complaints: RefCell::default() }
    }

    /// Lets a call fail. False when there are not so many.
    fn try_fault(&self, at: usize, fault: Fault, forever: bool) -> bool {
        let folder = scratch();
        let root = folder.path().canonicalize().unwrap();
        self.tree.store(&root);
        let recorder = Recorder::new(&root, Tree::read(&root).1, self.scenario.unnamed);
        let home = Home::on(Arc::new(recorder.clone()));
        recorder.fail(at, fault, forever);
        let result = (self.scenario.act)(&home, &root);
        let (reached, struck) = recorder.heal();
        let Some((what, removal)) = struck else {
            assert!(result.is_ok(), "{}: {result:?}", self.scenario.name);
            return reached;
        };
        // Where taking away fails, something stays; and what may not be gone for good is needed for what may come back.
        let may_leave = removal || forever || what.starts_with("listing");
        let complaint = complaint(|| self.check(&home, &root, &result, may_leave, &what));
        if let Some(text) = complaint {
            self.complaints.borrow_mut().push(format!(
                "{}, call {at} ({what}), {fault:?}, forever {forever}: {result:?}, then {:?}: {text}",
                self.scenario.name,
                listing(&root)
            ));
        }
        true
    }

    fn check(
        &self,
        home: &Home,
        root: &Path,
        result: &vixDiskLib::error::Result<()>,
        may_leave: bool,
        what: &str,
    ) {
        let state = (self.scenario.judge)(root);
        let left = listing(root);
        match (result, state) {
            (Ok(()), State::New) => {}
            (Ok(()), _) => panic!("success without effect"),
            (Err(e), _) => assert!(e.to_string().contains("(os error"), "no cause: {e}"),
        }
        if !may_leave {
            match state {
                State::Old => assert_eq!(left, self.before, "nothing is left over"),
                State::New if result.is_err() && what.starts_with("flushing the folder") => {}
                State::New => assert_eq!(left, self.after, "nothing is left over"),
                State::Both => panic!("two names"),
            }
        }
        if state == State::Old {
            match (self.scenario.act)(home, root) {
                Err(e) if may_leave && e.kind() == ErrorKind::AlreadyExists => {}
                again => {
                    again.unwrap_or_else(|e| panic!("a second time: {e}"));
                    assert_eq!((self.scenario.judge)(root), State::New, "a second time");
                }
            }
        }
    }
}

fn fail_everywhere(scenarios: &[Scenario]) {
    let mut complaints = Vec::new();
    for scenario in scenarios {
        let subject = Subject::new(scenario);
        let start = std::time::Instant::now();
        let mut count = 0;
        for (fault, forever) in
            [(Fault::Eio, false), (Fault::Enospc, false), (Fault::Short, false), (Fault::Eio, true)]
        {
            count += (0..).take_while(|&at| subject.try_fault(at, fault, forever)).count();
        }
        println!("{}: {count} faults, {:?}", scenario.name, start.elapsed());
        complaints.append(&mut subject.complaints.borrow_mut());
    }
    no_complaints(&complaints);
}

#[test]
fn a_failing_call_in_creation_leaves_nothing() {
    fail_everywhere(&whole_disks::creations());
    fail_everywhere(&whole_disks::children());
}

#[test]
fn a_failing_call_in_renaming_leaves_the_old_or_the_new_name() {
    fail_everywhere(&whole_disks::renamings());
}

#[test]
fn a_failing_call_in_deletion_leaves_the_disk_or_nothing() {
    fail_everywhere(&whole_disks::deletions());
}

#[test]
fn a_failing_call_in_copying_leaves_the_target_as_it_was() {
    fail_everywhere(&whole_disks::copies());
}

#[test]
fn a_failing_call_in_growing_leaves_the_old_or_the_new_size() {
    fail_everywhere(&whole_disks::growths());
}

#[test]
fn a_failing_call_in_changing_leaves_the_old_or_the_new_chain() {
    fail_everywhere(&whole_disks::changes());
}
