//! What is made of an offer: its reduced form for the peer connection, that form under new credentials, and the answer with
//! what was refused put back.

use std::fmt::Write as _;

use super::Offer;

impl Offer {
    /// The offer with nothing in it but what is taken. Without candidates: an ICE-lite agent asks nobody (RFC 8445, §5.3).
    pub(in crate::whip) fn reduced(&self) -> String {
        let mut text = String::new();
        let mids: Vec<_> = self.taken().filter_map(|section| section.attribute("mid")).collect();
        for line in self.session.iter().filter(|line| !line.starts_with("a=group:") && !is_left_out(line)) {
            line_to(&mut text, line);
        }
        line_to(&mut text, &format!("a=group:BUNDLE {}", mids.join(" ")));
        for section in &self.sections {
            let Some(track) = &section.taken else { continue };
            let kept: Vec<_> = std::iter::once(track.payload_type).chain(track.rtx_payload_type).collect();
            let formats: Vec<_> = kept.iter().map(u8::to_string).collect();
            // Some offer port 0 for what is bundled (RFC 9143, §6).
            line_to(
                &mut text,
                &format!("m={} 9 {} {}", section.media[0], section.media[2], formats.join(" ")),
            );
            for line in section.lines.iter().filter(|line| !is_left_out(line) && !is_of_other(line, &kept)) {
                line_to(&mut text, line);
            }
            for rid in &track.rids {
                line_to(&mut text, &format!("a=rid:{rid} send"));
            }
            if !track.rids.is_empty() {
                line_to(&mut text, &format!("a=simulcast:send {}", track.rids.join(";")));
            }
        }
        text
    }

    /// The same offer under new ICE credentials: a restart (RFC 8839, §4.4.1.1.1).
    #[must_use]
    pub(in crate::whip) fn restarted(&self, ufrag: &str, password: &str) -> Self {
        let mut offer = self.clone();
        let replace = |lines: &mut Vec<String>| {
            for line in lines {
                if line.starts_with("a=ice-ufrag:") {
                    *line = format!("a=ice-ufrag:{ufrag}");
                } else if line.starts_with("a=ice-pwd:") {
                    *line = format!("a=ice-pwd:{password}");
                }
            }
        };
        replace(&mut offer.session);
        offer.sections.iter_mut().for_each(|section| replace(&mut section.lines));
        offer
    }

    /// Puts what was refused back between the sections of the answer to [`Offer::reduced`], as RFC 3264, §6 wants it, with
    /// the reason as its title; and `candidates` into the first.
    pub(in crate::whip) fn complete(&self, answer: &str, candidates: &[String]) -> String {
        let mut parts = answer.split("\r\nm=");
        let mut text = String::from(parts.next().unwrap_or_default());
        text.push_str("\r\n");
        let mut is_first = true;
        for section in &self.sections {
            if section.taken.is_none() {
                let [kind, protocol, format] =
                    [0, 2, 3].map(|at| section.media.get(at).map_or("0", String::as_str));
                line_to(&mut text, &format!("m={kind} 0 {protocol} {format}"));
                if let Some(refused) = &section.refused {
                    line_to(&mut text, &format!("i={refused}"));
                }
                line_to(&mut text, "c=IN IP4 0.0.0.0");
                if let Some(mid) = section.attribute("mid") {
                    line_to(&mut text, &format!("a=mid:{mid}"));
                }
                line_to(&mut text, "a=inactive");
                continue;
            }
            let Some(part) = parts.next() else { break };
            line_to(&mut text, &format!("m={}", part.trim_end()));
            if std::mem::take(&mut is_first) {
                candidates
                    .iter()
                    .for_each(|candidate| line_to(&mut text, &format!("a=candidate:{candidate}")));
                line_to(&mut text, "a=end-of-candidates");
            }
        }
        text
    }

    /// The `m=` and `a=mid` lines of the section whose transport is everybody's, for a fragment.
    pub(in crate::whip) fn transport_section(&self) -> String {
        let mut text = String::new();
        if let Some(section) = self.taken().next() {
            line_to(&mut text, &format!("m={} 9 {} 0", section.media[0], section.media[2]));
            line_to(&mut text, &format!("a=mid:{}", section.attribute("mid").unwrap_or_default()));
        }
        text
    }
}

/// What the peer connection need not know: candidates, since it asks nobody. Layers are told it in our words.
fn is_left_out(line: &str) -> bool {
    let names = ["candidate:", "end-of-candidates", "simulcast:", "rid:", "bundle-only"];
    let name = line.strip_prefix("a=").unwrap_or_default();
    names.iter().any(|left_out| name.starts_with(left_out))
}

fn is_of_other(line: &str, kept: &[u8]) -> bool {
    let name = line.strip_prefix("a=").unwrap_or_default();
    let value = ["rtpmap:", "fmtp:", "rtcp-fb:"].into_iter().find_map(|kind| name.strip_prefix(kind));
    let Some(format) = value.and_then(|value| value.split(' ').next()) else { return false };
    format != "*" && !format.parse().is_ok_and(|format: u8| kept.contains(&format))
}

fn line_to(text: &mut String, line: &str) {
    // Writing into a string does not fail.
    let _ = write!(text, "{line}\r\n");
}
