//! ffmpeg, as a broadcaster runs it: in real time, for ever, until it is stopped.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use crate::captions::captioned;
use crate::media::{clip, recent_ffmpeg, root};
use crate::poll;
use crate::process::Process;
use crate::server::Tidecast;

/// ffmpeg says goodbye to the server and ends.
const STOP_MAX: Duration = Duration::from_secs(30);

/// Sources of ffmpeg's filters, without a space.
const FLASH: &str = "color=c=black:s=640x360:r=30,drawbox=c=white:t=fill:enable='lt(mod(t,2),0.1)'";
const BEEP: &str = "aevalsrc='if(lt(mod(t,2),0.1),0.6*sin(2*PI*1000*t),0)':s=48000";

pub struct Publisher {
    process: Process,
}

impl Publisher {
    /// Publishes a clip as it is, over and over.
    ///
    /// # Errors
    /// If the clip cannot be made or ffmpeg not be started.
    pub fn of_clip(name: &str, url: &str) -> Result<Self> {
        Self::ffmpeg(&["-re", "-stream_loop", "-1"], name, url)
    }

    /// The same with captions.
    ///
    /// # Errors
    /// As [`Publisher::of_clip`].
    pub fn of_captioned(name: &str, url: &str) -> Result<Self> {
        Self::of_path(Path::new("ffmpeg"), &["-re", "-stream_loop", "-1"], &captioned(name)?, &[], url)
    }

    /// Publishes a clip once, as fast as the server takes it: what people do who forget `-re`.
    ///
    /// # Errors
    /// As [`Publisher::of_clip`].
    pub fn of_file(name: &str, url: &str) -> Result<Self> {
        Self::ffmpeg(&[], name, url)
    }

    /// Publishes every track of a clip by Enhanced RTMP, over and over, with an ffmpeg that speaks it.
    ///
    /// # Errors
    /// As [`Publisher::of_clip`], or if `scripts/setup.sh test` has not installed that ffmpeg.
    pub fn of_enhanced_clip(name: &str, url: &str) -> Result<Self> {
        let fourccs = ["-rtmp_enhanced_codecs", "avc1,hvc1,av01,vp09,mp4a,Opus,fLaC"];
        let output = [["-map", "0"], fourccs].concat();
        Self::start(&recent_ffmpeg()?, &["-re", "-stream_loop", "-1"], name, &output, url)
    }

    /// Publishes a moving picture and a tone by WHIP, with an ffmpeg that speaks it. A keyframe every two seconds.
    ///
    /// # Errors
    /// If ffmpeg cannot be started, or `scripts/setup.sh test` has not installed that one.
    pub fn of_whip(url: &str, key: &str) -> Result<Self> {
        Self::of_whip_sources(
            "testsrc2=size=640x360:rate=30",
            "sine=frequency=440:sample_rate=48000",
            url,
            key,
        )
    }

    /// As [`Publisher::of_whip`]: black and silent, but for a flash and a beep of a tenth of a second, both at once, every two seconds.
    ///
    /// # Errors
    /// As [`Publisher::of_whip`].
    pub fn of_whip_flashes(url: &str, key: &str) -> Result<Self> {
        Self::of_whip_sources(FLASH, BEEP, url, key)
    }

    /// The same by RTMP.
    ///
    /// # Errors
    /// If ffmpeg cannot be started.
    pub fn of_flashes(url: &str) -> Result<Self> {
        let encoders =
            "-c:v libx264 -preset ultrafast -tune zerolatency -g 60 -pix_fmt yuv420p -c:a aac -ac 2";
        let arguments = format!("-f lavfi -i {FLASH} -re -f lavfi -i {BEEP} {encoders}");
        Self::of_arguments(&arguments, url)
    }

    /// `picture` and `sound` are sources of ffmpeg's filters.
    fn of_whip_sources(picture: &str, sound: &str, url: &str, key: &str) -> Result<Self> {
        let mut command = Command::new(recent_ffmpeg()?);
        command.args("-nostdin -hide_banner -loglevel info -nostats".split(' '));
        for source in [picture, sound] {
            // What the handshake took is not made up: five per cent faster than time is faster than a browser plays.
            command.args(["-re", "-readrate_catchup", "1", "-f", "lavfi", "-i", source]);
        }
        command
            .args("-c:v libx264 -profile:v high -preset ultrafast -tune zerolatency -bf 0 -g 60".split(' '));
        command.args("-pix_fmt yuv420p -b:v 800k -c:a libopus -ac 2 -b:a 96k -f whip".split(' '));
        command.args(["-authorization", key, url]);
        Ok(Self { process: Process::spawn("ffmpeg", &mut command)? })
    }

    /// Publishes what ffmpeg makes of these arguments, which say all between `-re` and the address.
    ///
    /// # Errors
    /// If ffmpeg cannot be started.
    pub fn of_arguments(arguments: &str, url: &str) -> Result<Self> {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-hide_banner", "-loglevel", "info", "-nostats", "-re"]);
        command.args(arguments.split_whitespace()).args(["-flush_packets", "1", "-f", "flv", url]);
        Ok(Self { process: Process::spawn("ffmpeg", &mut command)? })
    }

    fn ffmpeg(input: &[&str], name: &str, url: &str) -> Result<Self> {
        Self::start(Path::new("ffmpeg"), input, name, &[], url)
    }

    fn start(ffmpeg: &Path, input: &[&str], name: &str, output: &[&str], url: &str) -> Result<Self> {
        Self::of_path(ffmpeg, input, &clip(name)?, output, url)
    }

    fn of_path(ffmpeg: &Path, input: &[&str], clip: &Path, output: &[&str], url: &str) -> Result<Self> {
        let mut command = Command::new(ffmpeg);
        command.args(["-nostdin", "-hide_banner", "-loglevel", "info", "-nostats"]).args(input).arg("-i");
        command.arg(clip).args(["-c", "copy"]).args(output);
        command.args(["-flush_packets", "1", "-f", "flv", url]);
        Ok(Self { process: Process::spawn("ffmpeg", &mut command)? })
    }

    /// Publishes the film with the wall clock and the frame number burned in; see `scripts/publish.sh`.
    ///
    /// # Errors
    /// If the script cannot be started.
    pub fn of_clock(clip_name: &str, url: &str) -> Result<Self> {
        Self::of_clock_with(clip_name, url, &[])
    }

    /// The same; after that many seconds all its timestamps leap by 100 s, in the middle of a connection.
    ///
    /// # Errors
    /// If the script cannot be started.
    pub fn of_clock_that_leaps(clip_name: &str, url: &str, after_s: u64) -> Result<Self> {
        Self::of_clock_with(clip_name, url, &["--leap", &after_s.to_string()])
    }

    fn of_clock_with(clip_name: &str, url: &str, more: &[&str]) -> Result<Self> {
        // The clip is made now, so that the time it takes is not the time of the publisher's start.
        clip(clip_name)?;
        let mut command = Command::new(root().join("scripts/publish.sh"));
        command.args([url, "--clip", clip_name, "--size", "640x360", "--bitrate", "900", "--frame-number"]);
        command.args(more);
        Ok(Self { process: Process::spawn("publisher", &mut command)? })
    }

    /// What `publish` makes, again and again, as an encoder tries that finds its name taken, until `server` lets it in.
    ///
    /// # Errors
    /// If `publish` fails, or nobody is let in `within` that time.
    pub fn once_free(
        server: &Tidecast,
        within: Duration,
        publish: impl Fn() -> Result<Self>,
    ) -> Result<Self> {
        let let_in = || server.log().iter().filter(|line| line.ends_with("rtmp::conn: publishing")).count();
        let before = let_in();
        poll::until("the name to be free", within, || {
            let publisher = publish()?;
            poll::until("an answer", within, || {
                Ok((let_in() > before || publisher.process.has_ended()).then_some(()))
            })?;
            Ok((let_in() > before).then_some(publisher))
        })
    }

    /// Ends it in order: the server is told.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(mut self) -> Result<()> {
        self.process.terminate();
        self.process.wait(STOP_MAX).map(drop)
    }

    /// Ends it as a crash or a lost network does: nobody is told.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// Stands still, with its connection open: what a half-open connection looks like from the other end.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Goes on after [`Publisher::freeze`], and sends at once what it could not.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Waits until it gives up by itself, and returns what it said.
    ///
    /// # Errors
    /// If it goes on publishing.
    pub fn refused(mut self, within: Duration) -> Result<String> {
        self.process.wait(within)?;
        Ok(self.process.lines().join("\n"))
    }
}
