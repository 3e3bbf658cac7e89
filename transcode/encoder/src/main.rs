//! The child of a transcode worker: decodes, scales and encodes one stream, and is the only program here that links
//! GStreamer. A plugin that crashes or hangs takes this process with it, and nothing else.

mod audio;
mod clock;
mod element;
mod encoders;
mod ledger;
mod limits;
mod nal;
mod output;
mod pipeline;
mod probe;
mod resample;
mod run;
mod scale;
mod source;
mod stdio;
mod video;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use limits::Limits;

/// Decodes, scales and encodes one stream for a transcode worker of Tidecast, which starts it.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Do one job: messages on standard input and output, words on standard error (the default)
    Run(Limits),
    /// Try every known encoder that is here with a short job; a JSON object per line says which work
    Probe {
        /// Only this one, in this process
        encoder: Option<String>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command.unwrap_or(Command::Run(Limits::default())) {
        Command::Run(limits) => run::run(limits),
        Command::Probe { encoder: None } => probe::all(),
        Command::Probe { encoder: Some(encoder) } => probe::one(&encoder),
    }
}
