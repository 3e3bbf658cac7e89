//! The pages are built by npm, not by cargo: say so when they are not there yet.

use std::path::Path;

fn main() {
    // Hashed names change with their content, so the folder has to be watched, not only the files embedded last.
    println!("cargo::rerun-if-changed=dist");
    let pages = [
        "dist/index.html",
        "dist/watch.html",
        "dist/embed.html",
        "dist/connect.html",
        "dist/studio.html",
        "dist/operator/operator.html",
    ];
    if pages.iter().any(|page| !Path::new(page).is_file()) {
        println!(
            "cargo::error=player-demo/dist is missing: run `make build` (or `npm ci && npm run build` in player-demo)"
        );
    }
}
