//! The repair of what a crash leaves behind, as the check of all tables found it.

use crate::error::Context;
use crate::error::Result;
use crate::format::sparse::body::Body;
use crate::format::sparse::directory::Directory;
use crate::format::sparse::verify::Survey;

/// Brings a file that was being written when its writer died into order, and marks it as clean.
pub(super) fn mend(survey: &Survey, body: &Body, directory: &Directory) -> Result<()> {
    let story = || format!("repair of {}", body.name);
    for fix in &survey.fixes {
        for place in fix.places.iter().rev().flatten() {
            body.storage.write_at(&fix.value.to_le_bytes(), *place).context(story)?;
        }
    }
    for (side, table) in &survey.orphans {
        directory.set_entry(body, *side, *table, 0)?;
    }
    body.storage.flush().context(story)?;
    let say = |count: u64, what: &str| {
        if count > 0 {
            body.log.warning(|| format!("{}: repaired after a crash: {count} {what}", body.name));
        }
    };
    say(survey.kept, "grains that only one of the two tables knew are kept");
    say(survey.moving, "grains that were being moved are kept where they are read");
    say(survey.lost, "grains whose data never reached the file are removed");
    say(
        survey.orphans.len() as u64,
        "empty grain tables that only one of the two directories knew are removed",
    );
    if body.size() > survey.end {
        let unused = body.size() - survey.end;
        body.storage.set_len(survey.end).context(story)?;
        body.set_size(survey.end);
        body.log.info(|| format!("{}: {unused} unused bytes cut off the end after a crash", body.name));
    }
    Ok(())
}
