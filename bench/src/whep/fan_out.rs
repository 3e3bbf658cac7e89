//! CPU time of each packet that a crowd is sent, beside the floor in turn, round after round.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::broadcast::Broadcast;
use super::crowd::Crowd;
use super::{Ours, SETTLED, floor, viewer};
use crate::Options;
use crate::measure::{Samples, micros, sleep};
use crate::process::Usage;
use crate::table::{Table, Target};

const RATIO_MAX: f64 = 1.3;
const CPU_S_PER_VIEWER_MINUTE_MAX: f64 = 0.045;
const KB_PER_VIEWER_MAX: f64 = 100.0;

/// Who sends to a crowd.
pub(super) trait Sends {
    fn usage(&self) -> Result<Usage>;

    /// Fails if it has ended, or whom it has its pictures from.
    fn check(&mut self) -> Result<()>;

    /// It is sent nothing meanwhile.
    fn pause(&self, pauses: bool) -> Result<()>;
}

/// Sender and crowd.
pub(super) struct Stage<S> {
    pub(super) sender: S,
    pub(super) crowd: Crowd,
}

impl<S: Sends> Stage<S> {
    /// CPU seconds of the sender while it lasts, and what the viewers were sent meanwhile.
    fn window(&mut self, window: Duration) -> Result<Window> {
        let before = (self.sender.usage()?, self.crowd.look(true)?);
        let _before_that = self.crowd.watched();
        sleep(window);
        let after = (self.sender.usage()?, self.crowd.look(true)?);
        self.sender.check()?;
        let sum = |of: fn(&viewer::Seen) -> u64| {
            let sum = |seen: &[viewer::Seen]| seen.iter().map(of).sum::<u64>();
            (sum(&after.1) - sum(&before.1)) as f64
        };
        let longest_gap = after.1.iter().map(|seen| seen.longest_gap).max().unwrap_or_default();
        Ok(Window {
            cpu_s: after.0.cpu_s - before.0.cpu_s,
            sent: sum(|seen| seen.sent),
            received: sum(|seen| seen.packets),
            bytes: sum(|seen| seen.bytes),
            longest_gap,
            seconds: window.as_secs_f64(),
        })
    }

    /// In turn with the floor.
    fn rounds(&mut self, viewers: usize, options: &Options) -> Result<Rounds> {
        let (count, window) =
            if options.quick { (1, Duration::from_secs(5)) } else { (4, Duration::from_secs(6)) };
        sleep(SETTLED);
        let alone = self.window(window)?;
        let memory_before = self.sender.usage()?.resident_mb;
        let joined = self.crowd.join(viewers, Duration::from_millis(10))?;
        let addresses: Vec<_> = joined.iter().map(|joined| joined.address).collect();
        let mut rounds = Rounds { viewers, alone_cpu_s: alone.cpu_s, count, window, ..Rounds::default() };
        for round in 0..count {
            sleep(SETTLED);
            let seen = self.window(window)?;
            if round == 0 {
                rounds.memory_mb = self.sender.usage()?.resident_mb - memory_before;
            }
            rounds.count(&seen);
            let groups = floor::groups(&self.crowd.watched());
            ensure!(!groups.is_empty(), "the first viewer saw no picture");
            self.sender.pause(true)?;
            sleep(Duration::from_millis(500));
            let sent = floor::send(&groups, &addresses)?;
            self.sender.pause(false)?;
            rounds.floor.push(micros(sent.cpu) / sent.packets as f64);
            rounds.late = rounds.late.max(sent.late);
        }
        Ok(rounds)
    }
}

struct Window {
    cpu_s: f64,
    sent: f64,
    received: f64,
    bytes: f64,
    longest_gap: Duration,
    seconds: f64,
}

/// What some windows have shown, and the floor between them.
#[derive(Default)]
struct Rounds {
    viewers: usize,
    count: usize,
    window: Duration,
    alone_cpu_s: f64,
    /// Microseconds per packet.
    sender: Samples,
    floor: Samples,
    /// CPU seconds per viewer and minute.
    minute: Samples,
    gaps_ms: Samples,
    memory_mb: f64,
    mbits: f64,
    lost: f64,
    late: Duration,
}

impl Rounds {
    fn count(&mut self, seen: &Window) {
        let cpu_s = seen.cpu_s - self.alone_cpu_s;
        let viewers = self.viewers as f64;
        self.sender.push(cpu_s * 1e6 / seen.sent);
        self.minute.push(cpu_s * 60.0 / seen.seconds / viewers);
        self.gaps_ms.push(micros(seen.longest_gap) / 1e3);
        self.lost += seen.sent - seen.received;
        self.mbits = seen.bytes * 8.0 / 1e6 / seen.seconds / viewers;
    }

    fn ratio(&self) -> f64 {
        self.sender.median() / self.floor.median()
    }

    fn kb_per_viewer(&self) -> f64 {
        self.memory_mb * 1e3 / self.viewers as f64
    }

    fn table(&self, of: &str) -> Table {
        let title = format!("{} viewers at {:.1} Mbit/s{of}", self.viewers, self.mbits);
        let mut table = Table::new(title, &["figure", "ratio"]);
        table.tell("floor: seal and send, CPU us per packet", &[self.floor.median()]);
        table
    }

    fn note(&self) -> String {
        format!(
            "{} rounds of {:?}, taking turns; {:.0} packets lost on the way; the floor was {:?} late at worst; \
             without viewers the sender takes {:.3} CPU s in that time, which is taken off",
            self.count, self.window, self.lost, self.late, self.alone_cpu_s
        )
    }
}

/// What was promised of us.
pub(super) fn ours(stage: &mut Stage<Ours>, viewers: usize, options: &Options) -> Result<Table> {
    let rounds = stage.rounds(viewers, options)?;
    let mut table = rounds.table("");
    let figure = |limit| Target { column: 0, limit };
    table.judge(
        "server, CPU us per packet",
        &[rounds.sender.median(), rounds.ratio()],
        Target { column: 1, limit: RATIO_MAX },
    );
    let minute = &[rounds.minute.median()];
    table.judge("server, CPU s per viewer and minute", minute, figure(CPU_S_PER_VIEWER_MINUTE_MAX));
    table.judge("server, resident KB per viewer", &[rounds.kb_per_viewer()], figure(KB_PER_VIEWER_MAX));
    table.tell("longest without a picture, ms", &[rounds.gaps_ms.max()]);
    table.note(rounds.note());
    Ok(table)
}

/// What others need for the same.
pub(super) fn others(viewers: usize, options: &Options) -> Result<Table> {
    let broadcast = Broadcast::start()?;
    let crowd = Crowd::new(broadcast.http, Broadcast::path());
    let rounds = Stage { sender: broadcast, crowd }.rounds(viewers, options)?;
    let mut table = rounds.table(", by `webrtc` as in its example `broadcast`");
    table.tell("webrtc, CPU us per packet", &[rounds.sender.median(), rounds.ratio()]);
    table.tell("webrtc, CPU s per viewer and minute", &[rounds.minute.median()]);
    table.tell("webrtc, resident KB per viewer", &[rounds.kb_per_viewer()]);
    table.tell("longest without a picture, ms", &[rounds.gaps_ms.max()]);
    table.note(rounds.note());
    table.note("pictures alone, which viewers tell it nothing of but receiver reports: it numbers none of its packets for more");
    Ok(table)
}
