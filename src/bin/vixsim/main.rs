//! A vCenter or a bare ESXi host for tests, as a program. `vixsim --help` says everything.
#![forbid(unsafe_code)]

mod arguments;
mod lines;

use std::process::ExitCode;
use std::sync::Arc;

use vixDiskLib::error::Error;
use vixDiskLib::logging::Log;
use vixDiskLib::sim::End;
use vixDiskLib::sim::Sim;

use crate::arguments::Arguments;
use crate::arguments::Asked;
use crate::lines::Lines;

fn main() -> ExitCode {
    let arguments = match Arguments::read(lexopt::Parser::from_env()) {
        Ok(Asked::Serve(arguments)) => *arguments,
        Ok(Asked::Text(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("vixsim: {why}\nvixsim --help says what there is.");
            return ExitCode::from(2);
        }
    };
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vixsim: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve(mut arguments: Arguments) -> Result<(), Error> {
    let end = End::watch()?;
    if let Some(file) = &arguments.ready_file {
        // Who waits for the file must not find that of an earlier run.
        let _ = std::fs::remove_file(file);
    }
    if let Some(target) = &arguments.log {
        let lines = Lines::to(target)?;
        arguments.options.log = Log::new(Arc::new(lines), arguments.level);
    }
    let sim = Sim::start(arguments.options)?;
    let ready = sim.ready();
    match &arguments.ready_file {
        Some(file) => ready.write(file)?,
        None => println!("{}", ready.json()),
    }
    end.wait(arguments.until_input_ends)?;
    drop(sim);
    Ok(())
}
