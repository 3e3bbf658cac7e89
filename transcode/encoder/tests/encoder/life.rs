//! Start, end, refusals, and what is between a child and its worker.

use std::fs;
use std::path::Path;

use pipe::{AudioJob, AudioTarget, FaultClass, FromEncoder, Job, ToEncoder, VideoJob};
use serde_json::Value;

use crate::child::{Child, command, encode, ladder, lone_rung, with_plugins};
use crate::clip::clip;

fn refusal(mut child: Child, job: Job) -> (FaultClass, String) {
    child.send(&ToEncoder::Job(job));
    let outcome = child.finish();
    assert_eq!(outcome.status.and_then(|status| status.code()), Some(1), "{}", outcome.said);
    assert_eq!(outcome.encoder, None);
    let fault = outcome.faults.into_iter().next().expect("it says why");
    assert!(fault.class.ends());
    (fault.class, fault.text)
}

#[test]
fn a_missing_decoder_is_told_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugins = ["coreelements", "app", "videoparsersbad", "videoconvertscale", "x264"];
    let child = Child::spawn(&mut with_plugins(folder.path(), &plugins));
    let (class, text) = refusal(child, ladder(&clip("hevc")).into());
    assert_eq!(class, FaultClass::MissingDecoder);
    assert_eq!(text, "no decoder for HEVC: there is no avdec_h265; install gstreamer1.0-libav");
}

#[test]
fn a_missing_encoder_is_told_in_words() {
    let (clip, encoders) = (clip("plain"), vec!["nvh264enc".to_owned(), "no such".to_owned()]);
    let child = Child::spawn(&mut command());
    let (class, text) = refusal(child, VideoJob { encoders, ..ladder(&clip) }.into());
    assert_eq!(class, FaultClass::MissingEncoder);
    assert!(text.starts_with("no encoder of H.264: none of nvh264enc, no such is here"), "{text}");
}

#[test]
fn what_is_no_job_is_told_in_words() {
    let (plain, aac) = (clip("plain"), clip("aac"));
    let (class, text) = refusal(
        Child::spawn(&mut command()),
        VideoJob { source: aac.codec.clone(), ..ladder(&plain) }.into(),
    );
    assert_eq!((class, text.as_str()), (FaultClass::Protocol, "AAC is no video"));
    let audio = AudioJob {
        source: plain.codec.clone(),
        timescale: 90_000,
        target: AudioTarget::Opus,
        rate: 48_000,
        channels: 2,
        kbit_s: 96,
    };
    let (class, text) = refusal(Child::spawn(&mut command()), audio.into());
    assert_eq!((class, text.as_str()), (FaultClass::Protocol, "H.264 is no audio"));

    let mut child = Child::spawn(&mut command());
    child.send(&ToEncoder::End);
    let outcome = child.finish();
    assert_eq!(outcome.faults[0].text, "the first message is no job");
}

/// A new sequence header may change the size, never the codec.
#[test]
fn another_codec_in_the_middle_is_refused() {
    let mut child = Child::start(ladder(&clip("plain")));
    child.send(&ToEncoder::Config(clip("hevc").codec.clone()));
    let outcome = child.finish();
    assert_eq!(outcome.faults[0].class, FaultClass::Protocol);
    assert_eq!(outcome.faults[0].text, "H.264 cannot become HEVC within a job");
}

/// A spare that nobody needed, and a worker that died in the middle of a job.
#[test]
fn a_child_ends_with_its_worker() {
    let mut spare = Child::spawn(&mut command());
    spare.hang_up();
    assert!(spare.finish().status.is_some_and(|status| status.success()));

    let clip = clip("plain");
    let mut child = Child::start(lone_rung(&clip));
    clip.units[..30].iter().for_each(|unit| child.send(&ToEncoder::Unit(unit.clone())));
    child.hang_up();
    assert_eq!(child.finish().status.and_then(|status| status.code()), Some(1));
}

/// Codecs in C print when they please. What they print must not come between the messages.
#[test]
fn what_libraries_print_goes_to_standard_error() {
    let clip = clip("plain");
    let mut child = Child::start(lone_rung(&clip));
    assert!(matches!(child.next(), Some(FromEncoder::Ready { .. })));
    let descriptor =
        |number: u8| fs::read_link(format!("/proc/{}/fd/{number}", child.id())).expect("it is open");
    assert_eq!(descriptor(0), Path::new("/dev/null"));
    assert_eq!(descriptor(1), descriptor(2));
    child.send(&ToEncoder::End);
    child.finish().assert_clean();
}

/// The worker stops reading: the child stops too, instead of filling its memory.
#[test]
fn a_worker_that_does_not_read_is_waited_for() {
    use std::io::Write;
    use std::process::Stdio;
    let clip = clip("plain");
    let mut process = command()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut input = process.stdin.take().expect("it is piped");
    rustix::io::ioctl_fionbio(&input, true).expect("a pipe can be made not to wait");
    let mut message = Vec::new();
    pipe::write_message(&mut message, &ToEncoder::Job(ladder(&clip).into())).expect("sound");
    // Far more than pipes and queues hold.
    let enough = 400;
    let mut taken = 0;
    'full: for unit in clip.units.iter().cycle().take(enough) {
        pipe::write_message(&mut message, &ToEncoder::Unit(unit.clone())).expect("sound");
        while !message.is_empty() {
            match input.write(&message) {
                Ok(bytes) => drop(message.drain(..bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let mut ready = [rustix::event::PollFd::new(&input, rustix::event::PollFlags::OUT)];
                    let patience = rustix::event::Timespec { tv_sec: 3, tv_nsec: 0 };
                    if rustix::event::poll(&mut ready, Some(&patience)).expect("it can be asked") == 0 {
                        break 'full;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
        taken += 1;
    }
    process.kill().expect("it runs");
    process.wait().expect("it was killed");
    assert!(taken < enough, "it read {taken} units and more, with nobody to take what it makes");
}

#[test]
fn encoders_of_this_machine_pass_their_probe() {
    let output = command().arg("probe").output().expect("it runs");
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).expect("text");
    let verdicts: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for encoder in ["x264enc", "openh264enc"] {
        let verdict = verdicts.iter().find(|verdict| verdict["encoder"] == encoder).expect("it is here");
        assert_eq!(verdict["works"], true, "{verdict}");
    }
    // What is not here is not told of.
    assert!(verdicts.iter().all(|verdict| verdict["encoder"] != "nvh264enc"), "{lines}");
}

/// A driver that cannot do what it says fails with a reason, not with the machine.
#[test]
fn an_encoder_that_fails_its_probe_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    // Without the parser behind it.
    let mut without = with_plugins(folder.path(), &["coreelements", "app", "x264"]);
    let output = without.arg("probe").output().expect("it runs");
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("one line");
    assert_eq!(verdict["works"], false);
    assert_eq!(verdict["why"], "there is no GStreamer element h264parse; install gstreamer1.0-plugins-bad");
}

/// The rung of last resort where x264 is not installed.
#[test]
fn openh264_does_the_same_job() {
    let clip = clip("plain");
    let job = VideoJob { encoders: vec!["openh264enc".to_owned()], ..ladder(&clip) };
    let outcome = encode(job, clip.messages());
    outcome.assert_clean();
    assert_eq!(outcome.encoder.as_deref(), Some("openh264enc"));
    for rung in outcome.inits().into_keys() {
        assert_eq!(outcome.stamps(rung), clip.stamps());
        assert_eq!(outcome.keys(rung), clip.keys());
    }
}
