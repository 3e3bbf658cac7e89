//! What a broadcaster is told of one stream: the page at `/connect` asks for it with the publish key.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use hls::Catalog;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use media::StreamId;
use net::TooManyGuesses;
use relay::{Facts, Sample, StreamRegistry};
use serde::Serialize;

use crate::audience::Audience;
use crate::state::{Entry, PublishPorts};

/// What the connect page needs of the node that takes publishers. `server` plugs in the real one; a node without
/// publishers has no such page.
pub trait Backstage: Send + Sync {
    /// Whether `key`, given by `viewer`, may publish `id`. Takes as long whatever is wrong with it.
    ///
    /// # Errors
    /// [`TooManyGuesses`]; the key was not looked at.
    fn may_publish(&self, id: &StreamId, key: &str, viewer: IpAddr) -> Result<bool, TooManyGuesses>;

    /// The publishers turned away lately, the newest first.
    fn refusals(&self) -> Vec<Refused>;
}

/// A publisher that was turned away; see [`Backstage::refusals`].
#[derive(Debug, Clone)]
pub struct Refused {
    /// The last time.
    pub at: SystemTime,
    pub times: u32,
    pub peer: IpAddr,
    pub stream: Option<StreamId>,
    pub encoder: Option<String>,
    /// For the broadcaster.
    pub words: String,
}

/// The key of `Authorization: Bearer {key}` (RFC 6750, §2.1). In a header, so that no log of addresses holds it.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim_start_matches(' '))
}

/// `GET /connect/state/{app}/{stream}`. Spans are in seconds, rates in bits per second.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// As everybody may see it.
    stream: Entry,
    #[serde(flatten)]
    ports: PublishPorts,
    /// Whether everybody finds it on the start page.
    listed: bool,
    frame_rate: Option<f64>,
    sound: Sound,
    /// How much later than it could media arrives.
    late: f64,
    warnings: Vec<String>,
    hints: Vec<String>,
    /// The last minutes, the oldest first: milliseconds, bits per second, frames per second.
    samples: Vec<(u32, u32, f64)>,
    refusals: Vec<Refusal>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum Sound {
    None,
    Arriving {
        bitrate: u32,
    },
    /// Probably: nothing is decoded here.
    Silent,
    Stopped {
        seconds: u32,
    },
}

#[derive(Debug, Serialize)]
struct Refusal {
    /// Milliseconds since the Unix epoch.
    at: u64,
    times: u32,
    from: IpAddr,
    stream: Option<String>,
    encoder: Option<String>,
    reason: String,
}

impl Report {
    pub(crate) fn of(
        id: &StreamId,
        registry: &StreamRegistry,
        catalog: &Catalog,
        audience: &Audience,
        backstage: &dyn Backstage,
        ports: PublishPorts,
        listed: bool,
    ) -> Self {
        let facts = registry.get(id).map(|stream| stream.facts()).unwrap_or_default();
        let Facts { frame_rate, warnings, health, .. } = facts.as_ref();
        Self {
            stream: Entry::of(id, registry, catalog, audience),
            ports,
            listed,
            frame_rate: frame_rate.map(tenths),
            sound: health.sound.into(),
            late: f64::from(health.late_ms) / 1000.0,
            warnings: warnings.clone(),
            hints: health.hints.clone(),
            samples: health.samples.iter().map(numbers).collect(),
            refusals: backstage.refusals().into_iter().map(Refusal::from).collect(),
        }
    }
}

impl From<relay::Sound> for Sound {
    fn from(sound: relay::Sound) -> Self {
        match sound {
            relay::Sound::None => Self::None,
            relay::Sound::Arriving { bits_per_second } => Self::Arriving { bitrate: bits_per_second },
            relay::Sound::ProbablySilent => Self::Silent,
            relay::Sound::Stopped { seconds } => Self::Stopped { seconds },
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let since = refused.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            times: refused.times,
            from: refused.peer,
            stream: refused.stream.map(|id| id.to_string()),
            encoder: refused.encoder,
            reason: refused.words,
        }
    }
}

fn numbers(sample: &Sample) -> (u32, u32, f64) {
    (sample.span_ms, sample.bits_per_second, tenths(f64::from(sample.frame_rate)))
}

/// Nobody reads more digits off a graph, and three hundred numbers travel every second.
fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests;
