//! Where the program's lines go.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use vixDiskLib::error::Context;
use vixDiskLib::error::Error;
use vixDiskLib::logging::Level;
use vixDiskLib::logging::Sink;

/// Lines with the seconds since the start before them.
pub struct Lines {
    out: Mutex<Box<dyn Write + Send>>,
    start: Instant,
}

impl Lines {
    /// To a file, or to the standard error stream, which is `-`.
    pub fn to(target: &Path) -> Result<Lines, Error> {
        let out: Box<dyn Write + Send> = match target.as_os_str() == "-" {
            true => Box::new(std::io::stderr()),
            false => Box::new(File::create(target).context(|| target.display().to_string())?),
        };
        Ok(Lines { out: Mutex::new(out), start: Instant::now() })
    }
}

impl Sink for Lines {
    fn line(&self, level: Level, text: &str) {
        let line = format!("{:10.6} {level:?} {text}\n", self.start.elapsed().as_secs_f64());
        if let Ok(mut out) = self.out.lock() {
            let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush()); // a full disk must not end the server
        }
    }
}
