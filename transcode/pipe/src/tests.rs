use std::io::Cursor;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use crate::fuzzing;
use crate::message::{KIND_JOB, KIND_RUNG_UNIT, KIND_SOURCE_UNIT};
use crate::*;

fn written<M: Message>(message: &M) -> BytesMut {
    let mut bytes = message.encode().expect("a sound message");
    let length = bytes.remaining();
    BytesMut::from(bytes.copy_to_bytes(length))
}

fn video_job() -> VideoJob {
    VideoJob {
        source: Codec { sample_entry: *b"avc1", record: Bytes::from_static(&[1, 2, 3]) },
        timescale: 90_000,
        frame_rate: FrameRate { numerator: 30_000, denominator: 1_001 },
        encoders: vec!["x264enc".to_owned()],
        rungs: vec![Rung {
            number: 7,
            width: 854,
            height: 480,
            kbit_s: 1_200,
            preset: Preset::Superfast,
            every: 1,
        }],
    }
}

fn codec() -> impl Strategy<Value = Codec> {
    let record = vec(any::<u8>(), 0..64);
    (any::<[u8; 4]>(), record)
        .prop_map(|(sample_entry, record)| Codec { sample_entry, record: record.into() })
}

fn job() -> impl Strategy<Value = Job> {
    let preset = prop::sample::select(Preset::ALL.to_vec());
    let rung = (8u16..=2048, 8u16..=2048, 16u32..=100_000, preset, 1..=EVERY_MAX);
    let rungs = btree_set(any::<u16>(), 1..=RUNGS_MAX)
        .prop_flat_map(move |numbers| (Just(numbers.clone()), vec(rung.clone(), numbers.len())))
        .prop_map(|(numbers, rungs)| {
            let rungs = numbers.into_iter().zip(rungs);
            rungs
                .map(|(number, (width, height, kbit_s, preset, every))| Rung {
                    number,
                    width: 2 * width,
                    height: 2 * height,
                    kbit_s,
                    preset,
                    every,
                })
                .collect()
        });
    let encoders = vec("[a-z0-9]{0,64}", 0..=ENCODERS_MAX);
    let video = (codec(), 1u32..=90_000, 1u32..=90_000, encoders, rungs).prop_map(
        |(source, timescale, numerator, encoders, rungs)| {
            let frame_rate = FrameRate { numerator, denominator: 1_001 };
            Job::Video(VideoJob { source, timescale, frame_rate, encoders, rungs })
        },
    );
    let audio = (codec(), 1u32..=96_000, any::<bool>(), 8_000u32..=96_000, 1u8..=2, 8u32..=512).prop_map(
        |(source, timescale, opus, rate, channels, kbit_s)| {
            let (target, rate) = if opus { (AudioTarget::Opus, 48_000) } else { (AudioTarget::Aac, rate) };
            Job::Audio(AudioJob { source, timescale, target, rate, channels, kbit_s })
        },
    );
    prop_oneof![video, audio]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..256).prop_map(Bytes::from)
}

fn to_encoder() -> impl Strategy<Value = ToEncoder> {
    let unit = (any::<i64>(), any::<i64>(), any::<u32>(), any::<bool>(), any::<bool>(), bytes()).prop_map(
        |(pts, dts, duration, key, force, data)| {
            ToEncoder::Unit(SourceUnit { pts, dts, duration, key, force, data })
        },
    );
    prop_oneof![
        job().prop_map(ToEncoder::Job),
        unit,
        codec().prop_map(ToEncoder::Config),
        Just(ToEncoder::End)
    ]
}

fn from_encoder() -> impl Strategy<Value = FromEncoder> {
    let unit = (any::<u16>(), any::<i64>(), any::<u32>(), any::<bool>(), bytes()).prop_map(
        |(rung, pts, duration, key, data)| FromEncoder::Unit(RungUnit { rung, pts, duration, key, data }),
    );
    let progress = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(units_in, units_out, lag, micros)| {
            FromEncoder::Progress(Progress { units_in, units_out, lag, cpu: Duration::from_micros(micros) })
        },
    );
    let fault = (prop::sample::select(FaultClass::ALL.to_vec()), ".{0,80}")
        .prop_map(|(class, text)| FromEncoder::Fault(Fault { class, text }));
    prop_oneof![
        "[a-z0-9]{0,64}".prop_map(|encoder| FromEncoder::Ready { encoder }),
        (any::<u16>(), codec()).prop_map(|(rung, codec)| FromEncoder::RungConfig { rung, codec }),
        unit,
        progress,
        fault,
        prop::sample::select(Machine::ALL.to_vec()).prop_map(FromEncoder::Machine),
    ]
}

proptest! {
    #[test]
    fn the_worker_is_understood(message in to_encoder()) {
        let mut received = written(&message);
        let mut reader = Cursor::new(received.clone());
        prop_assert_eq!(decode(&mut received), Ok(Some(message.clone())));
        prop_assert!(received.is_empty());
        prop_assert_eq!(read_message(&mut reader).unwrap(), Some(message));
        prop_assert_eq!(read_message::<ToEncoder>(&mut reader).unwrap(), None);
    }

    #[test]
    fn the_child_is_understood(message in from_encoder()) {
        let mut through_a_descriptor = Vec::new();
        write_message(&mut through_a_descriptor, &message).unwrap();
        prop_assert_eq!(decode(&mut BytesMut::from(through_a_descriptor.as_slice())), Ok(Some(message)));
    }

    #[test]
    fn any_bytes_never_panic(bytes in vec(any::<u8>(), 0..256)) {
        fuzzing::messages(&bytes);
    }

    /// Bytes that come through the first checks more often than any.
    #[test]
    fn damaged_messages_never_panic(
        to in vec(to_encoder(), 1..4), from in vec(from_encoder(), 1..4), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut streams = [vec![6], vec![7]];
        to.iter().for_each(|message| streams[0].extend(written(message)));
        from.iter().for_each(|message| streams[1].extend(written(message)));
        for mut stream in streams {
            let at = 1 + at.index(stream.len() - 1);
            stream[at] = byte;
            fuzzing::messages(&stream);
        }
    }
}

/// What a hostile length could make us wait for, or allocate, is known from the header alone.
#[test]
fn a_length_above_the_limit_is_refused_before_its_bytes_come() {
    let header = |length: usize, kind: u8| {
        let mut header = BytesMut::new();
        header.put_u32_le(length as u32);
        header.put_u8(kind);
        header.resize(HEADER_BYTES, 0);
        header
    };
    let longest = HEADER_BYTES + UNIT_BYTES_MAX;
    assert_eq!(decode::<ToEncoder>(&mut header(longest, KIND_SOURCE_UNIT)), Ok(None));
    assert!(matches!(
        decode::<ToEncoder>(&mut header(longest + 1, KIND_SOURCE_UNIT)),
        Err(PipeError::TooLong { max: UNIT_BYTES_MAX, .. })
    ));
    assert!(matches!(
        decode::<ToEncoder>(&mut header(HEADER_BYTES + FIELDS_BYTES_MAX + 1, KIND_JOB)),
        Err(PipeError::TooLong { max: FIELDS_BYTES_MAX, .. })
    ));
    assert_eq!(decode::<ToEncoder>(&mut header(31, KIND_JOB)), Err(PipeError::TooShort { bytes: 31 }));
    // Known, but not in this direction.
    assert_eq!(
        decode::<ToEncoder>(&mut header(HEADER_BYTES, KIND_RUNG_UNIT)),
        Err(PipeError::UnknownKind { kind: KIND_RUNG_UNIT })
    );
    let unit = ToEncoder::Unit(SourceUnit {
        pts: 0,
        dts: 0,
        duration: 0,
        key: false,
        force: false,
        data: vec![0; UNIT_BYTES_MAX + 1].into(),
    });
    assert_eq!(unit.encode().unwrap_err(), TooLong { bytes: UNIT_BYTES_MAX + 1, max: UNIT_BYTES_MAX });
}

#[test]
fn every_nth_picture_has_its_own_rate() {
    let rate = |numerator, denominator| FrameRate { numerator, denominator };
    assert_eq!(rate(60_000, 1_001).divided(2), rate(60_000, 2_002));
    assert_eq!(rate(60, 1).divided(1), rate(60, 1));
    // What no fraction holds is rounded, and stays a rate.
    let most = i32::MAX as u32;
    assert_eq!(rate(most, most).divided(2), rate(most / 2, most));
    assert_eq!(rate(1, most).divided(EVERY_MAX), rate(1, most));
}

#[test]
fn a_job_that_no_encoder_could_do_is_refused_in_words() {
    let refused = |change: fn(&mut VideoJob)| {
        let mut job = video_job();
        change(&mut job);
        decode::<ToEncoder>(&mut written(&ToEncoder::Job(Job::Video(job)))).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|job| job.rungs[0].width = 853),
        "a job with a rung of 853x480; sides are even, from 16 to 4096"
    );
    assert_eq!(refused(|job| job.rungs.clear()), "a job with 0 rungs; 1 to 8 can be made");
    assert_eq!(refused(|job| job.rungs.push(job.rungs[0])), "a job with two rungs with the number 7");
    assert_eq!(refused(|job| job.rungs[0].kbit_s = 0), "a job with a bitrate of 0 kbit/s");
    assert_eq!(
        refused(|job| job.rungs[0].every = 0),
        "a job with one of 0 pictures; one of 1 to 60 can be made"
    );
    assert_eq!(refused(|job| job.frame_rate.denominator = 0), "a job with a frame rate that no video has");
    assert_eq!(refused(|job| job.timescale = 0), "a job with a timescale of 0");

    let audio = |change: fn(&mut AudioJob)| {
        let source = Codec { sample_entry: *b"mp4a", record: Bytes::new() };
        let target = AudioTarget::Opus;
        let mut job = AudioJob { source, timescale: 44_100, target, rate: 48_000, channels: 2, kbit_s: 96 };
        change(&mut job);
        Job::Audio(job).check()
    };
    assert_eq!(audio(|_| {}), Ok(()));
    assert_eq!(audio(|job| job.rate = 44_100), Err(JobError::Rate(44_100)));
    assert_eq!(audio(|job| job.channels = 6), Err(JobError::Channels(6)));
}

/// The package was upgraded while the server ran: whoever reads the log must learn what to do about it.
#[test]
fn a_job_of_another_version_says_so() {
    let mut job = written(&ToEncoder::Job(Job::Video(video_job())));
    job[HEADER_BYTES] = 9;
    job.truncate(HEADER_BYTES + 3);
    job[..4].copy_from_slice(&(HEADER_BYTES as u32 + 3).to_le_bytes());
    assert_eq!(decode::<ToEncoder>(&mut job), Err(PipeError::Version { version: 9 }));
}

#[test]
fn a_long_fault_is_cut_at_a_character() {
    let fault = Fault { class: FaultClass::Pipeline, text: "é".repeat(TEXT_BYTES_MAX) };
    let Ok(Some(FromEncoder::Fault(read))) = decode(&mut written(&FromEncoder::Fault(fault))) else {
        panic!("no fault");
    };
    assert_eq!(read.text, "é".repeat(TEXT_BYTES_MAX / 2));
}

/// A child that dies in the middle of a message did not say goodbye.
#[test]
fn a_pipe_that_ends_within_a_message_is_an_error() {
    let job = written(&ToEncoder::Job(Job::Video(video_job())));
    for end in [1, HEADER_BYTES, job.len() - 1] {
        assert!(matches!(read_message::<ToEncoder>(&mut &job[..end]), Err(ReadError::Io(_))), "at {end}");
    }
    assert!(read_message::<ToEncoder>(&mut &job[..0]).unwrap().is_none());
}
