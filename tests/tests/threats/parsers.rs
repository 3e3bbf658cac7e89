//! Bytes that mean to hurt whoever parses them: threats 1 to 4, and noise (27).

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::crowd::stranger;
use harness::poll;
use harness::rtmp::{self, Rtmp, Tag, clip_tags, kind};
use harness::server::{PUBLISH_KEY, Profile, Tidecast};

use crate::scene::Scene;

const CLOSED_MAX: Duration = Duration::from_secs(30);
const MIB: u64 = 1024 * 1024;

/// Memory is for bytes that came, never for bytes that are announced.
#[test]
fn threat_1_announced_lengths_take_no_memory() -> Result<()> {
    let scene = Scene::start()?;
    let before = scene.server.resident_bytes()?;
    let mut strangers = Vec::new();
    // With the two publishers below as many as this node takes.
    for number in 0..998_u32 {
        // One half announces more than a stranger may, and is sent away; the other as much as it may, and stays.
        let announced = if number % 2 == 0 { 1024 * 1024 } else { 64 * 1024 };
        let mut rtmp = Rtmp::connect_from(stranger(1 + (number % 20) as u8), scene.server.rtmp_address())?;
        let mut bytes = rtmp::handshake();
        for id in 2..64 {
            bytes.extend(rtmp::header(id, kind::UNKNOWN, 0, 0, announced));
            // Full chunks, so that the next header is one.
            bytes.extend([b'x'; 128]);
        }
        let _closed_already = rtmp.raw(&bytes);
        strangers.push(rtmp);
    }
    poll::until("everybody heard", Duration::from_secs(30), || {
        Ok((scene.server.metric("rtmp_refused_total{reason=\"protocol\"}")? >= 499.0).then_some(()))
    })?;
    let mut known = Rtmp::publish(scene.server.rtmp_address(), "live", &format!("bomb?key={PUBLISH_KEY}"))?;
    for id in 4..64 {
        known.raw(&rtmp::header(id, kind::VIDEO, 1, 0, 10 * 1024 * 1024))?;
        known.raw(&[0x17; 65_536])?;
    }
    scene.is_sound()?;
    let rise = scene.server.resident_bytes()?.saturating_sub(before);
    println!("{} MiB", rise / MIB);
    ensure!(rise <= 64 * MIB, "{} MiB for 8 kB from each of a thousand strangers", rise / MIB);
    drop(strangers);
    Ok(())
}

/// A header for every byte of payload: refused where it is asked for, and as cheap as any other chunk where not.
#[test]
fn threat_2_tiny_chunks_are_refused_or_cheap() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    for bytes in [0, 1, 127, 0x8000_0000] {
        let mut rtmp = Rtmp::connect(server.rtmp_address())?;
        rtmp.raw(&rtmp::handshake())?;
        rtmp.send(2, kind::SET_CHUNK_SIZE, 0, 0, &u32::to_be_bytes(bytes))?;
        rtmp.until_closed(CLOSED_MAX).with_context(|| format!("chunks of {bytes} bytes"))?;
    }
    refused(&server, 4)?;
    const MESSAGES: usize = 300;
    let body = vec![b'x'; 60_000];
    let cost = |chunk_bytes: u32| -> Result<Duration> {
        let mut rtmp = Rtmp::connect(server.rtmp_address())?;
        rtmp.raw(&rtmp::handshake())?;
        rtmp.set_chunk_bytes(chunk_bytes)?;
        let (cpu, received) = (server.cpu_time()?, server.metric("rtmp_received_bytes_total")?);
        for _ in 0..MESSAGES {
            rtmp.send(3, kind::UNKNOWN, 0, 0, &body)?;
        }
        poll::until("all of it read", Duration::from_secs(60), || {
            let read = server.metric("rtmp_received_bytes_total")? - received;
            Ok((read >= (MESSAGES * body.len()) as f64).then_some(()))
        })?;
        Ok(server.cpu_time()?.saturating_sub(cpu))
    };
    let (large, small) = (cost(65_536)?, cost(128)?);
    // What it costs to read from a socket at all, where the machine is too fast to measure.
    let floor = Duration::from_millis(100);
    ensure!(small <= 3 * large.max(floor), "{small:?} in the smallest chunks, {large:?} in large ones");
    server.stop()
}

/// Waits until so many were sent away for what they sent, and not because they were slow.
fn refused(server: &Tidecast, count: u32) -> Result<()> {
    poll::until("everybody refused", CLOSED_MAX, || {
        let refused = server.metric("rtmp_refused_total{reason=\"protocol\"}")?;
        Ok((refused == f64::from(count)).then_some(()))
    })
}

/// Nested and counted values, whose depth and count are the sender's.
#[test]
fn threat_3_nested_and_counted_values_are_refused() -> Result<()> {
    let scene = Scene::start()?;
    let before = scene.server.resident_bytes()?;
    let nested = |depth: usize| [b"\x03\x00\x01n".repeat(depth), b"\x00\x00\x09".repeat(depth)].concat();
    let strict = |count: u32| [&[0x0A][..], &count.to_be_bytes(), &[5]].concat();
    let counted =
        |count: u32| [&[0x08][..], &count.to_be_bytes(), &rtmp::property("x", &[5]), &[0, 0, 9]].concat();
    let bombs = [
        nested(33),
        nested(8_000),
        b"\x0A\x00\x00\x00\x01".repeat(12_000),
        // Sent whole, but for one thing more than a message may hold.
        [&[0x0A, 0, 0, 0x10, 0][..], &[5; 4_096]].concat(),
        strict(u32::MAX),
        counted(u32::MAX),
    ];
    for (number, bomb) in bombs.into_iter().enumerate() {
        let mut rtmp = Rtmp::connect(scene.server.rtmp_address())?;
        rtmp.raw(&rtmp::handshake())?;
        rtmp.raw(&rtmp::command(0, "connect", 1.0, &[bomb]))?;
        // A count that is a lie about a map does no harm; the connection then waits for a publish in vain.
        rtmp.until_closed(CLOSED_MAX + CLOSED_MAX).with_context(|| format!("bomb {number}"))?;
    }
    // All but the last.
    refused(&scene.server, 5)?;
    scene.is_sound()?;
    let rise = scene.server.resident_bytes()?.saturating_sub(before);
    ensure!(rise <= 32 * MIB, "{} MiB", rise / MIB);
    Ok(())
}

/// Codec configurations that a parser could divide by, index with, or allocate from.
#[test]
fn threat_4_codec_configurations_are_checked_before_they_are_believed() -> Result<()> {
    let scene = Scene::start()?;
    let tags = clip_tags("gop-0.5")?;
    let config = |kind: u8| {
        let of_kind = tags.iter().find(|tag| tag.kind == kind).map(|tag| tag.body.clone());
        of_kind.context("a clip with video and audio")
    };
    let mut broken = Vec::new();
    for kind in [kind::VIDEO, kind::AUDIO] {
        let honest = config(kind)?;
        // Two bytes of FLV tag header; the rest is the codec's, and each byte of it is wrong once in two ways.
        for at in 2..honest.len().min(48) {
            for flip in [0xFF, 0x01] {
                let mut body = honest.clone();
                body[at] ^= flip;
                broken.push((kind, body));
            }
        }
        broken.extend((2..honest.len().min(16)).map(|length| (kind, honest[..length].to_vec())));
        broken.push((kind, [&honest[..5], &[0; 64]].concat()));
        broken.push((kind, [&honest[..5], &[0xFF; 64]].concat()));
    }
    for (number, (kind, body)) in broken.iter().enumerate() {
        let name = format!("broken{number}?key={PUBLISH_KEY}");
        let mut rtmp = Rtmp::publish(scene.server.rtmp_address(), "live", &name)?;
        // Whether it is refused or believed, what follows meets whatever was made of it.
        for tag in
            [Tag { kind: *kind, stamp: 0, body: body.clone() }].iter().chain(tags.iter().skip(2).take(40))
        {
            if rtmp.send(4, tag.kind, 1, tag.stamp, &tag.body).is_err() {
                break;
            }
        }
    }
    for (what, kind, body) in hostile() {
        let name = format!("hostile?key={PUBLISH_KEY}");
        let mut rtmp = Rtmp::publish(scene.server.rtmp_address(), "live", &name)?;
        rtmp.send(4, kind, 1, 0, &body)?;
        let words = rtmp.until_closed(CLOSED_MAX)?;
        ensure!(words.contains("NetStream.Publish.Rejected"), "{what} is believed: {words}");
    }
    scene.is_sound()
}

/// Configurations without a wrong length anywhere, and with numbers that would hurt a decoder.
fn hostile() -> Vec<(&'static str, u8, Vec<u8>)> {
    // Sequence parameter sets of H.264's Baseline profile at level 3.1, without their first four bytes.
    let sets: [(&str, &[u8]); 5] = [
        ("65536x65536", b"\xF4\x00\x08\x00\x00\x04\x00\x32"),
        ("1280x720 cropped to nothing", b"\xF4\x02\x80\x2D\xF0\x05\x03\x00\xB4\xA0"),
        ("1280x720 cropped to less than nothing", b"\xF4\x02\x80\x2D\xF0\x05\x05\xA0"),
        ("17 reference pictures", b"\xF0\x90\x0A\x00\xB7\x20"),
        ("an exponential-Golomb code of 64 zeros", b"\0\0\x03\0\0\x03\0\0\x03\0\0\x03\xFF\xFF\xFF\xFF"),
    ];
    let video = sets.map(|(what, set)| {
        let record = [&[1, 66, 0, 31, 0xFF, 0xE1, 0, 4 + set.len() as u8, 0x67, 66, 0, 31], set].concat();
        (what, kind::VIDEO, [&[0x17, 0, 0, 0, 0], &record[..], b"\x01\x00\x04\x68\xEB\xE3\xCB"].concat())
    });
    // AAC-LC, 15 as the index of a rate that follows in 24 bits, stereo; and the front of the same.
    let rate = vec![0xAF, 0, 0x17, 0x80, 0, 0, 0, 0x10];
    let audio = [("no samples a second", rate.clone()), ("half a configuration", rate[..5].to_vec())];
    video.into_iter().chain(audio.map(|(what, body)| (what, kind::AUDIO, body))).collect()
}

/// Noise of every kind on every port panics nowhere; that a panic would end one connection only is shown beside the
/// code of each listener, where one can be caused.
#[test]
fn threat_27_noise_ends_only_who_makes_it() -> Result<()> {
    const SEED: u64 = 0x7469_6465_6361_7374;
    println!("seed {SEED:#x}");
    let scene = Scene::start()?;
    let mut state = SEED;
    let mut random = move || {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (rtmp, http) = (scene.server.rtmp_address(), scene.server.http_address());
    let folder = scene.video.replace("index.m3u8", "");
    let end = " HTTP/1.1\r\nHost: x\r\n\r\n";
    let published = rtmp::opening("live", &format!("noise?key={PUBLISH_KEY}"));
    // What comes before the noise and, where it is to be text, after it.
    let frames = [
        (rtmp, Vec::new(), ""),
        (rtmp, rtmp::handshake(), ""),
        (rtmp, published.clone(), ""),
        (http, Vec::new(), ""),
        (http, b"GET /".to_vec(), end),
        (http, b"GET /hls/~".to_vec(), end),
        (http, format!("GET {folder}").into_bytes(), end),
        (http, format!("GET {}?_HLS_msn=", scene.video).into_bytes(), end),
        (http, b"GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=".to_vec(), "\r\n\r\n"),
    ];
    scene.undisturbed(|| {
        for round in 0..50 {
            for (address, start, end) in &frames {
                let mut socket = TcpStream::connect(address)?;
                let length = 1 + random() as usize % if end.is_empty() { 3_000 } else { 80 };
                let noise: Vec<u8> = (0..length)
                    .map(|_| if end.is_empty() { random() as u8 } else { b'!' + (random() % 94) as u8 })
                    .collect();
                let mut bytes = [start, &noise[..], end.as_bytes()].concat();
                if round > 25 {
                    let at = random() as usize % bytes.len();
                    bytes[at] ^= 1 << (random() % 8);
                }
                let _closed_already = socket.write_all(&bytes);
                let _ = socket.shutdown(Shutdown::Write);
            }
            // Noise that is a row of messages: of any kind, and whole.
            let mut socket = TcpStream::connect(rtmp)?;
            let mut bytes = published.clone();
            for id in 8..28 {
                let body: Vec<u8> = (0..1 + random() % 100).map(|_| random() as u8).collect();
                bytes.extend(rtmp::header(id, random() as u8, 1, random() as u32, body.len() as u32));
                bytes.extend(body);
            }
            let _closed_already = socket.write_all(&bytes);
            let _ = socket.shutdown(Shutdown::Write);
        }
        Ok(())
    })?;
    ensure!(
        scene.server.metric("http_refused_total{reason=\"bad_request\"}")? > 0.0,
        "noise was no bad request"
    );
    scene.is_sound()
}
