//! SDP fragments (RFC 8840, §4.4): what a publisher's PATCH says of its ICE, and our answer to a restart. Pure.

use std::fmt::Write as _;

/// Longest fragment, in bytes. A browser's candidates of all interfaces are 3 kB.
pub const FRAGMENT_BYTES_MAX: usize = 16 * 1024;
const LINES_MAX: usize = 256;

/// RFC 8839, §5.4: letters, digits, + and /.
const UFRAG_CHARS: std::ops::RangeInclusive<usize> = 4..=256;
const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 22..=256;

/// Why a fragment is not taken. The publisher must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    #[error("the fragment is no SDP fragment (RFC 8840)")]
    Malformed,
    #[error("the fragment's ice-ufrag and ice-pwd are missing or too short or too long (RFC 8839)")]
    Credentials,
}

/// Whose candidates, or whose new generation, a fragment tells. The candidates themselves are of no use to an ICE-lite
/// agent, which asks nobody: whoever has the password may come from anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    pub ufrag: String,
    pub password: String,
}

impl Fragment {
    /// # Errors
    /// [`FragmentError`], in words meant for the publisher.
    pub fn parse(body: &[u8]) -> Result<Self, FragmentError> {
        let text = std::str::from_utf8(body).map_err(|_| FragmentError::Malformed)?;
        let (mut ufrag, mut password) = (None, None);
        for (number, line) in text.lines().map(str::trim_end).filter(|line| !line.is_empty()).enumerate() {
            let is_field = line.as_bytes().get(1) == Some(&b'=');
            if !is_field || number >= LINES_MAX {
                return Err(FragmentError::Malformed);
            }
            // They stand once for the session, or in each section, which are bundled: the first is all.
            if let Some(value) = line.strip_prefix("a=ice-ufrag:") {
                ufrag.get_or_insert(value);
            } else if let Some(value) = line.strip_prefix("a=ice-pwd:") {
                password.get_or_insert(value);
            }
        }
        let is_ice = |char: char| char.is_ascii_alphanumeric() || matches!(char, '+' | '/');
        let credential = |value: Option<&str>, chars: std::ops::RangeInclusive<usize>| {
            let value = value.filter(|value| chars.contains(&value.len()) && value.chars().all(is_ice));
            value.map(str::to_owned).ok_or(FragmentError::Credentials)
        };
        Ok(Self { ufrag: credential(ufrag, UFRAG_CHARS)?, password: credential(password, PASSWORD_CHARS)? })
    }

    /// Our side of a restart: new credentials, and the same candidates as ever. `section`: the `m=` and `a=mid` lines of the
    /// bundle's first section, which stands for its transport (RFC 8840, §4.4).
    pub fn answer(&self, section: &str, candidates: &[String]) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = write!(text, "a=ice-lite\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.ufrag, self.password);
        text.push_str(section);
        for candidate in candidates {
            let _ = write!(text, "a=candidate:{candidate}\r\n");
        }
        text.push_str("a=end-of-candidates\r\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM_A_BROWSER: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\n\
        a=mid:0\r\na=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw\r\n\
        a=end-of-candidates\r\n";

    #[test]
    fn a_browsers_fragment_is_read() {
        let read = Fragment::parse(FROM_A_BROWSER.as_bytes()).unwrap();
        assert_eq!((read.ufrag.as_str(), read.password.as_str()), ("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1"));
    }

    #[test]
    fn our_answer_is_a_fragment_with_candidates() {
        let ours = Fragment { ufrag: "ours".to_owned(), password: "p".repeat(32) };
        let text = ours
            .answer("m=audio 9 RTP/AVP 0\r\na=mid:0\r\n", &["1 1 udp 1 192.0.2.7 8189 typ host".to_owned()]);
        assert_eq!(Fragment::parse(text.as_bytes()), Ok(ours));
        assert!(text.contains("a=candidate:1 1 udp 1 192.0.2.7 8189 typ host\r\n"), "{text}");
    }

    /// Threat: a value that goes on in the next line of the description it is put into.
    #[test]
    fn what_is_no_fragment_is_refused() {
        let many = format!("{FROM_A_BROWSER}{}", "a=x\r\n".repeat(LINES_MAX));
        for (body, error) in [
            ("", FragmentError::Credentials),
            ("hello", FragmentError::Malformed),
            ("a=ice-ufrag:abc\r\na=ice-pwd:0123456789012345678901\r\n", FragmentError::Credentials),
            ("a=ice-ufrag:abcd\r\na=ice-pwd:short\r\n", FragmentError::Credentials),
            ("a=ice-ufrag:ab cd\r\na=ice-pwd:0123456789012345678901\r\n", FragmentError::Credentials),
            ("a=ice-ufrag:abcd\ra=x\r\na=ice-pwd:0123456789012345678901\r\n", FragmentError::Credentials),
            (many.as_str(), FragmentError::Malformed),
        ] {
            assert_eq!(Fragment::parse(body.as_bytes()), Err(error), "{body:?}");
        }
        assert_eq!(Fragment::parse(&[0xFF, b'=']), Err(FragmentError::Malformed));
    }
}
