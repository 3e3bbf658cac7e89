//! H.264's `profile-level-id` (RFC 6184, §8.1).

use std::str::FromStr;

/// Profile, constraints and level, as in the first three bytes of an SPS after its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileLevelId(pub [u8; 3]);

impl ProfileLevelId {
    /// Without the parameter: Baseline at level 1 (RFC 6184, §8.1).
    pub(super) const DEFAULT: Self = Self([0x42, 0x00, 0x0A]);

    /// What a decoder of it can do; `None` for profiles that nobody streams.
    fn profile(self) -> Option<Profile> {
        let [idc, constraints, _] = self.0;
        let has = |mask: u8, pattern: u8| constraints & mask == pattern;
        // RFC 6184, table 5.
        match idc {
            0x42 if has(0b0100_1111, 0b0100_0000) => Some(Profile::ConstrainedBaseline),
            0x42 if has(0b0100_1111, 0) => Some(Profile::Baseline),
            0x4D if has(0b1000_1111, 0b1000_0000) => Some(Profile::ConstrainedBaseline),
            0x4D if has(0b1010_1111, 0) => Some(Profile::Main),
            0x58 if has(0b1100_1111, 0b1100_0000) => Some(Profile::ConstrainedBaseline),
            0x58 if has(0b1100_1111, 0b1000_0000) => Some(Profile::Baseline),
            0x64 if constraints == 0b0000_1100 => Some(Profile::ConstrainedHigh),
            0x64 if constraints == 0 => Some(Profile::High),
            _ => None,
        }
    }

    /// How well a receiver of `self` is served by `sent`: the higher the better.
    ///
    /// Anybody who offers one of these is sent any of them: browsers decode High though they offer no more than
    /// Constrained Baseline. The same profile is best, then one that includes it, then the nearest below. The level
    /// is not looked at: browsers offer 3.1 and decode what their hardware can, and `level-asymmetry-allowed` is there
    /// because nobody keeps to it.
    pub(super) fn fitness(self, sent: Self) -> Option<Fitness> {
        let (offered, sent) = (self.profile()?, sent.profile().unwrap_or(Profile::High));
        Some(match offered.cmp(&sent) {
            std::cmp::Ordering::Equal => Fitness::Same,
            std::cmp::Ordering::Greater => Fitness::Above(std::cmp::Reverse(offered)),
            std::cmp::Ordering::Less => Fitness::Below(offered),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    Below(Profile),
    Above(std::cmp::Reverse<Profile>),
    Same,
}

/// From less to more: a decoder of each can, by and large, decode those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a profile-level-id has six hexadecimal digits")]
pub struct ProfileLevelIdError;

impl FromStr for ProfileLevelId {
    type Err = ProfileLevelIdError;

    fn from_str(text: &str) -> Result<Self, ProfileLevelIdError> {
        let is_hex = text.len() == 6 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number =
            u32::from_str_radix(text, 16).ok().filter(|_| is_hex).ok_or(ProfileLevelIdError)?.to_be_bytes();
        Ok(Self([number[1], number[2], number[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ProfileLevelId {
        text.parse().unwrap()
    }

    #[test]
    fn profiles_are_told_apart_by_their_constraints() {
        for (text, profile) in [
            ("42e01f", Some(Profile::ConstrainedBaseline)),
            ("42C01F", Some(Profile::ConstrainedBaseline)),
            ("4d801f", Some(Profile::ConstrainedBaseline)),
            ("42001f", Some(Profile::Baseline)),
            ("42a01e", Some(Profile::Baseline)),
            ("4d001f", Some(Profile::Main)),
            ("4d401f", Some(Profile::Main)),
            ("640028", Some(Profile::High)),
            ("640c1f", Some(Profile::ConstrainedHigh)),
            ("f4001f", None),
            ("6e0028", None),
        ] {
            assert_eq!(id(text).profile(), profile, "{text}");
        }
        assert_eq!(ProfileLevelId::DEFAULT.profile(), Some(Profile::Baseline));
        for text in ["", "42e01", "42e01f0", "+2e01f", "42e01g"] {
            assert_eq!(text.parse::<ProfileLevelId>(), Err(ProfileLevelIdError), "{text}");
        }
    }

    #[test]
    fn the_same_is_best_then_more_then_less() {
        let best = |sent: &str, offered: &[&'static str]| {
            offered.iter().copied().max_by_key(|text| id(text).fitness(id(sent))).unwrap()
        };
        let chromium = ["42001f", "42e01f", "4d001f", "f4001f"];
        assert_eq!(best("42e01f", &chromium), "42e01f");
        assert_eq!(best("4d4028", &chromium), "4d001f");
        assert_eq!(best("640028", &chromium), "4d001f", "nothing higher is offered");
        assert_eq!(best("640028", &["42e01f", "640c1f"]), "640c1f");
        assert_eq!(best("42e01f", &["640028", "4d001f"]), "4d001f");
        assert_eq!(id("f4001f").fitness(id("640028")), None);
    }
}
