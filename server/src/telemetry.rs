//! Logs: one event per line on stderr, so that stdout stays free for what a command prints.

use std::io::{self, IsTerminal};

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Chooses what is logged, as in `info,tidecast_ingest=debug`.
const FILTER_VARIABLE: &str = "TIDECAST_LOG";
/// The crates of webrtc-rs tell at info what we tell in one line, and warn of whatever a stranger sends; so does the client of NATS.
/// `rtc::port` is ours.
const FILTER_DEFAULT: &str = "info,rtc=error,rtc::port=info,rtc_dtls=error,rtc_ice=error,rtc_interceptor=error,rtc_srtp=error,rtc_stun=error,async_nats=warn";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// For log collectors: one object per line
    Json,
}

/// # Errors
/// If `TIDECAST_LOG` is not understood.
pub(crate) fn init(format: LogFormat) -> anyhow::Result<()> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(filter) => filter,
        Err(std::env::VarError::NotPresent) => FILTER_DEFAULT.to_owned(),
        Err(error) => return Err(error).context(FILTER_VARIABLE),
    };
    let filter = EnvFilter::try_new(&filter).with_context(|| {
        format!(
            "{FILTER_VARIABLE}: {filter:?} is no log filter; allowed: a level such as info or debug, or \
                 info,tidecast_ingest=debug for one crate"
        )
    })?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => {
            // https://no-color.org: set and not empty.
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            subscriber.with_ansi(io::stderr().is_terminal() && !no_color).init();
        }
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    // A panic is a bug of ours and belongs where everything else is told, in the same format.
    std::panic::set_hook(Box::new(|panic| {
        let what = panic.payload_as_str().unwrap_or("(no message)");
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panic: {what}");
    }));
    Ok(())
}
