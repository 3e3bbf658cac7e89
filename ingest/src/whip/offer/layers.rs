//! Simulcast in an offer (RFC 8853): the same picture in several sizes, each a stream of its own with a name, its `rid`
//! (RFC 8851). Pure.

use super::{OfferError, parameter, values};

/// Most layers of one picture. Browsers send three.
pub(in crate::whip) const LAYERS_MAX: usize = 4;

/// Longest name of one, in bytes: what a header extension of one byte holds (RFC 8285, §4.2).
const RID_BYTES_MAX: usize = 16;

/// Looked at of an offer, which comes before its key: one more than are taken, and some to choose from.
const STREAMS_MAX: usize = LAYERS_MAX + 1;
const ALTERNATIVES_MAX: usize = 4;

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";

/// By which numbers packets name their layer (RFC 8852).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::whip) struct RidExtensions {
    pub(in crate::whip) rid: u8,
    /// Of the layer that a retransmission is of.
    pub(in crate::whip) repaired: Option<u8>,
}

impl RidExtensions {
    /// `None` if packets do not say what they are of: then there is one layer.
    pub(super) fn of(lines: &[String]) -> Option<Self> {
        let number = |uri: &str| {
            values(lines, "extmap").find_map(|value| {
                let (number, rest) = value.split_once(' ')?;
                // With a direction, as in `4/sendonly` (RFC 8285, §5).
                let number = number.split('/').next()?.parse().ok().filter(|number| *number > 0);
                (rest.split(' ').next() == Some(uri)).then_some(number).flatten()
            })
        };
        number(MID)?;
        Some(Self { rid: number(RID)?, repaired: number(REPAIRED_RID) })
    }
}

/// The layers that are sent in this format, in the publisher's order; none if it does not speak of any.
///
/// # Errors
/// [`OfferError::Layers`] if there are too many.
pub(super) fn rids(lines: &[String], payload_type: u8) -> Result<Vec<String>, OfferError> {
    let Some(sent) = values(lines, "simulcast").find_map(sent) else { return Ok(Vec::new()) };
    let is_sent = |rid: &&str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric();
        let is_name = (1..=RID_BYTES_MAX).contains(&rid.len()) && rid.bytes().all(allowed);
        is_name && values(lines, "rid").any(|value| is_declared(value, rid, payload_type))
    };
    let mut rids = Vec::<String>::new();
    for alternatives in sent.split(';').take(STREAMS_MAX) {
        // The first of alternatives is what the publisher would rather send, and `~` says that it does not do so yet.
        let names = alternatives.split(',').take(ALTERNATIVES_MAX).map(|rid| rid.trim_start_matches('~'));
        if let Some(rid) = names.into_iter().find(is_sent)
            && !rids.iter().any(|other| other == rid)
        {
            rids.push(rid.to_owned());
        }
    }
    if rids.len() > LAYERS_MAX { Err(OfferError::Layers(rids.len())) } else { Ok(rids) }
}

/// Of `send a;b recv c`, in either order.
fn sent(value: &str) -> Option<&str> {
    let mut words = value.split_whitespace();
    words.find(|word| *word == "send")?;
    words.next()
}

/// Of `rid send pt=96,97;max-width=1280`.
fn is_declared(value: &str, rid: &str, payload_type: u8) -> bool {
    let mut words = value.splitn(3, ' ');
    let is_sent = words.next() == Some(rid) && words.next() == Some("send");
    let formats = words.next().and_then(|restrictions| parameter(restrictions, "pt"));
    // There are no more numbers for formats than these.
    let is_one = |formats: &str| formats.split(',').take(128).any(|one| one.parse() == Ok(payload_type));
    is_sent && formats.is_none_or(is_one)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{CHROMIUM, LAYERED};
    use super::super::{Offer, OfferError};
    use super::*;

    fn with(lines: &str) -> Result<Offer, OfferError> {
        Offer::parse(CHROMIUM.replace("a=mid:1\r\n", &format!("a=mid:1\r\n{lines}")).as_bytes(), true)
    }

    fn rids_of(lines: &str) -> Vec<String> {
        with(lines).unwrap().video.unwrap().rids
    }

    #[test]
    fn a_browsers_layers_are_taken_in_its_order_and_passed_on() {
        let offer = Offer::parse(LAYERED.as_bytes(), true).unwrap();
        let video = offer.video.as_ref().unwrap();
        assert_eq!(video.rids, ["q", "h", "f"]);
        assert_eq!(video.rid_extensions, Some(RidExtensions { rid: 10, repaired: Some(11) }));
        let reduced = offer.reduced();
        for line in ["a=rid:f send\r\n", "a=rid:q send\r\n", "a=simulcast:send q;h;f\r\n"] {
            assert!(reduced.contains(line), "no {line} in {reduced}");
        }
        assert_eq!(Offer::parse(reduced.as_bytes(), true).unwrap().reduced(), reduced);
    }

    #[test]
    fn what_is_no_layer_of_this_format_is_left_out() {
        let declared =
            "a=rid:a send\r\na=rid:b send pt=102,104\r\na=rid:c send pt=96;max-width=320\r\na=rid:d recv\r\n";
        assert_eq!(rids_of(declared), [""; 0], "nothing says that they are sent together");
        assert_eq!(rids_of(&format!("{declared}a=simulcast:recv d send a;~b;c;d;e\r\n")), ["a", "b"]);
        assert_eq!(rids_of(&format!("{declared}a=simulcast:send c,b;a;a\r\n")), ["b", "a"]);
        let odd = "a=rid:- send\r\na=rid:abcdefghijklmnopq send\r\na=simulcast:send -;abcdefghijklmnopq\r\n";
        assert_eq!(rids_of(odd), [""; 0]);
        // Without the extension nobody knows what a packet is of: the answer has no layers, and one comes (RFC 8853, §5.3.2).
        let deaf = LAYERED.replace("sdes:rtp-stream-id", "x");
        assert!(Offer::parse(deaf.as_bytes(), true).unwrap().video.unwrap().rids.is_empty());
    }

    /// Threat 8: each layer has its own buffers.
    #[test]
    fn an_offer_of_many_layers_is_refused_in_words() {
        let names: Vec<_> = (0..=LAYERS_MAX).map(|number| format!("r{number}")).collect();
        let lines: String = names.iter().map(|name| format!("a=rid:{name} send\r\n")).collect();
        let refused = with(&format!("{lines}a=simulcast:send {}\r\n", names.join(";"))).unwrap_err();
        assert_eq!(refused, OfferError::Layers(5));
        assert!(refused.to_string().contains("5 sizes") && !refused.is_malformed());
        assert_eq!(
            rids_of(&format!("{lines}a=simulcast:send {}\r\n", names[..LAYERS_MAX].join(";"))).len(),
            LAYERS_MAX
        );
    }
}
