//! What this process may take of the machine. It sets that itself, before any thread is there: a worker that did it from
//! outside would come too late for some.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};

#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Limits {
    /// Give way to the worker by so much, as nice(1) does
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(i32).range(0..=19))]
    nice: Option<i32>,
    /// Private memory at most
    #[arg(long, value_name = "BYTES")]
    memory: Option<u64>,
    /// Open files at most
    #[arg(long, value_name = "COUNT")]
    open_files: Option<u64>,
}

impl Limits {
    /// And leaves no core file behind: there would be strangers' pictures in it.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn apply(self) -> io::Result<()> {
        limit(Resource::Core, 0)?;
        // Not the address space: drivers and allocators reserve tens of gigabytes of it that they never touch.
        self.memory.map_or(Ok(()), |bytes| limit(Resource::Data, bytes))?;
        self.open_files.map_or(Ok(()), |count| limit(Resource::Nofile, count))?;
        // A service manager may forbid it; pictures come all the same.
        if let Some(Err(error)) = self.nice.map(nice) {
            eprintln!("cannot give way to others: {error}");
        }
        Ok(())
    }
}

/// At most `most`, and no more than was allowed before.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let most = Some(getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most)));
    Ok(setrlimit(resource, Rlimit { current: most, maximum: most })?)
}
