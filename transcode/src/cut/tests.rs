use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const FRAME: i64 = 3_000;
/// Frames of a part, and parts of a segment.
const PART: i64 = 5;
const SEGMENT: i64 = 4;

fn codec(record: &'static [u8]) -> Codec {
    Codec { sample_entry: *b"avc1", record: Bytes::from_static(record) }
}

/// The `number`th boundary of a source that is cut regularly.
fn boundary(number: i64) -> Boundary {
    Boundary {
        msn: (number / SEGMENT) as u64,
        part: (number % SEGMENT) as u32,
        start: number * PART * FRAME,
        program_date_time_ms: number,
        discontinuity_sequence: 0,
        independent: number % SEGMENT == 0,
        gap: None,
    }
}

fn frame(number: i64, key: bool) -> AccessUnit {
    let pts = number * FRAME;
    AccessUnit { dts: pts, pts, duration: FRAME as u32, key, data: Bytes::from_static(b"picture") }
}

struct Rung {
    cutter: Cutter,
    out: Vec<Entry>,
}

impl Rung {
    fn new() -> Self {
        let mut rung = Self { cutter: Cutter::new(Starts::Source, Begins::WithMedia), out: Vec::new() };
        assert!(rung.cutter.config(codec(b"first")));
        rung
    }

    fn cut(&mut self, numbers: impl IntoIterator<Item = i64>) -> &mut Self {
        for number in numbers {
            let boundary = boundary(number);
            self.cutter.boundary(boundary.msn as u32 + 7, boundary, &mut self.out);
        }
        self
    }

    /// Frames of which those that open a segment are keys.
    fn frames(&mut self, numbers: impl IntoIterator<Item = i64>) -> &mut Self {
        for number in numbers {
            self.cutter.unit(frame(number, number % (PART * SEGMENT) == 0), &mut self.out);
        }
        self
    }

    /// What was written, short: `2.1` opens a part, `2.1!` with a key, `2.1-` a gap; `+` for each unit.
    fn told(&mut self) -> String {
        let told = self.out.drain(..).map(|entry| match entry {
            Entry::Group { id, .. } => format!(" g{id}"),
            Entry::Config { .. } => " c".to_owned(),
            Entry::Boundary(boundary) => {
                let how = if boundary.gap.is_some() {
                    "-"
                } else if boundary.independent {
                    "!"
                } else {
                    ""
                };
                format!(" {}.{}{how}", boundary.msn, boundary.part)
            }
            Entry::Unit(_) => "+".to_owned(),
        });
        told.collect::<String>().trim().to_owned()
    }
}

#[test]
fn units_fall_between_the_boundaries_of_the_source() {
    let mut rung = Rung::new();
    rung.cut(0..5).frames(0..21);
    assert_eq!(rung.told(), "g7 c 0.0!+++++ 0.1+++++ 0.2+++++ 0.3+++++ g8 1.0!+");
}

#[test]
fn a_lost_picture_moves_no_boundary() {
    let mut rung = Rung::new();
    // Frame 5, which opens a part, is lost, and 12 within one; of the part 0.3 there is nothing.
    rung.cut(0..5).frames((0..15).filter(|frame| ![5, 12].contains(frame))).frames([20]);
    assert_eq!(rung.told(), "g7 c 0.0!+++++ 0.1++++ 0.2++++ 0.3- g8 1.0!+");
    let mut rung = Rung::new();
    rung.cut([0, 1]).frames([0, 6]);
    let starts = rung.out.iter().filter_map(|entry| match entry {
        Entry::Boundary(boundary) => Some(boundary.start),
        _ => None,
    });
    assert_eq!(starts.collect::<Vec<_>>(), [0, PART * FRAME]);
}

/// Who watches by WebRTC needs no init segment, and does not wait seconds for the next one.
#[test]
fn a_rung_of_no_playlist_begins_with_any_part() {
    for (begins, told) in [(Begins::AtOnce, "g7 0.0- 0.1-"), (Begins::Anywhere, "g7 0.0- c 0.1!+")] {
        let mut rung = Rung { cutter: Cutter::new(Starts::Source, begins), out: Vec::new() };
        rung.cut([0]);
        rung.cutter.late(boundary(0).start, &mut rung.out);
        rung.cutter.begin();
        assert!(rung.cutter.config(codec(b"first")));
        rung.cut([1]);
        rung.cutter.late(boundary(1).start, &mut rung.out);
        rung.cutter.unit(frame(PART, true), &mut rung.out);
        assert_eq!(rung.told(), told);
    }
}

#[test]
fn a_rung_that_nobody_watches_is_all_gaps_and_begins_with_a_segment() {
    let cold = || Rung { cutter: Cutter::new(Starts::Source, Begins::AtOnce), out: Vec::new() };
    let pass = |rung: &mut Rung, numbers: std::ops::Range<i64>| {
        for number in numbers {
            rung.cut([number]);
            rung.cutter.late(boundary(number).start, &mut rung.out);
        }
    };
    let mut rung = cold();
    // It was claimed within a segment.
    pass(&mut rung, 2..7);
    assert_eq!(rung.told(), "g8 1.0- 1.1-");
    assert_eq!(rung.cutter.next(), Some((8, 6 * PART * FRAME)));
    // A child comes, and gives a key for the part that nobody has given up.
    rung.cutter.begin();
    assert!(rung.cutter.config(codec(b"first")));
    rung.cutter.unit(frame(30, true), &mut rung.out);
    rung.cut([7, 8]).frames(31..41);
    assert_eq!(rung.told(), "1.2- 1.3- g9 c 2.0!+");
    // It goes, and another comes back within a segment: its init segment is known.
    pass(&mut rung, 9..14);
    assert_eq!(rung.told(), "2.1- 2.2- 2.3- g10 3.0-");
    rung.cutter.begin();
    assert!(rung.cutter.config(codec(b"first")));
    rung.cutter.unit(frame(60, true), &mut rung.out);
    assert_eq!(rung.told(), "", "what was a gap is none any more");
    rung.cutter.unit(frame(65, true), &mut rung.out);
    assert_eq!(rung.told(), "3.1!+");
}

#[test]
fn what_is_late_is_a_gap_and_the_rung_goes_on_with_a_key() {
    let mut rung = Rung::new();
    rung.cut(0..4).frames(0..7);
    rung.told();
    rung.cutter.late(3 * PART * FRAME, &mut rung.out);
    assert_eq!(rung.told(), "0.2-");
    // These come too late, or need what did.
    rung.frames(10..20).cut(4..6).frames(20..26);
    assert_eq!(rung.told(), "0.3- g8 1.0!+++++ 1.1+");
}

#[test]
fn another_child_goes_on_where_a_key_opens_a_part() {
    let mut rung = Rung::new();
    rung.cut(0..6).frames(0..7);
    rung.told();
    rung.cutter.begin();
    // It begins with the newest group, and repeats what is there already.
    rung.frames(0..26);
    assert_eq!(rung.told(), "0.2- 0.3- g8 1.0!+++++ 1.1+");
}

#[test]
fn a_publisher_that_is_silent_costs_no_picture() {
    let mut rung = Rung::new();
    rung.cut(0..2).frames(0..10);
    for number in 2..4 {
        let gap = Boundary { gap: Some(PART as u32 * FRAME as u32), ..boundary(number) };
        rung.cutter.boundary(7, gap, &mut rung.out);
    }
    rung.cut([5]);
    rung.cutter.late(4 * PART * FRAME, &mut rung.out);
    rung.frames([25]);
    assert_eq!(
        rung.told(),
        "g7 c 0.0!+++++ 0.1+++++ 0.2- 0.3- g8 1.1+",
        "it was not restarted, so no key is missing"
    );
}

#[test]
fn a_rung_begins_with_a_segment_and_tells_nothing_before() {
    let mut rung = Rung::new();
    rung.cut(1..3);
    rung.cutter.late(2 * PART * FRAME, &mut rung.out);
    rung.frames(10..12);
    rung.cutter.unit(frame(13, true), &mut rung.out);
    rung.cut(3..5).frames(14..22);
    assert_eq!(rung.told(), "g8 c 1.0!++");
}

/// Its viewers find their place by the numbers that they know.
#[test]
fn a_rung_of_a_session_that_goes_on_begins_with_the_gaps_of_its_source() {
    let mut rung = Rung::new();
    for number in 2..8 {
        let gap = Some((PART * FRAME) as u32);
        let boundary = Boundary { gap, independent: false, ..boundary(number) };
        rung.cutter.boundary(boundary.msn as u32 + 7, boundary, &mut rung.out);
    }
    rung.cut(8..10).frames(40..46);
    assert_eq!(rung.told(), "g8 1.0- 1.1- 1.2- 1.3- g9 c 2.0!+++++ 2.1+");
}

#[test]
fn another_configuration_waits_for_a_discontinuity() {
    let mut rung = Rung::new();
    rung.cut(0..1).frames(0..3);
    rung.told();
    rung.cutter.begin();
    assert!(!rung.cutter.config(codec(b"second")));
    rung.cut(1..5).frames(0..21);
    assert_eq!(rung.told(), "");
    let broken = Boundary { discontinuity_sequence: 1, ..boundary(8) };
    rung.cutter.boundary(9, broken, &mut rung.out);
    rung.frames([40]);
    assert_eq!(rung.told(), "0.1- 0.2- 0.3- g8 1.0- g9 c 2.0!+");
    rung.cutter.begin();
    assert!(rung.cutter.config(codec(b"second")), "the same as before");
}

#[test]
fn sound_begins_its_parts_with_its_own_frames() {
    let mut cutter = Cutter::new(Starts::Unit(Timescale::from_hertz(48_000).unwrap()), Begins::WithMedia);
    let mut out = Vec::new();
    cutter.config(codec(b"sound"));
    for number in 0..2 {
        cutter.boundary(0, boundary(number), &mut out);
    }
    for pts in [100, 10_100, 20_100] {
        cutter.unit(AccessUnit { dts: pts, pts, ..frame(0, true) }, &mut out);
    }
    let starts = out.iter().filter_map(|entry| match entry {
        Entry::Boundary(boundary) => {
            Some((boundary.start, boundary.program_date_time_ms, boundary.independent))
        }
        _ => None,
    });
    // A date is that of the first sample: 100 and 5,100 ticks after the source's.
    assert_eq!(starts.collect::<Vec<_>>(), [(100, 2, true), (20_100, 1 + 106, true)]);
}

#[test]
fn the_end_leaves_no_part_of_unknown_length() {
    let mut rung = Rung::new();
    rung.cut(0..4).frames(0..5);
    rung.cutter.finish(&mut rung.out);
    assert_eq!(rung.told(), "g7 c 0.0!+++++ 0.1- 0.2-");
}

#[derive(Debug, Clone)]
enum Event {
    Cut,
    Frames(usize),
    Lose(usize),
    Restart,
    Late(i64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => Just(Event::Cut),
        6 => (1..8_usize).prop_map(Event::Frames),
        1 => (1..4_usize).prop_map(Event::Lose),
        1 => Just(Event::Restart),
        1 => (-6..0_i64).prop_map(Event::Late),
    ];
    prop::collection::vec(event, 1..200)
}

proptest! {
    /// Whatever is lost, late or restarted: the boundaries are a run of the source's, units rise and lie in their part,
    /// and nothing is written that needs what was not.
    #[test]
    fn whatever_happens_the_rung_is_cut_as_its_source(events in events()) {
        let mut rung = Rung::new();
        let (mut cut, mut next) = (0, 0);
        // What children gave, the newest last, and where each began.
        let (mut given, mut began): (Vec<i64>, Vec<usize>) = (Vec::new(), vec![0]);
        for event in events {
            match event {
                Event::Cut => { rung.cut([cut]); cut += 1; }
                Event::Frames(count) => for _ in 0..count {
                    // No picture comes before the source's own was cut.
                    if next < cut * PART {
                        // As a name of the child and its picture.
                        let data = Bytes::from(given.len().to_string());
                        let key = next % (PART * SEGMENT) == 0;
                        rung.cutter.unit(AccessUnit { data, ..frame(next, key) }, &mut rung.out);
                        given.push(next);
                        next += 1;
                    }
                },
                Event::Lose(count) => {
                    for _ in 0..count {
                        // An encoder that lost a key gives the next picture as one.
                        next += i64::from(next % (PART * SEGMENT) != 0);
                    }
                }
                Event::Restart => {
                    rung.cutter.begin();
                    began.push(given.len());
                    next = next / (PART * SEGMENT) * PART * SEGMENT;
                }
                Event::Late(parts) => rung.cutter.late((cut + parts) * PART * FRAME, &mut rung.out),
            }
        }
        rung.cutter.finish(&mut rung.out);

        let mut expected: Option<i64> = None;
        let (mut last, mut end) = (i64::MIN, i64::MAX);
        let (mut in_gap, mut decoded) = (true, None);
        for entry in &rung.out {
            match entry {
                Entry::Boundary(told) => {
                    let number = told.start / (PART * FRAME);
                    prop_assert!(expected.is_none_or(|expected| expected == number), "{number} after {expected:?}");
                    prop_assert!(expected.is_some() || told.part == 0);
                    let source = boundary(number);
                    prop_assert_eq!((told.msn, told.part, told.start), (source.msn, source.part, source.start));
                    in_gap = told.gap.is_some();
                    expected = Some(number + 1);
                    end = (number + 1) * PART * FRAME;
                }
                Entry::Unit(unit) => {
                    prop_assert!(!in_gap && unit.pts > last && unit.pts < end);
                    let number: usize = std::str::from_utf8(&unit.data).unwrap().parse().unwrap();
                    let needs = number.checked_sub(1).filter(|_| !unit.key);
                    prop_assert!(unit.key || !began.contains(&number));
                    prop_assert!(needs.is_none() || needs == decoded, "{number} after {decoded:?}");
                    decoded = Some(number);
                    last = unit.pts;
                }
                Entry::Group { .. } | Entry::Config { .. } => {}
            }
        }
    }
}
