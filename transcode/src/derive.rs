//! A ladder as tracks of the stream record: what ingest writes when a log opens, and what a worker finds there.

use media::codec::{aac, h264};
use media::{CodecConfig, StreamId, TrackId, TrackKind};
use pipe::AudioTarget;
use relay::{Bandwidth, Derived, TrackRecord};

use crate::ladder::{self, Audio, AudioRendition, CostModel, Source, Video, VideoRung};
use crate::ladders::Ladders;

/// Encoders may give one second's bits ahead of time (`vbv-buf-capacity`), which a segment of two seconds may have on
/// top of its own.
const PEAK: f64 = 1.5;

/// In samples.
const AAC_FRAME: u32 = 1_024;
/// The same: 20 ms.
const OPUS_FRAME: u32 = 960;

/// AAC-LC at 48 kHz (ISO/IEC 14496-3, §1.6.2.1): object type 2, frequency index 3, and the number of channels.
fn aac_config(channels: u8) -> Option<CodecConfig> {
    let record = vec![0x11, 0x80 | channels << 3];
    aac::Config::parse(record.into()).ok().map(CodecConfig::Aac)
}

/// Of that many channels, from 48 kHz (RFC 7845, §5.1); what the encoder delays it says itself.
fn opus_config(channels: u8) -> Option<CodecConfig> {
    let mut head = b"OpusHead\x01".to_vec();
    head.extend([channels, 0, 0, 0x80, 0xBB, 0, 0, 0, 0, 0]);
    CodecConfig::from_record(b"Opus", head.into()).ok()
}

/// The tracks that are made of a publisher's own `tracks`, as far as `free` cores make them.
pub fn derive(
    ladders: &Ladders,
    free: f64,
    id: &StreamId,
    tracks: &[TrackRecord],
    frame_rate: Option<f64>,
) -> Vec<TrackRecord> {
    let of_kind = |kind| tracks.iter().find(|track| track.codec.kind() == kind);
    let (video, audio) = (of_kind(TrackKind::Video), of_kind(TrackKind::Audio));
    let measured = frame_rate.map(ladder::fraction);
    let source = Source {
        video: video.and_then(|track| Video::of(&track.codec, measured, track.reorder_delay > 0)),
        audio: audio.and_then(|track| Audio::of(&track.codec)),
    };
    let wanted = ladders.of(id);
    let plan = ladder::plan(&source, &wanted.config).admit(&source, free, &CostModel::MEASURED);
    let rate = frame_rate.unwrap_or(30.0);
    let rungs = plan.video.iter().filter_map(|rung| video_track(rung, video?, rate, wanted.on_demand));
    let sounds = plan.audio.iter().filter_map(|sound| audio_track(sound, audio?));
    let ids = (0..).map(TrackId).skip(tracks.len());
    rungs.chain(sounds).zip(ids).map(|(track, id)| TrackRecord { id, ..track }).collect()
}

fn video_track(
    rung: &VideoRung,
    from: &TrackRecord,
    frame_rate: f64,
    on_demand: bool,
) -> Option<TrackRecord> {
    let peak = (f64::from(rung.bitrate) * PEAK) as u32;
    let rate = frame_rate / f64::from(rung.every);
    let codec =
        h264::Config::nominal(rung.width.into(), rung.height.into(), rate, rung.bitrate.into()).ok()?;
    Some(TrackRecord {
        // As in `v720`: a name in URLs has no dot and no capital.
        name: format!("v{}", rung.name.trim_end_matches('p')).into(),
        codec: CodecConfig::H264(codec),
        derived: Some(Derived {
            from: from.id,
            every: rung.every,
            bandwidth: Bandwidth { peak, average: rung.bitrate },
            on_demand,
            for_webrtc: false,
            layer: false,
        }),
        reorder_delay: 0,
        ..from.clone()
    })
}

fn audio_track(sound: &AudioRendition, from: &TrackRecord) -> Option<TrackRecord> {
    let (codec, frame) = match sound.target {
        AudioTarget::Aac => (aac_config(sound.channels)?, AAC_FRAME),
        AudioTarget::Opus => (opus_config(sound.channels)?, OPUS_FRAME),
    };
    let for_webrtc = sound.target == AudioTarget::Opus;
    // In whole frames; that the source's are others makes no part longer than this.
    let frames = (from.part_target_ms * sound.rate / 1_000).div_ceil(frame);
    Some(TrackRecord {
        name: sound.name.into(),
        codec,
        part_target_ms: (frames * frame * 1_000).div_ceil(sound.rate),
        derived: Some(Derived {
            from: from.id,
            every: 1,
            bandwidth: Bandwidth { peak: sound.bitrate * 11 / 10, average: sound.bitrate },
            // What is in playlists costs next to nothing, and all rungs of the picture are heard with it.
            on_demand: for_webrtc,
            for_webrtc,
            layer: false,
        }),
        ..from.clone()
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn tracks(codec: CodecConfig) -> Vec<TrackRecord> {
        vec![TrackRecord {
            id: TrackId(0),
            name: "v".into(),
            codec,
            part_target_ms: 501,
            reorder_delay: 0,
            derived: None,
        }]
    }

    fn summary(tracks: &[TrackRecord]) -> Vec<(u16, &str, String, u32)> {
        tracks
            .iter()
            .map(|track| (track.id.0, &*track.name, track.codec.rfc6381(), track.part_target_ms))
            .collect()
    }

    #[test]
    fn rungs_are_numbered_after_the_publishers_tracks_and_say_what_they_will_be() {
        let id = StreamId::new("live", "cam").unwrap();
        let (ladders, free) = (Ladders::default(), 6.4);
        let own = tracks(CodecConfig::H264(h264::Config::nominal(1280, 720, 30.0, 3_000_000).unwrap()));
        let derived = derive(&ladders, free, &id, &own, Some(30.0));
        assert_eq!(
            summary(&derived),
            [
                (1, "v480", "avc1.64001f".into(), 501),
                (2, "v360", "avc1.64001e".into(), 501),
                (3, "v240", "avc1.640015".into(), 501),
            ]
        );
        let of = derived[0].derived.unwrap();
        assert_eq!((of.from, of.bandwidth.peak, of.bandwidth.average), (TrackId(0), 1_800_000, 1_200_000));
        assert!(derive(&"off".parse().unwrap(), free, &id, &own, Some(30.0)).is_empty());
        assert!(derive(&ladders, 0.0, &id, &own, Some(30.0)).is_empty(), "no room");
    }

    #[test]
    fn a_ladder_on_demand_concerns_pictures_and_no_sound_of_playlists() {
        let id = StreamId::new("live", "cam").unwrap();
        let surround = aac::Config::parse(Bytes::from_static(&[0x11, 0xB0])).unwrap();
        let mut own = tracks(CodecConfig::H264(h264::Config::nominal(1280, 720, 30.0, 3_000_000).unwrap()));
        // B-frames: a rung of the source's own size is made too.
        own[0].reorder_delay = 3_000;
        own.push(TrackRecord {
            id: TrackId(1),
            name: "a".into(),
            ..tracks(CodecConfig::Aac(surround))[0].clone()
        });
        for (ladder, on_demand) in [("on-demand 360:700k", true), ("360:700k", false)] {
            let derived = derive(&ladder.parse().unwrap(), 6.4, &id, &own, Some(30.0));
            let made: Vec<_> =
                derived.iter().map(|track| (&*track.name, track.derived.unwrap().on_demand)).collect();
            assert_eq!(made, [("v720", on_demand), ("v360", on_demand), ("aac", false), ("opus", true)]);
        }
    }

    #[test]
    fn sound_that_not_everybody_plays_gets_a_stereo_aac_and_an_opus_for_webrtc() {
        // AAC-LC, 48 kHz, 5.1.
        let surround = aac::Config::parse(Bytes::from_static(&[0x11, 0xB0])).unwrap();
        let mut own = tracks(CodecConfig::Aac(surround));
        own[0].name = "a".into();
        own[0].part_target_ms = 512;
        let id = StreamId::new("live", "cam").unwrap();
        let derived = derive(&Ladders::default(), 6.4, &id, &own, None);
        let expected = [(1, "aac", "mp4a.40.2".into(), 512), (2, "opus", "opus".into(), 520)];
        assert_eq!(summary(&derived), expected);
        for (track, for_webrtc) in derived.iter().zip([false, true]) {
            let made = track.derived.unwrap();
            assert_eq!(track.codec.channels(), Some(2));
            assert_eq!((made.for_webrtc, made.on_demand), (for_webrtc, for_webrtc));
        }
    }
}
