//! The parsers that a WHIP publisher's bytes reach, each behind one function, for `fuzz/` and for the replay of what it found;
//! compiled for nothing else. Each says whether it understood the bytes, and panics where a promise is broken.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use media::codec::Access;
use media::{VideoCodec, VideoConfig};
use rtc::signalling::Fragment;

use super::media::{Media, Unit};
use super::offer::{LAYERS_MAX, Offer};
use super::reorder::{Flow, Packet};

/// An offer, which comes before the key is checked. What is passed on of it says the same once more, and nothing else.
pub fn offer(bytes: &[u8]) -> bool {
    let offer = match Offer::parse(bytes, true) {
        Ok(offer) => offer,
        Err(error) => {
            assert!(!error.to_string().contains(['\r', '\n']));
            return false;
        }
    };
    let reduced = offer.reduced();
    let again = Offer::parse(reduced.as_bytes(), true).expect("what is passed on is an offer");
    assert!(again.video == offer.video && again.audio == offer.audio && again.reduced() == reduced);
    let layers = offer.video.as_ref().map_or(0, |video| video.rids.len());
    let is_candidate = |line: &str| line.starts_with("a=candidate:");
    assert!(!reduced.lines().any(is_candidate) && layers <= LAYERS_MAX);
    let restarted = offer.restarted("fuzz", "0123456789012345678901");
    assert_eq!(restarted.ufrag(), "fuzz");
    let answer = offer.complete(&reduced, &["1 1 udp 1 192.0.2.7 8189 typ host".to_owned()]);
    assert_eq!(answer.lines().filter(|line| *line == "a=end-of-candidates").count(), 1);
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

/// RTP packets of sound and, if the first byte says so, two layers of a picture in H.264: kind, marker and layer, sequence number, timestamp,
/// milliseconds since the one before, length, payload. Pictures are decodable from the first on, and every sample is whole.
pub fn rtp(bytes: &[u8]) -> bool {
    rtp_of(VideoCodec::H264, bytes)
}

/// The same of HEVC.
pub fn rtp_h265(bytes: &[u8]) -> bool {
    rtp_of(VideoCodec::H265, bytes)
}

/// The same of AV1.
pub fn rtp_av1(bytes: &[u8]) -> bool {
    rtp_of(VideoCodec::Av1, bytes)
}

/// The same of VP8.
pub fn rtp_vp8(bytes: &[u8]) -> bool {
    rtp_of(VideoCodec::Vp8, bytes)
}

/// The same of VP9.
pub fn rtp_vp9(bytes: &[u8]) -> bool {
    rtp_of(VideoCodec::Vp9, bytes)
}

fn rtp_of(codec: VideoCodec, mut bytes: &[u8]) -> bool {
    let mut now = Instant::now();
    let count = bytes.first().map_or(0, |flags| usize::from(flags >> 6 & 1) * LAYERS);
    let (mut media, mut units) = (Media::new(Some(codec), count, now), Vec::new());
    let (mut config, mut layers, mut pictures) = (None, [const { None }; LAYERS], 0);
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
                Unit::Video(_, unit) => {
                    assert!(access(config.as_ref(), &unit.data) != Access::None || pictures > 0);
                    pictures += 1;
                }
                Unit::LayerConfig(layer, next) => layers[layer] = Some(next),
                Unit::Layer(layer, _, sample) => _ = access(layers[layer].as_ref(), &sample),
                Unit::Audio(_, packet) => assert!(!packet.is_empty()),
            }
        }
    }
    pictures > 0
}

fn access(config: Option<&VideoConfig>, sample: &[u8]) -> Access {
    let config = config.expect("a configuration comes before pictures");
    config.access(sample).expect("a sample is whole")
}

#[cfg(test)]
use crate::fuzzing::corpus;

#[cfg(test)]
#[test]
fn what_fuzzing_found_stays_mended() {
    corpus::replay("whip_offer", offer);
    corpus::replay("whip_fragment", fragment);
    corpus::replay("whip_rtp", rtp);
    corpus::replay("whip_rtp_h265", rtp_h265);
    corpus::replay("whip_rtp_av1", rtp_av1);
    corpus::replay("whip_rtp_vp8", rtp_vp8);
    corpus::replay("whip_rtp_vp9", rtp_vp9);
}
