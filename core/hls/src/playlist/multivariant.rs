//! The multivariant playlist: which renditions there are, and what a player must be able to do to play them.

use m3u8_rs::{AlternativeMedia, AlternativeMediaType, MasterPlaylist, Resolution, VariantStream};
use media::{CodecConfig, SessionId, TrackKind};

use crate::index::Bandwidth;
use crate::rendition::{RenditionHeader, RenditionName};

/// Name of the one group of audio renditions.
const AUDIO_GROUP: &str = "audio";

/// Renders the playlist. `bandwidths` are those of `renditions`, in the same order.
///
/// Each video rendition is a variant, with the first audio rendition beside it; without video, the audio is the
/// variant. EXT-X-INDEPENDENT-SEGMENTS is left to the media playlists: it would bind every rendition for good,
/// and a pass-through one cannot promise it.
pub(crate) fn render(
    session: SessionId,
    renditions: &[RenditionHeader],
    bandwidths: &[Bandwidth],
    frame_rate: Option<f64>,
) -> String {
    let of_kind = |kind| {
        let tracks = renditions.iter().zip(bandwidths.iter().copied());
        tracks.filter(move |(rendition, _)| rendition.codec.kind() == kind)
    };
    let uri = |name: &RenditionName| format!("{session}/{name}/index.m3u8");
    let audio = of_kind(TrackKind::Audio).next();
    let variant = |(rendition, bandwidth): (&RenditionHeader, Bandwidth)| VariantStream {
        uri: uri(&rendition.name),
        bandwidth: bandwidth.peak,
        average_bandwidth: Some(bandwidth.average),
        codecs: Some(rendition.codec.rfc6381()),
        ..VariantStream::default()
    };

    let mut variants: Vec<VariantStream> = of_kind(TrackKind::Video)
        .map(|video| {
            let mut variant = variant(video);
            variant.resolution = resolution(&video.0.codec);
            // Three decimals, rfc8216bis §4.4.6.2.
            variant.frame_rate = frame_rate.map(|rate| (rate * 1000.0).round() / 1000.0);
            if let Some((audio, bandwidth)) = audio {
                variant.bandwidth = variant.bandwidth.saturating_add(bandwidth.peak);
                variant.average_bandwidth =
                    variant.average_bandwidth.map(|video| video.saturating_add(bandwidth.average));
                variant.codecs = variant.codecs.map(|video| format!("{video},{}", audio.codec.rfc6381()));
                variant.audio = Some(AUDIO_GROUP.into());
            }
            variant
        })
        .collect();
    let mut alternatives = Vec::new();
    match audio {
        Some(audio) if variants.is_empty() => variants.push(variant(audio)),
        Some((audio, _)) => alternatives.push(AlternativeMedia {
            media_type: AlternativeMediaType::Audio,
            uri: Some(uri(&audio.name)),
            group_id: AUDIO_GROUP.into(),
            name: "Audio".into(),
            default: true,
            autoselect: true,
            channels: channels(&audio.codec),
            ..AlternativeMedia::default()
        }),
        None => {}
    }

    let playlist = MasterPlaylist { version: Some(6), variants, alternatives, ..MasterPlaylist::default() };
    let mut text = Vec::with_capacity(512);
    playlist.write_to(&mut text).expect("writing to memory cannot fail");
    String::from_utf8(text).expect("made of strings")
}

fn resolution(codec: &CodecConfig) -> Option<Resolution> {
    let (width, height) = crate::rendition::dimensions(codec)?;
    Some(Resolution { width: width.into(), height: height.into() })
}

fn channels(codec: &CodecConfig) -> Option<String> {
    match codec {
        CodecConfig::Aac(config) => Some(config.channels().to_string()),
        CodecConfig::H264(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use media::codec::{aac, h264};

    use super::*;

    /// x264, High profile, 1280x720; AAC-LC, 48 kHz, stereo.
    const AVCC: &[u8] =
        b"\x01\x64\x00\x1f\xff\xe1\x00\x18\x67\x64\x00\x1f\xac\xb2\x00\xa0\x0b\x76\x02\x20\x00\x00\x03\
        \x00\x20\x00\x00\x07\x81\xe3\x06\x49\x01\x00\x06\x68\xeb\xc3\xcb\x22\xc0\xfd\xf8\xf8\x00";
    const AUDIO_SPECIFIC_CONFIG: &[u8] = &[0x11, 0x90];

    fn video(name: &str) -> RenditionHeader {
        let codec = CodecConfig::H264(h264::Config::parse(Bytes::from_static(AVCC)).unwrap());
        RenditionHeader { name: name.parse().unwrap(), codec, part_target_ms: 501 }
    }

    fn audio() -> RenditionHeader {
        let codec = CodecConfig::Aac(aac::Config::parse(Bytes::from_static(AUDIO_SPECIFIC_CONFIG)).unwrap());
        RenditionHeader { name: "a".parse().unwrap(), codec, part_target_ms: 512 }
    }

    fn rendered(renditions: &[RenditionHeader], bandwidths: &[Bandwidth]) -> String {
        render(SessionId::from_random(0xAB), renditions, bandwidths, Some(30_000.0 / 1001.0))
    }

    const VIDEO: Bandwidth = Bandwidth { peak: 3_000_000, average: 2_500_000 };
    const AUDIO: Bandwidth = Bandwidth { peak: 200_000, average: 128_000 };

    #[test]
    fn golden_video_and_audio() {
        let expected = "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-MEDIA:TYPE=AUDIO,URI=\"00000000000000ab/a/index.m3u8\",GROUP-ID=\"audio\",NAME=\"Audio\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\"
#EXT-X-STREAM-INF:BANDWIDTH=3200000,AVERAGE-BANDWIDTH=2628000,CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=1280x720,FRAME-RATE=29.97,AUDIO=\"audio\"
00000000000000ab/v/index.m3u8
";
        assert_eq!(rendered(&[video("v"), audio()], &[VIDEO, AUDIO]), expected);
    }

    #[test]
    fn golden_video_only() {
        let expected = "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-STREAM-INF:BANDWIDTH=3000000,AVERAGE-BANDWIDTH=2500000,CODECS=\"avc1.64001f\",RESOLUTION=1280x720,FRAME-RATE=29.97
00000000000000ab/v/index.m3u8
";
        assert_eq!(rendered(&[video("v")], &[VIDEO]), expected);
    }

    #[test]
    fn golden_audio_only() {
        let expected = "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-STREAM-INF:BANDWIDTH=200000,AVERAGE-BANDWIDTH=128000,CODECS=\"mp4a.40.2\"
00000000000000ab/a/index.m3u8
";
        assert_eq!(rendered(&[audio()], &[AUDIO]), expected);
    }

    #[test]
    fn every_rung_is_a_variant_with_the_same_audio() {
        let text = rendered(&[video("v"), audio(), video("v480")], &[VIDEO, AUDIO, AUDIO]);
        let Ok((_, parsed)) = m3u8_rs::parse_master_playlist(text.as_bytes()) else { panic!("{text}") };
        let uris: Vec<_> = parsed.variants.iter().map(|variant| &variant.uri[17..]).collect();
        assert_eq!(uris, ["v/index.m3u8", "v480/index.m3u8"]);
        assert!(parsed.variants.iter().all(|variant| variant.audio.as_deref() == Some("audio")));
        assert_eq!(parsed.alternatives.len(), 1);
        assert!(!parsed.independent_segments);
    }
}
