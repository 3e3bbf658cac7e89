//! Benchmarks of what Tidecast promises about speed, memory and delay.
//!
//!   packaging ──────┐ in this process, on synthetic media (synthetic.rs)
//!   part-delay ─────┤
//!   seal ───────────┤
//!   relay ──────────┤
//!   edge-egress ────┤
//!   held ───────────┤ both: the call in this process, the memory of the release binary
//!   one-publisher ──┤ the release binary (process.rs) beside nginx (nginx.rs), with real ffmpeg
//!   requests ───────┤
//!   latency ────────┘ the release binary, real ffmpeg, real Chromium
//!   ladder            the release encoder beside ffmpeg
//!   rungs             the release binary with an encoder, beside itself without
//!   whep              the release binary with a crowd of viewers by WebRTC
//!   placement         in this process: the edges of a large cluster
//!   control-plane     the release binary in a cluster with a real NATS
//!   soak              the release binary for an hour, under a load that comes and goes; only when it is named
//!
//! CPU time, not wall time, wherever the question allows it: other work on the machine then disturbs little. What is
//! compared is measured in turn within one run. Each benchmark prints a table; one missed target makes exit code 1.

mod client;
mod control_plane;
mod edge_egress;
mod held;
mod http;
mod ladder;
mod latency;
mod measure;
mod nginx;
mod node;
mod one_publisher;
mod packaging;
mod part_delay;
mod placement;
mod playlist;
mod process;
mod relay_cpu;
mod relay_hop;
mod requests;
mod rungs;
mod seal;
mod soak;
mod synthetic;
mod table;
mod whep;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::measure::load_average;
use crate::table::Table;

struct Benchmark {
    name: &'static str,
    about: &'static str,
    run: fn(&Options) -> Result<Vec<Table>>,
}

const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "packaging",
        about: "CPU time per access unit and per part, from the log to the playlist",
        run: packaging::run,
    },
    Benchmark {
        name: "part-delay",
        about: "from the last unit of a part to the answer of a held blocking reload",
        run: part_delay::run,
    },
    Benchmark {
        name: "seal",
        about: "CPU time per packet for a WebRTC viewer, beside the cipher alone",
        run: seal::run,
    },
    Benchmark {
        name: "relay",
        about: "CPU time of a node per byte for its children beside a bare TLS write loop, and what a hop delays",
        run: |options| Ok([relay_cpu::run(options)?, relay_hop::run(options)?].concat()),
    },
    Benchmark {
        name: "placement",
        about: "CPU time to choose the edge of every stream of a large cluster, and again when one is gone",
        run: placement::run,
    },
    Benchmark {
        name: "control-plane",
        about: "messages at NATS for each live stream, with long parts and short ones",
        run: control_plane::run,
    },
    Benchmark {
        name: "edge-egress",
        about: "what an edge costs its origin, with 1 viewer, 100 and 2,000",
        run: edge_egress::run,
    },
    Benchmark {
        name: "held",
        about: "5,000 connections that hold a blocking reload: the publishing call, renderings, memory",
        run: held::run,
    },
    Benchmark {
        name: "one-publisher",
        about: "CPU time and memory with one 720p30 publisher and one viewer, beside nginx-rtmp",
        run: one_publisher::run,
    },
    Benchmark {
        name: "latency",
        about: "capture to display in Chromium on the watch page, and time to the first picture",
        run: latency::run,
    },
    Benchmark {
        name: "ladder",
        about: "CPU time, picture and start of the encoder with a ladder, beside ffmpeg with the same",
        run: ladder::run,
    },
    Benchmark {
        name: "rungs",
        about: "what a ladder costs the server beside its encoder, how late its renditions are, and how soon it is back",
        run: rungs::run,
    },
    Benchmark {
        name: "whep",
        about: "viewers by WebRTC: CPU time per packet beside the bare seal and send, memory, joins, delay",
        run: whep::run,
    },
    Benchmark {
        name: "requests",
        about: "playlists and parts served per CPU second, beside nginx with static files",
        run: requests::run,
    },
    Benchmark {
        name: SOAK,
        about: "whether memory stays flat while publishers and viewers come and go (an hour: only when named)",
        run: soak::run,
    },
];

/// Left out unless it is asked for.
const SOAK: &str = "soak";

/// Measures Tidecast. Needs release binaries: TIDECAST_BIN and TIDECAST_ENCODER_BIN, or what cargo built beside this
/// program.
#[derive(Parser)]
#[command(about, max_term_width = 100)]
struct Options {
    /// Benchmarks to run; all of them but soak without a name
    #[arg(value_parser = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect::<Vec<_>>())]
    names: Vec<String>,
    /// Shorter rounds, for a first look: the figures are rougher, and the memory is not judged
    #[arg(long)]
    quick: bool,
    /// How long the soak lasts
    #[arg(long, default_value_t = 60)]
    minutes: u32,
    /// Plays a soak again; without it, another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// Be the process that benchmark `whep` compares with
    #[arg(long, hide = true)]
    serve_broadcast: bool,
    /// Print the names of the benchmarks, and end
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.serve_broadcast {
        return match whep::serve_broadcast() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if options.list {
        for Benchmark { name, about, .. } in BENCHMARKS {
            println!("{name:15} {about}");
        }
        return ExitCode::SUCCESS;
    }
    let wanted = |benchmark: &&Benchmark| {
        let named = options.names.iter().any(|name| name == benchmark.name);
        named || (options.names.is_empty() && benchmark.name != SOAK)
    };
    let mut bad = Vec::new();
    for Benchmark { name, about, run } in BENCHMARKS.iter().filter(wanted) {
        let before = load_average();
        println!("\n== {name}: {about}");
        match run(&options) {
            Ok(tables) => {
                tables.iter().for_each(|table| print!("{table}"));
                bad.extend(
                    tables
                        .iter()
                        .map(Table::misses)
                        .filter(|misses| *misses > 0)
                        .map(|misses| format!("{name}: {misses} missed")),
                );
            }
            Err(error) => {
                println!("   failed: {error:#}");
                bad.push(format!("{name}: failed"));
            }
        }
        println!("   load average {before} before, {} after", load_average());
    }
    if bad.is_empty() {
        println!("\nevery target met");
        return ExitCode::SUCCESS;
    }
    println!("\n{}", bad.join("; "));
    ExitCode::FAILURE
}
