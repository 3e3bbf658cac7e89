//! What an operator can set, where it came from, and what is refused.
//!
//!   defaults ◀─ tidecast.toml (file.rs) ◀─ TIDECAST__… environment   later ones win
//!        └──────────────┴────────────────────────┴──▶ KEYS ─▶ Config
//!
//! [`KEYS`] is the only list of keys: file, environment, `config show` and the sample's test follow it.
//! All problems are found in one pass, so that an operator repairs a file once.

mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod problem;
mod tls;
mod value;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::NatsUrl;
use edge::{Alternates, Transport, Unlisted};
pub(crate) use file::Source;
use ingest::OnConflict;
pub(crate) use problem::{Origin, Problem, Problems};
use relay::UpstreamUrl;
use rtc::port::StunServer;
use rtc::signalling::{TurnSecret, is_turn};
pub(crate) use tls::{AcmeSettings, CertificateSource};
use transcode::Ladders;
pub(crate) use value::{LoopbackAddr, Profile, RoleSet};

use crate::descriptors::VIEWER_CONNECTIONS_MAX;
use crate::keys::PublishKey;

/// Begins the name of every environment variable that sets a key. The underscore is doubled because
/// Kubernetes puts `TIDECAST_PORT` and its like into the environment of a service called `tidecast`.
const ENVIRONMENT_PREFIX: &str = "TIDECAST__";

/// Everything that can be set, checked.
pub(crate) struct Config {
    /// Absolute: a kept key must be found again from whatever directory `tidecast` is started.
    pub(crate) data_dir: PathBuf,
    pub(crate) http: Http,
    /// As `http`, encrypted; only where there is a [`CertificateSource`].
    pub(crate) https: Https,
    pub(crate) rtmp: Rtmp,
    pub(crate) webrtc: WebRtc,
    /// As `rtmp`, encrypted; only where there is a [`CertificateSource`].
    pub(crate) rtmps: Rtmps,
    tls: tls::Tls,
    acme: tls::Acme,
    pub(crate) player: Player,
    pub(crate) admin: Admin,
    pub(crate) auth: Auth,
    pub(crate) publish: Publish,
    pub(crate) hls: Hls,
    pub(crate) roles: RoleSet,
    /// The node whose streams an edge serves.
    pub(crate) upstream: Option<UpstreamUrl>,
    pub(crate) relay: Relay,
    pub(crate) cluster: Cluster,
    pub(crate) drain: Drain,
    pub(crate) streams: Streams,
    pub(crate) transcode: Transcode,
}

/// Viewers: playlists, media and the watch page.
pub(crate) struct Http {
    pub(crate) listen: SocketAddr,
    /// Before the path of a page or a playlist, as viewers reach this node.
    pub(crate) public: Option<String>,
    /// What viewers may be sent in all, in bits per second; 0 if that is not said.
    pub(crate) egress_max: u64,
    /// Of one IPv4 address or one IPv6 /64.
    pub(crate) connections_per_address: usize,
    /// Where else this node's streams are, for viewers' pages.
    pub(crate) alternates: Alternates,
    /// Whether pages asked for without encryption are moved to HTTPS.
    pub(crate) redirect: bool,
}

pub(crate) struct Https {
    pub(crate) listen: SocketAddr,
}

pub(crate) struct Rtmps {
    pub(crate) listen: SocketAddr,
}

/// Publishers over RTMP.
pub(crate) struct Rtmp {
    pub(crate) listen: SocketAddr,
}

/// The one port, of UDP and of TCP, for everybody who publishes or watches by WebRTC.
pub(crate) struct WebRtc {
    pub(crate) listen: SocketAddr,
    /// Under which the machine is reached, if it does not have the address itself.
    pub(crate) public: Vec<IpAddr>,
    /// Asked for the address that the machine has outside.
    pub(crate) stun: Option<StunServer>,
    /// URLs of STUN and TURN servers for those whose networks want one.
    pub(crate) ice_servers: Vec<String>,
    /// Of the TURN servers among them.
    pub(crate) turn_secret: Option<TurnSecret>,
}

/// The pages of viewers.
pub(crate) struct Player {
    /// Where the viewer has not chosen.
    pub(crate) prefer: Transport,
}

/// Health and metrics, without authentication.
pub(crate) struct Admin {
    pub(crate) listen: LoopbackAddr,
}

pub(crate) struct Auth {
    /// Wins over the key kept in `data_dir`.
    pub(crate) publish_key: Option<PublishKey>,
}

/// Publishers that go, come back, or get in each other's way.
pub(crate) struct Publish {
    pub(crate) linger: Duration,
    pub(crate) on_conflict: OnConflict,
}

pub(crate) struct Hls {
    pub(crate) profile: Profile,
}

/// Other nodes that read streams from this one.
pub(crate) struct Relay {
    pub(crate) listen: SocketAddr,
    /// As other nodes reach it.
    pub(crate) public: Option<UpstreamUrl>,
}

pub(crate) struct Cluster {
    dir: Option<PathBuf>,
    /// Servers of NATS, by which nodes find each other; without any this node knows itself alone.
    pub(crate) nats: Vec<NatsUrl>,
    pub(crate) nats_credentials: Option<PathBuf>,
    pub(crate) nats_replicas: usize,
    /// Nodes of a zone are near each other.
    pub(crate) zone: String,
}

/// The end of the process.
pub(crate) struct Drain {
    /// For viewers to go to other nodes, before it begins.
    pub(crate) timeout: Duration,
}

pub(crate) struct Streams {
    /// On no list; watched by who has the link.
    pub(crate) unlisted: Unlisted,
}

/// Renditions below what the publisher sends.
pub(crate) struct Transcode {
    pub(crate) ladder: Ladders,
    /// The executable, if it is not to be looked for.
    pub(crate) encoder: Option<PathBuf>,
    /// GStreamer's names, the best first; all that work, if there are none.
    pub(crate) encoders: Vec<String>,
}

/// One thing that can be set.
pub(crate) struct Key {
    /// As written in the file: section, dot, key.
    pub(crate) name: &'static str,
    /// Ends the sentence "allowed: …".
    allowed: &'static str,
    /// Takes the text of the file or the environment, or says what is wrong with it.
    set: fn(&mut Config, &str) -> Result<(), String>,
    /// The value as it would be written in the file; `None` if it is not set. Never a secret.
    show: fn(&Config) -> Option<String>,
}

/// What a cluster may set for all nodes: those that take publishers should have it alike, as they go on with each other's sessions.
pub(crate) const SHARED: [&str; 5] =
    ["publish.linger", "publish.on_conflict", "hls.profile", UNLISTED, "transcode.ladder"];
pub(crate) const UNLISTED: &str = "streams.unlisted";

const LISTEN_ALLOWED: &str =
    "IP:PORT such as 127.0.0.1:8080 or [::1]:8080, or :PORT for every address of the machine";

/// Every key there is.
pub(crate) const KEYS: &[Key] = &[
    Key {
        name: "data_dir",
        allowed: "an absolute path",
        set: |config, text| value::directory(text).map(|data_dir| config.data_dir = data_dir),
        show: |config| Some(config.data_dir.display().to_string()),
    },
    Key {
        name: "http.listen",
        allowed: LISTEN_ALLOWED,
        set: |config, text| value::listen(text).map(|listen| config.http.listen = listen),
        show: |config| Some(value::show_listen(config.http.listen)),
    },
    Key {
        name: "http.public",
        allowed: "an origin as viewers reach it, such as https://edge1.example, or nothing",
        set: |config, text| value::origin(text).map(|public| config.http.public = public),
        show: |config| config.http.public.clone(),
    },
    Key {
        name: "http.egress_max",
        allowed: "bits per second such as 800M or 10G, or 0 for no bound",
        set: |config, text| value::bit_rate(text).map(|rate| config.http.egress_max = rate),
        show: |config| Some(value::show_bit_rate(config.http.egress_max)),
    },
    Key {
        name: "http.connections_per_address",
        allowed: "a number from 6 (what one browser opens) to 20000 (as many as there can be)",
        set: |config, text| {
            value::number(text, 6..=VIEWER_CONNECTIONS_MAX as usize)
                .map(|connections| config.http.connections_per_address = connections)
        },
        show: |config| Some(config.http.connections_per_address.to_string()),
    },
    Key {
        name: "http.alternates",
        allowed: "origins with commas between them, as in \"https://edge2.example, https://edge3.example\"",
        set: |config, text| text.parse().map(|alternates| config.http.alternates = alternates),
        show: |config| Some(config.http.alternates.to_string()),
    },
    Key {
        name: "http.redirect",
        allowed: value::FLAG_ALLOWED,
        set: |config, text| value::flag(text).map(|redirect| config.http.redirect = redirect),
        show: |config| Some(config.http.redirect.to_string()),
    },
    Key {
        name: "https.listen",
        allowed: LISTEN_ALLOWED,
        set: |config, text| value::listen(text).map(|listen| config.https.listen = listen),
        show: |config| Some(value::show_listen(config.https.listen)),
    },
    Key {
        name: "rtmps.listen",
        allowed: LISTEN_ALLOWED,
        set: |config, text| value::listen(text).map(|listen| config.rtmps.listen = listen),
        show: |config| Some(value::show_listen(config.rtmps.listen)),
    },
    Key {
        name: "tls.certificate",
        allowed: "an absolute path of a PEM file: the server's certificate, then its chain",
        set: |config, text| tls::file(text).map(|path| config.tls.certificate = path),
        show: |config| Some(tls::show_file(config.tls.certificate.as_deref())),
    },
    Key {
        name: "tls.key",
        allowed: "an absolute path of a PEM file, or nothing if the certificate's file holds the key too",
        set: |config, text| tls::file(text).map(|path| config.tls.key = path),
        show: |config| Some(tls::show_file(config.tls.key.as_deref())),
    },
    Key {
        name: "tls.self_signed",
        allowed: value::FLAG_ALLOWED,
        set: |config, text| value::flag(text).map(|self_signed| config.tls.self_signed = self_signed),
        show: |config| Some(config.tls.self_signed.to_string()),
    },
    Key {
        name: "acme.domain",
        allowed: "names that lead to this server, with commas between, as in \"live.example, www.live.example\"",
        set: |config, text| tls::domains(text).map(|names| config.acme.names = names),
        show: |config| Some(config.acme.names.join(", ")),
    },
    Key {
        name: "acme.terms_agreed",
        allowed: value::FLAG_ALLOWED,
        set: |config, text| value::flag(text).map(|agreed| config.acme.terms_agreed = agreed),
        show: |config| Some(config.acme.terms_agreed.to_string()),
    },
    Key {
        name: "acme.contact",
        allowed: "mail addresses with commas between, or nothing",
        set: |config, text| tls::contacts(text).map(|contact| config.acme.contact = contact),
        show: |config| Some(config.acme.contact.join(", ")),
    },
    Key {
        name: "acme.directory",
        allowed: "\"letsencrypt\", \"letsencrypt-staging\" to try it out, or the https URL of another authority's directory",
        set: |config, text| tls::directory(text).map(|directory| config.acme.directory = directory),
        show: |config| Some(config.acme.directory.clone()),
    },
    Key {
        name: "acme.authority",
        allowed: "an absolute path of a PEM file, or nothing for the authorities that this machine trusts",
        set: |config, text| tls::file(text).map(|path| config.acme.authority = path),
        show: |config| Some(tls::show_file(config.acme.authority.as_deref())),
    },
    Key {
        name: "rtmp.listen",
        allowed: LISTEN_ALLOWED,
        set: |config, text| value::listen(text).map(|listen| config.rtmp.listen = listen),
        show: |config| Some(value::show_listen(config.rtmp.listen)),
    },
    Key {
        name: "webrtc.listen",
        allowed: LISTEN_ALLOWED,
        set: |config, text| value::listen(text).map(|listen| config.webrtc.listen = listen),
        show: |config| Some(value::show_listen(config.webrtc.listen)),
    },
    Key {
        name: "webrtc.public",
        allowed: "IP addresses with commas between, as in \"203.0.113.7, 2001:db8::7\"",
        set: |config, text| value::addresses(text).map(|public| config.webrtc.public = public),
        show: |config| {
            let public: Vec<_> = config.webrtc.public.iter().map(ToString::to_string).collect();
            Some(public.join(", "))
        },
    },
    Key {
        name: "webrtc.stun",
        allowed: "\"stun:HOST\" or \"stun:HOST:PORT\", or nothing",
        set: |config, text| value::stun(text).map(|stun| config.webrtc.stun = stun),
        show: |config| Some(config.webrtc.stun.as_ref().map(ToString::to_string).unwrap_or_default()),
    },
    Key {
        name: "webrtc.ice_servers",
        allowed: "URLs of STUN or TURN servers with commas between, as in \"stun:stun.example:3478\"",
        set: |config, text| value::ice_servers(text).map(|servers| config.webrtc.ice_servers = servers),
        show: |config| Some(config.webrtc.ice_servers.join(", ")),
    },
    Key {
        name: "webrtc.turn_secret",
        allowed: "8 to 256 printable characters of ASCII, or nothing",
        set: |config, text| value::turn_secret(text).map(|secret| config.webrtc.turn_secret = secret),
        show: |config| Some(if config.webrtc.turn_secret.is_some() { "(hidden)" } else { "" }.to_owned()),
    },
    Key {
        name: "player.prefer",
        allowed: "\"hls\" (for a crowd) or \"webrtc\" (for the least delay)",
        set: |config, text| {
            let found = Transport::parse(text).map(|prefer| config.player.prefer = prefer);
            found.ok_or_else(|| format!("{text:?} is no way to play"))
        },
        show: |config| Some(config.player.prefer.as_str().to_owned()),
    },
    Key {
        name: "admin.listen",
        allowed: "a loopback IP:PORT such as 127.0.0.1:9090 or [::1]:9090",
        set: |config, text| LoopbackAddr::parse(text).map(|listen| config.admin.listen = listen),
        show: |config| Some(config.admin.listen.get().to_string()),
    },
    Key {
        name: "auth.publish_key",
        allowed: "16 to 128 of the characters A-Z a-z 0-9 - . _ ~",
        set: |config, text| PublishKey::parse(text).map(|key| config.auth.publish_key = Some(key)),
        show: |config| config.auth.publish_key.as_ref().map(|_| "(hidden)".to_owned()),
    },
    Key {
        name: "publish.linger",
        allowed: "1s to 120s",
        set: |config, text| value::seconds(text, 1..=120).map(|linger| config.publish.linger = linger),
        show: |config| Some(format!("{}s", config.publish.linger.as_secs())),
    },
    Key {
        name: "publish.on_conflict",
        allowed: "\"refuse\" (the second publisher) or \"takeover\" (by the second publisher)",
        set: |config, text| {
            value::on_conflict(text).map(|on_conflict| config.publish.on_conflict = on_conflict)
        },
        show: |config| Some(value::show_on_conflict(config.publish.on_conflict).to_owned()),
    },
    Key {
        name: "hls.profile",
        allowed: "\"default\" (parts of 500 ms) or \"low\" (parts of 200 ms)",
        set: |config, text| Profile::parse(text).map(|profile| config.hls.profile = profile),
        show: |config| Some(config.hls.profile.as_str().to_owned()),
    },
    Key {
        name: "roles",
        allowed: "\"all\", or some of \"ingest\", \"origin\", \"transcode\" and \"edge\"",
        set: |config, text| RoleSet::parse(text).map(|roles| config.roles = roles),
        show: |config| Some(config.roles.show()),
    },
    Key {
        name: "upstream",
        allowed: "https://HOST:PORT of another node's relay.listen, such as https://origin.example:7400",
        set: |config, text| value::upstream(text).map(|upstream| config.upstream = upstream),
        show: |config| config.upstream.as_ref().map(ToString::to_string),
    },
    Key {
        name: "relay.listen",
        allowed: LISTEN_ALLOWED,
        set: |config, text| value::listen(text).map(|listen| config.relay.listen = listen),
        show: |config| Some(value::show_listen(config.relay.listen)),
    },
    Key {
        name: "relay.public",
        allowed: "https://HOST:PORT as other nodes reach this one, or nothing",
        set: |config, text| value::upstream(text).map(|public| config.relay.public = public),
        show: |config| config.relay.public.as_ref().map(ToString::to_string),
    },
    Key {
        name: "cluster.nats",
        allowed: "URLs of NATS servers with commas between, as in \"nats://10.0.0.1:4222, nats://10.0.0.2:4222\"",
        set: |config, text| value::nats(text).map(|servers| config.cluster.nats = servers),
        show: |config| {
            let servers: Vec<_> = config.cluster.nats.iter().map(ToString::to_string).collect();
            Some(servers.join(", "))
        },
    },
    Key {
        name: "cluster.nats_credentials",
        allowed: "an absolute path of a file that nsc made, or nothing",
        set: |config, text| {
            config.cluster.nats_credentials =
                if text.is_empty() { None } else { Some(value::directory(text)?) };
            Ok(())
        },
        show: |config| {
            Some(
                config
                    .cluster
                    .nats_credentials
                    .as_ref()
                    .map(|path| path.display().to_string())
                    .unwrap_or_default(),
            )
        },
    },
    Key {
        name: "cluster.nats_replicas",
        allowed: "a number from 1 to 5 of servers that keep each value",
        set: |config, text| {
            value::number(text, 1..=5).map(|replicas| config.cluster.nats_replicas = replicas)
        },
        show: |config| Some(config.cluster.nats_replicas.to_string()),
    },
    Key {
        name: "cluster.zone",
        allowed: "a name, or nothing where there is but one",
        set: |config, text| value::zone(text).map(|zone| config.cluster.zone = zone),
        show: |config| Some(config.cluster.zone.clone()),
    },
    Key {
        name: "cluster.dir",
        allowed: "an absolute path",
        set: |config, text| value::directory(text).map(|dir| config.cluster.dir = Some(dir)),
        show: |config| Some(config.cluster_dir().display().to_string()),
    },
    Key {
        name: "drain.timeout",
        allowed: "0s to 3600s",
        set: |config, text| value::seconds(text, 0..=3600).map(|timeout| config.drain.timeout = timeout),
        show: |config| Some(format!("{}s", config.drain.timeout.as_secs())),
    },
    Key {
        name: "streams.unlisted",
        allowed: "APP/STREAM, or APP/* for every stream of an application, with commas between",
        set: |config, text| text.parse().map(|unlisted| config.streams.unlisted = unlisted),
        show: |config| Some(config.streams.unlisted.to_string()),
    },
    Key {
        name: "transcode.ladder",
        allowed: "\"auto\", \"off\", or HEIGHT:KBITk with commas between, as in \"720:2500k, 360:700k\"; then, for single \
                  applications, \"; APP = …\"",
        set: |config, text| text.parse().map(|ladder| config.transcode.ladder = ladder),
        show: |config| Some(config.transcode.ladder.to_string()),
    },
    Key {
        name: "transcode.encoder",
        allowed: "an absolute path of tidecast-encoder, or nothing to look for it",
        set: |config, text| {
            let path = if text.is_empty() { None } else { Some(value::directory(text)?) };
            config.transcode.encoder = path;
            Ok(())
        },
        show: |config| {
            Some(config.transcode.encoder.as_ref().map(|path| path.display().to_string()).unwrap_or_default())
        },
    },
    Key {
        name: "transcode.encoders",
        allowed: "names of GStreamer's encoders of H.264 with commas between, as in \"vah264enc, x264enc\"",
        set: |config, text| value::names(text).map(|names| config.transcode.encoders = names),
        show: |config| Some(config.transcode.encoders.join(", ")),
    },
];

impl Key {
    fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Written without quotes in the file: a number, or true or false.
    fn is_bare(&self) -> bool {
        self.allowed.starts_with("a number ") || self.allowed == value::FLAG_ALLOWED
    }

    /// The environment variable that sets this key.
    pub(crate) fn variable(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.name.replace('.', "__").to_uppercase())
    }

    /// The part before the dot, which is a section in the file.
    fn section(&self) -> Option<&'static str> {
        self.name.split_once('.').map(|(section, _)| section)
    }
}

/// A key, the text it was given, and where.
struct Setting {
    key: &'static Key,
    text: String,
    origin: Origin,
}

/// The configuration in force, and where each value came from.
pub(crate) struct Effective {
    pub(crate) config: Config,
    /// Of the keys that are not at their default.
    origins: BTreeMap<&'static str, Origin>,
    /// What of the cluster's settings could not be taken, in words.
    pub(crate) passed_over: Vec<String>,
}

impl Effective {
    /// # Errors
    /// Every problem of the file and of the environment at once.
    pub(crate) fn load(source: Option<&Source>, environment: &Environment) -> Result<Self, Problems> {
        Self::load_with(source, environment, &[])
    }

    /// As [`Effective::load`], with options of the command line over everything.
    ///
    /// # Errors
    /// Every problem at once.
    pub(crate) fn load_with(
        source: Option<&Source>,
        environment: &Environment,
        options: &[(&'static str, &str)],
    ) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut settings = source.map(|source| source.settings(&mut problems)).unwrap_or_default();
        settings.extend(environment.settings(&mut problems));
        settings.extend(options.iter().filter_map(|&(name, text)| {
            let key = Key::named(name)?;
            Some(Setting { key, text: text.to_owned(), origin: Origin::Option { name } })
        }));

        let mut loaded =
            Self { config: Config::defaults(environment), origins: BTreeMap::new(), passed_over: Vec::new() };
        for Setting { key, text, origin } in settings {
            match (key.set)(&mut loaded.config, &text) {
                Ok(()) => _ = loaded.origins.insert(key.name, origin),
                Err(what) => {
                    problems.push(Problem {
                        origin,
                        what: format!("{}: {what}; allowed: {}", key.name, key.allowed),
                    });
                }
            }
        }
        loaded.use_the_ports_of_the_web();
        problems.extend(loaded.clashes());
        // What follows from a value that was not taken deserves no line of its own.
        if problems.is_empty() {
            problems.extend(loaded.misplaced_upstream());
            problems.extend(loaded.misplaced_tls());
            problems.extend(loaded.misplaced_turn_secret());
            problems.extend(loaded.two_logins_for_nats());
        }
        if problems.is_empty() { Ok(loaded) } else { Err(Problems::new(problems)) }
    }

    /// Takes from the cluster's settings what is left open here: keys, texts, and by which nodes.
    pub(crate) fn take_from_cluster<'a>(
        &mut self,
        settings: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
    ) {
        for (name, text, by) in settings {
            let taken = match Key::named(name).filter(|key| SHARED.contains(&key.name)) {
                Some(key) if *self.origin(key.name) != Origin::Default => Ok(()),
                Some(key) => (key.set)(&mut self.config, text).map(|()| {
                    self.origins.insert(key.name, Origin::Cluster { by: by.to_owned() });
                }),
                None => Err("is nothing that this release shares".to_owned()),
            };
            if let Err(what) = taken {
                self.passed_over
                    .push(format!("{name} of the cluster's settings, set on {by}, is passed over: {what}"));
            }
        }
    }

    pub(crate) fn origin(&self, name: &str) -> &Origin {
        self.origins.get(name).unwrap_or(&Origin::Default)
    }

    /// The effective values as a file that could be loaded again, each with its origin; secrets are hidden.
    pub(crate) fn show(&self) -> String {
        let lines = KEYS.iter().map(|key| match (key.show)(&self.config) {
            Some(text) if key.is_bare() => (format!("{} = {text}", key.name), self.origin(key.name)),
            Some(text) => (format!("{} = {}", key.name, toml_edit::Value::from(text)), self.origin(key.name)),
            None => (format!("# {} is not set", key.name), self.origin(key.name)),
        });
        let lines: Vec<_> = lines.collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
        lines.iter().map(|(line, origin)| format!("{line:width$}  # {origin}\n")).collect()
    }

    /// Two listeners cannot share an address. Told here rather than by the kernel, which names no key.
    fn clashes(&self) -> Vec<Problem> {
        let Config { http, https, rtmp, rtmps, webrtc, admin, relay, roles, .. } = &self.config;
        let mut listeners = vec![
            ("http.listen", http.listen),
            ("https.listen", https.listen),
            ("rtmp.listen", rtmp.listen),
            // Over TCP too.
            ("webrtc.listen", webrtc.listen),
            ("rtmps.listen", rtmps.listen),
            ("admin.listen", admin.listen.get()),
            ("relay.listen", relay.listen),
        ];
        let of_ingest = |key: &str| key.starts_with("rtmp");
        let of_viewers = |key: &str| key.starts_with("http") || key.starts_with("webrtc");
        listeners.retain(|(key, _)| roles.ingest || !of_ingest(key));
        listeners.retain(|(key, _)| roles.has_streams() || !of_viewers(key));
        let encrypts = self.config.certificate_source().is_some();
        listeners.retain(|(key, _)| encrypts || !["https.listen", "rtmps.listen"].contains(key));
        let mut problems = Vec::new();
        for (index, &(first, first_addr)) in listeners.iter().enumerate() {
            for &(second, second_addr) in &listeners[index + 1..] {
                if !value::overlap(first_addr, second_addr) {
                    continue;
                }
                // Point at a line the operator wrote, never at a default.
                let (at, other) = match self.origin(second) {
                    Origin::Default => (first, second),
                    _ => (second, first),
                };
                let what = format!("{at}: is the same address as {other}; allowed: another port");
                problems.push(Problem { origin: self.origin(at).clone(), what });
            }
        }
        problems
    }
}

impl Effective {
    /// An edge without an upstream, or a directory of them, has nothing to serve, and an upstream without an edge would be ignored in silence.
    fn misplaced_upstream(&self) -> Option<Problem> {
        let RoleSet { ingest, origin, transcode, edge } = self.config.roles;
        let is_alone = self.config.cluster.nats.is_empty();
        let (key, what) = match (ingest, &self.config.upstream) {
            (true, _) if !origin && is_alone => (
                "roles",
                "roles: who takes publishers and is no origin needs cluster.nats to be found by one; say \"ingest, origin\" to be \
                 both",
            ),
            (false, _) if origin && is_alone => {
                ("roles", "roles: an origin without ingest needs cluster.nats to find who takes publishers")
            }
            (false, Some(_)) if origin => {
                ("upstream", "upstream: an origin finds what it reads by cluster.nats; leave it out")
            }
            (false, _) if transcode && is_alone => {
                ("roles", "roles: who encodes for other nodes needs cluster.nats to be found by them")
            }
            (false, None) if is_alone => {
                ("roles", "roles: an edge needs an upstream, or cluster.nats to find one; set either")
            }
            (_, Some(_)) if ingest || !edge => {
                ("upstream", "upstream: only an edge has one; set roles = \"edge\" too")
            }
            _ => return None,
        };
        Some(Problem { origin: self.origin(key).clone(), what: what.to_owned() })
    }

    /// A secret that opens nothing is one that was meant to.
    fn misplaced_turn_secret(&self) -> Option<Problem> {
        let WebRtc { ice_servers, turn_secret, .. } = &self.config.webrtc;
        if turn_secret.is_none() || ice_servers.iter().any(|url| is_turn(url)) {
            return None;
        }
        let key = "webrtc.turn_secret";
        let what = format!("{key}: is the secret of TURN servers; name one in webrtc.ice_servers too");
        Some(Problem { origin: self.origin(key).clone(), what })
    }

    /// Servers look at one, and which that would be nobody said.
    fn two_logins_for_nats(&self) -> Option<Problem> {
        let Cluster { nats, nats_credentials, .. } = &self.config.cluster;
        if nats_credentials.is_none() || nats.iter().all(|url| url.login().is_none()) {
            return None;
        }
        let key = "cluster.nats_credentials";
        let what = format!("{key}: has a user, and so have the URLs in cluster.nats; leave one of them out");
        Some(Problem { origin: self.origin(key).clone(), what })
    }
}

impl Config {
    /// Where the certificates of the cluster are.
    pub(crate) fn cluster_dir(&self) -> PathBuf {
        self.cluster.dir.clone().unwrap_or_else(|| self.data_dir.join("cluster"))
    }

    /// The value of a key, as `config show` has it; `None` if it is not set.
    pub(crate) fn shown(&self, name: &str) -> Option<String> {
        (KEYS.iter().find(|key| key.name == name)?.show)(self)
    }

    fn defaults(environment: &Environment) -> Self {
        Self {
            data_dir: environment.data_dir_default(),
            http: Http {
                listen: value::every_address(8080),
                public: None,
                egress_max: 0,
                connections_per_address: 1_000,
                alternates: Alternates::default(),
                redirect: false,
            },
            https: Https { listen: value::every_address(8443) },
            rtmp: Rtmp { listen: value::every_address(1935) },
            webrtc: WebRtc {
                listen: value::every_address(8189),
                public: Vec::new(),
                stun: None,
                ice_servers: Vec::new(),
                turn_secret: None,
            },
            rtmps: Rtmps { listen: value::every_address(1936) },
            tls: tls::Tls::default(),
            acme: tls::Acme::default(),
            player: Player { prefer: Transport::default() },
            admin: Admin { listen: LoopbackAddr::v4(9090) },
            auth: Auth { publish_key: None },
            publish: Publish { linger: Duration::from_secs(20), on_conflict: OnConflict::Refuse },
            hls: Hls { profile: Profile::Default },
            roles: RoleSet::ALL,
            upstream: None,
            relay: Relay { listen: value::every_address(7400), public: None },
            cluster: Cluster {
                dir: None,
                nats: Vec::new(),
                nats_credentials: None,
                nats_replicas: 1,
                zone: String::new(),
            },
            drain: Drain { timeout: Duration::from_secs(15) },
            streams: Streams { unlisted: Unlisted::default() },
            transcode: Transcode { ladder: Ladders::default(), encoder: None, encoders: Vec::new() },
        }
    }
}

/// The environment variables of the process, handed in so that tests need not change their own.
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    pub(crate) fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// For looking at a file alone.
    pub(crate) fn empty() -> Self {
        Self(BTreeMap::new())
    }

    fn settings(&self, problems: &mut Vec<Problem>) -> Vec<Setting> {
        let mut settings = Vec::new();
        for (name, text) in &self.0 {
            let variable = name.to_string_lossy().into_owned();
            if !variable.starts_with(ENVIRONMENT_PREFIX) {
                continue;
            }
            let key = KEYS.iter().find(|key| key.variable() == variable);
            let Some(key) = key else {
                problems.push(unknown_variable(variable));
                continue;
            };
            let origin = Origin::Environment { variable };
            match text.to_str() {
                Some(text) => settings.push(Setting { key, text: text.to_owned(), origin }),
                None => problems.push(Problem { origin, what: format!("{}: is not UTF-8", key.name) }),
            }
        }
        settings
    }

    /// XDG Base Directory Specification: a relative `XDG_DATA_HOME` is ignored. A service has neither variable.
    fn data_dir_default(&self) -> PathBuf {
        let absolute =
            |name: &str| self.0.get(OsStr::new(name)).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_DATA_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".local/share")))
            .unwrap_or_else(|| PathBuf::from("/var/lib"))
            .join("tidecast")
    }
}

fn unknown_variable(variable: String) -> Problem {
    let guess = variable.trim_start_matches(ENVIRONMENT_PREFIX).to_lowercase().replace("__", ".");
    let what = match problem::nearest_key(&guess) {
        Some(key) => format!("sets no key; did you mean {}?", key.variable()),
        None => format!("sets no key; the keys are {}", problem::key_names()),
    };
    Problem { origin: Origin::Environment { variable }, what }
}

/// `text` as `config show` would have it, if the key of this name can be set to it.
///
/// # Errors
/// What is wrong with it, and what is allowed.
pub(crate) fn judged(name: &str, text: &str) -> Result<String, String> {
    let key = Key::named(name).ok_or_else(|| format!("there is no key {name}"))?;
    let mut config = Config::defaults(&Environment::empty());
    (key.set)(&mut config, text).map_err(|what| format!("{name}: {what}; allowed: {}", key.allowed))?;
    Ok((key.show)(&config).unwrap_or_default())
}

/// Reads the file, if one is named.
pub(crate) fn read(path: Option<&Path>) -> anyhow::Result<Option<Source>> {
    path.map(Source::read).transpose()
}

#[cfg(test)]
mod tests;
