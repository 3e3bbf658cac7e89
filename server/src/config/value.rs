//! The types of the values, and the words for what is wrong with a text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use cluster::NatsUrl;
use ingest::OnConflict;
use relay::UpstreamUrl;
use rtc::port::StunServer;
use rtc::signalling::TurnSecret;

/// An address that only programs of this machine reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoopbackAddr(SocketAddr);

impl LoopbackAddr {
    pub(crate) fn v4(port: u16) -> Self {
        Self(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let addr = listen(text)?;
        if !addr.ip().to_canonical().is_loopback() {
            return Err(format!(
                "{text:?} can be reached from other machines, and there is no authentication here"
            ));
        }
        Ok(Self(addr))
    }

    pub(crate) fn get(self) -> SocketAddr {
        self.0
    }
}

/// Addresses with commas between.
pub(super) fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_err(|_| format!("{part:?} is no IP address"))).collect()
}

/// Empty for none.
pub(super) fn stun(text: &str) -> Result<Option<StunServer>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| format!("{text:?} is {error}"))
}

/// URLs of RFC 7064 and RFC 7065, with commas between.
pub(super) fn ice_servers(text: &str) -> Result<Vec<String>, String> {
    let schemes = ["stun:", "stuns:", "turn:", "turns:"];
    let urls = text.split(',').map(str::trim).filter(|url| !url.is_empty());
    let checked = |url: &str| {
        let is_known = schemes.iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme));
        let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte));
        if is_known && is_plain {
            Ok(url.to_owned())
        } else {
            Err(format!("{url:?} is no URL of a STUN or TURN server"))
        }
    };
    urls.map(checked).collect()
}

/// Empty for none. What is wrong with one is told without it.
pub(super) fn turn_secret(text: &str) -> Result<Option<TurnSecret>, String> {
    match text {
        "" => Ok(None),
        _ if !(8..=256).contains(&text.len()) => Err(format!("it has {} characters", text.len())),
        _ if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(TurnSecret::new(text))),
        _ => Err("there is another character in it".to_owned()),
    }
}

/// How latency is traded against requests. Ingest stamps it into the stream; nothing downstream asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Default,
    Low,
}

impl Profile {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        [Self::Default, Self::Low]
            .into_iter()
            .find(|profile| profile.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no profile"))
    }

    /// How much media a part is meant to hold.
    pub(crate) fn part_target(self) -> Duration {
        match self {
            Self::Default => Duration::from_millis(500),
            Self::Low => Duration::from_millis(200),
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Low => "low",
        }
    }
}

/// What this process does. Who takes publishers is the origin of their streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoleSet {
    /// Takes publishers, and packages what they send.
    pub(crate) ingest: bool,
    /// Has streams for edges: with `ingest` its own, and without those of nodes that only take publishers.
    pub(crate) origin: bool,
    /// Encodes, for its own streams and for those of other nodes.
    pub(crate) transcode: bool,
    /// Takes viewers; without `ingest`, of the streams of other nodes.
    pub(crate) edge: bool,
}

impl RoleSet {
    pub(crate) const ALL: Self = Self { ingest: true, origin: true, transcode: true, edge: true };

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::ALL);
        }
        let mut names: Vec<_> = text.split(',').map(str::trim).collect();
        let mut take = |wanted: &str| {
            let before = names.len();
            names.retain(|name| *name != wanted);
            names.len() < before
        };
        let (ingest, origin) = (take("ingest"), take("origin"));
        let (transcode, edge) = (take("transcode"), take("edge"));
        match names.as_slice() {
            [name, ..] => Err(format!("{name:?} is no role")),
            [] => Ok(Self { ingest, origin, transcode, edge }),
        }
    }

    /// Its own, or others'.
    pub(crate) fn has_streams(self) -> bool {
        self.ingest || self.origin || self.edge
    }

    pub(super) fn show(self) -> String {
        if self == Self::ALL {
            return "all".to_owned();
        }
        let names = [
            ("ingest", self.ingest),
            ("transcode", self.transcode),
            ("origin", self.origin),
            ("edge", self.edge),
        ];
        let names: Vec<_> = names.into_iter().filter_map(|(name, has)| has.then_some(name)).collect();
        names.join(", ")
    }
}

/// Empty for none.
pub(super) fn upstream(text: &str) -> Result<Option<UpstreamUrl>, String> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// IPv6 and IPv4: the listeners let a wildcard socket take both, and `listen.rs` knows machines without IPv6.
pub(super) fn every_address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

/// Of RFC 6454, or nothing.
pub(super) fn origin(text: &str) -> Result<Option<String>, String> {
    let alternates: edge::Alternates = text.parse()?;
    match alternates.origins() {
        [] => Ok(None),
        [origin] => Ok(Some(origin.clone())),
        _ => Err(format!("{text:?} is more than one")),
    }
}

/// With commas between.
pub(super) fn nats(text: &str) -> Result<Vec<NatsUrl>, String> {
    let urls = text.split(',').map(str::trim).filter(|url| !url.is_empty());
    let servers = urls.map(|url| url.parse().map_err(|error: cluster::NatsUrlError| error.to_string()));
    let servers: Vec<NatsUrl> = servers.collect::<Result<_, _>>()?;
    let logins: Vec<_> = servers.iter().filter_map(NatsUrl::login).collect();
    match logins.windows(2).all(|two| two[0] == two[1]) {
        true => Ok(servers),
        false => {
            Err("names two users, or two passwords of one, and a node has one for all servers".to_owned())
        }
    }
}

pub(super) fn zone(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match text.len() <= 64 && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no name of a zone")),
    }
}

/// What a rate may end with.
const BIT_RATES: [(char, u64); 3] = [('G', 1_000_000_000), ('M', 1_000_000), ('k', 1_000)];

/// Bits per second.
pub(super) fn bit_rate(text: &str) -> Result<u64, String> {
    let scaled = BIT_RATES.into_iter().find_map(|(suffix, scale)| Some((text.strip_suffix(suffix)?, scale)));
    let (digits, scale) = scaled.unwrap_or((text, 1));
    let rate = digits.parse().ok().and_then(|number: u64| number.checked_mul(scale));
    rate.ok_or_else(|| format!("{text:?} is no rate"))
}

pub(super) fn show_bit_rate(rate: u64) -> String {
    let whole = BIT_RATES.into_iter().find(|(_, scale)| rate >= *scale && rate.is_multiple_of(*scale));
    whole.map_or_else(|| rate.to_string(), |(suffix, scale)| format!("{}{suffix}", rate / scale))
}

/// An address to listen on: `IP:PORT`, or `:PORT` for every address.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let addr = match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(every_address),
        None => text.parse().ok(),
    };
    addr.ok_or_else(|| format!("{text:?} is no address"))
}

pub(super) fn show_listen(addr: SocketAddr) -> String {
    if addr.ip() == Ipv6Addr::UNSPECIFIED { format!(":{}", addr.port()) } else { addr.to_string() }
}

/// Whether the kernel would refuse the second of two listeners. Port 0 is a new port each time.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let takes = |wide: IpAddr, narrow: IpAddr| match wide.to_canonical() {
        IpAddr::V6(ip) if ip.is_unspecified() => true,
        IpAddr::V4(ip) if ip.is_unspecified() => narrow.to_canonical().is_ipv4(),
        ip => ip == narrow.to_canonical(),
    };
    a.port() == b.port() && a.port() != 0 && (takes(a.ip(), b.ip()) || takes(b.ip(), a.ip()))
}

/// A span within `bounds`, in seconds.
pub(super) fn seconds(text: &str, bounds: RangeInclusive<u64>) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
    match seconds.filter(|seconds| bounds.contains(seconds)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err(format!("{text:?} is no such time")),
    }
}

const ON_CONFLICT: [(&str, OnConflict); 2] =
    [("refuse", OnConflict::Refuse), ("takeover", OnConflict::Takeover)];

pub(super) fn on_conflict(text: &str) -> Result<OnConflict, String> {
    let found = ON_CONFLICT.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| value).ok_or_else(|| format!("{text:?} is no way to settle it"))
}

pub(super) fn show_on_conflict(value: OnConflict) -> &'static str {
    ON_CONFLICT.into_iter().find(|(_, other)| *other == value).map_or("", |(name, _)| name)
}

pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        return Err(format!("{text:?} would be another directory for every place tidecast is started in"));
    }
    Ok(path)
}

pub(super) const FLAG_ALLOWED: &str = "true or false";

pub(super) fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{text:?} is neither"))
}

/// With commas between.
pub(super) fn names(text: &str) -> Result<Vec<String>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let named = |name: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        match name.len() <= 64 && name.bytes().all(allowed) {
            true => Ok(name.to_owned()),
            false => Err(format!("{name:?} is no name of an element")),
        }
    };
    names.map(named).collect()
}

/// A whole number within `bounds`.
pub(super) fn number(text: &str, bounds: RangeInclusive<usize>) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if bounds.contains(&number) => Ok(number),
        Ok(number) => Err(format!("{number} is not from {} to {}", bounds.start(), bounds.end())),
        Err(_) => Err(format!("{text:?} is no number")),
    }
}
