//! Descriptors. Codecs in C print to standard output when they please, and some read from standard input; the worker's
//! messages must not be among that.

use std::fs::File;
use std::io;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdin, dup2_stdout};

/// Lowest number of the pipe's descriptors, above the standard ones.
const ABOVE_STANDARD: i32 = 3;

/// Takes standard input and output for the conversation with the worker, and leaves in their place nothing to read and
/// standard error to write to. Call it before anything else.
///
/// # Errors
/// What the system says.
pub(crate) fn take() -> io::Result<(File, File)> {
    let input = fcntl_dupfd_cloexec(io::stdin(), ABOVE_STANDARD)?;
    let output = fcntl_dupfd_cloexec(io::stdout(), ABOVE_STANDARD)?;
    dup2_stdin(File::open("/dev/null")?)?;
    dup2_stdout(io::stderr())?;
    Ok((input.into(), output.into()))
}
