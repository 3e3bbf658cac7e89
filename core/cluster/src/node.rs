//! A node, as it tells the others about itself.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use media::NodeId;
use serde::{Deserialize, Serialize};

use crate::room::Room;
use crate::store::{Key, StoreError};

/// One run of a node's process, so that a name's old process is not taken for the new one. 64 random bits, as 16 hexadecimal
/// digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Boot(pub u64);

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Boot {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Boot {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes publishers.
    Ingest,
    Transcode,
    /// Has the streams that other nodes read.
    Origin,
    /// Takes viewers.
    Edge,
    /// Of a later release.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    #[default]
    Serving,
    /// Takes nothing new, and will be gone. What a later release calls otherwise is left alone like that.
    #[serde(other)]
    Draining,
}

/// How busy a node is. Rates in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Share of the machine's processors that this process uses, 0 to 1.
    pub cpu: f64,
    /// To viewers.
    pub egress: u64,
    /// What the operator lets it send; 0 if not said.
    pub egress_max: u64,
    pub viewers: u32,
    /// Published here.
    pub streams: u32,
    /// Cores that the encoders of this node have left for jobs of others; `None` if it lends none.
    #[serde(default)]
    pub encode_free: Option<f64>,
}

impl Load {
    /// The larger of the shares of what it has, 0 to 1 and above.
    pub fn share(&self) -> f64 {
        self.egress_share().max(self.cpu)
    }

    /// Of what the operator lets it send; 0 if that was not said.
    pub fn egress_share(&self) -> f64 {
        match self.egress_max {
            0 => 0.0,
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            max => self.egress as f64 / max as f64,
        }
    }
}

/// Of another release a node has more fields, or fewer: those of its very first are needed, others have defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    #[serde(with = "text")]
    pub id: NodeId,
    pub boot: Boot,
    #[serde(default)]
    pub roles: Vec<Role>,
    /// Nodes of a zone are near each other; empty if there is but one.
    #[serde(default)]
    pub zone: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub phase: Phase,
    /// Where other nodes read its streams: `https://host:port`.
    pub relay: Option<String>,
    /// Before the path of a page or a playlist, as viewers reach it: `https://edge1.example`. An origin (RFC 6454), or it is not read:
    /// headers and policies are made of it.
    #[serde(default, deserialize_with = "origin")]
    pub viewers: Option<String>,
    #[serde(default)]
    pub load: Load,
    /// For viewers; `None` of a release that does not say.
    #[serde(default)]
    pub room: Option<Room>,
    /// When its certificate in the cluster ends, in milliseconds since the Unix epoch; `None` if it does not say.
    #[serde(default)]
    pub certificate_ends_ms: Option<i64>,
    /// Of a node that takes publishers: what should be equal on all of those, by its name in the configuration.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

impl Node {
    /// As it says itself, or what its load says.
    pub fn room(&self) -> Room {
        self.room.unwrap_or_else(|| Room::of(self.load.share()))
    }

    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    pub(crate) fn key(&self) -> Key {
        Key::from(&self.id)
    }
}

fn origin<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let is_origin = |text: &String| {
        let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let allowed = |char: char| char.is_ascii_alphanumeric() || "-._:[]".contains(char);
        authority.is_some_and(|authority| !authority.is_empty() && authority.chars().all(allowed))
    };
    Ok(Option::<String>::deserialize(deserializer)?.filter(is_origin))
}

/// As the store has it. Fields that a later release adds are passed over.
pub(crate) fn decode<T: for<'de> Deserialize<'de>>(key: &Key, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|error| StoreError::Unfit(format!("{key} in it: {error}")))
}

pub(crate) fn encode(value: &impl Serialize) -> bytes::Bytes {
    serde_json::to_vec(value).expect("a record has only strings, numbers and lists").into()
}

/// Names, as their texts.
pub(crate) mod text {
    use super::{FromStr, fmt};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<T: fmt::Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn serialize_all<T: fmt::Display, S: Serializer>(
        values: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(ToString::to_string))
    }

    pub(crate) fn deserialize<'de, T: FromStr<Err: fmt::Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_later_release_is_read() {
        let later = br#"{"id":"edge1","boot":"00000000000000ab","roles":["edge","oracle"],"zone":"","version":"9.0.0",
            "phase":"serving","relay":null,"viewers":"https://edge1.example","load":{"cpu":0.5,"egress":1,"egress_max":4,
            "viewers":2,"streams":0,"gpu":1},"mood":"good"}"#;
        let node: Node = decode(&Key::from(&"edge1".parse::<NodeId>().unwrap()), later).unwrap();
        assert_eq!((node.boot, &node.roles[..]), (Boot(0xab), &[Role::Edge, Role::Unknown][..]));
        assert!((node.load.share() - 0.5).abs() < f64::EPSILON);
        assert_eq!(node.room(), Room::Plenty);
        let phase: Phase = serde_json::from_str(r#""hibernating""#).unwrap();
        assert_eq!(phase, Phase::Draining, "left alone");
    }

    #[test]
    fn a_record_of_an_earlier_release_is_read() {
        let key = Key::from(&"edge1".parse::<NodeId>().unwrap());
        let node: Node = decode(&key, br#"{"id":"edge1","boot":"00000000000000ab"}"#).unwrap();
        assert_eq!(
            (node.phase, node.roles.len(), node.relay, node.certificate_ends_ms),
            (Phase::Serving, 0, None, None)
        );
        assert_eq!(node.load, Load::default());
        for wrong in [&br#"{"id":"edge1"}"#[..], br#"{"id":"EDGE","boot":"ab"}"#, b"[]", b""] {
            assert!(decode::<Node>(&key, wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
