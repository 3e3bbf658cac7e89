//! HEVC, AV1 and Opus, and several tracks, as Enhanced RTMP brings them.

use super::*;

/// `OpusHead` of libopus, stereo.
const OPUS_HEAD: &[u8] = b"OpusHead\x01\x02\x38\x01\x80\xBB\x00\x00\x00\x00\x00";

/// Main profile, 1280x720, from x265.
const HVCC: &str = "0101600000009000000000005df000fcfdf8f800000f03a00001001840010c01ffff01600000030090000003000003005d95940\
                    9a10001002b42010101600000030090000003000003005da00280802d16595952930bc05a020000030002000003003c10a2000\
                    100064401c073c189";

/// Kinds of slices (H.265, table 7-1).
const TRAIL: u8 = 1;
const IDR: u8 = 19;
const CRA: u8 = 21;

fn hvcc() -> Vec<u8> {
    let digits = (0..HVCC.len()).step_by(2).map(|at| u8::from_str_radix(&HVCC[at..at + 2], 16));
    digits.collect::<Result<_, _>>().unwrap()
}

impl Encoder {
    fn audio(&mut self, millis: i64, body: &[u8]) -> Result<(), PublishError> {
        let since = Duration::from_millis(millis as u64);
        let (now, wall) = (self.started + since, self.wall + since);
        self.publication.audio(millis as u32, Bytes::copy_from_slice(body), now, wall)
    }

    /// Opus packets of 20 ms until `seconds` after the start.
    fn opus_until(&mut self, seconds: f64) -> Result<(), PublishError> {
        while self.sound as f64 * 0.02 < seconds {
            let millis = self.sound * 20;
            self.sound += 1;
            self.audio(millis, b"\x91Opus\xFC\x01\x02")?;
        }
        Ok(())
    }

    /// HEVC at 25 fps with `key` slices every two seconds, until `seconds` after the start.
    fn hevc_until(&mut self, key: u8, seconds: f64) -> Result<(), PublishError> {
        while self.picture as f64 * 0.04 < seconds {
            let slice = if self.picture % 50 == 0 { key } else { TRAIL };
            let unit = [b"\xA3hvc1".as_slice(), &[0, 0, 0, 3, slice << 1, 1, 0x80]].concat();
            self.video(self.picture * 40, unit)?;
            self.picture += 1;
        }
        Ok(())
    }
}

fn publishing(server: &Server) -> Encoder {
    Encoder::new(server, server.publish("right").unwrap())
}

fn warnings(server: &Server) -> Vec<String> {
    server.registry.get(&server.id).unwrap().facts().warnings.clone()
}

/// 25 packets of 20 ms are half a second to the sample.
#[test]
fn opus_packets_of_20_ms_fill_parts_exactly() {
    let server = Server::new();
    let mut encoder = publishing(&server);
    encoder.audio(0, &[b"\x90Opus", OPUS_HEAD].concat()).unwrap();
    encoder.opus_until(9.0).unwrap();
    let record = server.record().unwrap();
    assert!(matches!(record.tracks[0].codec, CodecConfig::Opus(_)));
    assert_eq!(record.tracks[0].part_target_ms, 500);
    let starts: Vec<_> = boundaries(&frames(&server, 0)).iter().map(|boundary| boundary.start).collect();
    assert!(starts.len() > 10 && starts.windows(2).all(|pair| pair[1] - pair[0] == 24_000), "{starts:?}");
}

/// A packet says how long it is; nobody else does.
#[test]
fn an_opus_packet_lasts_as_long_as_it_says() {
    let server = Server::new();
    let mut encoder = publishing(&server);
    encoder.audio(0, &[b"\x90Opus", OPUS_HEAD].concat()).unwrap();
    encoder.opus_until(4.0).unwrap();
    // Three frames of 20 ms in one, then one of 2.5 ms, then no packet at all.
    encoder.audio(4_000, b"\x91Opus\xFF\x03\x01").unwrap();
    encoder.audio(4_060, b"\x91Opus\xE4\x01").unwrap();
    encoder.audio(4_063, b"\x91Opus\xFF").unwrap();
    encoder.sound = 204;
    encoder.opus_until(8.0).unwrap();
    let units = frames(&server, 0).into_iter().filter_map(|frame| frame.to_unit().ok());
    let durations: Vec<_> =
        units.skip_while(|unit| unit.dts < 4 * 48_000).map(|unit| unit.duration).collect();
    assert_eq!(durations[..4], [2_880, 120, 960, 960]);
}

#[test]
fn a_checkpoint_knows_how_long_opus_packets_are() {
    let server = Server::new();
    let mut encoder = publishing(&server);
    encoder.video(0, [b"\x90hvc1".as_slice(), &hvcc()].concat()).unwrap();
    encoder.audio(0, &[b"\x90Opus", OPUS_HEAD].concat()).unwrap();
    for tenth in 1..70 {
        encoder.hevc_until(IDR, f64::from(tenth) / 10.0).unwrap();
        encoder.opus_until(f64::from(tenth) / 10.0).unwrap();
    }
    let kept = server.disk.0.lock().unwrap().clone().unwrap();
    let checkpoint = Checkpoint::from_json(&kept).unwrap();
    assert_eq!(checkpoint.grid.follower.unwrap().frame, 960);
    assert_eq!(checkpoint.record.tracks, server.record().unwrap().tracks);
}

#[test]
fn hevc_is_cut_at_its_idr() {
    let server = Server::new();
    let mut encoder = publishing(&server);
    encoder.video(0, [b"\x90hvc1".as_slice(), &hvcc()].concat()).unwrap();
    encoder.hevc_until(IDR, 9.0).unwrap();
    let segments: Vec<_> =
        boundaries(&frames(&server, 0)).into_iter().filter(|boundary| boundary.part == 0).collect();
    assert!(segments.iter().all(|segment| segment.independent && segment.start % 180_000 == 0));
    assert_eq!(segments.len(), 5);
    assert!(warnings(&server).is_empty());
}

/// A CRA leans on the GOP before it, but for the very first: no viewer may be sent there, and the broadcaster is told.
#[test]
fn an_open_gop_begins_a_stream_but_no_segment() {
    let server = Server::new();
    let mut encoder = publishing(&server);
    encoder.video(0, [b"\x90hvc1".as_slice(), &hvcc()].concat()).unwrap();
    encoder.hevc_until(CRA, 9.0).unwrap();
    let keys = frames(&server, 0).iter().filter(|frame| frame.is_key_unit()).count();
    assert_eq!(keys, 1);
    let warnings = warnings(&server);
    assert!(warnings.iter().any(|warning| warning.contains("closed GOPs")), "{warnings:?}");
}

/// Players choose their decoder by CODECS, once.
#[test]
fn another_codec_needs_a_new_start() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(3.0).unwrap();
    let error = encoder.video(3_000, [b"\x90hvc1".as_slice(), &hvcc()].concat()).unwrap_err();
    assert_eq!(error.to_string(), "the video codec changed; stop and start the stream");
}

#[test]
fn a_publisher_with_another_codec_does_not_go_on_with_the_session() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(6.0).unwrap();
    let before = server.session().unwrap();
    drop(encoder);
    server.tick(6.0..10.0);
    let mut encoder = Encoder::new_at(&server, server.publish_at("right", 10.0).unwrap(), 10.0);
    encoder.video(0, [b"\x90hvc1".as_slice(), &hvcc()].concat()).unwrap();
    encoder.audio_header().unwrap();
    for tenth in 1..50 {
        encoder.hevc_until(IDR, f64::from(tenth) / 10.0).unwrap();
        encoder.sound().unwrap();
    }
    assert_ne!(server.session().unwrap(), before);
}

#[test]
fn tracks_that_are_left_out_are_named_once_and_stay_named() {
    let server = Server::new();
    let mut encoder = started(&server);
    for second in 1..6 {
        encoder.video(0, b"\xA6\x01hvc1\x01\0\0\0\x01".to_vec()).unwrap();
        encoder.audio(0, b"\x95\x01Opus\x02\xFC\x01").unwrap();
        encoder.run_until(f64::from(second)).unwrap();
    }
    let told = "Only the first video and the first audio track are shown. \
                Left out: video track 1 (HEVC), audio track 2 (Opus).";
    assert_eq!(warnings(&server), [told]);
}
