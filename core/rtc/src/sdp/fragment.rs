//! The pieces of SDP that go over PATCH (`application/trickle-ice-sdpfrag`, RFC 8840, §9): candidates, of which a lite
//! agent has no use, and the credentials of an ICE restart.

use std::fmt::Write;

use super::answer::candidate_lines;
use super::offer::{OfferError, UFRAG_CHARS};
use crate::peer::Credentials;
use crate::port::Candidate;

/// A client with many addresses sends some dozens of lines.
const FRAGMENT_BYTES_MAX: usize = 16 * 1024;

/// What the viewer sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// If it is not the one of the offer, or of the last restart, then ICE restarts (RFC 9725, §4.3.3).
    pub ufrag: String,
}

impl Fragment {
    /// # Errors
    /// [`OfferError::TooLarge`] or [`OfferError::NoUfrag`].
    pub fn parse(text: &str) -> Result<Self, OfferError> {
        if text.len() > FRAGMENT_BYTES_MAX {
            return Err(OfferError::TooLarge);
        }
        let ufrag = text.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).map(str::trim);
        let ufrag = ufrag.filter(|ufrag| UFRAG_CHARS.contains(&ufrag.len())).ok_or(OfferError::NoUfrag)?;
        Ok(Self { ufrag: ufrag.to_owned() })
    }

    /// Our side of a restart.
    pub fn answer(credentials: &Credentials, candidates: &[Candidate]) -> String {
        let mut text = format!(
            "a=ice-lite\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n",
            credentials.ufrag, credentials.password
        );
        for line in candidate_lines(candidates) {
            write!(text, "{line}\r\n").expect("a String takes everything");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Protocol;

    #[test]
    fn a_restart_is_asked_for_and_answered() {
        // As in RFC 9725, figure 6.
        let asked = "a=ice-options:ice2\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
                     a=ice-ufrag:EsAw\r\na=ice-pwd:bP+XJMM09aR8AiX1jdukzR6Y\r\n";
        assert_eq!(Fragment::parse(asked), Ok(Fragment { ufrag: "EsAw".to_owned() }));
        let credentials = Credentials { ufrag: "ours".to_owned(), password: "the password".to_owned() };
        let address = "203.0.113.7:8189".parse().unwrap();
        assert_eq!(
            Fragment::answer(&credentials, &[Candidate { address, protocol: Protocol::Udp }]),
            "a=ice-lite\r\na=ice-ufrag:ours\r\na=ice-pwd:the password\r\n\
             a=candidate:1 1 udp 2130706431 203.0.113.7 8189 typ host\r\na=end-of-candidates\r\n"
        );
    }

    #[test]
    fn one_without_credentials_or_without_an_end_is_refused() {
        assert_eq!(Fragment::parse("a=mid:0\r\n"), Err(OfferError::NoUfrag));
        assert_eq!(Fragment::parse("a=ice-ufrag:abc\r\n"), Err(OfferError::NoUfrag));
        assert_eq!(Fragment::parse(&"a=mid:0\r\n".repeat(2_000)), Err(OfferError::TooLarge));
    }
}
