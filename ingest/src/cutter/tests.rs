use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::grid::Cadence;

const ANCHOR_MS: i64 = 1_800_000_000_000;
const AUDIO_HERTZ: u32 = 48_000;

/// A publisher: pictures stamped in whole milliseconds as FLV does, AAC counted in samples.
struct Source {
    fps: f64,
    /// A keyframe every so many frames; 0: only the first.
    gop: usize,
    seconds: f64,
    audio: bool,
    part_target: Duration,
    /// Pictures and sound in these spans of seconds never arrive.
    video_lost: std::ops::Range<f64>,
    audio_lost: std::ops::Range<f64>,
}

fn source(fps: f64, gop: usize, seconds: f64) -> Source {
    Source {
        fps,
        gop,
        seconds,
        audio: true,
        part_target: Duration::from_millis(500),
        video_lost: 0.0..0.0,
        audio_lost: 0.0..0.0,
    }
}

/// A part as a packager sees it, in seconds.
#[derive(Debug, Clone, Copy)]
struct Part {
    boundary: Boundary,
    start: f64,
    end: f64,
    units: usize,
}

struct Cuts {
    grid: Grid,
    counts: Counts,
    target_duration_s: Option<u32>,
    lead: Vec<Part>,
    follower: Vec<Part>,
}

impl Source {
    fn cut(&self) -> Cuts {
        let scale = Timescale::from_hertz(AUDIO_HERTZ).unwrap();
        let cadence = Cadence { frames_per_second: self.fps, longest_s: 1.0 / self.fps };
        let audio = self.audio.then_some((scale, 1024));
        let grid = Grid::video(cadence, audio, self.part_target);
        let mut cutter = Cutter::new(grid.clone(), ANCHOR_MS);
        let mut out = Vec::new();
        let (mut n, mut samples) = (0, 0);
        loop {
            let video_s = n as f64 / self.fps;
            let audio_s = if self.audio { samples as f64 / f64::from(AUDIO_HERTZ) } else { f64::MAX };
            if video_s.min(audio_s) >= self.seconds {
                break;
            }
            if video_s <= audio_s {
                let key = n == 0 || (self.gop > 0 && n % self.gop == 0);
                let dts = (video_s * 1000.0).round() as i64 * 90;
                let unit = AccessUnit { dts, pts: dts, duration: grid.frame as u32, key, data: Bytes::new() };
                if !self.video_lost.contains(&video_s) {
                    cutter.push_lead(unit, false, None, &mut out);
                }
                n += 1;
            } else {
                let unit =
                    AccessUnit { dts: samples, pts: samples, duration: 1024, key: true, data: Bytes::new() };
                if !self.audio_lost.contains(&audio_s) {
                    cutter.push_follower(unit, &mut out);
                }
                samples += 1024;
            }
        }
        cutter.finish(&mut out);
        let target_duration_s = out.iter().find_map(|entry| match entry {
            Entry::FirstSegment { target_duration_s, .. } => Some(*target_duration_s),
            _ => None,
        });
        let lead = parts(&out, Lane::Lead, Timescale::VIDEO);
        let follower = parts(&out, Lane::Follower, scale);
        Cuts { grid, counts: cutter.counts(), target_duration_s, lead, follower }
    }
}

/// The complete parts of one lane; the last one, still open, is left out.
fn parts(entries: &[Entry], of: Lane, scale: Timescale) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut newest_end = 0;
    for entry in entries {
        match entry {
            Entry::Boundary { lane, boundary } if *lane == of => {
                if let Some(open) = parts.last_mut() {
                    let broken = open.boundary.discontinuity_sequence != boundary.discontinuity_sequence;
                    open.end = scale.seconds(match open.boundary.gap {
                        Some(ticks) if broken => boundary.start.min(open.boundary.start + i64::from(ticks)),
                        None if broken => newest_end,
                        _ => boundary.start,
                    });
                }
                let start = scale.seconds(boundary.start);
                parts.push(Part { boundary: *boundary, start, end: start, units: 0 });
            }
            Entry::Unit { lane, unit } if *lane == of => {
                newest_end = unit.dts + i64::from(unit.duration);
                parts.last_mut().expect("a boundary precedes every unit").units += 1;
            }
            _ => {}
        }
    }
    parts.pop();
    parts
}

impl Cuts {
    /// (start, end, parts) of the complete segments of a lane.
    fn segments(parts: &[Part]) -> Vec<(f64, f64, usize)> {
        let chunks = parts.chunk_by(|a, b| a.boundary.msn == b.boundary.msn);
        let mut all: Vec<_> = chunks.map(|s| (s[0].start, s[s.len() - 1].end, s.len())).collect();
        all.pop();
        all
    }

    /// Rules that hold for any source whatever.
    fn check_rules(&self) {
        for parts in [&self.lead, &self.follower] {
            for pair in parts.windows(2) {
                let (a, b) = (pair[0].boundary, pair[1].boundary);
                let follows = (a.msn == b.msn && a.part + 1 == b.part) || (a.msn + 1 == b.msn && b.part == 0);
                assert!(follows, "{a:?} then {b:?}");
                assert!(pair[0].start < pair[0].end && pair[0].end <= pair[1].start + 1e-6, "{pair:?}");
                assert!(a.discontinuity_sequence <= b.discontinuity_sequence);
                assert!(a.discontinuity_sequence == b.discontinuity_sequence || b.part == 0);
            }
            let Some(target_duration_s) = self.target_duration_s else { continue };
            for (start, end, _) in Self::segments(parts) {
                assert!((end - start).round() <= f64::from(target_duration_s), "{start}..{end}");
            }
        }
        for (lead, follower) in self.lead.iter().zip(&self.follower) {
            let (a, b) = (lead.boundary, follower.boundary);
            assert_eq!((a.msn, a.part, a.discontinuity_sequence), (b.msn, b.part, b.discontinuity_sequence));
        }
    }

    /// P4: no part over the target, none under 85 % of it but the last of a segment.
    fn check_part_lengths(&self) {
        self.check_shortest();
        for (parts, target_s) in self.lanes() {
            for part in &parts[..parts.len() - 1] {
                let length_s = part.end - part.start;
                assert!(length_s <= target_s + 1e-9, "{:?}: {length_s} of {target_s}", part.boundary);
            }
        }
    }

    fn check_shortest(&self) {
        for (parts, target_s) in self.lanes() {
            let within = parts.windows(2).filter(|pair| pair[0].boundary.msn == pair[1].boundary.msn);
            for part in within.map(|pair| pair[0]) {
                let length_s = part.end - part.start;
                assert!(length_s >= 0.85 * target_s, "{:?}: {length_s} of {target_s}", part.boundary);
            }
        }
    }

    /// Parts, and PART-TARGET in seconds.
    fn lanes(&self) -> impl Iterator<Item = (&[Part], f64)> {
        let lead = (&self.lead[..], self.grid.part_target_ms);
        let follower = self.grid.follower.map(|follower| (&self.follower[..], follower.part_target_ms));
        [lead].into_iter().chain(follower).map(|(parts, target_ms)| (parts, f64::from(target_ms) / 1000.0))
    }
}

#[test]
fn two_second_gops_make_two_second_segments_of_four_parts() {
    let cuts = source(30.0, 60, 20.0).cut();
    cuts.check_rules();
    cuts.check_part_lengths();
    assert_eq!(cuts.target_duration_s, Some(4));
    for (start, end, parts) in Cuts::segments(&cuts.lead) {
        assert!((end - start - 2.0).abs() < 0.002 && parts == 4, "{start}..{end} in {parts}");
    }
    assert!(cuts.lead.iter().all(|part| part.boundary.independent == (part.boundary.part == 0)));
    let first = cuts.lead[0].boundary;
    assert_eq!(first.program_date_time_ms, ANCHOR_MS);
}

#[test]
fn short_gops_are_gathered_to_the_segment_target() {
    let cuts = source(30.0, 15, 20.0).cut();
    cuts.check_rules();
    assert_eq!(cuts.target_duration_s, Some(3));
    assert!(Cuts::segments(&cuts.lead).iter().all(|(start, end, _)| (end - start - 2.0).abs() < 0.002));
    assert!(cuts.lead.iter().all(|part| part.boundary.independent), "every part begins a GOP");
}

/// OBS, untouched: a keyframe every 250 frames.
#[test]
fn obs_default_of_8_3_seconds_is_one_segment_per_gop() {
    let cuts = source(30.0, 250, 60.0).cut();
    cuts.check_rules();
    cuts.check_part_lengths();
    assert_eq!(cuts.target_duration_s, Some(11));
    assert!(Cuts::segments(&cuts.lead).iter().all(|(start, end, _)| (end - start - 8.333).abs() < 0.01));
    assert_eq!(cuts.counts.segments_forced, 0);
}

#[test]
fn without_keyframes_a_segment_ends_at_12_seconds_and_the_next_keyframe_cuts_at_once() {
    let cuts = source(30.0, 400, 60.0).cut();
    cuts.check_rules();
    assert_eq!(cuts.target_duration_s, Some(12));
    let segments = Cuts::segments(&cuts.lead);
    assert!((12.0..12.5).contains(&segments[0].1), "{segments:?}");
    assert!((segments[1].1 - 400.0 / 30.0).abs() < 0.01, "{segments:?}");
    assert!(cuts.counts.segments_forced > 0);
}

#[test]
fn parts_keep_their_length_at_every_frame_rate_and_profile() {
    for fps in [23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0] {
        for part_target in [Duration::from_millis(500), Duration::from_millis(200)] {
            let cuts = Source { part_target, ..source(fps, (fps * 2.0).round() as usize, 30.0) }.cut();
            cuts.check_rules();
            cuts.check_part_lengths();
            assert_eq!(cuts.counts.parts_over_target, 0, "{fps} fps");
        }
    }
}

#[test]
fn audio_is_cut_at_its_first_frame_at_or_after_the_video_boundary() {
    let cuts = source(25.0, 96, 30.0).cut();
    cuts.check_rules();
    assert!(cuts.follower.len() > 50);
    for (lead, follower) in cuts.lead.iter().zip(&cuts.follower) {
        let late = follower.start - lead.start;
        assert!((-0.001..0.0214).contains(&late), "{:?}: {late}", lead.boundary);
    }
}

/// At 60 fps the last part of a segment may be one picture long, and no audio frame begins within it.
#[test]
fn every_audio_part_has_a_frame_even_beside_a_part_of_one_picture() {
    let cuts = Source { part_target: Duration::from_millis(200), ..source(60.0, 373, 40.0) }.cut();
    cuts.check_rules();
    let shortest = cuts.lead.iter().map(|part| part.end - part.start).fold(f64::MAX, f64::min);
    assert!(shortest < 0.02, "{shortest}");
    assert!(cuts.follower.iter().all(|part| part.units > 0 && part.boundary.gap.is_none()));
}

/// Single pictures missing, as from an encoder under load: the parts around them get shorter, not longer.
#[test]
fn uneven_frames_do_not_stretch_parts_over_the_target() {
    let grid =
        Grid::video(Cadence { frames_per_second: 30.0, longest_s: 0.034 }, None, Duration::from_millis(500));
    let (mut cutter, mut out) = (Cutter::new(grid.clone(), 0), Vec::new());
    for n in (0..1_800).filter(|n| n % 60 == 0 || n % 7 != 3) {
        let dts = (n as f64 * 1000.0 / 30.0).round() as i64 * 90;
        let unit = AccessUnit { dts, pts: dts, duration: 3000, key: n % 60 == 0, data: Bytes::new() };
        cutter.push_lead(unit, false, None, &mut out);
    }
    let lead = parts(&out, Lane::Lead, Timescale::VIDEO);
    let counts = cutter.counts();
    let cuts = Cuts { grid, counts, target_duration_s: None, lead, follower: Vec::new() };
    cuts.check_rules();
    let over = cuts.lead.iter().filter(|part| part.end - part.start > 0.501);
    assert!(over.count() <= 1, "only the first missing picture is a surprise");
}

/// A few pictures lost on the way, once: what comes after them is cut with care, and leaves the sound beside it long enough, too.
#[test]
fn lost_pictures_make_no_part_of_the_sound_too_short() {
    for lost in 1..12 {
        let lost_s = 7.2..7.2 + f64::from(lost) / 30.0 - 0.01;
        let cuts = Source { video_lost: lost_s, ..source(30.0, 60, 20.0) }.cut();
        cuts.check_rules();
        cuts.check_shortest();
        assert_eq!(cuts.counts.discontinuities, 0, "{lost} lost");
    }
}

/// A stall of the uplink, with stamps that tell the truth: one break, in both renditions, no part over target.
#[test]
fn a_hole_is_one_discontinuity_in_both_renditions() {
    let cuts = Source { video_lost: 7.2..11.0, audio_lost: 7.2..11.0, ..source(30.0, 60, 30.0) }.cut();
    cuts.check_rules();
    assert_eq!((cuts.counts.discontinuities, cuts.counts.parts_over_target), (1, 0));
    let breaks = |parts: &[Part]| parts.iter().filter(|p| p.boundary.discontinuity_sequence == 1).count();
    assert!(breaks(&cuts.lead) > 10 && breaks(&cuts.follower) > 10);
}

#[test]
fn audio_that_is_missing_becomes_gap_parts_and_comes_back_on_the_grid() {
    let cuts = Source { audio_lost: 6.0..12.0, ..source(30.0, 60, 30.0) }.cut();
    cuts.check_rules();
    let gaps: Vec<_> = cuts.follower.iter().filter(|part| part.boundary.gap.is_some()).collect();
    assert!((10..=12).contains(&gaps.len()), "{} gaps", gaps.len());
    assert!(gaps.iter().all(|part| part.units == 0 && !part.boundary.independent));
    assert!(cuts.follower.last().unwrap().units > 0);
    assert!(cuts.lead.iter().all(|part| part.boundary.gap.is_none()));
}

#[test]
fn audio_that_starts_late_begins_with_gaps() {
    let cuts = Source { audio_lost: 0.0..1.2, ..source(30.0, 60, 12.0) }.cut();
    cuts.check_rules();
    assert_eq!(cuts.follower.iter().take_while(|part| part.boundary.gap.is_some()).count(), 2);
}

/// Sound goes on; the picture's parts are gaps, and it comes back with a keyframe and one discontinuity.
#[test]
fn video_that_is_missing_while_audio_goes_on_becomes_gap_parts() {
    let cuts = Source { video_lost: 7.2..15.5, ..source(30.0, 60, 30.0) }.cut();
    cuts.check_rules();
    let gaps = cuts.lead.iter().filter(|part| part.boundary.gap.is_some());
    assert!((15..=18).contains(&gaps.clone().count()), "{} gaps", gaps.count());
    assert!(cuts.follower.iter().all(|part| part.boundary.gap.is_none()));
    assert_eq!(cuts.counts.discontinuities, 1);
    let back = cuts.lead.iter().find(|part| part.boundary.discontinuity_sequence == 1).unwrap();
    assert!(back.boundary.independent && (back.start - 16.0).abs() < 0.01, "{back:?}");
}

/// An encoder under congestion drops a second of pictures and goes on with a keyframe. The sound of that second is kept.
#[test]
fn short_losses_of_video_cost_no_audio() {
    for lost_s in [0.7, 1.0, 1.5, 2.4] {
        let whole = source(30.0, 30, 20.0).cut();
        let cuts = Source { video_lost: 8.01..8.01 + lost_s, ..source(30.0, 30, 20.0) }.cut();
        cuts.check_rules();
        let units = |cuts: &Cuts| cuts.follower.iter().map(|part| part.units).sum::<usize>();
        // The last part is open and not counted; its length differs.
        assert!(
            units(&cuts).abs_diff(units(&whole)) <= 24,
            "{lost_s} s lost: {} of {}",
            units(&cuts),
            units(&whole)
        );
        assert!(cuts.follower.iter().all(|part| part.boundary.gap.is_none()), "{lost_s} s lost");
        assert!(cuts.counts.discontinuities <= 1);
    }
}

#[test]
fn audio_alone_is_cut_by_its_own_clock() {
    let scale = Timescale::from_hertz(AUDIO_HERTZ).unwrap();
    let grid = Grid::audio(scale, 1024, Duration::from_millis(500));
    let mut cutter = Cutter::new(grid.clone(), ANCHOR_MS);
    let mut out = Vec::new();
    for n in 0..2_000 {
        let unit = AccessUnit { dts: n * 1024, pts: n * 1024, duration: 1024, key: true, data: Bytes::new() };
        cutter.push_lead(unit, false, None, &mut out);
    }
    let lead = parts(&out, Lane::Lead, scale);
    let cuts = Cuts { grid, counts: cutter.counts(), target_duration_s: Some(3), lead, follower: Vec::new() };
    cuts.check_rules();
    cuts.check_part_lengths();
    assert!(
        out.contains(&Entry::FirstSegment { target_duration_s: 3, keyframe_interval_s: 1024.0 / 48_000.0 })
    );
    assert!(cuts.lead.iter().all(|part| part.boundary.independent));
}

/// Threat: a publisher that fills the store by never ending a segment.
#[test]
fn a_segment_is_bounded_in_bytes() {
    let grid =
        Grid::video(Cadence { frames_per_second: 30.0, longest_s: 0.033 }, None, Duration::from_millis(500));
    let (mut cutter, mut out) = (Cutter::new(grid, 0), Vec::new());
    let data = Bytes::from(vec![0; 8 * 1024 * 1024]);
    for n in 0..30 {
        let unit =
            AccessUnit { dts: n * 3000, pts: n * 3000, duration: 3000, key: n == 0, data: data.clone() };
        cutter.push_lead(unit, false, None, &mut out);
    }
    let segments = out.iter().filter(|e| matches!(e, Entry::Boundary { boundary, .. } if boundary.part == 0));
    assert_eq!(segments.count(), 3);
    assert_eq!(cutter.counts().segments_forced, 2);
    // Two units fill a group, so that the ring can let go of what is old.
    assert_eq!(out.iter().filter(|entry| matches!(entry, Entry::Group { .. })).count(), 15);
}

#[test]
fn another_configuration_is_a_discontinuity() {
    let mut cutter = Cutter::new(Grid::audio(Timescale::MILLIS, 20, Duration::from_millis(500)), 0);
    let mut out = Vec::new();
    let unit = |n: i64| AccessUnit { dts: n * 20, pts: n * 20, duration: 20, key: true, data: Bytes::new() };
    let codec =
        media::codec::aac::Config::parse(Bytes::from_static(&[0x11, 0x90])).map(CodecConfig::Aac).unwrap();
    for n in 0..30 {
        cutter.push_lead(unit(n), false, (n == 10).then(|| codec.clone()), &mut out);
    }
    let boundaries = out.iter().filter_map(|entry| match entry {
        Entry::Boundary { boundary, .. } => {
            Some((boundary.msn, boundary.discontinuity_sequence, boundary.start))
        }
        _ => None,
    });
    assert_eq!(boundaries.take(2).collect::<Vec<_>>(), [(0, 0, 0), (1, 1, 200)]);
    assert_eq!(cutter.counts(), Counts { discontinuities: 1, reconfigured: 1, ..Counts::default() });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the keyframes, the frame rate and the losses: TARGETDURATION holds, numbers run on, and both
    /// renditions have the same grid.
    #[test]
    fn rules_hold_for_any_publisher(
        fps in 1.0..70.0_f64,
        gop in 0_usize..700,
        audio: bool,
        video_lost in (0.0..40.0_f64, 0.0..9.0_f64),
        audio_lost in (0.0..40.0_f64, 0.0..9.0_f64),
        low: bool,
    ) {
        let cuts = Source {
            audio,
            part_target: Duration::from_millis(if low { 200 } else { 500 }),
            video_lost: video_lost.0.max(0.1)..video_lost.0.max(0.1) + video_lost.1,
            audio_lost: audio_lost.0..audio_lost.0 + audio_lost.1,
            ..source(fps, gop, 50.0)
        }.cut();
        cuts.check_rules();
    }
}
