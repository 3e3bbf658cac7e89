//! Binding requests (RFC 8489), as an ICE-lite agent sees them (RFC 8445, §7.3): it answers its peers, and asks them nothing. What it
//! asks, of a server, is under which address the world sees it.
//!
//! Threat 5: whatever does not prove to know the session's password is not answered at all, not even with an error, so
//! that the port is of no use to whoever forges addresses. The two errors below answer an authenticated request.

use std::net::SocketAddr;

use rtc_crypto::providers::AwsLcRsCrypto;
use rtc_stun::attributes::{
    ATTR_FINGERPRINT, ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_MESSAGE_INTEGRITY, ATTR_PRIORITY,
    ATTR_UNKNOWN_ATTRIBUTES, ATTR_USE_CANDIDATE, ATTR_USERNAME, AttrType,
};
use rtc_stun::error_code::{CODE_ROLE_CONFLICT, CODE_UNKNOWN_ATTRIBUTE};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{
    BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, Getter, MAGIC_COOKIE, MESSAGE_HEADER_SIZE, Message,
    Setter, TransactionId,
};
use rtc_stun::xoraddr::XorMappedAddress;

/// Attributes that must be understood have a type below this one (RFC 8489, §14).
const COMPREHENSION_OPTIONAL: u16 = 0x8000;

/// The part of USERNAME that is ours (RFC 8445, §7.2.2), read without a copy and without a check: good for finding the
/// session, and for nothing else.
pub(crate) fn local_ufrag(bytes: &[u8]) -> Option<&str> {
    let (header, mut attributes) = bytes.split_at_checked(MESSAGE_HEADER_SIZE)?;
    if header[4..8] != MAGIC_COOKIE.to_be_bytes() {
        return None;
    }
    while let Some((&[t0, t1, l0, l1], rest)) = attributes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let value = rest.get(..length)?;
        if AttrType(u16::from_be_bytes([t0, t1])) == ATTR_USERNAME {
            let name = std::str::from_utf8(value).ok()?;
            return name.split_once(':').map(|(local, _)| local);
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// How an answer to a binding request begins.
pub(crate) const BINDING_SUCCESS_BYTES: [u8; 2] = [1, 1];

/// A request to a server that knows nobody, and asks nobody who they are.
pub(crate) fn binding_request(transaction: TransactionId) -> Vec<u8> {
    let mut message = Message::new();
    let setters: [Box<dyn Setter>; 2] = [Box::new(BINDING_REQUEST), Box::new(transaction)];
    message.build(&setters).expect("every part is of our making and within its bound");
    message.raw
}

/// XOR-MAPPED-ADDRESS (RFC 8489, §14.2): where the request came from, as the one saw it who answers.
pub(crate) fn mapped_address(bytes: &[u8]) -> Option<SocketAddr> {
    let mut message = Message::new();
    message.unmarshal_binary(bytes).ok()?;
    let mut mapped = XorMappedAddress::default();
    mapped.get_from(&message).ok()?;
    Some(SocketAddr::new(mapped.ip, mapped.port))
}

/// Why a message is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StunError {
    #[error("not a STUN message")]
    Malformed,
    #[error("not a binding request")]
    NotARequest,
    #[error("FINGERPRINT is missing or wrong")]
    Fingerprint,
    #[error("USERNAME is of another session")]
    Username,
    #[error("MESSAGE-INTEGRITY is missing or wrong: the sender does not know the password")]
    Integrity,
}

/// A binding request from whoever knows the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    transaction: TransactionId,
    /// The peer nominates this pair (RFC 8445, §7.1.2).
    pub(crate) use_candidate: bool,
    /// The peer believes that we control (RFC 8445, §7.3.1.1).
    is_controlled: bool,
    /// Attributes it insists on and we do not know.
    unknown: Vec<u16>,
}

impl Request {
    /// `username` is `ours:theirs`, `password` is ours.
    pub(crate) fn check(bytes: &[u8], username: &str, password: &str) -> Result<Self, StunError> {
        let mut message = Message::new();
        message.unmarshal_binary(bytes).map_err(|_| StunError::Malformed)?;
        // Bytes after the end would be in no check.
        if message.raw.len() != MESSAGE_HEADER_SIZE + message.length as usize {
            return Err(StunError::Malformed);
        }
        if message.typ != BINDING_REQUEST {
            return Err(StunError::NotARequest);
        }
        FINGERPRINT.check(&message).map_err(|_| StunError::Fingerprint)?;
        let attributes = &message.attributes.0;
        let authenticated = attributes.iter().take_while(|attribute| attribute.typ != ATTR_MESSAGE_INTEGRITY);
        // The first of its kind counts (RFC 8489, §14), for the routing too.
        let named = authenticated.clone().find(|attribute| attribute.typ == ATTR_USERNAME);
        if named.is_none_or(|attribute| attribute.value != username.as_bytes()) {
            return Err(StunError::Username);
        }
        // What follows MESSAGE-INTEGRITY is not covered by it and must be ignored (RFC 8489, §14.5).
        let has = |wanted| authenticated.clone().any(|attribute| attribute.typ == wanted);
        let request = Self {
            transaction: message.transaction_id,
            use_candidate: has(ATTR_USE_CANDIDATE),
            is_controlled: has(ATTR_ICE_CONTROLLED),
            unknown: authenticated
                .clone()
                .map(|attribute| attribute.typ)
                .filter(is_unknown)
                .map(|t| t.0)
                .collect(),
        };
        MessageIntegrity::check(&mut message, password.as_bytes(), &AwsLcRsCrypto)
            .map_err(|_| StunError::Integrity)?;
        Ok(request)
    }

    /// The error that the request deserves. It proves the sender's knowledge all the same.
    pub(crate) fn error(&self, password: &str) -> Option<Vec<u8>> {
        if !self.unknown.is_empty() {
            // RFC 8489, §6.3.1.
            let list = self.unknown.iter().flat_map(|number| number.to_be_bytes()).collect();
            let unknown = RawAttributeSetter(ATTR_UNKNOWN_ATTRIBUTES, list);
            return Some(self.respond(
                password,
                vec![
                    Box::new(BINDING_ERROR),
                    Box::new(self.transaction),
                    Box::new(CODE_UNKNOWN_ATTRIBUTE),
                    Box::new(unknown),
                ],
            ));
        }
        // A lite agent cannot control a full one (RFC 8445, §6.1.1), so it is the peer that must switch.
        self.is_controlled.then(|| {
            self.respond(
                password,
                vec![Box::new(BINDING_ERROR), Box::new(self.transaction), Box::new(CODE_ROLE_CONFLICT)],
            )
        })
    }

    /// The answer: where the request came from.
    pub(crate) fn success(&self, remote: SocketAddr, password: &str) -> Vec<u8> {
        self.respond(
            password,
            vec![
                Box::new(BINDING_SUCCESS),
                Box::new(self.transaction),
                Box::new(XorMappedAddress { ip: remote.ip(), port: remote.port() }),
            ],
        )
    }

    fn respond(&self, password: &str, mut setters: Vec<Box<dyn Setter + '_>>) -> Vec<u8> {
        setters.push(Box::new(MessageIntegrity::new_raw_integrity_with_provider(password, &AwsLcRsCrypto)));
        setters.push(Box::new(FINGERPRINT));
        let mut message = Message::new();
        message.build(&setters).expect("every part is of our making and within its bound");
        message.raw
    }
}

fn is_unknown(attribute: &AttrType) -> bool {
    let known = [
        ATTR_USERNAME,
        ATTR_PRIORITY,
        ATTR_USE_CANDIDATE,
        ATTR_ICE_CONTROLLED,
        ATTR_ICE_CONTROLLING,
        ATTR_FINGERPRINT,
    ];
    attribute.0 < COMPREHENSION_OPTIONAL && !known.contains(attribute)
}

struct RawAttributeSetter(AttrType, Vec<u8>);

impl Setter for RawAttributeSetter {
    fn add_to(&self, message: &mut Message) -> Result<(), rtc_shared::error::Error> {
        message.add(self.0, &self.1);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
