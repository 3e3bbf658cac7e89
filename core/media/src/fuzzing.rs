//! The parsers that strangers' bytes reach, each behind one function, for `fuzz/` and for the replay of what it found;
//! compiled for nothing else. Each says whether it understood the bytes, and panics where a promise is broken.

use bytes::Bytes;

use crate::cmaf::init_segment;
use crate::codec::{VideoCodec, opus};
use crate::flv::{Audio, AudioCodec, Tracks, Video};
use crate::{AudioConfig, CodecConfig, VideoConfig};

pub fn avcc(bytes: &[u8]) -> bool {
    video_config(VideoCodec::H264, bytes).is_some()
}

pub fn hvcc(bytes: &[u8]) -> bool {
    video_config(VideoCodec::H265, bytes).is_some()
}

pub fn av1c(bytes: &[u8]) -> bool {
    video_config(VideoCodec::Av1, bytes).is_some()
}

/// A sequence parameter set, in an `avcC` that is right otherwise.
pub fn h264_sps(nal: &[u8]) -> bool {
    let header = [1, 0x42, 0xC0, 0x1E, 0xFF, 0xE1];
    avcc(&[&header, prefixed(nal).as_slice(), &[1, 0, 1, 0x68]].concat())
}

/// A sequence parameter set, in an `hvcC` that is right otherwise.
pub fn hevc_sps(nal: &[u8]) -> bool {
    let mut header = [0; 23];
    (header[0], header[21], header[22]) = (1, 0x03, 3);
    let (vps, pps) = ([0x20, 0, 1, 0, 2, 0x40, 1], [0x22, 0, 1, 0, 2, 0x44, 1]);
    hvcc(&[&header, vps.as_slice(), &[0x21, 0, 1], &prefixed(nal), &pps].concat())
}

/// The payload of a sequence header OBU, in an `av1C` that is right otherwise. Its length takes two bytes of LEB128.
pub fn av1_sequence(payload: &[u8]) -> bool {
    let payload = &payload[..payload.len().min(0x3FFF)];
    let length = [payload.len() as u8 | 0x80, (payload.len() >> 7) as u8];
    av1c(&[&[0x81, 0, 0, 0, 0x0A], length.as_slice(), payload].concat())
}

pub fn aac_config(bytes: &[u8]) -> bool {
    audio_config(AudioCodec::Aac, bytes).is_some()
}

pub fn opus_head(bytes: &[u8]) -> bool {
    audio_config(AudioCodec::Opus, bytes).is_some()
}

pub fn opus_packet(bytes: &[u8]) -> bool {
    let samples = opus::samples(bytes);
    assert!(samples.is_none_or(|samples| (1..=opus::SAMPLES_MAX).contains(&samples)));
    samples.is_some()
}

/// Bodies of FLV video tags, each behind its length in two bytes: a publisher's configurations, and units that are read
/// as the last of them says.
pub fn flv_video(bytes: &[u8]) -> bool {
    let (mut tracks, mut config, mut understood) = (Tracks::default(), None, false);
    for body in bodies(bytes) {
        match Video::parse(body, &mut tracks) {
            Ok(Video::SequenceHeader { codec, record }) => config = video_config(codec, &record).or(config),
            Ok(Video::Unit { data, .. }) => {
                let Some(config) = &config else { continue };
                understood |= config.access(&data).is_some();
                assert!(config.sample(data.clone()).len() <= data.len());
            }
            Ok(Video::EndOfSequence | Video::Info) => {}
            Err(error) => _ = error.to_string(),
        }
    }
    told(&tracks);
    understood
}

/// Bodies of FLV audio tags, as [`flv_video`].
pub fn flv_audio(bytes: &[u8]) -> bool {
    let (mut tracks, mut config, mut understood) = (Tracks::default(), None, false);
    for body in bodies(bytes) {
        match Audio::parse(body, &mut tracks) {
            Ok(Audio::SequenceHeader { codec, record }) => config = audio_config(codec, &record).or(config),
            Ok(Audio::Frame { data, .. }) => {
                let samples = config.as_ref().and_then(|config: &AudioConfig| config.samples(&data));
                understood |= samples.is_some();
            }
            Ok(Audio::Silence) => {}
            Err(error) => _ = error.to_string(),
        }
    }
    told(&tracks);
    understood
}

/// Parses a record, and makes of it everything that is made of one.
fn video_config(codec: VideoCodec, record: &[u8]) -> Option<VideoConfig> {
    let config = VideoConfig::parse(codec, Bytes::copy_from_slice(record)).map_err(|error| error.to_string());
    let config = config.ok()?;
    assert!(config.frame_rate().is_none_or(|rate| (1.0..=300.0).contains(&rate)));
    assert!((8..=16).contains(&config.bit_depth()));
    config.chroma();
    use_up(&config.clone().into());
    Some(config)
}

fn audio_config(codec: AudioCodec, record: &[u8]) -> Option<AudioConfig> {
    let config = AudioConfig::parse(codec, Bytes::copy_from_slice(record)).map_err(|error| error.to_string());
    let config = config.ok()?;
    assert!((1..=8).contains(&config.channels()));
    use_up(&config.clone().into());
    Some(config)
}

fn use_up(config: &CodecConfig) {
    let (sample_entry, record) = config.record();
    let kept = CodecConfig::from_record(sample_entry, record.clone());
    assert_eq!(kept.as_ref(), Ok(config), "a record that is kept is read again as it was");
    assert!(config.rfc6381().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'));
    assert!(config.dimensions().is_none_or(|(width, height)| width > 0 && height > 0));
    assert!(init_segment(config).bytes.len() > record.len());
}

/// At most one for each track id, and words that a log can hold.
fn told(tracks: &Tracks) {
    assert!(tracks.passed_over().len() <= 255);
    assert!(tracks.passed_over().iter().all(|track| track.to_string().is_ascii()));
}

fn prefixed(nal: &[u8]) -> Vec<u8> {
    let nal = &nal[..nal.len().min(usize::from(u16::MAX))];
    [&(nal.len() as u16).to_be_bytes(), nal].concat()
}

/// What stands behind lengths of two bytes; the last may be cut off.
fn bodies(mut bytes: &[u8]) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let (&length, rest) = bytes.split_first_chunk()?;
        let body;
        (body, bytes) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes(length))));
        Some(Bytes::copy_from_slice(body))
    })
}

#[cfg(test)]
#[path = "../../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
#[test]
fn what_fuzzing_found_stays_mended() {
    corpus::replay("avcc", avcc);
    corpus::replay("hvcc", hvcc);
    corpus::replay("av1c", av1c);
    corpus::replay("h264_sps", h264_sps);
    corpus::replay("hevc_sps", hevc_sps);
    corpus::replay("av1_sequence", av1_sequence);
    corpus::replay("aac_config", aac_config);
    corpus::replay("opus_head", opus_head);
    corpus::replay("opus_packet", opus_packet);
    corpus::replay("flv_video", flv_video);
    corpus::replay("flv_audio", flv_audio);
}
