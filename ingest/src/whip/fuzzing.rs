//! The parsers that a WHIP publisher's bytes reach, each behind one function, for `fuzz/` and for the replay of what it found;
//! compiled for nothing else. Each says whether it understood the bytes, and panics where a promise is broken.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use media::codec::h264;

use rtc::signalling::Fragment;

use super::media::{Media, Unit};
use super::offer::{LAYERS_MAX, Offer};
use super::reorder::{Flow, Packet};

/// An offer, which comes before the key is checked. What is passed on of it says the same once more, and nothing else.
pub fn offer(bytes: &[u8]) -> bool {
    let offer = match Offer::parse(bytes) {
        Ok(offer) => offer,
        Err(error) => {
            assert!(!error.to_string().contains(['\r', '\n']));
            return false;
        }
    };
    let reduced = offer.reduced();
    let again = Offer::parse(reduced.as_bytes()).expect("what is passed on is an offer");
    assert!(again.video == offer.video && again.audio == offer.audio && again.reduced() == reduced);
    let layers = offer.video.as_ref().map_or(0, |video| video.rids.len());
    assert!(!reduced.contains("a=candidate:") && layers <= LAYERS_MAX);
    let restarted = offer.restarted("fuzz", "0123456789012345678901");
    assert_eq!(restarted.ufrag(), "fuzz");
    let answer = offer.complete(&reduced, &["1 1 udp 1 192.0.2.7 8189 typ host".to_owned()]);
    assert_eq!(answer.matches("a=end-of-candidates\r\n").count(), 1);
    true
}

/// What a PATCH brings.
pub fn fragment(bytes: &[u8]) -> bool {
    match Fragment::parse(bytes) {
        Ok(fragment) => {
            let text = fragment.answer("m=audio 9 RTP/AVP 0\r\na=mid:0\r\n", &[]);
            assert_eq!(Fragment::parse(text.as_bytes()), Ok(fragment));
            true
        }
        Err(error) => {
            error.to_string();
            false
        }
    }
}

/// Of the picture.
const LAYERS: usize = 2;

/// RTP packets of sound and, if the first byte says so, two layers of a picture: kind, marker and layer, sequence number, timestamp, milliseconds since the one before, length,
/// payload. Pictures are decodable from the first on, and every sample is NAL units behind their lengths.
pub fn rtp(mut bytes: &[u8]) -> bool {
    let mut now = Instant::now();
    let count = bytes.first().map_or(0, |flags| usize::from(flags >> 6 & 1) * LAYERS);
    let (mut media, mut units, mut config) = (Media::new(count, now), Vec::new(), None::<h264::Config>);
    let (mut layers, mut pictures) = ([const { None::<h264::Config> }; LAYERS], 0);
    while bytes.len() >= 9 {
        let (flags, sequence, timestamp) = (bytes.get_u8(), bytes.get_u16(), bytes.get_u32());
        now += Duration::from_millis(bytes.get_u8().into());
        let length = usize::from(bytes.get_u8()).min(bytes.len());
        let payload = Bytes::copy_from_slice(&bytes[..length]);
        bytes.advance(length);
        let flow = if flags & 1 == 0 { Flow::Video(usize::from(flags >> 3 & 1)) } else { Flow::Audio };
        media.packet(flow, Packet { sequence, timestamp, marker: flags & 2 != 0, payload, arrived: now });
        if flags & 4 != 0 {
            media.report(flow, u64::from(timestamp) << 32, timestamp);
        }
        media.poll(now, &mut units);
        media.keyframe_due(now);
        for unit in units.drain(..) {
            match unit {
                Unit::VideoConfig(next) => config = Some(next),
                Unit::Video(_, sample) => {
                    let config = config.as_ref().expect("a configuration comes before pictures");
                    let key = config.is_idr(&sample).expect("a sample is whole");
                    assert!(key || pictures > 0, "the first picture is a keyframe");
                    pictures += 1;
                }
                Unit::LayerConfig(layer, next) => layers[layer] = Some(next),
                Unit::Layer(layer, _, sample) => {
                    let config = layers[layer].as_ref().expect("a configuration comes before pictures");
                    config.is_idr(&sample).expect("a sample is whole");
                }
                Unit::Audio(_, packet) => assert!(!packet.is_empty()),
            }
        }
    }
    pictures > 0
}

#[cfg(test)]
use crate::fuzzing::corpus;

#[cfg(test)]
#[test]
fn what_fuzzing_found_stays_mended() {
    corpus::replay("whip_offer", offer);
    corpus::replay("whip_fragment", fragment);
    corpus::replay("whip_rtp", rtp);
}
