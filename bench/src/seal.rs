//! What a packet for a WebRTC viewer costs before it is handed to the kernel: header, copy and seal, beside the bare
//! seal of packets of the same size.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use media::codec::h264;
use media::{AccessUnit, Timescale};
use rtc::outbound::{HeaderExtensions, Line, LineSettings, PayloadTypes, PlayoutDelay, Transport};
use rtc::packetize::{Format, Frame, H264Packetizer, PAYLOAD_BYTES_MAX, Source};
use rtc::srtp::{Keys, Profile, Role, Sealers};

use crate::Options;
use crate::measure::{Samples, cpu_time_of, interleaved};
use crate::synthetic;
use crate::table::{Table, Target};

/// All that is not the cipher: header, copy, and the walk over the frame.
const BESIDE_CIPHER_NANOS_MAX: f64 = 200.0;

/// Of one frame, all full: 3 Mbit/s at 30 frames a second are about ten.
const PACKETS: usize = 12;
/// Sent in one measured round.
const FRAMES: usize = 2_000;
/// Frames take turns through the viewers, whose keys and headers then do not all stay in the nearest cache.
const VIEWERS: usize = 200;
/// Fixed header and the extensions transport-cc and abs-send-time.
const HEADER_BYTES: usize = 24;

const COLUMNS: &[&str] = &["min", "median"];

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    let rounds = if options.quick { 7 } else { 25 };
    let frame = frame()?;
    let mut one = viewers(Profile::Aes128Gcm, 1)?;
    let mut many = viewers(Profile::Aes128Gcm, VIEWERS)?;
    let mut legacy = viewers(Profile::Aes128CmHmacSha1_80, 1)?;
    let mut bare = Bare::new()?;
    let [bare, one, many, legacy] = interleaved(
        rounds,
        [
            &mut || per_packet(|| bare.seal()),
            &mut || per_packet(|| send(&mut one, &frame)),
            &mut || per_packet(|| send(&mut many, &frame)),
            &mut || per_packet(|| send(&mut legacy, &frame)),
        ],
    );
    let title = format!("header, copy and seal of {PAYLOAD_BYTES_MAX} bytes of payload, CPU ns per packet");
    let mut table = Table::new(title, COLUMNS);
    let figures = |samples: &Samples| [samples.min(), samples.median()];
    let beside = |samples: &Samples| [samples.min() - bare.min(), samples.median() - bare.median()];
    let target = Target { column: 0, limit: BESIDE_CIPHER_NANOS_MAX };
    table.tell("AES-128-GCM alone, aws-lc", &figures(&bare));
    table.tell("AES-128-GCM, one viewer", &figures(&one));
    table.judge("    beside the cipher", &beside(&one), target);
    table.tell(format!("AES-128-GCM, {VIEWERS} viewers in turn"), &figures(&many));
    table.tell("    beside the cipher", &beside(&many));
    table.tell("AES-CM-HMAC-SHA1-80, one viewer", &figures(&legacy));
    Ok(vec![table])
}

fn per_packet(work: impl FnOnce()) -> f64 {
    cpu_time_of(work).as_secs_f64() * 1e9 / (FRAMES * PACKETS) as f64
}

fn frame() -> Result<Arc<Frame>> {
    let config = h264::Config::parse(Bytes::from_static(synthetic::AVCC))?;
    // Indicator and header of each fragment; the NAL unit's own header is not sent.
    let bytes = 1 + PACKETS * (PAYLOAD_BYTES_MAX - 2);
    let nal = [vec![0x41], vec![0x5A; bytes - 1]].concat();
    let data = [&(bytes as u32).to_be_bytes(), nal.as_slice()].concat().into();
    let unit = AccessUnit { dts: 0, pts: 0, duration: 3_000, key: false, data };
    let frame = H264Packetizer::new(Source(0), config).packetize(&unit, 0)?;
    Ok(Arc::new(frame.context("a picture has packets")?))
}

struct Viewer {
    line: Line,
    transport: Transport,
}

struct Viewers {
    viewers: Vec<Viewer>,
    /// One for all, as a thread has it.
    scratch: Vec<u8>,
}

fn viewers(profile: Profile, count: usize) -> Result<Viewers> {
    let now = Instant::now();
    let viewer = |number| {
        let exported = vec![number as u8; profile.exported_bytes()];
        let mut sealers = Sealers::new(Keys::from_exported(profile, Role::Server, &exported)?);
        let settings = LineSettings {
            ssrc: 1,
            payload_types: vec![(Format::H264, PayloadTypes { media: 102, rtx: None })],
            rtx_ssrc: None,
            extensions: HeaderExtensions {
                transport_cc: Some(3),
                abs_send_time: Some(2),
                playout_delay: None,
            },
            playout_delay: PlayoutDelay::default(),
            clock_rate: Timescale::VIDEO,
            timestamp_offset: 0,
            cname: "bench".to_owned(),
            random: [0, 0],
        };
        let line = Line::new(settings, &mut sealers)?;
        Ok(Viewer { line, transport: Transport::new(now) })
    };
    let viewers = (0..count).map(viewer).collect::<Result<_>>()?;
    Ok(Viewers { viewers, scratch: Vec::new() })
}

/// [`FRAMES`] frames, to the viewers in turn.
fn send(viewers: &mut Viewers, frame: &Arc<Frame>) {
    let Viewers { viewers, scratch } = viewers;
    let now = Instant::now();
    let count = viewers.len();
    for turn in 0..FRAMES {
        let Viewer { line, transport } = &mut viewers[turn % count];
        line.begin(Arc::clone(frame)).expect("the frame before was sent whole");
        while let Some(batch) = line.poll(now, transport, scratch).expect("a round is far from 2^48 packets")
        {
            black_box(batch.bytes);
        }
    }
}

/// Packets as large as ours, which lie ready: the cipher and nothing else.
struct Bare {
    key: LessSafeKey,
    packets: Vec<u8>,
    count: u64,
}

impl Bare {
    fn new() -> Result<Self> {
        let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|_| anyhow!("no AES-128-GCM"))?;
        let packets = vec![0x5A; PACKETS * (HEADER_BYTES + PAYLOAD_BYTES_MAX)];
        Ok(Self { key: LessSafeKey::new(key), packets, count: 0 })
    }

    fn seal(&mut self) {
        for _ in 0..FRAMES {
            for packet in self.packets.chunks_mut(HEADER_BYTES + PAYLOAD_BYTES_MAX) {
                self.count += 1;
                let mut nonce = [0; 12];
                nonce[4..].copy_from_slice(&self.count.to_be_bytes());
                let (header, payload) = packet.split_at_mut(HEADER_BYTES);
                let tag = self.key.seal_in_place_separate_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(&*header),
                    payload,
                );
                black_box(tag.expect("GCM takes a packet").as_ref());
            }
        }
    }
}
