//! Our side: the child as its worker uses it, as fast as it goes.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use media::CodecConfig;
use pipe::{Codec, FrameRate, FromEncoder, Job, Rung, ToEncoder, VideoJob, read_message, write_message};

use super::source::Source;
use crate::process::encoder_binary;

pub(super) struct Encoder {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Of a whole clip.
pub(super) struct Encoded {
    pub(super) cpu: Duration,
    pub(super) bytes: u64,
}

impl Encoder {
    /// A spare: started, and waiting for a job.
    pub(super) fn spawn() -> Result<Self> {
        let mut command = Command::new(encoder_binary()?);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().with_context(|| format!("{:?}", command.get_program()))?;
        let input = process.stdin.take().context("it is piped")?;
        let output = BufReader::new(process.stdout.take().context("it is piped")?);
        Ok(Self { process, input, output })
    }

    /// From the job on until the first picture of every rung is there.
    pub(super) fn first_pictures(
        mut self,
        source: &Source,
        frame_rate: u32,
        rungs: &[Rung],
    ) -> Result<Duration> {
        let begun = Instant::now();
        write_message(&mut self.input, &job(source, frame_rate, rungs))?;
        write_message(&mut self.input, &ToEncoder::Unit(source.units[0].clone()))?;
        let mut outstanding = rungs.len();
        while outstanding > 0 {
            match read_message(&mut self.output)? {
                Some(FromEncoder::Unit(_)) => outstanding -= 1,
                Some(FromEncoder::Fault(fault)) => bail!("{}", fault.text),
                Some(_) => {}
                None => bail!("the encoder ended"),
            }
        }
        Ok(begun.elapsed())
    }

    /// The whole clip. The units of each rung go into `folder` as a stream with start codes, by the rung's number.
    pub(super) fn encode(
        mut self,
        source: &Source,
        frame_rate: u32,
        rungs: &[Rung],
        folder: &Path,
    ) -> Result<Encoded> {
        let (input, output) = (&mut self.input, &mut self.output);
        thread::scope(|scope| {
            let writer = scope.spawn(move || -> std::io::Result<()> {
                write_message(input, &job(source, frame_rate, rungs))?;
                for unit in &source.units {
                    write_message(input, &ToEncoder::Unit(unit.clone()))?;
                }
                write_message(input, &ToEncoder::End)
            });
            let mut files = Vec::new();
            for rung in rungs {
                files.push((rung.number, File::create(folder.join(format!("{}.h264", rung.number)))?));
            }
            let (mut cpu, mut bytes, mut units) = (Duration::ZERO, 0, 0);
            while let Some(message) = read_message(output)? {
                let (rung, stream) = match message {
                    FromEncoder::RungConfig { rung, codec } => (rung, parameter_sets(&codec)?),
                    FromEncoder::Unit(unit) => {
                        bytes += unit.data.len() as u64;
                        units += 1;
                        (unit.rung, with_start_codes(&unit.data))
                    }
                    FromEncoder::Progress(progress) => {
                        cpu = progress.cpu;
                        continue;
                    }
                    FromEncoder::Fault(fault) => bail!("{}", fault.text),
                    FromEncoder::Ready { .. } | FromEncoder::Machine(_) => continue,
                };
                let file = files
                    .iter_mut()
                    .find(|(number, _)| *number == rung)
                    .context("a rung of its own making")?;
                file.1.write_all(&stream)?;
            }
            writer.join().expect("writing does not panic")?;
            ensure!(units == source.units.len() * rungs.len(), "{units} pictures came out");
            Ok(Encoded { cpu, bytes })
        })
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn job(source: &Source, frame_rate: u32, rungs: &[Rung]) -> ToEncoder {
    ToEncoder::Job(Job::Video(VideoJob {
        source: Codec::from(&source.config),
        timescale: 90_000,
        frame_rate: FrameRate { numerator: frame_rate, denominator: 1 },
        encoders: vec!["x264enc".to_owned()],
        rungs: rungs.to_vec(),
    }))
}

const START_CODE: [u8; 4] = [0, 0, 0, 1];

fn with_start_codes(unit: &[u8]) -> Vec<u8> {
    let (mut stream, mut rest) = (Vec::with_capacity(unit.len()), unit);
    while let Some((length, after)) = rest.split_first_chunk() {
        let Some((nal, after)) = after.split_at_checked(u32::from_be_bytes(*length) as usize) else { break };
        stream.extend(START_CODE);
        stream.extend_from_slice(nal);
        rest = after;
    }
    stream
}

/// The one of each kind that x264 writes, out of the `avcC` (ISO/IEC 14496-15, §5.3.3.1).
fn parameter_sets(codec: &Codec) -> Result<Vec<u8>> {
    let CodecConfig::H264(config) = codec.config()? else { bail!("a rung that is not H.264") };
    let (_, after) = config.avcc().split_at_checked(6).context("an avcC")?;
    let (mut stream, mut rest) = (Vec::new(), after);
    for behind in [1, 0] {
        let (length, after) = rest.split_first_chunk().context("an avcC")?;
        let nal;
        (nal, rest) = after.split_at_checked(usize::from(u16::from_be_bytes(*length))).context("an avcC")?;
        stream.extend(START_CODE);
        stream.extend_from_slice(nal);
        rest = rest.get(behind..).unwrap_or_default();
    }
    Ok(stream)
}
