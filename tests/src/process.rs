//! A child process whose output is kept line by line, and which never outlives the test that started it.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
    /// Of the test, as its thread is called.
    test: String,
}

impl Process {
    /// Starts `command` with both outputs caught.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name}: cannot start {:?}", command.get_program()))?;
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|output| Box::new(output) as _),
            child.stderr.take().map(|output| Box::new(output) as _),
        ];
        let log = Arc::new(Log::default());
        log.state.lock().expect("no reader panics").open_outputs = outputs.len();
        for output in outputs.into_iter().flatten() {
            let log = Arc::clone(&log);
            thread::spawn(move || log.read(output));
        }
        let test = thread::current().name().unwrap_or("test").replace("::", "-");
        Ok(Self { name: name.to_owned(), child, log, test })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line from which `pick` makes something; lines from before the call count too.
    ///
    /// # Errors
    /// If the process ends or `within` passes before; the error shows what it said instead.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        within: Duration,
        pick: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + within;
        let mut state = self.log.state.lock().expect("no reader panics");
        let mut seen = 0;
        loop {
            if let Some(found) = state.lines.iter().skip(seen).find_map(|line| pick(line)) {
                return Ok(found);
            }
            seen = state.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.open_outputs == 0 {
                let why =
                    if left.is_zero() { format!("not within {within:?}") } else { "it ended".to_owned() };
                bail!("{}: no {what}: {why}; it said:\n{}", self.name, state.lines.join("\n"));
            }
            state = self.log.changed.wait_timeout(state, left).expect("no reader panics").0;
        }
    }

    /// Everything said so far, on both outputs.
    #[must_use]
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.state.lock().expect("no reader panics").lines.clone()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.log.state.lock().expect("no reader panics").open_outputs == 0
    }

    /// Asks the process to end. That it ended already is no error.
    pub(crate) fn terminate(&self) {
        let _gone_already = kill_process(Pid::from_child(&self.child), Signal::TERM);
    }

    /// Ends it without asking, and waits until it is gone.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill")?;
        self.child.wait().context("cannot wait").map(drop)
    }

    /// # Errors
    /// If it is gone already.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("cannot signal")
    }

    /// # Errors
    /// If the process still runs after `within`.
    pub(crate) fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        // Its outputs close when it ends: a way to wait with a limit.
        let deadline = Instant::now() + within;
        let mut state = self.log.state.lock().expect("no reader panics");
        while state.open_outputs > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{}: still running after {within:?}; it said:\n{}", self.name, state.lines.join("\n"));
            }
            state = self.log.changed.wait_timeout(state, left).expect("no reader panics").0;
        }
        drop(state);
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // For who looks for what made a scenario fail.
        if let Some(folder) = env::var_os("SCENARIO_LOGS").map(PathBuf::from) {
            let file = folder.join(format!("{}.{}.{}.log", self.test, self.name, self.child.id()));
            let _ = fs::write(file, self.lines().join("\n"));
        }
    }
}

#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    open_outputs: usize,
}

impl Log {
    fn read(&self, output: impl Read) {
        let mut reader = BufReader::new(output);
        let mut bytes = Vec::new();
        // Not `lines()`: ffmpeg may print what is no UTF-8.
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(count) if count > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            self.state.lock().expect("no reader panics").lines.push(line);
            self.changed.notify_all();
            bytes.clear();
        }
        self.state.lock().expect("no reader panics").open_outputs -= 1;
        self.changed.notify_all();
    }
}
