//! A child and the worker's side of the pipe.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pipe::{
    Codec, Fault, FrameRate, FromEncoder, Job, Preset, Progress, Rung, RungUnit, ToEncoder, VideoJob,
    read_message, write_message,
};

use crate::clip::Clip;

/// For one message, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tidecast-encoder"))
}

/// With only these plugins of the machine's, and none of the others.
pub(crate) fn with_plugins(folder: &Path, names: &[&str]) -> Command {
    let plugins = folder.join("plugins");
    fs::create_dir(&plugins).expect("a fresh folder");
    let installed = gstreamer_plugins();
    for name in names {
        let file = format!("libgst{name}.so");
        symlink(Path::new(&installed).join(&file), plugins.join(&file)).expect("a fresh folder");
    }
    let mut command = command();
    command.env("GST_PLUGIN_SYSTEM_PATH_1_0", &plugins).env("GST_REGISTRY", folder.join("registry.bin"));
    command
}

fn gstreamer_plugins() -> String {
    let arguments = ["--variable=pluginsdir", "gstreamer-1.0"];
    let output = Command::new("pkg-config").args(arguments).output().expect("it built us");
    String::from_utf8(output.stdout).expect("a path").trim().to_owned()
}

pub(crate) struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    messages: Receiver<FromEncoder>,
    said: Option<JoinHandle<String>>,
}

impl Child {
    pub(crate) fn start(job: impl Into<Job>) -> Self {
        let mut child = Self::spawn(&mut command());
        child.send(&ToEncoder::Job(job.into()));
        child
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the executable starts");
        let (sender, messages) = channel();
        let mut output = BufReader::new(process.stdout.take().expect("it is piped"));
        thread::spawn(move || {
            while let Some(message) = read_message(&mut output).expect("it writes nothing but messages") {
                let _the_test_is_over = sender.send(message);
            }
        });
        let mut words = process.stderr.take().expect("it is piped");
        let said = thread::spawn(move || {
            let mut said = String::new();
            words.read_to_string(&mut said).expect("words are text");
            said
        });
        let input = process.stdin.take();
        Self { process, input, messages, said: Some(said) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn send(&mut self, message: &ToEncoder) {
        let input = self.input.as_mut().expect("not hung up");
        write_message(input, message).expect("the child reads");
    }

    /// What may fail, if the child is expected to end.
    pub(crate) fn try_send(&mut self, message: &ToEncoder) -> bool {
        self.input.as_mut().is_some_and(|input| write_message(input, message).is_ok())
    }

    pub(crate) fn hang_up(&mut self) {
        self.input = None;
    }

    /// `None` when the child closed its side.
    pub(crate) fn next(&self) -> Option<FromEncoder> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.messages.recv_timeout(PATIENCE) {
            Ok(message) => Some(message),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("no message within {PATIENCE:?}"),
        }
    }

    /// All that is still to come.
    pub(crate) fn finish(mut self) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some(message) = self.next() {
            outcome.take(message);
        }
        outcome.status = Some(self.process.wait().expect("it can be waited for"));
        outcome.said = self.said.take().expect("once").join().expect("reading does not panic");
        outcome
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// What a child said, sorted.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) encoder: Option<String>,
    pub(crate) configs: BTreeMap<u16, Vec<Codec>>,
    pub(crate) units: BTreeMap<u16, Vec<RungUnit>>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) progress: Option<Progress>,
    pub(crate) status: Option<ExitStatus>,
    pub(crate) said: String,
}

impl Outcome {
    fn take(&mut self, message: FromEncoder) {
        match message {
            FromEncoder::Ready { encoder } => self.encoder = Some(encoder),
            FromEncoder::RungConfig { rung, codec } => {
                assert!(!self.units.contains_key(&rung) || self.configs.contains_key(&rung));
                self.configs.entry(rung).or_default().push(codec);
            }
            FromEncoder::Unit(unit) => {
                assert!(self.configs.contains_key(&unit.rung), "a unit before its configuration");
                self.units.entry(unit.rung).or_default().push(unit);
            }
            FromEncoder::Progress(progress) => self.progress = Some(progress),
            FromEncoder::Fault(fault) => self.faults.push(fault),
            FromEncoder::Machine(machine) => panic!("{machine:?}, which is nothing for a child to say"),
        }
    }

    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.faults, [], "it said: {}", self.said);
        assert!(self.status.is_some_and(|status| status.success()), "{:?}: {}", self.status, self.said);
    }

    pub(crate) fn stamps(&self, rung: u16) -> Vec<i64> {
        self.units.get(&rung).into_iter().flatten().map(|unit| unit.pts).collect()
    }

    pub(crate) fn keys(&self, rung: u16) -> Vec<i64> {
        self.units.get(&rung).into_iter().flatten().filter(|unit| unit.key).map(|unit| unit.pts).collect()
    }

    /// Of each rung, which has one and keeps it.
    pub(crate) fn inits(&self) -> BTreeMap<u16, &Codec> {
        self.configs
            .iter()
            .map(|(rung, configs)| {
                assert_eq!(configs.len(), 1, "rung {rung} changed its configuration");
                (*rung, &configs[0])
            })
            .collect()
    }
}

/// A whole job: everything in, then the end.
pub(crate) fn encode(job: impl Into<Job>, messages: impl IntoIterator<Item = ToEncoder>) -> Outcome {
    encode_with(&mut command(), job, messages)
}

pub(crate) fn encode_with(
    command: &mut Command,
    job: impl Into<Job>,
    messages: impl IntoIterator<Item = ToEncoder>,
) -> Outcome {
    let mut child = Child::spawn(command);
    child.send(&ToEncoder::Job(job.into()));
    messages.into_iter().for_each(|message| child.send(&message));
    child.send(&ToEncoder::End);
    child.finish()
}

/// Three rungs below 640x360, out of order; numbers are not positions.
pub(crate) const RUNGS: [Rung; 3] = [
    Rung { number: 2, width: 320, height: 180, kbit_s: 300, preset: Preset::Superfast, every: 1 },
    Rung { number: 5, width: 480, height: 270, kbit_s: 500, preset: Preset::Superfast, every: 1 },
    Rung { number: 9, width: 160, height: 90, kbit_s: 150, preset: Preset::Superfast, every: 1 },
];

pub(crate) fn ladder(clip: &Clip) -> VideoJob {
    VideoJob {
        source: clip.codec.clone(),
        timescale: clip.timescale,
        frame_rate: FrameRate { numerator: 30, denominator: 1 },
        encoders: vec!["x264enc".to_owned()],
        rungs: RUNGS.to_vec(),
    }
}

/// The same with one small rung, where one is enough.
pub(crate) fn lone_rung(clip: &Clip) -> VideoJob {
    VideoJob { rungs: vec![RUNGS[2]], ..ladder(clip) }
}
